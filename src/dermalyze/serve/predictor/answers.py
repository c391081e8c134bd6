"""The function behind `dermalyze predict`: a model and whatever a person names become a stream of answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dermalyze.calibration.served_points import ServedPoint
from dermalyze.errors import UsageError
from dermalyze.serve.predictor.inputs import Item, read_file, read_inputs
from dermalyze.serve.predictor.prediction import Prediction
from dermalyze.serve.predictor.predictor import Predictor


@dataclass(frozen=True)
class Answers:
    """Answers in the order of the images, made as they are asked for; iterate once.

    Attributes:
        classes: of the model, in its order.
        rows: an answer or an error an image.
        task: of the model, multiclass or multilabel.
        points: operating points that the model is served at.
    """

    classes: list[str]
    rows: Iterator[Prediction]
    task: str = "multiclass"
    points: tuple[ServedPoint, ...] = ()

    def __iter__(self) -> Iterator[Prediction]:
        return self.rows


def predict(
    model: str | Path,
    images: Iterable[str | Path],
    *,
    batch_size: int = 32,
    threads: int | None = None,
    prevalence: Mapping[str, float] | None = None,
    metadata: Mapping[str, str | float] | None = None,
    image_2: str | Path | None = None,
    explain: str | Path | None = None,
    sensitivity: float | None = None,
    scores: bool = False,
    provider: str = "onnxruntime",
) -> Answers:
    """Answers for files, folders, CSVs, zip archives, or `-` for standard input.

    Args:
        model: a run folder, or the folder of an artifact.
        images: what to answer for; see `dermalyze.serve.predictor.inputs.read_inputs`.
        batch_size: images in memory at a time, 1 or more.
        threads: CPU threads of one pass; default: one per core.
        prevalence: share of each class where the answers are to be used; default: as in the calibration split.
        metadata: column to value, for each image whose CSV row says nothing else; of a model that takes metadata.
        image_2: the second image of the one sample that is asked for, for a model of two images.
        explain: a folder, made if need be: for each image that is answered, `NUMBER-SHA256.png` shows what spoke for the
            predicted class, and whether such maps can be trusted. The map is of the image as it stands, also where the
            recipe asks further views of it.
        sensitivity: at which of its measured operating points the model is used, such as 0.95; default: its first.
        scores: keep class and probabilities of images that are refused; they are no result, and for machines alone.
        provider: "onnxruntime", "openvino" or "auto"; see `Predictor`.

    Raises:
        UsageError: neither a run nor an artifact, a wrong batch size, shares that do not fit the classes, a sensitivity that
            was not measured, or metadata or a second image that the model does not take.
        ModelError: the artifact is refused, or has no class-activation map and `explain` is given.
        ResourceError: the folder of `explain` can't be written.

    Example:
        for answer in predict("outputs/first", ["photos", "more.zip"]):
            print(answer.error or answer.predicted_class)
    """
    predictor = Predictor(model, threads=threads, prevalence=prevalence, sensitivity=sensitivity, provider=provider)
    known = predictor.metadata_of(metadata or {})  # refused here, before the first image is read
    predictor.check_explain(explain is not None)
    items: Iterable[Any] = read_inputs(images)
    if image_2 is not None:
        predictor.require_image("image_2")
        items = one_sample(list(images), image_2)
    rows = predictor.predict_batch(items, batch_size, metadata=known, explain=explain is not None, scores=scores)
    drawn = rows if explain is None else _drawn(rows, Path(explain), predictor)
    return Answers(predictor.classes, drawn, predictor.answering.task.kind, predictor.points)


def one_sample(images: Sequence[str | Path], image_2: str | Path) -> list[dict[str, Item]]:
    """The two images of one sample, named by a person.

    Raises:
        UsageError: several images, or what may hold several: a folder, an archive, a table or standard input.
    """
    names = [*map(str, images), str(image_2)]
    several = any(name == "-" or Path(name).is_dir() or Path(name).suffix.lower() in (".csv", ".zip") for name in names)
    if several or len(names) != 2:
        raise UsageError("--image-2 goes with one image file; for more write a CSV with the columns path and image_2_path")
    return [{"image": read_file(images[0]), "image_2": read_file(image_2)}]


def _drawn(rows: Iterator[Prediction], folder: Path, predictor: Predictor) -> Iterator[Prediction]:
    """The same answers, each drawn before it is given."""
    from dermalyze.core.atomic import resource_errors, write_bytes
    from dermalyze.serve.predictor.heatmap import overlay_png

    with resource_errors("--explain"):
        folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        if row.cam is not None and row.image is not None:
            caption = f"What spoke for {row.cam_class} ({row.probabilities[row.cam_class or '']:.0%})"
            caption += "; refused, so no result" if row.verdict == "refer" else ""
            caption += "".join(f"; {one.words()}" for one in row.operating_points if one.positive)
            caption += f". Heat maps of this model: {row.cam_grade.words}." if row.cam_grade is not None else ""
            name = f"{row.index:05d}-{(row.sha256 or '')[:12]}.png"
            write_bytes(folder / name, overlay_png(row.image, row.cam, predictor.preprocessing, caption=caption))
        yield replace(row, image=None)
