// --- Tables that sort ---------------------------------------------------------------------
const isBelow = (row) => ["mean", "paper", "bound"].includes(row[0].kind); // rows that stay under ours
function compareEntries(a, b, way) {
  const [x, y] = [a.value, b.value];
  if (!known(x) || !known(y)) return known(x) ? -1 : known(y) ? 1 : 0;
  return way * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
}
function rowNode(row, best) {
  return make("tr", { class: isBelow(row) ? row[0].kind : null }, row.map((entry, i) =>
    make(entry.kind === "head" || (i < 2 && isBelow(row)) ? "th" : "td", { class: i && best[i] === entry ? "best" : null, scope: entry.kind === "head" ? "row" : null },
      make("span", { class: "num" }, entry.text), entry.small.map((line) => make("small", null, line)))));
}
// The highest value of our rows, in tables of judges and methods.
function bestOf(table) {
  if (!table.rows.length || table.rows[0][1].kind !== "head") return [];
  return table.columns.map((_, c) => {
    const entries = table.rows.filter((row) => !isBelow(row)).map((row) => row[c]).filter((e) => e && typeof e.value === "number");
    return entries.length > 1 ? entries.reduce((a, b) => b.value > a.value ? b : a) : null;
  });
}
function tableNode(table) {
  const body = make("tbody"), best = bestOf(table);
  let sorted = null, way = -1;
  const fill = () => {
    const ours = table.rows.filter((row) => !isBelow(row)), below = table.rows.filter(isBelow);
    if (sorted !== null) ours.sort((a, b) => compareEntries(a[sorted], b[sorted], way));
    body.replaceChildren(...[...ours, ...below].map((row) => rowNode(row, best)));
  };
  const heads = table.columns.map((title, c) => make("th", { scope: "col", "aria-sort": "none" }, make("button", { type: "button", onclick: () => {
    way = sorted === c ? -way : typeof table.rows[0]?.[c]?.value === "string" ? 1 : -1;
    sorted = c;
    heads.forEach((head, i) => head.setAttribute("aria-sort", i === c ? (way > 0 ? "ascending" : "descending") : "none"));
    fill();
  } }, title)));
  fill();
  const scroll = make("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": table.title || "table" },
    make("table", { class: "results" }, make("thead", null, make("tr", null, heads)), body));
  const parts = [scroll, table.note ? make("p", { class: "soft under" }, table.note) : null];
  if (table.folded) return make("details", { class: "folded" }, make("summary", null, table.title || "More"), parts);
  return make("div", null, table.title ? make("h3", null, table.title) : null, parts);
}

// --- Claims --------------------------------------------------------------------------------
const VERDICT = { holds: "yes", "does not hold": "no", "in part": "part", "not shown": "open", "no data": "none" };
const verdict = (word) => make("span", { class: `verdict ${VERDICT[word]}` }, word);
function claimNode(claim) {
  const counts = claim.parts.length ? make("details", null, make("summary", null, claim.summary),
    make("p", { class: "soft" }, claim.rule),
    make("div", { class: "scroll" }, make("table", { class: "parts" }, make("tbody", null, claim.parts.map((part) =>
      make("tr", null, make("td", null, verdict(part.verdict)), make("td", null, part.label), make("td", { class: "num" }, part.figures))))))) :
    make("p", { class: "soft" }, `${claim.summary}. ${claim.rule}`);
  return make("article", { class: "card claim" },
    make("div", { class: "claim-head" }, verdict(claim.verdict), make("h4", null, claim.text), make("small", null, `paper: ${claim.sources}`)), counts);
}
