"use strict";
// The tables: sorted by a click on a column's name, filtered by the search and by what a column holds.

const sizes = (shape) => (shape.length ? shape.join("×") : "scalar");
const count = (shape) => shape.reduce((product, size) => product * size, 1);

const column = (title, value, options = {}) => ({ title, value, ...options });

const TABLES = [
  {
    title: "Convolutions",
    rows: plan.convolutions,
    parts: partsOfConvolution,
    columns: [
      column("name", (row) => row.name, { code: true, below: (row) => row.kind }),
      column("kind", (row) => row.kind, { choice: true, hidden: true }),
      column("verdict", (row) => row.verdict, { choice: true, badge: true }),
      column("treatment", (row) => (row.decouple ? "decoupled" : "kept"), { choice: true, badge: true }),
      column("norm", (row) => row.norm ?? "–", { code: true }),
      column("reason", (row) => row.reason, { wide: true, below: (row) => row.source }),
    ],
  },
  {
    title: "Parameters",
    rows: plan.parameters,
    parts: partsOfParameter,
    columns: [
      column("name", (row) => row.name, { code: true, below: (row) => row.module }),
      column("order", (row) => orderWords(row.order), { choice: true, badge: true }),
      column("role", (row) => row.role, { choice: true }),
      column("shape", (row) => sizes(row.shape), { sort: (row) => count(row.shape) }),
      column("module", (row) => row.module, { choice: true, hidden: true }),
      column("reason", (row) => row.reason, { wide: true, below: sourceOfParameter }),
    ],
  },
  {
    title: "Hints",
    rows: plan.hints,
    parts: (row) => partsAt.get(row.where) ?? partsAt.get(holderOf(ownerOf(row.where))) ?? [],
    columns: [
      column("code", (row) => row.code, { code: true, choice: true }),
      column("where", (row) => row.where || "–", { code: true }),
      column("message", (row) => row.message, { wide: true }),
    ],
  },
  {
    title: "Frozen",
    rows: plan.frozen.map((name) => ({ name })),
    parts: (row) => partsAt.get(row.name) ?? partsAt.get(holderOf(ownerOf(row.name))) ?? [],
    columns: [column("name", (row) => row.name, { code: true })],
  },
].filter((table) => table.rows.length > 0);

const tableView = { table: TABLES[0], sorted: null, descending: false, chosen: {}, query: "" };

function shownRows() {
  const { table, sorted, descending, chosen, query } = tableView;
  const fits = (row) =>
    table.columns.every((c) => !chosen[c.title] || c.value(row) === chosen[c.title]) &&
    (!query || table.columns.some((c) => words(c, row).toLowerCase().includes(query)));
  const rows = table.rows.filter(fits);
  if (!sorted) return rows;
  const key = sorted.sort ?? sorted.value;
  rows.sort((a, b) => compare(key(a), key(b)));
  return descending ? rows.reverse() : rows;
}

const words = (c, row) => `${c.value(row)} ${c.below?.(row) ?? ""}`;
const collator = new Intl.Collator("en", { numeric: true });
const compare = (a, b) => (typeof a === "number" ? a - b : collator.compare(a, b));

function drawTabs() {
  const tabs = TABLES.map((table) => {
    const tab = make("button", { type: "button", role: "tab", "aria-selected": table === tableView.table });
    tab.append(table.title, make("span", { class: "count" }, table.rows.length.toLocaleString("en")));
    tab.addEventListener("click", () => openTable(table));
    return tab;
  });
  document.getElementById("tabs").replaceChildren(...tabs);
}

function openTable(table) {
  Object.assign(tableView, { table, sorted: null, descending: false, chosen: {} });
  drawTabs();
  drawFilters();
  drawTable();
}

/** A choice for each column that holds a few words again and again. */
function drawFilters() {
  const { table, chosen } = tableView;
  const filters = table.columns.filter((c) => c.choice).map((c) => {
    const kinds = [...new Set(table.rows.map(c.value))].sort(collator.compare);
    if (kinds.length < 2) return null;
    const options = ["", ...kinds].map((text) => make("option", { value: text }, text || "all"));
    const select = make("select", {}, ...options);
    select.addEventListener("change", () => {
      chosen[c.title] = select.value;
      drawTable();
    });
    return make("label", {}, c.title, select);
  });
  const shown = make("output", { id: "shown", class: "shown", "aria-live": "polite" });
  document.getElementById("filters").replaceChildren(...filters.filter(Boolean), shown);
}

function drawTable() {
  const rows = shownRows();
  const head = make("tr", {}, ...visibleColumns().map(headCell));
  const body = make("tbody", {}, ...rows.map(bodyRow));
  document.getElementById("table").replaceChildren(make("table", {}, make("thead", {}, head), body));
  document.getElementById("shown").value = howMany(rows.length, tableView.table.rows.length);
}

function visibleColumns() {
  return tableView.table.columns.filter((c) => !c.hidden);
}

function howMany(shown, all) {
  const total = `${all.toLocaleString("en")} ${all === 1 ? "row" : "rows"}`;
  return shown === all ? total : `${shown.toLocaleString("en")} of ${total}`;
}

function headCell(c) {
  const isSorted = tableView.sorted === c;
  const button = make("button", { type: "button" }, c.title);
  button.addEventListener("click", () => {
    Object.assign(tableView, { sorted: c, descending: isSorted && !tableView.descending });
    drawTable();
  });
  const direction = !isSorted ? "none" : tableView.descending ? "descending" : "ascending";
  return make("th", { scope: "col", "aria-sort": direction }, button);
}

function bodyRow(row) {
  const line = make("tr", {}, ...visibleColumns().map((c) => bodyCell(c, row)));
  const [part] = tableView.table.parts(row);
  if (part) {
    line.classList.add("in-graph");
    line.tabIndex = 0;
    const show = () => pickFromTable(part, line);
    line.addEventListener("click", () => getSelection().isCollapsed && show());
    line.addEventListener("keydown", (event) => event.key === "Enter" && show());
  }
  return line;
}

function bodyCell(c, row) {
  const text = String(c.value(row));
  const content = c.badge ? badge(text) : c.code ? make("code", {}, breakable(text)) : breakable(text);
  const below = c.below?.(row);
  const line = below ? make("code", { class: "below" }, breakable(below)) : null;
  return make("td", { "data-column": c.title, class: c.wide ? "wide" : "" }, make("div", {}, content, line));
}

/** Long names break after a dot, not inside a word. */
function breakable(text) {
  return text.replaceAll(/([./_])(?=\w)/g, "$1\u200b");
}

function pickFromTable(part, line) {
  for (const other of document.querySelectorAll("tr.picked")) other.classList.remove("picked");
  line.classList.add("picked");
  pick(part, { scroll: true });
  if (innerWidth < 900) graphSection.scrollIntoView({ block: "start" });
}
