"""Images that became unreadable after `prepare`, found while training streams them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dermalyze.core.progress import say
from dermalyze.errors import DataError


class Quarantine:
    """Which images a training leaves out, and what it takes in their place.

    An image found unreadable once is left out for the rest of the run, even if it comes back: a resume from a saved
    `known` then computes the same.

    Args:
        names: image_id of each row.
        total: images that are trained and validated on.
        limit: share of them that may fail, `data.max_bad_fraction`.
        known: image_id to reason, from a saved state; changed by `note`.
    """

    def __init__(self, names: Sequence[str], *, total: int, limit: float, known: dict[str, str]) -> None:
        self.names, self.total, self.limit, self.known = names, total, limit, known
        self._row_of = {name: row for row, name in enumerate(names)}

    def note(self, bad: Mapping[int, str]) -> bool:
        """Take in a loader's bad rows and their reasons; whether some are new.

        Raises:
            DataError: too many by now.
        """
        fresh = {self.names[row]: why for row, why in bad.items() if self.names[row] not in self.known}
        if not fresh:
            return False
        self.known.update(fresh)
        count, (name, why) = len(self.known), next(iter(fresh.items()))
        found = f"{count} of {self.total} images can no longer be read ({count / self.total:.1%}, at most {self.limit:.1%})"
        if count > self.limit * self.total:
            raise DataError(
                f"{found}; the last is {name}: {why}; the last checkpoint is kept; restore the files and run the same command "
                "to resume, or raise data.max_bad_fraction in a new run"
            )
        say(f"{found}: {', '.join(fresh)} ({why}); left out from now on")
        return True

    def good(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N,) whether each row's image is in use."""
        return ~np.isin(rows, [self._row_of[name] for name in self.known])

    def stand_ins(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places (B,) in a batch to take its images from: each its own, a bad one's from the next good one, in a ring.

        Raises:
            DataError: none is good.

        >>> left_out = Quarantine(["a", "b", "c"], total=3, limit=1.0, known={"b": "gone", "c": "gone"})
        >>> left_out.stand_ins(np.array([1, 0, 2])).tolist()
        [1, 1, 1]
        """
        good = np.flatnonzero(self.good(rows))
        if not len(good):
            raise DataError("no image of a batch can be read; restore the files and run the same command to resume")
        return good[np.searchsorted(good, np.arange(len(rows))) % len(good)]
