"""The web page of a model of several labels, beside a model of classes."""

from __future__ import annotations

import csv
import io
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labels import label_record
from mapped import CAM_RECORD, GRADES, mapped_graph
from painted_labels import LABELS, paint_set
from serving import server
from web_page import CONTRAST, FAULTS, HEATMAP, Watched, needs_browser

from dermalyze.core.result import DISCLAIMER
from dermalyze.serve.predictor.predictor import Predictor

pytestmark = needs_browser
Opener = Callable[..., Watched]
SIZE = (48, 48)
PLAINLY: dict[str, Any] = {"decision": "answer", "verdict": "accept", "reasons": [], "abstain": False}
NONE_SENTENCE = "No label reaches its threshold. This does not rule anything out."


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sorted(paint_set(tmp_path_factory.mktemp("painted") / "set", images=6).glob("*.png"))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, artifact_writer: Callable[..., Path], painted: list[Path]) -> Path:
    """Of the first image the most probable label misses its threshold, and the two others reach theirs."""

    def write(thresholds: list[float]) -> Path:
        folder = tmp_path_factory.mktemp("labels") / "artifact"
        cam = {**CAM_RECORD, "height": SIZE[0] // 4, "width": SIZE[1] // 4}
        graph = mapped_graph(len(LABELS), *SIZE)
        return artifact_writer(
            folder, name="painted", height=SIZE[0], width=SIZE[1], graph=graph, cam=cam, **label_record(thresholds, LABELS)
        )

    probabilities = Predictor(write([0.5] * len(LABELS)), threads=1).predict(painted[0]).probabilities
    best = max(probabilities.values())
    return write([p + 0.1 if p == best else p - 0.1 for p in probabilities.values()])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, artifact_writer: Callable[..., Path], artifact: Path) -> Iterator[str]:
    """Of a server with a model of labels and one of classes."""
    classes = artifact_writer(tmp_path_factory.mktemp("classes") / "artifact", name="moles")
    with server(artifact, classes) as started:
        yield started.address + "/"


def bars(w: Watched) -> list[tuple[str | None, bool]]:
    rows = w.page.locator(".bar").all()
    return [(row.get_attribute("data-class"), row.get_attribute("data-above") == "true") for row in rows]


def test_every_label_with_its_bar_threshold_and_words(open_page: Opener, artifact: Path, painted: list[Path]) -> None:
    w, expected = open_page(), Predictor(artifact, threads=1).predict(painted[0])
    w.changed(**PLAINLY)
    assert w.ask(painted[0]) == "answer"
    above = sorted(expected.positive or (), key=lambda name: -expected.probabilities[name])
    (below,) = set(LABELS) - set(above)
    assert bars(w) == [(above[0], True), (above[1], True), (below, False)]
    names = [name.upper() for name in above]
    assert w.page.inner_text("#answer-heading") == f"Above their thresholds: {', '.join(names)}"
    for name in LABELS:
        row = w.page.locator(f".bar[data-class={name}]")
        words = row.inner_text()
        assert ("above threshold" in words) == (name in above)
        assert ("below threshold" in words) == (name == below)
        assert f"{100 * expected.probabilities[name]:.1f} %" in words
        assert f"threshold {100 * expected.thresholds[name]:.1f} %" in words  # type: ignore[index]
        place = row.locator(".tick-mark").evaluate("node => parseFloat(node.style.left)")
        assert place == pytest.approx(100 * expected.thresholds[name], abs=1e-3)  # type: ignore[index]
    colors = {
        state: w.page.locator(f".bar[data-above={state}] .fill").first.evaluate(
            "node => getComputedStyle(node).backgroundColor"
        )
        for state in ("true", "false")
    }
    assert colors["true"] != colors["false"]
    words = w.page.inner_text("#answer")
    assert "class" not in words.lower().replace("class-activation map", "")
    assert w.page.inner_text("#disclaimer") == DISCLAIMER


def test_no_label_rules_nothing_out(open_page: Opener, painted: list[Path]) -> None:
    w = open_page()
    for verdict, outcome in (("accept", "answer"), ("caution", "caution")):
        w.changed(**{**PLAINLY, "verdict": verdict}, positive=[])
        assert w.ask(painted[0]) == outcome
        assert w.page.inner_text("#answer-heading") == NONE_SENTENCE
        assert w.page.locator("#status", has_text=NONE_SENTENCE).count() == 1
        assert [above for _, above in bars(w)] == [False] * len(LABELS)
        said = w.page.inner_text("#answer").lower()
        assert not any(word in said for word in ("harmless", "benign", "healthy", "normal", "clear"))


@pytest.mark.parametrize("change", [{"verdict": "refer"}, {"positive": None}, {"thresholds": None}], ids=str)
def test_a_refusal_names_no_label(open_page: Opener, painted: list[Path], change: dict[str, Any]) -> None:
    w = open_page()
    w.changed(**{**PLAINLY, **change})
    assert w.ask(painted[0]) == "refer"
    shown = w.page.inner_text("#answer")
    assert "No answer" in shown
    assert not any(name.upper() in shown for name in LABELS)
    assert "above threshold" not in shown
    assert w.page.locator(".bar").count() == 0


def test_the_heat_map_is_of_the_first_label_and_of_any_other(open_page: Opener, artifact: Path, painted: list[Path]) -> None:
    w, expected = open_page(), Predictor(artifact, threads=1).predict(painted[0], explain=True)
    w.changed(**PLAINLY)
    w.ask(painted[0])
    assert w.page.locator("#map-class").input_value() == expected.cam_class
    with w.page.expect_response("**/v1/predict"):
        w.page.get_by_label("Heat map for").select_option("frame")
    assert w.sent[-1]["class"] == "frame"
    best = max(LABELS, key=lambda name: expected.probabilities[name])
    for name in LABELS:
        w.changed(**PLAINLY, heatmap={**HEATMAP, "class": name, "grade": GRADES["better"]})
        w.ask(painted[0])
        assert ("this map is for another" in w.page.inner_text(".grade")) == (name != best)


def test_a_batch_and_its_csv(open_page: Opener, artifact: Path, painted: list[Path], tmp_path: Path) -> None:
    w, predictor = open_page(), Predictor(artifact, threads=1)
    w.changed(**PLAINLY)
    bad = {"name": "bad.jpg", "mimeType": "image/jpeg", "buffer": b"no image at all"}
    w.batch(*painted[:3], bad)
    heads = w.page.locator("thead th").all_inner_texts()
    assert any(head.startswith("Labels above threshold") for head in heads)
    assert any(head.startswith("Highest of them") for head in heads)
    with w.page.expect_download() as download:
        w.page.get_by_role("button", name="Download as CSV").click()
    download.value.save_as(tmp_path / "answers.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "answers.csv").read_text(encoding="utf-8"))))
    cells = w.page.locator("tbody td.classes").all_inner_texts()
    for path, row, cell in zip(painted[:3], rows, cells, strict=False):
        expected = predictor.predict(path)
        assert row["positive"] == "|".join(expected.positive or ())
        assert {name: float(row[f"p_{name}"]) for name in LABELS} == pytest.approx(expected.probabilities, abs=1e-6)
        assert {name: float(row[f"threshold_{name}"]) for name in LABELS} == pytest.approx(expected.thresholds, abs=1e-6)
        order = sorted(expected.positive or (), key=lambda name: -expected.probabilities[name])
        shown = [f"{name.upper()} {100 * expected.probabilities[name]:.0f} %" for name in order]
        assert cell == (", ".join(shown) or "none above threshold")
    assert rows[3]["error"]
    assert rows[3]["positive"] == rows[3]["p_bar"] == ""
    assert "predicted_class" not in rows[0]
    w.page.get_by_role("button", name="Highest of them").click()
    shown = w.page.locator("tbody tr").evaluate_all("rows => rows.map(row => row.children[5].textContent)")
    answers = [predictor.predict(path) for path in painted[:3]]
    highest = sorted(max(a.probabilities[name] for name in a.positive) for a in answers if a.positive)
    assert shown == [f"{100 * p:.0f} %" for p in highest] + ["–"] * (4 - len(highest))


def test_the_other_model_answers_with_one_class(open_page: Opener, painted: list[Path]) -> None:
    w = open_page()
    w.page.get_by_label("Model", exact=True).select_option("moles")
    w.changed(**PLAINLY)
    assert w.ask(painted[0]) == "answer"
    assert w.page.inner_text("#answer-heading").startswith("Most likely: ")
    assert w.page.locator(".tick-mark").count() == 0
    w.page.get_by_label("Model", exact=True).select_option("painted")
    assert w.ask(painted[0]) == "answer"
    assert w.page.locator(".tick-mark").count() == len(LABELS)


def test_the_page_about_the_model(open_page: Opener, artifact: Path) -> None:
    w = open_page()
    bins = [{"probability": 0.2, "share": 0.1, "low": 0.0, "high": 0.3, "count": 9}]
    other = [{"probability": 0.7, "share": 0.8, "low": 0.6, "high": 0.9, "count": 5}]
    body = json.dumps({"set": "test", "calibrator": "platt", "labels": {"bar": bins, "disc": other}, "disclaimer": DISCLAIMER})
    w.page.route("**/reliability", lambda route: route.fulfill(body=body, content_type="application/json"))
    w.page.goto(w.page.url.split("#")[0] + "#model")
    w.page.wait_for_selector(".diagram")
    recorded = json.loads((artifact / "artifact.json").read_text())["calibration"]["thresholds"]
    rows = w.page.locator("#model .class-list li").all_inner_texts()
    for name, row in zip(LABELS, rows, strict=True):
        assert f"threshold {100 * recorded[name]:.1f} %" in row
    assert w.page.locator("#model h2", has_text="Labels").count() == 1
    assert "at 20 % present in 10 % of 9" in w.page.locator(".diagram").get_attribute("aria-label")
    w.page.get_by_label("Label", exact=True).select_option("disc")
    assert "at 70 % present in 80 % of 5" in w.page.locator(".diagram").get_attribute("aria-label")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_markup(open_page: Opener, painted: list[Path], scheme: str) -> None:
    w = open_page(color_scheme=scheme)
    w.changed(**PLAINLY)
    w.ask(painted[0])
    low = w.page.evaluate(CONTRAST)
    assert [text for text in low if text["ratio"] < text["needed"]] == []
    assert w.page.evaluate(FAULTS) == []


def test_the_tasks_are_served_like_the_rest(address: str) -> None:
    heads = []
    for name in ("app.js", "tasks/multilabel.js", "tasks/multiclass.js"):
        with urllib.request.urlopen(f"{address}static/{name}") as response:
            heads.append({key: response.headers[key] for key in ("Content-Security-Policy", "Content-Type", "Cache-Control")})
    assert heads[0] == heads[1] == heads[2]
