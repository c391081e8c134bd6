// One case: the outcome in plain words first, then what it rests on.

import { el, pairs } from "./dom.js";
import { LANGUAGE, number, percent, t, tOr } from "./texts.js";
import { viewer } from "./viewer.js";

const SHOWN_CLASSES = 10;

/**
 * "refer", "examine", "set", "caution" or "answer": what the whole answer comes to. The most careful of all wins; "examine" is
 * an image that reaches the threshold of one of the model's operating points.
 */
export function outcomeOf({ result, task }) {
  if (result.decision === "refer" || result.verdict === "refer" || result.abstain || !task.answers(result)) return "refer";
  if (reached(result).length) return "examine";
  if (result.decision === "set") return "set";
  return result.verdict === "caution" ? "caution" : "answer";
}

/** The operating points that the image reaches. */
export function reached(result) {
  return (result.operating_points ?? []).filter((point) => point.positive === true);
}

/** How many of the first reasons say no more than that operating points are reached. */
export function flags(one) {
  return outcomeOf(one) === "examine" ? reached(one.result).length : 0;
}

/** One sentence for a screen reader and the table. */
export function headline(one, descriptions) {
  const outcome = outcomeOf(one);
  if (outcome === "refer") return t("answer.refer");
  if (outcome !== "examine") return one.task.headline(one.result, outcome, descriptions);
  return t("answer.examine", { found: reached(one.result).map((point) => `${point.title} ${percent(point.probability)}`).join(", ") });
}

/**
 * The page of one case.
 * `one` has file name, url, task, result, model, metadata and time; `descriptions` is class to words; `actions` are buttons.
 */
export function answerPage(one, descriptions, { actions, again }) {
  const { result, task } = one;
  const outcome = outcomeOf(one);
  const rows = task.ranked(result, descriptions);
  const names = new Map(rows.map(([name, words]) => [name, words]));
  const refused = outcome === "refer";
  const figure = viewer({ url: one.url, heatmap: refused ? null : result.heatmap, note: result.heatmap_note, names,
    graded: task.graded(result), noun: task.NOUN, again });
  return el("article", { class: "case", "aria-labelledby": "answer-heading" },
    verdict(one, outcome, rows, descriptions),
    el("div", { class: "columns" },
      el("section", { class: "card" }, el("h3", {}, t("view.heading")), figure),
      refused ? checks(result) : el("div", { class: "stack" }, probabilities(one, rows), provenance(one))),
    refused ? provenance(one) : checks(result),
    el("div", { class: "buttons no-print" }, actions));
}

function verdict(one, outcome, rows, descriptions) {
  const { result, task } = one;
  const reasons = (result.reasons ?? []).map(String).slice(flags(one));
  const facts = [];
  if (outcome !== "refer") {
    facts.push([t("answer.what-to-do"), t(`answer.do-${outcome}`)]);
    const points = (result.operating_points ?? []).map(pointRow);
    if (points.length) facts.push([t("answer.points"), el("ul", { class: "points" }, points)]);
    facts.push(...task.facts(result, result.decision === "set" ? "set" : outcome, rows, descriptions));
  }
  if (reasons.length) {
    facts.push([t("answer.why"), reasons.length === 1 ? reasons[0] : el("ul", {}, reasons.map((words) => el("li", {}, words)))]);
  }
  if (result.accepted_leak) facts.push([t("answer.leak"), t("answer.leak-because", { reason: result.accepted_leak })]);
  return el("section", { class: `verdict ${outcome}`, "data-outcome": outcome },
    el("p", { class: "tag" }, t(`answer.tag-${outcome}`)),
    el("h2", { id: "answer-heading", tabindex: "-1" }, headline(one, descriptions)),
    outcome === "refer" ? el("p", { class: "refer-lead" }, t("answer.refer-lead")) : null,
    pairs(facts));
}

/** A title that begins a sentence. */
export function capital(title) {
  return String(title).charAt(0).toUpperCase() + String(title).slice(1);
}

/** One operating point: what the image has there, the rule, and what was measured of the rule. */
function pointRow(point) {
  const interval = (share) => (typeof share?.value !== "number" ? null
    : typeof share.low !== "number" ? percent(share.value)
      : t("point.interval", { value: percent(share.value), low: percent(share.low), high: percent(share.high) }));
  const [sensitivity, specificity] = [interval(point.sensitivity), interval(point.specificity)];
  const state = point.positive === true ? "above" : point.positive === false ? "below" : "none";
  const rule = state === "none" ? t("point.none", { note: point.note ?? "" })
    : t(`point.${state}`, { threshold: percent(point.threshold, true), target: percent(point.target) });
  const measured = sensitivity && specificity ? t("point.measured", { sensitivity, specificity }) : t("point.not-measured");
  return el("li", { class: `point ${state}`, "data-point": point.name, "data-positive": String(point.positive === true) },
    el("span", {}, el("strong", {}, t("point.share", { title: capital(point.title), percent: percent(point.probability, true) })), ` ${rule}`),
    state === "none" ? null : el("span", { class: "small quiet" }, measured));
}

function probabilities({ result, task }, rows) {
  const list = (some) => el("ul", { class: "bars" }, some.map(task.bars(result, rows)));
  const shown = Math.max(SHOWN_CLASSES, task.unfolded(result));
  const rest = rows.slice(shown);
  const words = [t(result.calibrated ? "answer.calibrated" : "answer.not-calibrated"), ...task.remarks(result)];
  return el("section", { class: "probabilities card" },
    el("h3", {}, t(result.calibrated ? "answer.probabilities" : "answer.scores")),
    list(rows.slice(0, shown)),
    rest.length ? el("details", {}, el("summary", {}, t(`answer.more-${task.NOUN}`, { count: rest.length })), list(rest)) : null,
    el("p", { class: "small quiet" }, words.join(" ")));
}

const STATE = { true: "ok", false: "bad", accept: "ok", caution: "caution", refer: "bad" };

function checks(result) {
  const rows = [];
  for (const check of result.quality?.checks ?? []) {
    const numbers = check.value == null ? "" : check.limit == null ? t("check.score", { value: number(check.value) })
      : t("check.numbers", { value: number(check.value), limit: limitWords(check.limit) });
    const name = tOr(`check.${check.name}`, String(check.name).replaceAll("_", " "));
    const state = !check.ok && result.quality.verdict === "caution" ? "caution" : STATE[check.ok];
    const plain = check.ok && String(check.words).startsWith(check.name); // says no more than its name and state
    rows.push(checkRow(name, state, plain ? "" : check.words, numbers));
  }
  if (!rows.length && result.quality) rows.push(checkRow(t("check.quality"), STATE[result.quality.verdict], "", ""));
  if (result.modality) {
    const score = result.modality.score;
    const state = score == null && result.modality.verdict === "accept" ? undefined : STATE[result.modality.verdict];
    rows.push(checkRow(t("check.modality"), state, result.modality.words, score == null
      ? "" : t("check.score", { value: number(score) })));
  }
  const ood = result.ood;
  rows.push(ood ? checkRow(t("check.ood"), STATE[ood.ok], t(ood.ok ? "check.ood-ok" : "check.ood-bad"),
    ood.threshold == null ? t("check.score", { value: number(ood.score) })
      : t("check.numbers", { value: number(ood.score), limit: number(ood.threshold) }))
    : checkRow(t("check.ood"), undefined, t("check.ood-none"), ""));
  return el("section", { class: "card" }, el("h3", {}, t("answer.checks")), el("ul", { class: "checks" }, rows));
}

function limitWords(limit) {
  return Array.isArray(limit) ? limit.map(number).join(" – ") : number(limit);
}

function checkRow(name, state, words, numbers) {
  return el("li", { class: `check ${state ?? "none"}` },
    el("span", { class: "badge" }, t(`check.${state ?? "none"}`)),
    el("span", { class: "check-words" }, el("strong", {}, name), words ? ` ${words}` : "",
      numbers ? el("span", { class: "small quiet numbers" }, numbers) : null));
}

function provenance(one) {
  const { result, model } = one;
  const given = Object.entries(one.metadata).map(([name, value]) => `${tOr(`field.${name}`, name)}: ${value}`);
  const unknown = result.metadata_unknown ?? null;
  const person = unknown === null ? null : [
    given.join(", ") || t("answer.used-none"), unknown.length ? t("answer.unknown", { names: unknown.join(", ") }) : "",
  ].filter(Boolean).join(". ");
  const when = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeStyle: "short" }).format(one.time);
  const notes = (result.notes ?? []).map(String);
  return el("section", { class: "card provenance" }, pairs([
    [t("answer.file"), one.name],
    [t("answer.model"), `${model.name ?? "–"}, ${model.recipe ?? "–"}, SHA-256 ${String(model.sha256 ?? "–").slice(0, 16)}`],
    [t("answer.when"), when],
    person === null ? null : [t("answer.used"), person],
    notes.length ? [t("answer.notes"), notes.join("; ")] : null,
  ], "facts small"));
}
