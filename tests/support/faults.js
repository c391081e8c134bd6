// What a screen reader or a keyboard would stumble over.
() => {
  const faults = [];
  const seen = (node) => node.checkVisibility() || node.closest(".hidden") === node;
  const named = (node) => [node.getAttribute("aria-label"), ...(node.getAttribute("aria-labelledby") ?? "").split(" ")
    .filter(Boolean).map((id) => document.getElementById(id)?.textContent), ...[...(node.labels ?? [])].map((l) => l.textContent),
    ["BUTTON", "A", "SUMMARY"].includes(node.tagName) ? node.textContent : ""].join("").trim();
  const toName = "input, select, textarea, button, a[href], summary, progress, video, [role=img], [role=region]";
  for (const node of document.querySelectorAll(toName)) {
    if (seen(node) && !named(node)) faults.push(`no name: ${node.outerHTML.slice(0, 80)}`);
  }
  for (const node of document.querySelectorAll("img")) if (!node.hasAttribute("alt")) faults.push("an image without alt");
  for (const node of document.querySelectorAll("svg:not([role=img])")) if (node.getAttribute("aria-hidden") !== "true") faults.push("a nameless drawing");
  let level = 0;
  for (const node of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    if (!node.checkVisibility()) continue;
    const now = Number(node.tagName[1]);
    if (now > level + 1) faults.push(`${node.tagName} after H${level}: ${node.textContent}`);
    if (!node.textContent.trim()) faults.push(`${node.tagName} without words`);
    level = now;
  }
  const tops = [...document.querySelectorAll("h1")].filter((node) => node.checkVisibility()).length;
  if (tops !== 1) faults.push(`${tops} headings of the first level`);
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`id twice: ${id}`);
  for (const name of ["for", "aria-labelledby", "aria-describedby"]) {
    for (const node of document.querySelectorAll(`[${name}]`)) {
      for (const id of node.getAttribute(name).split(" ")) if (!document.getElementById(id)) faults.push(`${name}: no #${id}`);
    }
  }
  for (const node of document.querySelectorAll("th")) if (!node.scope) faults.push("a head cell without scope");
  for (const node of document.querySelectorAll("[tabindex]")) if (node.tabIndex > 0) faults.push("a tabindex above 0");
  if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
  if (!document.documentElement.lang) faults.push("no language");
  if (document.querySelector("[style], [onclick], [onload]")?.matches("[onclick], [onload]")) faults.push("a listener in the markup");
  return faults;
}
