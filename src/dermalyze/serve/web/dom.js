// Elements without markup: whatever comes from outside becomes text, never HTML.

import { t } from "./texts.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `el("p", { class: "small" }, "words", otherElement)`.
 * `on` holds listeners; other names are attributes, where true stands alone and false, null and undefined are left out.
 */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Put children into a node instead of what it holds; without any it is hidden as well. */
export function put(node, ...children) {
  node.replaceChildren(...children.filter(Boolean));
  node.hidden = !node.hasChildNodes();
}

/** Say something to a screen reader. */
export function say(words) {
  const node = byId("status");
  node.textContent = "";
  requestAnimationFrame(() => { node.textContent = words; });
}

/** Fill the words into the elements that name them. */
export function fillTexts() {
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
}

/** Bring a node into sight, without motion where that is wished. */
export function show(node) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  node.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}

/** Pairs of a name and what it is, as a description list; a value may be words or an element. */
export function pairs(rows, name = "facts") {
  const items = rows.filter(Boolean).map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)));
  return el("dl", { class: name }, items);
}

/** The filled part of a bar, by its share of the whole. */
export function fillOf(share, name = "fill") {
  const fill = el("span", { class: name });
  fill.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  return fill;
}

/** Offer bytes for download under a name. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
