"use strict";
// What is lit, and what is said about the part that was picked.

const detailsPanel = document.getElementById("details");
const graphSection = document.getElementById("graph");
let picked = null;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The parts that a convolution's output passes until its paths end, or none. */
function routeOf(part) {
  const route = part.row && graphView.routes[part.index];
  return new Set(route ? [part.index, ...route] : []);
}

/** Light the ways of these parts as far as they show; without any, nothing is dimmed. */
function light(lit) {
  svg.classList.toggle("lighting", lit.size > 0);
  const shown = new Set([...lit].map((index) => shownAs(parts[index])));
  for (const [id, group] of drawn) group.classList.toggle("lit", shown.has(id));
  for (const { line, edges } of drawnLinks) {
    line.classList.toggle("lit", edges.some(([from, to]) => lit.has(from) && lit.has(to)));
  }
}

/** Id of what stands for a part: itself, or the outermost folded module around it. */
function shownAs(part) {
  return part.chain.find((id) => !id.startsWith("m:") || !itemAt(id).open);
}

function pick(part, { scroll = false } = {}) {
  picked = part;
  if (part && reveal(part)) refreshAfterUnfolding(part.scope);
  showPicked();
  if (part && scroll) scrollTo(drawn.get(part.id));
}

function showPicked() {
  for (const [id, group] of drawn) group.classList.toggle("picked", picked?.id === id);
  light(picked ? routeOf(picked) : new Set());
  detailsPanel.hidden = !picked;
  detailsPanel.replaceChildren(...(picked ? describe(picked) : []));
}

function describe(part) {
  const close = make("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => pick(null));
  const title = make("h2", {}, make("code", {}, part.path || part.label));
  const place = [part.path ? part.label : part.kind, part.shape?.join("×"), part.source].filter(Boolean).join(" · ");
  return [close, title, make("p", { class: "place" }, place), ...decision(part.row), ...treatments(part.parameters)];
}

function decision(row) {
  if (!row) return [];
  const treatment = row.decouple ? "decoupled" : "kept";
  const badges = make("p", { class: "badges" }, badge(row.verdict), badge(treatment));
  const links = row.norm && partsAt.has(row.norm) ? [jump(row.norm)] : [];
  return [badges, make("p", { class: "reason" }, breakable(row.reason)), ...links];
}

function jump(path) {
  const button = make("button", { type: "button", class: "jump" }, "Go to ", make("code", {}, path));
  button.addEventListener("click", () => pick(partsAt.get(path)[0], { scroll: true }));
  return button;
}

function treatments(rows) {
  if (!rows.length) return [];
  const items = rows.map((row) =>
    make("li", {}, make("code", {}, row.name), badge(orderWords(row.order)), make("span", {}, row.reason)));
  return [make("ul", { class: "treatments" }, ...items)];
}

function badge(text) {
  return make("span", { class: `badge ${text.replace(/\W+/g, "-")}` }, text);
}

function orderWords(order) {
  return order === 2 ? "second-order" : "first-order";
}

/** Bring an element of the graph to the middle of its frame, and leave the page itself where it is. */
function scrollTo(element) {
  const frame = document.getElementById("canvas");
  const outer = frame.getBoundingClientRect();
  const inner = element.getBoundingClientRect();
  frame.scrollBy({
    left: inner.left + inner.width / 2 - outer.left - outer.width / 2,
    top: inner.top + inner.height / 2 - outer.top - outer.height / 2,
  });
}
