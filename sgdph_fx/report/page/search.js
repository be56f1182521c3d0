"use strict";
// The search: rows of all tables, and parts of the graph.

let matches = [];
let nextMatch = 0;

function search(text) {
  tableView.query = text.trim().toLowerCase();
  drawTabs();
  drawTable();
  mark(tableView.query);
}

/** Mark what matches in the graph, as far as it shows, and say how much there is. */
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
  pick(matches[place], { show: true });
  nextMatch = place + 1;
}
