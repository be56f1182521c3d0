"use strict";
// The laid-out graph as SVG.

const SVG = "http://www.w3.org/2000/svg";
const svg = document.getElementById("svg");
const drawn = new Map();
let drawnLinks = [];

function shape(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const MARGIN = 12;

function drawGraph() {
  drawn.clear();
  drawnLinks = [];
  const root = modules.get("");
  const { width, height } = layoutOf(root);
  const layer = shape("g", { transform: `translate(${MARGIN} ${MARGIN})` });
  drawInside(root, layer);
  svg.replaceChildren(arrowHeads(), layer);
  svg.dataset.width = width + 2 * MARGIN;
  svg.dataset.height = height + 2 * MARGIN;
  svg.setAttribute("viewBox", `0 0 ${svg.dataset.width} ${svg.dataset.height}`);
}

function arrowHeads() {
  const box = { viewBox: "0 0 6 6", refX: 5, refY: 3, markerUnits: "userSpaceOnUse", orient: "auto" };
  const head = (id, size) =>
    shape("marker", { id, markerWidth: size, markerHeight: size, ...box }, shape("path", { d: "M0 0 L6 3 L0 6 z", class: id }));
  return shape("defs", {}, head("tip", 7), head("lit-tip", 11));
}

function drawInside(module, layer) {
  const { nodes, links } = layoutOf(module);
  for (const { from, to, points, edges } of links) {
    const line = shape("path", { d: curve(points), class: to === "out" ? "link" : "link tipped" });
    layer.append(line);
    drawnLinks.push({ line, edges });
  }
  for (const node of nodes) layer.append(drawItem(node));
}

/** A curve through the middles between the points, tangent to the way that dagre found. */
function curve(points) {
  const [first, ...rest] = points;
  if (rest.length < 2) return `M${at(first)} L${at(rest[0])}`;
  const inner = rest.slice(0, -1).map((point, place) => `Q${at(point)} ${at(middle(point, rest[place + 1]))}`);
  return `M${at(first)} L${at(middle(first, rest[0]))} ${inner.join(" ")} L${at(rest.at(-1))}`;
}

const at = ({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`;
const middle = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });

function drawItem({ item, x, y, width, height }) {
  const left = x - width / 2;
  const top = y - height / 2;
  const group = shape("g", { transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})`, "data-id": item.id });
  if (item.open) drawOpen(item, group, width, height);
  else if (item.children) drawFolded(item, group, width, height);
  else drawPart(item, group, width, height);
  drawn.set(item.id, group);
  return group;
}

function button(group, label) {
  group.setAttribute("tabindex", "-1");
  group.setAttribute("role", "button");
  group.setAttribute("aria-label", label);
  group.append(shape("title", {}, label));
}

function drawPart(part, group, width, height) {
  const { name, kind, chips } = face(part);
  const classes = ["part", `is-${part.kind}`, part.second ? "second" : "", part.bare ? "bare" : ""];
  group.setAttribute("class", classes.filter(Boolean).join(" "));
  const said = [printable(part.path || part.label), kind, part.row?.verdict, part.second ? "second-order" : ""];
  button(group, said.filter(Boolean).join(", "));
  group.append(shape("rect", { width, height, rx: part.kind === "input" || part.kind === "output" ? 13 : 5 }));
  let x = word(group, name, 10, 17, "name");
  if (kind) x = word(group, kind, x + 8, 17, "kind");
  for (const text of chips) x = chip(group, text, x + 6, 5);
}

function drawFolded(module, group, width, height) {
  const { name, kind, counts, chips, second } = face(module);
  group.setAttribute("class", `module folded${second ? " second" : ""}${chips.length ? " bare" : ""}`);
  button(group, `${printable(module.path)}, ${kind}, folded: ${counts}`);
  group.setAttribute("aria-expanded", "false");
  group.append(shape("rect", { x: 3, y: 3, width, height, rx: 6, class: "behind" }), shape("rect", { width, height, rx: 6 }));
  word(group, "▸", 10, 18, "fold");
  word(group, kind, word(group, name, 26, 18, "name") + 8, 18, "kind");
  let x = word(group, counts, 26, 35, "counts");
  for (const text of chips) x = chip(group, text, x + 6, 23);
}

function drawOpen(module, group, width, height) {
  const { name, kind } = face(module);
  group.setAttribute("class", "module open");
  group.append(shape("rect", { width, height, rx: 8, class: "frame" }));
  const head = shape("g", { class: "head", "data-fold": module.path });
  button(head, `${printable(module.path)}, ${kind}, unfolded`);
  head.setAttribute("aria-expanded", "true");
  head.append(shape("rect", { width, height: HEAD, rx: 8, class: "hit" }));
  word(head, "▾", 10, 17, "fold");
  word(head, kind, word(head, name, 26, 17, "name") + 8, 17, "kind");
  const hidden = module.hidden ? `, ${module.hidden.toLocaleString("en")} more direct links than are drawn` : "";
  head.querySelector("title").textContent += hidden;
  const inner = layoutOf(module);
  const shift = (width - inner.width) / 2;
  const inside = shape("g", { transform: `translate(${shift.toFixed(1)} ${HEAD})` });
  drawInside(module, inside);
  ports(module, inside, inner);
  group.append(inside, head);
}

/** Short strokes from a module's border to where its own links begin and end. */
function ports(module, inside, inner) {
  const { in: entry, out: exit } = inner.ports;
  if (exit) inside.append(shape("path", { d: `M${at(exit)} L${at({ x: exit.x, y: inner.height + PADDING })}`, class: "link port" }));
  if (entry) inside.append(shape("path", { d: `M${at({ x: entry.x, y: -2 })} L${at(entry)}`, class: "link port" }));
}

function word(group, text, x, y, name) {
  group.append(shape("text", { x, y, class: name }, text));
  return x + textWidth(text);
}

function chip(group, text, x, y) {
  const width = textWidth(text) + 8;
  const kind = text.includes("bare") ? "chip bare" : "chip second";
  group.append(shape("g", { class: kind, transform: `translate(${x} ${y})` },
    shape("rect", { width, height: 16, rx: 4 }), shape("text", { x: 4, y: 12 }, text)));
  return x + width;
}
