"""The words and images of a study."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dermalyze.report.study import study_figures, study_page, study_text, table, verdict
from dermalyze.tasks.base import TASKS

PANELS = TASKS["multiclass"].compared["study"]
NAMES = ["pretrained", "resnet18", "custom-cnn", "frozen"]


def estimate(value: float | None, half: float = 0.04, **more: Any) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - half, value + half)
    note = "not estimable (n = 2)" if value is None else ""
    return {"value": value, "low": low, "high": high, "n": 2 if value is None else 1502, "groups": 1120, "note": note, **more}


def study(**changes: Any) -> dict[str, Any]:
    """A study of four variants, one of them with a second seed, and one that failed."""
    rows = []
    for k, (name, seed) in enumerate([(NAMES[0], 42), (NAMES[0], 43), *((name, 42) for name in NAMES[1:])]):
        names = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auroc", "log_loss", "ece")
        metrics = {metric: estimate(0.71 - 0.05 * k + 0.03 * j) for j, metric in enumerate(names)}
        rows.append(
            {
                "run": f"{name}-seed{seed}", "variant": name, "seed": seed, "tested": seed == 42, "metrics": metrics,
                "focus_recall": {"mel": estimate(0.5)}, "accepted_leak": None,
                "trained_s": 93.0, "trained_per_s": 420.5, "epochs": 6,
                "parameters": 1_234_567, "learning": 1_234_567, "latency_ms": 4.25, "scored_per_s": 900.0,
            }
        )  # fmt: skip

    def row(name: str, value: float | None, p: float | None) -> dict[str, Any]:
        return {"variant": name, **{m: estimate(value, p_value=p, p_holm=p) for m in PANELS}}

    averaged = {
        "variant": "resnet18",
        "seeds": [42, 43],
        **{m: estimate(-0.09, p_value=0.01, of_seeds=[-0.1, None]) for m in PANELS},
    }
    found = [row("resnet18", -0.1, 0.002), row("custom-cnn", 0.07, 0.01), row("frozen", 0.01, 0.8)]
    return {
        "title": "Study: tried", "task": "multiclass", "tested": list(PANELS),
        "columns": list(TASKS["multiclass"].compared["table"]), "level": 0.95, "resamples": 2000, "runs": rows,
        "data": {"source": "ham10000", "manifest_sha256": "a" * 64, "certificate_sha256": "b" * 64,
                 "parts": {"train": {"images": 6511, "groups": 4850}, "test": {"images": 1502, "groups": 1120}}},
        "over_seeds": {"pretrained": {"seeds": [42, 43], **{m: {"mean": 0.7, "least": 0.69, "most": 0.71} for m in PANELS}}},
        "comparisons": [
            {"title": "Architectures", "reference": "pretrained", "rows": found, "over_seeds": [averaged], "note": ""},
            {"title": "Heads", "reference": "gone", "rows": [], "over_seeds": [],
             "note": "the reference did not come to an end"},
        ],
        "failures": [{"run": "vit-seed42", "variant": "vit", "reason": "too small | by half"}],
        "versions": {"python": "3.11"}, "disclaimer": "Not a diagnosis.",
        **changes,
    }  # fmt: skip


def test_a_verdict_says_what_helped_and_what_did_not() -> None:
    told = verdict(study()["comparisons"][0], study())
    assert told == (
        "Architectures, balanced accuracy: better than pretrained: custom-cnn (+0.070); worse than pretrained: "
        "resnet18 (−0.100); not told apart from pretrained: frozen (+0.010)."
    )
    assert verdict(study()["comparisons"][1], study()) == "Heads: the reference did not come to an end."


def test_a_difference_that_is_not_estimable_is_not_told_apart() -> None:
    row = {"variant": "a", **{m: estimate(None, p_value=None, p_holm=None) for m in PANELS}}
    assert "not told apart from b: a." in verdict({"title": "x", "reference": "b", "rows": [row], "note": ""}, study())


def test_markdown_is_whole() -> None:
    s = study()
    lines = study_text(s, study_figures(s))
    text = "\n".join(lines)
    for one in re.findall(r"(?:^\|.*\n)+", text + "\n", flags=re.M):
        assert len({line.count("|") for line in one.strip().splitlines()}) == 1
    assert "![The variants, best balanced accuracy first](study.png)" in text
    assert s["disclaimer"] in text
    assert "vit-seed42: too small" in text
    assert "pretrained, 2 seeds, mean and range: balanced accuracy 0.700 (0.690 to 0.710)" in text


def test_every_figure_on_the_page_stands_in_the_text() -> None:
    s = study()
    page = re.sub(r"data:image/png;base64,[^\"]+", "", study_page(s, study_figures(s)))
    body = page.partition("<main")[2]
    text = "\n".join(study_text(s, study_figures(s)))
    for number in set(re.findall(r"\d\.\d{2,}", re.sub(r"<code>.*?</code>", "", body))):
        assert number in text, number


@pytest.mark.parametrize("leak", [None, "for a demonstration"])
def test_an_accepted_leak_is_stamped(leak: str | None) -> None:
    s = study()
    s["runs"][0]["accepted_leak"] = leak
    stamped = "LEAK ACCEPTED, NOT A FAIR RESULT: for a demonstration"
    assert (stamped in study_page(s, {})) == (stamped in "\n".join(study_text(s, {}))) == (leak is not None)
    assert all(figure.data.startswith(b"\x89PNG") for figure in study_figures(s).values())


def test_each_class_of_a_focus_has_its_column() -> None:
    s = study()
    s["runs"][0]["focus_recall"] = {"bcc": estimate(0.25), "mel": estimate(0.5)}
    head, rows = table(s)
    columns = [name for name in head if name.startswith("sensitivity")]
    assert columns == ["sensitivity: Basal cell carcinoma", "sensitivity: Melanoma"]
    assert all(len(row) == len(head) for row in rows)
    assert [row[head.index(columns[0])][:5] for row in rows][:2] == ["0.250", "–"], "watched by one run alone"


def test_what_is_not_estimable_is_said_in_its_place() -> None:
    s = study()
    s["runs"][2]["metrics"]["macro_auroc"] = estimate(None)
    assert "not estimable (n = 2)" in "\n".join(study_text(s, {}))
    assert set(study_figures(s)) == {"study.png", "study-differences.png"}
