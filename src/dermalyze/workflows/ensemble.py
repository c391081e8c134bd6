"""A deep ensemble: networks that differ in their seed, asked together. What comes of it is a run like any other.

Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474: the answer is the mean of the members' probabilities. They are
averaged as they come and the mean is calibrated, not the other way round: a mean of calibrated members is underconfident
(Rahaman & Thiery 2021, arXiv:2007.08792; Wu & Gales 2021, arXiv:2101.05397).
"""

# Shapes: N images, M members, C classes.

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.artifact.artifact import Artifact, open_export
from dermalyze.artifact.graph import GRAPH_NAME
from dermalyze.artifact.record import NOTHING_YET, RECORD_NAME, WEIGHTS_NAME, sealed
from dermalyze.config.data import PARTS
from dermalyze.config.experiment import ExperimentSpec, load_experiment
from dermalyze.core.atomic import publish, sha256_bytes, sha256_file, write_bytes, write_json
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run
from dermalyze.data.splitting import read_division
from dermalyze.errors import DataError, InterruptedRunError, ModelError, UsageError
from dermalyze.metrics.ranking import Floats
from dermalyze.scoring.predictions import Predictions, read_predictions, write_predictions
from dermalyze.stages.calibrate import calibrate
from dermalyze.stages.evaluate import EvaluateResult, evaluate
from dermalyze.stages.export import LICENCE_NOTE, graph_record
from dermalyze.stages.init import environment, freeze
from dermalyze.workflows.joined_graph import join_graphs, join_weights, joined_cam, joined_parity, joined_reference, opened
from dermalyze.workflows.pipeline import STEPS, duration, run_experiment


@dataclass(frozen=True)
class EnsembleResult:
    """An ensemble.

    Attributes:
        root: its run folder.
        members: of each: run, seed and, as they come on the test split, the metrics of `Task.compared`.
        together: those figures of the mean, as it comes.
        evaluation: of the calibrated ensemble.
    """

    root: Path
    members: list[dict[str, Any]]
    together: dict[str, float | None]
    evaluation: EvaluateResult

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "run": str(self.root),
            "members": self.members,
            "together": self.together,
            "metrics": self.evaluation.as_dict(),
        }

    def lines(self) -> list[str]:
        """Lines for a person."""
        width = max(20, *(len(name) + 2 for name in self.together))
        heading = f"{'before calibration':<28}" + "".join(f"{name.replace('_', ' '):>{width}}" for name in self.together)
        rows = [(f"{m['run']} (seed {m['seed']})", m) for m in self.members] + [("together", self.together)]
        table = [f"{name:<28}" + "".join(f"{_text(values[key]):>{width}}" for key in self.together) for name, values in rows]
        return [heading, *table, "", *self.evaluation.lines()]


def ensemble(*roots: Path | str, config: Path | None = None, members: int = 5, sets: Sequence[str] = ()) -> EnsembleResult:
    """Make one run of several, or train them first; then calibrate and evaluate it.

    The members share manifest, split, classes, preprocessing and inference recipe, which is checked by hash. The last folder
    becomes a run with their mean as its predictions, the members as its passes, and one graph that holds them all: `predict`
    answers from it as from any other.

    Args:
        roots: run folders that have been exported and scored, then the folder to make; with `config` that folder alone.
        config: an experiment's YAML file; its members are trained in `OUT/members/seed-N` and continue where they stopped.
        members: how many to train; the first has the experiment's seed, each further one the next.
        sets: with `config`, further settings.

    Raises:
        UsageError: fewer than two members, one that is not finished, or one named twice.
        DataError: members of another manifest or split.
        ModelError: members of other classes, preprocessing or recipe, or the very same one twice.
        InterruptedRunError: a signal came; the same call continues.
    """
    if not roots:
        raise UsageError("ensemble: name the runs and then the folder to make, or --config EXPERIMENT.YAML and the folder")
    *named, last = (Path(root) for root in roots)
    if config is not None:
        if named:
            raise UsageError("ensemble: --config trains its own members; name the folder to make alone")
        asked = load_experiment(config, sets)
        runs = train_members(asked, last, members)
    else:
        if sets:
            raise UsageError("ensemble: --set belongs to --config; runs that are named are taken as they are")
        if len(named) < 2:
            raise UsageError("ensemble: two or more runs are needed, and then the folder to make: ensemble RUN RUN OUT")
        if len({path.resolve() for path in (*named, last)}) < len(named) + 1:
            raise UsageError("ensemble: a folder is named twice; each member is another run, and OUT another folder")
        runs = [Run.open(path) for path in named]
    out, spec = assemble(runs, last)
    calibrate(out, spec)
    evaluation = evaluate(out, spec)
    p = read_predictions(out.predictions_path("test", spec.inference.recipe))
    assert p.samples is not None
    alone = [_figures(p, p.task.probabilities(p.samples[:, m])) for m in range(len(runs))]
    return EnsembleResult(
        out.root,
        [{"run": run.root.name, "seed": run.config().seed, **row} for run, row in zip(runs, alone, strict=True)],
        _figures(p, p.probs()),
        evaluation,
    )


# -- training the members -------------------------------------------------------------------------------------------------


def train_members(spec: ExperimentSpec, root: Path, members: int) -> list[Run]:
    """Runs of one experiment and several seeds, in `root/members`; the data is prepared and split once.

    Raises:
        UsageError: fewer than two, or a folder that was begun with other data.
        InterruptedRunError: a signal came; the same call continues.
    """
    if members < 2:
        raise UsageError(f"--members is {members}, must be 2 or more")
    runs = [Run(Run(root).member_dir(spec.seed + k)) for k in range(members)]
    left = sum(not run.describe()["train"] for run in runs)
    say(
        f"ensemble: {members} networks, {left} of them to be trained, {spec.train.epochs} epochs each; the time of the first "
        "is said when it is done"
    )
    for number, run in enumerate(runs):
        own = spec.model_copy(update={"seed": spec.seed + number})
        steps: Sequence[str] = STEPS
        if number > 0:
            freeze(run.root, own)
            copy_data(runs[0], run)
            steps = STEPS[STEPS.index("train") :]
        say(f"ensemble {number + 1}/{members}: seed {own.seed}")
        started, trained = time.monotonic(), run.describe()["train"]
        try:
            run_experiment(own, run.root, steps=steps)
        except InterruptedRunError as error:
            told = str(error).partition(";")[0]
            raise InterruptedRunError(f"{told}; the same command continues: dermalyze ensemble --config ... {root}") from error
        after = sum(not later.describe()["train"] for later in runs[number + 1 :])
        if not trained and after:
            say(f"ensemble: about {duration(after * (time.monotonic() - started))} for the other {after}")
    return runs


def copy_data(source: Run, target: Run) -> None:
    """Manifest, audit and split of one run for another.

    Raises:
        UsageError: the other has a manifest of its own already.
    """
    if target.manifest_path.exists() and target.manifest_hash() != source.manifest_hash():
        raise UsageError(f"{target.root.name}: was begun with other data than {source.root.name}; choose another folder")
    copied = [
        source.summary_path, source.labels_path, source.audit_path, source.audit_page_path, source.looks_path,
        *(source.split_path(part) for part in PARTS), source.certificate_path, source.manifest_path,
    ]  # fmt: skip
    for path in copied:
        if path.exists():
            write_bytes(target.root / path.relative_to(source.root), path.read_bytes())


# -- one run of many ------------------------------------------------------------------------------------------------------


def assemble(runs: Sequence[Run], root: Path) -> tuple[Run, ExperimentSpec]:
    """The run whose model is the mean of others: data and split copied, graph, record and predictions made.

    Raises:
        UsageError, DataError, ModelError: see `ensemble`.
    """
    specs = [run.config() for run in runs]
    recipe = specs[0].inference.recipe
    artifacts = [
        open_export(run, spec.inference.recipe, threads=spec.train.threads) for run, spec in zip(runs, specs, strict=True)
    ]
    require_alike(runs, specs, artifacts)
    spec = specs[0].model_copy(update={"name": f"{specs[0].name[:60]} ensemble of {len(runs)}"})
    out = Run.create(root, spec)
    with out.lock():
        write_json(out.environment_path, environment(spec))
        copy_data(runs[0], out)
        say(f"ensemble: {len(runs)} networks into one graph, then its numbers against theirs")
        cam = joined_cam(artifacts)
        graphs = [(run.artifact_dir / GRAPH_NAME).read_bytes() for run in runs]
        graph = join_graphs(graphs, activation=artifacts[0].answering.task.activation, cam=cam["kind"] != "none")
        parity = joined_parity(graph, artifacts, recipe)
        weights = join_weights([run.artifact_dir / WEIGHTS_NAME for run in runs])
        files = {GRAPH_NAME: graph, WEIGHTS_NAME: weights}
        hashes = {name: sha256_bytes(data) for name, data in files.items()}
        record = make_record(out, spec, artifacts, hashes, parity) | {"cam": cam, **graph_record(opened(graph, artifacts[0]))}
        record["reference"] = joined_reference(graph, artifacts[0], record)
        text = sealed(record)
        publish({**files, RECORD_NAME: text}, out.artifact_dir, check=Artifact.open)
        artifact = open_export(out, recipe)
        for part in (part for part in PARTS if out.split_path(part).exists()):
            stored = [read_member(run, part, one) for run, one in zip(runs, artifacts, strict=True)]
            write_predictions(out.predictions_path(part, recipe), together(stored, artifact))
    return out, spec


def require_alike(runs: Sequence[Run], specs: Sequence[ExperimentSpec], artifacts: Sequence[Artifact]) -> None:
    """Refuse members that were not made for the same question, or are one and the same.

    Raises:
        DataError: another manifest or split.
        ModelError: another task, other classes, preprocessing, recipe or class weights; the same weights twice.
    """
    first = runs[0].root.name
    for run in runs:
        read_division(run)  # the split files are those of the certificate
    facts: dict[str, tuple[type[DataError | ModelError], list[Any]]] = {
        "manifest": (DataError, [run.manifest_hash() for run in runs]),
        "split": (DataError, [run.certificate()["files"] for run in runs]),
        "task": (ModelError, [one.record.task for one in artifacts]),
        "classes": (ModelError, [one.classes for one in artifacts]),
        "preprocessing": (ModelError, [one.preprocessing for one in artifacts]),
        "model.metadata": (ModelError, [one.record.metadata for one in artifacts]),
        "inputs": (ModelError, [one.record.inputs for one in artifacts]),
        "inference.recipe": (ModelError, [one.recipe for one in artifacts]),
        "train.imbalance": (ModelError, [(spec.train.imbalance, spec.train.balance_sources) for spec in specs]),
    }
    for name, (kind, values) in facts.items():
        for run, value in zip(runs, values, strict=True):
            if value != values[0]:
                raise kind(f"ensemble: {run.root.name} has another {name} than {first}; members share it and differ in seed")
    known: dict[str, str] = {}
    for run, one in zip(runs, artifacts, strict=True):
        twin = known.setdefault(one.model_sha256, run.root.name)
        if twin != run.root.name:
            raise ModelError(f"ensemble: {run.root.name} and {twin} are the same network; train one with another seed")


def read_member(run: Run, part: str, artifact: Artifact) -> Predictions:
    """A member's predictions of a part, checked to be of its exported model and of this manifest.

    Raises:
        UsageError: not scored yet.
        ModelError: of another model, or of another manifest.
    """
    p = read_predictions(run.require(run.predictions_path(part, artifact.recipe), "score"))
    expected = {"scores_sha256": artifact.record.scores_sha256, "manifest_sha256": run.manifest_hash(), "set": part}
    if any(p.meta.get(key) != value for key, value in expected.items()):
        raise ModelError(
            f"{run.root.name}: the predictions of {part} are not of its exported model; run again: dermalyze score {run.root}"
        )
    return p


def together(stored: Sequence[Predictions], artifact: Artifact) -> Predictions:
    """The mean of members' predictions, with the members as its passes.

    The embedding is the first member's: the features of two networks have no common axes, so their mean is none.

    Args:
        stored: of each member, of the same images.
        artifact: of the ensemble.

    Raises:
        DataError: other images, or in another order.
    """
    first = stored[0]
    if any(p.ids != first.ids or p.groups != first.groups or p.labels.tolist() != first.labels.tolist() for p in stored):
        raise DataError(f"ensemble: the members' predictions of {first.meta['set']} are of other images; score them again")
    samples_NMC = np.stack([p.logits for p in stored], axis=1)
    meta = {
        "classes": artifact.classes,
        "set": first.meta["set"],
        "recipe": artifact.recipe,
        "task": artifact.record.task,
        "model_sha256": artifact.model_sha256,
        "scores_sha256": artifact.record.scores_sha256,
        "manifest_sha256": first.meta["manifest_sha256"],
        "accepted_leak": artifact.record.accepted_leak,
        "members": len(stored),
    }
    return Predictions(first.ids, first.groups, first.labels, first.task.pool(samples_NMC), first.embedding, meta, samples_NMC)


def make_record(
    out: Run, spec: ExperimentSpec, artifacts: Sequence[Artifact], hashes: dict[str, str], parity: dict[str, Any]
) -> dict[str, Any]:
    """The content of the ensemble's `artifact.json`."""
    records = [one.record for one in artifacts]
    leaks = dict.fromkeys(record.accepted_leak for record in records if record.accepted_leak)
    return {
        "schema_version": 2,
        "name": spec.name,
        "created_from": {
            "manifest_sha256": out.manifest_hash(),
            "config_sha256": sha256_file(out.config_path),
            "weights_sha256": hashes[WEIGHTS_NAME],
            "members": len(records),
        },
        "classes": [entry.model_dump() for entry in records[0].classes],
        "preprocessing": records[0].preprocessing,
        "model": {
            "ensemble": [{"seed": r.created_from.get("seed"), "scores_sha256": r.scores_sha256, **r.model} for r in records]
        },
        "recipe": records[0].recipe,
        "task": records[0].task,
        "metadata": records[0].metadata.model_dump() if records[0].metadata is not None else None,
        "training": {"source": spec.data.source.kind, "images": records[0].training.get("images"), "members": len(records)},
        "accepted_leak": "; ".join(leaks) or None,
        "disclaimer": DISCLAIMER,
        "licence_note": LICENCE_NOTE,
        "files": hashes,
        "parity": parity,
        **NOTHING_YET,
    }


def _figures(p: Predictions, probs_NC: Floats) -> dict[str, float | None]:
    found = p.task.measure(p.labels, probs_NC)
    return {name: found[name] for name in p.task.compared["ensemble"]}


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
