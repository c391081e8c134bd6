"""The function behind `dermalyze predict`: a model and whatever a person names become a stream of answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dermalyze.serve.inputs import read_inputs
from dermalyze.serve.predictor import Prediction, Predictor
from dermalyze.serve.second import one_case


@dataclass(frozen=True)
class Answers:
    """Answers in the order of the images, made as they are asked for; iterate once.

    Attributes:
        classes: of the model, in its order.
        rows: an answer or an error an image.
        task: of the model, multiclass or multilabel.
    """

    classes: list[str]
    rows: Iterator[Prediction]
    task: str = "multiclass"

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
    second: str | Path | None = None,
) -> Answers:
    """Answers for files, folders, CSVs, zip archives, or `-` for standard input.

    Args:
        model: a run folder, or the folder of an artefact.
        images: what to answer for; see `dermalyze.serve.inputs.read_inputs`.
        batch_size: images in memory at a time, 1 or more.
        threads: CPU threads of one pass; default: one a core.
        prevalence: share of each class where the answers are to be used; default: as in the calibration part.
        metadata: column to value, for each image whose CSV row says nothing else; of a model that takes metadata.
        second: the second picture of the one image that is asked for, of a model of two pictures a case.

    Raises:
        UsageError: neither a run nor an artefact, a wrong batch size, shares that do not fit the classes, or metadata or a
            second picture that the model does not take.
        ModelError: the artefact is refused.

    Example:
        for answer in predict("outputs/first", ["photos", "more.zip"]):
            print(answer.error or answer.predicted_class)
    """
    predictor = Predictor(model, threads=threads, prevalence=prevalence)
    known = predictor.metadata_of(metadata or {})  # refused here, before the first image is read
    if second is None:
        rows = predictor.predict_batch(read_inputs(images), batch_size, metadata=known)
        return Answers(predictor.classes, rows, predictor.task.kind)
    predictor.require_second()
    case = one_case(list(images), second)
    return Answers(predictor.classes, predictor.predict_batch(case, batch_size, metadata=known), predictor.task.kind)
