"""Micro-batches: the same effective batch in as many passes as the memory asks for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dermalyze.core.progress import say
from dermalyze.core.runtime import out_of_memory
from dermalyze.errors import ResourceError

T = TypeVar("T")
OUT_OF_MEMORY = (
    "the last checkpoint is kept; close other programs and run the same command to resume, or choose a smaller "
    "preprocess.size, train.batch_size or network in a new run"
)


class MicroBatches:
    """How many images go through the network at once.

    Args:
        batch_size: images, as configured.
        model: is put in training mode. BatchNorm cannot train on one image, and its statistics are of one pass.
        halvings: of the batch so far, from a saved state.

    >>> MicroBatches(8, nn.Linear(1, 1), halvings=1).parts(7)
    [slice(0, 4, None), slice(4, 7, None)]
    """

    def __init__(self, batch_size: int, model: nn.Module, *, halvings: int = 0) -> None:
        self.batch_size, self.halvings = batch_size, halvings
        self.batch_norm = any(isinstance(module, _BatchNorm) and module.training for module in model.train().modules())
        self.least = 2 if self.batch_norm else 1

    @property
    def size(self) -> int:
        """Images a pass, at most."""
        return -(-self.batch_size >> self.halvings)

    def parts(self, count: int) -> list[slice]:
        """`count` images cut into passes of nearly the same size, as `numpy.array_split` cuts."""
        passes = min(2**self.halvings, max(1, count // self.least))
        ends = np.cumsum([len(part) for part in np.array_split(np.arange(count), passes)]).tolist()
        return [slice(start, stop) for start, stop in itertools.pairwise([0, *ends])]

    def fitting(self, compute: Callable[[], T], halved: Callable[[], None] = lambda: None) -> T:
        """What `compute` returns; where memory runs out the passes are halved, for good, and it is called again.

        Args:
            compute: asks for `parts`, and can be begun again.
            halved: called before each new attempt.

        Raises:
            ResourceError: out of memory in the smallest pass.
        """
        while True:
            try:
                return compute()
            except (MemoryError, RuntimeError, OSError) as error:
                if not out_of_memory(error):
                    raise
                reason = str(error)[:120]
            self._halve(reason)  # not in the block above: there the error still holds the failed attempt's tensors
            halved()

    def _halve(self, reason: str) -> None:
        before = self.size
        if before // 2 < self.least:
            raise ResourceError(
                f"out of memory with {before} images per pass, and fewer are not possible: {reason}; {OUT_OF_MEMORY}"
            )
        self.halvings += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        note = "; BatchNorm's statistics are of the smaller ones" if self.batch_norm else ""
        say(f"out of memory: micro-batches of {self.size} instead of {before} images, the same effective batch{note}")
