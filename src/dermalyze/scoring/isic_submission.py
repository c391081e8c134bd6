"""Probabilities in the form that the ISIC challenges of 2018 and 2019 take: one row an image, one column a class."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dermalyze.core.tables import neutralise
from dermalyze.errors import DataError

CHALLENGES = {
    "ISIC 2018": ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
    "ISIC 2019": ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"),
}
"""Columns after `image`, in the order of the challenge's own files."""


def submission_csv(ids: Sequence[str], probs_NC: NDArray[np.float64], classes: Sequence[str]) -> str:
    """The text of a submission.

    A model of just the classes of a challenge, in any case of letters, gets its columns; a model for ISIC 2019 that has no
    class UNK gives it 0. Other classes keep their names and their order.

    Args:
        ids: image_id of each row.
        probs_NC: probabilities.
        classes: names, in the order of the columns of `probs_NC`.

    Raises:
        DataError: two classes of a challenge's name that differ in the case of their letters alone.

    >>> print(submission_csv(["ISIC_1"], np.array([[0.25, 0.75]]), ["mel", "nv"]), end="")
    image,mel,nv
    ISIC_1,0.25,0.75
    """
    upper = [name.upper() for name in classes]
    if len(set(upper)) < len(upper):
        raise DataError(f"--submission: classes {list(classes)} differ in the case of their letters alone; rename one")
    fitting = [names for names in CHALLENGES.values() if set(upper) in (set(names), set(names) - {"UNK"})]
    column_of = {name: probs_NC[:, c] for c, name in enumerate(upper)}
    names = fitting[0] if fitting else upper
    header = list(names) if fitting else [neutralise(name) for name in classes]
    table = np.stack([column_of.get(name, np.zeros(len(ids))) for name in names], axis=1)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["image", *header])
    writer.writerows([neutralise(image), *map(repr, row)] for image, row in zip(ids, table.tolist(), strict=True))
    return stream.getvalue()
