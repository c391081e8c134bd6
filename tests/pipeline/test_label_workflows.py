"""Workflows on runs with any number of labels per image: numbers beside an independent calculation, and what a person reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from painted_labels import LABELS, label_spec, paint_set
from scipy.stats import binom
from sklearn.metrics import f1_score, log_loss, roc_auc_score

import dermalyze
from dermalyze.audit.metadata_baseline import metadata_model
from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run, read_json
from dermalyze.data.splitting import read_division, read_part
from dermalyze.metrics.activation import sigmoid
from dermalyze.metrics.aggregation import pool
from dermalyze.metrics.bootstrap import group_index, group_weights
from dermalyze.metrics.difference import class_mix
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.tasks.base import TASKS
from dermalyze.tasks.multilabel import joined
from dermalyze.workflows.ensemble import copy_data
from dermalyze.workflows.joined_graph import mean_of_labels
from dermalyze.workflows.pipeline import STEPS, run_experiment

MULTILABEL = TASKS["multilabel"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two trainings on one split that differ in their seed."""
    root = tmp_path_factory.mktemp("labels")
    spec = label_spec(paint_set(root / "data", images=120), train={"epochs": 5})
    run_experiment(spec, root / "first")
    other = Run.create(root / "second", spec.model_copy(update={"seed": 1}))
    copy_data(Run(root / "first"), other)
    run_experiment(other.config(), other.root, steps=STEPS[STEPS.index("train") :])
    return Run.open(root / "first"), Run.open(root / "second")


def targets_of(run: Run, part: str) -> np.ndarray:
    """(N, C) of a split."""
    return MULTILABEL.targets(read_part(run, part)["label"].tolist(), LABELS)


# -- fit-check and advise --------------------------------------------------------------------------------------------------


def test_fit_check_knows_chance_and_the_constant_answer_of_labels(two: tuple[Run, Run]) -> None:
    run = two[0]
    found = dermalyze.fit_check(run, run.config()).as_dict()
    shares = targets_of(run, "val").mean(axis=0)
    numbers = found["numbers"]
    assert numbers["majority_accuracy"] == pytest.approx(np.maximum(shares, 1 - shares).mean())
    assert numbers["chance_macro_auroc"] == 0.5
    assert numbers["skill"] == pytest.approx(2 * numbers["val_macro_auroc"] - 1)
    assert numbers["uniform_guess_loss"] == pytest.approx(np.log(2))
    assert found["verdict"] in ("overfitting", "underfitting", "good fit")
    text = " ".join(found["reasons"])
    assert f"always giving the more frequent answer for each label: {numbers['majority_accuracy']:.3f}" in text
    assert "class" not in text


def test_missing_targets_are_no_answers_of_the_constant_one() -> None:
    targets = np.array([[1, 0], [1, -1], [0, -1], [-1, -1]])
    assert MULTILABEL.baseline(targets, 2).accuracy == pytest.approx((2 + 1) / 4)
    assert MULTILABEL.imbalance(targets, 2)[0] == 1.0


def test_advice_measures_imbalance_label_by_label(two: tuple[Run, Run]) -> None:
    run = two[0]
    advice = dermalyze.advise(run, run.config(), device="cpu", measure=False)
    targets = targets_of(run, "train")
    times = max((targets[:, c] == 0).sum() / (targets[:, c] == 1).sum() for c in range(len(LABELS)))
    assert f"the rarest label is absent from {times:.0f} training images for each that has it" in advice.notes
    assert advice.counts == dict(zip(LABELS, targets.sum(axis=0).tolist(), strict=True))
    asked = "none" if times < 3 else "weights"
    assert [one.train["imbalance"]["kind"] for one in advice.settings if "imbalance" in one.train] == [asked]
    assert not any("sampling" in note for note in advice.notes)
    pasted = build_experiment(yaml.safe_load(advice.yaml))
    assert pasted.task == run.config().task
    assert pasted.data.source == run.config().data.source


# -- runs compare ----------------------------------------------------------------------------------------------------------


def scored(run: Run) -> tuple[Predictions, np.ndarray, np.ndarray]:
    """Test predictions, and their probabilities and calls by the stored calibration."""
    p = read_predictions(run.predictions_path("test", "plain"))
    record = read_json(run.calibration_path("plain"))["calibration"]
    probs = MULTILABEL.calibrator(record, len(LABELS))(p.logits.astype(np.float64))
    return p, probs, probs >= [record["thresholds"][name] for name in LABELS]


def mid_p(first: int, second: int) -> float:
    """McNemar's by the binomial distribution."""
    n, k = first + second, min(first, second)
    return float(min(1.0, 2 * binom.cdf(k, n, 0.5) - binom.pmf(k, n, 0.5)))


def test_runs_are_compared_label_by_label(two: tuple[Run, Run], tmp_path: Path) -> None:
    result = dermalyze.runs("compare", [run.root for run in two], out=tmp_path / "pairs.html")
    c = result.as_dict()
    (p, probs_a, called_a), (q, probs_b, called_b) = map(scored, two)
    assert p.ids == q.ids
    targets, pair = p.labels, c["pairs"][0]
    assert c["task"] == "multilabel"
    assert c["n"] == len(p)
    for values, probs, called in ((c["values"]["first"], probs_a, called_a), (c["values"]["second"], probs_b, called_b)):
        assert values["macro_auroc"]["value"] == pytest.approx(roc_auc_score(targets, probs, average="macro"))
        assert values["micro_f1"]["value"] == pytest.approx(f1_score(targets, called, average="micro"))
        assert values["subset_accuracy"]["value"] == pytest.approx((targets == called).all(axis=1).mean())
    for k, name in enumerate(LABELS):
        a, b = (roc_auc_score(targets[:, k], probs[:, k]) for probs in (probs_a, probs_b))
        assert pair["auroc"][name]["value"] == pytest.approx(a - b)
        has = targets[:, k] == 1
        assert pair["recall"][name]["value"] == pytest.approx(called_a[has, k].mean() - called_b[has, k].mean())
        right_a, right_b = (called[:, k] == has for called in (called_a, called_b))
        only = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
        found = pair["calls"][name]
        assert (found["first"], found["second"]) == only
        assert found["mid_p"] == pytest.approx(mid_p(*only))
    whole = [(targets == called).all(axis=1) for called in (called_a, called_b)]
    assert pair["mcnemar"]["first"] == (whole[0] & ~whole[1]).sum()
    smallest = min(pair["calls"].values(), key=lambda one: one["mid_p"])
    assert smallest["mid_p_holm"] == pytest.approx(min(1.0, 3 * smallest["mid_p"]))
    text = "\n".join(result.lines()) + (tmp_path / "pairs.html").read_text().partition("<body")[2].replace("class=", "")
    for words in (
        "AUROC of each label",
        "Sensitivity of each label",
        "Answers right in every label",
        "Hamming loss",
        "macro F1",
    ):
        assert words in text
    assert "each class" not in text
    assert "malignant" not in text


def test_the_interval_of_a_difference_is_that_of_drawn_patients(two: tuple[Run, Run]) -> None:
    c = dermalyze.runs("compare", [run.root for run in two]).as_dict()
    (p, probs_a, _), (_, probs_b, _) = map(scored, two)
    index, groups = group_index(p.groups)
    drawn = []
    for weights in group_weights(index, groups, c["resamples"], c["seed"]):
        for column in weights.T:
            kept = column > 0
            areas = [
                [roc_auc_score(p.labels[kept, k], probs[kept, k], sample_weight=column[kept]) for k in range(len(LABELS))]
                for probs in (probs_a, probs_b)
                if all(0 < p.labels[kept, k].sum() < kept.sum() for k in range(len(LABELS)))
            ]
            drawn += [np.mean(areas[0]) - np.mean(areas[1])] if areas else []
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = c["pairs"][0]["metrics"]["macro_auroc"]
    if found["low"] is None:
        assert len(drawn) < 0.95 * c["resamples"] or groups < 10
    else:
        assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_labels_in_another_order_and_missing_targets_take_their_thresholds_along() -> None:
    rng = np.random.default_rng(0)
    targets, probs = rng.integers(-1, 2, (40, 3)), rng.random((40, 3))
    scores = MULTILABEL.scores(targets, probs, np.array([0.2, 0.5, 0.8]))
    turned = scores.select(np.arange(40)[::-1], np.array([2, 0, 1]))
    assert turned.right.tolist() == scores.right.tolist()[::-1]
    positive, ranked = MULTILABEL.binary(turned, np.array([True, False, False]))
    known = targets[::-1, 2] >= 0
    assert positive.tolist() == (targets[::-1][known, 2] == 1).tolist()
    assert ranked.tolist() == probs[::-1][known, 2].tolist()


def test_photographs_of_a_lesion_are_pooled_with_their_labels() -> None:
    targets = np.array([[1, 0], [1, 0], [0, 1], [1, 1]])
    probs = np.array([[0.8, 0.2], [0.4, 0.4], [0.1, 0.9], [0.2, 0.7]])
    found = pool(MULTILABEL.scores(targets, probs, np.array([0.3, 0.6])), ["a", "a", "b", "b"], ["a", "a", "b", "b"])
    assert found.disagreeing == ["b"]
    assert found.scores.targets.tolist() == [[1, 0]]
    np.testing.assert_allclose(found.scores.probs, [[0.6, 0.3]])


# -- ensemble --------------------------------------------------------------------------------------------------------------


def test_an_ensemble_answers_with_the_mean_probability_of_each_label(two: tuple[Run, Run], tmp_path: Path) -> None:
    result = dermalyze.ensemble(*(run.root for run in two), tmp_path / "both")
    out = Run.open(tmp_path / "both")
    members = [read_predictions(run.predictions_path("test", "plain")) for run in two]
    p = read_predictions(out.predictions_path("test", "plain"))
    mean = np.mean([sigmoid(one.logits.astype(np.float64)) for one in members], axis=0)
    np.testing.assert_allclose(p.probs(), mean, atol=1e-6)
    assert p.samples is not None
    np.testing.assert_array_equal(p.samples[:, 1], members[1].logits)
    assert result.together["macro_auroc"] == pytest.approx(roc_auc_score(p.labels, mean, average="macro"))
    assert result.members[0]["macro_brier"] == pytest.approx(np.square(sigmoid(members[0].logits) - p.labels).mean())
    record = read_json(out.artifact_record_path)
    assert record["task"] == "multilabel"
    assert record["parity"]["max_probability_difference"] < 1e-4
    predictor = Predictor(out.root, threads=1)
    paths = [Path(out.config().data.path) / f"{image_id}.png" for image_id in p.ids[:6]]  # type: ignore[arg-type]
    answered = [[answer.probabilities[name] for name in LABELS] for answer in predictor.predict_batch(paths, scores=True)]
    np.testing.assert_allclose(answered, predictor.answering.probabilities(p.logits[:6]), atol=1e-4)
    assert out.report_page_path.exists()
    assert "macro auroc" in result.lines()[0]


def test_the_mean_of_certain_members_stays_finite() -> None:
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    names = ["m0_logits", "m1_logits"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in names]
    graph = helper.make_graph(
        mean_of_labels(2), "mean", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(np.array([0], np.int64), "members_axis")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    members = np.array([[[300.0, -300.0, 0.5]], [[-300.0, -250.0, -0.5]]], np.float32)
    (found,) = session.run(None, dict(zip(names, members, strict=True)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(sigmoid(found), [[0.5, 0.0, 0.5]], atol=1e-6)


# -- compare ---------------------------------------------------------------------------------------------------------------


def test_a_study_ranks_variants_by_the_metrics_of_labels(two: tuple[Run, Run], tmp_path: Path) -> None:
    experiment = two[0].config().model_dump(mode="json") | {"name": "tiny"}
    experiment["train"]["epochs"] = 2
    variants = {"short": {"train.epochs": 1}, "long": None}
    study = {"name": "tiny", "experiment": experiment, "seeds": [0], "variants": variants}
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(study))
    result = dermalyze.compare(path, tmp_path / "out")
    found = result.as_dict()
    assert not found["failures"]
    assert found["tested"] == ["macro_auroc", "macro_average_precision", "log_loss"]
    values = {}
    for row in found["runs"]:
        run = Run.open(tmp_path / "out" / "runs" / row["run"])
        p, probs, _ = scored(run)
        values[row["variant"]] = roc_auc_score(p.labels, probs, average="macro")
        assert row["metrics"]["macro_auroc"]["value"] == pytest.approx(values[row["variant"]])
        assert row["metrics"]["log_loss"]["value"] == pytest.approx(log_loss(p.labels.ravel(), probs.ravel()))
    compared = found["comparisons"][0]
    row = compared["rows"][0]
    difference = values[row["variant"]] - values[compared["reference"]]
    assert row["macro_auroc"]["value"] == pytest.approx(difference)
    text = "\n".join(result.lines())
    assert "macro average precision" in text
    assert "balanced accuracy" not in text
    assert (tmp_path / "out" / "study.png").exists()


# -- leakage ---------------------------------------------------------------------------------------------------------------


def test_the_leak_bill_of_labels(two: tuple[Run, Run], tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", two[0].config())
    copy_data(two[0], run)
    result = dermalyze.leakage(run, run.config(), epochs=2)
    bill = result.bill
    subs = {kind: Run(run.leak_bill_run(kind)) for kind in ("random", "grouped")}
    counts = [{part: (c["images"], c["classes"]) for part, c in sub.certificate()["counts"].items()} for sub in subs.values()]
    assert counts[0] == counts[1], "as many images with each label in each part"
    held = {kind: read_predictions(sub.predictions_path("test", "plain")) for kind, sub in subs.items()}
    reported = bill["comparisons"][0]["metrics"]
    for side, p in zip("ab", held.values(), strict=True):
        assert reported["macro_auroc"][side]["value"] == pytest.approx(roc_auc_score(p.labels, p.probs(), average="macro"))
        assert reported["macro_f1"][side]["value"] == pytest.approx(f1_score(p.labels, p.probs() >= 0.5, average="macro"))
        assert reported["log_loss"][side]["value"] == pytest.approx(log_loss(p.labels.ravel(), p.probs().ravel()))
    frame, parts = read_division(subs["random"])
    trained = set(frame.loc[parts == "train", "group"])
    assert bill["leak"]["test_images_known"] == sum(group in trained for group in held["random"].groups)
    text = "\n".join(result.lines())
    assert "same label mix" in text
    assert "macro average precision" in text
    assert "class" not in text
    assert run.leak_bill_figure_path.exists()


def test_the_mix_of_label_combinations_is_that_of_the_others() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 2, (300, 2)), (rng.random((200, 2)) < 0.3).astype(int)
    weights = class_mix(ours, theirs)
    for combination in ([0, 0], [0, 1], [1, 0], [1, 1]):
        share = (weights * (ours == combination).all(axis=1)).sum() / weights.sum()
        assert share == pytest.approx((theirs == combination).all(axis=1).mean())


# -- controls --------------------------------------------------------------------------------------------------------------


def test_the_controls_of_labels(two: tuple[Run, Run]) -> None:
    run = two[0]
    only = ["shuffled", "metadata", "border", "shortcut", "planted"]
    result = dermalyze.controls(run, run.config(), only=only, epochs=2)
    found = result.found["controls"]
    assert list(found) == only
    manifests = {kind: Run(run.control_run(kind)) for kind in ("shuffled", "border", "planted")}
    for kind, sub in manifests.items():
        p = read_predictions(sub.predictions_path("test", "plain"))
        if kind in found and "macro_auroc" in found[kind]:
            assert found[kind]["macro_auroc"]["value"] == pytest.approx(roc_auc_score(p.labels, p.probs(), average="macro"))
            for c, name in enumerate(LABELS):
                area = roc_auc_score(p.labels[:, c], p.probs()[:, c])
                assert found[kind]["per_class"][name]["value"] == pytest.approx(area)
    own, dealt = (read_division(one)[0].set_index("image_id")["label"] for one in (run, manifests["shuffled"]))
    assert (own != dealt[own.index]).any()
    assert set(dealt) <= set(own)
    assert found["metadata"]["verdict"] == "not estimable", "ten bins of age with fewer than 20 images each"
    for name in ("shortcut", "planted"):
        assert found[name]["verdict"] in ("holds", "suspicious", "not estimable")
        assert found[name]["images"] > 0
    counts = dict(zip(LABELS, targets_of(run, "train").sum(axis=0), strict=True))
    assert found["planted"]["target"] == sorted(LABELS, key=lambda name: -counts[name])[1]
    text = "\n".join(result.lines())
    assert "class" not in text


def test_metadata_tell_a_label_that_goes_with_age() -> None:
    rng = np.random.default_rng(0)
    age, chance = rng.integers(20, 90, 300), rng.random(300) < 0.4
    texts = [joined([name for name, one in (("old", a > 55), ("toss", b)) if one]) for a, b in zip(age, chance, strict=True)]
    frame = pd.DataFrame({"label": texts, "group": [f"g{n}" for n in range(300)], "age": age.astype(float)})
    found = metadata_model(frame, MULTILABEL, ["old", "toss"])
    assert found is not None
    assert found.per_class["old"].value > 0.95  # type: ignore[operator]
    assert abs(found.per_class["toss"].value - 0.5) < 0.15  # type: ignore[operator]
