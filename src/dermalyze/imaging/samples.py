"""A sample's named inputs. A batch is a mapping from these names to arrays, from the manifest to the ONNX graph.

image      (B, H, W, channels) uint8 or uint16
image_2    likewise, optional; what is in it where it is missing counts for nothing
present    (B, K) bool: which of the K optional inputs there are, in their order
metadata   (B, M) float32, encoded by `dermalyze.imaging.tabular`; its own columns say what is missing
"""

# Shapes: B samples, H height, W width, M encoded metadata.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE, PRESENT, METADATA = "image", "present", "metadata"

Array = NDArray[Any]
Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Input:
    """One named input of a network.

    Attributes:
        name: as in a batch.
        dtype: of the array, as numpy names it.
        shape: of one sample.
        optional: a sample may lack it; `present` then says so.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it is (H, W, channels)."""
        return len(self.shape) == 3

    def empty(self, count: int) -> Array:
        """(count, *shape) zeros."""
        return np.zeros((count, *self.shape), self.dtype)


def network_inputs(image: Input, *, optional: Sequence[str] = (), metadata: int = 0) -> tuple[Input, ...]:
    """The inputs of a network: `image`, the optional images with `present`, and metadata.

    Args:
        image: the first image; the others are like it.
        optional: names of further images.
        metadata: M; 0: the network takes none.

    >>> inputs = network_inputs(Input("image", "uint8", (8, 9, 3)), optional=["image_2"], metadata=4)
    >>> [(one.name, one.shape) for one in inputs]
    [('image', (8, 9, 3)), ('image_2', (8, 9, 3)), ('present', (1,)), ('metadata', (4,))]
    """
    return (
        image,
        *(replace(image, name=name, optional=True) for name in optional),
        *([Input(PRESENT, "bool", (len(optional),))] if optional else []),
        *([Input(METADATA, "float32", (metadata,))] if metadata else []),
    )


def as_batch(images: Batch | Any) -> Mapping[str, Any]:
    """A mapping as it is; an array or tensor as the batch of images that have nothing beside them."""
    return images if isinstance(images, Mapping) else {IMAGE: images}


def size_of(batch: Mapping[str, Any]) -> int:
    """B."""
    return len(batch[IMAGE])


def take(batch: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """The samples at some rows: a slice or indices."""
    return {name: values[rows] for name, values in batch.items()}


def stack(samples: Iterable[Batch]) -> dict[str, Array]:
    """A batch of samples, each a mapping without the axis B.

    >>> stack([{"image": np.zeros((2, 2, 3))}, {"image": np.ones((2, 2, 3))}])["image"].shape
    (2, 2, 2, 3)
    """
    rows = list(samples)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def concatenate(batches: Iterable[Batch]) -> dict[str, Array]:
    """Batches one after the other."""
    parts = list(batches)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def image_names(batch: Mapping[str, Any]) -> list[str]:
    """Names of a batch's images (B, H, W, channels) or (B, channels, H, W), in their order.

    >>> image_names({"image": np.ones((1, 2, 2, 3)), "metadata": np.ones((1, 4))})
    ['image']
    """
    return [name for name, values in batch.items() if values.ndim == 4]


def with_images(batch: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The batch with each of its images changed alike.

    >>> batch = {"image": np.ones((1, 2, 2, 3)), "metadata": np.ones((1, 4))}
    >>> changed = with_images(batch, lambda images: images * 5)
    >>> float(changed["image"].max()), float(changed["metadata"].max())
    (5.0, 1.0)
    """
    return {**batch, **{name: change(batch[name]) for name in image_names(batch)}}


def sample_of(images: Mapping[str, Array], inputs: Sequence[Input]) -> dict[str, Array]:
    """One sample, without the axis B: its images, 0 everywhere where one is missing, and `present`."""
    sample = {one.name: images[one.name] if one.name in images else one.empty(1)[0] for one in inputs if one.is_image}
    optional = [one.name for one in inputs if one.optional]
    return sample | ({PRESENT: np.array([name in images for name in optional])} if optional else {})


def complete(batch: Batch, inputs: Sequence[Input], blank_M: NDArray[np.float32] | None = None) -> dict[str, Array]:
    """The batch with all inputs of a network: what is not in it is missing.

    Args:
        batch: has at least `image`; an optional image without `present` is there in every sample.
        inputs: of the network.
        blank_M: encoded metadata of which nothing is known.

    >>> image = Input("image", "uint8", (8, 8, 3))
    >>> whole = complete({"image": np.ones((2, 8, 8, 3), np.uint8)}, network_inputs(image, optional=["image_2"]))
    >>> whole["present"].tolist(), int(whole["image_2"].max())
    ([[False], [False]], 0)
    """
    count, whole = size_of(batch), dict(batch)
    optional = [one.name for one in inputs if one.optional]
    for one in inputs:
        if one.name in whole:
            continue
        if one.name == PRESENT:
            whole[PRESENT] = np.tile(np.array([name in batch for name in optional]), (count, 1))
        elif one.name == METADATA and blank_M is not None:
            whole[METADATA] = np.tile(blank_M, (count, 1)).astype(np.float32)
        elif one.optional:
            whole[one.name] = one.empty(count)
    return whole
