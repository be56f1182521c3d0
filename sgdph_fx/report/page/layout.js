"use strict";
// Where everything stands. Each unfolded module is laid out by dagre on its own, so that what is laid out is small.

const FONT = "12px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
const ROW = 26;
const FOLDED = 44;
const HEAD = 26;
const PADDING = 10;
const pen = document.createElement("canvas").getContext("2d");

function textWidth(text) {
  pen.font = FONT;
  return pen.measureText(text).width;
}

/** The words on a part or a folded module, and the room that they take. */
function face(item) {
  item.face ??= item.children ? moduleFace(item) : partFace(item);
  return item.face;
}

function partFace(part) {
  const named = part.path !== "";
  const name = printable(named ? lastName(part.path) : part.label);
  const kind = named && part.kind !== "parameter" ? printable(part.label) : "";
  const chips = [part.second ? "∂²" : "", part.bare ? "bare" : ""].filter(Boolean);
  const width = 20 + textWidth(name) + (kind ? 8 + textWidth(kind) : 0) + chips.reduce((sum, c) => sum + textWidth(c) + 14, 0);
  return { name, kind, chips, width, height: ROW };
}

function moduleFace(module) {
  const name = printable(module.isGroup ? module.name : lastName(module.path));
  const convolutions = new Set(module.parts.filter((p) => p.kind === "convolution").map((p) => p.row ?? p));
  const bare = new Set(module.parts.filter((p) => p.bare).map((p) => p.row)).size;
  const second = new Set(module.parts.flatMap((p) => p.parameters.filter((row) => row.order === 2))).size;
  const counts = [
    convolutions.size ? `${convolutions.size} conv` : "",
    second ? `${second} ∂²` : "",
    !convolutions.size && !second ? `${module.parts.length} ${module.parts.length === 1 ? "part" : "parts"}` : "",
  ].filter(Boolean).join(" · ");
  const chips = bare ? [`${bare} bare`] : [];
  const kind = printable(module.label);
  const above = 34 + textWidth(name) + 8 + textWidth(kind);
  const below = 34 + textWidth(counts) + chips.reduce((sum, c) => sum + textWidth(c) + 16, 0);
  return { name, kind, counts, chips, second: second > 0, width: Math.max(above, below), height: FOLDED };
}

function headWidth(module) {
  const { name, kind } = face(module);
  return 40 + textWidth(name) + 8 + textWidth(kind);
}

/** Where the children of a module stand in it, and the links between them; kept until it or a child is folded. */
function layoutOf(module) {
  if (module.layout) return module.layout;
  const graph = laidOut(module);
  const links = [...module.links.values()].map((l) => ({ ...l, points: graph.edge(l.from, l.to).points }));
  const nodes = module.children.map((id) => ({ item: itemAt(id), ...graph.node(id) }));
  const ports = ["in", "out"].filter((end) => graph.hasNode(end)).map((end) => [end, graph.node(end)]);
  const { left, width } = extent(graph.graph().width, links);
  for (const point of [...nodes, ...ports.map(([, port]) => port), ...links.flatMap((l) => l.points)]) point.x -= left;
  module.layout = { nodes, links, ports: Object.fromEntries(ports), width, height: graph.graph().height };
  return module.layout;
}

function laidOut(module) {
  const graph = new dagre.Graph();
  graph.setGraph({ rankdir: "TB", ranksep: 18, nodesep: 14, edgesep: 8, marginx: 0, marginy: 0 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const id of module.children) graph.setNode(id, { ...sizeOf(itemAt(id)) });
  for (const { from, to } of module.links.values()) {
    for (const end of [from, to]) if (!graph.hasNode(end)) graph.setNode(end, { width: 1, height: 1 });
    graph.setEdge(from, to);
  }
  try {
    dagre.layout(graph);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    stack(graph); // too tangled for dagre, which calls itself until there is no room
  }
  return graph;
}

/** Everything in one column, in its order. */
function stack(graph) {
  const sizes = graph.nodes().map((id) => graph.node(id));
  const width = sizes.reduce((most, node) => Math.max(most, node.width), 0);
  let y = 0;
  for (const node of sizes) {
    Object.assign(node, { x: width / 2, y: y + node.height / 2 });
    y += node.height + 18;
  }
  for (const { v, w } of graph.edges()) graph.edge(v, w).points = [v, w].map((id) => ({ x: graph.node(id).x, y: graph.node(id).y }));
  Object.assign(graph.graph(), { width, height: y });
}

/** The width with the links, which dagre may lead around the nodes at the border. */
function extent(width, links) {
  const places = links.flatMap((l) => l.points.map((point) => point.x));
  const left = places.reduce((least, x) => Math.min(least, x), 0);
  return { left, width: places.reduce((most, x) => Math.max(most, x), width) - left };
}

function sizeOf(item) {
  if (!item.open) return { width: face(item).width, height: face(item).height };
  const { width, height } = layoutOf(item);
  return { width: Math.max(width + 2 * PADDING, headWidth(item)), height: height + HEAD + PADDING };
}

/** Lay out anew what an item stands in. */
function forgetLayout(item) {
  for (const around of item.chain.map(itemAt)) around.layout = null;
}

function forgetLayouts() {
  for (const module of modules.values()) module.layout = null;
}
