"""The answer to a request in JSON: what every field of it is called, and how a prediction becomes one."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dermalyze.artifact.cam_grade import MapGrade
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
    name: str = Field(alias="class")
    description: str
    probability: float


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
    png_base64: str = Field(description="RGBA, at the picture's aspect; transparent where nothing speaks for the class.")
    name: str = Field(alias="class")
    method: str
    signed: bool
    grade: MapGrade = Field(description="How far heat maps of this model are to be trusted; the same for every picture.")


class ImageReply(BaseModel):
    """One image: an answer, or `error`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    index: int
    error: ErrorWords | None = None
    predicted_class: str | None = None
    predicted_class_description: str | None = None
    confidence: float | None = Field(None, ge=0, le=1)
    probabilities: dict[str, float] | None = None
    top: list[Ranked] | None = None
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


class ModelReply(_Reply):
    name: str
    sha256: str
    classes: list[ClassWords]
    input: InputSize
    recipe: str
    calibrated: bool
    metadata: list[MetadataColumn]
    cam: Literal["closed_form", "none"]
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
        descriptions: of the classes.
        top: how many classes are ranked.
        heatmap: fields of `Heatmap`, or None with a note why.
    """
    gate, verdict = answer.gate or UNJUDGED, answer.verdict or "accept"
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:top]
    ood = None
    if answer.ood_score is not None:
        limit = answer.ood_threshold
        ood = {"score": answer.ood_score, "threshold": limit, "ok": limit is None or answer.ood_score <= limit}
    return {
        "index": index,
        "predicted_class": answer.predicted_class,
        "predicted_class_description": answer.predicted_class_description,
        "confidence": answer.confidence,
        "probabilities": dict(answer.probabilities),
        "top": [{"class": name, "description": descriptions[name], "probability": p} for name, p in ranked],
        "calibrated": answer.calibrated,
        "prediction_set": list(answer.prediction_set) if answer.prediction_set is not None else None,
        "decision": "refer" if verdict == "refer" else answer.decision,
        "verdict": verdict,
        "reasons": list(answer.reasons),
        "abstain": verdict == "refer",
        **gate.as_dict(),
        "ood": ood,
        "heatmap": dict(heatmap) if heatmap is not None else None,
        **({"heatmap_note": heatmap_note} if heatmap_note else {}),
        "notes": list(answer.notes),
        "metadata_unknown": list(answer.metadata_unknown) if answer.metadata_unknown is not None else None,
        **({"accepted_leak": answer.accepted_leak} if answer.accepted_leak else {}),
    }


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
    calibrated = predictor.answering.calibrator.kind != "none"
    return {"name": name, "sha256": artifact.sha256, "recipe": artifact.recipe, "calibrated": calibrated}


def model_reply(name: str, predictor: Predictor) -> dict[str, Any]:
    """The model at length, for `/v1/models`."""
    artifact, columns = predictor.artifact, predictor.encoder.columns if predictor.encoder is not None else ()
    metadata = [
        {"name": column.name, "kind": "numeric", "choices": None, "range": [column.low, column.high]}
        if isinstance(column, Numeric)
        else {"name": column.name, "kind": "categorical", "choices": list(column.values), "range": None}
        for column in columns
    ]
    return {
        **model_words(name, predictor),
        "classes": [entry.model_dump() for entry in artifact.record.classes],
        "input": {"height": predictor.preprocessing.height, "width": predictor.preprocessing.width},
        "metadata": metadata,
        "cam": artifact.record.cam.kind,
        "headline": _headline(artifact.metrics),
        "disclaimer": DISCLAIMER,
        "licence_note": artifact.record.licence_note,
        "accepted_leak": artifact.record.accepted_leak,
    }


def _headline(metrics: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The first figures of the test part, with intervals, and what they were measured on."""
    if metrics is None:
        return None
    return {**{key: metrics[key] for key in ("set", "recipe", "n_images", "n_groups", "level")}, "figures": metrics["headline"]}


def reliability_reply(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The reliability diagram of the test part."""
    kept = ("confidence", "accuracy", "lower", "upper", "low", "high")
    rows = [row for row in metrics["reliability"]["bins"] if row["n"]]
    bins = [{**{key: row[key] for key in kept}, "count": row["n"]} for row in rows]
    return {"set": metrics["set"], "calibrator": metrics["reliability"]["calibrator"], "bins": bins, "disclaimer": DISCLAIMER}
