
// --- Header and summary ------------------------------------------------------------------
const runs = data.runs, several = runs.length > 1;
// A run keeps its colour in every chart and in the table.
const runColour = (run) => run % 8;
const runKey = (run) => make("span", { class: `key b${runColour(run)}`, title: runs[run].name });

const TILES = 4; // evaluation metrics with a tile; the others are a line
const evalUnit = (values) => values.every((v) => Math.abs(v) <= 1) ? score : plain;
function firstToLast({ values }) {
  const show = evalUnit(values), last = show(values[values.length - 1]);
  return values.length > 1 ? [make("span", { class: "from" }, `${show(values[0])} → `), last] : [last];
}

function evalTile(metric) {
  const { steps, values, name } = metric, first = values[0], last = values[values.length - 1];
  const show = evalUnit(values);
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  const x = (step) => 3 + 194 * (step - steps[0]) / (steps[steps.length - 1] - steps[0] || 1);
  const y = (value) => 31 - 28 * (value - low) / span;
  const change = last - first, more = values.length > 1;
  return make("div", { class: "card tile" },
    make("div", { class: "label" }, `eval: ${name}`),
    make("div", { class: "value num" }, firstToLast(metric)),
    make("div", { class: "change num" },
      more ? `${change < 0 ? "−" : "+"}${show(Math.abs(change))} from step ${steps[0]} to ${steps[steps.length - 1]}` : `at step ${steps[0]}`),
    more ? make("svg", { viewBox: "0 0 200 34", preserveAspectRatio: "none", "aria-hidden": "true" },
      make("path", { class: "l s1", "vector-effect": "non-scaling-stroke", d: path(steps.map((s, i) => [s, values[i]]), x, y) })) : null);
}

// Label, value and a remark for each fact of a run.
function factsOf({ summary }) {
  const failed = Object.entries(summary.statuses).filter(([name]) => name && name !== "ok").map(([name, n]) => `${name} ${whole(n)}`);
  return [
    ["Steps", whole(summary.steps), known(summary.last_step) && summary.last_step !== summary.steps ? `last is ${summary.last_step}` : ""],
    ["Samples", whole(summary.samples), ""],
    ["Invalid", summary.samples ? percent(summary.missing / summary.samples) : "–", failed.join(", ")],
    ["Training time", known(summary.seconds) ? duration(summary.seconds) : "–", ""],
    ["Median step", known(summary.median_seconds) ? duration(summary.median_seconds) : "–", ""],
    ...(known(summary.judge_hidden) ? [["Judging hidden", percent(summary.judge_hidden), "of its time, median"]] : []),
  ];
}

function oneRun(run) {
  const fact = ([label, value, more]) =>
    make("div", null, make("dt", null, label), make("dd", null, value, more ? make("small", null, more) : null));
  const rest = run.evals.slice(TILES);
  return [
    run.evals.length ? make("div", { class: "tiles" }, run.evals.slice(0, TILES).map(evalTile)) : null,
    rest.length ? make("dl", { class: "facts card num" }, rest.map((metric) => fact([`eval: ${metric.name}`, firstToLast(metric)]))) : null,
    make("dl", { class: "facts card num" }, factsOf(run).map(fact)),
  ];
}

// Several runs: a row each, the best value of an evaluation in bold.
function allRuns() {
  const names = [...new Set(runs.flatMap((run) => run.evals.map((metric) => metric.name)))].slice(0, 6);
  const valueOf = (run, name) => run.evals.find((metric) => metric.name === name);
  const last = (metric) => metric.values[metric.values.length - 1];
  const best = names.map((name) => Math.max(...runs.map((run) => valueOf(run, name)).filter(known).map(last)));
  const cell = (run, name, i) => {
    const metric = valueOf(run, name);
    if (!metric) return make("td", null, "–");
    const first = last(metric) === best[i] && /reward$|scores$|satisfied$|^pass/.test(name);
    return make("td", { class: "num" }, make(first ? "b" : "span", null, evalUnit(metric.values)(last(metric))), make("small", null, ` from ${evalUnit(metric.values)(metric.values[0])}`));
  };
  const facts = runs.map(factsOf), labels = [...new Set(facts.flat().map(([label]) => label))];
  return [make("div", { class: "card scroll" }, make("table", { class: "runs" },
    make("thead", null, make("tr", null, ["Run", ...names.map((name) => `eval: ${name}`), ...labels].map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", null, runs.map((run, r) => make("tr", null,
      make("th", { scope: "row" }, runKey(r), " ", run.name), names.map((name, i) => cell(run, name, i)),
      labels.map((label) => make("td", { class: "num" }, facts[r].find(([l]) => l === label)?.[1] ?? "–")))))))];
}

function header() {
  byId("name").textContent = several ? `${runs.length} runs compared` : data.title;
  if (!several) byId("about").append(...runs[0].about.map(([label, value]) => make("span", null, `${label} `, make("b", null, value))));
  const notes = runs.flatMap((run) => run.notes.map((note) => several ? `${run.name}: ${note}` : note));
  byId("notes").hidden = !notes.length;
  byId("notes").append(...notes.map((note) => make("li", null, note)));
  byId("summary").append(...(several ? allRuns() : oneRun(runs[0])).filter(known));
  byId("footer").textContent = `Written ${data.written} by python -m open_instruct.report.`;
}
