"use strict";
// The hierarchy: what stands in which module, what flows inside each, and which modules are unfolded.

const modules = new Map();

// So many children of one module can be laid out and taken in; more of them are put into groups.
const MOST_CHILDREN = 120;

/** The modules around a scope, from the model itself inwards. */
function holders(scope) {
  const names = scope ? scope.split(".") : [];
  const paths = names.map((_, length) => names.slice(0, length + 1).join("."));
  return ["", ...paths.filter((path) => modules.has(path))];
}

function newModule(path, label, children = new Set()) {
  return { path, label, id: `m:${path}`, open: path === "", children, links: new Map(), parts: [] };
}

function addModules() {
  for (const [path, label] of Object.entries(graphView.modules)) modules.set(path, newModule(path, label));
  for (const part of parts) {
    const around = holders(part.scope).map((path) => modules.get(path));
    around.forEach((module, depth) => {
      module.parts.push(part);
      module.children.add(around[depth + 1]?.id ?? part.id);
    });
  }
  for (const module of [...modules.values()]) {
    module.children = [...module.children];
    while (module.children.length > MOST_CHILDREN) groupChildren(module);
  }
  addChains(modules.get(""), []);
}

/** Put children that follow each other into groups, which fold like modules; there are about as many as each holds. */
function groupChildren(module) {
  const size = Math.ceil(Math.sqrt(module.children.length));
  const groups = [];
  for (let first = 0; first < module.children.length; first += size) {
    const children = module.children.slice(first, first + size);
    const name = `${endsOf(children[0])[0]}–${endsOf(children.at(-1))[1]}`;
    const path = `${module.path}[${name}]`;
    const group = { ...newModule(path, `${children.length} in a row`, children), isGroup: true, name };
    group.parts = children.map(itemAt).flatMap((item) => (item.children ? item.parts : [item]));
    modules.set(path, group);
    groups.push(group.id);
  }
  module.inGroups ??= module.children.length;
  module.children = groups;
}

/** The names of the first and the last part in an item. */
function endsOf(id) {
  const item = itemAt(id);
  if (item.isGroup) return [endsOf(item.children[0])[0], endsOf(item.children.at(-1))[1]];
  const name = lastName(item.path) || item.label;
  return [name, name];
}

/** Tell each part and each module what it stands in. */
function addChains(module, outer) {
  module.chain = [...outer, module.id];
  for (const item of module.children.map(itemAt)) {
    if (item.children) addChains(item, module.chain);
    else item.chain = [...module.chain, item.id];
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

/** The outermost folded modules, and how many parts would show if they were unfolded. */
function nextLevel() {
  const shown = shownItems();
  const folded = shown.filter((item) => item.children);
  return { folded, total: folded.reduce((sum, module) => sum + module.children.length - 1, shown.length) };
}

/** Unfold them, and return them; none if they would show more than `room` parts. */
function unfoldLevel(room) {
  const { folded, total } = nextLevel();
  if (total > room) return [];
  for (const module of folded) module.open = true;
  return folded;
}

function shownItems(module = modules.get("")) {
  return module.children.map(itemAt).flatMap((item) => (item.open ? shownItems(item) : [item]));
}

/** Unfold what is around a part, so that it shows; true if anything changed. */
function reveal(part) {
  const folded = part.chain.slice(0, -1).map(itemAt).filter((module) => !module.open);
  for (const module of folded) module.open = true;
  return folded.length > 0;
}

if (graphView) {
  addModules();
  addLinks();
  for (const module of modules.values()) thinOut(module);
}
