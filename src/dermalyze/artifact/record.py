"""What `artifact.json` holds: its keys, what they may be, and the hash over all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dermalyze.artifact.cam_grade import MapGrade
from dermalyze.artifact.graph import GRAPH_NAME, REMEDY
from dermalyze.artifact.integrity import strict_json
from dermalyze.config.data import ModalityName
from dermalyze.core.atomic import json_bytes
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import IMAGE, METADATA, PRESENT, Input

RECORD_NAME, WEIGHTS_NAME = "artifact.json", "model.safetensors"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9_-]{1,16}){1,3}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ClassEntry(_Record):
    """A class of the model."""

    name: str = Field(min_length=1, max_length=200)
    description: str = Field(max_length=2000)


class Geometry(BaseModel):
    """The part of the preprocessing that the graph's input shape depends on; the rest is checked where it is used."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    height: int = Field(ge=1, le=8192)
    width: int = Field(ge=1, le=8192)
    modality: ModalityName


class MetadataRecord(_Record):
    """How rows of metadata are encoded, and the row of which nothing is known."""

    encoder: dict[str, Any]
    blank: Annotated[list[float], Field(min_length=1, max_length=10_000)]


Size = Annotated[int, Field(ge=1, le=100_000)]
InputName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class InputRecord(_Record):
    """A named input of the graph; see `dermalyze.imaging.samples.Input`."""

    name: InputName
    dtype: Literal["uint8", "uint16", "bool", "float32"]
    shape: Annotated[list[Size], Field(min_length=1, max_length=4)]
    optional: bool


class OutputRecord(_Record):
    """A named output of the graph, float32, and its shape of one sample."""

    name: Literal["logits", "embedding", "cam"]
    shape: Annotated[list[Size], Field(min_length=1, max_length=4)]


class CamRecord(_Record):
    """Whether the graph gives a class-activation map."""

    kind: Literal["closed_form", "none"]
    reason: str = Field(min_length=1, max_length=500)
    height: int = Field(ge=0, le=8192)
    width: int = Field(ge=0, le=8192)


class ReferenceRecord(_Record):
    """Synthetic images, by the seed they are made from, and the model's answers to them (`dermalyze.artifact.self_test`)."""

    seed: int = Field(ge=0)
    images: int = Field(ge=1, le=64)
    sha256: Sha256
    logits: list[list[float]]
    probabilities: list[list[float]]


NOTHING_YET: dict[str, Any] = {
    "calibration": None, "calibration_files": {}, "looks": None, "reference": None, "evaluated_answers_sha256": None,
    "evaluation_files": {}, "graded_scores_sha256": None, "cam_grade": None,
}  # fmt: skip
"""What is made from a model's scores, and beside them, as the record of a new model has it."""


class ArtifactRecord(_Record):
    """The content of `artifact.json`."""

    schema_version: Literal[2]
    name: str
    created_from: dict[str, str | int | None]
    classes: Annotated[list[ClassEntry], Field(min_length=2, max_length=10_000)]
    preprocessing: dict[str, Any]
    model: dict[str, Any]
    recipe: Literal["plain", "flips", "tta"]
    training: dict[str, Any]
    accepted_leak: str | None
    disclaimer: str
    licence_note: str
    files: dict[FileName, Sha256]
    parity: dict[str, Any]
    task: Literal["multiclass", "multilabel"]
    inputs: Annotated[list[InputRecord], Field(min_length=1, max_length=16)]
    outputs: Annotated[list[OutputRecord], Field(min_length=2, max_length=3)]
    metadata: MetadataRecord | None
    cam: CamRecord
    calibration: dict[str, Any] | None
    calibration_files: dict[Literal["ood.bin"], Sha256]
    looks: dict[str, Any] | None
    reference: ReferenceRecord | None
    evaluated_answers_sha256: Sha256 | None
    evaluation_files: dict[Literal["model_card.md", "metrics.json"], Sha256]
    graded_scores_sha256: Sha256 | None
    cam_grade: MapGrade | None

    @property
    def scores_sha256(self) -> str:
        """SHA-256 of all that the scores depend on, and so of everything but what `NOTHING_YET` names."""
        values = self.model_dump(mode="json", exclude=set(NOTHING_YET))
        return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def modality(self) -> str:
        """Kind of images that the model takes; a key of `dermalyze.imaging.modalities.MODALITIES`."""
        return str(self.preprocessing["modality"])

    @property
    def named(self) -> dict[str, str]:
        """Every file to its SHA-256."""
        more = (self.calibration_files, self.evaluation_files)
        return self.files | {str(name): sha256 for files in more for name, sha256 in files.items()}

    @property
    def answers_sha256(self) -> str:
        """SHA-256 of all that the answers depend on: the scores, and what is made of them (which names its files' hashes)."""
        values = [self.scores_sha256, self.calibration]
        return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def inputs_of(record: ArtifactRecord) -> tuple[Input, ...]:
    """The inputs that a record names."""
    return tuple(Input(one.name, one.dtype, tuple(one.shape), one.optional) for one in record.inputs)


def parse_record(text: bytes) -> ArtifactRecord:
    """Read and check the bytes of `artifact.json`.

    Raises:
        ModelError: not JSON, of another version, not whole, or see `check_record`.
    """
    values = strict_json(text, RECORD_NAME)
    if not isinstance(values, dict):
        raise ModelError(f"{RECORD_NAME}: holds a {type(values).__name__}, must be an object; {REMEDY}")
    if values.get("schema_version") == 1:
        raise ModelError(
            f"{RECORD_NAME}: the model was exported by dermalyze 0.1, this version reads format 2; train and export it again "
            "with this version, or use it with dermalyze 0.1"
        )
    try:
        whole = values.get("sha256") == content_sha256(values)
    except RecursionError:
        whole = False
    if not whole:
        raise ModelError(f"{RECORD_NAME}: its SHA-256 is not that of its content (changed or damaged); {REMEDY}")
    return check_record(values)


def check_record(values: Mapping[str, Any]) -> ArtifactRecord:
    """Check the content of `artifact.json`, sealed or not.

    Raises:
        ModelError: a key missing, unknown or of the wrong type, a path in `files`, a class or an input named twice, inputs that
            do not fit the preprocessing or the metadata.
    """
    try:
        record = ArtifactRecord.model_validate({key: value for key, value in values.items() if key != "sha256"})
        geometry = Geometry.model_validate(record.preprocessing)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()[:5])
        raise ModelError(f"{RECORD_NAME}: {problems}; {REMEDY}") from None
    if absent := {GRAPH_NAME, WEIGHTS_NAME} - record.files.keys():
        raise ModelError(f"{RECORD_NAME}: files does not name {sorted(absent)}; {REMEDY}")
    if RECORD_NAME in record.files:
        raise ModelError(f"{RECORD_NAME}: files names {RECORD_NAME} itself; {REMEDY}")
    for what, names in (("classes", [c.name for c in record.classes]), ("inputs", [i.name for i in record.inputs])):
        if len(set(names)) != len(names):
            raise ModelError(f"{RECORD_NAME}: {what} {names} name one twice; {REMEDY}")
    inputs = {one.name: one for one in inputs_of(record)}
    optional = [name for name, one in inputs.items() if one.optional]
    blank = () if record.metadata is None else (len(record.metadata.blank),)
    edges = {one.shape[:2] for one in inputs.values() if one.is_image}
    if (
        IMAGE not in inputs
        or edges != {(geometry.height, geometry.width)}
        or any(not inputs[name].is_image for name in optional)
        or getattr(inputs.get(PRESENT), "shape", ()) != ((len(optional),) if optional else ())
        or getattr(inputs.get(METADATA), "shape", ()) != blank
    ):
        raise ModelError(f"{RECORD_NAME}: its inputs {list(inputs)} do not fit its preprocessing and metadata; {REMEDY}")
    return record


def content_sha256(values: Mapping[str, Any]) -> str:
    """SHA-256 of the content of `artifact.json`, which names the hash of every other file; its own key `sha256` apart."""
    content = {key: value for key, value in values.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sealed(values: Mapping[str, Any]) -> bytes:
    """The bytes of `artifact.json`: the content and its own hash, so that no byte of an artifact can change unseen."""
    return json_bytes({**values, "sha256": content_sha256(values)})
