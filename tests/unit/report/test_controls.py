"""What controls say in words: each figure as it is in the file, a verdict first."""

from __future__ import annotations

import pytest

from dermalyze.report.controls import TITLES, WORDS, line, view
from dermalyze.workflows.controls import CONTROLS, FITS


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "n": 50, "groups": 40, "undefined": 0, "note": ""}


def compared(difference):
    return {"same": estimate(0.9), "other": estimate(0.8), "difference": difference}


AREAS = {"macro_auroc": estimate(0.7, 0.66, 0.74), "per_class": {"mel": estimate(0.812, 0.7, 0.9), "nv": estimate(0.6)}}
PAIRED = {**AREAS, "whole": estimate(0.9, 0.88, 0.92), "difference": estimate(0.2, 0.1, 0.3)}
TAUGHT = {"truth": estimate(0.99), "absent": estimate(0.6), "lying": estimate(0.1), "difference": estimate(0.4)}
CASES = {
    "shuffled": [{"verdict": "holds", **AREAS}, {"verdict": "suspicious", **AREAS}],
    "metadata": [{"verdict": "holds", "inputs": ["age", "sex"], "own": None, "findings": [], **AREAS}],
    "foreground": [{"verdict": "holds", "masks": True, "telling": [], **PAIRED}],
    "background": [{"verdict": "suspicious", "masks": True, "telling": ["mel"], **PAIRED}],
    "border": [{"verdict": "holds", "masks": False, "telling": [], **PAIRED}],
    "shortcut": [
        {
            "verdict": "suspicious",
            "macro_auroc": compared(estimate(0.1, 0.06, 0.2)),
            "per_class": {"mel": compared(estimate(0.333, 0.2, 0.4))},
            "telling": ["mel"],
        }
    ],
    "planted": [
        {
            "verdict": "suspicious",
            "target": "mel",
            "lost": {name: {"accuracy": TAUGHT, "auroc": TAUGHT} for name in ("absent", "lying")},
            "exchange": {"per_class": {"mel": compared(estimate(0.012, -0.1, 0.1))}},
        }
    ],
}


def test_every_control_has_a_title_words_and_a_number_of_fits():
    assert list(TITLES) == list(WORDS) == list(CONTROLS) == list(FITS) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_comes_first(name):
    for control in CASES[name]:
        assert line(name, control).startswith(f"{TITLES[name]}: {control['verdict']}. ")


def test_words_carry_the_figures():
    assert "0.700 (0.660–0.740)" in line("shuffled", CASES["shuffled"][1])
    assert "above all mel (0.812 (0.700–0.900))" in line("background", CASES["background"][0])
    assert "mel loses 0.333 (0.200–0.400)" in line("shortcut", CASES["shortcut"][0])
    assert "does not find it (0.012 (-0.100–0.100))" in line("planted", CASES["planted"][0])


def test_missing_masks_are_said():
    assert "no masks" in line("border", CASES["border"][0])


def test_the_page_shows_nothing_where_nothing_was_done():
    assert view({"controls": None}) is None
    shown = view({"controls": {"controls": {n: c[0] for n, c in CASES.items()}, "notes": [], "settings": {"epochs": 2}}})
    assert [row["verdict"] for row in shown["rows"]].count("suspicious") == 3
