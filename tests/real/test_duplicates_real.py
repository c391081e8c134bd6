"""Planted copies among some hundred images of HAM10000 itself, where it stands beside the repository."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.experiment import build_experiment
from dermalyze.data.duplicate_search import find_near_duplicates, shrink
from dermalyze.data.sources import ham10000
from dermalyze.data.store import ImageStore
from dermalyze.data.synthetic.copies import COPIES
from dermalyze.imaging.decode import decode

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "ham10000"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the real images (../shared/data/ham10000) are not there"),
]
KNOWN = [("ISIC_0027027", "ISIC_0029036"), ("ISIC_0025387", "ISIC_0029880"), ("ISIC_0025226", "ISIC_0030074")]
"""One photograph under two lesions in HAM10000, seen by eye."""


def test_copies_and_known_pairs_are_found_and_nothing_else_across_lesions():
    store = ImageStore.open(build_experiment({"data": {"path": str(FOLDER)}}).data)
    rows = sorted(ham10000(store).rows, key=lambda row: row.image_id)
    wanted = {image_id for pair in KNOWN for image_id in pair}
    rows = [row for i, row in enumerate(rows) if i % 33 == 0 or row.image_id in wanted]
    pictures = [Image.fromarray(decode(store.read(str(row.path))).pixels) for row in rows]
    rng = np.random.default_rng(0)
    kinds = [list(COPIES)[i % len(COPIES)] for i in range(len(rows))]
    copies = [COPIES[kind](picture, rng)[0] for kind, picture in zip(kinds, pictures, strict=True)]
    pairs, _, _ = find_near_duplicates(np.array([shrink(picture) for picture in pictures + copies]))
    found = {(int(i), int(j)) for i, j in pairs}
    missed = [kinds[i] for i in range(len(rows)) if (i, i + len(rows)) not in found]
    assert missed == []
    ids = [row.image_id for row in rows]
    across = {(ids[i], ids[j]) for i, j in found if j < len(rows) and rows[i].known["lesion_id"] != rows[j].known["lesion_id"]}
    assert across == set(KNOWN)
