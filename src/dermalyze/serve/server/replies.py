"""The answer to a request in JSON: what every field of it is called, and how a prediction becomes one."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dermalyze.artifact.cam_grade import MapGrade
from dermalyze.calibration.served_points import ServedPoint
from dermalyze.core.result import DISCLAIMER
from dermalyze.imaging.tabular import Numeric
from dermalyze.serve.predictor.gate import UNJUDGED
from dermalyze.serve.predictor.prediction import Prediction
from dermalyze.serve.predictor.predictor import Predictor

Verdict = Literal["accept", "caution", "refer"]


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ErrorWords(_Reply):
    code: str = Field(description="What kind of refusal it is; the set of codes is fixed.")
    message: str = Field(description="What is wrong, in one line.")
    remedy: str = Field(description="What to do about it.")


class ErrorReply(_Reply):
    error: ErrorWords


class ModelWords(_Reply):
    name: str
    sha256: str = Field(description="SHA-256 of the artifact's record: the identity of the whole model.")
    recipe: str
    calibrated: bool


class Ranked(_Reply):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    name: str = Field(alias="class", description="Of a class or label.")
    description: str
    probability: float
    threshold: float | None = Field(None, description="Of task multilabel: from which probability on the label is called.")
    positive: bool | None = Field(None, description="Of task multilabel: whether the probability reaches the threshold.")


class ShareWords(_Reply):
    """A share on the test split with its interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int = Field(description="Images.")
    groups: int = Field(description="Independent groups of them, such as lesions or patients.")


class PointWords(_Reply):
    """A yes-or-no question about an image: do these classes together reach the threshold?"""

    name: str
    title: str
    classes: list[str]
    threshold: float | None = Field(description="Least summed probability that means yes; null: see note.")
    target: float = Field(description="Sensitivity that the threshold was chosen for on the calibration split.")
    sensitivity: ShareWords | None = Field(description="Measured on the test split; null: not measured.")
    specificity: ShareWords | None
    note: str


class PointAnswer(PointWords):
    probability: float = Field(description="Summed over the classes.")
    positive: bool | None = Field(description="Whether it reaches the threshold: have the image looked at.")


class CheckWords(_Reply):
    name: str
    value: float
    limit: float
    ok: bool
    words: str


class Quality(_Reply):
    verdict: Verdict
    checks: list[CheckWords]


class Modality(_Reply):
    verdict: Verdict
    score: float | None
    words: str


class Ood(_Reply):
    score: float
    threshold: float | None
    ok: bool


class Heatmap(_Reply):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    png_base64: str = Field(description="RGBA, at the image's aspect; transparent where nothing speaks for the class.")
    name: str = Field(alias="class")
    method: str
    signed: bool
    grade: MapGrade = Field(description="How far heat maps of this model are to be trusted; the same for every image.")


class ImageReply(BaseModel):
    """One image: an answer, or `error`. Task `multiclass` answers with `predicted_class` and `confidence`, task `multilabel`
    with `positive` and `thresholds`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    index: int
    error: ErrorWords | None = None
    flagged: list[str] | None = Field(
        None, description="Operating points that the image reaches: have it looked at. An empty list rules nothing out."
    )
    operating_points: list[PointAnswer] | None = None
    withheld: bool | None = Field(
        None, description="The image is refused, so that class, probabilities and operating points are null; see `scores`."
    )
    predicted_class: str | None = None
    predicted_class_description: str | None = None
    confidence: float | None = Field(None, ge=0, le=1)
    positive: list[str] | None = Field(
        None, description="Labels whose probability reaches their threshold. An empty list rules nothing out."
    )
    thresholds: dict[str, float] | None = Field(None, description="Of each label: from which probability on it is called.")
    probabilities: dict[str, float] | None = Field(
        None, description="Of each class, summing to 1; or of each label separately, which need not sum to 1."
    )
    top: list[Ranked] | None = Field(
        None, description="Classes, the most probable first; or labels, those that reach their threshold first."
    )
    top_predictions: list[Ranked] | None = Field(None, description="The same as `top`.")
    calibrated: bool | None = None
    prediction_set: list[str] | None = None
    decision: Literal["answer", "set", "refer"] | None = None
    verdict: Verdict | None = None
    reasons: list[str] | None = None
    abstain: bool | None = None
    quality: Quality | None = None
    modality: Modality | None = None
    ood: Ood | None = None
    heatmap: Heatmap | None = None
    heatmap_note: str | None = None
    notes: list[str] | None = None
    metadata_unknown: list[str] | None = None
    accepted_leak: str | None = None


class PredictReply(_Reply):
    model: ModelWords
    results: list[ImageReply]
    disclaimer: str


class MetadataColumn(_Reply):
    name: str
    kind: Literal["numeric", "categorical"]
    choices: list[str] | None
    range: list[float] | None


class ClassWords(_Reply):
    name: str
    description: str


class InputSize(_Reply):
    height: int
    width: int


class SubjectWords(_Reply):
    subject: str
    subjects: str
    background: str


class ModelModality(_Reply):
    name: str = Field(description="As in data.modality.")
    title: str
    words: SubjectWords = Field(description="What an image of this kind shows, one and several, and what is around it.")


class ModelReply(_Reply):
    name: str
    sha256: str
    task: Literal["multiclass", "multilabel"] = Field(description="One class per image, or any number of labels.")
    classes: list[ClassWords] = Field(description="The classes or labels, in the model's order.")
    thresholds: dict[str, float] | None = Field(description="Of task multilabel: from which probability on each is called.")
    input: InputSize
    optional_images: list[str] = Field(description="Further images of a sample that may be sent beside `file`.")
    modality: ModelModality = Field(description="Kind of images that the model takes.")
    recipe: str
    calibrated: bool
    metadata: list[MetadataColumn]
    cam: Literal["closed_form", "none"]
    cam_grade: MapGrade | None = Field(description="How far its heat maps are to be trusted; null: not measured.")
    operating_points: list[PointWords] = Field(description="Yes-or-no questions that are asked of every image.")
    headline: dict[str, Any] | None
    disclaimer: str
    licence_note: str
    accepted_leak: str | None


class ModelsReply(_Reply):
    models: list[ModelReply]


class Health(_Reply):
    live: bool | None = None
    ready: bool | None = None


def image_reply(
    answer: Prediction,
    index: int,
    *,
    descriptions: Mapping[str, str],
    top: int,
    heatmap: Mapping[str, Any] | None,
    heatmap_note: str | None,
) -> dict[str, Any]:
    """One image's answer.

    Args:
        answer: of the model.
        index: of the image in the request.
        descriptions: of the classes or labels.
        top: how many of them are ranked.
        heatmap: fields of `Heatmap`, or None with a note why.
    """
    gate, verdict = answer.gate or UNJUDGED, answer.verdict or "accept"
    ood = None
    if answer.ood_score is not None:
        limit = answer.ood_threshold
        ood = {"score": answer.ood_score, "threshold": limit, "ok": limit is None or answer.ood_score <= limit}
    first = None if answer.withheld else _ranked(answer, descriptions)[:top]
    return {
        "index": index,
        "flagged": None if answer.withheld else list(answer.flagged),
        "operating_points": None if answer.withheld else [one.as_dict() for one in answer.operating_points],
        "withheld": answer.withheld,
        **_called(answer),
        "probabilities": None if answer.withheld else dict(answer.probabilities),
        "top": first,
        "top_predictions": first,
        "calibrated": answer.calibrated,
        "prediction_set": list(answer.prediction_set) if answer.prediction_set is not None else None,
        "decision": answer.decision,
        "verdict": verdict,
        "reasons": list(answer.reasons),
        "abstain": answer.abstain,
        **gate.as_dict(),
        "ood": ood,
        "heatmap": dict(heatmap) if heatmap is not None else None,
        **({"heatmap_note": heatmap_note} if heatmap_note else {}),
        "notes": list(answer.notes),
        "metadata_unknown": list(answer.metadata_unknown) if answer.metadata_unknown is not None else None,
        **({"accepted_leak": answer.accepted_leak} if answer.accepted_leak else {}),
    }


def _called(answer: Prediction) -> dict[str, Any]:
    """The fields that say what is there, named as in `Prediction.as_dict`."""
    if answer.thresholds is not None:
        called = None if answer.positive is None else list(answer.positive)
        return {"positive": called, "thresholds": dict(answer.thresholds)}
    return {
        "predicted_class": answer.predicted_class,
        "predicted_class_description": answer.predicted_class_description,
        "confidence": answer.confidence,
    }


def _ranked(answer: Prediction, descriptions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Fields of `Ranked`: classes, the most probable first; of labels those first that reach their threshold."""
    called, thresholds = answer.positive or (), answer.thresholds or {}
    rows: list[dict[str, Any]] = [
        {"class": name, "description": descriptions[name], "probability": p} for name, p in answer.ranked()
    ]
    if answer.positive is None:
        return rows
    return [{**row, "threshold": thresholds[row["class"]], "positive": row["class"] in called} for row in rows]


def heatmap_reply(png: bytes, of_class: str, grade: MapGrade) -> dict[str, Any]:
    """A heat map's fields.

    >>> from dermalyze.artifact.cam_grade import UNGRADED
    >>> heatmap_reply(b"x", "mel", UNGRADED)["grade"]["verdict"]
    'not graded'
    """
    words = {"class": of_class, "method": "class-activation map", "signed": False, "grade": grade.model_dump()}
    return {"png_base64": base64.b64encode(png).decode(), **words}


def model_words(name: str, predictor: Predictor) -> dict[str, Any]:
    """The model that answered, in short."""
    artifact = predictor.artifact
    return {"name": name, "sha256": artifact.sha256, "recipe": artifact.recipe, "calibrated": artifact.calibrated}


def model_reply(name: str, predictor: Predictor) -> dict[str, Any]:
    """The model at length, for `/v1/models`."""
    artifact, columns = predictor.artifact, predictor.encoder.columns if predictor.encoder is not None else ()
    answering, kind = predictor.answering, predictor.modality
    thresholds = (
        None if answering.thresholds is None else dict(zip(answering.classes, answering.thresholds.tolist(), strict=True))
    )
    metadata = [
        {"name": column.name, "kind": "numeric", "choices": None, "range": [column.low, column.high]}
        if isinstance(column, Numeric)
        else {"name": column.name, "kind": "categorical", "choices": list(column.values), "range": None}
        for column in columns
    ]
    return {
        **model_words(name, predictor),
        "task": answering.task.kind,
        "classes": [entry.model_dump() for entry in artifact.record.classes],
        "thresholds": thresholds,
        "optional_images": predictor.optional_images,
        "input": {"height": predictor.preprocessing.height, "width": predictor.preprocessing.width},
        "modality": {"name": kind.name, "title": kind.title, "words": asdict(kind.words)},
        "metadata": metadata,
        "cam": artifact.record.cam.kind,
        "cam_grade": artifact.record.cam_grade and artifact.record.cam_grade.model_dump(),
        "operating_points": [point_words(point, artifact.descriptions) for point in predictor.points],
        "headline": _headline(artifact.metrics),
        "disclaimer": DISCLAIMER,
        "licence_note": artifact.record.licence_note,
        "accepted_leak": artifact.record.accepted_leak,
    }


def point_words(point: ServedPoint, descriptions: Mapping[str, str]) -> dict[str, Any]:
    """Fields of `PointWords`."""
    return {**point.model_dump(mode="json"), "title": descriptions.get(point.name, point.name)}


def _headline(metrics: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The first figures of the test split, with intervals, and what they were measured on."""
    if metrics is None:
        return None
    return {**{key: metrics[key] for key in ("set", "recipe", "n_images", "n_groups", "level")}, "figures": metrics["headline"]}


def reliability_reply(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The reliability diagram of the test split: `bins`, or `labels` with the bins of each label.

    >>> bins = [{"n": 9, "groups": 9, "probability": 0.2, "share": 0.1, "low": 0.0, "high": 0.4}]
    >>> metrics = {"set": "test", "reliability": {"calibrator": "platt", "bins": {"disc": bins}}}
    >>> reliability_reply(metrics)["labels"]["disc"][0]["count"]
    9
    """
    known = metrics["reliability"]["bins"]
    shown = (
        {"labels": {name: _bins(rows) for name, rows in known.items()}} if isinstance(known, dict) else {"bins": _bins(known)}
    )
    return {"set": metrics["set"], "calibrator": metrics["reliability"]["calibrator"], **shown, "disclaimer": DISCLAIMER}


def _bins(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    kept = ("confidence", "accuracy", "probability", "share", "lower", "upper", "low", "high")
    return [{**{key: row[key] for key in kept if key in row}, "count": row["n"]} for row in rows if row["n"]]
