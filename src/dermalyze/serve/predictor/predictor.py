"""Answers for images: the ONNX graph of an artifact behind one class. Loads neither torch, timm nor pandas."""

# Shapes: B samples, C classes, M encoded metadata.

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.record import RECORD_NAME
from dermalyze.calibration.calibrators import reprior
from dermalyze.calibration.decision_rule import Rule
from dermalyze.calibration.ood import Detector
from dermalyze.calibration.prevalence import class_shares
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.calibration.served_points import served_points
from dermalyze.core.atomic import sha256_bytes
from dermalyze.errors import DataError, UsageError, nearest
from dermalyze.imaging.decode import Preprocessing
from dermalyze.imaging.modalities import modality
from dermalyze.imaging.samples import IMAGE, METADATA, Array, Batch, as_batch, sample_of, stack
from dermalyze.imaging.tabular import Encoder, Numeric, Value, as_number, is_missing
from dermalyze.serve.predictor.gate import check_image, of_model
from dermalyze.serve.predictor.inputs import Item, read_file
from dermalyze.serve.predictor.interpreter import Interpreter
from dermalyze.serve.predictor.prediction import Prediction
from dermalyze.serve.predictor.preparing import Prepared, png_bytes, prepare, prepare_pixels, rgb_array

if TYPE_CHECKING:
    from PIL.Image import Image

DECODERS = 2  # threads; Pillow lets go of Python's lock while it decodes


class Predictor:
    """A model ready to answer.

    Args:
        model: a run folder, or the folder of an artifact.
        threads: CPU threads of one pass; None: one per core.
        prevalence: share of each class where the answers are to be used, summing to 1; None: as in the calibration split.
        sensitivity: at which of its measured operating points the model is served, such as 0.95; None: the first.
        provider: what computes the network: "onnxruntime", "openvino", or "auto", which measures both here, for a second or
            two; see `dermalyze.serve.predictor.provider`.

    Raises:
        UsageError: neither a run nor an artifact; shares that do not name each class or do not sum to 1; no such provider; no
            operating point that was measured for this sensitivity.
        ModelError: the artifact is refused; see `Artifact.open`.
        MissingExtraError: OpenVINO is asked for and not installed.

    Example:
        result = Predictor("outputs/my_run").predict("image.jpg")
        print(result["predicted_class"], result["confidence"])
    """

    def __init__(
        self,
        model: str | Path,
        *,
        threads: int | None = None,
        prevalence: Mapping[str, float] | None = None,
        sensitivity: float | None = None,
        provider: str = "onnxruntime",
    ) -> None:
        folder = _artifact_folder(Path(model))
        self.artifact = Artifact.open(folder, threads=threads)
        self.provider = "onnxruntime"
        if provider != "onnxruntime":
            from dermalyze.serve.predictor.provider import choose_provider  # here, not above: most answers need none of it

            self.provider = choose_provider(self.artifact, folder, provider, threads)
        self.preprocessing = Preprocessing.from_dict(self.artifact.preprocessing)
        self.modality = modality(self.preprocessing.modality)
        metadata = self.artifact.record.metadata
        self.encoder = Encoder.from_record(metadata.model_dump()) if metadata is not None else None
        known = self.artifact.record.calibration
        self.answering = self.artifact.answering
        if prevalence is not None:
            self.answering.task.require("class_prior", what="prevalence")
        self.shares = None if prevalence is None else class_shares(prevalence, known, self.classes)
        self.rule = Rule.from_dict(known, self.classes)
        self.likeness = of_model(self.artifact.record.looks, self.artifact.record.training, self.modality)
        self.detector = _detector(self.artifact) if self.rule.limit is not None else None
        self.points = served_points(known, self.artifact.metrics, self.classes, sensitivity)
        self.interpreter = Interpreter(self.artifact, self.rule, self.encoder, self.points)
        if self.shares is not None and (self.rule.sets is not None or self.rule.referral is not None):
            raise UsageError(
                "prevalence: the sets and the threshold of this model belong to its calibration split; calibrate without them"
            )

    @property
    def classes(self) -> list[str]:
        """Class names, in the model's order."""
        return self.artifact.classes

    @property
    def explains(self) -> bool:
        """Whether answers can come with a class-activation map."""
        return self.artifact.graph.cam_shape is not None

    def probabilities(self, batch: Batch | Array) -> NDArray[np.float64]:
        """Class probabilities (B, C) of a batch at the network's size, by the artifact's recipe and calibrator.

        Args:
            batch: inputs by name, as `dermalyze.imaging.samples` has them; what is not in it is missing. Images alone may come
                as an array.
        """
        return self._compute(as_batch(batch))[0]

    def _compute(
        self, batch: Batch, explain: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float32] | None, NDArray[np.float64]]:
        """Class probabilities (B, C), out-of-distribution scores (B,) where the model has them, maps (B, C, h, w) where
        they are asked for: of a recipe's first view, which is the image itself; and summed probabilities (B, Q) at the
        operating points, at the class shares of the calibration split, for which their thresholds hold."""
        maps: list[NDArray[np.float32]] = []

        def first_with_map(view: Batch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            if maps:
                return self.artifact.run(view)
            logits_BC, embedding_BD, cam_BChw = self.artifact.cam(view)
            maps.append(cam_BChw)
            return logits_BC, embedding_BD

        forward = first_with_map if explain else self.artifact.run
        logits_BC, embedding_BD = apply_recipe(self.artifact.recipe, forward, batch, self.answering.task.pool)
        probs_BC = self.answering.probabilities(logits_BC)
        foreign_B = self.detector(logits_BC, embedding_BD) if self.detector is not None else None
        asked = [point.scores(probs_BC, self.classes) for point in self.points]
        asked_BQ = np.stack(asked, axis=1) if asked else np.zeros((len(probs_BC), 0))
        probs_BC = probs_BC if self.shares is None else reprior(probs_BC, *self.shares)
        return probs_BC, foreign_B, maps[0] if maps else None, asked_BQ

    def predict(
        self,
        image: str | Path | bytes | Image | NDArray[np.uint8],
        *,
        image_2: str | Path | bytes | Image | NDArray[np.uint8] | None = None,
        metadata: Mapping[str, Value] | None = None,
        explain: bool | str = False,
        scores: bool = False,
    ) -> Prediction:
        """The answer for one image.

        Args:
            image: a file's path; its bytes; a Pillow image; or RGB pixels (H, W, 3), or gray ones (H, W), uint8.
            image_2: the sample's second image, for a model of two; without it the answer has a note.
            metadata: column to value, of a model that takes them.
            explain: give `cam`, of the class or label that is named, else of the predicted class, or the most probable label
                of those that are called.
            scores: keep class and probabilities of an image that is refused; they are no result.

        Raises:
            DataError: not an image that is read; the message says why.
            UsageError: a second image or metadata that the model does not take, or a class that it does not have.
            ModelError: `explain` of a model without a class-activation map (see `explains`).
        """
        asked = image if image_2 is None else {IMAGE: image, "image_2": image_2}
        answer = next(self.predict_batch([asked], metadata=metadata, explain=explain, scores=scores))
        if answer.error is not None:
            raise DataError(f"image: {answer.error}")
        return answer

    def predict_batch(
        self,
        images: Iterable[Any],
        batch_size: int = 32,
        *,
        metadata: Mapping[str, Value] | None = None,
        explain: bool | str = False,
        scores: bool = False,
    ) -> Iterator[Prediction]:
        """Answers in order, as they are ready; a bad image gets an answer with `error` and the rest continue.

        Args:
            images: as for `predict`, items of `read_inputs`, or mappings from the names of a sample's images to these; taken as
                they are needed, so it may be endless.
            batch_size: images in memory at a time.
            metadata: column to value, for every image; where an item of `read_inputs` has a value of its own, that counts.
            explain, scores: see `predict`.

        Raises:
            UsageError: batch_size below 1, metadata or an image that the model does not take, a mapping without `image`, or a
                class that the model does not have.
            ModelError: the model itself fails, or has no class-activation map and one is asked for.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, must be 1 or more")
        self.check_explain(explain)
        given = self.metadata_of(metadata or {})
        numbered = enumerate(images)
        with ThreadPoolExecutor(DECODERS) as pool:
            while chunk := list(itertools.islice(numbered, batch_size)):
                known = [{**given, **self._columns(image)} for _, image in chunk]
                prepared = list(pool.map(functools.partial(self._prepare, keep=bool(explain)), chunk))
                answers = self.answer(prepared, known, explain)
                yield from answers if scores else (answer.without_scores() for answer in answers)

    @property
    def optional_images(self) -> list[str]:
        """Names of the images that a sample may have beside the first."""
        return [one.name for one in self.artifact.inputs if one.optional]

    def begin(self, prepared: Mapping[str, Prepared], **known: Any) -> tuple[Prediction, Batch]:
        """An answer that is still to be filled in, with what the gate found on the first image and what was done to all, and
        the sample at the network's size.

        Args:
            prepared: the sample's images by name; at least `image`.
        """
        first, p = prepared[IMAGE], self.preprocessing
        found = check_image(
            first.looks, first.width, first.height, network=(p.width, p.height), likeness=self.likeness, kind=self.modality
        )
        notes = [f"{name}: {note}" for name, one in prepared.items() if name != IMAGE for note in one.notes]
        notes += [no_image(name) for name in self.optional_images if name not in prepared]
        sample = sample_of({name: one.pixels for name, one in prepared.items()}, self.artifact.inputs)
        return Prediction(**known, notes=(*first.notes, *notes), gate=found, image=first.image), sample

    def require_image(self, name: str) -> None:
        """Refuse a further image for a model that does not take it.

        Raises:
            UsageError: with the remedy.
        """
        if name not in self.optional_images:
            takes = ", ".join([IMAGE, *self.optional_images]) if self.optional_images else "one image per sample"
            raise UsageError(f"{name}: this model takes {takes}; leave it out")

    def check_explain(self, explain: bool | str) -> None:
        """Refuse an explanation that can't be given.

        Raises:
            UsageError: a class that the model does not have.
            ModelError: the model has no class-activation map; with the reason.
        """
        if explain:
            self.artifact.require_cam()
        if isinstance(explain, str) and explain not in self.classes:
            raise UsageError(
                f"explain: no class '{explain}'{nearest(explain, self.classes)}; the model has {', '.join(self.classes)}"
            )

    def metadata_of(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Metadata for every image, by the names of the model's columns.

        Raises:
            UsageError: the model takes none, has no such column, or takes a number there.
        """
        if given and self.encoder is None:
            raise UsageError("metadata: this model was trained on images alone and takes none; leave them out")
        columns = {column.name.lower(): column for column in self.encoder.columns} if self.encoder is not None else {}
        known: dict[str, Value] = {}
        for name, value in given.items():
            column = columns.get(name.strip().lower())
            if column is None:
                allowed = [column.name for column in columns.values()]
                raise UsageError(f"metadata: the model has no '{name}'{nearest(name, allowed)}; it takes {', '.join(allowed)}")
            if isinstance(column, Numeric) and not is_missing(value) and as_number(value) is None:
                raise UsageError(f"metadata: {column.name} is '{value}', must be a number; leave it out where it is not known")
            known[column.name] = value
        return known

    def _columns(self, given: Any) -> dict[str, Value]:
        """Of an image's row in a CSV what the model takes and the row knows."""
        image = given.get(IMAGE) if isinstance(given, Mapping) else given
        if self.encoder is None or not isinstance(image, Item):
            return {}
        row = {name.strip().lower(): value for name, value in image.columns.items() if not is_missing(value)}
        return {name: row[name.lower()] for name in self.encoder.names if name.lower() in row}

    def answer(
        self,
        prepared: list[tuple[Prediction, Batch | None]],
        known: list[dict[str, Value]],
        explain: bool | str = False,
    ) -> Iterator[Prediction]:
        """Answers for samples that are prepared: blanks to be filled in with their inputs, or finished errors with None.

        Args:
            prepared: one per sample, as `begin` gives it.
            known: metadata of each, by the names of the model's columns.
            explain: whether each has its map, or the class that the maps are of.
        """
        samples = [sample for _, sample in prepared if sample is not None]
        if not samples:
            yield from (blank for blank, _ in prepared)
            return
        known = [row for row, (_, sample) in zip(known, prepared, strict=True) if sample is not None]
        numbers = self._compute({**stack(samples), **self._encoded(known)}, bool(explain))
        blanks = [blank for blank, sample in prepared if sample is not None]
        answers = self.interpreter(blanks, known, *numbers, shown=explain if isinstance(explain, str) else None)
        for blank, sample in prepared:
            yield blank if sample is None else next(answers)

    def _encoded(self, known: list[dict[str, Value]]) -> dict[str, Array]:
        """`metadata` (B, M); nothing for a model that takes none."""
        if self.encoder is None:
            return {}
        return {METADATA: self.encoder({name: [row.get(name) for row in known] for name in self.encoder.names})}

    def _prepare(self, numbered: tuple[int, Any], keep: bool = False) -> tuple[Prediction, Batch | None]:
        """An answer still to be filled in and the sample, or a finished error and None."""
        index, given = numbered
        known: dict[str, Any] = {"index": index, "sha256": None, "accepted_leak": self.artifact.record.accepted_leak}
        images = self._images_of(given)
        first = images.pop(IMAGE)
        if isinstance(first, Item):
            known |= {"file": first.name, "image_id": first.image_id}
            images |= {name: read() for name, read in first.images.items() if name in self.optional_images}
        try:
            content = _content(first)
            known["sha256"] = sha256_bytes(content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes())
            prepared = {IMAGE: self._prepared(content, keep)}
            for name, image in images.items():
                try:
                    prepared[name] = self._prepared(_content(image))
                except DataError as error:
                    raise DataError(f"{name}: {error}") from None
            return self.begin(prepared, **known)
        except DataError as error:
            return Prediction(**known, error=str(error)), None

    def _images_of(self, given: Any) -> dict[str, Any]:
        """The images of what was given for one sample, by name.

        Raises:
            UsageError: a mapping without the first image, or with one that the model does not take.
        """
        if not isinstance(given, Mapping):
            return {IMAGE: given}
        if IMAGE not in given:
            raise UsageError(f"a sample has {', '.join(map(str, given)) or 'no image'}, must have '{IMAGE}'")
        for name in given.keys() - {IMAGE}:
            self.require_image(name)
        return dict(given)

    def _prepared(self, content: bytes | NDArray[np.uint8], keep: bool = False) -> Prepared:
        """An image at the network's size, and what was measured on it.

        Raises:
            DataError: it is no image that is read, or too small.
        """
        if isinstance(content, bytes):
            return prepare(content, self.preprocessing, keep=keep)
        return prepare_pixels(rgb_array(content), self.preprocessing, keep=keep)


def no_image(name: str) -> str:
    """The note of an answer without an optional image."""
    return f"no {name}: answered without it"


def _content(image: Any) -> bytes | NDArray[np.uint8]:
    """The bytes of a file, or the pixels, of an image as a person gave it.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(image, str | Path):
        image = read_file(image)
    if isinstance(image, Item):
        if image.data is None:
            raise DataError(str(image.error))
        return image.data
    return image if isinstance(image, bytes | np.ndarray) else png_bytes(image)


def _detector(artifact: Artifact) -> Detector:
    """The out-of-distribution score of an artifact's calibration.

    Raises:
        ModelError: its arrays are not those that the calibration describes, or do not fit the model.
    """
    known = (artifact.record.calibration or {})["ood"]
    return Detector.from_bytes(
        known["kind"], known.get("shapes"), artifact.ood, classes=len(artifact.classes), width=artifact.graph.embedding_width
    )


def _artifact_folder(model: Path) -> Path:
    if (model / RECORD_NAME).exists():
        return model
    from dermalyze.core.run import Run  # here, not above: an artifact alone doesn't need it

    run = Run(model)
    if not run.config_path.exists():
        raise UsageError(f"{model.name}: neither a run (config.yaml) nor an artifact ({RECORD_NAME}); give one of them")
    return run.require(run.artifact_dir, "export")
