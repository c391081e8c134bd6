"""The network of an artifact: an ONNX graph with known inputs and outputs, and numbers that are checked."""

# Shapes: B samples, C classes, D width of the embedding, h x w map.

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.onnx_prune import output_names, prune
from dermalyze.artifact.onnx_scan import refuse_unsafe
from dermalyze.artifact.onnx_session import brief, open_session
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import Batch, Input, size_of

if TYPE_CHECKING:
    import onnxruntime

GRAPH_NAME = "model.onnx"
REMEDY = "export the model again, or fetch the artifact again from where it came"
Floats = NDArray[np.float32]
Answer = Callable[[tuple[str, ...], dict[str, NDArray[Any]]], list[Floats]]
"""Names of outputs and the inputs by name to these outputs."""

ANSWERS, CAM = ("logits", "embedding"), "cam"
ONNX_TYPES = {"uint8": "uint8", "uint16": "uint16", "bool": "bool", "float32": "float"}
"""numpy's names of types to ONNX's."""


class Graph:
    """An ONNX graph with named inputs that gives logits (B, C) and an embedding (B, D), float32.

    One with a class-activation map gives that too, (B, C, h, w) float32; the map is computed only where it is asked for (see
    `dermalyze.artifact.onnx_prune`).

    Args:
        data: the bytes of a self-contained ONNX file.
        inputs: names, types and shapes that it takes; see `dermalyze.imaging.samples`.
        classes: C.
        cam: (h, w) of its class-activation map; None: it has none.
        threads: CPU threads of one pass; None: one per core.

    Attributes:
        provider: what computes logits and embedding.
        answer: how another library than onnxruntime does; None: onnxruntime does.

    Raises:
        ModelError: not ONNX, external data, an unknown operator, other inputs or outputs, 2 GiB or more.
    """

    def __init__(
        self,
        data: bytes,
        inputs: Sequence[Input],
        *,
        classes: int,
        cam: tuple[int, int] | None = None,
        threads: int | None = None,
    ) -> None:
        refuse_unsafe(data, GRAPH_NAME)
        self.inputs, self.classes, self.cam_shape = tuple(inputs), classes, cam
        self._threads, self._lock = threads, threading.Lock()
        self._data = data if cam is not None else b""  # of the whole graph, until a map is first asked for
        self._with_cam: onnxruntime.InferenceSession | None = None
        self.answer: Answer | None = None
        self.provider = "onnxruntime"
        if cam is not None and CAM not in output_names(data, GRAPH_NAME):
            raise ModelError(f"{GRAPH_NAME}: has no output {CAM}, which artifact.json names; {REMEDY}")
        self._session = self._open(data if cam is None else prune(data, [CAM], GRAPH_NAME), {})
        self.embedding_width = int(next(o.shape[-1] for o in self._session.get_outputs() if o.name == "embedding"))

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Name of each output to its shape of one sample."""
        shapes: dict[str, tuple[int, ...]] = {"logits": (self.classes,), "embedding": (self.embedding_width,)}
        return shapes | ({CAM: (self.classes, *self.cam_shape)} if self.cam_shape is not None else {})

    def answer_by(self, provider: str, answer: Answer) -> None:
        """Have another library compute logits and embedding from now on; maps stay with onnxruntime."""
        self.provider, self.answer = provider, answer

    def _open(self, data: bytes, more: dict[str, list[int]]) -> onnxruntime.InferenceSession:
        """A session with the inputs and outputs of an artifact, and further outputs of these shapes."""
        session = open_session(data, GRAPH_NAME, threads=self._threads, remedy=REMEDY)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        found = {f"input {i.name}": (i.type, i.shape[1:]) for i in inputs}
        found |= {f"output {o.name}": (o.type, o.shape[1:]) for o in outputs}
        width_D = next((o.shape[-1] for o in outputs if o.name == "embedding" and o.shape), None)
        expected = {
            **{f"input {one.name}": (f"tensor({ONNX_TYPES[one.dtype]})", list(one.shape)) for one in self.inputs},
            "output logits": ("tensor(float)", [self.classes]),
            "output embedding": ("tensor(float)", [width_D]),
            **{f"output {name}": ("tensor(float)", shape) for name, shape in more.items()},
        }
        dynamic = all(x.shape and not isinstance(x.shape[0], int) for x in (*inputs, *outputs))
        if found != expected or not isinstance(width_D, int) or not dynamic:
            raise ModelError(f"{GRAPH_NAME}: has {found}, artifact.json asks for {expected} with a free batch size; {REMEDY}")
        return session

    def _whole(self) -> onnxruntime.InferenceSession:
        """The session that gives the map as well, opened when it is first needed."""
        with self._lock:
            if self._with_cam is None:
                self._with_cam = self._open(self._data, {CAM: [self.classes, *(self.cam_shape or ())]})
                self._data = b""
            return self._with_cam

    def run(self, batch: Batch) -> tuple[Floats, Floats]:
        """Logits (B, C) and embedding (B, D) of a batch with every input; an empty batch gives empty arrays.

        Raises:
            ModelError: inputs of other names, shapes or types; NaN or infinity from the model.
        """
        logits_BC, embedding_BD = self.fetch(ANSWERS, batch)
        return logits_BC, embedding_BD

    def fetch(self, names: tuple[str, ...], batch: Batch) -> list[Floats]:
        """Named outputs of a batch: "logits" (B, C), "embedding" (B, D), "cam" (B, C, h, w). What isn't named isn't computed.

        Raises:
            ModelError: as `run`; or the graph has no such output.
        """
        self._require(batch)
        if unknown := [name for name in names if name not in self.outputs]:
            raise ModelError(f"{GRAPH_NAME}: gives {', '.join(self.outputs)}, not {', '.join(unknown)}; {REMEDY}")
        if size_of(batch) == 0:  # some operators abort the whole process on an empty batch (onnxruntime's LSTM does)
            return [np.zeros((0, *self.outputs[name]), np.float32) for name in names]
        inputs = {one.name: np.ascontiguousarray(batch[one.name]) for one in self.inputs}
        try:
            if CAM in names:
                outputs: list[Floats] = self._whole().run(list(names), inputs)
            else:
                outputs = self.answer(names, inputs) if self.answer is not None else self._session.run(list(names), inputs)
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise ModelError(f"{GRAPH_NAME}: the model failed on a batch of {size_of(batch)}: {brief(error)}") from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise ModelError(f"{GRAPH_NAME}: the model gave NaN or infinity; no answer is made from it; {REMEDY}")
        return outputs

    def _require(self, batch: Batch) -> None:
        """Refuse a batch that is not what the graph takes."""
        if set(batch) != {one.name for one in self.inputs}:
            allowed = ", ".join(one.name for one in self.inputs)
            raise ModelError(f"the batch has {', '.join(batch) or 'nothing'}; the model takes {allowed}")
        for one in self.inputs:
            values = batch[one.name]
            if values.dtype != one.dtype or values.shape != (size_of(batch), *one.shape):
                expected = ", ".join(map(str, ("B", *one.shape)))
                raise ModelError(
                    f"{one.name} is {values.dtype} {values.shape}; the model takes {one.dtype} ({expected}), one row per "
                    "sample: prepare it with the model's own preprocessing"
                )
