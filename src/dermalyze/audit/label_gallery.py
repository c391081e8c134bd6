"""Likely label errors as images, for the page of `audit`."""

from __future__ import annotations

from collections.abc import Sequence

from dermalyze.audit.label_errors import LikelyError
from dermalyze.data.thumbnails import Gallery, GalleryImage


def label_galleries(errors: Sequence[LikelyError], *, limit: int = 40, columns: int = 8) -> list[Gallery]:
    """The worst likely errors as images, row by row; none where there are none.

    Args:
        errors: worst first.
        limit: images at most.
        columns: images per row.

    >>> label_galleries([LikelyError("a", None, "nv", "mel", 0.01, 0.9)])[0].rows[0][0].caption
    'nv? looks like mel (0.01 : 0.90)'
    """
    images = [GalleryImage(e.image_id, f"{_doubt(e)} ({e.score:.2f} : {e.suggested_score:.2f})") for e in errors[:limit]]
    if not images:
        return []
    explanation = (
        "Under each image: its label, what it is taken for, and the probabilities of the two by a model that has seen "
        "neither this image nor its group. Some labels are wrong, others are right and hard to see: ask who can tell."
    )
    rows = tuple(tuple(images[i : i + columns]) for i in range(0, len(images), columns))
    title = f"Likely label errors: the first {len(images)} of {len(errors)}"
    return [Gallery("label_error", title, explanation, rows)]


def _doubt(error: LikelyError) -> str:
    """The label in doubt, in words.

    >>> _doubt(LikelyError("a", None, "absent", "present", 0.01, 0.99, "effusion"))
    'effusion absent? looks present'
    """
    if error.about is None:
        return f"{error.label}? looks like {error.suggested}"
    return f"{error.about} {error.label}? looks {error.suggested}"
