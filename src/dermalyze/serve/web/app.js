// The page: pictures come in, are asked for one at a time, and are shown. Nothing outlives it.

import { answerPage, headline } from "./answer.js";
import * as api from "./api.js";
import { batchPage, csvOf, stateOf, summary } from "./batch.js";
import { byId, download, el, fillTexts, put, say, show } from "./dom.js";
import { watch } from "./intake.js";
import { modelPage } from "./model.js";
import { Options } from "./options.js";
import { startCard } from "./start.js";
import { taskOf } from "./tasks.js";
import { LANGUAGE, t, useWords } from "./texts.js";
import { upright } from "./upright.js";

const LANES = 2; // pictures asked for at a time
const PATIENCE = 6; // waits for a busy server, a picture

let options = null;
let cases = [];
let shown = null;
let sort = { column: "number", down: false };
let running = null;
let disclaimer = t("page.disclaimer");

const descriptions = () => new Map((options?.model?.classes ?? []).map(({ name, description }) => [name, description]));

async function start() {
  document.documentElement.lang = LANGUAGE;
  document.title = t("page.title");
  fillTexts();
  addEventListener("hashchange", route);
  byId("stop").addEventListener("click", () => running?.abort());
  watch(take);
  await load();
  route();
}

/** Learn which models there are; without them nothing can be asked. */
async function load() {
  try {
    options = new Options(await api.models(), { changed: modelChanged, again: () => redo({ anew: true }) });
    put(byId("error"));
    modelChanged();
  } catch (error) {
    refuse([error], { retry: load });
  }
}

function modelChanged() {
  useWords(options.model?.modality?.words);
  byId("model-name").textContent = options.model?.name ?? "";
  byId("model").replaceChildren();
  if (options.model?.disclaimer) tell(options.model.disclaimer);
  clear();
  route();
}

/** The server's own sentence stands where ours did. */
function tell(words) {
  if (typeof words !== "string" || !words) return;
  disclaimer = words;
  byId("disclaimer").textContent = words;
}

function route(event) {
  const model = location.hash === "#model";
  byId("view-model").hidden = !model;
  byId("view-picture").hidden = model;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === (model ? "#model" : "#picture");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (model && !byId("model").hasChildNodes() && options) {
    byId("model").replaceChildren(options.model ? modelPage(options.model) : el("p", {}, t("model.none")));
  }
  if (event) {
    scrollTo(0, 0);
    byId("content").focus({ preventScroll: true });
  }
}

function clear() {
  running?.abort();
  running = null;
  for (const one of cases) if (one.url) URL.revokeObjectURL(one.url);
  cases = [];
  shown = null;
  sort = { column: "number", down: false };
  for (const id of ["batch", "answer", "error"]) put(byId(id));
  put(byId("start"), options?.model ? startCard(options.model, (file) => take([file], [])) : null);
  byId("progress").hidden = true;
  byId("ask").classList.remove("small-zone");
  if (options) options.single = false;
}

/** New pictures replace the old ones. */
async function take(files, refusals) {
  if (location.hash === "#model") location.hash = "#picture";
  if (!options) {
    await load();
    if (!options) return;
  }
  if (!files.length) {
    refuse(refusals);
    return;
  }
  clear();
  byId("start").hidden = true;
  if (options.forget()) refusals.push(t("ask.cleared"));
  if (files.length > 1 && options.drop()) refusals.push(t("ask.one-sample"));
  const asked = { model: options.model?.name, metadata: options.metadata, images: options.images, explain: options.drawsMaps && options.explain };
  options.fresh = false;
  byId("ask").classList.add("small-zone");
  cases = files.map((file, at) => ({ file, name: file.name, number: at + 1, asked, task: taskOf(options.model), metadata: asked.metadata }));
  if (refusals.length) refuse(refusals, { mild: true });
  await (cases.length === 1 ? askOne(cases[0]) : askMany());
}

async function askOne(one) {
  const control = begin(t("status.asking"));
  try {
    await ask(one, control.signal);
    open(one);
    say(headline(one, descriptions()));
  } catch (error) {
    if (!control.signal.aborted) refuse([error], { retry: () => askOne(one) });
  } finally {
    end(control);
  }
}

async function askMany() {
  const control = begin("");
  const mine = cases;
  const waiting = mine.filter((one) => !one.result);
  for (const one of waiting) Object.assign(one, { error: null, stopped: false });
  const lane = async () => {
    while (waiting.length && !control.signal.aborted) {
      const one = waiting.shift();
      try {
        await patiently(one, control.signal);
      } catch (error) {
        if (control.signal.aborted) break;
        one.error = error instanceof api.Refusal ? error : new api.Refusal("garbled", t("error.garbled"));
        if (one.error.status === "offline" || one.error.status === 401) control.abort();
      }
      progress();
    }
  };
  const progress = () => {
    if (running !== control) return;
    const done = mine.filter((one) => stateOf(one) !== "waiting").length;
    byId("progress-words").textContent = t("status.asking-many", { done, total: mine.length });
    Object.assign(byId("progress-bar"), { max: mine.length, value: done });
    drawBatch();
  };
  progress();
  show(byId("batch"));
  await Promise.all(Array.from({ length: LANES }, lane));
  const current = running === control;
  end(control);
  if (!current || cases !== mine) return;
  for (const one of mine) one.stopped = stateOf(one) === "waiting";
  const failed = mine.find((one) => ["offline", 401].includes(one.error?.status));
  if (failed) refuse([failed.error], { retry: askMany });
  drawBatch();
  say(t(control.signal.aborted ? "status.stopped" : "status.done-many", { summary: summary(mine) }));
}

/** Ask, and when the server is busy wait as long as it says. */
async function patiently(one, signal) {
  for (let left = PATIENCE; ; left -= 1) {
    try {
      await ask(one, signal, { explain: false });
      return;
    } catch (error) {
      if (!error.busy || left <= 0) throw error;
      const seconds = error.retryAfter ?? 1;
      const done = cases.filter((each) => stateOf(each) !== "waiting").length;
      byId("progress-words").textContent = t("status.waiting", { done, total: cases.length, seconds });
      await new Promise((resolve) => {
        setTimeout(resolve, seconds * 1000);
        signal.addEventListener("abort", resolve, { once: true });
      });
      signal.throwIfAborted();
    }
  }
}

async function ask(one, signal, changes = {}) {
  const asked = { ...one.asked, ...changes };
  const said = await api.predict(one.file, { ...asked, signal });
  one.picture ??= await upright(one.file);
  tell(said.disclaimer);
  Object.assign(one, { result: said.result, model: said.model, metadata: asked.metadata, time: new Date(), error: null });
}

/** The shown case once more: with its map, with that of another class, or (`anew`) with what is entered now. */
async function redo({ className = null, focus = null, anew = false }) {
  const one = shown;
  if (!one) return;
  const explain = options.drawsMaps && (options.explain || className !== null);
  one.asked = { ...one.asked, explain, ...(anew ? { metadata: options.metadata, images: options.images } : {}) };
  if (anew) options.fresh = false;
  const control = begin(t("status.asking"));
  try {
    await ask(one, control.signal, { className });
    if (shown === one) open(one, { stay: true });
    if (cases.length > 1) drawBatch();
    if (focus) byId(focus)?.focus();
    say(headline(one, descriptions()));
  } catch (error) {
    if (!control.signal.aborted) refuse([error], { retry: () => redo({ className, focus, anew }) });
  } finally {
    end(control);
  }
}

function begin(words) {
  running?.abort();
  const control = new AbortController();
  running = control;
  put(byId("error"), ...(byId("error").classList.contains("mild") ? [...byId("error").childNodes] : []));
  byId("progress-words").textContent = words;
  byId("progress-bar").removeAttribute("value");
  byId("progress").hidden = false;
  byId("answer").setAttribute("aria-busy", "true");
  if (words) say(words);
  return control;
}

function end(control) {
  if (running !== control) return;
  running = null;
  byId("progress").hidden = true;
  byId("answer").removeAttribute("aria-busy");
}

function drawBatch() {
  const button = (key, act, kind = "button") => el("button", { type: "button", class: kind, "data-focus": key, on: { click: act } }, t(key));
  const focused = document.activeElement?.dataset?.focus;
  const scrolled = byId("batch").querySelector(".scroll")?.scrollLeft ?? 0;
  const classes = (options.model?.classes ?? []).map(({ name }) => name);
  put(byId("batch"), batchPage(cases, descriptions(), sort, {
    open: (one) => {
      open(one);
      byId("answer-heading").focus({ preventScroll: true });
    },
    resort: (order) => { sort = order; drawBatch(); },
    buttons: [
      button("batch.csv", () => download("dermalyze.csv", csvOf(cases, classes, disclaimer), "text/csv;charset=utf-8"), "button primary"),
      button("batch.print", () => print()),
      button("batch.clear", () => { clear(); byId("file").focus(); }),
    ],
  }));
  byId("batch").querySelector(".scroll").scrollLeft = scrolled;
  if (focused) byId("batch").querySelector(`[data-focus="${focused}"]`)?.focus();
  byId("batch").hidden = shown !== null;
}

/** Show one case; in a batch it takes the place of the table until one goes back. */
function open(one, { stay = false } = {}) {
  one.url ??= URL.createObjectURL(one.picture);
  shown = one;
  const many = cases.length > 1;
  const actions = [
    el("button", { type: "button", class: "button primary", on: { click: () => print() } }, t("answer.print")),
    many ? el("button", { type: "button", class: "button", on: { click: back } }, t("answer.back")) : null,
    many ? null : el("button", { type: "button", class: "button", on: { click: () => {
      clear();
      scrollTo(0, 0);
      byId("file").focus();
    } } }, t("answer.next")),
  ];
  const again = (className) => redo({ className, focus: "map-class" });
  put(byId("answer"), answerPage(one, descriptions(), { actions, again }));
  byId("batch").hidden = true;
  options.single = true;
  if (stay) return;
  show(byId("answer"));
  if (many && options.drawsMaps && options.explain && !one.result.heatmap && stateOf(one) !== "refer") redo({});
}

function back() {
  const { number } = shown;
  if (shown.url) URL.revokeObjectURL(shown.url);
  shown.url = null;
  shown = null;
  options.single = false;
  running?.abort();
  put(byId("answer"));
  byId("batch").hidden = false;
  drawBatch();
  byId("batch").querySelector(`[data-focus="open ${number}"]`)?.focus();
}

/** What went wrong, in plain words; `mild` is a remark, after which things go on. */
function refuse(errors, { retry = null, mild = false } = {}) {
  const known = errors.map((error) => (typeof error === "string" || error instanceof api.Refusal ? error : new api.Refusal("garbled", t("error.garbled"))));
  for (const [at, error] of known.entries()) if (error !== errors[at]) console.warn(errors[at]);
  const lines = known.map((error) => el("p", {}, typeof error === "string" ? error : error.message,
    error.said ? el("span", { class: "small detail" }, error.said) : null));
  const wantsKey = known.some((error) => error.status === 401);
  const node = byId("error");
  node.classList.toggle("mild", mild);
  put(node, mild ? null : el("h2", {}, t("error.heading")), ...lines, wantsKey ? keyForm(retry) : null,
    retry && !wantsKey && known.every((error) => error.passing !== false) ? el("button", { type: "button", class: "button", on: { click: retry } }, t("error.again")) : null);
  if (!mild) show(node);
}

function keyForm(retry) {
  const input = el("input", { type: "password", id: "key", autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    api.useKey(input.value.trim());
    if (retry) retry();
    else put(byId("error"));
  };
  return el("form", { class: "key", on: { submit } }, el("label", { for: "key" }, t("error.key")), input,
    el("button", { type: "submit", class: "button" }, t("error.key-use")));
}

start();
