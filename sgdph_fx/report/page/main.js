"use strict";
// What the buttons do, and the first view.

const canvas = document.getElementById("canvas");
let scale = 1;

function refresh() {
  drawGraph();
  resize();
  mark(tableView.query);
  showPicked();
}

function refreshAfterUnfolding(path) {
  forgetLayout(path);
  refresh();
}

function resize() {
  svg.style.width = `${svg.dataset.width * scale}px`;
  svg.style.height = `${svg.dataset.height * scale}px`;
}

function zoom(to) {
  scale = Math.min(2.5, Math.max(0.1, to));
  resize();
}

// As many parts as can be taken in at a glance, and the smallest scale at which they can be read.
const ROOM = 48;
const READABLE = 0.55;

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

/** As large as fits the frame's width, but not so small that nothing can be read. */
function fitWidth() {
  zoom(Math.max(READABLE, Math.min(1, (canvas.clientWidth - 4) / svg.dataset.width)));
  canvas.scrollLeft = (canvas.scrollWidth - canvas.clientWidth) / 2;
}

function fitWhole() {
  zoom(Math.min(1.5, (canvas.clientWidth - 4) / svg.dataset.width, (canvas.clientHeight - 4) / svg.dataset.height));
}

function toggle(module) {
  module.open = !module.open;
  refreshAfterUnfolding(module.path);
  scrollIfHidden(drawn.get(module.id));
}

function scrollIfHidden(element) {
  const outer = canvas.getBoundingClientRect();
  const inner = element.getBoundingClientRect();
  if (inner.top < outer.top || inner.top > outer.bottom || inner.left > outer.right || inner.right < outer.left) {
    canvas.scrollBy({ left: inner.left - outer.left - 20, top: inner.top - outer.top - 20 });
  }
}

const MOST = 2000;

function unfoldMore() {
  if (unfoldLevel(MOST).length) {
    forgetLayouts();
    refresh();
    fitWidth();
  }
}

/** Fold the innermost unfolded modules. */
function foldOnce() {
  const depth = (module) => module.path.split(".").length;
  const open = shownFrames(modules.get(""));
  const deepest = Math.max(...open.map(depth));
  for (const module of open) if (depth(module) === deepest) module.open = false;
  forgetLayouts();
  refresh();
  fitWidth();
}

function shownFrames(module) {
  return module.children.map(itemAt).filter((item) => item.open).flatMap((item) => [item, ...shownFrames(item)]);
}

function pressed(target) {
  const head = target.closest("[data-fold]");
  if (head) return toggle(modules.get(head.dataset.fold));
  const group = target.closest("g[data-id]");
  const item = group && itemAt(group.dataset.id);
  if (!item || item.open) return pick(null);
  return item.children ? toggle(item) : pick(item === picked ? null : item);
}

function hovered(event) {
  const item = itemUnder(event.target);
  if (item && routeOf(item).size) light(routeOf(item));
  else if (!picked) light(new Set());
  else light(routeOf(picked));
}

function itemUnder(target) {
  const group = target.closest?.("g.part[data-id]");
  return group ? itemAt(group.dataset.id) : null;
}

/** Search: rows of the table, and what shows in the graph. */
function search(text) {
  tableView.query = text.trim().toLowerCase();
  drawTable();
  mark(tableView.query);
}

let matches = [];
let nextMatch = 0;

function mark(query) {
  matches = query ? parts.filter((part) => `${part.path} ${part.label}`.toLowerCase().includes(query)) : [];
  nextMatch = 0;
  const shown = new Set(matches.map(shownAs));
  for (const [id, group] of drawn) group.classList.toggle("match", shown.has(id));
  const words = matches.length === 1 ? "1 in the graph" : `${matches.length.toLocaleString("en")} in the graph`;
  document.getElementById("found").value = query && graphView ? (matches.length ? `${words} · Enter: next` : words) : "";
}

function goToNextMatch() {
  if (!matches.length) return;
  const place = nextMatch % matches.length;
  pick(matches[place], { scroll: true });
  nextMatch = place + 1;
}

const planText = () => `${JSON.stringify(plan, null, 2)}\n`;

async function copyPlan(button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(planText());
  } catch {
    done = copyBySelection(planText());
  }
  flash(button, done ? "Copied" : "Not allowed here");
}

/** For pages that the browser trusts with no clipboard of their own. */
function copyBySelection(text) {
  const field = make("textarea", { class: "offscreen" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

function flash(button, text) {
  const before = button.dataset.text ?? button.textContent;
  button.dataset.text = before;
  button.textContent = text;
  setTimeout(() => (button.textContent = before), 1500);
}

function savePlan() {
  const url = URL.createObjectURL(new Blob([planText()], { type: "application/json" }));
  make("a", { href: url, download: "plan.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

function nameTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
}

function writeHead() {
  document.getElementById("model").append(breakable(plan.model));
  const facts = [
    [`${summary.decoupled} of ${summary.convolutions}`, "convolutions decoupled"],
    [`${summary.second_order_parameters} of ${summary.parameters}`, "parameters second-order"],
    [summary.share, "of all trainable numbers"],
    [summary.second_order_parameters.toLocaleString("en"), "steps in a Hessian cycle"],
  ];
  const pairs = facts.map(([value, words]) => make("div", {}, make("dt", {}, words), make("dd", {}, value)));
  document.getElementById("facts").append(...pairs);
  document.getElementById("headline").append(...DATA.headline.map((sentence) => make("p", {}, sentence)));
}

function listen() {
  const on = (id, act) => document.getElementById(id).addEventListener("click", (event) => act(event.currentTarget));
  on("copy", copyPlan);
  on("download", savePlan);
  on("theme", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  dark.addEventListener("change", nameTheme);
  const field = document.getElementById("search");
  field.addEventListener("input", () => search(field.value));
  field.addEventListener("keydown", (event) => event.key === "Enter" && goToNextMatch());
}

function listenToGraph() {
  const on = (id, act) => document.getElementById(id).addEventListener("click", act);
  on("unfold", unfoldMore);
  on("fold", foldOnce);
  on("smaller", () => zoom(scale / 1.25));
  on("larger", () => zoom(scale * 1.25));
  on("whole", fitWhole);
  svg.addEventListener("click", (event) => pressed(event.target));
  svg.addEventListener("pointerover", (event) => event.pointerType === "mouse" && hovered(event));
  svg.addEventListener("pointerleave", () => light(picked ? routeOf(picked) : new Set()));
  svg.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    pressed(event.target);
  });
}

writeHead();
nameTheme();
listen();
if (TABLES.length) openTable(TABLES[0]);
if (graphView) {
  graphSection.hidden = false;
  listenToGraph();
  unfoldAtFirst();
  refresh();
  fitWidth();
}
document.documentElement.dataset.ready = performance.now().toFixed(0);
