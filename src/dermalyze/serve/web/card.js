// Markdown to elements: the part of it that model cards use, built node by node. Markup inside it stays text.

import { el } from "./dom.js";

const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|__(.+?)__|\*(?![\s*])(.+?)\*|\[([^\]]*)\]\(([^()\s]*)\)|\\([\\`*_{}[\]()#+\-.!|<>~])/;
const LIST = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const RULER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** Markdown as a fragment; its first-level headings become `top` (3: h3), and the order of levels is kept without gaps. */
export function markdown(text, top = 3) {
  const lines = withoutFront(String(text).replaceAll("\r\n", "\n")).split("\n");
  const out = document.createDocumentFragment();
  let level = top - 1;
  for (let at = 0; at < lines.length;) {
    const line = lines[at];
    const heading = HEADING.exec(line);
    if (!line.trim()) {
      at += 1;
    } else if (/^(```|~~~)/.test(line)) {
      const end = lines.indexOf(line.slice(0, 3), at + 1);
      const last = end < 0 ? lines.length : end;
      out.append(el("pre", { tabindex: "0" }, el("code", {}, lines.slice(at + 1, last).join("\n"))));
      at = last + 1;
    } else if (heading) {
      level = Math.min(6, level + 1, heading[1].length + top - 1);
      out.append(el(`h${level}`, {}, inline(heading[2])));
      at += 1;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      out.append(el("hr"));
      at += 1;
    } else if (line.includes("|") && RULER.test(lines[at + 1] ?? "") && (lines[at + 1] ?? "").includes("-")) {
      const rows = [];
      let end = at + 2;
      for (; end < lines.length && lines[end].includes("|"); end += 1) rows.push(cells(lines[end]));
      out.append(table(cells(line), rows));
      at = end;
    } else if (LIST.test(line)) {
      at = list(lines, at, out);
    } else if (/^>\s?/.test(line)) {
      const quoted = [];
      for (; at < lines.length && /^>/.test(lines[at]); at += 1) quoted.push(lines[at].replace(/^>\s?/, ""));
      out.append(el("blockquote", {}, el("p", {}, inline(quoted.join(" ")))));
    } else {
      const words = [line];
      for (at += 1; at < lines.length && lines[at].trim() && !starts(lines[at]); at += 1) words.push(lines[at]);
      out.append(el("p", {}, inline(words.map((each) => each.trim()).join(" "))));
    }
  }
  return out;
}

function starts(line) {
  return HEADING.test(line) || LIST.test(line) || /^(```|~~~|>)/.test(line);
}

/** Without the YAML block that model hubs put before a card. */
function withoutFront(text) {
  return text.startsWith("---\n") && text.includes("\n---\n", 4) ? text.slice(text.indexOf("\n---\n", 4) + 5) : text;
}

function list(lines, start, out) {
  const items = [];
  const ordered = /\d/.test(LIST.exec(lines[start])[2]);
  let at = start;
  for (; at < lines.length; at += 1) {
    const item = LIST.exec(lines[at]);
    if (item) items.push([item[3]]);
    else if (/^\s+\S/.test(lines[at])) items.at(-1).push(lines[at].trim());
    else break;
  }
  out.append(el(ordered ? "ol" : "ul", {}, items.map((words) => el("li", {}, inline(words.join(" "))))));
  return at;
}

function cells(line) {
  const bare = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return bare.split(/(?<!\\)\|/).map((text) => text.trim().replaceAll("\\|", "|"));
}

function table(head, rows) {
  const number = (text) => /^[-+−]?[\d.,]+( ?%)?$/.test(text);
  const kind = head.map((_, k) => (rows.length && rows.every((row) => number(row[k] ?? "")) ? "number" : null));
  return el("div", { class: "scroll", tabindex: "0", role: "group" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((text, k) => el(text ? "th" : "td", { scope: text ? "col" : null, class: kind[k] }, inline(text))))),
    el("tbody", {}, rows.map((row) => el("tr", {},
      head.map((_, k) => el("td", { class: kind[k] }, inline(row[k] ?? ""))))))));
}

/** Words with code, stress and links; a link that is not plain web is shown as its words. */
function inline(text) {
  const out = [];
  let rest = text;
  for (let found = INLINE.exec(rest); found; found = INLINE.exec(rest)) {
    out.push(rest.slice(0, found.index));
    const [whole, , code, strong, alsoStrong, stress, words, target, escaped] = found;
    if (code !== undefined) out.push(el("code", {}, code));
    else if (strong ?? alsoStrong) out.push(el("strong", {}, inline(strong ?? alsoStrong)));
    else if (stress !== undefined) out.push(el("em", {}, inline(stress)));
    else if (words !== undefined) out.push(link(words, target));
    else out.push(escaped);
    rest = rest.slice(found.index + whole.length);
  }
  return [...out, rest].filter((part) => part !== "");
}

function link(words, target) {
  if (!/^https?:\/\//i.test(target)) return words;
  return el("a", { href: target, rel: "noopener noreferrer", target: "_blank" }, words);
}
