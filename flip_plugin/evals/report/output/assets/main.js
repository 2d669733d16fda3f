// --- The page ------------------------------------------------------------------------------
function sectionNode(section) {
  const charts = make("div", { class: "charts two" });
  const node = make("section", { "aria-labelledby": section.id }, make("h2", { id: section.id }, section.title),
    section.intro ? make("p", { class: "soft" }, section.intro) : null, charts, section.tables.map(tableNode));
  return { node, charts, section };
}
function drawAll(placed) {
  for (const { charts, section } of placed) charts.replaceChildren(...section.charts.map(drawn).filter(known));
}
function paperBody() {
  const { sources, setup, figures } = data.paper;
  const head = (titles) => make("thead", null, make("tr", null, titles.map((t) => make("th", { scope: "col" }, t))));
  return [
    make("dl", { class: "sources" }, sources.map((s) => make("div", null, make("dt", null, s.key, " ", make("span", { class: s.kind === "primary" ? "pill fine" : "pill" }, s.kind)), make("dd", null, s.what)))),
    make("details", { class: "folded" }, make("summary", null, `All ${figures.length} figures that were looked for`), make("div", { class: "card scroll" }, make("table", { class: "figures" }, head(["What", "Method", "Value", "Note"]),
      make("tbody", null, figures.map((f) => make("tr", null, make("th", { scope: "row" }, f.what), make("td", null, f.method), make("td", { class: "num" }, f.value || make("span", { class: "none" }, "not found")), make("td", null, make("small", null, f.note)))))))),
    make("details", { class: "folded" }, make("summary", null, "How the paper measured"), make("ul", null, setup.map(([item, value, letters]) => make("li", null, make("b", null, item), `: ${value} (${letters})`)))),
  ];
}
function runBody(run) {
  return make("details", { class: "card fold" }, make("summary", null, run.name, " ", make("small", null, run.what)),
    make("div", { class: "inside" }, run.command ? make("pre", { tabindex: 0 }, run.command) : null,
      run.rules.length ? make("ul", { class: "rules" }, run.rules.map((rule) => make("li", null, rule))) : null,
      make("dl", { class: "config" }, run.facts.map(([name, value]) => make("div", null, make("dt", null, name), make("dd", null, value))))));
}
function main() {
  byId("name").textContent = data.title;
  const sizes = Object.entries(data.sizes).map(([name, size]) => make("span", null, `${name} `, make("b", null, plain(size))));
  byId("about").append(make("span", null, `${data.runs.length} runs`), ...sizes, make("span", null, "All intervals are 95%"));
  byId("notes").hidden = !data.notes.length;
  byId("notes").append(...data.notes.map((note) => make("li", null, note)));
  byId("claim-list").append(...data.claims.map(claimNode));
  const placed = data.sections.map(sectionNode);
  byId("sections").append(...placed.map((one) => one.node));
  drawAll(placed);
  const links = [["claims", "Claims"], ...data.sections.map((s) => [s.id, s.title]), ...(data.items.rows.length ? [["items", "Single items"]] : []), ["paper", "Paper"], ["made", "How it was made"]];
  byId("nav").append(...links.map(([id, title]) => make("a", { href: `#${id}` }, title)));
  items();
  byId("paper-body").append(...paperBody());
  byId("made-body").append(...data.runs.map(runBody));
  byId("footer").textContent = `Written ${data.written} by flip eval report.`;
  let drawnAt = innerWidth, waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (innerWidth !== drawnAt) { drawnAt = innerWidth; drawAll(placed); } }, 150);
  });
}
main();
