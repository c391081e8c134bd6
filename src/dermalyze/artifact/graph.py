"""The network of an artifact: an ONNX graph with known inputs and outputs, and numbers that are checked."""

# Shapes: B images, H height, W width, C classes, D width of the embedding, M encoded metadata, h x w map.

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.onnx_prune import output_names, prune
from dermalyze.artifact.onnx_scan import refuse_external_data
from dermalyze.artifact.onnx_session import brief, open_session
from dermalyze.errors import ModelError
from dermalyze.imaging.cases import PLANES, unpacked

if TYPE_CHECKING:
    import onnxruntime

GRAPH_NAME = "model.onnx"
REMEDY = "export the model again, or fetch the artifact again from where it came"
Floats = NDArray[np.float32]
Answer = Callable[[tuple[str, ...], dict[str, NDArray[Any]]], list[Floats]]
"""Names of outputs and the inputs by name to these outputs."""


ANSWERS, CAM = ("logits", "embedding"), "cam"


class Graph:
    """An ONNX graph that takes images (B, H, W, 3) uint8 and gives logits (B, C) and an embedding (B, D), float32.

    One that was trained with metadata also takes these, encoded, (B, M) float32. One that was trained on two pictures a case
    also takes the second, `images2`, as the first, and `has_second` (B,) bool; what stands there in `images2` where it is
    false counts nothing. One with a class-activation map gives that
    too, (B, C, h, w) float32; the map is computed only where it is asked for (see `dermalyze.artifact.onnx_prune`).

    Args:
        data: the bytes of a self-contained ONNX file.
        classes: C.
        height: H, px.
        width: W, px.
        metadata_width: M; 0: the graph takes none.
        cam: (h, w) of its class-activation map; None: it has none.
        second: whether it takes second pictures.
        threads: CPU threads of one pass; None: one a core.

    Attributes:
        provider: what computes logits and embedding.
        answer: how another library than onnxruntime does; None: onnxruntime does.

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
        cam: tuple[int, int] | None = None,
        second: bool = False,
        threads: int | None = None,
    ) -> None:
        refuse_external_data(data, GRAPH_NAME)
        self.classes, self.metadata_width, self.cam_shape, self.second = classes, metadata_width, cam, second
        self._shape, self._threads, self._lock = (height, width, PLANES if second else 3), threads, threading.Lock()
        self._data = data if cam is not None else b""  # of the whole graph, until a map is first asked for
        self._with_cam: onnxruntime.InferenceSession | None = None
        self.answer: Answer | None = None
        self.provider = "onnxruntime"
        if cam is not None and CAM not in output_names(data, GRAPH_NAME):
            raise ModelError(f"{GRAPH_NAME}: has no output {CAM}, which artifact.json names; {REMEDY}")
        self._session = self._open(data if cam is None else prune(data, [CAM], GRAPH_NAME), {})
        self.embedding_width = int(next(o.shape[-1] for o in self._session.get_outputs() if o.name == "embedding"))

    def answer_by(self, provider: str, answer: Answer) -> None:
        """Have another library compute logits and embedding from now on; maps stay with onnxruntime."""
        self.provider, self.answer = provider, answer

    def _open(self, data: bytes, more: dict[str, list[int]]) -> onnxruntime.InferenceSession:
        """A session with the inputs and outputs of an artifact, and further outputs of these shapes."""
        session = open_session(data, GRAPH_NAME, threads=self._threads, remedy=REMEDY)
        image = [*self._shape[:2], 3]
        inputs, outputs = session.get_inputs(), session.get_outputs()
        found = {f"input {i.name}": (i.type, i.shape[1:]) for i in inputs}
        found |= {f"output {o.name}": (o.type, o.shape[1:]) for o in outputs}
        width_D = next((o.shape[-1] for o in outputs if o.name == "embedding" and o.shape), None)
        expected = {
            "input images": ("tensor(uint8)", image),
            **({"input images2": ("tensor(uint8)", image), "input has_second": ("tensor(bool)", [])} if self.second else {}),
            **({"input metadata": ("tensor(float)", [self.metadata_width])} if self.metadata_width else {}),
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

    def run(self, images_BHW3: NDArray[np.uint8], metadata_BM: Floats | None = None) -> tuple[Floats, Floats]:
        """Logits (B, C) and embedding (B, D) of a batch; an empty batch gives empty arrays.

        A graph of two pictures takes cases (B, H, W, 7), see `dermalyze.imaging.cases`.

        Raises:
            ModelError: images or metadata of another shape or type; NaN or infinity from the model.
        """
        logits_BC, embedding_BD = self.fetch(ANSWERS, images_BHW3, metadata_BM)
        return logits_BC, embedding_BD

    def fetch(self, names: tuple[str, ...], images_BHW3: NDArray[np.uint8], metadata_BM: Floats | None = None) -> list[Floats]:
        """Named outputs of a batch: "logits" (B, C), "embedding" (B, D), "cam" (B, C, h, w). What isn't named isn't computed.

        Raises:
            ModelError: as `run`; or the graph has no such output.
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
        shapes: dict[str, tuple[int, ...]] = {"logits": (self.classes,), "embedding": (self.embedding_width,)}
        shapes |= {CAM: (self.classes, *self.cam_shape)} if self.cam_shape is not None else {}
        if unknown := [name for name in names if name not in shapes]:
            raise ModelError(f"{GRAPH_NAME}: gives {', '.join(shapes)}, not {', '.join(unknown)}; {REMEDY}")
        if len(images_BHW3) == 0:  # some operators abort the whole process on an empty batch (onnxruntime's LSTM does)
            return [np.zeros((0, *shapes[name]), np.float32) for name in names]
        try:
            if CAM in names:
                outputs: list[Floats] = self._whole().run(list(names), inputs)
            else:
                outputs = self.answer(names, inputs) if self.answer is not None else self._session.run(list(names), inputs)
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise ModelError(f"{GRAPH_NAME}: the model failed on a batch of {len(images_BHW3)}: {brief(error)}") from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise ModelError(f"{GRAPH_NAME}: the model gave NaN or infinity; no answer is made from it; {REMEDY}")
        return outputs
