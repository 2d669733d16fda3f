
// --- Rollouts: filter, sort, list --------------------------------------------------------
const samples = data.rollouts.samples, PAGE = 50;
const form = byId("filters");
// `only` narrows down to one group, or to one prompt: { label, keep }.
let sort = { key: "step", down: true }, matches = [], drawnRows = 0, only = null;

const promptOf = (sample) => data.rollouts.prompts[sample.prompt];
const pieces = (part) => part.pieces.join("");
function haystack(sample) { // made once, when first searched
  sample.hay ??= [...promptOf(sample).map((turn) => turn.text), pieces(sample.response),
    ...(sample.overlap ? [pieces(sample.overlap.real), pieces(sample.overlap.inferred)] : []),
    sample.truth?.text, sample.reasoning?.text, sample.error?.text].filter(Boolean).join("\n").toLowerCase();
  return sample.hay;
}

// Groups as they were written: samples of one prompt, generated together.
const groups = new Map();
for (const sample of samples) {
  const key = `${sample.run} ${sample.place}`;
  if (!groups.has(key)) groups.set(key, { samples: [], run: sample.run, split: sample.split, step: sample.step, prompt: sample.prompt });
  groups.get(key).samples.push(sample);
  sample.siblings = groups.get(key);
}
for (const group of groups.values()) {
  const scores = group.samples.map((s) => s.score).filter(known);
  group.score = scores.length ? mean(scores) : null;
  group.spread = scores.length ? Math.max(...scores) - Math.min(...scores) : null;
  group.missing = group.samples.length - scores.length;
  group.tokens = mean(group.samples.map((s) => s.tokens ?? 0));
}

const COLUMNS = {
  samples: [["Step", "step"], ["Run", null, "of-runs"], ["Split", null, "wide"], ["Score", "score"], ["Advantage", "advantage", "wide"],
    ["Echo", "echo", "wide"], ["Tokens", "tokens", "wide"], ["Judge", "judge_s", "wide"], ["Prompt and response", null]],
  groups: [["Step", "step"], ["Run", null, "of-runs"], ["Split", null, "wide"], ["Mean score", "score"], ["Spread", "spread", "wide"],
    ["Missing", "missing", "wide"], ["Tokens", "tokens", "wide"], ["Samples", null, "wide"], ["Prompt and scores", null]],
};
const WIDTHS = ["w-step", "w-run", "w-split", "w-score", "w-medium", "w-small", "w-small", "w-small", ""];

function drawColumns(kind) {
  byId("columns").replaceChildren(make("tr", null, COLUMNS[kind].map(([label, key, shown], i) => {
    const direction = key && sort.key === key ? (sort.down ? "descending" : "ascending") : key ? "none" : null;
    const content = key ? make("button", { type: "button", "data-sort": key, onclick: () => sortBy(key) }, label) : label;
    return make("th", { class: `${WIDTHS[i]} ${shown || ""}`, scope: "col", "aria-sort": direction }, content);
  })));
}

function sortBy(key) {
  sort = { key, down: sort.key === key ? !sort.down : true };
  select();
  byId("columns").querySelector(`[data-sort="${key}"]`)?.focus();
}

function wanted() {
  const want = Object.fromEntries(new FormData(form)), text = want.text.trim().toLowerCase();
  const bound = (name, otherwise) => want[name] === "" ? otherwise : +want[name];
  const [from, to, low, high] = [bound("from", -Infinity), bound("to", Infinity), bound("low", -Infinity), bound("high", Infinity)];
  const scored = want.low !== "" || want.high !== "";
  return (s) => (!want.run || want.run === `=${s.run}`) && (!want.split || want.split === `=${s.split}`) && (!want.status || want.status === `=${s.status}`)
    && (!want.verifier || s.verifiers.includes(want.verifier.slice(1))) && (s.step ?? 0) >= from && (s.step ?? 0) <= to
    && (!scored || (known(s.score) && s.score >= low && s.score <= high))
    && (!only || only.keep(s)) && (!text || haystack(s).includes(text));
}

const viewed = () => form.elements.view.value;

function select() {
  const kept = samples.filter(wanted());
  matches = viewed() === "groups" ? [...new Set(kept.map((sample) => sample.siblings))] : kept;
  const sign = sort.down ? -1 : 1;
  matches.sort((a, b) => { // what is missing comes last either way
    const [x, y] = [a[sort.key], b[sort.key]];
    return !known(x) || !known(y) ? known(y) - known(x) : sign * (x - y);
  });
  drawColumns(viewed());
  byId("rows").replaceChildren();
  drawnRows = 0;
  showMore();
  count(kept);
}

function count(kept) {
  const scored = kept.filter((s) => known(s.score)), missing = kept.length - scored.length;
  const shown = samples.length < data.rollouts.total
    ? `${whole(samples.length)} of ${whole(data.rollouts.total)} rollouts are in this page: whole groups, those with a missing score first (up to a fifth), then evenly over steps and splits`
    : `all ${whole(samples.length)} rollouts are in this page`;
  byId("count").replaceChildren(...[
    viewed() === "groups" ? `${whole(matches.length)} groups with ` : "",
    `${whole(kept.length)} match`, scored.length ? `, mean score ${score(mean(scored.map((s) => s.score)))}` : "",
    missing ? `, ${whole(missing)} without a score` : "", ` · ${shown}. `,
    only ? make("button", { type: "button", onclick: () => { only = null; select(); } }, `Only ${only.label} ✕`) : ""]);
  byId("empty").hidden = matches.length > 0;
}

function showOnly(label, keep) {
  only = { label, keep };
  select();
  byId("rollouts").scrollIntoView();
}

function showMore() {
  const next = matches.slice(drawnRows, drawnRows + PAGE), row = viewed() === "groups" ? groupRow : sampleRow;
  byId("rows").append(...next.map(row));
  drawnRows += next.length;
  byId("more").hidden = drawnRows >= matches.length;
}

function scoreCell(sample) {
  if (!known(sample.score)) return make("span", { class: "pill" }, sample.status || "no score");
  const fill = make("i");
  fill.style.width = `${100 * Math.min(1, Math.max(0, sample.score))}%`;
  return make("span", { class: "num" }, score(sample.score), make("span", { class: "bar", "aria-hidden": "true" }, fill));
}

const lastTurn = (turns) => turns.length ? turns[turns.length - 1].text : "";
const numberCell = (v, show) => make("td", { class: "wide num" }, known(v) ? show(v) : "–");

// A row that opens: `cells` after the first, which is the step; `detail` makes what it opens to.
function openRow(item, cells, detail) {
  const button = make("button", { type: "button", class: "open-row", "aria-expanded": "false" }, known(item.step) ? String(item.step) : "–");
  const row = make("tr", { class: "row" }, make("td", null, button),
    make("td", { class: "of-runs" }, runKey(item.run), " ", runs[item.run].name), make("td", { class: "wide" }, item.split), cells);
  let opened = null;
  row.toggle = () => {
    if (opened) { opened.remove(); opened = null; } else {
      opened = make("tr", { class: "opened" }, make("td", { class: "detail", colspan: columns() }, detail(item)));
      row.after(opened);
    }
    row.classList.toggle("open", Boolean(opened));
    button.setAttribute("aria-expanded", String(Boolean(opened)));
  };
  row.addEventListener("click", row.toggle);
  return row;
}

function sampleRow(sample) {
  return openRow(sample, [make("td", null, scoreCell(sample)), numberCell(sample.advantage, signed), numberCell(sample.echo, score),
    numberCell(sample.tokens, whole), numberCell(sample.judge_s, (v) => `${plain(v)} s`),
    make("td", { class: "excerpt" }, make("div", { class: "ask" }, lastTurn(promptOf(sample)).slice(0, 200)),
      make("div", null, pieces(sample.response).slice(0, 240) || "(empty response)"))], detailOf);
}

function groupRow(group) {
  const scores = group.samples.map((s) => known(s.score) ? score(s.score) : s.status || "–").join("  ");
  return openRow(group, [make("td", null, scoreCell(group)), numberCell(group.spread, score), numberCell(group.missing, whole),
    numberCell(group.tokens, whole), numberCell(group.samples.length, whole),
    make("td", { class: "excerpt" }, make("div", { class: "ask" }, lastTurn(promptOf(group)).slice(0, 200)), make("div", { class: "num" }, scores))],
  () => [make("div", { class: "one" }, promptBox(group)), sideBySide(group)]);
}

// A narrow page hides some columns, and a cell that spans hidden ones would bring them back.
const columns = () => [...byId("columns").querySelectorAll("th")].filter((cell) => cell.offsetWidth).length;
window.addEventListener("resize", () => {
  if (!byId("columns")) return;  // a run without rollouts has no table
  const span = columns();
  document.querySelectorAll("td.detail").forEach((cell) => { cell.colSpan = span; });
});

function rowKeys(event) {
  const row = event.target.closest("tr.row, tr.opened");
  if (event.key === "Escape" && row) {
    const opener = row.matches(".opened") ? row.previousElementSibling : row;
    if (opener.classList.contains("open")) opener.toggle();
    opener.querySelector(".open-row").focus();
  }
  const by = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  if (!by || !event.target.matches(".open-row")) return;
  event.preventDefault();
  const buttons = [...byId("rows").querySelectorAll(".open-row")], next = buttons.indexOf(event.target) + by;
  if (next === buttons.length && !byId("more").hidden) showMore();
  byId("rows").querySelectorAll(".open-row")[Math.max(0, next)]?.focus();
}

function rollouts() {
  if (!samples.length) { byId("table").replaceChildren(make("div", { class: "empty" }, "No rollouts yet.")); return; }
  document.body.classList.toggle("one-run", !several);
  const { run, split, status, verifier } = form.elements;
  fillSelect(run, samples.map((s) => s.run).sort(), (number) => runs[number].name);
  fillSelect(split, samples.map((s) => s.split).sort());
  fillSelect(status, samples.map((s) => s.status).sort());
  fillSelect(verifier, samples.flatMap((s) => s.verifiers).sort());
  let wait = 0;
  form.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(select, 150); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => { only = null; setTimeout(select); });
  byId("more").firstElementChild.addEventListener("click", showMore);
  byId("rows").addEventListener("keydown", rowKeys);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    form.elements.text.focus();
  });
  select();
}
