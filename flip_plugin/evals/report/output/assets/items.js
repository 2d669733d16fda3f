const PAGE = 20; // items at a time

// --- Single items ----------------------------------------------------------------------------
function inferredOf(item, r) {
  return item.inferred.map((one) => {
    const reply = one.responses[r];
    if (!reply) return null;
    return make("div", { class: "inferred" }, make("span", { class: "role" }, `${one.judge} inferred, seed ${one.seed}${known(reply.score) ? `, score ${reply.score.toFixed(3)}` : ""}${reply.echo ? `, echo ${reply.echo.toFixed(2)}` : ""}`),
      reply.status ? make("span", { class: "pill" }, reply.status) : make("div", { dir: "auto" }, marked(reply.inferred), cutNote(reply.inferred)));
  });
}
function responseCard(item, text, r) {
  const right = item.right ? item.right[r] : null;
  return make("article", { class: "sibling" },
    make("header", null, make("b", null, `Response ${r + 1}`), right === null ? null : make("span", { class: right ? "better" : "worse" }, right ? "right" : "wrong")),
    make("div", { class: "body", tabindex: 0, dir: "auto" }, text || make("span", { class: "none" }, "empty")), inferredOf(item, r));
}
function scoreTable(item) {
  const bad = (row) => Object.entries(row.bad).map(([name, n]) => `${name} ${n}`).join(", ");
  return make("div", { class: "scroll" }, make("table", { class: "scores" },
    make("thead", null, make("tr", null, ["Judge", "Method", ...item.responses.map((_, r) => `Response ${r + 1}${item.right ? (item.right[r] ? " (right)" : "") : ""}`), "Without a score"].map((t) => make("th", { scope: "col" }, t)))),
    make("tbody", null, item.scores.map((row) => make("tr", null, make("th", { scope: "row" }, row.judge), make("th", { scope: "row" }, row.method),
      row.means.map((mean, r) => make("td", { class: `num${row.picks[r] === Math.max(...row.picks) && row.picks[r] ? " best" : ""}` },
        known(mean) ? mean.toFixed(3) : "–", make("small", null, ` picked ${row.picks[r]}/${row.runs}`))),
      make("td", { class: "soft" }, bad(row)))))));
}
function targetOf(item) {
  const first = item.inferred.flatMap((one) => one.responses).find((reply) => reply && reply.target);
  return first ? textBox("What FLIP is to recover (shared words marked for response 1)", marked(first.target), cutNote(first.target)) : null;
}
function itemDetail(item) {
  return [make("div", { class: "pair" }, textBox("Prompt", item.prompt.flatMap(([role, text]) => [make("span", { class: "role" }, role), text])), targetOf(item)),
    scoreTable(item),
    make("div", { class: "siblings" }, item.responses.map((text, r) => responseCard(item, text, r))),
    item.more > 0 ? make("p", { class: "soft" }, `${item.more} more responses are not in this page.`) : null];
}
function itemRow(item) {
  const detail = make("td", { class: "detail" }), below = make("tr", { hidden: true }, detail);
  const last = item.prompt.length ? item.prompt[item.prompt.length - 1][1] : "";
  const button = make("button", { type: "button", class: "open-row", "aria-expanded": "false", onclick: () => {
    const open = below.hidden;
    if (open && !detail.childNodes.length) detail.append(...itemDetail(item).filter(known));
    below.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
  } }, make("span", { class: "pill fine" }, item.kind), " ", make("span", { class: "soft" }, [item.run, item.subset].filter(Boolean).join(" · ")), " ", make("span", { dir: "auto" }, last.slice(0, 140)));
  return [make("tr", { class: "row" }, make("td", null, button)), below];
}
function items() {
  const { rows, total, kinds } = data.items;
  byId("items-section").hidden = !rows.length;
  if (!rows.length) return;
  const form = byId("filters");
  fillSelect(form.elements.run, rows.map((r) => r.run));
  fillSelect(form.elements.subset, rows.map((r) => r.subset));
  fillSelect(form.elements.kind, rows.map((r) => r.kind).sort((a, b) => kinds.indexOf(a) - kinds.indexOf(b)));
  let shown = PAGE;
  const show = () => {
    const text = form.elements.text.value.toLowerCase();
    const fits = (r, name) => ["", `=${r[name]}`].includes(form.elements[name].value);
    const matching = rows.filter((r) => fits(r, "run") && fits(r, "subset") && fits(r, "kind") && (!text || [...r.prompt.map((turn) => turn[1]), ...r.responses].some((t) => t.toLowerCase().includes(text))));
    byId("rows").replaceChildren(...matching.slice(0, shown).flatMap(itemRow));
    byId("more").hidden = matching.length <= shown;
    byId("count").textContent = `${matching.length} of ${rows.length} items in this page, out of ${total} judged ones; chosen evenly over what happened to them`;
    byId("empty").hidden = matching.length > 0;
  };
  const anew = () => { shown = PAGE; show(); };
  form.addEventListener("input", anew);
  form.addEventListener("reset", () => setTimeout(anew, 0));
  byId("more").querySelector("button").addEventListener("click", () => { shown += PAGE; show(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
