"""A real Chromium on the page of a server: what a person does there, and what is measured."""

from __future__ import annotations

import importlib.util
import shutil
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

HEATMAP = {
    "png_base64": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4+1y1AgAHcAKC0HG4fwAAAABJRU5ErkJggg==",
    "class": "nv",
    "method": "class-activation map",
    "signed": False,
}
"""A heat map of one pixel, without its grade."""

POINTS: list[dict[str, Any]] = [
    {
        "name": "malignant", "title": "malignant", "classes": ["bcc", "mel"], "probability": 0.1, "positive": False,
        "threshold": 0.15, "target": 0.95, "note": "", "sensitivity": None, "specificity": None,
    },
    {
        "name": "mel", "title": "Melanoma", "classes": ["mel"], "probability": 0.084, "positive": True, "threshold": 0.064,
        "target": 0.95, "note": "", "sensitivity": {"value": 0.93, "low": 0.89, "high": 0.97, "n": 293, "groups": 175},
        "specificity": {"value": 0.61, "low": 0.576, "high": 0.639, "n": 1335, "groups": 1028},
    },
]  # fmt: skip
"""Operating points of an answer: one that is not reached and was never measured, and one that is reached."""

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="the tests of the web page need Chromium (make browser) and playwright (the extra dev)",
)


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
    """An image to upload under another name."""
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


CONTRAST, FAULTS = ((Path(__file__).parent / f"{name}.js").read_text(encoding="utf-8") for name in ("contrast", "faults"))
"""Functions that measure a page; each says at its head what it gives."""
