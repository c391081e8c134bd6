"""The report of a sound run: what is written, that it can be repeated, and that the numbers are the metrics'."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, roc_auc_score
from stored_run import store_predictions

from dermalyze.core.result import DISCLAIMER
from dermalyze.data.manifest import read_manifest
from dermalyze.errors import ConfigError
from dermalyze.metrics.classification import measure
from dermalyze.report.sections import headline
from dermalyze.scoring.predictions import read_predictions
from dermalyze.stages.evaluate import evaluate

COUNTS = {"df": 26, "mel": 30, "nv": 80}
FILES = {
    "evaluation_metrics.json", "model_card.md", "checklists.md", "report.html", "confusion_matrix.png", "roc_curves.png",
    "per_class_metrics.png",
    "calibration_curve.png",
    "risk_coverage.png", "pr_curves.png", "decision_curve.png",
}  # fmt: skip


def test_everything_is_written_and_the_file_is_the_result(judged):
    run, spec = judged(COUNTS)
    result = evaluate(run, spec)
    assert {path.name for path in run.report_dir.iterdir()} == FILES
    stored = json.loads((run.report_dir / "evaluation_metrics.json").read_text(), parse_constant=pytest.fail)
    assert stored == result.metrics
    assert {**stored, "report": str(result.page)} == result.as_dict()


def test_metrics_are_those_of_the_stored_predictions(judged):
    run, spec = judged(COUNTS)
    m = evaluate(run, spec).metrics
    p = read_predictions(run.predictions_path("test", "plain"))
    for name, value in measure(p.labels, p.probs()).items():
        assert m["metrics"][name]["value"] == value, name
    assert np.array(m["confusion_matrix"]["counts"]).sum() == m["n_images"] == len(p)
    assert np.trace(m["confusion_matrix"]["counts"]) / len(p) == pytest.approx(m["metrics"]["accuracy"]["value"])
    assert [row["support"] for row in m["per_class"].values()] == np.bincount(p.labels).tolist()
    assert sum(b["n"] for b in m["calibration"]["bins"]) == len(p)
    assert m["n_groups"] == len(set(p.groups)) < len(p)
    for estimate in m["metrics"].values():
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert (estimate["n"], estimate["groups"]) == (len(p), m["n_groups"])


def test_the_same_run_gives_the_same_bytes(judged):
    run, spec = judged(COUNTS)
    evaluate(run, spec)
    first = {path.name: path.read_bytes() for path in run.report_dir.iterdir()}
    evaluate(run, spec)
    assert {path.name: path.read_bytes() for path in run.report_dir.iterdir()} == first


def test_validation_stands_beside_it_only_if_it_is_of_the_same_model(judged):
    run, spec = judged(COUNTS)
    p = read_predictions(run.predictions_path("val", "plain"))
    assert evaluate(run, spec).metrics["validation"]["accuracy"]["value"] == measure(p.labels, p.probs())["accuracy"]
    assert all(one["low"] is not None or one["note"] for one in evaluate(run, spec).metrics["validation"].values())
    from dataclasses import replace

    from dermalyze.scoring.predictions import write_predictions

    write_predictions(run.predictions_path("val", "plain"), replace(p, meta={**p.meta, "model_sha256": "b" * 64}))
    assert evaluate(run, spec).metrics["validation"] is None


def test_page_tells_split_biases_hashes_and_what_it_is_not(judged):
    run, spec = judged(COUNTS, ids="ISIC_003{:04}")
    result = evaluate(run, spec)
    page = result.page.read_text()
    assert "Certified: nothing crosses the splits." in page
    assert "few with dark skin" in page
    assert run.manifest_hash() in page
    assert DISCLAIMER in page
    assert "sensitivity: Melanoma" in page
    lines = "\n".join(result.lines())
    assert DISCLAIMER in lines
    assert "sensitivity: Melanoma" in lines
    assert f"{result.metrics['metrics']['accuracy']['value']:.3f}" in lines


def test_other_images_have_no_biases_of_ham10000(judged):
    """Also where they lie in its layout, as synthetic ones do."""
    run, spec = judged(COUNTS, ids="ISIC_999{:04}")
    result = evaluate(run, spec)
    assert result.metrics["known_biases"] == []
    assert "Known biases" not in result.page.read_text()


def test_settings_of_the_experiment_are_used(judged):
    run, spec = judged(COUNTS, config={"evaluate": {"resamples": 150, "level": 0.8, "ece_bins": 7, "seed": 5}})
    m = evaluate(run, spec).metrics
    assert (m["resamples"], m["level"], len(m["calibration"]["bins"]), m["provenance"]["bootstrap_seed"]) == (150, 0.8, 7, 5)
    wide = evaluate(run, spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"level": 0.99})})).metrics
    assert wide["metrics"]["accuracy"]["low"] < m["metrics"]["accuracy"]["low"]


def test_evaluation_needs_no_torch(judged):
    """Pure: from stored predictions, on any machine."""
    run, _ = judged(COUNTS)
    code = (
        "import sys, pathlib; from dermalyze.core.run import Run; from dermalyze.stages.evaluate import evaluate;"
        f"run = Run.open(pathlib.Path({str(run.root)!r})); evaluate(run, run.config());"
        "assert not {'torch', 'timm', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_malignant_or_not_is_measured_where_the_classes_hold_it(judged):
    run, spec = judged(COUNTS)
    asked = evaluate(run, spec).metrics["operating"]
    p = read_predictions(run.predictions_path("test", "plain"))
    mel = p.classes.index("mel")
    assert asked["questions"].keys() == {"malignant"}  # mel would be the same question
    ranked = asked["questions"]["malignant"]["ranking"]["auroc"]["value"]
    assert ranked == pytest.approx(roc_auc_score(p.labels == mel, p.probs()[:, mel]))
    off = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"malignant": None})})
    assert evaluate(run, off).metrics["operating"]["questions"].keys() == {"mel"}


def test_each_class_of_the_focus_has_a_headline_row_and_a_question(judged):
    run, spec = judged({"bcc": 26, "mel": 30, "nv": 80}, config={"evaluate": {"focus": ["bcc"]}})

    def rows(focus):
        asked = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"focus": focus})})
        found = evaluate(run, asked)
        return found.metrics, [name for name, _ in headline(found.metrics) if "sensitivity" in name]

    m, names = rows(["bcc"])
    assert (m["focus"], names) == (["bcc"], ["sensitivity: Basal cell carcinoma"])
    assert m["operating"]["questions"].keys() == {"malignant", "bcc"}
    assert m["selective"]["focus"] == m["subgroups"]["focus"] == "bcc"
    assert m["largest_errors"]["missed"].keys() == {"bcc"}
    m, names = rows(["nv", "bcc"])
    assert names == ["sensitivity: Melanocytic nevi", "sensitivity: Basal cell carcinoma"]
    assert m["selective"]["focus"] == "nv", "the first"
    m, names = rows("auto")
    assert names == ["sensitivity: Melanoma"]
    m, names = rows(None)
    assert (m["focus"], m["selective"]["focus"]) == ([], None)
    assert m["largest_errors"]["missed"] == {}
    assert [name.partition(":")[0] for name in names] == ["lowest sensitivity"]
    assert m["operating"]["questions"].keys() == {"malignant"}


@pytest.mark.parametrize("key", ["malignant", "focus"])
def test_names_that_are_no_class_are_refused(judged, key):
    run, spec = judged(COUNTS, config={"evaluate": {key: ["mle"]}})
    with pytest.raises(ConfigError, match=rf"evaluate\.{key}: 'mle' is no class .*did you mean 'mel'"):
        evaluate(run, spec)
    assert not run.report_dir.exists()


def test_submission_holds_the_probabilities_of_the_set(judged, tmp_path):
    run, spec = judged(COUNTS)
    path = tmp_path / "sub.csv"
    result = evaluate(run, spec, submission=path)
    rows = list(csv.reader(path.open()))
    p = read_predictions(run.predictions_path("test", "plain"))
    assert rows[0] == ["image", "df", "mel", "nv"]
    assert [row[0] for row in rows[1:]] == p.ids
    np.testing.assert_array_equal([[float(x) for x in row[1:]] for row in rows[1:]], p.probs())
    assert path in result.files
    assert result.page.name == "report.html"


def with_reader(run, frame):
    """The run again, its manifest with a reader's column."""
    from dermalyze.data.manifest import write_manifest
    from dermalyze.stages.split import split

    rows = read_manifest(run)
    rows["reader"] = [frame(label, k) for k, label in enumerate(rows["label"])]
    write_manifest(run, rows)
    split(run, run.config())


def test_a_reader_is_compared_on_the_same_images(judged):
    run, spec = judged(COUNTS, config={"evaluate": {"reader": "reader"}})
    with_reader(run, lambda label, k: None if k % 5 == 0 else "mole" if k % 7 == 0 else "nv" if k % 3 == 0 else label.upper())
    store_predictions(run, spec)
    result = evaluate(run, spec)
    r, p = result.metrics["reader"], read_predictions(run.predictions_path("test", "plain"))
    said = read_manifest(run).set_index("image_id").loc[p.ids, "reader"]
    given = said.isin(["DF", "MEL", "NV", "nv"]).to_numpy()
    called = [p.classes.index(name.lower()) for name in said[given]]
    labels, answered = p.labels[given], p.probs()[given].argmax(axis=1)
    assert (r["images"], r["missing"], r["foreign"]) == (given.sum(), said.isna().sum(), {"mole": (said == "mole").sum()})
    for side, calls in (("reader", called), ("model", answered)):
        assert r["compared"]["accuracy"][side]["value"] == pytest.approx(np.mean(calls == labels))
        assert r["compared"]["kappa"][side]["value"] == pytest.approx(cohen_kappa_score(labels, calls))
    assert r["between"]["kappa"]["value"] == pytest.approx(cohen_kappa_score(called, answered))
    assert r["between"]["agreement"]["value"] == pytest.approx(np.mean(called == answered))
    np.testing.assert_array_equal(r["confusion_matrix"]["counts"], confusion_matrix(labels, called))
    page = result.page.read_text()
    assert "Reader comparison" in page
    assert f"{(said == 'mole').sum()} answers are not a class of the model" in page


def test_a_reader_who_said_nothing_and_a_column_that_is_not_there(judged):
    run, spec = judged(COUNTS, config={"evaluate": {"reader": "reader"}})
    with pytest.raises(ConfigError, match="no column 'reader'"):
        evaluate(run, spec)
    with_reader(run, lambda label, k: " ")
    store_predictions(run, spec)
    r = evaluate(run, spec).metrics["reader"]
    assert r["images"] == 0
    assert r["compared"]["accuracy"]["difference"]["value"] is None
    assert "not estimable (n = 0)" in (run.report_dir / "report.html").read_text()
