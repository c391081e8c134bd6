"""What is said at a model's operating points: an image that reaches one is to be looked at, whatever its class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dermalyze.calibration.calibrators import Calibrator
from dermalyze.cli import app
from dermalyze.errors import UsageError
from dermalyze.serve.predictor.output import write
from dermalyze.serve.predictor.packaged import FOLDER
from dermalyze.serve.predictor.prediction import Prediction
from dermalyze.serve.predictor.predictor import Predictor

CLASSES = ("nv", "bcc", "mel")
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 90, (24, 32, 3), dtype=np.uint8) + RNG.integers(20, 160, 3, dtype=np.uint8) for _ in range(12)]


def point(threshold: float | None, target: float = 0.95, note: str = "") -> dict[str, Any]:
    return {"target": target, "threshold": threshold, "note": note}


def asked(malignant: float | None, mel: float) -> dict[str, Any]:
    """A calibration with two questions, as `calibrate` stores them."""
    first = point(malignant, note="" if malignant else "too few")
    questions = {
        "malignant": {"classes": ["bcc", "mel"], "points": {"sensitivity_95": first}},
        "mel": {"classes": ["mel"], "points": {"sensitivity_95": point(mel)}},
    }
    return {**Calibrator("none", {}).as_dict(), "operating_points": questions, "shares": {"bcc": 0.2, "mel": 0.2, "nv": 0.6}}


@pytest.fixture
def made(make_artifact: Callable[..., Path]) -> Callable[..., Predictor]:
    def make(*thresholds: Any, name: str = "", **options: Any) -> Predictor:
        folder = make_artifact(f"{name}{thresholds}", classes=CLASSES, calibration=asked(*thresholds))
        return Predictor(folder, threads=1, **options)

    return make


@pytest.fixture
def middle(made: Callable[..., Predictor]) -> tuple[Predictor, list[Prediction]]:
    """A model whose thresholds lie in the middle of what it gives, and its answers."""
    probs = made(0.99, 0.99).probabilities(np.stack([image[::2, ::2] for image in IMAGES]))
    predictor = made(float(np.median(probs[:, 1:].sum(axis=1))), float(np.median(probs[:, 2])))
    return predictor, list(predictor.predict_batch(IMAGES))


def test_an_image_is_flagged_from_the_threshold_on_whatever_its_class(middle: Any) -> None:
    predictor, answers = middle
    thresholds = {one.name: one.threshold for one in predictor.points}
    assert 0 < sum("malignant" in answer.flagged for answer in answers) < len(answers)
    for answer in answers:
        sums = {"malignant": answer.probabilities["bcc"] + answer.probabilities["mel"], "mel": answer.probabilities["mel"]}
        assert {one.point.name: one.probability for one in answer.operating_points} == pytest.approx(sums)
        assert answer.flagged == tuple(name for name in sums if sums[name] >= thresholds[name])
        assert {one["name"]: one["positive"] for one in answer["operating_points"]} == {
            name: name in answer["flagged"] for name in sums
        }


def test_a_flag_is_never_simply_accepted_and_is_the_first_reason(middle: Any) -> None:
    for answer in middle[1]:
        assert answer.flagged == () or answer.verdict != "accept"
        assert [reason.startswith("have it looked at: ") for reason in answer.reasons[: len(answer.flagged)]] == [True] * len(
            answer.flagged
        )
        assert not any(reason.startswith("have it") for reason in answer.reasons[len(answer.flagged) :])


def test_a_benign_class_at_the_threshold_is_flagged(made: Callable[..., Predictor]) -> None:
    answers = list(made(0.01, 0.99).predict_batch(IMAGES))
    benign = [answer for answer in answers if answer.predicted_class == "nv"]
    assert benign
    assert all(answer.flagged == ("malignant",) for answer in benign)


def test_without_a_threshold_nothing_is_flagged_and_the_reason_is_there(made: Callable[..., Predictor]) -> None:
    predictor = made(None, 0.99)
    answer = predictor.predict(IMAGES[0])
    assert answer.flagged == ()
    assert [(one["positive"], one["note"]) for one in answer["operating_points"]] == [(None, "too few"), (False, "")]
    stream = io.StringIO()
    write([answer], stream, classes=CLASSES, points=predictor.points)
    assert "malignant: no threshold (too few), so no image is marked" in stream.getvalue()


def test_other_class_shares_move_probabilities_and_no_flag(made: Callable[..., Predictor], middle: Any) -> None:
    predictor, answers = middle
    shares = {"bcc": 0.01, "mel": 0.01, "nv": 0.98}
    low, high = (one.threshold for one in predictor.points)
    moved = made(low, high, prevalence=shares, name="moved")
    for before, after in zip(answers, moved.predict_batch(IMAGES), strict=True):
        assert before.flagged == after.flagged
        assert before.probabilities["mel"] > after.probabilities["mel"]


def test_every_form_of_output_says_it(middle: Any) -> None:
    predictor, answers = middle
    streams = {form: io.StringIO() for form in ("table", "jsonl", "csv")}
    for form, stream in streams.items():
        write(answers, stream, classes=CLASSES, format=form, points=predictor.points)  # type: ignore[arg-type]
    table = streams["table"].getvalue().splitlines()
    assert table[0].split()[4:6] == ["malignant", "mel"]
    for line, answer in zip(table[1:], answers, strict=False):
        assert ("HAVE IT LOOKED AT; most likely" in line) is bool(answer.flagged)
        assert line.count(" !") == len(answer.flagged)
    assert sum("chosen for a sensitivity of 0.95; not measured on a test split" in line for line in table) == 2
    rows = list(csv.DictReader(io.StringIO(streams["csv"].getvalue())))
    assert [row["flagged"] for row in rows] == ["|".join(answer.flagged) for answer in answers]
    for row, answer in zip(rows, answers, strict=True):
        assert float(row["malignant_probability"]) == pytest.approx(answer.operating_points[0].probability)
    lines = [json.loads(line) for line in streams["jsonl"].getvalue().splitlines()]
    assert [line["flagged"] for line in lines] == [list(answer.flagged) for answer in answers]


def test_a_terminal_shows_it_in_a_color_of_its_own(middle: Any) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    predictor, answers = middle
    stream = Terminal()
    write(answers, stream, classes=CLASSES, points=predictor.points)
    assert stream.getvalue().count("\x1b[1;35m") == stream.getvalue().count("\x1b[0m") == sum(bool(a.flagged) for a in answers)


BLACK = np.zeros((96, 128, 3), np.uint8)


def test_a_refused_image_has_no_class_and_no_number_for_people(tmp_path: Path) -> None:
    answer = Predictor(FOLDER, threads=1).predict(BLACK)
    assert (answer.verdict, answer.decision, answer.abstain, answer.withheld) == ("refer", "refer", True, True)
    assert answer.predicted_class is answer.confidence is answer.prediction_set is None
    assert (answer.probabilities, answer.operating_points, answer.flagged) == ({}, (), ())
    assert answer["probabilities"] is answer["flagged"] is answer["operating_points"] is None
    for form in ("table", "csv", "jsonl"):
        stream = io.StringIO()
        write([answer], stream, classes=Predictor(FOLDER).classes, format=form)  # type: ignore[arg-type]
        assert "refer" in stream.getvalue()
        assert not any(f"{p:.3f}" in stream.getvalue() for p in raw(BLACK).probabilities.values() if p > 0.01)


def raw(pixels: np.ndarray) -> Prediction:
    return Predictor(FOLDER, threads=1).predict(pixels, scores=True)


def test_programs_get_the_numbers_when_they_ask() -> None:
    answer = raw(BLACK)
    assert (answer.verdict, answer.withheld) == ("refer", False)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert not any("have it looked at" in reason for reason in answer.reasons), "it is refused, which comes first"
    stream = io.StringIO()
    write([answer], stream, classes=list(answer.probabilities))
    assert stream.getvalue().splitlines()[1].split()[2:4] == ["refer", "-"], "a table is for people, whatever was asked for"


def test_a_measured_sensitivity_can_be_chosen_and_no_other() -> None:
    known = {one.target: one for one in Predictor(FOLDER, sensitivity=0.9).points}
    assert set(known) == {0.9}
    assert known[0.9].sensitivity.value is not None  # type: ignore[union-attr]
    first = {one.name: one.threshold for one in Predictor(FOLDER).points}
    chosen = {one.name: one.threshold for one in Predictor(FOLDER, sensitivity=0.9).points}
    assert all(chosen[name] > first[name] for name in first)  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"sensitivity 0.8: .* measured: 0.9, 0.95"):
        Predictor(FOLDER, sensitivity=0.8)


def test_scores_are_not_for_the_table(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "a.png"), "--scores"])
    assert done.exit_code == 2
    assert "--format jsonl or --format csv" in done.stderr


def test_so_many_classes_are_listed_as_are_asked_for(middle: Any) -> None:
    predictor, answers = middle
    lines, table = io.StringIO(), io.StringIO()
    write(answers, lines, classes=CLASSES, format="jsonl", points=predictor.points, top=2)
    write(answers, table, classes=CLASSES, points=predictor.points, top=2)
    for line, row, answer in zip(lines.getvalue().splitlines(), table.getvalue().splitlines()[1:], answers, strict=False):
        first = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:2]
        assert [(one["class"], one["probability"]) for one in json.loads(line)["top_predictions"]] == first
        assert row.endswith(f"({', '.join(f'{name} {p:.3f}' for name, p in first)})")
    refused = Predictor(FOLDER, threads=1).predict(BLACK)
    stream = io.StringIO()
    write([refused], stream, classes=Predictor(FOLDER).classes, top=3)
    assert refused.as_dict(top=3)["top_predictions"] is None
    assert "top_predictions" not in refused.as_dict()


def test_a_csv_has_every_probability_and_no_top(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "a.png"), "--format", "csv", "--top-k", "3"])
    assert done.exit_code == 2
    assert "the CSV has the probability of every class" in done.stderr
