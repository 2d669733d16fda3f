// --- Numbers as people read them ---------------------------------------------------------
function plain(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / (size >= 1e9 ? 1e9 : 1e6)).toPrecision(3)}${size >= 1e9 ? "B" : "M"}`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  if (size < 0.001) return value.toExponential(1);
  return String(+value.toPrecision(3));
}
const percent = (value) => (100 * value).toFixed(1);
const units = { share: percent, plain };

// A method keeps its colour in every chart; what has none gets the next free one.
const COLOURS = { flip: 0, pointwise: 1, listwise: 2, pairwise: 3, "flip+penalise": 4, oracle: 5, random: 5, "flip+strip": 7, rlvr: 6, none: 5, "flip+f1": 0 };
function colourOf(name, place, taken) {
  if (name in COLOURS) return COLOURS[name];
  const free = [0, 1, 2, 3, 4, 6, 7, 5].filter((c) => !taken.includes(c));
  return free.length ? free[0] : place % 8;
}
function colours(series) {
  if (series.some((s) => s.like)) return series.map((s, i) => s.like in COLOURS ? COLOURS[s.like] : 4 + (i % 4)); // what has one reward shares a colour
  const given = series.map((s) => (s.name in COLOURS ? COLOURS[s.name] : null));
  return series.map((s, i) => (given[i] === null ? (given[i] = colourOf(s.name, i, given)) : given[i]));
}
