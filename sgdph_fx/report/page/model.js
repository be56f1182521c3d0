"use strict";
// The data of the page with what is looked up in it again and again.

const DATA = JSON.parse(document.getElementById("data").textContent);
const { plan, graphView, meanings } = DATA;

const FIELDS = ["kind", "label", "path", "scope", "source", "shape"];
const parts = graphView
  ? graphView.parts.map((values, index) => ({
      index,
      id: `p${index}`,
      ...Object.fromEntries(FIELDS.map((field, place) => [field, values[place]])),
    }))
  : [];

const ownerOf = (name) => name.slice(0, Math.max(0, name.lastIndexOf(".")));
const lastName = (path) => path.slice(path.lastIndexOf(".") + 1);

function holderOf(owner) {
  let path = owner;
  while (path && !moduleParts.has(path)) path = ownerOf(path);
  return path || owner;
}

function grouped(items, keyOf) {
  const groups = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(item);
  }
  return groups;
}

// A module that is one part may hold modules of its own, as attention does: their parameters are its.
const moduleParts = new Set(parts.filter((part) => !["parameter", "operation"].includes(part.kind)).map((part) => part.path));
const parametersOf = grouped(plan.parameters, (row) => holderOf(ownerOf(row.name)));
const parameterNamed = new Map(plan.parameters.map((row) => [row.name, row]));
const rowOfConvolution = new Map(plan.convolutions.map((row) => [row.name, row]));
const rowOfWeight = new Map(plan.convolutions.map((row) => [row.weight, row]));
const operandsOf = grouped(graphView ? graphView.edges : [], (edge) => edge[1]);

/** The plan's row for a part that is a convolution: a module's by its path, a function's by its weight. */
function convolutionRow(part) {
  if (part.kind !== "convolution") return null;
  if (part.path || rowOfConvolution.has(part.path)) return rowOfConvolution.get(part.path) ?? null;
  const weights = (operandsOf.get(part.index) ?? []).map(([source]) => parts[source].path);
  return weights.map((name) => rowOfWeight.get(name)).find(Boolean) ?? null;
}

/** The plan's rows for the parameters that a part holds; a decoupled parameter has two. */
function parameterRows(part) {
  if (part.kind === "parameter") {
    const names = [part.path, `${part.path}_gain`, `${part.path}_direction`];
    return names.map((name) => parameterNamed.get(name)).filter(Boolean);
  }
  if (part.kind === "operation" || part.kind === "input" || part.kind === "output" || !isModule(part)) return [];
  return parametersOf.get(part.path) ?? [];
}

/** A call of a module, not of a function: the model itself may be the one module there is, without a path. */
function isModule(part) {
  return part.path !== "" || (part.kind !== "operation" && parts.length <= 3);
}

for (const part of parts) {
  part.row = convolutionRow(part);
  part.parameters = parameterRows(part);
  part.second = part.parameters.some((row) => row.order === 2);
  part.bare = part.row?.verdict === "bare";
}

const partsAt = grouped(parts.filter((part) => part.path), (part) => part.path);
const partsOfRow = grouped(parts.filter((part) => part.row), (part) => part.row);

/** The parts that a row of the plan is about: calls of the module, or of the function that uses the weight. */
function partsOfConvolution(row) {
  return partsOfRow.get(row) ?? [];
}

function partsOfParameter(row) {
  const plain = row.name.replace(/_(gain|direction)$/, "");
  return partsAt.get(plain)?.filter((part) => part.kind === "parameter") ?? partsAt.get(holderOf(ownerOf(row.name))) ?? [];
}

function sourceOfParameter(row) {
  return partsOfParameter(row).find((part) => part.source)?.source ?? null;
}

/** The reason without the word that begins it, which stands beside it. */
function reasonOf(row) {
  return row.reason.replace(/^(bare|normalized|first-order|second-order): /, "");
}

/** Characters that would be obeyed or hidden, escaped: a name may turn the direction of writing. */
function printable(text) {
  return text.replaceAll(/[^\P{C}\n]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
}
