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

/** Pick a part, or none; one that is asked for from elsewhere is brought into sight, at a size at which it can be read. */
function pick(part, { show = false } = {}) {
  picked = part;
  if (part && reveal(part)) refreshAfterUnfolding(part);
  showPicked();
  if (part && show) bringIntoSight(drawn.get(part.id));
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
  const title = make("h2", {}, make("code", {}, printable(part.path || part.label)));
  const place = [part.path ? part.label : part.kind, part.shape?.join("×"), part.source].filter(Boolean).join(" · ");
  const below = make("p", { class: "place" }, printable(place));
  return [close, title, below, ...decision(part.row), ...treatments(part.parameters)];
}

function decision(row) {
  if (!row) return [];
  const treatment = row.decouple ? "decoupled" : "kept";
  const badges = make("p", { class: "badges" }, badge(row.verdict), badge(treatment));
  const links = row.norm && partsAt.has(row.norm) ? [jump(row.norm)] : [];
  return [badges, make("p", { class: "reason" }, breakable(reasonOf(row))), ...links];
}

function jump(path) {
  const button = make("button", { type: "button", class: "jump" }, "Go to ", make("code", {}, printable(path)));
  button.addEventListener("click", () => pick(partsAt.get(path)[0], { show: true }));
  return button;
}

function treatments(rows) {
  if (!rows.length) return [];
  const items = rows.map((row) =>
    make("li", {}, make("code", {}, printable(row.name)), badge(orderWords(row.order)), make("span", {}, breakable(reasonOf(row)))));
  return [make("ul", { class: "treatments" }, ...items)];
}

function badge(text) {
  return make("span", { class: `badge ${text.replace(/\W+/g, "-")}` }, text);
}

function orderWords(order) {
  return order === 2 ? "second-order" : "first-order";
}

/** Long names break after a dot, not inside a word. */
function breakable(text) {
  return printable(text).replaceAll(/([./_])(?=\w)/g, "$1\u200b");
}
