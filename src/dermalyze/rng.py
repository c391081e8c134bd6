"""Random numbers by counting: a hash of (seed, epoch, position, column), so that no order of work can change them.

A stateful generator gives other numbers when a worker is added, a batch is split or a run resumes. Here a number depends on
its address alone. The hash is SplitMix64's finaliser (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195), chained.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

# streams: what the numbers are for, so that two uses never share them
ORDER, AUGMENT, MIX, DROPOUT, POLICY, HIDE, OPTIONAL = range(7)

_GAMMA = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd
_MASK = (1 << 64) - 1


def _mix(word: Words) -> Words:
    """SplitMix64's finaliser (variant 13 of Stafford): every input bit flips each output bit with probability one half."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _key(*parts: int) -> Words:
    """Chain integers (any sign; each counts modulo 2**64) into one word, as an array of one."""
    word = np.zeros(1, np.uint64)
    for part in parts:
        word = _mix(word + np.uint64(_GAMMA) ^ _mix(np.full(1, part & _MASK, np.uint64)))
    return word


def words(seed: int, epoch: int, positions_B: npt.ArrayLike, n: int, *, stream: int = ORDER) -> Words:
    """The 64 random bits behind `uniforms`.

    Returns:
        (B, n) uint64.
    """
    positions = np.asarray(positions_B).astype(np.int64, casting="safe", copy=False).view(np.uint64).reshape(-1, 1)
    row = _mix(_key(stream, seed, epoch) + _mix(positions * np.uint64(_GAMMA) + np.uint64(1)))
    column = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GAMMA)
    return _mix(row + column)


def uniforms(seed: int, epoch: int, positions_B: npt.ArrayLike, n: int, *, stream: int = ORDER) -> Floats:
    """`n` uniform numbers for each position, a pure function of (stream, seed, epoch, position, column).

    Args:
        seed: any integer.
        epoch: any integer.
        positions_B: integers, draw positions within the epoch.
        n: columns; the first k of n columns are the same numbers for every n.
        stream: what the numbers are for (`ORDER`, `AUGMENT`, `MIX`, `DROPOUT`, or a further small integer).

    Returns:
        (B, n) float64 in [0, 1), multiples of 2**-53.

    >>> uniforms(42, 0, [3, 4], 2).round(4)
    array([[0.9074, 0.5271],
           [0.9967, 0.5435]])
    >>> bool((uniforms(42, 0, [4], 2) == uniforms(42, 0, [3, 4], 2)[1]).all())
    True
    """
    return (words(seed, epoch, positions_B, n, stream=stream) >> np.uint64(11)) * np.float64(2.0**-53)


def positions_of(names: Sequence[str]) -> Ints:
    """(N,) whole numbers below 2**56 that belong to the names, whatever their order.

    >>> bool((positions_of(["a", "b"]) == positions_of(["b", "a"])[::-1]).all())
    True
    """
    return np.array([int.from_bytes(sha256(str(name).encode()).digest()[:7], "big") for name in names], dtype=np.int64)


def permutation(seed: int, epoch: int, n: int, *, stream: int = ORDER) -> Ints:
    """A random order of 0..n-1.

    Returns:
        (n,) int64, each of 0..n-1 once; every order is equally likely.

    >>> permutation(42, 0, 5)
    array([0, 2, 1, 3, 4])
    """
    return np.argsort(words(seed, epoch, np.arange(n), 1, stream=stream)[:, 0], kind="stable").astype(np.int64, copy=False)


def dropout_seed(seed: int, epoch: int, position: int) -> int:
    """A seed for torch's generator, 0..2**63-1: dropout is a function of the draw position, not of what was drawn before, so
    that a resume needs no generator's state.
    """
    return int(words(seed, epoch, [position], 1, stream=DROPOUT)[0, 0] >> np.uint64(1))
