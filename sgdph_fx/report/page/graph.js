"use strict";
// Folding and unfolding, by the mouse and by the keyboard.

// As many parts as can be taken in at a glance, and as can be drawn at all.
const ROOM = 48;
const MOST = 1000;

function refresh() {
  drawGraph();
  resize();
  mark(tableView.query);
  showPicked();
  focusable(focused);
}

function refreshAfterUnfolding(item) {
  forgetLayout(item);
  refresh();
}

/** Unfold one level after the other, a whole level or none of it, while there is room. */
function unfoldAtFirst() {
  for (let level = unfoldLevel(ROOM); level.length; level = unfoldLevel(ROOM)) {
    forgetLayouts();
    if (layoutOf(modules.get("")).width * READABLE > canvas.clientWidth) {
      for (const module of level) module.open = false;
      return forgetLayouts();
    }
  }
}

function unfoldMore() {
  const { folded, total } = nextLevel();
  if (!folded.length) return say("Everything is unfolded.");
  if (total > MOST) return say(`That would be ${total.toLocaleString("en")} parts, more than can be drawn: unfold single modules.`);
  unfoldLevel(MOST);
  forgetLayouts();
  refresh();
  fitWidth();
  say("");
}

/** Fold the innermost unfolded modules. */
function foldOnce() {
  const open = shownFrames(modules.get(""));
  const deepest = open.reduce((most, module) => Math.max(most, module.chain.length), 0);
  for (const module of open) if (module.chain.length === deepest) module.open = false;
  forgetLayouts();
  refresh();
  fitWidth();
  say("");
}

function shownFrames(module) {
  return module.children.map(itemAt).filter((item) => item.open).flatMap((item) => [item, ...shownFrames(item)]);
}

function toggle(module) {
  if (!module.open && shownItems().length + module.children.length > MOST) {
    return say(`More than ${MOST.toLocaleString("en")} parts cannot be drawn at once: fold another module first.`);
  }
  module.open = !module.open;
  focused = module.id;
  refreshAfterUnfolding(module);
  scrollIfHidden(drawn.get(module.id));
  say("");
}

/** A sentence above the graph, in place of what is said about groups. */
function say(text) {
  const note = document.getElementById("note");
  note.textContent = text || aboutGroups();
  note.hidden = !note.textContent;
}

function aboutGroups() {
  const largest = [...modules.values()].filter((module) => module.inGroups).sort((a, b) => b.inGroups - a.inGroups)[0];
  if (!largest) return "";
  const where = largest.path ? printable(largest.path) : "The model";
  return `${where} has ${largest.inGroups.toLocaleString("en")} parts in a row, too many to draw one by one: they stand in groups.`;
}

function pressed(target) {
  const head = target.closest("[data-fold]");
  if (head) return toggle(modules.get(head.dataset.fold));
  const group = target.closest("g[data-id]");
  const item = group && itemAt(group.dataset.id);
  if (!item || item.open) return pick(null);
  focused = item.id;
  focusable(focused);
  return item.children ? toggle(item) : pickInGraph(item === picked ? null : item);
}

function pickInGraph(part) {
  pick(part);
  linkTo(part?.row ? ["convolutions", part.row.name] : null);
}

function hovered(event) {
  const group = event.target.closest?.("g.part[data-id]");
  const item = group ? itemAt(group.dataset.id) : null;
  if (item && routeOf(item).size) light(routeOf(item));
  else if (!picked) light(new Set());
  else light(routeOf(picked));
}

// The one part that the Tab key reaches; arrow keys go to the others.
let focused = null;

/** What takes the focus for an item: itself, or the head of an unfolded module. */
function handle(id) {
  const group = drawn.get(id);
  return group && itemAt(id).open ? group.querySelector(":scope > .head") : group;
}

/** Let the Tab key reach this part, or the first one, and no other. */
function focusable(id) {
  for (const other of svg.querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", "-1");
  (handle(id) ?? svg.querySelector("[tabindex]"))?.setAttribute("tabindex", "0");
}

function moveFocus(key) {
  const from = document.activeElement.getBoundingClientRect();
  const others = [...svg.querySelectorAll("[tabindex]")].filter((element) => element !== document.activeElement);
  const to = others.map((element) => ({ element, cost: farness(from, element.getBoundingClientRect(), key) }))
    .reduce((best, each) => (each.cost < best.cost ? each : best), { cost: Infinity });
  if (to.element) focusOn(to.element);
}

/** How far it is in the direction of an arrow key, and beside it, which counts more; infinite behind. */
function farness(from, to, key) {
  const right = (to.left + to.right - from.left - from.right) / 2;
  const down = (to.top + to.bottom - from.top - from.bottom) / 2;
  const [ahead, beside] = { ArrowDown: [down, right], ArrowUp: [-down, right], ArrowRight: [right, down], ArrowLeft: [-right, down] }[key];
  return ahead > 1 ? ahead + 3 * Math.abs(beside) : Infinity;
}

function focusOn(element) {
  focused = element.dataset.id ?? `m:${element.dataset.fold}`;
  focusable(focused);
  element.focus({ preventScroll: true });
  scrollIfHidden(element);
}

function keyInGraph(event) {
  if (event.key.startsWith("Arrow")) moveFocus(event.key);
  else if (event.key === "Enter" || event.key === " ") {
    pressed(event.target);
    handle(focused)?.focus({ preventScroll: true });
  } else if (event.key === "Home" || event.key === "End") {
    const all = [...svg.querySelectorAll("[tabindex]")];
    focusOn(event.key === "Home" ? all[0] : all.at(-1));
  } else if (event.key === "Escape") pick(null);
  else return;
  event.preventDefault();
}
