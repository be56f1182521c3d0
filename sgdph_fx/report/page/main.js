"use strict";
// What the buttons do, and the first view.

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

function listen() {
  const on = (id, act) => document.getElementById(id).addEventListener("click", (event) => act(event.currentTarget));
  on("copy", copyPlan);
  on("download", savePlan);
  on("theme", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  dark.addEventListener("change", nameTheme);
  addEventListener("hashchange", followLink);
  addEventListener("beforeprint", () => waiting.length && addRows(waiting.length));
  const field = document.getElementById("search");
  field.addEventListener("input", () => search(field.value));
  field.addEventListener("keydown", (event) => event.key === "Enter" && goToNextMatch());
  document.getElementById("tabs").addEventListener("keydown", keyInTabs);
  tableFrame.addEventListener("keydown", keyInRows);
  tableFrame.addEventListener("click", (event) => {
    const line = event.target.closest("tbody tr");
    if (line && getSelection().isCollapsed) openRow(line);
  });
}

function listenToGraph() {
  const on = (id, act) => document.getElementById(id).addEventListener("click", act);
  on("unfold", unfoldMore);
  on("fold", foldOnce);
  on("smaller", () => zoomBy(1 / 1.25));
  on("larger", () => zoomBy(1.25));
  on("whole", fitWhole);
  svg.addEventListener("click", (event) => pressed(event.target));
  svg.addEventListener("pointerover", (event) => event.pointerType === "mouse" && hovered(event));
  svg.addEventListener("pointerleave", () => light(picked ? routeOf(picked) : new Set()));
  svg.addEventListener("keydown", keyInGraph);
}

nameTheme();
listen();
if (graphView) {
  graphSection.hidden = false;
  listenToGraph();
  unfoldAtFirst();
  drawGraph();
  focusable(null);
  fitWidth();
  say("");
}
if (TABLES.length && !followLink()) openTable(tellingTable());
document.documentElement.dataset.ready = performance.now().toFixed(0);
