
// --- Configuration -----------------------------------------------------------------------
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const changed = (flag) => !("default" in flag) || flag.values.some((value) => known(value) && !same(value, flag.default));
const differs = (flag) => flag.values.some((value) => !same(value, flag.values[0]));
function valueText(value) {
  if (!known(value) || value === "" || (Array.isArray(value) && !value.length)) return "–";
  if (Array.isArray(value) && value.every((item) => typeof item !== "object")) return value.join(" ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

function flagRow(flag) {
  const given = several && !differs(flag) ? flag.values.slice(0, 1) : flag.values;
  const fallback = "default" in flag && changed(flag) && valueText(flag.default) !== "–" ? make("small", null, `default ${valueText(flag.default)}`) : null;
  return make("div", { class: changed(flag) ? "set" : null, title: flag.help }, make("dt", null, flag.name),
    make("dd", { class: given.length > 1 ? "each" : null }, given.map((value, i) => make("span", null, given.length > 1 ? [runKey(i), " "] : null, valueText(value))), fallback));
}

function fold(title, rows, open) {
  return make("details", { class: "card fold", open }, make("summary", null, title), make("dl", { class: "config" }, rows));
}

function nested(title, value, out) {
  const flat = Object.entries(value).filter(([, v]) => !(v && typeof v === "object" && !Array.isArray(v)));
  if (flat.length) out.push([title, flat]);
  for (const [name, v] of Object.entries(value)) if (!flat.some(([k]) => k === name)) nested(title ? `${title} / ${name}` : name, v, out);
  return out;
}

function configuration() {
  const { groups, facts } = data.config, flags = groups.flatMap((group) => group.flags);
  const box = byId("config"), first = several ? flags.filter(differs) : [], set = flags.filter(changed);
  if (several) box.append(fold(`Differs between the runs (${first.length})`, first.map(flagRow), true));
  if (flags.length) box.append(fold(`Differs from the default (${set.length})`, set.map(flagRow), !several));
  const rest = make("div", { class: "folds" });
  box.append(rest);
  for (const group of groups) {
    const count = group.flags.filter(changed).length;
    rest.append(fold(`${group.title} (${group.flags.length}${count ? `, ${count} set` : ""})`, group.flags.map(flagRow), false));
  }
  facts.forEach((fact, i) => {
    for (const [title, entries] of nested("", fact, [])) {
      const rows = entries.map(([name, value]) => make("div", null, make("dt", null, name), make("dd", null, valueText(value))));
      rest.append(fold([several ? runs[i].name : null, title.replaceAll("_", " ") || "command and rows"].filter(Boolean).join(": "), rows, false));
    }
  });
  if (!rest.childElementCount) box.append(make("p", { class: "about" }, "No configuration."));
}
