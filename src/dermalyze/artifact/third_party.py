"""An ONNX classifier that somebody else exported: opened with the same suspicion as our own, and fed as it asks to be."""

# Shapes: B images, H height, W width, C classes.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.onnx_session import open_session
from dermalyze.errors import ModelError

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class ThirdPartyGraph:
    """A graph with one image input (B, 3, H, W) or (B, H, W, 3), float or uint8, and an output (B, C).

    Args:
        data: the bytes of a self-contained ONNX file.
        name: what to call it in messages.
        classes: C.
        threads: CPU threads of one pass; None: one per core.

    Attributes:
        size: (height, width) that it takes, px; None where it takes any.
        normalized: whether its input is a normalized float; False for uint8 pixels.

    Raises:
        ModelError: not ONNX, external data, an unknown operator, other inputs, no output of C numbers an image.
    """

    def __init__(self, data: bytes, name: str, *, classes: int, threads: int | None = None) -> None:
        self._session = open_session(data, name, threads=threads, remedy="export it again, to one file")
        self.name, self.classes = name, classes
        inputs = self._session.get_inputs()
        shape: list[Any] = list(inputs[0].shape) if len(inputs) == 1 else []
        first, last = len(shape) == 4 and shape[1] == 3, len(shape) == 4 and shape[3] == 3
        if not (first or last) or inputs[0].type not in TYPES:
            found = [(i.name, i.type, i.shape) for i in inputs]
            raise ModelError(f"{name}: takes {found}; must take one image (B, 3, H, W) or (B, H, W, 3), float or uint8")
        self._input, self._type, self._channels_first = inputs[0].name, TYPES[inputs[0].type], first
        self.normalized = self._type is not np.uint8
        height, width = shape[2:4] if first else shape[1:3]
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        self._batch = shape[0] if isinstance(shape[0], int) else None
        outputs = self._session.get_outputs()
        fitting = [o.name for o in outputs if len(o.shape) == 2 and (o.shape[1] == classes or not isinstance(o.shape[1], int))]
        if not fitting:
            given = [(o.name, o.shape) for o in outputs]
            raise ModelError(f"{name}: gives {given}; none is (B, {classes}), a number for each class of the run")
        self._output = "logits" if "logits" in fitting else fitting[0]

    def run(self, images_BHW3: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float64]:
        """What it gives for each image and class (B, C).

        Args:
            images_BHW3: uint8 RGB at the graph's size.
            mean, std: of R, G, B on a scale of 0..1; not used for a graph that takes uint8.

        Raises:
            ModelError: it fails, or gives NaN, infinity or another shape.
        """
        pixels: NDArray[Any] = images_BHW3
        if self.normalized:
            pixels = (images_BHW3.astype(np.float32) / np.float32(255) - np.asarray(mean, np.float32)) / np.asarray(
                std, np.float32
            )
        if self._channels_first:
            pixels = pixels.transpose(0, 3, 1, 2)
        pixels = np.ascontiguousarray(pixels.astype(self._type))
        values = [self._pass(batch) for batch in self._batches(pixels)]
        return np.concatenate(values) if values else np.zeros((0, self.classes))

    def _batches(self, pixels: NDArray[Any]) -> list[NDArray[Any]]:
        """As they are, or in the graph's fixed batch size, the last one filled up."""
        if self._batch is None:
            return [pixels] if len(pixels) else []
        return [pixels[start : start + self._batch] for start in range(0, len(pixels), self._batch)]

    def _pass(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        n = len(pixels)
        if self._batch is not None and n < self._batch:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], self._batch - n, axis=0)])
        try:
            values = np.asarray(self._session.run([self._output], {self._input: pixels})[0], dtype=np.float64)
        except Exception as error:  # as above
            raise ModelError(f"{self.name}: failed on a batch of {n}: {' '.join(str(error).split())[:300]}") from error
        if values.shape != (len(pixels), self.classes):
            raise ModelError(
                f"{self.name}: gave {values.shape} for {len(pixels)} images, must be ({len(pixels)}, {self.classes})"
            )
        if not np.isfinite(values).all():
            raise ModelError(f"{self.name}: gave NaN or infinity; nothing is made from it")
        return values[:n]
