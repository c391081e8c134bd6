"""The comparison of sources: what it counts, what is shown, and that its differences are drawn jointly."""

from __future__ import annotations

import numpy as np
import pytest
from figures import PRINTED, printed
from scipy.stats import spearmanr

from dermalyze.calibration.calibrators import Calibrator
from dermalyze.calibration.recipes import pool
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.metrics.selective import aurc
from dermalyze.metrics.uncertainty import SOURCES, mutual_information
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.report.html import template
from dermalyze.report.uncertainty import SOURCE_NAMES, build, dots_by_source, draw, view
from dermalyze.scoring.predictions import Predictions

COLD = Calibrator("temperature", {"temperature": 0.5})


def made(recipe, passes, n=80, classes=3, seed=0, noise=1.0, skill=1.5, **meta):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=n)
    samples = generator.normal(size=(n, 1, classes)) + skill * np.eye(classes)[labels][:, None]
    samples = (samples + noise * np.random.default_rng(len(recipe)).normal(size=(n, passes, classes))).astype(np.float32)
    named = [f"c{k}" for k in range(classes)]
    return Predictions(
        [f"i{k}" for k in range(n)], [f"g{k // 2}" for k in range(n)], labels, pool(samples), None,
        {"classes": named, "set": "test", "task": "multiclass", "recipe": recipe, **meta}, samples if passes > 1 else None,
    )  # fmt: skip


def judged(p, *others, **spec):
    return Evaluation(
        p, EvaluateSpec(resamples=200, **spec), p.answering(), others=tuple((q, q.answering(COLD.as_dict())) for q in others)
    )


def test_figures_are_those_of_each_source():
    p, q = made("flips", 4), made("mc_dropout", 5)
    rows = build(judged(p, q))["uncertainty"]["recipes"]
    wrong = (q.probs().argmax(axis=1) != q.labels).astype(float)
    own = rows[1]["sources"]["mutual_information"]
    doubt = mutual_information(q.sample_probs())
    assert own["aurc"]["value"] == pytest.approx(aurc(-doubt, wrong))
    assert own["spearman"] == pytest.approx(spearmanr(doubt, wrong).statistic)
    squares = np.square(COLD(q.logits.astype(float)) - np.eye(3)[q.labels]).sum(axis=1)
    assert own["spearman_brier"] == pytest.approx(spearmanr(doubt, squares).statistic)
    assert rows[1]["metrics"]["brier"] == pytest.approx(squares.mean())
    assert [row["passes"] for row in rows] == [4, 5]
    assert set(SOURCE_NAMES) - {"max_probability", "margin", "neg_entropy"} <= set(SOURCES)


def test_differences_are_from_the_served_confidence_and_drawn_jointly():
    """The same doubt in two recipes differs by nothing in every resample, though each varies."""
    p = made("flips", 4)
    twin = Predictions(p.ids, p.groups, p.labels, p.logits, None, {**p.meta, "recipe": "tta"}, p.samples)
    j = Evaluation(p, EvaluateSpec(resamples=200), p.answering(), others=((twin, twin.answering()),))
    m = build(j)["uncertainty"]
    assert m["base"] == {"recipe": "flips", "source": "max_probability"}
    served, other = (row["sources"]["max_probability"] for row in m["recipes"])
    assert served["aurc"]["low"] < served["aurc"]["high"]
    for row in (served, other):
        assert [row["difference"][key] for key in ("value", "low", "high")] == pytest.approx([0, 0, 0], abs=1e-12)
    apart = m["recipes"][0]["sources"]["variance"]
    assert apart["difference"]["value"] == pytest.approx(apart["aurc"]["value"] - served["aurc"]["value"])


def test_one_pass_alone_has_no_section_and_with_another_recipe_it_has():
    single = judged(made("plain", 1))
    assert view({**build(single), "classes": []}) is None
    assert view({**build(judged(made("plain", 1), made("tta", 7)))}) is not None


def test_few_groups_and_no_errors_are_said_to_be_not_estimable():
    few = build(judged(made("flips", 4, n=12)))["uncertainty"]["recipes"][0]["sources"]["margin"]
    assert few["aurc"]["low"] is None
    assert "6 groups" in few["aurc"]["note"]
    right = build(judged(made("flips", 4, skill=50.0)))["uncertainty"]["recipes"][0]["sources"]["margin"]
    assert right["error_auroc"] is None
    assert right["spearman"] is None
    assert right["aurc"]["value"] == 0
    empty = build(judged(made("flips", 4, n=0)))["uncertainty"]["recipes"][0]["sources"]["variance"]
    assert empty["aurc"]["value"] is None
    assert empty["difference"]["value"] is None


@pytest.mark.parametrize("n", [0, 12, 80])
def test_every_number_on_the_page_is_in_the_file(n):
    j = judged(made("flips", 4, n=n), made("mc_dropout", 3, n=n), made("plain", 1, n=n))
    m = {**build(j), "set": "test", "n_images": n, "n_groups": n // 2, "recipe": "flips", "accepted_leak": None}
    [(name, figure)] = draw(m, j).items()
    picture = {"data": "", "alt": figure.caption, "caption": figure.caption, "width_px": 1}
    page = template("uncertainty.html.jinja").render(m=m, v=view(m), pictures={name: picture})
    known = set(printed(m))
    shown = PRINTED.findall(page)
    assert set(shown) <= known
    assert len(shown) > (100 if n == 80 else -1)
    assert "mc_dropout, 3 passes" in page
    assert figure.data.startswith(b"\x89PNG")


def test_dots_leave_out_what_is_not_estimable():
    nothing = {"value": None, "low": None, "high": None, "n": 0, "note": "not estimable (n = 0)"}
    assert dots_by_source([("flips", {"a": nothing})], ["a"], axis="x", title="t").startswith(b"\x89PNG")
