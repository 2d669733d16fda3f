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

// What `flip_plugin.pages.text` cut into pieces: every second one is marked, and what was left out is counted.
const marked = (part, kind) => part.pieces.map((piece, i) => i % 2 ? make("mark", { class: kind }, piece) : piece).filter((piece) => piece !== "");
const cutNote = (part) => part.left_out ? make("span", { class: "cut" }, `… ${whole(part.left_out)} more characters are not in this page.`) : null;

// The options of a filter: each distinct value with its count, in the order of `values`. "=" stands before a value,
// so that the empty one differs from "all".
function fillSelect(select, values, label = (value) => value || "(none)") {
  const counts = new Map();
  values.forEach((value) => counts.set(value, (counts.get(value) || 0) + 1));
  select.replaceChildren(make("option", { value: "" }, "all"),
    ...[...counts].map(([value, n]) => make("option", { value: `=${value}` }, `${label(value)} (${whole(n)})`)));
}
