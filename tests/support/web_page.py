"""A real Chromium on the page of a real server: starting both, and what is measured in the page."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
PATIENCE_MS = 60_000  # nothing is timed; a machine at work is slow

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no Chromium for the tests of the web page: apt-get install chromium (make test does it where it may), pip install playwright",
)


@contextmanager
def serving(artefact: Path, *options: str) -> Iterator[str]:
    """Run `dermalyze serve` on a free port; gives the address of its page."""
    program = "from dermalyze.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", str(artefact), "--port", "0", "--threads", "1", *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if found := re.search(r"http://[\w.:\[\]-]+", line):
                    threading.Thread(target=process.stdout.read, daemon=True).start()  # or its pipe would fill
                    yield found[0] + "/"
                    return
            raise AssertionError(f"the server did not start: {said}")
        finally:
            process.terminate()


@dataclass
class Watched:
    """A page, and what it did.

    Attributes:
        page: Playwright's.
        errors: of its console and its scripts, other than those of refused requests.
        asked: addresses that were requested.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def sent(self) -> list[dict[str, str]]:
        """Fields of the requests to predict since the page was loaded; of a file its name and kind."""
        return list(self.page.evaluate("window.sent"))

    def give(self, *files: Path | dict[str, Any]) -> None:
        """Choose files, as a person does."""
        self.page.set_input_files("#file", [named(file.name, file) if isinstance(file, Path) else file for file in files])

    def ask(self, *files: Path | dict[str, Any]) -> str:
        """Choose one file and wait for its answer; gives the outcome."""
        self.page.evaluate("document.getElementById('answer').replaceChildren()")
        self.give(*files)
        return str(self.page.locator(".verdict").get_attribute("data-outcome"))

    def batch(self, *files: Path | dict[str, Any]) -> None:
        """Choose several and wait until all are answered."""
        self.give(*files)
        self.page.wait_for_selector("#batch tbody tr")
        self.page.wait_for_selector("#progress", state="hidden")

    def changed(self, model: dict[str, Any] | None = None, **result: Any) -> None:
        """From now on change fields of the server's good answers as they reach the page."""
        self.page.evaluate("patch => { window.patch = patch; }", {"result": result, "model": model or {}})

    def unchanged(self) -> None:
        """Leave the answers as they are again."""
        self.page.evaluate("() => { window.patch = null; }")

    def described(self, **model: Any) -> None:
        """Load the page again with other fields of its models."""

        def handle(route: Any) -> None:
            response = route.fetch()
            models = [{**each, **model} for each in response.json()["models"]]
            route.fulfill(response=response, json={"models": models})

        self.page.route("**/v1/models", handle)
        self.page.reload()
        self.page.wait_for_selector("#model-name:not(:empty)")


def named(name: str, path: Path) -> dict[str, Any]:
    """A picture to upload under another name."""
    return {"name": name, "mimeType": f"image/{'png' if path.suffix == '.png' else 'jpeg'}", "buffer": path.read_bytes()}


# In the page, since a browser does not tell what is in the files that it uploads.
CHANGE = """
const honest = window.fetch;
window.sent = [];
window.fetch = async (path, options) => {
  const shown = (value) => (value instanceof File ? `${value.name} ${value.type}` : value);
  if (options?.body) window.sent.push(Object.fromEntries([...options.body].map(([name, value]) => [name, shown(value)])));
  const response = await honest(path, options);
  if (!window.patch || !response.ok || !String(path).endsWith("/predict")) return response;
  const body = await response.json();
  Object.assign(body.results[0], window.patch.result);
  Object.assign(body.model, window.patch.model);
  return new Response(JSON.stringify(body), { status: response.status, headers: response.headers });
};
"""


@contextmanager
def watched(browser: Any, address: str, **context: Any) -> Iterator[Watched]:
    """A fresh page, ready to be asked."""
    opened = browser.new_context(**{"viewport": {"width": 1160, "height": 900}, "reduced_motion": "reduce", **context})
    opened.set_default_timeout(PATIENCE_MS)
    opened.add_init_script(CHANGE)
    found = Watched(opened.new_page())
    page = found.page
    page.on("console", lambda message: found.errors.append(message.text) if _bad(message) else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda request: found.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#model-name:not(:empty)")
    try:
        yield found
    finally:
        opened.close()


def _bad(message: Any) -> bool:
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


CONTRAST = """() => {
  const channels = (text) => {
    const canvas = CONTRAST_CANVAS.getContext("2d", { willReadFrequently: true });
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((k) => top[k] * top[3] + under[k] * (1 - top[3])).concat(1);
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(channels(getComputedStyle(at).backgroundColor));
    const ground = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
    return layers.reverse().reduce((under, layer) => over(layer, under), ground);
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const CONTRAST_CANVAS = document.createElement("canvas");
  CONTRAST_CANVAS.width = CONTRAST_CANVAS.height = 1;
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || !node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    if (node.closest(".hidden, .skip, script, noscript, option, :disabled")) continue;
    const style = getComputedStyle(node);
    const under = behind(node);
    const colour = channels(node.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(over(colour, under)), light(under)].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    found.push({ words: text.data.trim().slice(0, 40), ratio: (a + 0.05) / (b + 0.05), needed: large ? 3 : 4.5 });
  }
  return found;
}"""
"""Every visible text with its contrast to what it stands on, and what WCAG 2.2 AA (1.4.3) asks."""

FAULTS = """() => {
  const faults = [];
  const seen = (node) => node.checkVisibility() || node.closest(".hidden") === node;
  const named = (node) => [node.getAttribute("aria-label"), ...(node.getAttribute("aria-labelledby") ?? "").split(" ")
    .filter(Boolean).map((id) => document.getElementById(id)?.textContent), ...[...(node.labels ?? [])].map((l) => l.textContent),
    ["BUTTON", "A", "SUMMARY"].includes(node.tagName) ? node.textContent : ""].join("").trim();
  for (const node of document.querySelectorAll("input, select, textarea, button, a[href], summary, progress, video, [role=img], [role=region]")) {
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
}"""
"""What a screen reader or a keyboard would stumble over."""
