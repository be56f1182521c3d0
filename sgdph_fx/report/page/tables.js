"use strict";
// What the tables hold, and which of their rows are wanted.

const sizes = (shape) => (shape.length ? shape.join("×") : "scalar");
const count = (shape) => shape.reduce((product, size) => product * size, 1);

const column = (title, value, options = {}) => ({ title, value, ...options });

const TABLES = [
  {
    title: "Convolutions",
    rows: plan.convolutions,
    key: (row) => row.name,
    parts: partsOfConvolution,
    columns: [
      column("name", (row) => row.name, { code: true, below: (row) => row.kind }),
      column("kind", (row) => row.kind, { choice: true, hidden: true }),
      column("verdict", (row) => row.verdict, { choice: true, badge: true }),
      column("treatment", (row) => (row.decouple ? "decoupled" : "kept"), { choice: true, badge: true }),
      column("norm", (row) => row.norm ?? "–", { code: true }),
      column("reason", reasonOf, { wide: true, below: (row) => row.source }),
    ],
  },
  {
    title: "Parameters",
    rows: plan.parameters,
    key: (row) => row.name,
    parts: partsOfParameter,
    columns: [
      column("name", (row) => row.name, { code: true, below: (row) => row.module }),
      column("order", (row) => orderWords(row.order), { choice: true, badge: true }),
      column("role", (row) => row.role, { choice: true }),
      column("shape", (row) => sizes(row.shape), { sort: (row) => count(row.shape) }),
      column("module", (row) => row.module, { choice: true, hidden: true }),
      column("reason", reasonOf, { wide: true, below: sourceOfParameter }),
    ],
  },
  {
    title: "Hints",
    rows: plan.hints,
    key: (row) => `${row.code} ${row.where}`.trim(),
    parts: (row) => partsAt.get(row.where) ?? partsAt.get(holderOf(ownerOf(row.where))) ?? [],
    columns: [
      column("code", (row) => row.code, { code: true, choice: true }),
      column("where", (row) => row.where || "–", { code: true }),
      column("message", (row) => row.message, { wide: true }),
      column("what to do", (row) => meanings[row.code] ?? "", { wide: true }),
    ],
  },
  {
    title: "Frozen",
    rows: plan.frozen.map((name) => ({ name })),
    key: (row) => row.name,
    parts: (row) => partsAt.get(row.name) ?? partsAt.get(holderOf(ownerOf(row.name))) ?? [],
    columns: [column("name", (row) => row.name, { code: true })],
  },
].filter((table) => table.rows.length > 0);

for (const table of TABLES) table.id = table.title.toLowerCase();

const tableView = { table: TABLES[0], sorted: null, descending: false, chosen: {}, query: "", row: null };

/** The table that says most: where something is done to the convolutions, else hints, else the parameters. */
function tellingTable() {
  const named = Object.fromEntries(TABLES.map((table) => [table.id, table]));
  const isTold = plan.convolutions.some((row) => row.decouple || row.verdict === "bare");
  return (isTold && named.convolutions) || named.hints || named.parameters || TABLES[0];
}

const words = (c, row) => `${c.value(row)} ${c.below?.(row) ?? ""}`;
const collator = new Intl.Collator("en", { numeric: true });
const compare = (a, b) => (typeof a === "number" ? a - b : collator.compare(a, b));

/** The rows of a table that the search finds, whatever is chosen in its columns. */
function found(table) {
  const { query } = tableView;
  if (!query) return table.rows;
  return table.rows.filter((row) => table.columns.some((c) => words(c, row).toLowerCase().includes(query)));
}

function shownRows() {
  const { table, sorted, descending, chosen } = tableView;
  const rows = found(table).filter((row) => table.columns.every((c) => !chosen[c.title] || c.value(row) === chosen[c.title]));
  if (!sorted) return rows;
  const key = sorted.sort ?? sorted.value;
  const inOrder = [...rows].sort((a, b) => compare(key(a), key(b)));
  return descending ? inOrder.reverse() : inOrder;
}
