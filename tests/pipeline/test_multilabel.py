"""Images with any number of labels, the whole way: from a CSV to a report and to answers; resume; what does not go with it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painted_labels import LABELS, label_spec, paint_set
from sklearn.metrics import roc_auc_score

import dermalyze
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ConfigError, DataError, InterruptedRunError, ModelError, UsageError
from dermalyze.imaging.decode import decode, normalize, to_size
from dermalyze.metrics.activation import sigmoid
from dermalyze.scoring.predictions import read_predictions
from dermalyze.serve.predictor.answers import predict
from dermalyze.serve.predictor.output import write
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.verify import verify
from dermalyze.stages.explain import explain
from dermalyze.stages.train import train
from dermalyze.tasks.base import TASKS
from dermalyze.tasks.multilabel import joined, parted
from dermalyze.training import loop
from dermalyze.training.checkpoint import load_best
from dermalyze.training.setup import Training
from dermalyze.workflows.pipeline import STEPS, finished, run_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Weighted asymmetric loss, mixup, four views: what carries the most through the way."""
    root = tmp_path_factory.mktemp("multilabel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(root / "cache"))
        changes = {
            "loss": {"kind": "asymmetric"},
            "imbalance": {"kind": "weights"},
            "epochs": 2,
            "batch_size": 16,
            "threads": 1,
        }
        changes |= {"augment": {"policy": "none", "mixup": 0.2, "cutmix": 0.2}, "optimizer": {"lr": 0.02}}
        data = paint_set(root / "data", images=120)
        run_experiment(label_spec(data, train=changes, inference={"recipe": "flips"}), root / "run")
    return Run.open(root / "run")


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Run:
    """A copy, to be changed."""
    shutil.copytree(run.root, tmp_path / "run")
    return Run.open(tmp_path / "run")


def test_every_step_is_finished_and_names_the_task(run: Run) -> None:
    spec = run.config()
    assert all(finished(run, spec, step, redone=False) for step in STEPS)
    assert read_json(run.artifact_record_path)["task"] == "multilabel"
    history = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert {"val_macro_auroc", "val_macro_average_precision", "val_loss", "train_loss"} <= history[0].keys()
    assert read_json(run.best_record_path)["metric"] == "val_macro_auroc"


def test_the_certificate_counts_labels(run: Run) -> None:
    certificate = run.certificate()
    counted = {name: sum(part["classes"][name] for part in certificate["counts"].values()) for name in LABELS}
    assert counted == read_json(run.summary_path)["class_counts"]
    rows = list(csv.DictReader((Path(run.config().data.path) / "set.csv").open()))  # type: ignore[arg-type]
    assert counted == {name: sum(int(row[name]) for row in rows) for name in LABELS}


def test_the_metrics_are_those_of_the_stored_scores(run: Run) -> None:
    metrics, p = read_json(run.evaluation_path), read_predictions(run.predictions_path("test", "flips"))
    assert p.labels.shape == p.logits.shape
    for c, name in enumerate(LABELS):
        assert metrics["per_class"][name]["auroc"]["value"] == pytest.approx(roc_auc_score(p.labels[:, c], p.logits[:, c]))
    assert metrics["task"] == "multilabel"
    names = {path.name for path in run.report_dir.iterdir()}
    assert {"report.html", "roc_curves.png", "pr_curves.png", "per_class_metrics.png", "calibration_curves.png"} <= names
    page = run.report_page_path.read_text()
    assert f"{metrics['metrics']['macro_auroc']['value']:.3f}" in page
    assert "onfusion matrix" not in page
    assert page.count(metrics["disclaimer"]) >= 2


def test_torch_graph_store_and_answer_agree(run: Run) -> None:
    """Probabilities by four ways, to 1e-4; what is called is what reaches the threshold of the calibration."""
    p = read_predictions(run.predictions_path("test", "flips"))
    predictor = Predictor(run.root, threads=1)
    paths = [Path(run.config().data.path) / f"{image_id}.png" for image_id in p.ids[:6]]  # type: ignore[arg-type]
    answers = list(predictor.predict_batch(paths, scores=True))
    given = np.array([[answer.probabilities[name] for name in LABELS] for answer in answers])
    np.testing.assert_allclose(given, predictor.answering.calibrator(p.logits[:6].astype(np.float64)), atol=1e-4)
    pixels = np.stack([np.asarray(to_size(decode(path.read_bytes()).image, predictor.preprocessing)) for path in paths])
    model, _ = load_best(run)
    views = [pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]]
    with torch.inference_mode():
        inputs = [torch.from_numpy(normalize(np.ascontiguousarray(view), predictor.preprocessing)) for view in views]
        mean = np.mean([sigmoid(model.eval()(one).numpy()) for one in inputs], axis=0)
    np.testing.assert_allclose(sigmoid(p.logits[:6]), mean, atol=1e-4)
    kept = read_json(run.calibration_path("flips"))["calibration"]
    assert kept["kind"] in ("none", "platt")
    for answer in answers:
        assert answer.positive == tuple(name for name in LABELS if answer.probabilities[name] >= kept["thresholds"][name])
        values = answer.as_dict()
        assert "predicted_class" not in values
        assert "confidence" not in values
        assert values["thresholds"] == kept["thresholds"]
        assert "not a diagnosis" in values["disclaimer"]


def test_answers_as_text(run: Run) -> None:
    paths = sorted(Path(run.config().data.path).glob("p00?.png"))[:3]  # type: ignore[arg-type]
    answers = predict(run.root, [*paths, run.config_path], threads=1, scores=True)
    rows = list(answers)
    for form in ("table", "jsonl", "csv"):
        stream = io.StringIO()
        assert write(rows, stream, classes=answers.classes, format=form, task=answers.task) == 1, "one is no image"  # type: ignore[arg-type]
        assert "not a diagnosis" in stream.getvalue()
    table = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [row["positive"] for row in table[:3]] == ["|".join(row.positive or ()) for row in rows[:3]]
    assert "predicted_class" not in table[0]
    assert len({len(line) for line in csv.reader(io.StringIO(stream.getvalue()))}) == 1


def test_maps_are_drawn_of_labels(folder: Run) -> None:
    """From end to end: a map of each label that is called or there; what the page says is what was stored."""
    run, spec = folder, folder.config()
    found = explain(run, spec, count=8, cases=2, methods=["gradcam", "closed_form"])
    record, page = read_json(run.explanations_path), run.gallery_path.read_text()
    assert record == json.loads(json.dumps(found.values))
    assert record["served_grade"] == read_json(run.artifact_record_path)["cam_grade"]
    assert verify(run.root).passed
    calibration = read_json(run.calibration_path("flips"))["calibration"]
    assert record["thresholds"] == calibration["thresholds"]
    p, titles = read_predictions(run.predictions_path("test", "flips")), {s["title"] for s in record["sections"]}
    assert {"Largest errors", "Correct and confident, by class"} <= titles, "the fixture must have both"
    stored = TASKS["multilabel"].calibrator(calibration, len(LABELS))(p.logits.astype(np.float64))
    for case in record["cases"]:
        n = p.ids.index(case["image_id"])
        probs = dict(zip(LABELS, stored[n], strict=True))
        assert case["probabilities"] == pytest.approx(probs, abs=1e-4)
        called = {name for name in LABELS if probs[name] >= calibration["thresholds"][name]}
        there = {name for name, one in zip(LABELS, p.labels[n], strict=True) if one}
        assert (set(parted(case["called"])), set(parted(case["label"]))) == (called, there)
        assert case["right"] == (called == there)
        drawn = {
            method: [one["class"] for one in case["panels"] if one["method"] == method]
            for method in record["networks"][0]["grades"]
        }
        for names in drawn.values():
            assert sorted(names) == sorted(called | there or {max(probs, key=lambda name: probs[name])})
        text = page.partition(f'aria-label="{case["image_id"]}"')[2].partition("</section>")[0]
        assert f"{case['image_id']}: {case['label']}, predicted {case['called']}" in text
        for name, value in case["probabilities"].items():
            assert f"<span>{name}</span>" in text
            assert f"<span>{value:.3f}</span>" in text
        assert {one["label"] for one in case["similar"]} <= {
            joined(subset) for k in range(4) for subset in combinations(LABELS, k)
        }
    assert any(len(parted(case["called"])) > 1 for case in record["cases"]), "the fixture must call several labels at once"
    assert any(case["flip"] for case in record["cases"])


def test_the_report_is_whole(run: Run) -> None:
    """Model card, checklists, subgroups and selective prediction, as for one class per image."""
    m = read_json(run.evaluation_path)
    assert {path.name for path in run.report_dir.iterdir()} >= {"model_card.md", "checklists.md", "risk_coverage.png"}
    card = run.report_dir.joinpath("model_card.md").read_text()
    assert f"| macro AUROC | {m['metrics']['macro_auroc']['value']:.3f} |" in card
    assert "assigns each image to one of its classes" not in card
    p = read_predictions(run.predictions_path("test", "flips"))
    answering = p.answering(read_json(run.calibration_path("flips"))["calibration"])
    right = (answering.called(p.logits) == (p.labels == 1)).all(axis=1)
    assert m["uncertainty"]["recipes"][0]["metrics"]["accuracy"] == pytest.approx(right.mean())
    assert m["metrics"]["subset_accuracy"]["value"] == pytest.approx(right.mean())
    assert [row["asked"] for row in m["selective"]["coverages"]] == [0.95, 0.9, 0.8, 0.5]
    surest = np.maximum(answering.probabilities(p.logits), 1 - answering.probabilities(p.logits)).min(axis=1)
    kept = surest >= m["selective"]["coverages"][-1]["threshold"]
    assert m["selective"]["coverages"][-1]["accuracy"]["value"] == pytest.approx(right[kept].mean())
    ages = {one["level"]: one for one in m["subgroups"]["subgroups"] if one["column"] == "age"}
    assert sum(one["n"] for one in ages.values()) == len(p)
    assert m["decision"] is None or m["decision"]["shares"]["error_all"]["value"] == pytest.approx(1 - right.mean())
    assert read_json(run.artifact_dir / "metrics.json")["headline"][0]["name"] == "macro AUROC"


def test_another_set_with_gaps(folder: Run, tmp_path: Path) -> None:
    """External validation: other names for the labels, an unknown target, a calibrator of that set's own, a submission."""
    data, spec = paint_set(tmp_path / "other", images=160, seed=5), folder.config()
    rows = list(csv.DictReader((data / "set.csv").open()))
    for row in rows[::5]:
        row["disc"] = ""
    with (data / "gaps.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    m = dermalyze.evaluate_external(folder, spec, data / "gaps.csv", submission=tmp_path / "sub.csv").metrics
    p = read_predictions(folder.predictions_path("gaps", "flips"))
    assert m["missing_targets"] == 32 == (p.labels == -1).sum()
    there = p.labels[:, 1] >= 0
    assert m["per_class"]["disc"]["auroc"]["value"] == pytest.approx(roc_auc_score(p.labels[there, 1], p.logits[there, 1]))
    assert m["per_class"]["disc"]["brier"]["n"] == 128
    assert {one["name"] for one in m["shift"]["numbers"]} >= {*LABELS, "age"}
    assert {one["label"] for one in m["external"]["labels"]} == set(LABELS)
    assert next(csv.reader((tmp_path / "sub.csv").open())) == ["image", *LABELS]

    text = paint_set(tmp_path / "words", images=80, seed=6, columns=False)
    named = text / "set.csv"
    named.write_text(named.read_text().replace("bar", "stripe"))
    words = label_spec(text, inference={"recipe": "flips"}, data={"source": {"kind": "csv", "extension": ".png"}})
    with pytest.raises(DataError, match=r"'stripe' .* are no classes of the model"):
        dermalyze.evaluate_external(folder, words, named)
    (tmp_path / "map.yaml").write_text("stripe: bar\nframe: null\n")
    mapped = dermalyze.evaluate_external(folder, words, named, label_map=tmp_path / "map.yaml").metrics
    assert mapped["per_class"]["frame"]["support"] == 0
    assert mapped["per_class"]["frame"]["auroc"]["value"] is None
    r = dermalyze.recalibrate(folder, spec, data / "gaps.csv", 0.5).metrics["recalibration"]
    assert r["kind"] in ("none", "platt")
    assert {"log_loss", "macro_brier", "macro_ece", "hamming_loss"} <= r["methods"]["refit"].keys()


def test_the_server_answers_as_the_predictor_and_shows_the_evaluation(run: Run) -> None:
    from api import client_of, files

    from dermalyze.config.serve import ServeSpec
    from dermalyze.serve.server.service import Service

    paths = sorted(Path(run.config().data.path).glob("*.png"))[:4]  # type: ignore[arg-type]
    service = Service([run.root], ServeSpec(decoders=1, threads=1))
    try:
        client = client_of(service)
        model = client.get("/v1/models").json()["models"][0]
        results = client.post("/v1/predict", files=files(*(path.read_bytes() for path in paths))).json()["results"]
        reliability = client.get(f"/v1/models/{model['name']}/reliability").json()
    finally:
        service.close()
    predictor = Predictor(run.root, threads=1)
    for path, result in zip(paths, results, strict=True):
        expected = predictor.predict(path, scores=True)
        assert result["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
        assert (result["positive"], result["verdict"]) == (list(expected.positive or ()), expected.verdict)
    assert model["thresholds"] == read_json(run.artifact_record_path)["calibration"]["thresholds"]
    assert model["headline"]["figures"][0]["name"] == "macro AUROC"
    p = read_predictions(run.predictions_path("test", "flips"))
    assert reliability["labels"].keys() == set(p.classes)
    for c, name in enumerate(p.classes):
        bins = reliability["labels"][name]
        assert sum(row["count"] for row in bins) == (p.labels[:, c] >= 0).sum()
        assert sum(row["share"] * row["count"] for row in bins) == pytest.approx((p.labels[:, c] == 1).sum())


def test_predictions_of_others(folder: Run, tmp_path: Path) -> None:
    spec, p = folder.config(), read_predictions(folder.predictions_path("test", "flips"))
    path = tmp_path / "theirs.csv"

    def write_csv(values: Any) -> Path:
        lines = [
            ",".join([image, *map(repr, row)]) for image, row in zip(p.ids, np.asarray(values, float).tolist(), strict=True)
        ]
        path.write_text("\n".join([",".join(["image_id", *LABELS]), *lines]) + "\n")
        return path

    for values in (p.probs(), p.logits * 3):
        m = dermalyze.evaluate_predictions(folder, spec, write_csv(values)).metrics
        for c, name in enumerate(LABELS):
            assert m["per_class"][name]["auroc"]["value"] == pytest.approx(roc_auc_score(p.labels[:, c], p.logits[:, c]))
    probs = p.probs()
    expected = -np.log(np.where(p.labels == 1, probs, 1 - probs)).mean()
    m = dermalyze.evaluate_predictions(folder, spec, write_csv(probs)).metrics
    assert m["metrics"]["log_loss"]["value"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ModelError, match=r"outside 0\.\.1"):
        dermalyze.evaluate_predictions(folder, spec, write_csv(probs * 2), scores="probabilities")


def test_further_recipes_and_corrupted_copies(folder: Run) -> None:
    spec = folder.config()
    dermalyze.score(folder, spec, recipes=["plain", "tta"], corruptions=6)
    dermalyze.calibrate(folder, spec)
    m = dermalyze.evaluate(folder, spec).metrics
    assert [row["recipe"] for row in m["uncertainty"]["recipes"]] == ["flips", "plain", "tta"]
    assert "mutual_information" in m["uncertainty"]["recipes"][2]["sources"]
    assert m["corruptions"]["images"] == 6
    assert set(m["corruptions"]["clean"]) == {"accuracy", "macro_f1", "macro_ece", "referred"}


def lines_of(run: Run) -> list[dict[str, Any]]:
    """The epochs' numbers, without times."""
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "images_per_s")} for line in lines]


def test_a_resumed_training_is_the_same(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))
    spec = run.config()
    again = Run.create(tmp_path / "again", spec)
    for path in (run.manifest_path, run.summary_path, run.labels_path):
        shutil.copy(path, again.root / path.name)
    shutil.copytree(run.splits_dir, again.splits_dir)
    original = loop.step

    def stopping(training: Training, *args: Any) -> None:
        original(training, *args)
        if training.state.progress.step == 2:
            training.request.signal = "SIGTERM"

    monkeypatch.setattr(loop, "step", stopping)
    with pytest.raises(InterruptedRunError):
        train(again, spec)
    monkeypatch.setattr(loop, "step", original)
    train(again, spec)
    assert again.best_weights_path.read_bytes() == run.best_weights_path.read_bytes()
    assert lines_of(again) == lines_of(run)


def test_shares_of_classes_are_no_question_for_labels(folder: Run) -> None:
    with pytest.raises(UsageError, match="prevalence: needs class_prior, which task multilabel lacks"):
        Predictor(folder.root, prevalence=dict.fromkeys(LABELS, 1 / 3))


def test_curves_and_the_list_of_runs(folder: Run) -> None:
    assert dermalyze.plot(folder, folder.config()).path.exists()
    assert any(str(folder.root) in line for line in dermalyze.runs("list", [folder.root.parent]).lines())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"loss": {"kind": "cross_entropy"}}}, "train.loss: kind 'cross_entropy' .* allowed: focal, bce, asymmetric"),
        ({"train": {"imbalance": {"kind": "sampling"}}}, "train.imbalance: kind 'sampling' .* allowed: none, weights"),
        ({"train": {"balance_sources": True}}, "balance_sources"),
        ({"data": {"source": {"kind": "folder"}}}, "data.source.kind: folder has one class per image"),
        ({"model": {"metadata": {"columns": ["age"]}}}, "late multiplies probabilities of classes"),
        ({"inference": {"calibration": "temperature"}}, "takes auto, none or platt"),
        ({"inference": {"set_level": 0.9}}, "set_level"),
        ({"inference": {"coverage": 0.9}}, "coverage"),
        ({"inference": {"ood": "energy"}}, "takes auto, none or knn"),
        ({"evaluate": {"malignant": ["bar"]}}, "evaluate.malignant"),
        ({"evaluate": {"reader": "age"}}, "evaluate.reader"),
        ({"task": {"kind": "multilabel", "separator": ""}}, "separator"),
        ({"task": {"kind": "multilabel", "none": [" "]}}, "holds an empty text"),
        ({"task": {"kind": "multiclass"}}, "set task: {kind: multilabel}"),
    ],
)
def test_settings_that_do_not_go_with_the_task(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        label_spec(Path("data"), **changes)
    assert caught.value.exit_code == 2


def test_an_unknown_monitor_names_those_there_are(folder: Run) -> None:
    spec = folder.config()
    wrong = spec.model_copy(update={"train": spec.train.model_copy(update={"monitor": "val_balanced_accuracy"})})
    with pytest.raises(
        ConfigError, match="not one of val_loss, val_accuracy, val_macro_f1, val_macro_auroc, val_macro_average"
    ):
        train(folder, wrong)
