"use strict";
// The tables as they are seen: tabs, choices, and rows, of which more are made as they are scrolled to.

const tableFrame = document.getElementById("table");
const AT_ONCE = 300;
let waiting = [];

function drawTabs() {
  const tabs = TABLES.map((table) => {
    const isOpen = table === tableView.table;
    const tab = make("button", { type: "button", role: "tab", id: `tab-${table.id}`, "aria-selected": isOpen, "aria-controls": "table", tabindex: isOpen ? 0 : -1 });
    const all = table.rows.length.toLocaleString("en");
    const number = tableView.query ? `${found(table).length.toLocaleString("en")} of ${all}` : all;
    tab.append(table.title, make("span", { class: "count" }, number));
    tab.addEventListener("click", () => openTable(table));
    return tab;
  });
  const hadFocus = document.activeElement?.getAttribute("role") === "tab";
  document.getElementById("tabs").replaceChildren(...tabs);
  tableFrame.setAttribute("aria-labelledby", `tab-${tableView.table.id}`);
  if (hadFocus) document.getElementById(`tab-${tableView.table.id}`).focus();
}

function keyInTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  openTable(TABLES[(TABLES.indexOf(tableView.table) + step + TABLES.length) % TABLES.length]);
  event.preventDefault();
}

function openTable(table) {
  Object.assign(tableView, { table, sorted: null, descending: false, chosen: {}, row: null });
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
    const options = ["", ...kinds].map((text) => make("option", { value: text }, text ? printable(text) : "all"));
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
  const body = make("tbody");
  waiting = rows.slice();
  tableFrame.replaceChildren(rows.length ? make("table", {}, make("thead", {}, head), body) : nothingFound());
  if (rows.length) addRows();
  document.getElementById("shown").value = howMany(rows.length, tableView.table.rows.length);
}

/** The next rows below those that are there; the last of them asks for more when it comes into sight. */
function addRows(most = AT_ONCE) {
  const body = tableFrame.querySelector("tbody");
  const lines = waiting.splice(0, most).map(bodyRow);
  body.append(...lines);
  if (!body.querySelector('tr[tabindex="0"]')) body.querySelector("tr[tabindex]")?.setAttribute("tabindex", "0");
  if (!waiting.length) return;
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    addRows();
  }).observe(body.lastElementChild);
}

/** Why there is no row, and where there are some. */
function nothingFound() {
  const others = TABLES.filter((table) => table !== tableView.table && found(table).length);
  const links = others.map((table) => {
    const button = make("button", { type: "button" }, `${found(table).length.toLocaleString("en")} in ${table.title}`);
    button.addEventListener("click", () => openTable(table));
    return button;
  });
  const what = tableView.query ? `No row here has “${printable(tableView.query)}”.` : "No row here is of the kinds that were chosen.";
  return make("p", { class: "empty" }, `${what} `, ...links);
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
  const line = make("tr", { tabindex: -1 }, ...visibleColumns().map((c) => bodyCell(c, row)));
  line.row = row;
  line.classList.toggle("in-graph", tableView.table.parts(row).length > 0);
  line.classList.toggle("picked", tableView.row === row);
  return line;
}

function bodyCell(c, row) {
  const text = String(c.value(row));
  const content = c.badge ? badge(text) : c.code ? make("code", {}, breakable(text)) : breakable(text);
  const below = c.below?.(row);
  const line = below ? make("code", { class: "below" }, breakable(below)) : null;
  return make("td", { "data-column": c.title, class: c.wide ? "wide" : "" }, make("div", {}, content, line));
}

/** Mark a row, show its part in the graph, and make the page's address lead to it. */
function openRow(line) {
  tableView.row = line.row;
  for (const other of tableFrame.querySelectorAll("tr.picked")) other.classList.remove("picked");
  line.classList.add("picked");
  linkTo([tableView.table.id, tableView.table.key(line.row)]);
  const [part] = tableView.table.parts(line.row);
  if (!part) return;
  pick(part, { show: true });
  if (innerWidth < 900) graphSection.scrollIntoView({ block: "start" });
}

function keyInRows(event) {
  const line = event.target.closest("tbody tr");
  if (!line) return;
  const lines = [...line.parentElement.children];
  const place = lines.indexOf(line);
  const next = { ArrowDown: lines[place + 1], ArrowUp: lines[place - 1], Home: lines[0], End: lines.at(-1) }[event.key];
  if (event.key === "Enter") openRow(line);
  else if (next) focusRow(next);
  else return;
  event.preventDefault();
}

function focusRow(line) {
  for (const other of line.parentElement.querySelectorAll('tr[tabindex="0"]')) other.setAttribute("tabindex", "-1");
  line.setAttribute("tabindex", "0");
  line.focus();
}

function linkTo(place) {
  const hash = place ? `#${place.map(encodeURIComponent).join("/")}` : " ";
  try {
    history.replaceState(null, "", hash);
  } catch {
    // a page that stands in another one, as in a preview, may have no address of its own
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

/** Open the row that the page's address names, if there is one. */
function followLink() {
  const [id, ...rest] = location.hash.slice(1).split("/");
  const table = TABLES.find((each) => each.id === id);
  const key = decoded(rest.join("/"));
  if (!table || key === null) return false;
  openTable(table);
  const place = table.rows.findIndex((row) => table.key(row) === key);
  if (place < 0) return true;
  if (place >= AT_ONCE) addRows(place + 1 - AT_ONCE);
  const line = tableFrame.querySelectorAll("tbody tr")[place];
  openRow(line);
  line.scrollIntoView({ block: "center" });
  return true;
}
