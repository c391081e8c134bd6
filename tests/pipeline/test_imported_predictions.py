"""Somebody else's predictions: the same report, the same numbers as scikit-learn on the file, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_manifest
from dermalyze.errors import DataError, ModelError, UsageError
from dermalyze.scoring.imported_predictions import ImportedPredictions
from dermalyze.scoring.predictions import read_predictions, write_predictions
from dermalyze.scoring.score_kind import kind_of
from dermalyze.serve.predictor.output import write as write_answers
from dermalyze.serve.predictor.prediction import Prediction

COUNTS = {"df": 26, "mel": 30, "nv": 80}
CLASSES = sorted(COUNTS)


def evaluate(*args, **kwargs):
    from dermalyze.stages.evaluate import evaluate as stage

    return stage(*args, **kwargs)


def evaluate_predictions(*args, **kwargs):
    from dermalyze.stages.evaluate import evaluate_predictions as stage

    return stage(*args, **kwargs)


@pytest.fixture
def quick(monkeypatch):
    """The numbers alone, without figures and page."""
    monkeypatch.setattr("dermalyze.stages.evaluate.write_report", lambda folder, m, judged: [folder / "report.html"])


def rows_of(run, part="test", decimals=None):
    """A part's stored predictions as the table of a stranger."""
    p = read_predictions(run.predictions_path(part, "plain"))
    probs = p.probs()
    if decimals is not None:
        probs = probs.round(decimals)
        probs[:, -1] = 1 - probs[:, :-1].sum(axis=1)
    return pd.DataFrame(probs, columns=CLASSES).assign(image_id=p.ids)


def write(tmp_path, frame, name="theirs.csv"):
    path = tmp_path / name
    frame.to_csv(path, index=False)
    return path


def refused(run, spec, path, kind, words, code, **options):
    with pytest.raises(kind, match=words) as error:
        evaluate_predictions(run, spec, path, **options)
    assert error.value.exit_code == code
    assert "\n" not in str(error.value)
    assert not list(run.root.glob("report/**/*"))


def test_the_report_is_that_of_the_runs_own_predictions(judged, tmp_path):
    """The same numbers from the CSV as from the stored logits, rows in any order."""
    run, spec = judged(COUNTS)
    own = evaluate(run, spec).metrics
    path = write(tmp_path, rows_of(run).sample(frac=1, random_state=0))
    found = evaluate_predictions(run, spec, path)
    assert found.page.parent == run.given_report_dir("theirs")
    for name, estimate in own["metrics"].items():
        assert found.metrics["metrics"][name]["value"] == pytest.approx(estimate["value"], abs=1e-6), name
        assert found.metrics["metrics"][name]["low"] == pytest.approx(estimate["low"], abs=1e-6), name
    page = found.page.read_text()
    assert "How that model was made is not known here" in page
    assert "those of the imported predictions file, unchanged" in page
    assert DISCLAIMER in page
    assert found.metrics["split"] is None
    assert json.loads((found.page.parent / "evaluation_metrics.json").read_text()) == found.metrics


def test_ties_of_a_rounded_file_stay_ties(judged, tmp_path, quick):
    """AUROC and log loss are scikit-learn's on the very numbers of the file."""
    run, spec = judged(COUNTS)
    frame = rows_of(run, decimals=1)
    m = evaluate_predictions(run, spec, write(tmp_path, frame)).metrics
    p = read_predictions(run.predictions_path("test", "plain"))
    given = pd.read_csv(tmp_path / "theirs.csv")[CLASSES].to_numpy()
    assert len(np.unique(given[:, 0])) < 12
    for c, name in enumerate(CLASSES):
        assert m["per_class"][name]["auroc"]["value"] == pytest.approx(roc_auc_score(p.labels == c, given[:, c]), abs=1e-12)
    clipped = np.maximum(given, np.finfo(float).eps)
    assert m["metrics"]["log_loss"]["value"] == pytest.approx(log_loss(p.labels, clipped, labels=[0, 1, 2]), abs=1e-5)


def test_constant_probabilities_are_chance(judged, tmp_path, quick):
    run, spec = judged(COUNTS)
    frame = rows_of(run).assign(**dict.fromkeys(CLASSES, 1 / 3))
    found = evaluate_predictions(run, spec, write(tmp_path, frame))
    assert found.metrics["metrics"]["macro_auroc"]["value"] == 0.5
    assert found.metrics["warnings"] == [
        "The model predicts Dermatofibroma for every image. Its sensitivity is 1 for this class and 0 for all others, and does "
        "not show that it tells classes apart.",
        f"{len(frame)} of {len(frame)} images have two or more classes of the same largest probability; the first of them, in "
        "the order of the classes, counts as predicted.",
    ]
    assert found.lines()[1:3] == found.metrics["warnings"], "before any metric"


def test_one_class_alone_is_said_on_the_page(judged, tmp_path):
    run, spec = judged(COUNTS)
    frame = rows_of(run).assign(df=0.1, mel=0.1, nv=0.8)
    frame["nv"] += np.arange(len(frame)) * 1e-4
    frame["mel"] -= np.arange(len(frame)) * 1e-4
    page = evaluate_predictions(run, spec, write(tmp_path, frame)).page.read_text()
    assert page.index("The model predicts Melanocytic nevi for every image.") < page.index("headline metrics")
    assert "same largest probability" not in page


def test_logits_are_recognised_and_may_be_named(judged, tmp_path, capsys, quick):
    run, spec = judged(COUNTS)
    p = read_predictions(run.predictions_path("test", "plain"))
    frame = pd.DataFrame(p.logits.astype(float), columns=CLASSES).assign(image_id=p.ids)
    path = write(tmp_path, frame)
    own = evaluate(run, spec).metrics["metrics"]["log_loss"]["value"]
    for scores in (None, "logits"):
        found = evaluate_predictions(run, spec, path, scores=scores)
        assert found.metrics["metrics"]["log_loss"]["value"] == pytest.approx(own, abs=1e-6)
        assert "logits of theirs" in capsys.readouterr().err
    assert "as logits of 3 classes" in found.metrics["about"]["sentences"][0]


def test_rows_of_the_calibration_part_give_the_thresholds(judged, tmp_path, quick):
    run, spec = judged(COUNTS)
    own = evaluate(run, spec).metrics
    frame = pd.concat([rows_of(run, part) for part in ("train", "cal", "test")])
    m = evaluate_predictions(run, spec, write(tmp_path, frame)).metrics
    for ours, theirs in zip(own["selective"]["coverages"], m["selective"]["coverages"], strict=True):
        assert theirs["threshold"] == pytest.approx(ours["threshold"], abs=1e-6)
    assert any("rows of other parts are not used" in note for note in m["external"]["notes"])
    alone = evaluate_predictions(run, spec, write(tmp_path, rows_of(run))).metrics
    assert (alone["selective"]["coverages"], alone["conformal"]) == ([], None)


def test_other_names_of_columns_are_found(judged, tmp_path, quick):
    run, spec = judged(COUNTS)
    isic = rows_of(run).rename(columns={"image_id": "image", **{name: name.upper() for name in CLASSES}})
    ours = rows_of(run).rename(columns={name: f"p_{name}" for name in CLASSES}).assign(predicted_class="nv", notes="")
    values = [evaluate_predictions(run, spec, write(tmp_path, frame)).metrics["metrics"]["accuracy"] for frame in (isic, ours)]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("change", "kind", "words", "code"),
    [
        (lambda f: f.assign(mel=[np.nan, *f["mel"][1:]]), ModelError, "1 of .* values of mel are empty, NaN", 4),
        (lambda f: f.assign(mel=[np.inf, *f["mel"][1:]]), ModelError, "infinite", 4),
        (lambda f: f.assign(mel=f["mel"] * 0.5), ModelError, "line 2: .* do not sum to 1 in their probabilities", 4),
        (lambda f: f.assign(**{c: f[c] * 100 for c in CLASSES}), ModelError, "percentages; divide them by 100", 4),
        (lambda f: f.drop(columns="df"), ModelError, r"no column for the classes \['df'\]", 4),
        (lambda f: f.assign(mel="much"), DataError, "line 2: mel 'much' is no number", 3),
        (lambda f: f.rename(columns={"image_id": "picture"}), DataError, "needs image_id", 3),
        (lambda f: pd.concat([f, f[:1]]), DataError, "'I.*' and 0 others are in more than one row", 3),
        (lambda f: f.assign(image_id=["=1+1", *f["image_id"][1:]]), DataError, "'=1[+]1' is a formula", 3),
        (lambda f: f.assign(image_id=["a\nb", *f["image_id"][1:]]), DataError, "control characters", 3),
        (lambda f: f.assign(image_id=["stranger", *f["image_id"][1:]]), DataError, "1 of .* rows are of images that", 3),
        (lambda f: f[3:], DataError, "3 of .* test images have no row; first: 'I.*--partial", 3),
        (lambda f: f[:0], DataError, "has no rows", 3),
    ],
    ids=["nan", "inf", "sum", "percent", "class", "text", "id", "twice", "formula", "newline", "stranger", "missing", "empty"],
)  # fmt: skip
def test_faults_are_refused(judged, tmp_path, change, kind, words, code):
    """FAULTS 34 and 35, for a file from outside."""
    run, spec = judged(COUNTS)
    refused(run, spec, write(tmp_path, change(rows_of(run))), kind, words, code)


def test_probabilities_outside_are_refused_where_they_are_said_to_be_such(judged, tmp_path):
    run, spec = judged(COUNTS)
    frame = rows_of(run)
    frame.loc[0, CLASSES] = [1.2, -0.1, -0.1]
    refused(run, spec, write(tmp_path, frame), ModelError, "outside 0..1", 4, scores="probabilities")
    refused(
        run, spec, write(tmp_path, frame), UsageError, "must be one of probabilities, one-vs-rest, logits", 2, scores="odds"
    )
    refused(run, spec, tmp_path / "none.csv", UsageError, "no such file", 2)


def sigmoid_rows(run, part="test"):
    """The same ranking of images within each class, as a model with a sigmoid per class would give it."""
    frame = rows_of(run, part)
    frame[CLASSES] = frame[CLASSES].to_numpy() ** [0.4, 0.5, 0.6]
    return frame


def test_scores_of_single_classes_rank_as_they_are_and_claim_no_calibration(judged, tmp_path):
    run, spec = judged(COUNTS)
    frame = sigmoid_rows(run)
    found = evaluate_predictions(run, spec, write(tmp_path, frame))
    m, page = found.metrics, found.page.read_text()
    p = read_predictions(run.predictions_path("test", "plain"))
    for c, name in enumerate(CLASSES):
        auroc = roc_auc_score(p.labels == c, frame[name])
        assert m["per_class"][name]["auroc"]["value"] == pytest.approx(auroc, abs=1e-12)
    called = frame[CLASSES].to_numpy().argmax(axis=1)
    assert m["metrics"]["accuracy"]["value"] == pytest.approx((called == p.labels).mean())
    for name in ("ece", "log_loss", "brier"):
        assert m["metrics"][name]["value"] is None
        assert "the scores are no probabilities" in m["metrics"][name]["note"]
    assert m["calibration"] is None
    assert all(question["decision"] is None for question in m["operating"]["questions"].values())
    assert m["external"]["notes"][0].startswith("The rows do not sum to 1: each class has a score of its own (one-vs-rest")
    assert "read from theirs as one-vs-rest" in page
    assert "Reliability diagram" not in page
    assert "NaN" not in (found.page.parent / "evaluation_metrics.json").read_text()


def test_scores_of_single_classes_survive_being_stored(judged, tmp_path, quick):
    """As `score --model` stores what a network with sigmoid outputs gives."""
    run, spec = judged(COUNTS)
    p, frame = read_predictions(run.predictions_path("test", "plain")), sigmoid_rows(run)
    values = frame[CLASSES].to_numpy()
    given = ImportedPredictions("net", "0" * 64, p.ids, CLASSES, values, kind_of(values, p.task), frame[["image_id"]])
    assert given.kind == "one-vs-rest"
    stored = given.predictions(np.arange(len(p)), p.labels, p.groups, set="test", model_sha256="0" * 64)
    write_predictions(run.predictions_path("test", "by-net"), stored)
    found = evaluate_predictions(run, spec, run.predictions_path("test", "by-net")).metrics
    assert found["metrics"]["ece"]["value"] is None
    for c, name in enumerate(CLASSES):
        assert found["per_class"][name]["auroc"]["value"] == pytest.approx(
            roc_auc_score(p.labels == c, values[:, c]), abs=1e-12
        )


def test_probabilities_with_a_fault_are_not_taken_for_scores_of_single_classes(judged, tmp_path):
    run, spec = judged(COUNTS)
    rounded = rows_of(run).assign(**{name: rows_of(run)[name].round(2) + 0.004 for name in CLASSES})
    damaged = rows_of(run)
    damaged.loc[:3, "mel"] = 0.0
    short = rows_of(run).assign(mel=0.5 * rows_of(run)["mel"])
    for frame in (rounded, damaged, short):
        words = "do not sum to 1 in their probabilities; give softmax outputs with at least 5 digits, or say what they are"
        refused(run, spec, write(tmp_path, frame), ModelError, words, 4)
    refused(run, spec, write(tmp_path, sigmoid_rows(run)), ModelError, "do not sum to 1", 4, scores="probabilities")


def test_who_says_so_gets_scores_of_single_classes(judged, tmp_path, quick):
    run, spec = judged(COUNTS)
    found = evaluate_predictions(run, spec, write(tmp_path, rows_of(run)), scores="one-vs-rest").metrics
    assert found["metrics"]["macro_auroc"]["value"] is not None
    assert found["metrics"]["ece"]["value"] is None


def test_partial_files_are_judged_when_asked_and_say_so(judged, tmp_path, quick):
    run, spec = judged(COUNTS)
    frame = rows_of(run)
    found = evaluate_predictions(run, spec, write(tmp_path, frame[4:]), partial=True)
    assert found.metrics["n_images"] == len(frame) - 4
    assert f"4 of {len(frame)} test images have no row" in found.metrics["external"]["notes"][0]


def test_a_file_with_labels_needs_no_run(judged, tmp_path, quick):
    run, spec = judged(COUNTS)
    own = evaluate(run, spec).metrics
    p = read_predictions(run.predictions_path("test", "plain"))
    frame = rows_of(run).assign(label=[CLASSES[c] for c in p.labels], lesion_id=p.groups, age="55", sex=None)
    path = write(tmp_path, frame, "Other Model.csv")
    out = Run(tmp_path / "out")
    settings = {"evaluate": spec.evaluate}
    found = evaluate_predictions(out, ExperimentSpec(**settings), path)
    assert found.metrics["set"] == "other-model"
    assert found.metrics["n_groups"] == own["n_groups"]
    for name, estimate in own["metrics"].items():
        assert found.metrics["metrics"][name]["low"] == pytest.approx(estimate["low"], abs=1e-6), name
    ungrouped = evaluate_predictions(out, ExperimentSpec(**settings), write(tmp_path, frame.drop(columns="lesion_id")))
    assert ungrouped.metrics["n_groups"] == len(p)
    assert "each image counts as a group" in ungrouped.metrics["external"]["notes"][0]
    for change, words in (
        (frame.drop(columns="label"), "has no column label"),
        (frame.assign(label="melanoma"), r"labels 'melanoma' .*have no column"),
        (frame.assign(remark="fine"), "remark 'fine' is no number.*call the columns of the classes p_NAME"),
    ):
        with pytest.raises(DataError, match=words):
            evaluate_predictions(out, ExperimentSpec(**settings), write(tmp_path, change))


def test_the_command(judged, tmp_path, quick):
    run, _ = judged(COUNTS)
    path = write(tmp_path, rows_of(run))
    found = CliRunner().invoke(app, ["evaluate", str(run.root), "--predictions", str(path), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["recipe"] == "given"
    alone = CliRunner().invoke(app, ["evaluate", str(tmp_path / "new"), "--predictions", str(path)])
    assert alone.exit_code == 3
    assert "has no column label" in alone.stderr
    assert not (tmp_path / "new").exists()


def predicted(run, path, *, names=True, refuse=(), fail=()):
    """The file that `dermalyze predict --format csv` writes for the test split."""
    manifest = read_manifest(run).set_index("image_id")
    answers = []
    for i, row in rows_of(run).iterrows():
        probabilities = {name: float(row[name]) for name in CLASSES}
        best = max(CLASSES, key=probabilities.__getitem__)
        known = {"index": i, "sha256": manifest.loc[row["image_id"], "sha256"], "file": f"my photos/{row['image_id']}.jpg"}
        verdict = "refer" if i in refuse else "accept"
        made = Prediction(
            **known, predicted_class=best, confidence=probabilities[best], probabilities=probabilities, verdict=verdict,
            decision="refer" if i in refuse else "answer", abstain=i in refuse,
        )  # fmt: skip
        answers.append(Prediction(**known, error="not an image") if i in fail else made.without_scores())
    with path.open("w", encoding="utf-8") as stream:
        write_answers(answers, stream, classes=CLASSES, format="csv", names=names)
    return path


@pytest.mark.parametrize("names", [True, False])
def test_what_predict_writes_is_taken_as_it_is(judged, tmp_path, quick, names):
    """Images by their file names, or by their hashes."""
    run, spec = judged(COUNTS)
    own = evaluate(run, spec).metrics["metrics"]
    found = evaluate_predictions(run, spec, predicted(run, tmp_path / "mine.csv", names=names)).metrics
    for name, estimate in own.items():
        assert found["metrics"][name]["value"] == pytest.approx(estimate["value"], abs=1e-6), name
        assert found["metrics"][name]["low"] == pytest.approx(estimate["low"], abs=1e-6), name


def test_refused_images_are_counted_and_left_out(judged, tmp_path, quick):
    run, spec = judged(COUNTS)
    p = read_predictions(run.predictions_path("test", "plain"))
    right = p.probs().argmax(axis=1) == p.labels
    wrong = np.flatnonzero(~right)[:5].tolist()
    found = evaluate_predictions(run, spec, predicted(run, tmp_path / "mine.csv", refuse=wrong)).metrics
    assert found["n_images"] == len(p) - len(wrong)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(np.delete(right, wrong).mean())
    assert found["external"]["notes"][0].startswith(f"The model refused {len(wrong)} of {len(p)} images (coverage ")
    labelled = pd.read_csv(tmp_path / "mine.csv").assign(label=[CLASSES[c] for c in p.labels])
    alone = evaluate_predictions(Run(tmp_path / "out"), ExperimentSpec(evaluate=spec.evaluate), write(tmp_path, labelled))
    assert alone.metrics["n_images"] == len(p) - len(wrong)
    assert any(note.startswith(f"The model refused {len(wrong)} of") for note in alone.metrics["external"]["notes"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fail": (0, 3)}, "2 of .* rows hold an error and no prediction; first: 'I"),
        ({"refuse": range(10_000)}, "the model refused all"),
    ],
)
def test_a_file_of_predict_without_answers_is_refused(judged, tmp_path, options, words):
    run, spec = judged(COUNTS)
    refused(run, spec, predicted(run, tmp_path / "mine.csv", **options), DataError, words, 3)
