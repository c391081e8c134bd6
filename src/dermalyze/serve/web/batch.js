// Many pictures: a table that sorts, and the same as CSV.

import { flags, outcomeOf, reached } from "./answer.js";
import { el, say } from "./dom.js";
import { percent, number, t, tOr } from "./texts.js";

const THUMBNAIL_PX = 96;
const ORDER = ["examine", "answer", "caution", "set", "refer", "error", "stopped", "waiting"];
const NUMERIC = new Set(["number", "confidence", "ood"]);
const COLUMNS = ["number", "file", "outcome", "class", "confidence", "ood", "why"];

/** What a case has come to: an outcome, or "waiting", "error" or "stopped". */
export function stateOf(one) {
  if (one.error) return "error";
  return one.result ? outcomeOf(one) : one.stopped ? "stopped" : "waiting";
}

/** How many came to what, as one line. */
export function summary(cases) {
  const counts = Object.fromEntries(ORDER.map((state) => [state, 0]));
  for (const one of cases) counts[stateOf(one)] += 1;
  return t("batch.summary", counts);
}

function outcomeWords(state) {
  if (state === "error") return t("batch.failed");
  return state === "waiting" || state === "stopped" ? t(`batch.${state}`) : t(`answer.tag-${state}`);
}

/** The class or labels to show: none on a refusal. */
function classCell(one, descriptions) {
  return confident(one) ? one.task.cell(one.result, one.result.decision === "set" ? "set" : stateOf(one), descriptions) : "";
}

/** Whether there is an answer to be used. */
function confident(one) {
  return Boolean(one.result) && !["refer", "error"].includes(stateOf(one));
}

function why(one) {
  if (one.error) return one.error.line;
  if (!one.result) return "";
  const points = flags(one) ? reached(one.result).map((point) => t("batch.flagged", { title: point.title, percent: percent(point.probability) })) : [];
  return [...points, ...(one.result.reasons ?? []).slice(points.length)].join("; ");
}

/** The value that a column sorts by; null goes last in either direction. */
function sortValue(one, column, descriptions) {
  return {
    number: one.number, file: one.name, outcome: ORDER.indexOf(stateOf(one)), class: classCell(one, descriptions) || null,
    confidence: confident(one) ? one.task.share(one.result) : null, ood: one.result?.ood?.score ?? null, why: why(one) || null,
  }[column];
}

export function sorted(cases, { column, down }, descriptions) {
  const key = new Map(cases.map((one) => [one, sortValue(one, column, descriptions)]));
  return [...cases].sort((one, other) => {
    const [a, b] = [key.get(one), key.get(other)];
    if (a === null || b === null) return (a === null) - (b === null) || one.number - other.number;
    const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
    return (down ? -order : order) || one.number - other.number;
  });
}

/** The table of a batch of one task; `open(one)` shows a case, `buttons` stand above it. */
export function batchPage(cases, descriptions, sort, { open, resort, buttons }) {
  const noun = cases[0]?.task.NOUN;
  const title = (column) => tOr(`batch.${column}-${noun}`, t(`batch.${column}`));
  const head = (column) => {
    const on = sort.column === column;
    const direction = on ? (sort.down ? "descending" : "ascending") : null;
    return el("th", { scope: "col", "aria-sort": direction, class: NUMERIC.has(column) ? "number" : null },
      el("button", { type: "button", class: "sort", "data-focus": `sort ${column}`, on: { click: () => {
        resort({ column, down: on ? !sort.down : false });
        say(t("status.sorted", { column: title(column), direction: t(on && !sort.down ? "status.descending" : "status.ascending") }));
      } } }, title(column), el("span", { class: "arrow", "aria-hidden": "true" }, on ? (sort.down ? "▼" : "▲") : "")));
  };
  const cell = (column, attributes, content) => el("td", { ...attributes, "data-label": title(column) }, content); // named on a phone
  const row = (one) => {
    const state = stateOf(one);
    const opener = one.result ? el("button", { type: "button", class: "thumbnail", "data-focus": `open ${one.number}`,
      "aria-label": t("batch.open", { number: one.number }), on: { click: () => open(one) } }, thumbnail(one)) : el("span", { class: "thumbnail" }, thumbnail(one));
    return el("tr", { "data-state": state },
      cell("number", { class: "number" }, String(one.number)),
      el("td", { class: "opener" }, opener),
      cell("file", { class: "name" }, one.name),
      cell("outcome", {}, el("span", { class: `pill ${state}` }, outcomeWords(state))),
      cell("class", { class: "classes" }, classCell(one, descriptions) || "–"),
      cell("confidence", { class: "number" }, confident(one) ? percent(one.task.share(one.result)) : "–"),
      cell("ood", { class: "number" }, one.result?.ood ? number(one.result.ood.score) : "–"),
      cell("why", { class: "why" }, why(one)));
  };
  const [first, ...rest] = COLUMNS;
  return el("section", { class: "card", "aria-labelledby": "batch-heading" },
    el("div", { class: "batch-head" },
      el("div", {}, el("h2", { id: "batch-heading" }, t("batch.heading", { count: cases.length })), el("p", { class: "quiet" }, summary(cases))),
      el("div", { class: "buttons no-print" }, buttons)),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "batch-heading" },
      el("table", {}, el("caption", { class: "hidden" }, t("batch.caption")),
        el("thead", {}, el("tr", {}, head(first), el("th", { scope: "col" }, t("batch.picture")), rest.map(head))),
        el("tbody", {}, sorted(cases, sort, descriptions).map(row)))));
}

/** A small copy of the picture, drawn once and kept with its case; the large one is let go of. */
function thumbnail(one) {
  if (one.thumbnail && (!one.picture || one.picture === one.drawn)) return one.thumbnail;
  const canvas = el("canvas", { width: 1, height: 1, "aria-hidden": "true" });
  one.thumbnail = canvas;
  one.drawn = one.picture ?? one.file; // which may still have to be turned upright
  createImageBitmap(one.drawn).then((bitmap) => {
    const scale = THUMBNAIL_PX / Math.max(bitmap.width, bitmap.height);
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
  }).catch(() => canvas.classList.add("blank"));
  return canvas;
}

/** A cell that no spreadsheet takes for a formula, as in dermalyze.core.tables.neutralise, quoted where CSV asks for it. */
export function csvCell(value) {
  if (value === null || value === undefined) return "";
  let text = String(value).replace(/[\r\n]+/g, " ");
  const plainNumber = /^-(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(text);
  if (/^[=+\-@\t\r\n＝＋－＠]/.test(text) && !plainNumber) text = `'${text}`;
  return /[",;']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The batch as CSV. On a refusal the class or labels and their probabilities are left empty: they are no answer. */
export function csvOf(cases, classes, disclaimer) {
  const points = cases.find((one) => one.result?.operating_points)?.result.operating_points.map(({ name }) => name) ?? [];
  const head = ["number", "file", "outcome", "flagged", ...points.map((name) => `${name}_probability`), ...(cases[0]?.task.csvHead(classes) ?? []), "ood_score", "reasons", "metadata_unknown", "notes", "error", "model", "model_sha256", "disclaimer"];
  const line = (one) => {
    const state = stateOf(one);
    const said = confident(one) ? one.result : {};
    const list = (values) => (values ?? []).join("; ");
    const shares = new Map((said.operating_points ?? []).map(({ name, probability }) => [name, probability]));
    return [one.number, one.name, state, (said.flagged ?? []).join("|"), ...points.map((name) => shares.get(name)), ...one.task.csvCells(said, classes), one.result?.ood?.score,
      list(one.result?.reasons), list(one.result?.metadata_unknown), list(one.result?.notes), one.error?.line, one.model?.name,
      one.model?.sha256, disclaimer];
  };
  return [head, ...cases.map(line)].map((cells) => cells.map(csvCell).join(",")).join("\n") + "\n";
}
