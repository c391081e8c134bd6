"""The artefact: one folder that holds a whole model, opened with suspicion. Needs onnxruntime and numpy, never torch."""

# Shapes: B images, H height, W width, C classes, D width of the embedding, M encoded metadata.

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dermalyze.core.errors import ModelError, ResourceError
from dermalyze.core.onnx_session import brief, open_session
from dermalyze.core.second import PLANES, packed, unpacked

RECORD_NAME, GRAPH_NAME, WEIGHTS_NAME = "artefact.json", "model.onnx", "model.safetensors"
OOD_NAME = "ood.bin"
"""Arrays of the calibration's out-of-distribution score; shapes stand in `calibration`."""
MAX_GRAPH_BYTES = 2**31 - 1  # a protobuf message cannot be larger
MAX_RECORD_BYTES = 16 * 2**20
MAX_OOD_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 100_000_000  # of safetensors
_REMEDY = "export the model again, or fetch the artefact again from where it came"

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


class MetadataRecord(_Record):
    """The second input of a model that takes metadata: how rows are encoded, and the row of which nothing is known."""

    encoder: dict[str, Any]
    blank: Annotated[list[float], Field(min_length=1, max_length=10_000)]


class SecondRecord(_Record):
    """The inputs of a model of two pictures a case: the second one, and whether there is one."""

    images: Literal["images2"] = "images2"
    known: Literal["has_second"] = "has_second"


class ArtefactRecord(_Record):
    """The content of `artefact.json`."""

    schema_version: Literal[1]
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
    task: Literal["multiclass", "multilabel"] = "multiclass"
    metadata: MetadataRecord | None = None
    second: SecondRecord | None = None
    calibration: dict[str, Any] | None = None
    calibration_files: dict[Literal["ood.bin"], Sha256] = {}

    @property
    def scores_sha256(self) -> str:
        """SHA-256 of all that the scores depend on, and so of everything but the calibration that is made from them."""
        without = {
            "calibration",
            "calibration_files",
            *(["metadata"] if self.metadata is None else []),
            *(["second"] if self.second is None else []),
            *(["task"] if self.task == "multiclass" else []),
        }  # older records lack them
        values = self.model_dump(mode="json", exclude=without)
        return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Graph:
    """An ONNX graph that takes images (B, H, W, 3) uint8 and gives logits (B, C) and an embedding (B, D), float32.

    One that was trained with metadata also takes these, encoded, (B, M) float32. One that was trained on two pictures a case
    also takes the second, `images2`, as the first, and `has_second` (B,) bool; what stands there in `images2` where it is
    false counts nothing.

    Args:
        data: the bytes of a self-contained ONNX file.
        classes: C.
        height: H, px.
        width: W, px.
        metadata_width: M; 0: the graph takes none.
        second: whether it takes second pictures.
        threads: CPU threads of one pass; None: one a core.

    Raises:
        ModelError: not ONNX, external data, an unknown operator, other inputs or outputs, 2 GiB or more.
    """

    def __init__(
        self,
        data: bytes,
        *,
        classes: int,
        height: int,
        width: int,
        metadata_width: int = 0,
        second: bool = False,
        threads: int | None = None,
    ) -> None:
        self._session = open_session(data, GRAPH_NAME, threads=threads, remedy=_REMEDY)
        self._shape = (height, width, PLANES if second else 3)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = {f"input {i.name}": (i.type, i.shape[1:]) for i in inputs}
        found |= {f"output {o.name}": (o.type, o.shape[1:]) for o in outputs}
        width_D = next((o.shape[-1] for o in outputs if o.name == "embedding" and o.shape), None)
        expected = {
            "input images": ("tensor(uint8)", [height, width, 3]),
            **(
                {"input images2": ("tensor(uint8)", [height, width, 3]), "input has_second": ("tensor(bool)", [])}
                if second
                else {}
            ),
            **({"input metadata": ("tensor(float)", [metadata_width])} if metadata_width else {}),
            "output logits": ("tensor(float)", [classes]),
            "output embedding": ("tensor(float)", [width_D]),
        }
        dynamic = all(x.shape and not isinstance(x.shape[0], int) for x in (*inputs, *outputs))
        if found != expected or not isinstance(width_D, int) or not dynamic:
            raise ModelError(f"{GRAPH_NAME}: has {found}, artefact.json asks for {expected} with a free batch size; {_REMEDY}")
        self.classes, self.embedding_width, self.metadata_width, self.second = classes, width_D, metadata_width, second

    def run(
        self, images_BHW3: NDArray[np.uint8], metadata_BM: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits (B, C) and embedding (B, D) of a batch; an empty batch gives empty arrays.

        A graph of two pictures takes cases (B, H, W, 7), see `dermalyze.core.second`.

        Raises:
            ModelError: images or metadata of another shape or type; NaN or infinity from the model.
        """
        if images_BHW3.dtype != np.uint8 or images_BHW3.ndim != 4 or images_BHW3.shape[1:] != self._shape:
            raise ModelError(
                f"images are {images_BHW3.dtype} {images_BHW3.shape}; the model takes uint8 (B, {self._shape[0]}, "
                f"{self._shape[1]}, {self._shape[2]}): resize with its own preprocessing"
            )
        inputs: dict[str, NDArray[Any]] = {"images": np.ascontiguousarray(images_BHW3)}
        if self.second:
            inputs = dict(zip(("images", "images2", "has_second"), unpacked(images_BHW3), strict=True))
        if metadata_BM is not None:
            inputs["metadata"] = np.ascontiguousarray(metadata_BM, dtype=np.float32)
        given = inputs["metadata"].shape if "metadata" in inputs else (len(images_BHW3), 0)
        if given != (len(images_BHW3), self.metadata_width):
            raise ModelError(f"metadata are {given}; the model takes {(len(images_BHW3), self.metadata_width)}, a row an image")
        if len(images_BHW3) == 0:  # some operators abort the whole process on an empty batch (onnxruntime's LSTM does)
            return np.zeros((0, self.classes), np.float32), np.zeros((0, self.embedding_width), np.float32)
        try:
            logits_BC, embedding_BD = self._session.run(["logits", "embedding"], inputs)
        except Exception as error:  # as above
            raise ModelError(f"{GRAPH_NAME}: the model failed on a batch of {len(images_BHW3)}: {brief(error)}") from error
        if not (np.isfinite(logits_BC).all() and np.isfinite(embedding_BD).all()):
            raise ModelError(f"{GRAPH_NAME}: the model gave NaN or infinity; no answer is made from it; {_REMEDY}")
        return logits_BC, embedding_BD


@dataclass(frozen=True, eq=False)
class Artefact:
    """An opened, verified artefact.

    Attributes:
        record: the content of `artefact.json`.
        sha256: of `artefact.json`, which names the hash of every other file: the identity of the whole model.
        graph: runs the network.
        ood: the bytes of `OOD_NAME`; empty without it.
    """

    record: ArtefactRecord
    sha256: str
    graph: Graph
    ood: bytes = b""

    @classmethod
    def open(cls, folder: Path, *, threads: int | None = None) -> Artefact:
        """Open a folder; each file is read once, and what was hashed is what runs.

        Args:
            folder: holds `artefact.json`, `model.onnx`, `model.safetensors`, and nothing that the record doesn't name.
            threads: CPU threads of one pass; None: one a core.

        Raises:
            ModelError: a file is missing, changed, a link, too large, not what its name says, or not named in the record.
            ResourceError: a file cannot be read.
        """
        present = _listing(folder)
        if RECORD_NAME not in present:
            raise ModelError(f"{folder.name}: not an artefact (no {RECORD_NAME}); make one with: dermalyze export RUN")
        with _reading(folder / RECORD_NAME, MAX_RECORD_BYTES) as stream:
            text = stream.read()
        record = parse_record(text)
        files: dict[str, str] = dict(record.files) | {str(name): sha for name, sha in record.calibration_files.items()}
        strangers, missing = sorted(present - {RECORD_NAME, *files}), sorted(files.keys() - present)
        if missing:
            raise ModelError(f"{folder.name}: files {missing} of {RECORD_NAME} are missing; {_REMEDY}")
        if strangers:
            raise ModelError(f"{folder.name}: files {strangers} are not named in {RECORD_NAME}; remove them, or {_REMEDY}")
        kept = {GRAPH_NAME: b"", OOD_NAME: b""}
        for name, expected in files.items():
            with _reading(folder / name, {GRAPH_NAME: MAX_GRAPH_BYTES, OOD_NAME: MAX_OOD_BYTES}.get(name)) as stream:
                if name in kept:
                    kept[name] = stream.read()
                    found = hashlib.sha256(kept[name]).hexdigest()
                else:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
                if found != expected:
                    raise ModelError(
                        f"{name}: SHA-256 {found[:12]}… is not the {expected[:12]}… of {RECORD_NAME} (changed or damaged); "
                        f"{_REMEDY}"
                    )
                if name == WEIGHTS_NAME:
                    _check_safetensors(stream)
        geometry = Geometry.model_validate(record.preprocessing)
        loaded = Graph(
            kept[GRAPH_NAME], classes=len(record.classes), height=geometry.height, width=geometry.width,
            metadata_width=len(record.metadata.blank) if record.metadata is not None else 0,
            second=record.second is not None, threads=threads,
        )  # fmt: skip
        return cls(record, hashlib.sha256(text).hexdigest(), loaded, kept[OOD_NAME])

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the logits."""
        return [entry.name for entry in self.record.classes]

    @property
    def descriptions(self) -> dict[str, str]:
        """Class name to description."""
        return {entry.name: entry.description for entry in self.record.classes}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Fields of `dermalyze.data.images.Preprocessing`."""
        return self.record.preprocessing

    @property
    def recipe(self) -> str:
        """The inference recipe the model is measured and served with."""
        return self.record.recipe

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the ONNX graph."""
        return self.record.files[GRAPH_NAME]

    def run(
        self, images_BHW3: NDArray[np.uint8], metadata_BM: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits (B, C) and embedding (B, D) of one pass; see `Graph.run`. What is not given is not known: metadata, and second
        pictures where a model of two is given images (B, H, W, 3)."""
        if self.record.second is not None and images_BHW3.ndim == 4 and images_BHW3.shape[3] == 3:
            images_BHW3 = packed(images_BHW3, None)
        if metadata_BM is None and self.record.metadata is not None:
            metadata_BM = np.tile(np.array(self.record.metadata.blank, np.float32), (len(images_BHW3), 1))
        return self.graph.run(images_BHW3, metadata_BM)

    def knowing(
        self, metadata_BM: NDArray[np.float32] | None
    ) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """`run` for a batch of which these metadata are known, for a recipe that asks it several times."""
        return lambda images_BHW3: self.run(images_BHW3, metadata_BM)


def parse_record(text: bytes) -> ArtefactRecord:
    """Read and check the bytes of `artefact.json`.

    Raises:
        ModelError: not JSON, a key missing, unknown or of the wrong type, a path in `files`, a class named twice.
    """
    try:
        values = json.loads(text)
        record = ArtefactRecord.model_validate(values)
        Geometry.model_validate(record.preprocessing)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()[:5])
        raise ModelError(f"{RECORD_NAME}: {problems}; {_REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{RECORD_NAME}: not valid JSON ({brief(error)}); {_REMEDY}") from error
    if absent := {GRAPH_NAME, WEIGHTS_NAME} - record.files.keys():
        raise ModelError(f"{RECORD_NAME}: files does not name {sorted(absent)}; {_REMEDY}")
    if RECORD_NAME in record.files:
        raise ModelError(f"{RECORD_NAME}: files names {RECORD_NAME} itself; {_REMEDY}")
    names = [entry.name for entry in record.classes]
    if len(set(names)) != len(names):
        raise ModelError(f"{RECORD_NAME}: classes {names} name one twice; {_REMEDY}")
    return record


def _listing(folder: Path) -> set[str]:
    """Names in a folder of regular files only."""
    try:
        with os.scandir(folder) as entries:
            present = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder.name}: no such artefact folder; give a run or the folder that export made") from None
    except OSError as error:
        raise ResourceError(f"{folder.name}: cannot be read: {error.strerror}") from error
    if odd := sorted(name for name, regular in present.items() if not regular):
        raise ModelError(f"{folder.name}: {odd} are links or folders; an artefact holds plain files only; {_REMEDY}")
    return set(present)


@contextlib.contextmanager
def _reading(path: Path, limit: int | None) -> Iterator[BufferedReader]:
    """Open a regular file of at most `limit` bytes, never through a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor, opened without following links
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or (limit is not None and status.st_size > limit):
                raise ModelError(f"{path.name}: {status.st_size} bytes; a plain file of at most {limit} is read; {_REMEDY}")
            yield stream
    except OSError as error:
        raise ResourceError(f"{path.name}: cannot be read: {error.strerror}") from error


def _check_safetensors(stream: BufferedReader) -> None:
    """Eight bytes of header length, then a JSON object: what is never true of a pickle or a zip of pickles."""
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    try:
        header = json.loads(stream.read(length)) if 2 <= length <= MAX_HEADER_BYTES else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"{WEIGHTS_NAME}: not a safetensors file (pickles are never opened); {_REMEDY}")
