// The server's answers, and its refusals in plain words. Nothing is kept, and no file name is sent.

import { t } from "./texts.js";

const WAIT_MS = 120_000;
const OF_THE_PICTURE = [413, 415, 422]; // asking again with the same one is of no use
let key = "";

/** Use a key from now on; it is forgotten with the page. */
export function useKey(value) {
  key = value;
}

/** What went wrong, fit to be shown. `status` is the HTTP status, or "offline", "late", "garbled". */
export class Refusal extends Error {
  constructor(status, words, { detail = "", remedy = "", retryAfter = null, busy = false } = {}) {
    super(words);
    Object.assign(this, { status, detail, remedy, retryAfter, busy });
  }

  /** Whether asking again may help. */
  get passing() {
    return !OF_THE_PICTURE.includes(this.status);
  }

  /** What the server said to it, in sentences. */
  get said() {
    return sentences(this.detail, this.remedy);
  }

  /** One line of it all. */
  get line() {
    return [this.message, this.said].filter(Boolean).join(" ");
  }
}

function sentences(...texts) {
  const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
  return texts.filter(Boolean).map(sentence).join(" ");
}

/** GET v1/models. */
export async function models() {
  const body = await json(await fetched("v1/models"));
  if (!Array.isArray(body?.models)) throw new Refusal("garbled", t("error.garbled"));
  return body.models;
}

/** The model's card as Markdown, or null. */
export async function card(name) {
  return orNone(async () => (await fetched(`v1/models/${encodeURIComponent(name)}/card`)).text());
}

/** What is known of the model's reliability, or null. */
export async function reliability(name) {
  return orNone(async () => json(await fetched(`v1/models/${encodeURIComponent(name)}/reliability`)));
}

/**
 * The answer for one picture: { result, model, disclaimer }.
 * Raises a Refusal, or an AbortError where `signal` says so.
 */
export async function predict(file, { model, metadata = {}, images = {}, explain = false, className = null, signal } = {}) {
  const form = new FormData();
  form.append("file", file, "picture"); // instead of its own name, which may name a person
  for (const [name, image] of Object.entries(images)) form.append(name, image, "picture");
  if (model) form.append("model", model);
  if (explain) form.append("explain", "true");
  if (className !== null) form.append("class", className);
  if (Object.keys(metadata).length) form.append("metadata", JSON.stringify(metadata));
  const body = await json(await fetched("v1/predict", { method: "POST", body: form, signal }));
  const result = body?.results?.[0];
  if (!result || typeof result !== "object") throw new Refusal("garbled", t("error.garbled"));
  if (result.error) throw refusalOf(422, result.error);
  return { result, model: body.model ?? {}, disclaimer: body.disclaimer };
}

async function orNone(ask) {
  try {
    return await ask();
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function fetched(path, { signal, ...options } = {}) {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), WAIT_MS);
  const stop = () => limit.abort();
  signal?.addEventListener("abort", stop);
  let response;
  try {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options, headers, signal: limit.signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw limit.signal.aborted ? new Refusal("late", t("error.late")) : new Refusal("offline", t("error.offline"));
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
  if (response.ok) return response;
  let said = null;
  try {
    said = (await response.json())?.error;
  } catch { /* a proxy may answer with a page of its own */ }
  throw refusalOf(response.status, said, seconds(response.headers.get("Retry-After")));
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    throw new Refusal("garbled", t("error.garbled"));
  }
}

function refusalOf(status, said, retryAfter = null) {
  const code = said?.code;
  const known = [400, 401, 403, 404, 408, 413, 415, 422, 429, 504].includes(status);
  const busy = status === 503 && (retryAfter !== null || !code || code === "busy");
  let words = known ? t(`error.${status}`) : status >= 500 ? t("error.5xx", { status }) : t("error.other", { status });
  if (busy) words = retryAfter === null ? t("error.503-plain") : t("error.503", { seconds: retryAfter });
  const short = (text) => (typeof text === "string" ? text.trim().slice(0, 500) : "");
  const remedy = OF_THE_PICTURE.includes(status) ? short(said?.remedy) : ""; // others are for who writes programs
  const detail = short(said?.message);
  if (OF_THE_PICTURE.includes(status) && detail) return new Refusal(status, sentences(detail, remedy)); // the reason once
  return new Refusal(status, words, { detail, remedy, retryAfter, busy });
}

/** Seconds of a Retry-After header, which gives a number or a date; null without one. */
function seconds(value) {
  if (value === null || value === "") return null;
  const given = Number(value);
  const until = Number.isFinite(given) ? given : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(until) ? Math.min(600, Math.max(1, Math.ceil(until))) : null;
}
