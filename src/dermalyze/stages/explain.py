"""Maps of where a network looks, graded for faithfulness, and a gallery of explained images."""

# Shapes: N images, C classes, H x W pixels.

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.artifact.artifact import open_export
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.explain import METHODS, method_spec
from dermalyze.core.atomic import write_json, write_text
from dermalyze.core.progress import progress, say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run
from dermalyze.core.runtime import applied, choose_runtime
from dermalyze.data.grouping import keys
from dermalyze.data.masks import mask_at, read_mask
from dermalyze.data.pixels import read_batches
from dermalyze.data.samples import Samples
from dermalyze.data.splitting import read_division
from dermalyze.data.store import ImageStore, ReadError
from dermalyze.errors import DataError, ModelError, UsageError, nearest
from dermalyze.explain.faithfulness import Mask
from dermalyze.explain.runner import FAST, Network, Sample, Scores, cost_s, growing_sample, measure
from dermalyze.imaging.decode import PREPARE_FORMATS, Preprocessing
from dermalyze.imaging.image import ImageError
from dermalyze.imaging.modalities import Modality, modality_of
from dermalyze.imaging.samples import IMAGE
from dermalyze.report.explain_cases import GradedNetwork, Shown, explain_case, thumbnails
from dermalyze.report.explain_grading import grade_network, rim_sentences, table_lines, trust
from dermalyze.report.explain_page import gallery
from dermalyze.report.explain_sections import choose_sections
from dermalyze.report.served_grade import grade_line, keep_grade
from dermalyze.scoring.predictions import Predictions, read_predictions

MOST_OWN = 60
"""Images that are named or lie in a folder; more make a page that no browser likes."""
LONG_S = 2.0


@dataclass(frozen=True)
class ExplainResult:
    """What was found.

    Attributes:
        values: the content of explanations.json.
        record, page: where it and the gallery are.
    """

    values: dict[str, Any]
    record: Path
    page: Path

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.values, "record": str(self.record), "page": str(self.page)}

    def lines(self) -> list[str]:
        """Lines for a person."""
        lines = [f"LEAK ACCEPTED, NOT A FAIR RESULT: {self.values['accepted_leak']}"] if self.values["accepted_leak"] else []
        lines += table_lines(self.values["networks"])
        for network in self.values["networks"]:
            alarms, tried = rim_sentences(network)
            lines += [trust(network), *alarms, tried]
        lines += [grade_line(self.values["served_grade"])] if self.values["served_grade"] else []
        return [*lines, f"{len(self.values['cases'])} explained images: {self.page}", f"numbers: {self.record}", DISCLAIMER]


def explain(
    run: Run,
    spec: ExperimentSpec,
    *,
    images: Sequence[str] = (),
    methods: Sequence[str] = (),
    compare: Sequence[Path] = (),
    count: int = 100,
    cases: int = 4,
) -> ExplainResult:
    """Draw where the network looks, say which method's maps can be trusted, and put both on a page.

    Args:
        run: trained, exported and scored.
        spec: `data`, `inference.recipe`, `evaluate` (resamples, level, seed) and `train.threads` are used.
        images: image ids of the run, image files or folders; none: the test split's mistakes, confusions, doubt, each class.
        methods: of `METHODS`, or "all"; none: those that take little time and fit the network.
        compare: further runs on the same classes and test images; their maps stand beside this run's.
        count: test images, one of each group, on which the methods are evaluated; 0: they are not.
        cases: images a section of the gallery.

    Raises:
        UsageError: an unknown method or image, a count out of range, runs that do not go together, or a step is missing.
        DataError: an image is gone or changed.
        ModelError: no checkpoint, or no method fits.
        InterruptedRunError: stopped; what was measured is kept, and the same command continues.
    """
    wanted = chosen_methods(methods)
    if count < 0 or cases < 1:
        raise UsageError(f"--count {count} --cases {cases}: count must be 0 or more (0: no grades), cases 1 or more")
    runs = [run, *(Run.open(root) for root in compare)]
    if len({one.root.name for one in runs}) < len(runs):
        raise UsageError("--compare: each run must be named once, and have a folder name of its own")
    runtime = choose_runtime(device="cpu", threads=spec.train.threads, amp=False, channels_last=False, deterministic=True)
    with run.lock(), applied(runtime):
        run.require_writable()
        networks = [Network.open(one) for one in runs]
        for network in networks[1:]:
            mine, theirs = ((one.task.kind, one.classes) for one in (networks[0], network))
            if theirs != mine:
                raise UsageError(
                    f"--compare {network.name}: has task and classes {theirs}, {run.root.name} {mine}; "
                    "compare runs of the same classes"
                )
        frame, parts = read_division(run)
        test = shared_test(runs, frame[parts == "test"])
        world = World(run, spec, frame, parts, ImageStore.open(spec.data))
        asked = world.named(images) if images else None  # refused before the work
        p = read_predictions(run.require(run.predictions_path("test", spec.inference.recipe), "score"))
        chosen = test.drop_duplicates("group")
        chosen = chosen.iloc[growing_sample(chosen["label"].astype(str).tolist(), count, spec.seed)]
        interval = {"resamples": spec.evaluate.resamples, "level": spec.evaluate.level, "seed": spec.evaluate.seed}
        verdicts, judges = [], []
        for one, network in zip(runs, networks, strict=True):
            artifact = open_export(one, one.config().inference.recipe, threads=spec.train.threads)
            if one is run and p.meta["scores_sha256"] != artifact.record.scores_sha256:
                again = f"run again: dermalyze score {run.root}"
                raise ModelError(f"{run.root.name}: the stored predictions are not of the exported model; {again}")
            if artifact.record.calibration is None:
                say(f"{one.root.name}: not calibrated; probabilities are plain until: dermalyze calibrate {one.root}")
            pixels = world.pixels(network, chosen if count else test.iloc[:1])
            first = next(iter(pixels.values()))
            beside = network.beside_of(world.store, frame)
            fit, refused = network.fitting(wanted, first, beside(str(next(iter(pixels)))))
            refused = refused if methods else {}
            if not fit:
                raise UsageError(f"--methods {' '.join(wanted)}: none fits {network.name}: {next(iter(refused.values()))}")
            verdict = None
            if count:
                verdict = measured_and_graded(run, network, world.sample(network, chosen, pixels), fit, refused, interval)
                verdicts.append(verdict)
            shown = fit if one is run else [verdict["shown"] if verdict else fit[0]]
            judges.append(GradedNetwork(network, artifact, verdict, beside, shown))
        keep = np.isin(p.ids, test["image_id"].astype(str))
        task, probs = networks[0].task, judges[0].answering.probabilities(p.logits)
        there_NC, called_NC = task.membership(p.labels, len(p.classes)), judges[0].call(probs)
        sections = (
            [
                {
                    "title": "The images asked for",
                    "says": "In the order they were named.",
                    "image_ids": [one.image_id for one in asked],
                }
            ]
            if asked is not None
            else choose_sections(
                task,
                there_NC,
                probs,
                called_NC,
                p.ids,
                p.groups,
                p.classes,
                keep,
                cases,
            )
        )
        ids = [image_id for section in sections for image_id in section["image_ids"]]
        todo = asked if asked is not None else [world.shown(image_id) for image_id in ids]
        train_path = run.predictions_path("train", spec.inference.recipe)
        train = read_predictions(train_path) if train_path.exists() else None
        values, drawings = draw(todo, judges, train, world)
        sample = {"pictures": len(chosen) if count else 0, "seed": spec.seed}
        grade = keep_grade(run, verdicts[0], networks[0].preprocessing, spec.evaluate.level) if verdicts else None
        record: dict[str, Any] = {
            "schema_version": 1,
            "title": f"{spec.name}: where the network looks",
            "subtitle": f"{', '.join(one.root.name for one in runs)}; {len(values)} images explained.",
            "runs": [one.root.name for one in runs],
            "task": task.kind,
            "recipe": spec.inference.recipe,
            "level": spec.evaluate.level,
            "accepted_leak": judges[0].artifact.record.accepted_leak,
            "sample": sample,
            "networks": verdicts,
            "served_grade": grade.model_dump() if grade is not None else None,
            "thresholds": None
            if (least := judges[0].answering.thresholds) is None
            else dict(zip(p.classes, least.tolist(), strict=True)),
            "sections": sections,
            "cases": values,
            "disclaimer": DISCLAIMER,
        }
        write_json(run.explanations_path, record)
        write_text(run.gallery_path, gallery(record, drawings))
    return ExplainResult(record, run.explanations_path, run.gallery_path)


def chosen_methods(names: Sequence[str]) -> list[str]:
    """Methods by name, each once; "all" is every one, none the fast ones.

    Raises:
        UsageError: no such method.
    """
    names = list(METHODS) if "all" in names else list(dict.fromkeys(names)) or list(FAST)
    return [method_spec(name).kind for name in names]


def shared_test(runs: Sequence[Run], test: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first run's test split that are in every run's test split.

    Raises:
        UsageError: there are none.
    """
    for other in runs[1:]:
        frame, parts = read_division(other)
        test = test[test["image_id"].isin(set(frame["image_id"][parts == "test"]))]
        if test.empty:
            raise UsageError(f"--compare {other.root.name}: no image of its test split is in that of {runs[0].root.name}")
    return test.reset_index(drop=True)


def measured_and_graded(
    run: Run, network: Network, sample: Sample, fit: list[str], refused: dict[str, str], interval: Any
) -> dict[str, Any]:
    """Measure what is not measured yet, its cost said first, and evaluate it."""
    scores = Scores.open(run.map_scores_path(network.sha256), network)
    todo = [image_id for image_id in sample.ids if scores.missing(image_id, fit)]
    if todo:
        image, predict = sample.pixels(todo[0]), network.predictor(sample.beside(todo[0]))
        predict(image[None])
        began = time.monotonic()
        predict(np.repeat(image[None], 16, axis=0))
        needed = cost_s(len(todo), fit, (time.monotonic() - began) / 16)
        say(f"explain: {network.name}: {', '.join(fit)} on {len(todo)} images, about {max(1, round(needed))} s")
    measure(network, sample, fit, scores)
    return grade_network(network.name, network.classes, sample, scores, fit, refused, **interval)


def draw(
    todo: Sequence[Shown], judges: Sequence[GradedNetwork], train: Predictions | None, world: World
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Values and drawings of the gallery's images."""
    thumbs = thumbnails(
        world.store, dict(zip(world.frame["image_id"].astype(str), world.frame["path"].astype(str), strict=True))
    )
    values, drawings = [], {}
    with progress("gallery", len(todo), "pictures", cost=True) as advance:
        for shown in todo:
            found, drawn = explain_case(shown, judges, train, thumbs)
            values.append(found)
            drawings[shown.image_id] = drawn
            advance(1)
    return values, drawings


@dataclass(frozen=True, eq=False)
class World:
    """A run's images and masks."""

    run: Run
    spec: ExperimentSpec
    frame: pd.DataFrame
    parts: pd.Series
    store: ImageStore

    def pixels(self, network: Network, rows: pd.DataFrame) -> dict[str, NDArray[np.uint8]]:
        """image_id to (H, W, 3) at a network's size."""
        found: list[NDArray[np.uint8]] = []
        samples = Samples.of(self.store, rows, network.preprocessing, (network.preprocessing.image,))
        for batch in read_batches(samples, size=self.spec.inference.batch_size, workers=self.spec.data.workers):
            found += [*batch[IMAGE]]
        return dict(zip(rows["image_id"].astype(str), found, strict=True))

    def sample(self, network: Network, rows: pd.DataFrame, pixels: dict[str, NDArray[np.uint8]]) -> Sample:
        """Images of a network, as `measure` takes them."""
        ids, groups = rows["image_id"].astype(str).tolist(), rows["group"].astype(str).tolist()
        return Sample(
            ids, groups, pixels.__getitem__, self.masks(rows, network.preprocessing), network.beside_of(self.store, self.frame)
        )

    def masks(self, rows: pd.DataFrame, preprocessing: Preprocessing) -> Callable[[str], Mask | None]:
        """image_id to the mask at a network's size, or None."""
        path_of = dict(zip(rows["image_id"].astype(str), keys(rows, "mask_path"), strict=True))

        def mask(image_id: str) -> Mask | None:
            path = path_of[image_id]
            return mask_at(read_mask(self.store, path, image_id), preprocessing) if isinstance(path, str) else None

        return mask

    def shown(self, image_id: str) -> Shown:
        """One of the run's images.

        Raises:
            DataError: it cannot be read.
        """
        row = self.frame[self.frame["image_id"].astype(str) == image_id].iloc[0]
        path = keys(self.frame.loc[[row.name]], "mask_path").iloc[0]
        scale = pd.to_numeric(row.get("mm_per_px"), errors="coerce")
        try:
            picture = modality_of(self.spec.data).read(self.store.read(str(row["path"])), formats=PREPARE_FORMATS).image
        except (ReadError, ImageError) as error:
            raise DataError(f"image {image_id}: {error}") from None
        return Shown(
            image_id, picture, read_mask(self.store, path, image_id) if isinstance(path, str) else None, str(row["label"]),
            str(row["group"]), str(self.parts.loc[row.name]), float(scale) if pd.notna(scale) and scale > 0 else None,
        )  # fmt: skip

    def named(self, words: Sequence[str]) -> list[Shown]:
        """Images by image id, file or folder. Those from elsewhere are numbered: a file's name may identify a person.

        Raises:
            UsageError: neither, or too many.
            DataError: a file that is no image, or a folder without any.
        """
        known = set(self.frame["image_id"].astype(str))
        found: list[Shown] = []
        foreign = 0
        for word in dict.fromkeys(words):
            path = Path(word)
            if word in known:
                found.append(self.shown(word))
            elif path.exists():
                files = (
                    [path]
                    if path.is_file()
                    else sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
                )
                read = [read_upright(file, modality_of(self.spec.data)) for file in files[: MOST_OWN + 1]]
                if path.is_file() and read[0] is None:
                    raise DataError("--images: the file is no image that is read; give JPEG, PNG, WebP, AVIF or BMP")
                pictures = [one for one in read if one is not None]
                if not pictures:
                    raise DataError("--images: the folder holds no image that is read; give JPEG, PNG, WebP, AVIF or BMP")
                if len(pictures) < len(read):
                    say(f"explain: {len(read) - len(pictures)} of {len(read)} files are no images and left out")
                found += [Shown(f"image {foreign + k}", one, None, None, None, None) for k, one in enumerate(pictures, start=1)]
                foreign += len(pictures)
            else:
                raise UsageError(f"--images {word}: neither an image of the run nor a file{nearest(word, sorted(known))}")
        if len(found) > MOST_OWN:
            raise UsageError(f"--images: {len(found)} images, at most {MOST_OWN} continue a page; name fewer")
        return found


def read_upright(path: Path, kind: Modality) -> Any:
    """A file's image, upright, or None where it is none."""
    try:
        return kind.read(path.read_bytes()).image
    except (DataError, OSError):
        return None
