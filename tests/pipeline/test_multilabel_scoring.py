"""What only needs scores, where an image has any number of labels: recipes, corrupted and other images, eight bits, models."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_labels import LABELS, label_spec, paint_set
from PIL import Image
from sklearn.metrics import roc_auc_score

from dermalyze.artifact.artifact import Artifact, open_export
from dermalyze.core.run import Run, read_json
from dermalyze.data.splitting import read_division
from dermalyze.errors import DermalyzeError, ModelError
from dermalyze.imaging.corruptions import CORRUPTIONS, SEVERITIES
from dermalyze.metrics import uncertainty
from dermalyze.metrics.activation import sigmoid
from dermalyze.metrics.ood_separation import separation
from dermalyze.scoring import quantize_gate
from dermalyze.scoring.external_set import open_external
from dermalyze.scoring.imported_predictions import match, read_imported, standing_alone
from dermalyze.scoring.isic_submission import submission_csv
from dermalyze.scoring.ood_results import read_ood_results
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.verify import verify
from dermalyze.stages.calibrate import calibrate
from dermalyze.stages.export import export
from dermalyze.stages.score import score
from dermalyze.tasks.base import TASKS
from dermalyze.workflows.pipeline import STEPS, run_experiment

FURTHER = ("flips", "tta", "mc_dropout")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Calibrated, with a network whose head has dropout; every recipe is stored."""
    root = tmp_path_factory.mktemp("scoring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(root / "cache"))
        model = {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16, 16]}, "head": {"kind": "linear", "dropout": 0.4}}
        spec = label_spec(
            paint_set(root / "data", images=144), model=model, train={"epochs": 2, "batch_size": 16, "threads": 1}
        )
        run_experiment(spec, root / "run", steps=STEPS[: STEPS.index("score")])
        made = Run.open(root / "run")
        score(made, made.config(), recipes=FURTHER, passes=5)
        calibrate(made, made.config())
    return made


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Run:
    """A copy, to be changed."""
    shutil.copytree(run.root, tmp_path / "run")
    return Run.open(tmp_path / "run")


def stored(run: Run, part: str, recipe: str = "plain") -> Predictions:
    return read_predictions(run.predictions_path(part, recipe))


def binary_entropy(p: Any) -> Any:
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


# -- recipes --------------------------------------------------------------------------------------------------------


def test_further_recipes_answer_with_the_mean_probability_of_each_label(run: Run) -> None:
    for part in ("val", "cal", "test"):
        plain = stored(run, part)
        for recipe, passes in zip(FURTHER, (4, 7, 5), strict=True):
            p = stored(run, part, recipe)
            assert (p.ids, p.groups, p.labels.tolist(), p.meta["task"]) == (
                plain.ids, plain.groups, plain.labels.tolist(), "multilabel",
            )  # fmt: skip
            assert p.samples is not None
            assert p.samples.shape == (len(p), passes, len(LABELS))
            np.testing.assert_allclose(p.probs(), sigmoid(p.samples).mean(axis=1), atol=1e-6)
            assert p.samples.std(axis=1).max() > 1e-3, "passes that do not differ compare nothing"


def test_each_recipe_has_its_own_calibration_and_thresholds(run: Run) -> None:
    """What is called from each threshold has the largest F1 that any threshold gives."""
    served = read_json(run.calibration_path("plain"))["calibration"]
    assert read_json(run.artifact_record_path)["calibration"] == served
    for recipe in FURTHER:
        p, known = stored(run, "cal", recipe), read_json(run.calibration_path(recipe))["calibration"]
        assert known["images"] == len(p)
        assert known["thresholds"] != served["thresholds"]
        answering = p.task.calibrator(known, len(LABELS))
        probs_NC = answering(p.logits.astype(np.float64))
        for c, name in enumerate(LABELS):
            has_N, values = p.labels[:, c] == 1, probs_NC[:, c]

            def f1(threshold: float, has_N: Any = has_N, values: Any = values) -> float:
                called_N = values >= threshold
                return float(2 * (called_N & has_N).sum() / (called_N.sum() + has_N.sum()))

            assert f1(known["thresholds"][name]) == pytest.approx(max(map(f1, values)))
    result = calibrate(run, run.config())
    assert [one.recipe for one in result.further] == sorted(FURTHER)
    text = "\n".join(result.lines())
    assert "recipe mc_dropout, to be compared" in text
    assert "class" not in text


def test_uncertainty_of_the_passes_adds_up_over_labels(run: Run) -> None:
    p = stored(run, "test", "mc_dropout")
    probs_NSC = p.sample_probs()
    assert probs_NSC is not None
    found = {name: uncertainty.summed(of, p.task.choices(probs_NSC)) for name, of in uncertainty.SOURCES.items()}
    total_N = binary_entropy(probs_NSC.mean(axis=1)).sum(axis=1)
    each_N = binary_entropy(probs_NSC).mean(axis=1).sum(axis=1)
    called_NSC, passes = probs_NSC > 0.5, probs_NSC.shape[1]
    minority_NC = np.minimum(called_NSC.sum(axis=1), (~called_NSC).sum(axis=1))
    np.testing.assert_allclose(found["predictive_entropy"], total_N, atol=1e-12)
    np.testing.assert_allclose(found["expected_entropy"], each_N, atol=1e-12)
    np.testing.assert_allclose(found["mutual_information"], total_N - each_N, atol=1e-12)
    np.testing.assert_allclose(found["variance"], 2 * probs_NSC.var(axis=1).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(found["variation_ratio"], (minority_NC / passes).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(uncertainty.entropy(p.task.choices(p.probs())).sum(axis=-1), total_N, atol=1e-6)


# -- corrupted copies and other images ----------------------------------------------------------------------------------


def test_corrupted_copies_keep_the_labels_and_give_macro_auroc(folder: Run) -> None:
    run, spec = folder, folder.config()
    count = len(stored(run, "test")) - 1
    result = score(run, spec, corruptions=count)
    assert result.corrupted == count
    assert f"corrupted copies of {count} test images" in "\n".join(result.lines())
    test = stored(run, "test")
    beyond = read_ood_results(run, test)
    assert beyond is not None
    copies = beyond.corrupted
    assert copies is not None
    row = {image_id: i for i, image_id in enumerate(test.ids)}
    names = list(dict.fromkeys(image_id.split("/")[0] for image_id in copies.ids))
    assert (len(names), len(copies)) == (count, count * len(CORRUPTIONS) * len(SEVERITIES))
    originals = np.array([row[image_id.split("/")[0]] for image_id in copies.ids])
    assert (copies.labels == test.labels[originals]).all()
    answering = open_export(run, "plain", threads=1).answering
    for kind in CORRUPTIONS:
        rows = [i for i, image_id in enumerate(copies.ids) if image_id.endswith(f"/{kind}/5")]
        probs = answering.probabilities(copies.logits[rows])
        value = copies.task.measure(copies.labels[rows], probs)["macro_auroc"]
        assert value == pytest.approx(roc_auc_score(copies.labels[rows], copies.logits[rows], average="macro"))


def test_how_well_other_images_are_told_apart(folder: Run, tmp_path: Path) -> None:
    """By the score that the rule serves; against scikit-learn."""
    other, rng = tmp_path / "walls", np.random.default_rng(0)
    other.mkdir()
    for n in range(9):
        Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(other / f"{n}.png")
    run, spec = folder, folder.config()
    result = score(run, spec, ood=[other])
    assert result.ood["walls"] == 9
    p = stored(run, "test")
    beyond = read_ood_results(run, p)
    assert beyond is not None
    assert beyond.rule.limit is not None
    assert list(beyond.detectors) == ["knn"] == [beyond.rule.limit.kind]
    detector = beyond.detectors["knn"]
    known = beyond.foreignness(p)
    assert known is not None
    assert p.embedding is not None
    scores = {name: detector(pictures.logits, pictures.embedding) for name, pictures in beyond.ood.items()}
    _, sets = separation(known, scores, p.groups, threshold=beyond.rule.limit.threshold, resamples=20, level=0.95, seed=0)
    assert {"walls", "noise", "wood"} <= set(sets)
    for name, values in scores.items():
        truth = [0] * len(known) + [1] * len(values)
        assert sets[name]["auroc"].value == pytest.approx(roc_auc_score(truth, [*known, *values]))
        assert sets[name]["refused"].value == pytest.approx(float((values > beyond.rule.limit.threshold).mean()))


# -- eight bits ---------------------------------------------------------------------------------------------------------


def test_eight_bits_have_their_own_calibration_and_thresholds(folder: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits are widened: what a network of two epochs loses is not the matter here."""
    for name, limit in (("LEAST_AGREEMENT", 0.0), ("MOST_AUROC_CHANGE", 1.0), ("MOST_LOSS_CHANGE", 1.0)):
        monkeypatch.setattr(quantize_gate, name, limit)
    result = export(folder, folder.config(), precision="int8")
    full, small = Artifact.open(folder.artifact_dir, threads=1), Artifact.open(folder.precision_dir("int8"), threads=1)
    ours, theirs = small.record.calibration, full.record.calibration
    assert ours is not None
    assert theirs is not None
    assert (ours["kind"], ours["images"], ours["threshold_rule"]) == (theirs["kind"], theirs["images"], "f1")
    assert set(ours["thresholds"]) == set(LABELS)
    assert (ours["thresholds"], ours["ood"]["threshold"]) != (theirs["thresholds"], theirs["ood"]["threshold"])
    assert verify(folder.precision_dir("int8"), threads=1).passed
    text = "\n".join(result.lines())
    assert "the least stable label agrees for" in text
    assert "class" not in text
    paths = sorted(Path(str(folder.config().data.path)).glob("*.png"))[:6]
    one, other = (Predictor(root, threads=1) for root in (folder.artifact_dir, folder.precision_dir("int8")))
    for path in paths:
        a, b = one.predict(path, scores=True), other.predict(path, scores=True)
        assert max(abs(a.probabilities[name] - b.probabilities[name]) for name in LABELS) < 0.2
        assert b.positive == tuple(name for name in LABELS if b.probabilities[name] >= ours["thresholds"][name])


def test_the_gate_refuses_labels_in_their_words(folder: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_gate, "LEAST_AGREEMENT", 1.1)
    with pytest.raises(ModelError, match=r"the least stable label agrees for [\d.]+% \(at least 110%\).*nothing was written"):
        export(folder, folder.config(), precision="int8")
    assert not folder.precision_dir("int8").exists()


def test_the_gate_looks_at_what_is_called(run: Run) -> None:
    full = stored(run, "cal")
    rng = np.random.default_rng(0)
    half_N = np.arange(len(full)) % 2 == 0
    small = replace(full, logits=full.logits + rng.normal(0, 0.5, full.logits.shape).astype(np.float32))
    thresholds = np.array([0.3, 0.5, 0.4])
    gate = quantize_gate.compare_precisions(full, small, half_N, "none", np.zeros(3), thresholds)
    probs = [sigmoid(p.logits[half_N]) for p in (full, small)]
    alike_C = [np.mean((probs[0][:, c] >= t) == (probs[1][:, c] >= t)) for c, t in enumerate(thresholds)]
    assert gate.agreement == pytest.approx(min(alike_C))
    truth = full.labels[half_N]
    assert gate.macro_auroc == pytest.approx([roc_auc_score(truth, p) for p in probs])
    expected = [-np.log(np.where(truth == 1, p, 1 - p)).mean() for p in probs]
    assert gate.log_loss == pytest.approx(expected)
    assert "task" not in gate.as_dict()


# -- models and predictions from elsewhere ----------------------------------------------------------------------------------


def test_another_model_is_stored_under_the_task(folder: Run, tmp_path: Path) -> None:
    """The run's own graph, as if somebody else had made it."""
    model = tmp_path / "theirs.onnx"
    model.write_bytes((folder.artifact_dir / "model.onnx").read_bytes())
    graph = Artifact.open(folder.artifact_dir, threads=1)
    mean, std = (list(graph.preprocessing[key]) for key in ("mean", "std"))
    sets = [f"preprocess.mean={mean}", f"preprocess.std={std}"]
    result = score(folder, folder.config(), model=model, sets=sets)
    assert result.recipe == "by-theirs"
    for part in ("train", "val", "cal", "test"):
        p, own = stored(folder, part, "by-theirs"), stored(folder, part)
        assert (p.ids, p.groups, p.labels.tolist()) == (own.ids, own.groups, own.labels.tolist())
        assert (p.meta["task"], p.meta["scores"]) == ("multilabel", "logits")
        np.testing.assert_allclose(p.probs(), own.probs(), atol=1e-4)
    given = read_imported(folder.predictions_path("test", "by-theirs"), None, None, TASKS["multilabel"])
    frame, parts = read_division(folder)
    test, reference, _ = match(given, frame, parts, list(LABELS), partial=False)
    assert reference is not None
    assert test.labels.tolist() == stored(folder, "test").labels.tolist()
    assert reference.meta["set"] == "cal"
    with pytest.raises(ModelError, match="of task multilabel, and the run's is multiclass"):
        read_imported(folder.predictions_path("test", "by-theirs"), None)


def write_csv(path: Path, head: str, *rows: str) -> Path:
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_a_csv_of_probabilities_or_logits(folder: Run, tmp_path: Path) -> None:
    own, task = stored(folder, "test"), TASKS["multilabel"]
    frame, parts = read_division(folder)
    for name, values, kind in (("p", own.probs(), "probabilities"), ("z", own.logits.astype(np.float64), "logits")):
        rows = [",".join([image_id, *map(repr, row)]) for image_id, row in zip(own.ids, values.tolist(), strict=True)]
        path = write_csv(tmp_path / f"{name}.csv", "image_id,bar,disc,frame", *rows)
        given = read_imported(path, list(LABELS), None, task)
        assert given.kind == kind
        p, _, notes = match(given, frame, parts, list(LABELS), partial=False)
        assert notes == []
        assert (p.labels.tolist(), p.meta["task"]) == (own.labels.tolist(), "multilabel")
        np.testing.assert_allclose(p.probs(), own.probs(), atol=1e-6)
    lines = submission_csv(own.ids, own.probs(), own.classes).splitlines()
    assert lines[0] == "image,bar,disc,frame"
    assert [float(cell) for cell in lines[1].split(",")[1:]] == own.probs()[0].tolist()


def test_a_csv_that_stands_alone(tmp_path: Path) -> None:
    """Truth as 1, 0 or nothing beside p_NAME, or as one text."""
    task = TASKS["multilabel"]
    head = "image_id,patient_id,p_bar,p_disc,bar,disc"
    path = write_csv(tmp_path / "a.csv", head, "i1,P1,0.9,0.8,1,0", "i2,P1,0,1,,1", "i3,P2,0.2,0.1,0,")
    p, rows, notes = standing_alone(read_imported(path, None, None, task))
    assert p.labels.tolist() == [[1, 0], [-1, 1], [0, -1]]
    assert (p.classes, p.groups[0] == p.groups[1] != p.groups[2], notes, list(rows.index)) == (
        ["bar", "disc"], True, [], p.ids,
    )  # fmt: skip
    np.testing.assert_allclose(p.probs(), [[0.9, 0.8], [0, 1], [0.2, 0.1]], atol=1e-6)
    path = write_csv(tmp_path / "b.csv", "image_id,bar,disc,label", "i1,0.9,0.8,bar", "i2,0,1,?bar|disc", "i3,0.2,0.1,")
    assert standing_alone(read_imported(path, None, None, task))[0].labels.tolist() == [[1, 0], [-1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("head", "row", "said"),
    [
        ("image_id,p_bar,p_disc,bar,disc", "i1,0.9,0.8,1,2", "a: column disc holds '2'; must be 1, 0, or empty"),
        ("image_id,p_bar,p_disc,bar", "i1,0.9,0.8,1", "a: has neither a column label nor one of 1 and 0 for each of"),
        ("image_id,bar,disc,label", "i1,0.9,0.8,disk", "a: labels 'disk' .1 rows; .*disc.* have no column; the labels are"),
        ("image_id,bar,disc,label", "i1,90,80,disc", "are percentages"),
    ],
)
def test_what_is_wrong_with_a_csv(tmp_path: Path, head: str, row: str, said: str) -> None:
    with pytest.raises(DermalyzeError, match=said) as caught:
        standing_alone(read_imported(write_csv(tmp_path / "a.csv", head, row), None, None, TASKS["multilabel"]))
    assert "\n" not in str(caught.value)


def test_another_set_by_its_own_columns(run: Run, tmp_path: Path) -> None:
    """Columns of other names through the label map, some of which lead to one label; an empty cell is a missing target."""
    root = paint_set(tmp_path / "theirs", images=6, seed=5)
    ids = [f"p{n:03}" for n in range(6)]
    cells = ["1,0,0,1", "0,1,,0", "0,0,1,0", ",0,0,1", "0,0,0,0", "1,1,1,1"]
    table = write_csv(root / "set.csv", "image_id,stripe,line,disc,edge", *map(",".join, zip(ids, cells, strict=True)))
    spec, names = run.config(), {"stripe": "bar", "line": "bar", "edge": "frame"}
    external = open_external(table, spec.data, LABELS, names, spec.task)
    targets = TASKS["multilabel"].targets(external.frame["label"].tolist(), LABELS)
    assert targets.tolist() == [[1, 0, 1], [1, -1, 0], [0, 1, 0], [-1, 0, 1], [0, 0, 0], [1, 1, 1]]
    assert {row["label"]: (row["class"], row["images"]) for row in external.labels}["edge"] == ("frame", 3)
