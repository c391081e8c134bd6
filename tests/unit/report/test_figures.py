"""Figures are PNGs that hold what they should, whatever is missing, and leave no global state."""

from __future__ import annotations

import io
from functools import cache

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from dermalyze.report import curves, figures
from dermalyze.report.style import LONGEST_NAME, class_styles, short_names

NONE = {"value": None, "low": None, "high": None, "n": 0, "note": "not estimable (n = 0)"}
SOME = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 12, "note": ""}
BARE = {"value": 1.0, "low": None, "high": None, "n": 2, "note": "interval not estimable: 2 groups"}
EMPTY_BIN = {"lower": 0.0, "upper": 0.5, "n": 0, "groups": 0, "confidence": None, "accuracy": None, "low": None, "high": None}
FULL_BIN = {"lower": 0.5, "upper": 1.0, "n": 9, "groups": 5, "confidence": 0.8, "accuracy": 0.7, "low": 0.5, "high": 0.9}
STEP = (np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))


def per_class(*rows):
    return {name: {**dict.fromkeys(figures.PER_CLASS_TITLES, row), "support": row["n"]} for name, row in rows}


@cache
def draw(kind, leak=None, names=("a", "b")):
    a, b = names
    if kind == "confusion":
        return figures.confusion_matrix([[3, 1], [0, 0]], names, title="t", leak=leak)
    if kind == "roc":
        return curves.roc_curves([STEP, None], names, [SOME, NONE], NONE, title="t", leak=leak)
    if kind == "classes":
        return figures.per_class_metrics(per_class((a, SOME), (b, NONE)), names, title="t", leak=leak)
    if kind == "calibration":
        return figures.calibration_curve([EMPTY_BIN, FULL_BIN], BARE, title="t", leak=leak)
    history = {"epoch": [1, 2], "train_loss": [1.0, None], "val_loss": [1.0, 0.9], "lr": [0.1, 0.01]}
    return figures.training_curves(history, 2, "val_loss", title="t", leak=leak)


KINDS = ("confusion", "roc", "classes", "calibration", "training")


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def red(data):
    image = pixels(data)
    return int(((image[..., 0] > 150) & (image[..., 1] < 60) & (image[..., 2] < 80)).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_draws_gaps_and_is_repeatable(kind):
    data = draw(kind)
    assert data == draw.__wrapped__(kind)
    image = pixels(data)
    assert 900 <= image.shape[1] <= 1700
    assert (image[0] == 255).all(), "something is cut off at the top"
    assert (image[-1] == 255).all(), "something is cut off at the bottom"
    assert (image[:, 0] == 255).all(), "something is cut off at the left"
    assert (image[:, -1] == 255).all(), "something is cut off at the right"


@pytest.mark.parametrize("kind", KINDS)
def test_an_accepted_leak_is_stamped_in_red(kind):
    long = "the published split crosses lesions; kept for comparison with earlier work only " * 3
    assert red(draw(kind)) == 0
    assert red(draw(kind, leak="because")) > 500
    assert pixels(draw(kind, leak=long)).shape[0] > pixels(draw(kind, leak="because")).shape[0] > pixels(draw(kind)).shape[0]


@pytest.mark.parametrize("kind", KINDS)
def test_odd_class_names_are_drawn_as_they_are(kind):
    """A dollar sign would start mathematics, an underscore would hide a line from the legend."""
    assert draw(kind, names=("$\\frac{", "_hidden <b>")) != draw(kind) or kind in ("calibration", "training")


def test_class_with_leading_underscore_stands_in_the_legend():
    plain = pixels(draw("roc", names=("xhidden", "b")))
    hidden = pixels(draw("roc", names=("_hidden", "b")))
    legend = slice(int(plain.shape[1] * 0.7), None)
    assert (hidden[:, legend] < 128).sum() > 0.95 * (plain[:, legend] < 128).sum()  # without the line: 0.8


def test_no_global_state_is_left():
    before = dict(mpl.rcParams)
    draw.__wrapped__("roc")
    assert dict(mpl.rcParams) == before


def test_a_class_keeps_its_colour_in_any_company_and_seven_differ():
    seven = class_styles(["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"])
    assert len({style.colour for style in seven}) == 7
    assert len({str(style.dash) for style in seven}) == 7
    assert class_styles(["zebra", "mel"])[1] == seven[4]
    other = class_styles([f"class {k}" for k in range(20)])
    assert len({(style.colour, str(style.dash)) for style in other}) >= 7


def test_calibration_of_nothing_says_so():
    assert figures.calibration_curve([EMPTY_BIN, EMPTY_BIN], NONE, title="t") != draw("calibration")


# -- many classes, long names ------------------------------------------------------------------------------------------

LONG = [f"pigmented lesion with regression and inflammation around it, grade {grade}" for grade in range(7)]
FORTY = [f"condition {number:02d}" for number in range(40)]


@pytest.mark.parametrize("names", [LONG, FORTY, ["mel", "nv", LONG[0]]], ids=["long", "forty", "one long"])
@pytest.mark.parametrize("kind", ["confusion", "roc", "pr", "classes"])
def test_names_of_any_length_and_number_cut_nothing_off(kind, names):
    n = len(names)
    if kind == "confusion":
        data = figures.confusion_matrix(np.eye(n, dtype=int) * 9, names, title="t")
    elif kind == "roc":
        data = curves.roc_curves([STEP] * n, names, [SOME] * n, SOME, title="t")
    elif kind == "pr":
        data = curves.pr_curves([STEP] * n, names, [SOME] * n, images=40, title="t")
    else:
        data = figures.per_class_metrics(per_class(*((name, SOME) for name in names)), names, title="t")
    image = pixels(data)
    assert image.shape[1] <= 2400
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge == 255).all(), "something is cut off"


def test_short_names_are_short_unique_and_explained():
    shown, legend = short_names([*LONG, "nv", "x" * LONGEST_NAME])
    assert all(len(name) <= LONGEST_NAME for name in shown)
    assert len(set(shown)) == len(shown)
    assert shown[-2:] == ["nv", "x" * LONGEST_NAME]
    assert [line.partition(": ")[2] for line in legend] == LONG
