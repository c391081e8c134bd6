"""Subgroups on the page: no image lost, none named, every number from the file; another set beside the training split."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dermalyze.calibration.decision_rule import Rule
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.errors import ConfigError, DataError
from dermalyze.metrics.selective import Referral
from dermalyze.report import recalibration, shift, subgroups
from dermalyze.report.evaluation import measure
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.report.html import page
from dermalyze.report.sections import draw_sections
from dermalyze.scoring.ood_results import OodResults
from dermalyze.scoring.predictions import Predictions

CLASSES = ["bcc", "mel", "nv"]


def rows_of(n, seed, sites=("arm", "back")):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "image_id": [f"secret-{seed}-{k}" for k in range(n)],
            "label": rng.choice(CLASSES, n), "age": rng.integers(5, 90, n).astype(float),
            "sex": rng.choice(["female", "male"], n), "site": rng.choice(sites, n), "source": None, "width": 200, "height": 150,
            "sharpness": rng.gamma(2, 20, n), "brightness": rng.uniform(0.4, 0.9, n), "ita": rng.uniform(-60, 120, n),
        }
    ).set_index("image_id")  # fmt: skip


def predictions(rows, name="test", seed=0, shifted=0.0, bias=0.0):
    rng = np.random.default_rng(seed)
    labels = np.array([CLASSES.index(label) for label in rows["label"]])
    logits = rng.normal(size=(len(rows), 3)) + 2 * np.eye(3)[labels] + bias * np.array([1.0, 0, 0])
    embedding = rng.normal(shifted, 1, (len(rows), 4))
    groups = [f"patient-{seed}-{k // 2}" for k in range(len(rows))]
    return Predictions(
        list(rows.index),
        groups,
        labels,
        logits,
        embedding,
        {"classes": CLASSES, "set": name, "task": "multiclass", "recipe": "plain"},
    )


def judged(n=240, seed=1, **changes):
    rows = rows_of(n, seed)
    p = predictions(rows, seed=seed)
    made = Evaluation(p, EvaluateSpec(resamples=100), p.answering(), None, p, rows, rows_of(300, 2))
    return replace(made, **changes)


def report(j):
    m = {
        "title": "t", "set": j.p.meta["set"], "recipe": "plain", "task": "multiclass", "accepted_leak": None,
        "about": None, "controls": None, "person": None, "files": None, **measure(j),
        "validation": None, "split": None, "external": None, "known_biases": [],
        "provenance": {"seed": 1, "bootstrap_seed": 0, "versions": {"python": "3"}},
    }  # fmt: skip
    m = json.loads(json.dumps(m, allow_nan=False))
    return m, page(m, draw_sections(m, j))


def external(n=240, share=0.5, **options):
    rows = rows_of(n, 7, sites=("back", "foot"))
    home = predictions(rows_of(120, 8), seed=8)
    p = predictions(rows, "clinic", seed=9, **options)
    return judged(p=p, rows=rows, home=home, recalibrate=share)


def of(m, column):
    return {one["level"]: one for one in m["subgroups"]["subgroups"] if one["column"] == column}


@pytest.mark.parametrize("make", [judged, external], ids=["test", "external"])
def test_every_number_of_the_page_stands_in_the_file(make):
    m, text = report(make())
    text = re.sub(r"<style>.*?</style>|base64,[^\"]*", "", text, flags=re.DOTALL)
    known = set()

    def collect(value):
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            collect(one)
        if isinstance(value, float):
            known.add(f"{abs(value):.3f}")

    collect(m)
    shown = re.findall(r"\d+\.\d{3}(?!\d)", text)
    assert len(shown) > 200
    assert set(shown) <= known
    assert "patient-" not in text
    assert "Fitzpatrick type" in text.partition("It is not a ")[2][:20]


def test_every_image_is_in_one_level_of_each_column():
    j = judged()
    m = subgroups.build(j)
    columns = {one["name"]: one for one in m["subgroups"]["columns"]}
    assert list(columns) == ["age", "sex", "site", "source", "sharpness", "exposure", "ita"], "all of one size: no resolution"
    for name in columns:
        assert sum(one["n"] for one in of(m, name).values()) == len(j.p)
    assert list(of(m, "age")) == ["0-29", "30-44", "45-59", "60-74", "75+"]
    assert "color cast" in of(m, "ita")
    assert {*of(m, "source")} == {"unknown"}


def test_referral_is_that_of_the_served_rule_where_it_refers_anything():
    j = judged()
    confidence = j.scores.probs.max(axis=1)
    rule = Rule(None, Referral("max_probability", 0.5, float(np.median(confidence))))
    table = {"scores": {}, "missing": {}, "choice": ""}
    served = judged(beyond=OodResults(rule, table, {}, {}))
    m = subgroups.build(served)["subgroups"]
    assert (m["by_rule"], m["coverage"]) == (True, None)
    sexes = of(subgroups.build(served), "sex")
    for sex, one in sexes.items():
        inside = (j.rows["sex"] == sex).to_numpy()
        assert one["values"]["referred"]["value"] == pytest.approx((confidence < np.median(confidence))[inside].mean())
    assert "by the served decision rule" in report(served)[1]
    answers_all = subgroups.build(judged(beyond=OodResults(Rule(), table, {}, {})))["subgroups"]
    assert (answers_all["by_rule"], answers_all["coverage"]) == (False, 0.9)
    assert "by the served decision rule" not in report(judged())[1]


def test_bands_of_age_begin_where_they_say():
    ages = pd.DataFrame({"age": [0.0, 29, 30, 44, 45, 59, 60, 74, 75, 101, np.nan]})
    found = subgroups.by_age(ages)
    names = [found.levels[code] for code in found.codes]
    assert names == ["0-29", "0-29", "30-44", "30-44", "45-59", "45-59", "60-74", "60-74", "75+", "75+", "unknown"]


def test_thirds_are_those_of_the_training_part():
    j = judged()
    low, high = np.quantile(j.train["sharpness"], [1 / 3, 2 / 3])
    m = subgroups.build(j)
    assert of(m, "sharpness")["blurred third"]["n"] == int((j.rows["sharpness"] < low).sum())
    assert of(m, "sharpness")["sharp third"]["n"] == int((j.rows["sharpness"] >= high).sum())
    column = next(one for one in m["subgroups"]["columns"] if one["name"] == "sharpness")
    assert column["bounds"] == [low, high]
    assert column["note"].startswith(f"thirds of the training split, bounded by {low:.3f} and {high:.3f}")


def test_nine_in_ten_unknown_are_shown():
    """FAULTS 38."""
    j = judged()
    rows = j.rows.assign(**{name: j.rows[name].where(np.arange(len(j.rows)) % 10 == 0) for name in ("age", "sex", "ita")})
    m = subgroups.build(replace(j, rows=rows))
    for name in ("age", "sex", "ita"):
        assert of(m, name)["unknown"]["n"] == 216
        assert of(m, name)["unknown"]["values"]["accuracy"]["low"] is not None
    tables = subgroups.view(m)["tables"]
    assert [table["rows"][-1]["level"] for table in tables if table["title"][:3] in ("age", "sex", "ski")] == ["unknown"] * 3


def test_columns_of_the_users_and_one_that_is_not_there():
    j = judged()
    rows = j.rows.assign(camera=[f"camera {k % 20:02}" for k in range(len(j.rows))])
    spec = EvaluateSpec(resamples=100, subgroups=("camera",))
    m = subgroups.build(replace(j, rows=rows, spec=spec))
    levels = of(m, "camera")
    assert len(levels) == subgroups.LEVELS
    assert levels["5 others"]["n"] == 5 * 12
    with pytest.raises(ConfigError, match=r"no column 'camra'.*camera"):
        subgroups.build(replace(j, rows=rows, spec=EvaluateSpec(resamples=100, subgroups=("camra",))))


def test_nothing_known_of_the_images_is_no_section():
    m = subgroups.build(judged(rows=None, train=None))
    assert m["subgroups"] is None
    assert subgroups.view(m) is None


def test_a_few_images_of_one_group_do_not_break_the_page():
    m = subgroups.build(judged(n=3))
    cells = [cell for table in subgroups.view(m)["tables"] for row in table["rows"] for cell in row["cells"]]
    assert cells
    assert all(cell["value"] == "–" and cell["interval"].startswith("n = ") for cell in cells)


def test_a_class_that_counts_as_malignant_is_needed_for_its_auroc():
    j = judged()
    p = Predictions(j.p.ids, j.p.groups, j.p.labels, j.p.logits, None, {**j.p.meta, "classes": ["a", "b", "c"]})
    m = subgroups.build(replace(j, p=p, reference=None))
    assert {*m["subgroups"]["subgroups"][0]["values"]} == {
        "accuracy", "overconfidence", "log_loss", "balanced_accuracy", "macro_auroc",
    }  # fmt: skip


def test_a_shift_is_told_from_none():
    alike, apart = (shift.build(external(shifted=by))["shift"]["embedding"] for by in (0.0, 2.0))
    assert apart["p_value"] < 0.02 < alike["p_value"]
    assert apart["low"] > apart["halves_high"]
    found = shift.build(external())["shift"]
    site = next(one for one in found["categories"] if one["name"] == "site")
    assert site["total_variation"]["value"] > 0.4, "foot is not in the training split, arm not here"
    assert [row["level"] for row in site["levels"]] == ["arm", "back", "foot"]
    assert {one["name"] for one in found["numbers"]} == {"age", "sharpness", "brightness", "ita"}, "all are of one size"
    assert next(one for one in found["numbers"] if one["name"] == "ita")["missing"] > 0, "angles of a color cast are left out"
    assert shift.build(judged())["shift"] is None


def test_recalibration_is_measured_on_other_groups():
    j = external(n=300, bias=4.0)
    found = recalibration.build(j)["recalibration"]
    chosen = recalibration.divide_groups(j.p.groups, 0.5, j.spec.seed)
    inside, outside = ({g for g, c in zip(j.p.groups, chosen, strict=True) if c is np.bool_(side)} for side in (True, False))
    assert not inside & outside
    assert found["fitted"] == {"images": int(chosen.sum()), "groups": len(inside)}
    assert found["measured"] == {"images": int((~chosen).sum()), "groups": len(outside)}
    hits = j.scores.predicted[~chosen] == j.p.labels[~chosen]
    assert found["methods"]["refit"]["accuracy"]["before"]["value"] == pytest.approx(hits.mean())
    for of_metric in found["methods"].values():
        one = of_metric["log_loss"]
        assert one["difference"]["value"] == pytest.approx(one["after"]["value"] - one["before"]["value"])
        assert one["difference"]["low"] < one["difference"]["value"] < one["difference"]["high"]
    assert found["methods"]["refit"]["log_loss"]["difference"]["high"] < 0, "a sure and biased model gains by a temperature"


@pytest.mark.parametrize(("share", "error"), [(0.0, ConfigError), (1.0, ConfigError), (-1, ConfigError), (0.05, DataError)])
def test_a_share_that_leaves_too_few_is_refused(share, error):
    with pytest.raises(error, match="--recalibrate"):
        recalibration.divide_groups([str(k) for k in range(200)], share, 0)
    with pytest.raises(DataError, match="10 to measure on; at least 30"):
        recalibration.divide_groups([str(k) for k in range(100)], 0.9, 0)
