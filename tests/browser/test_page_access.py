"""The web page for everybody: keyboard, screen reader, dark mode, small screens; and its words and colors in one place."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mapped import GRADES
from web_page import CONTRAST, FAULTS, HEATMAP, PATIENCE_MS, POINTS, Watched, needs_browser

import dermalyze
from dermalyze.config.classes import HAM10000_CLASSES
from dermalyze.core.tables import neutralise
from dermalyze.imaging.modalities import MODALITIES
from dermalyze.report.style import class_styles

WEB = Path(dermalyze.__file__).parent / "serve" / "web"
Opener = Callable[..., Watched]


def states(w: Watched, lesions: list[Path], noise: Path) -> Iterator[str]:
    """Bring the page into each state that it has, and name it."""
    yield "start"
    for outcome in ("answer", "caution", "set"):
        decision, verdict = "set" if outcome == "set" else "answer", "accept" if outcome == "answer" else "caution"
        grade = dict(zip(("answer", "caution", "set"), GRADES.values(), strict=True))[outcome]
        w.changed(
            decision=decision, verdict=verdict, abstain=False, prediction_set=["mel", "nv"], heatmap={**HEATMAP, "grade": grade}
        )
        assert w.ask(lesions[0]) == outcome
        yield outcome
    w.changed(decision="answer", verdict="caution", abstain=False, flagged=["mel"], operating_points=POINTS, heatmap=None)
    assert w.ask(lesions[0]) == "examine"
    yield "examine"
    w.unchanged()
    assert w.ask(noise) == "refer"
    yield "refer"
    bad = {"name": "bad.jpg", "mimeType": "image/jpeg", "buffer": b"none"}
    w.give(bad)
    w.page.wait_for_selector("#error h2")
    yield "error"
    w.batch(lesions[0], noise, bad)
    yield "batch"
    bins = [{"confidence": 0.5, "accuracy": 0.4, "count": 10}, {"confidence": 0.9, "accuracy": 0.9, "count": 30}]
    w.page.route("**/v1/models/*/reliability", lambda route: route.fulfill(json=bins))
    card = "# A card\n\n## Use\n\n`code`, [a link](https://example.org/).\n\n| a | b |\n|---|---|\n| words | 1 |\n\n> said\n"
    w.page.route("**/v1/models/*/card", lambda route: route.fulfill(body=card, content_type="text/markdown"))
    w.page.goto(w.page.url.split("#")[0] + "#model")
    w.page.wait_for_selector(".diagram")
    w.page.wait_for_selector(".markdown")
    yield "model"


@needs_browser
@pytest.mark.parametrize(
    "settings",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2},
    ],
    ids=["light", "dark", "phone"],
)
def test_every_state_can_be_read_by_everybody(
    open_page: Opener, lesions: list[Path], noise: Path, settings: dict[str, Any]
) -> None:
    w, seen = open_page(**settings), []
    for state in states(w, lesions, noise):
        seen.append(state)
        assert w.page.evaluate(FAULTS) == [], state
        measured = w.page.evaluate(CONTRAST)
        assert len(measured) > 10, state
        assert [text for text in measured if text["ratio"] < text["needed"]] == [], state
        assert w.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state
    assert len(seen) == 9


@needs_browser
def test_what_is_measured_in_the_page_finds_faults(open_page: Opener) -> None:
    w = open_page()
    w.page.evaluate(
        """() => {
          const main = document.querySelector("main");
          for (const tag of ["input", "h4", "img"]) main.append(document.createElement(tag));
          const pale = main.appendChild(document.createElement("p"));
          pale.textContent = "pale";
          pale.style.color = "#999";
        }"""
    )
    assert len(w.page.evaluate(FAULTS)) == 4  # no name, a level left out, a heading without words, no alt
    assert [text["words"] for text in w.page.evaluate(CONTRAST) if text["ratio"] < text["needed"]] == ["pale"]


@needs_browser
def test_keyboard_alone(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    w.changed(decision="answer", verdict="accept", abstain=False)
    stops: list[str] = []
    choosers: list[Any] = []
    w.page.on("filechooser", lambda chooser: choosers.append(chooser))  # long before one opens, or it could be missed
    for _ in range(4):
        w.page.keyboard.press("Tab")
        stops.append(w.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        outlined = (
            "n => n !== null && getComputedStyle(n).outlineStyle !== 'none' && getComputedStyle(n).outlineWidth !== '0px'"
        )
        node = "document.activeElement"
        assert w.page.evaluate(f"[{node}, {node}.nextElementSibling].some({outlined})"), (
            stops
        )  # a hidden input has it on its label
    assert stops == ["Skip to the content", "Image", "The model", "file"]
    w.page.keyboard.press("Enter")
    for _ in range(PATIENCE_MS // 50):
        if choosers:
            break
        w.page.wait_for_timeout(50)
    choosers[0].set_files(str(lesions[0]))
    w.page.wait_for_selector(".verdict")
    live = w.page.locator("#status")
    w.page.wait_for_selector("#status >> text=Most likely")
    assert live.get_attribute("aria-live") == "polite"
    assert w.page.inner_text("#answer-heading") == live.inner_text()
    for _ in range(12):
        w.page.keyboard.press("Tab")
        if w.page.evaluate("document.activeElement.name") == "view-mode":
            break
    w.page.keyboard.press("ArrowRight")
    assert w.page.locator(".viewer").get_attribute("data-mode") == "side"
    w.page.keyboard.press("Tab")
    w.page.keyboard.press("ArrowRight")
    assert w.page.locator(".map").evaluate("node => node.style.opacity") == "0.55"
    w.page.keyboard.press("Tab")
    w.page.keyboard.press("Tab")
    w.page.keyboard.press("Tab")
    assert w.page.evaluate("document.activeElement.textContent") == "Another image"
    w.page.keyboard.press("Enter")
    assert w.page.evaluate("document.activeElement.id") == "file"
    assert w.page.locator(".verdict").count() == 0


@needs_browser
def test_classes_have_the_colours_of_the_report(open_page: Opener) -> None:
    w = open_page(color_scheme="light")
    for names in ([*HAM10000_CLASSES], ["mel", "other", "third", "nv"], [f"class {k}" for k in range(9)]):
        shown = w.page.evaluate(
            """async (names) => {
              const { slots } = await import("/static/classes.js");
              const dot = document.body.appendChild(document.createElement("span"));
              return [...slots(names).values()].map((slot) => {
                dot.className = `slot-${slot}`;
                return getComputedStyle(dot).getPropertyValue("--colour");
              });
            }""",
            names,
        )
        assert [colour.upper() for colour in shown] == [style.colour for style in class_styles(names)]


@needs_browser
def test_cells_are_those_of_the_command_line(open_page: Opener) -> None:
    values = ["=1+1", "+1", "-2.5", "-cmd", "@SUM(A1)", "\tx", "ISIC_1", 'a "b"', "a,b", "", "-.5e-3"]
    ours = "async (values) => { const { csvCell } = await import('/static/batch.js'); return values.map(csvCell); }"
    cells = open_page().page.evaluate(ours, values)
    plain = [cell[1:-1].replace('""', '"') if cell.startswith('"') else cell for cell in cells]
    assert plain == [neutralise(value) for value in values]


@needs_browser
def test_policy_lets_nothing_else_in(address: str) -> None:
    with urllib.request.urlopen(address) as response:
        policy, page = response.headers["Content-Security-Policy"], response.read().decode()
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";") if rule.strip()}
    assert rules["default-src"] in (["'self'"], ["'none'"])
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == ["'self'"]
    assert set(rules["img-src"]) == {"'self'", "blob:", "data:"}
    assert "unsafe" not in policy
    assert page == (WEB / "index.html").read_text(encoding="utf-8")


def test_markup_holds_no_script_and_no_style() -> None:
    page = (WEB / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", page) == []
    for path in WEB.rglob("*.js"):
        code = path.read_text(encoding="utf-8")
        assert (
            re.findall(
                r"(?:inner|outer|Adjacent)HTML|document\.write|\beval\(|new Function|(?:local|session)Storage|\.cookie", code
            )
            == []
        )
        assert len(code.splitlines()) < 350, path.name
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)\w", code) == [], path.name


def test_every_file_is_used_and_packed() -> None:
    files = [path for path in WEB.rglob("*") if path.is_file()]
    texts = {str(path.relative_to(WEB)): path.read_text(encoding="utf-8") for path in files if path.suffix != ".jpg"}
    for name in texts.keys() - {"index.html"}:
        assert any(f"/{name}" in text for other, text in texts.items() if other != name), name
    listed = json.loads(texts["examples/examples.json"])
    assert {path.name for path in files if path.suffix == ".jpg"} == {name for names in listed.values() for name in names}
    assert listed.keys() <= MODALITIES.keys()
    assert '"serve/web/**/*"' in (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")


def test_every_word_stands_in_one_place_and_is_used() -> None:
    texts = (WEB / "texts.js").read_text(encoding="utf-8")
    known = re.findall(r'^  "([\w.-]+)": "', texts, flags=re.M)
    assert len(known) == len(set(known))
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for path in WEB.rglob("*")
        if path.suffix in (".js", ".html") and path.name != "texts.js"
    )
    assert set(re.findall(r'(?:\bt\(|\btOr\(|data-(?:text|label)=)"([a-z]+\.[\w-]+)"', code)) - set(known) == set()
    used = set(re.findall(r'"([a-z]+\.[\w-]+)"', code))
    made = set(re.findall(r"\b(?:t|tOr)\(`([a-z]+\.[a-z-]*)\$\{", code))  # keys put together: t(`check.${state}`)
    assert [key for key in known if key not in used and not any(key.startswith(start) for start in made)] == []
