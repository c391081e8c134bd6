"""What needs the model: logits and embedding of every image of every split, by the graph that is served, and of
out-of-distribution and corrupted images.

Further recipes may be stored beside the served one, to be compared with it. Among them is mc_dropout, which needs the
checkpoint itself: the exported graph has no dropout.
"""

# Shapes: B images, H height, W width, N rows, S passes, C classes, D width of the embedding.

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.artifact.artifact import Artifact, open_export
from dermalyze.calibration.recipes import RECIPES
from dermalyze.calibration.recipes import passes as run_passes
from dermalyze.config.data import PARTS, PreprocessSpec
from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.data.pixels import Source
from dermalyze.data.splitting import read_part
from dermalyze.errors import ModelError, UsageError, nearest
from dermalyze.imaging.decode import Preprocessing, normalize
from dermalyze.imaging.samples import Batch, size_of, with_images
from dermalyze.scoring.predict_extra import check_ood_names, read_done, score_corrupted, score_ood_images, score_synthetic
from dermalyze.scoring.predictions import Predictions, write_predictions
from dermalyze.scoring.third_party import ThirdPartyModel, open_graph, score_third_party
from dermalyze.tasks.base import TASKS

MC_DROPOUT, MC_PASSES = "mc_dropout", 20

Answer = Callable[[Batch, list[str]], tuple[NDArray[np.float32], NDArray[np.float32] | None]]
"""A batch and the ids of its samples to logits (B, S, C) of each pass and an embedding (B, D), or None."""


@dataclass(frozen=True)
class ScoreResult:
    """What was stored.

    Attributes:
        recipe: the inference recipe.
        images: images of each part.
        skipped: parts whose predictions were there already, from the same model and manifest.
        seconds: time spent on the others.
        ood: images of each out-of-distribution set.
        corrupted: images of the test split of which corrupted copies were scored.
        further: of the recipes stored beside it.
    """

    recipe: str
    images: dict[str, int]
    skipped: list[str]
    seconds: float
    ood: dict[str, int] = field(default_factory=dict)
    corrupted: int = 0
    further: tuple[ScoreResult, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.__dict__, "further": [result.as_dict() for result in self.further]}

    def lines(self) -> list[str]:
        """Lines for a person."""
        counts = ", ".join(f"{part} {n}" + (" (kept)" if part in self.skipped else "") for part, n in self.images.items())
        more = "; out-of-distribution images: " + ", ".join(f"{name} {n}" for name, n in self.ood.items()) if self.ood else ""
        more += f"; corrupted copies of {self.corrupted} test images" if self.corrupted else ""
        own = f"predictions by recipe {self.recipe}: {counts}{more}; {self.seconds:.1f} s"
        return [own, *(line for result in self.further for line in result.lines())]


def score(
    run: Run,
    spec: ExperimentSpec,
    *,
    recipes: Sequence[str] | None = None,
    passes: int = MC_PASSES,
    ood: Sequence[Path] = (),
    corruptions: int = 0,
    model: Path | None = None,
    sets: Sequence[str] = (),
) -> ScoreResult:
    """Run the artifact over every part of the split; a part that is done for this model and manifest is left as it is.

    A few synthetic out-of-distribution images (`dermalyze.scoring.ood_images.SYNTHETIC`) are always among them: from these
    `calibrate` chooses what refuses such images.

    With `model`, run somebody else's classifier instead, one plain pass; `evaluate(predictions=...)` evaluates what it gives.

    Args:
        run: exported.
        spec: its `inference.recipe` is always stored.
        recipes: further ones, keys of `RECIPES` or mc_dropout, stored for every part but train: what calibrates and what is
            evaluated. `calibrate` fits each its own calibrator, and `evaluate` compares them.
        passes: of mc_dropout.
        ood: out-of-distribution images: folders, or MedMNIST files; each becomes a set of its own in the report.
        corruptions: test images of which every corruption in every severity is scored (`dermalyze.imaging.corruptions`), a
            seeded sample; 0: none.
        model, sets: see `dermalyze.scoring.third_party.score_third_party`.

    Raises:
        UsageError: no export or no split yet, options that a run of another task does not take, an unknown recipe, fewer than 2
            passes, another process works in the run, two out-of-distribution sets of one name, or it is unknown how an image
            is put into a third-party model.
        ConfigError: mc_dropout of a network without dropout.
        DataError: an image or the manifest changed since it was prepared; an out-of-distribution set without a readable image.
        ModelError: the artifact is refused, is older than the checkpoint, or gives NaN.
    """
    if sets and model is None:
        raise UsageError("--set belongs to: dermalyze score RUN --model FILE; a run's own model is made as it was trained")
    if model is not None and (recipes or ood or corruptions):
        raise UsageError("--model goes alone: a third-party model is asked once, plainly, for the images of the parts")
    check_ood_names(ood)
    served, size = spec.inference.recipe, spec.inference.batch_size
    further = [name for name in dict.fromkeys(recipes or ()) if name != served]
    check_recipes(further, passes)
    with run.lock():
        run.require_writable()
        if model is not None:
            started = time.monotonic()
            name, counts = score_third_party(
                run, model, third_party_input(run, spec, sets), opener(model),
                task=TASKS[spec.task.kind], data=spec.data, train=spec.train, size=size,
            )  # fmt: skip
            return ScoreResult(name, counts, [], time.monotonic() - started)
        artifact = open_export(run, served, threads=spec.train.threads)
        frames: dict[str, pd.DataFrame] = {part: read_part(run, part) for part in PARTS if run.split_path(part).exists()}
        held_out = {part: frame for part, frame in frames.items() if part != "train"}
        source = Source.of_artifact(run, spec.data, spec.train, artifact, size=size)
        answers = {name: answer_by(run, spec, artifact, name, passes) for name in (served, *further)}
        results = [
            store_recipe(run, source, artifact, name, answer, frames if name == served else held_out, passes)
            for name, answer in answers.items()
        ]
        meta = scores_meta(run, artifact, served)
        counts = {"synthetic": score_synthetic(run, artifact, meta, seed=spec.seed, size=size)}
        counts |= score_ood_images(run, artifact, ood, meta, seed=spec.seed, size=size)
        if corruptions:
            corruptions = score_corrupted(run, artifact, source, frames["test"], corruptions, meta, seed=spec.seed)
        return replace(results[0], ood=counts, corrupted=corruptions, further=tuple(results[1:]))


def third_party_input(run: Run, spec: ExperimentSpec, sets: Sequence[str]) -> PreprocessSpec:
    """How images are put into somebody else's model: as the run's, where `sets` says nothing else.

    Raises:
        UsageError: a setting that is not of the preprocessing.
        ConfigError: a setting that is none.
    """
    if strange := [text for text in sets if not text.startswith("preprocess.")]:
        raise UsageError(f"--set {strange[0]}: only preprocess.size, kind, crop_ratio, mean and std say how an image is put in")
    return build_experiment(spec.model_dump(mode="json"), run.root.name, sets).preprocess


def opener(model: Path) -> Callable[..., ThirdPartyModel]:
    """What opens somebody else's model."""
    if model.suffix.lower() != ".safetensors":
        return open_graph
    from dermalyze.scoring.third_party_torch import TimmClassifier  # torch: for these alone

    return TimmClassifier


def check_recipes(names: Sequence[str], passes: int) -> None:
    """Refuse what is no recipe.

    Raises:
        UsageError: with those there are.
    """
    known = [*RECIPES, MC_DROPOUT]
    for name in names:
        if name not in known:
            raise UsageError(f"--recipes {name}: not one of {', '.join(known)}{nearest(name, known)}")
    if passes < 2:
        raise UsageError(f"--passes is {passes}, must be 2 or more: the passes are compared with each other")


def answer_by(run: Run, spec: ExperimentSpec, artifact: Artifact, recipe: str, passes: int) -> Answer:
    """How a recipe answers: through the graph, or for mc_dropout through the best checkpoint in PyTorch.

    Raises:
        ConfigError: mc_dropout of a network without dropout.
        ModelError: the checkpoint is gone, as in an ensemble, or damaged.
    """
    if recipe != MC_DROPOUT:
        return lambda batch, ids: run_passes(recipe, artifact.run, batch)
    import torch  # for this recipe alone

    from dermalyze.core.runtime import applied, choose_runtime
    from dermalyze.models.mc_dropout import DropoutSampler
    from dermalyze.training.checkpoint import load_best
    from dermalyze.training.transfer import Plan

    if not run.best_record_path.exists():
        raise ModelError(f"{run.root.name}: mc_dropout needs the checkpoint, and this run has none; use plain, flips or tta")
    preprocessing = Preprocessing.from_dict(artifact.preprocessing)
    model = load_best(run)[0]
    Plan(model, spec.train.strategy, epochs=spec.train.epochs)  # what it keeps frozen did not draw in training
    sampler = DropoutSampler(model, seed=spec.seed, passes=passes)
    runtime = choose_runtime(device="cpu", threads=spec.train.threads, amp=False, channels_last=False, deterministic=True)

    def sample(batch: Batch, ids: list[str]) -> tuple[NDArray[np.float32], None]:
        with applied(runtime):
            inputs = with_images(batch, lambda images: normalize(images, preprocessing))
            return sampler({name: torch.from_numpy(values) for name, values in inputs.items()}, ids), None

    return sample


def scores_meta(run: Run, artifact: Artifact, recipe: str) -> dict[str, Any]:
    """What stored scores are of."""
    return {
        "classes": artifact.classes,
        "recipe": recipe,
        "task": artifact.record.task,
        "model_sha256": artifact.model_sha256,
        "scores_sha256": artifact.record.scores_sha256,
        "manifest_sha256": run.manifest_hash(),
        "accepted_leak": artifact.record.accepted_leak,
    }


def store_recipe(
    run: Run,
    source: Source,
    artifact: Artifact,
    recipe: str,
    answer: Answer,
    frames: dict[str, pd.DataFrame],
    passes: int,
) -> ScoreResult:
    """Predictions of some parts by one recipe.

    Args:
        source: of the images.
        answer: see `answer_by`.
        frames: rows of each part.
        passes: of mc_dropout.
    """
    meta = {**scores_meta(run, artifact, recipe), **({"passes": passes} if recipe == MC_DROPOUT else {})}
    todo = {p: frame for p, frame in frames.items() if not is_done(run, frame, {**meta, "set": p})}
    total = sum(map(len, todo.values()))
    started = time.monotonic()
    if todo:
        say(f"score: {total} images by recipe {recipe}")
        with progress(f"score ({recipe})", total) as advance:
            for part, frame in todo.items():
                stored = run_part(answer, frame, source.batches(frame), {**meta, "set": part}, total, advance)
                write_predictions(run.predictions_path(part, recipe), stored)
                total = 0  # the cost is said once
    images = {str(part): len(frame) for part, frame in frames.items()}
    return ScoreResult(recipe, images, [p for p in images if p not in todo], time.monotonic() - started)


def run_part(
    answer: Answer,
    frame: pd.DataFrame,
    batches: Iterable[Batch],
    meta: dict[str, Any],
    total: int,
    advance: Callable[[int], None],
) -> Predictions:
    """One part's predictions.

    Args:
        answer: the model by a recipe.
        frame: N rows with image_id, group and label.
        batches: their inputs, in order.
        meta: with `classes`, `recipe` and `set`.
        total: images of all parts, to say what that costs after the first batch; 0: say nothing.
        advance: is told how many images are done.
    """
    task = TASKS[meta["task"]]
    ids = frame["image_id"].astype(str).tolist()
    samples: list[NDArray[np.float32]] = []
    embeddings: list[NDArray[np.float32]] = []
    done = 0
    for batch in batches:
        begun = time.monotonic()
        samples_BSC, embedding_BD = answer(batch, ids[done : done + size_of(batch)])
        if total and not samples:
            say(f"score: about {(time.monotonic() - begun) / size_of(batch) * total:.0f} s for the model")
        samples.append(samples_BSC)
        embeddings += [] if embedding_BD is None else [embedding_BD]
        done += size_of(batch)
        advance(size_of(batch))
    samples_NSC = np.concatenate(samples)
    return Predictions(
        ids=ids,
        groups=frame["group"].astype(str).tolist(),
        labels=task.targets(frame["label"].tolist(), meta["classes"]),
        logits=task.pool(samples_NSC),
        embedding=np.concatenate(embeddings) if embeddings else None,
        meta=meta,
        samples=samples_NSC if samples_NSC.shape[1] > 1 else None,
    )


def is_done(run: Run, frame: pd.DataFrame, meta: dict[str, Any]) -> bool:
    """Whether the part's file is there, undamaged, and of this model, manifest, recipe and these images."""
    known = read_done(run.predictions_path(meta["set"], meta["recipe"]))
    same = known is not None and all(known.meta.get(key) == value for key, value in meta.items())
    return same and known is not None and known.ids == frame["image_id"].astype(str).tolist()
