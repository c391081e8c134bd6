"""The page: its numbers are the file's, nothing is loaded from elsewhere, and nobody's text becomes markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from figures import PRINTED, printed

from dermalyze.calibration.calibrators import Calibrator
from dermalyze.calibration.conformal import ConformalSets
from dermalyze.calibration.decision_rule import Limit, Rule
from dermalyze.calibration.ood import OOD_SCORES, fit, threshold_of
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.core.result import DISCLAIMER
from dermalyze.imaging.corruptions import CORRUPTIONS, SEVERITIES
from dermalyze.metrics.selective import Referral
from dermalyze.report import robustness
from dermalyze.report.evaluation import measure, write_report
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.report.html import template
from dermalyze.report.sections import SECTIONS as TABLES
from dermalyze.scoring.ood_results import OodResults, Scored
from dermalyze.scoring.predictions import Predictions

HOSTILE = "<img src=x onerror=alert(1)>"


SECTIONS = TABLES["multiclass"]
PLAIN, WARM = Calibrator("none", {}), Calibrator("temperature", {"temperature": 1.5})
FITTED = {"part": "val", "images": 40, "groups": 30, "trials": [{"kind": "temperature", "log_loss": 0.5}], "sha256": "a" * 64}


def report(classes=("mel", "nv"), n=60, leak=None, title="t", labels=None, seed=0, calibrator=PLAIN, reference=True):
    generator = np.random.default_rng(seed)
    labels = generator.integers(len(classes), size=n) if labels is None else np.asarray(labels, dtype=int)
    n = len(labels)
    logits = generator.normal(size=(n, len(classes))) + 2 * np.eye(len(classes))[labels]
    meta = {"classes": list(classes), "set": "test", "task": "multiclass", "recipe": "plain"}
    p = Predictions([f"secret-{k}" for k in range(n)], [f"patient-{k // 2}" for k in range(n)], labels, logits, None, meta)
    fitted = FITTED if calibrator is WARM else None
    judged = Evaluation(p, EvaluateSpec(resamples=100), p.answering(calibrator.as_dict()), fitted, p if reference else None)
    m = {
        "title": title, "set": "test", "recipe": "plain", "task": "multiclass", "accepted_leak": leak, "about": None,
        "model": None, "files": None, "controls": None, "person": None,
        **measure(judged),
        "validation": None, "split": None, "external": None, "known_biases": [],
        "provenance": {"seed": 1, "bootstrap_seed": 0, "versions": {"python": "3"}},
    }  # fmt: skip
    return m, judged


def written(folder, *args, **kwargs):
    write_report(folder, *report(*args, **kwargs))
    return json.loads((folder / "evaluation_metrics.json").read_text()), (folder / "report.html").read_text()


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.words, self.tags, self.skip = [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.skip = tag in ("style", "title")

    def handle_endtag(self, tag):
        self.skip = False

    def handle_data(self, data):
        if not self.skip:
            self.words.append(data)


def read(page):
    parser = Text()
    parser.feed(page)
    return " ".join(parser.words), parser.tags


@pytest.mark.parametrize("calibrator", [PLAIN, WARM], ids=lambda c: c.kind)
def test_every_number_with_three_decimals_stands_in_the_metrics_file(tmp_path, calibrator):
    m, page = written(tmp_path, calibrator=calibrator)
    known = set(printed(m))
    text, _ = read(page)
    shown = PRINTED.findall(text)
    assert len(shown) > 60
    assert set(shown) <= known


def test_page_is_self_contained(tmp_path):
    _, page = written(tmp_path)
    _, tags = read(page)
    sources = [attrs["src"] for tag, attrs in tags if "src" in attrs]
    assert len(sources) == 7
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not any(tag in ("script", "link", "iframe", "object") for tag, _ in tags)
    targets = {attrs["id"] for _, attrs in tags if "id" in attrs}
    links = [attrs["href"] for _, attrs in tags if "href" in attrs]
    assert len(links) > 5
    assert all(link.startswith("#") and link[1:] in targets for link in links)
    assert all(attrs.get("alt") for tag, attrs in tags if tag == "img")


def test_disclaimer_stands_on_the_page_and_in_the_file(tmp_path):
    m, page = written(tmp_path)
    assert m["disclaimer"] == DISCLAIMER
    assert page.count(DISCLAIMER) == 2


def test_no_patient_is_named_and_no_image_but_the_worst_mistakes(tmp_path):
    m, page = written(tmp_path)
    assert "patient-" not in page + json.dumps(m)
    worst = {
        one["image_id"]
        for kind in (m["largest_errors"]["all"], *m.pop("largest_errors")["missed"].values())
        for one in kind["worst"]
    }
    assert worst
    assert "secret" not in json.dumps(m)
    assert set(re.findall(r"secret-\d+", page)) <= worst


def test_hostile_names_are_escaped(tmp_path):
    _, page = written(tmp_path, classes=(HOSTILE, "nv"), leak=HOSTILE, title=HOSTILE)
    assert "<img src=x" not in page
    _, tags = read(page)
    assert not any("onerror" in attrs for _, attrs in tags)


def test_leak_reason_is_stamped_on_page_and_figures(tmp_path):
    m, page = written(tmp_path, leak="the published split")
    assert m["accepted_leak"] == "the published split"
    assert "LEAK ACCEPTED, NOT A FAIR RESULT: the published split" in page
    stamped = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert "LEAK ACCEPTED" not in written(tmp_path)[1]
    assert len(stamped) == 7
    assert all(path.read_bytes() != stamped[path.name] for path in tmp_path.glob("*.png"))


@pytest.mark.parametrize("labels", [[], [0] * 40, [0, 1, 0]])
def test_what_cannot_be_said_is_not_said(tmp_path, labels):
    """Empty, one class absent, three images: no zero, no NaN, and a reason instead."""
    m, page = written(tmp_path, classes=("mel", "nv", "vasc"), labels=labels)
    text, _ = read(page)
    assert not re.search(r"\bnan\b", text.lower())
    assert m["metrics"]["macro_auroc"] == {
        "value": None, "low": None, "high": None, "n": len(labels), "groups": m["n_groups"],
        "undefined": 200 - 100, "note": m["metrics"]["macro_auroc"]["note"],
    }  # fmt: skip
    assert m["metrics"]["macro_auroc"]["note"].startswith(f"not estimable (n = {len(labels)})")
    assert m["per_class"]["vasc"]["recall"]["value"] is None
    assert f"not estimable (n = {len(labels)})" in text
    if len(labels) == 3:
        assert m["metrics"]["accuracy"]["value"] is not None
        assert m["metrics"]["accuracy"]["low"] is None
        assert "interval not estimable: 2 groups, at least 10 needed" in text


def test_the_same_predictions_give_the_same_bytes(tmp_path):
    written(tmp_path / "a")
    written(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_calibration_tells_where_it_was_fitted_and_what_it_changed(tmp_path):
    m, page = written(tmp_path, calibrator=WARM)
    words, _ = read(page)
    assert "calibrator of kind temperature, fitted on 40 images (30 groups) of the val split" in words
    assert "early stopping" in words
    before, after = m["calibration"]["before"]["metrics"]["log_loss"]["value"], m["metrics"]["log_loss"]["value"]
    assert before != after
    assert f"calibration error (ECE, {m['ece_bins']} bins)" in words
    interval = r"\s+\S+ – \S+"  # each value with its own
    assert re.search(rf"log loss\s+{before:.3f}{interval}\s+{after:.3f}{interval}", words)
    assert len(m["calibration"]["errors"]) == 4
    plain, _ = read(written(tmp_path)[1])
    assert "no calibrator was applied" in plain


def test_selective_prediction_has_its_table_and_its_figure(tmp_path):
    m, page = written(tmp_path)
    words, _ = read(page)
    assert (tmp_path / "risk_coverage.png").stat().st_size > 5000
    for row in m["selective"]["coverages"]:
        assert f"{row['threshold']:.3f}" in words
    assert "Melanoma: predicted as another class" in words
    assert "Melanoma:" not in read(written(tmp_path, classes=("a", "b"))[1])[0]


def test_without_a_calibration_part_there_are_no_thresholds(tmp_path):
    m, page = written(tmp_path, reference=False)
    assert m["selective"]["coverages"] == []
    assert "target coverage" not in read(page)[0]
    assert "AUROC, correct against wrong" in read(page)[0]


def test_no_two_sections_give_the_same_entry():
    _, judged = report()
    given = [key for section in SECTIONS.values() for key in section.build(judged)]
    assert len(given) == len(set(given))


def test_every_section_has_its_template_and_its_place_in_the_contents(tmp_path):
    _, page = written(tmp_path)
    _, tags = read(page)
    heads = [attrs["id"] for tag, attrs in tags if tag == "h2"]
    assert len(heads) == len(set(heads))
    assert [head for head in heads if head in SECTIONS] == [key for key in SECTIONS if key in heads]
    assert f'href="#{heads[0]}"' in page
    for name in SECTIONS.values():
        assert template(name.template)


def with_beyond(n=60):
    """A evaluated set with embeddings, the whole rule, out-of-distribution images and corrupted copies of ten images."""
    m, judged = report(n=n)
    generator, p = np.random.default_rng(5), judged.p
    embedding = 6 + generator.normal(size=(n, 4)) + 2 * p.labels[:, None]
    p = Predictions(p.ids, p.groups, p.labels, p.logits, embedding, p.meta)
    detectors = {kind: fit(kind, p.logits, embedding, p.labels) for kind in OOD_SCORES}
    scores = {
        kind: {"threshold": threshold_of(found(p.logits, embedding)), "mean_auroc": 0.75} for kind, found in detectors.items()
    }
    rule = Rule(Limit("knn", scores["knn"]["threshold"], 0.95), Referral("max_probability", 0.8, 0.7),
                ConformalSets("lac", 0.8, {"marginal": 0.4}, {"marginal": 30}))  # fmt: skip
    foreign = {
        name: Scored(generator.normal(size=(k, 2)).astype(np.float32), generator.normal(-30, 1, (k, 4)).astype(np.float32))
        for name, k in (("noise", 20), ("two_films", 2))
    }
    grid = [f"{kind}/{s}" for kind in CORRUPTIONS for s in SEVERITIES]
    rows = np.repeat(np.arange(10), len(grid))
    ids = [f"{p.ids[i]}/{name}" for i, name in zip(rows, grid * 10, strict=True)]
    logits = p.logits[rows] + generator.normal(size=(len(rows), 2))
    corrupted = Predictions(ids, [p.groups[i] for i in rows], p.labels[rows], logits, embedding[rows], p.meta)
    table = {"scores": scores, "missing": {"energy": "a reason"}, "choice": "the rule of choice"}
    judged = Evaluation(p, judged.spec, p.answering(), None, p, beyond=OodResults(rule, table, detectors, foreign, corrupted))
    return {**m, **measure(judged)}, judged


def test_each_class_of_the_focus_has_a_column_for_corruptions():
    m, judged = with_beyond()
    found = m["corruptions"]["mean"]
    assert list(found) == ["accuracy", "balanced_accuracy", "sensitivity_mel", "ece", "referred"]
    both = {**m, **measure(replace(judged, spec=EvaluateSpec(resamples=100, focus=["nv", "mel"])))}
    assert both["corruptions"]["mean"]["sensitivity_mel"] == found["sensitivity_mel"]
    titles = robustness.view(both)["columns"]
    assert titles[2:4] == ["sensitivity: Melanocytic nevi", "sensitivity: Melanoma"]
    none = measure(replace(judged, spec=EvaluateSpec(resamples=100, focus=None)))
    assert list(none["corruptions"]["mean"]) == ["accuracy", "balanced_accuracy", "ece", "referred"]


def test_foreign_and_corrupted_pictures_stand_on_the_page_as_in_the_file(tmp_path):
    write_report(tmp_path, *with_beyond())
    m, page = json.loads((tmp_path / "evaluation_metrics.json").read_text()), (tmp_path / "report.html").read_text()
    known = set(printed(m))
    text, tags = read(page)
    assert set(PRINTED.findall(text)) <= known
    for words in (
        "Decision rule",
        "Out-of-distribution detection",
        "Corruption robustness",
        "two films",
        "the rule of choice",
        "a reason",
    ):
        assert words in text, words
    assert (tmp_path / "corruptions.png").stat().st_size > 5000
    shares = m["decision"]["shares"]
    assert shares["answer"]["value"] + shares["set"]["value"] + shares["refer"]["value"] == pytest.approx(1)
    chance = m["decision"]["chance"]
    assert {name: round(one["expected"], 2) for name, one in chance.items()} == {"foreign": 0.05, "unsure": 0.2}
    assert all(0 <= one["low"] < one["expected"] < one["high"] <= 1 for one in chance.values())
    assert text.count("beta-binomial") == 2
    assert m["decision"]["foreign"]["noise"]["value"] == 1.0
    assert m["decision"]["foreign"]["two_films"]["low"] is None
    assert m["ood"]["scores"]["knn"]["sets"]["noise"]["auroc"]["value"] == 1.0
    assert not any(attrs.get("src", "data:").startswith("http") for _, attrs in tags)


def test_the_mean_over_corruptions_is_the_mean_of_its_parts():
    c = with_beyond()[0]["corruptions"]
    assert c["groups"] == 5
    for key in ("accuracy", "ece", "referred"):
        parts = [one[key]["value"] for kind in c["kinds"].values() for one in kind["severities"].values()]
        assert c["mean"][key]["value"] == pytest.approx(np.mean(parts))
        assert c["kinds"]["hair"]["mean"][key]["value"] == pytest.approx(np.mean(parts[-5:]))
    assert c["mean"]["accuracy"]["low"] is None  # five groups have no interval


def test_without_them_there_is_nothing_to_say():
    m, _ = report()
    assert (m["ood"], m["decision"], m["corruptions"]) == (None, None, None)
