"""What the contract suite asks of each command: that its numbers are those of the functions of the library."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from commands import IMAGE, IMAGES, OTHER_IMAGES, Done, parse

from dermalyze.calibration.calibrators import reprior
from dermalyze.config.data import PARTS
from dermalyze.config.experiment import load_experiment
from dermalyze.core.atomic import sha256_file
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_manifest
from dermalyze.data.splitting import read_part
from dermalyze.report.training import kept_epoch
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.verify import verify

FIGURES = ("macro_auroc", "log_loss")
"""Metrics that every task has."""


def close(found: Any, expected: Any, *, atol: float = 1e-6) -> None:
    """Finite, not empty, and alike."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.size
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, atol=atol, rtol=0)


def stored(root: Path, name: str = "test-plain") -> Predictions:
    """Predictions of a run."""
    return read_predictions(root / "predictions" / f"{name}.parquet")


def probabilities(root: Path, p: Predictions) -> npt.NDArray[np.float64]:
    """(N, C) as the run's export calibrates them."""
    return Predictor(root, threads=1).answering.probabilities(p.logits)


def figures(root: Path, name: str = "test-plain", *, calibrated: bool = True) -> dict[str, float | None]:
    """Metrics of stored predictions by the function of their task."""
    p = stored(root, name)
    return p.task.measure(p.labels, probabilities(root, p) if calibrated else p.probs())


def same_figures(metrics: dict[str, Any], expected: dict[str, float | None], names: tuple[str, ...] = FIGURES) -> None:
    """Estimates with these values."""
    close([metrics[name]["value"] for name in names], [expected[name] for name in names])


def image_probabilities(root: Path, image_id: str = IMAGE) -> dict[str, float]:
    """Of one image of the run, from its stored predictions."""
    for part in PARTS:
        p = stored(root, f"{part}-plain")
        if image_id in p.ids:
            return dict(zip(p.classes, probabilities(root, p)[p.ids.index(image_id)].tolist(), strict=True))
    raise AssertionError(f"{image_id} is in no part")


def same_answer(found: dict[str, float], expected: dict[str, float], atol: float = 1e-4) -> None:
    """Probabilities of the same classes."""
    close([found[name] for name in expected], list(expected.values()), atol=atol)


def epochs(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [parse(line) for line in run.metrics_path.read_text().splitlines()]


# -- the way to the report -----------------------------------------------------------------------------------------------------


def init(done: Done) -> None:
    assert done.run.config() == load_experiment(done.inputs / "experiment.yaml")


def prepare(done: Done) -> None:
    close(done.read("run/summary.json")["images"], len(read_manifest(done.run)))


def audit(done: Done) -> None:
    close(done.read("run/audit.json")["images"], len(read_manifest(done.run)))


def split(done: Done) -> None:
    counts = done.read("run/splits/certificate.json")["counts"]
    close([counts[part]["images"] for part in PARTS], [len(read_part(done.run, part)) for part in PARTS])
    assert sum(counts[part]["images"] for part in PARTS) == IMAGES


def train(done: Done) -> None:
    best, (epoch, metric) = done.read("run/checkpoints/best.json"), kept_epoch(done.run)
    close([best["epoch"], best["value"]], [epoch, epochs(done.run)[epoch - 1][metric]])


def export(done: Done) -> None:
    close(done.read("run/export/artifact.json")["parity"]["max_probability_difference"], 0.0, atol=1e-4)
    assert verify(done.run.root, threads=1).passed


def score(done: Done) -> None:
    line = epochs(done.run)[kept_epoch(done.run)[0] - 1]
    close(line["val_macro_auroc"], figures(done.run.root, "val-plain", calibrated=False)["macro_auroc"], atol=1e-4)
    for part in PARTS:
        assert stored(done.run.root, f"{part}-plain").ids == read_part(done.run, part)["image_id"].tolist()


def calibrate(done: Done) -> None:
    calibration = done.read("run/calibration/plain.json")["calibration"]
    assert calibration == done.read("run/export/artifact.json")["calibration"]
    close(calibration["images"], len(stored(done.run.root, "cal-plain")))


def evaluate(done: Done) -> None:
    same_figures(done.read("run/report/evaluation_metrics.json")["metrics"], figures(done.run.root))


def model_card(done: Done) -> None:
    """The card in the artifact has the figure of the report."""
    value = done.read("run/report/evaluation_metrics.json")["metrics"]["macro_auroc"]["value"]
    for name in ("report", "export"):
        assert f"{value:.3f}" in (done.folder / "run" / name / "model_card.md").read_text(encoding="utf-8")
    headline = {row["name"]: row for row in done.read("run/export/metrics.json")["headline"]}
    close(next(row["value"] for name, row in headline.items() if "AUROC" in name), value)


def by_center(done: Done) -> None:
    """Change the frozen configuration: results by a column of the manifest, too."""
    values = yaml.safe_load(done.run.config_path.read_text())
    values["evaluate"]["subgroups"] = ["center"]
    done.run.config_path.write_text(yaml.safe_dump(values))


def subgroups(done: Done) -> None:
    rows = done.read("run/report/evaluation_metrics.json")["subgroups"]["subgroups"]
    found = {row["level"]: row["n"] for row in rows if row["column"] == "center"}
    counts = read_part(done.run, "test")["center"].value_counts()
    close([found[level] for level in counts.index], counts.to_numpy())


# -- what follows a report -----------------------------------------------------------------------------------------------------


def audit_labels(done: Done) -> None:
    labels = done.read("run/audit.json")["labels"]
    assert labels
    close(done.values["images"], IMAGES)


def int8(done: Done) -> None:
    assert verify(done.run.precision_dir("int8"), threads=1).passed
    image = done.inputs / "set" / f"{IMAGE}.png"
    same_answer(
        Predictor(done.run.precision_dir("int8"), threads=1).predict(image).probabilities,
        image_probabilities(done.run.root),
        0.1,
    )


def torch_export(done: Done) -> None:
    close(done.values["parity"]["max_probability_difference"], 0.0, atol=1e-4)


def recipes(done: Done) -> None:
    for recipe in ("flips", "tta", "mc_dropout"):
        p = stored(done.run.root, f"test-{recipe}")
        assert p.samples is not None
        close(p.logits, p.task.pool(p.samples))


def calibrate_recipes(done: Done) -> None:
    images = len(stored(done.run.root, "cal-plain"))
    for recipe in ("flips", "tta", "mc_dropout"):
        close(done.read(f"run/calibration/{recipe}.json")["calibration"]["images"], images)


def evaluate_recipes(done: Done) -> None:
    rows = {row["recipe"]: row for row in done.read("run/report/evaluation_metrics.json")["uncertainty"]["recipes"]}
    assert set(rows) == {"plain", "flips", "tta", "mc_dropout"}
    close(rows["plain"]["metrics"]["log_loss"], figures(done.run.root)["log_loss"])


def corruptions(done: Done) -> None:
    p = stored(done.run.root, "corrupted/test-plain")
    pictures = {name.partition("/")[0] for name in p.ids}
    close([done.values["corrupted"], len(pictures)], [4, 4])
    close(p.probs().max(), np.clip(p.probs().max(), 0, 1))


def evaluate_corruptions(done: Done) -> None:
    found = done.read("run/report/evaluation_metrics.json")["corruptions"]
    kinds = {name.split("/")[1] for name in stored(done.run.root, "corrupted/test-plain").ids}
    assert set(found["kinds"]) == kinds
    close(found["images"], 4)


def ood(done: Done) -> None:
    close(len(stored(done.run.root, "foreign/other-plain")), OTHER_IMAGES)


def other_model(done: Done) -> None:
    """The run's own graph, as if somebody else had made it."""
    close(stored(done.run.root, "test-by-model").probs(), stored(done.run.root).probs(), atol=1e-4)


def on_another_set(done: Done) -> None:
    metrics = done.read("run/report/on-set/evaluation_metrics.json")
    close(metrics["n_images"], OTHER_IMAGES)
    same_figures(metrics["metrics"], figures(done.run.root, "set-plain"))


def recalibrated(done: Done) -> None:
    found = done.read("run/report/on-set/evaluation_metrics.json")["recalibration"]
    close(found["fitted"]["images"] + found["measured"]["images"], OTHER_IMAGES)


def write_predictions_csv(done: Done) -> None:
    """The run's own probabilities as a CSV from elsewhere."""
    p = stored(done.run.root)
    rows = [[name, *row] for name, row in zip(p.ids, probabilities(done.run.root, p).tolist(), strict=True)]
    with (done.folder / "theirs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image_id", *p.classes], *rows])


def of_predictions(done: Done) -> None:
    same_figures(done.read("run/report/by-theirs/evaluation_metrics.json")["metrics"], figures(done.run.root))


def answered_report(done: Done) -> None:
    evaluate(done)
    assert yaml.safe_load((done.inputs / "report.yaml").read_text())["title"] in done.run.report_page_path.read_text()


def submission(done: Done) -> None:
    rows = list(csv.reader((done.folder / "submission.csv").open()))[1:]
    close([[float(cell) for cell in row[1:]] for row in rows], probabilities(done.run.root, stored(done.run.root)), atol=1e-4)


def linear_probe(name: str) -> Any:
    """A check of the table at report/NAME."""

    def check(done: Done) -> None:
        rows = {row["name"]: row for row in done.read(f"run/report/{name}")["models"]}
        for model, predictions in (("trained", "test-plain"), ("linear-probe", "test-by-linear-probe")):
            expected = figures(done.run.root, predictions, calibrated=False)
            same_figures(rows[model]["metrics"], expected, ("macro_auroc",))

    return check


def embeddings(done: Done) -> None:
    close(done.values["points"], len(stored(done.run.root)))
    close(done.values["kept"], np.clip(done.values["kept"], 0, 1))


def similar(done: Done) -> None:
    """Distances are cosines of the stored features."""
    features = {name: row for part in PARTS for name, row in _features(stored(done.run.root, f"{part}-plain"))}
    neighbors = done.values["neighbours"]
    assert len(neighbors) == 3
    expected = [1 - features[IMAGE] @ features[row["image_id"]] for row in neighbors]
    close([row["distance"] for row in neighbors], expected, atol=1e-4)


def _features(p: Predictions) -> Any:
    assert p.embedding is not None
    return zip(p.ids, p.embedding / np.linalg.norm(p.embedding, axis=1, keepdims=True), strict=True)


def explain(done: Done) -> None:
    found = done.read("run/explain/explanations.json")
    close(found["sample"]["pictures"], 4)
    assert found["cases"]
    for case in found["cases"]:
        same_answer(case["probabilities"], image_probabilities(done.run.root, case["image_id"]))


def write_weights(done: Done) -> None:
    """A backbone of random weights with its sidecar, as a file from elsewhere."""
    import torch
    from safetensors.torch import save_file

    from dermalyze.config.model import ModelSpec
    from dermalyze.models.backbones import create_backbone

    torch.manual_seed(0)
    path, kwargs = done.folder / "tiny.safetensors", {"channels": [4, 8]}
    spec = ModelSpec(backbone="tiny_cnn", kwargs=kwargs)
    save_file(create_backbone(spec, load_weights=False).net.state_dict(), path)
    sidecar = {
        "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size,
        "create_name": "tiny_cnn", "create_kwargs": kwargs, "feature_dim": 8, "input_size": [3, 24, 24],
        "mean": [0.5] * 3, "std": [0.25] * 3,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(sidecar))


def embed(done: Done) -> None:
    from dermalyze.scoring.features.store import read_stored

    ids, values, _ = read_stored(done.run.features_path("tiny_cnn"))
    assert sorted(ids) == sorted(read_manifest(done.run)["image_id"])
    close([done.values["images"], done.values["width"]], values.shape)
    assert np.isfinite(values).all()


# -- answers -------------------------------------------------------------------------------------------------------------------


def predict(done: Done) -> None:
    same_answer(done.values["probabilities"], image_probabilities(done.run.root))


def predict_csv(done: Done) -> None:
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert len(rows) == IMAGES
    for row in rows[:5]:
        expected = image_probabilities(done.run.root, Path(row["file"]).stem)
        same_answer({name: float(row[f"p_{name}"]) for name in expected}, expected)


def write_prevalence(done: Done) -> None:
    """Other shares of the classes."""
    classes = stored(done.run.root).classes
    shares = dict(zip(classes, np.linspace(1, 2, len(classes)) / np.linspace(1, 2, len(classes)).sum(), strict=True))
    (done.folder / "shares.yaml").write_text(yaml.safe_dump({name: float(share) for name, share in shares.items()}))


def predict_elsewhere(done: Done) -> None:
    own = image_probabilities(done.run.root)
    known = done.read("run/calibration/plain.json")["calibration"]["shares"]
    wanted = yaml.safe_load((done.folder / "shares.yaml").read_text())
    order = list(own)
    probs_1C = np.array([[own[name] for name in order]])
    expected = reprior(probs_1C, *(np.array([shares[name] for name in order]) for shares in (known, wanted)))
    same_answer(done.values["probabilities"], dict(zip(order, expected[0].tolist(), strict=True)))


def served(done: Done) -> None:
    same_answer(done.values["results"][0]["probabilities"], image_probabilities(done.run.root))


def verified(done: Done) -> None:
    assert done.values["passed"]
    assert done.values["sha256"] == sha256_file(done.run.artifact_record_path)


# -- several runs --------------------------------------------------------------------------------------------------------------


def whole_run(done: Done) -> None:
    metrics = done.read("second/report/evaluation_metrics.json")["metrics"]
    same_figures(metrics, figures(done.folder / "second"))


def ensemble(done: Done) -> None:
    runs = [stored(done.folder / name) for name in ("run", "second", "both")]
    logits = runs[2].task.pool(np.stack([p.logits for p in runs[:2]], axis=1))
    close(runs[2].task.probabilities(runs[2].logits), runs[2].task.probabilities(logits), atol=1e-4)
    same_figures(done.read("both/report/evaluation_metrics.json")["metrics"], figures(done.folder / "both"))


def runs_compared(done: Done) -> None:
    for name in ("run", "second"):
        same_figures(done.values["values"][name], figures(done.folder / name))


def runs_listed(done: Done) -> None:
    rows = done.values["runs"]
    assert len(rows) == 2
    for row in rows:
        same_figures(row["test"], figures(Path(row["run"])), ("macro_auroc",))


def run_shown(done: Done) -> None:
    same_figures(done.values["test"], figures(done.run.root), ("macro_auroc",))


def runs_differ(done: Done) -> None:
    found = [one["value"] for one in done.values["results"]["macro_auroc"]]
    close(found, [figures(done.folder / name)["macro_auroc"] for name in ("run", "second")])


def tagged(done: Done) -> None:
    assert "baseline" in done.run.tags_path.read_text()


def cleaned(done: Done) -> None:
    gone = {name: size for name, (size, _) in done.before.items() if name not in done.after}
    close(done.values["bytes"], sum(gone.values()))
    assert verify(done.run.root, threads=1).passed


def study(done: Done) -> None:
    rows = done.read("study/study.json")["runs"]
    assert [row["variant"] for row in rows] == ["first", "second"]
    for row in rows:
        same_figures(row["metrics"], figures(done.folder / "study" / "runs" / row["run"]))


def leakage(done: Done) -> None:
    found = next(iter(done.folder.glob("run/report/leak*.json")))
    bill = parse(found.read_text())["comparisons"][0]["metrics"]["macro_auroc"]
    runs = {path.name: path for path in done.folder.glob("run/leak*/*")}
    expected = [figures(runs[name])["macro_auroc"] for name in ("random", "grouped")]
    close([bill[side]["value"] for side in "ab"], expected)


def controls(done: Done) -> None:
    found = done.read("run/report/controls.json")["controls"]
    for name in ("shuffled", "border"):
        expected = figures(done.run.root / "controls" / name, calibrated=False)
        same_figures(found[name], expected, ("macro_auroc",))


# -- training, and what it would cost ------------------------------------------------------------------------------------------


def plot(done: Done) -> None:
    close([done.values["epochs"], done.values["kept_epoch"]], [len(epochs(done.run)), kept_epoch(done.run)[0]])


def fit_check(done: Done) -> None:
    numbers = done.values["numbers"]
    line = epochs(done.run)[kept_epoch(done.run)[0] - 1]
    close([numbers["train_loss"], numbers["val_loss"]], [line["train_loss"], line["val_loss"]])


def bench(done: Done) -> None:
    values = done.values
    close(values["training_s"], values["epoch_s"] * done.run.config().train.epochs)
    assert min(values["images_per_s"], values["loading_images_per_s"], values["step_ms"]) > 0


def advise(done: Done) -> None:
    close(done.values["situation"]["images"], len(read_manifest(done.run)))
    assert done.values["candidates"]
