"""Agreement beyond chance of two opinions, from their table of counts."""

# Shapes: R weightings (resamples), C classes.

from __future__ import annotations

import numpy as np

from dermalyze.metrics.ranking import Floats, ratio


def kappa_of(confusion: Floats) -> Floats:
    """(...) Cohen's kappa: agreement above what the two margins alone would give, 1 at best, 0 at chance.

        kappa = (p_o - p_e) / (1 - p_e)

    Args:
        confusion: (..., C, C) counts, at least 0; row the first opinion (the truth), column the second.

    Undefined, NaN, where the first opinion is of one class only: whatever the second says would be chance.

    >>> round(float(kappa_of(np.array([[20.0, 5.0], [10.0, 15.0]]))), 3)
    0.4

    Cohen 1960, doi:10.1177/001316446002000104
    """
    agreed, expected, rows, _, total = _margins(confusion)
    told = rows.max(axis=-1) < total
    return np.where(told, ratio(agreed - expected, np.square(total) - expected), np.nan)


def mcc_of(confusion: Floats) -> Floats:
    """(...) Matthews' correlation of two opinions of C classes, -1..1; NaN where either is of one class only.

    Args:
        confusion: (..., C, C) counts, at least 0.

    >>> round(float(mcc_of(np.array([[6.0, 2.0], [1.0, 3.0]]))), 3)
    0.478

    Matthews 1975, doi:10.1016/0005-2795(75)90109-9; for C classes Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006
    """
    agreed, expected, rows, columns, total = _margins(confusion)
    spread = [np.square(total) - np.square(margin).sum(axis=-1) for margin in (rows, columns)]
    return ratio(agreed - expected, np.sqrt(spread[0] * spread[1]))


def one_against_rest(confusion_RCC: Floats) -> Floats:
    """(R, C, 2, 2) the counts of each class against all others together: [[others right, called so], [missed, found]].

    >>> one_against_rest(np.array([[[5.0, 1.0], [2.0, 3.0]]]))[0, 1]
    array([[5., 1.],
           [2., 3.]])
    """
    found = np.diagonal(confusion_RCC, axis1=1, axis2=2)
    missed, called = confusion_RCC.sum(axis=2) - found, confusion_RCC.sum(axis=1) - found
    rest = confusion_RCC.sum(axis=(1, 2))[:, None] - found - missed - called
    return np.stack([np.stack([rest, called], axis=-1), np.stack([missed, found], axis=-1)], axis=-2)


def _margins(confusion: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Total times agreement, the same as chance would have it, both margins, and the total."""
    rows, columns = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = rows.sum(axis=-1)
    return total * np.trace(confusion, axis1=-2, axis2=-1), (rows * columns).sum(axis=-1), rows, columns, total
