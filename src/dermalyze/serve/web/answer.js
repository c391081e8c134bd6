// One case: the outcome in plain words first, then what it rests on.

import { el, pairs } from "./dom.js";
import { LANGUAGE, number, t, tOr } from "./texts.js";
import { viewer } from "./viewer.js";

const SHOWN_CLASSES = 10;

/** "refer", "set", "caution" or "answer": what the whole answer comes to. The most careful of all verdicts wins. */
export function outcomeOf({ result, task }) {
  if (result.decision === "refer" || result.verdict === "refer" || result.abstain || !task.answers(result)) return "refer";
  if (result.decision === "set") return "set";
  return result.verdict === "caution" ? "caution" : "answer";
}

/** One sentence for a screen reader and the table. */
export function headline(one, descriptions) {
  const outcome = outcomeOf(one);
  return outcome === "refer" ? t("answer.refer") : one.task.headline(one.result, outcome, descriptions);
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
  const numbers = rows.length ? probabilities(one, rows, refused) : null;
  return el("article", { class: "case", "aria-labelledby": "answer-heading" },
    verdict(one, outcome, rows, descriptions),
    el("div", { class: "columns" },
      el("section", { class: "card" }, el("h3", {}, t("view.heading")), figure),
      refused
        ? el("div", { class: "stack" }, checks(result), numbers
          ? el("details", { class: "card computed" }, el("summary", {}, t("answer.computed")), numbers) : null)
        : el("div", { class: "stack" }, numbers, provenance(one))),
    refused ? provenance(one) : checks(result),
    el("div", { class: "buttons no-print" }, actions));
}

function verdict(one, outcome, rows, descriptions) {
  const { result, task } = one;
  const reasons = (result.reasons ?? []).map(String);
  const facts = outcome === "refer" ? [] : task.facts(result, outcome, rows, descriptions);
  if (outcome !== "refer") {
    const key = { answer: "answer.refer-no", caution: "answer.refer-caution", set: "answer.refer-set" }[outcome];
    facts.push([t("answer.refer-to"), t(key)]);
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

function probabilities({ result, task }, rows, refused) {
  const list = (some) => el("ul", { class: "bars" }, some.map(task.bars(result, rows, refused)));
  const shown = Math.max(SHOWN_CLASSES, task.unfolded(result));
  const rest = rows.slice(shown);
  const words = [t(result.calibrated ? "answer.calibrated" : "answer.not-calibrated"), ...task.remarks(result, refused)];
  return el("section", { class: refused ? "probabilities" : "probabilities card" },
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
