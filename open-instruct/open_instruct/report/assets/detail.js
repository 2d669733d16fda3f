
// --- One rollout, and its group side by side ---------------------------------------------
const hasEcho = (sample) => sample.response.pieces.length > 1;

function promptBox(item) {
  return textBox("Prompt", promptOf(item).flatMap((turn) => [make("span", { class: "role" }, turn.role), turn.text, cutNote(turn)]));
}
const responseBox = (sample) => textBox(hasEcho(sample) ? "Response, with what it repeats of the instruction" : "Response",
  marked(sample.response, "echo"), cutNote(sample.response));

function factsOfSample(sample) {
  const facts = [["status", sample.status], ["finish reason", sample.finish], ["verifier", sample.verifiers.join(", ")],
    ["prompt", sample.group], ["sample", sample.sample], ["score", known(sample.score) ? sample.score.toFixed(3) : "missing"],
    ["reward", sample.reward], ["advantage", known(sample.advantage) ? sample.advantage : "none, left out of the loss"], ["echo", sample.echo],
    ...Object.entries(sample.reported).map(([name, v]) => [name.replaceAll("_", " "), v]), ["tokens", sample.tokens],
    ["judge time", known(sample.judge_s) ? `${plain(sample.judge_s)} s` : null], ["weights version", sample.weights]];
  if (sample.split !== "train") facts.splice(7, 1); // evaluations have no advantage
  return make("dl", { class: "meta" }, facts.filter(([, v]) => known(v) && v !== "").map(([k, v]) => make("div", null, make("dt", null, k),
    make("dd", { class: "num" }, typeof v === "number" ? String(+v.toPrecision(4)) : v))));
}

function comparison(sample) {
  if (sample.overlap) {
    const { real, inferred, counts: [shared, nReal, nInferred] } = sample.overlap;
    const f1 = shared ? 2 * shared / (nReal + nInferred) : 0;
    return [make("div", { class: "pair" },
      textBox("Real instruction", marked(real), cutNote(real)), textBox("Instruction that the judge inferred", marked(inferred), cutNote(inferred))),
    make("p", { class: "overlap num" }, `${shared} shared words, marked: ${shared} of ${nReal} real (recall ${score(nReal ? shared / nReal : 0)}), ${shared} of ${nInferred} inferred (precision ${score(nInferred ? shared / nInferred : 0)}), F1 ${score(f1)}. Case, punctuation and articles do not count.`)];
  }
  if (!sample.truth) return [];
  return [make("div", { class: "pair" }, textBox("Ground truth", sample.truth.text, cutNote(sample.truth)),
    textBox("Instruction that the judge inferred", make("span", { class: "none" }, "none")))];
}

function detailOf(sample) {
  const parts = [factsOfSample(sample), make("div", { class: "pair" }, promptBox(sample), responseBox(sample)), comparison(sample)];
  for (const [title, part] of [["Judge's reasoning", sample.reasoning], ["Judge's error", sample.error]])
    if (part) parts.push(make("div", { class: "one" }, textBox(title, part.text, cutNote(part))));
  const group = sample.siblings, others = samples.filter((s) => s.prompt === sample.prompt).length;
  const actions = make("p", { class: "actions" });
  if (group.samples.length > 1) {
    const compare = make("button", { type: "button", onclick: () => compare.replaceWith(sideBySide(group, sample)) }, `Compare the ${group.samples.length} samples of this group`);
    actions.append(compare);
  }
  if (others > group.samples.length) actions.append(make("button", { type: "button", onclick: () => showOnly("this prompt", (s) => s.prompt === sample.prompt) },
    `This prompt ${several ? "in all runs and steps" : "over the run"} (${others} samples)`));
  if (actions.childElementCount) parts.push(actions);
  return parts.flat();
}

// The samples of a prompt next to each other, best first, with what each is worth to the loss.
function sideBySide(group, current) {
  const best = [...group.samples].sort((a, b) => (b.score ?? -Infinity) - (a.score ?? -Infinity));
  return make("div", { class: "siblings", role: "group", "aria-label": "Samples of this prompt" }, best.map((s) => make("article", { class: s === current ? "sibling current" : "sibling" },
    make("header", null, make("b", null, `#${s.sample ?? "?"}`), scoreCell(s),
      known(s.advantage) ? make("span", { class: `num ${s.advantage < 0 ? "worse" : "better"}` }, `advantage ${signed(s.advantage)}`) : s.split === "train" ? make("span", { class: "none" }, "no loss") : null,
      make("span", { class: "soft num" }, [known(s.tokens) ? `${whole(s.tokens)} tokens` : null, s.finish !== "stop" ? s.finish : null].filter(Boolean).join(", "))),
    make("div", { class: "body", tabindex: 0, dir: "auto" }, marked(s.response, "echo"), cutNote(s.response)),
    s.overlap ? make("div", { class: "body inferred", dir: "auto" }, make("span", { class: "role" }, "inferred"), marked(s.overlap.inferred), cutNote(s.overlap.inferred)) : null)));
}
