
// --- Numbers as people read them ---------------------------------------------------------
const whole = (value) => Math.round(value).toLocaleString("en");
function plain(value) {
  const size = Math.abs(value);
  if (size >= 10000) return value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 });
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  if (size < 0.001) return value.toExponential(1);
  return String(+value.toPrecision(3));
}
function duration(seconds) {
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${+seconds.toPrecision(3)} s`;
}
const percent = (value) => `${+(100 * value).toPrecision(3)}%`;
const score = (value) => value.toFixed(2);
const signed = (value) => `${value < 0 ? "−" : "+"}${plain(Math.abs(value))}`;
const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
// How a chart's `unit` is read.
const units = { score, share: percent, seconds: (v) => `${plain(v)} s`, count: plain, plain };
