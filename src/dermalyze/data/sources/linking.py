"""What tells that rows of different tables show one image, and so one lesion."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dermalyze.data.grouping import components

_ARCHIVE_NAME = re.compile(r"(ISIC_\d+)(_downsampled)?")


def archive_name(image_id: str) -> str | None:
    """The name in the ISIC archive of an image, from its id in any source or a merged set; None for others.

    >>> archive_name("isic2019-ISIC_0000002_downsampled"), archive_name("ISIC_0024306"), archive_name("a-1")
    ('ISIC_0000002', 'ISIC_0024306', None)
    """
    found = _ARCHIVE_NAME.fullmatch(image_id.rpartition("-")[2])
    return found[1] if found else None


def join_lesions(lesions: Sequence[str | None], same: Sequence[Sequence[int]], names: Sequence[str]) -> list[str | None]:
    """One lesion_id for images that are known to be of one lesion.

    Args:
        lesions: lesion_id of each row, None where unknown.
        same: sets of rows that show one lesion although their lesion_ids differ or are missing.
        names: what to call a lesion of `same` that has no lesion_id, one name per row.

    Returns:
        the lesion_id of each row: where `same` joins lesions, the first of their ids in alphabetical order.

    >>> join_lesions(["HAM_1", "IL_7", "IL_7", None], [[0, 1]], ["a", "b", "c", "d"])
    ['HAM_1', 'HAM_1', 'HAM_1', None]
    """
    first: dict[str, int] = {}
    edges = [(first.setdefault(lesion, i), i) for i, lesion in enumerate(lesions) if lesion is not None]
    edges += [(rows[0], row) for rows in same for row in rows]
    root = components(len(lesions), edges).tolist()
    linked = {root[row] for rows in same for row in rows}
    ids: dict[int, str] = {}
    for i, lesion in enumerate(lesions):
        if lesion is not None:
            ids[root[i]] = min(lesion, ids.get(root[i], lesion))
    for rows in same:
        ids.setdefault(root[rows[0]], min(names[row] for row in rows))
    return [ids[root[i]] if lesion is not None or root[i] in linked else None for i, lesion in enumerate(lesions)]
