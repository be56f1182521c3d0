"use strict";
// The hierarchy: what stands in which module, what flows inside each, and which modules are unfolded.

const modules = new Map();

/** The modules around a scope, from the model itself inwards. */
function holders(scope) {
  const names = scope ? scope.split(".") : [];
  const paths = names.map((_, length) => names.slice(0, length + 1).join("."));
  return ["", ...paths.filter((path) => modules.has(path))];
}

function moduleId(path) {
  return `m:${path}`;
}

function addModules() {
  for (const [path, label] of Object.entries(graphView.modules)) {
    modules.set(path, { path, label, id: moduleId(path), open: path === "", children: [], links: new Map(), parts: [] });
  }
  for (const part of parts) {
    const around = holders(part.scope);
    part.chain = [...around.map(moduleId), part.id];
    around.forEach((path, depth) => {
      const module = modules.get(path);
      module.parts.push(part);
      const child = part.chain[depth + 1];
      if (module.children.at(-1) !== child && !module.children.includes(child)) module.children.push(child);
    });
  }
}

/** Each edge once in every module that it touches: between two children, or from or to the module's own border. */
function addLinks() {
  for (const edge of graphView.edges) {
    const [from, to] = edge.map((index) => parts[index].chain);
    let depth = 0;
    while (from[depth + 1] === to[depth + 1]) depth += 1;
    link(from[depth], from[depth + 1], to[depth + 1], edge);
    for (let at = depth + 1; at < from.length - 1; at += 1) link(from[at], from[at + 1], "out", edge);
    for (let at = depth + 1; at < to.length - 1; at += 1) link(to[at], "in", to[at + 1], edge);
  }
}

function link(holder, from, to, edge) {
  const { links } = itemAt(holder);
  const key = `${from} ${to}`;
  if (!links.has(key)) links.set(key, { from, to, edges: [] });
  links.get(key).edges.push(edge);
}

function itemAt(id) {
  return id.startsWith("m:") ? modules.get(id.slice(2)) : parts[Number(id.slice(1))];
}

const MANY_LINKS = 150;

/** Where each layer feeds all later ones, only the links that no longer way replaces are drawn. */
function thinOut(module) {
  module.hidden = 0;
  if (module.links.size <= Math.max(MANY_LINKS, 3 * module.children.length)) return;
  const after = new Map([...grouped(module.links.values(), (l) => l.from)].map(([k, ls]) => [k, new Set(ls.map((l) => l.to))]));
  for (const [key, { from, to }] of module.links) {
    after.get(from).delete(to);
    if (reaches(after, from, to)) {
      module.links.delete(key);
      module.hidden += 1;
    } else after.get(from).add(to);
  }
}

function reaches(after, from, to) {
  const seen = new Set([from]);
  const stack = [from];
  while (stack.length) {
    for (const next of after.get(stack.pop()) ?? []) {
      if (next === to) return true;
      if (!seen.has(next)) {
        seen.add(next);
        stack.push(next);
      }
    }
  }
  return false;
}

/** Unfold the outermost folded modules, and return them; none if they would show more than `room` parts. */
function unfoldLevel(room) {
  const shown = shownItems();
  const folded = shown.filter((item) => item.children);
  const more = folded.reduce((sum, module) => sum + module.children.length - 1, 0);
  if (shown.length + more > room) return [];
  for (const module of folded) module.open = true;
  return folded;
}

function shownItems(module = modules.get("")) {
  return module.children.map(itemAt).flatMap((item) => (item.open ? shownItems(item) : [item]));
}

/** Unfold what is around a part, so that it shows; true if anything changed. */
function reveal(part) {
  const folded = holders(part.scope).map((path) => modules.get(path)).filter((module) => !module.open);
  for (const module of folded) module.open = true;
  return folded.length > 0;
}

if (graphView) {
  addModules();
  addLinks();
  for (const module of modules.values()) thinOut(module);
}
