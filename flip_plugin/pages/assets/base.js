"use strict";
// Text only ever enters the page as text nodes: what a model or a data set wrote is never parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;

const SVG = new Set(["svg", "path", "line", "circle", "text", "g", "rect", "title"]);
function make(tag, attributes, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter(known));
  return node;
}

// A text with its title; "empty" where there is none.
function textBox(title, ...content) {
  const filled = content.flat(Infinity).some((node) => node && (typeof node !== "string" || node));
  return make("div", { class: "text" }, make("h5", null, title),
    make("div", { class: "body", tabindex: 0, role: "region", "aria-label": title, dir: "auto" }, filled ? content : make("span", { class: "none" }, "empty")));
}

// Round numbers from at or below `low` to at or above `high`, about `count` of them.
function niceTicks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [], first = Math.floor(low / size + 1e-9);
  // Bounded, since a size below the precision of its numbers would never get to the end.
  for (let i = 0; i < 3 * count; i++) {
    ticks.push(+((first + i) * size).toPrecision(12));
    if (ticks[i] >= high - size * 1e-6) break;
  }
  return ticks;
}
