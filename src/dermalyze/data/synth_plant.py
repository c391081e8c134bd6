"""Known defects in a synthetic set: what every detector of the audit is tried on. `planted.json` tells what was planted."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dermalyze.core.atomic import write_json
from dermalyze.core.errors import UsageError, nearest
from dermalyze.data.synth_looks import CLASSES
from dermalyze.data.synth_plan import IMAGE_FOLDERS, METADATA

PLANTED = "planted.json"
NOISE_SHARE = 0.08
INK_RGB = (70, 40, 150)  # gentian violet, with which skin is marked


@dataclass(frozen=True)
class PlantResult:
    """What was planted.

    Attributes:
        kind: of the defect, a key of `PLANTS`.
        image_ids: the images that carry it, sorted.
    """

    kind: str
    image_ids: tuple[str, ...]


def plant_defect(kind: str, root: Path, *, seed: int) -> PlantResult:
    """Rewrite a finished synthetic set in its folder so that it has a defect, and tell the truth in planted.json.

    Args:
        kind: a key of `PLANTS`.
        root: the set's folder.
        seed: same seed, same defect.

    Raises:
        UsageError: unknown kind.
    """
    require_kind(kind)
    result = PLANTS[kind](root, seed=seed)
    write_json(root / PLANTED, {**asdict(result), "image_ids": list(result.image_ids)})
    return result


def require_kind(kind: str) -> None:
    """Refuse a defect that is not in the table.

    >>> require_kind("label_noise")
    Traceback (most recent call last):
    ...
    dermalyze.core.errors.UsageError: synth: plant is 'label_noise'; ...; did you mean 'label-noise'?
    """
    if kind not in PLANTS:
        raise UsageError(f"synth: plant is '{kind}'; allowed are {', '.join(PLANTS)}{nearest(kind, list(PLANTS))}")


def plant_label_noise(root: Path, *, seed: int) -> PlantResult:
    """Give 8 % of the lesions, at least one, another label: each a class drawn evenly from the others."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, 0)))
    rows = read_rows(root)
    lesions = sorted({row["lesion_id"] for row in rows})
    chosen = rng.choice(lesions, max(1, round(NOISE_SHARE * len(lesions))), replace=False)
    shift = {str(lesion): int(rng.integers(1, len(CLASSES))) for lesion in chosen}
    for row in rows:
        if row["lesion_id"] in shift:
            row["dx"] = CLASSES[(CLASSES.index(row["dx"]) + shift[row["lesion_id"]]) % len(CLASSES)]
    write_rows(root, rows)
    return PlantResult("label-noise", tuple(sorted(row["image_id"] for row in rows if row["lesion_id"] in shift)))


def plant_shortcut(root: Path, *, seed: int) -> PlantResult:
    """Put a stroke of violet ink into a corner of every picture of melanoma, and of no other."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, 1)))
    marked = sorted(row["image_id"] for row in read_rows(root) if row["dx"] == "mel")
    for image_id in marked:
        path = next(place for folder in IMAGE_FOLDERS if (place := root / folder / f"{image_id}.jpg").is_file())
        with Image.open(path, formats=["JPEG"]) as picture:
            image = picture.convert("RGB")
        width, height = image.size
        right, low = (int(side) for side in rng.integers(0, 2, 2))
        x = np.abs(right * (width - 1) - np.sort(rng.uniform(0.02, 0.2, 4)) * width)
        y = np.abs(low * (height - 1) - rng.uniform(0.03, 0.15, 4) * height)
        stroke = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        ImageDraw.Draw(image).line(stroke, fill=INK_RGB, width=max(3, height // 20), joint="curve")
        image.save(path, quality=92)
    return PlantResult("shortcut", tuple(marked))


def read_rows(root: Path) -> list[dict[str, str]]:
    """The rows of the set's metadata."""
    with (root / METADATA).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_rows(root: Path, rows: list[dict[str, str]]) -> None:
    """Write the set's metadata anew."""
    with (root / METADATA).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


PLANTS: Mapping[str, Callable[..., PlantResult]] = {
    "label-noise": plant_label_noise,
    "shortcut": plant_shortcut,
}
