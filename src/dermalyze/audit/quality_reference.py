"""How the images of a training split look, for the gate before the model that learned from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dermalyze.config.data import DataSpec
from dermalyze.core.progress import say
from dermalyze.core.run import Run
from dermalyze.data.splitting import read_part
from dermalyze.data.store import ImageStore
from dermalyze.errors import DermalyzeError
from dermalyze.imaging.decode import PREPARE_FORMATS
from dermalyze.imaging.modalities import modality_of
from dermalyze.imaging.preprocess import small
from dermalyze.imaging.quality import Likeness, appraise

MOST, LEAST = 500, 50
"""Images that are looked at, and how few say nothing."""


def training_appearance(run: Run, data: DataSpec) -> dict[str, Any] | None:
    """What `Likeness.from_dict` reads, of a fixed sample of the training split; None where too few can be read, and says so.

    Args:
        run: split.
        data: where its images are.
    """
    try:
        paths = read_part(run, "train")["path"].dropna().tolist()
        if len(paths) > MOST:
            chosen = np.random.default_rng(0).choice(len(paths), MOST, replace=False)
            paths = [paths[i] for i in np.sort(chosen)]
        store = ImageStore.open(data)
        read = modality_of(data).read
        found = [appraise(small(read(store.read(path), formats=PREPARE_FORMATS).image)) for path in paths]
    except (DermalyzeError, OSError) as error:
        say(f"export: the training images cannot be looked at ({type(error).__name__}); the gate does not learn from them")
        return None
    if len(found) < LEAST:
        say(f"export: {len(found)} training images are too few ({LEAST} are needed) for the gate to learn how images look")
        return None
    return Likeness.fit(found).as_dict()
