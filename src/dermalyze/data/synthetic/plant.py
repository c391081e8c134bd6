"""Known defects in a synthetic set: what every detector of the audit is tried on. `planted.json` tells what was planted."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dermalyze.core.atomic import write_json
from dermalyze.data.synthetic.class_appearance import CLASSES
from dermalyze.data.synthetic.copies import COPIES
from dermalyze.data.synthetic.plan import IMAGE_FOLDERS, METADATA
from dermalyze.errors import UsageError, nearest

PLANTED = "planted.json"
DUPLICATE_SHARE, CROSSING_SHARE, NOISE_SHARE = 0.1, 0.2, 0.08
INK_RGB = (70, 40, 150)  # gentian violet, with which skin is marked


@dataclass(frozen=True)
class PlantResult:
    """What was planted.

    Attributes:
        kind: of the defect, a key of `PLANTS`.
        image_ids: the images that carry it, sorted.
        made_from: of each copy, the image it was made from and the kind of copy, a key of `COPIES`.
    """

    kind: str
    image_ids: tuple[str, ...]
    made_from: Mapping[str, tuple[str, str]] = field(default_factory=dict)


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

    >>> require_kind("duplicate")
    Traceback (most recent call last):
    ...
    dermalyze.errors.UsageError: synth: plant is 'duplicate'; ...; did you mean 'duplicates'?
    """
    if kind not in PLANTS:
        raise UsageError(f"synth: plant is '{kind}'; allowed are {', '.join(PLANTS)}{nearest(kind, list(PLANTS))}")


def plant_duplicates(root: Path, *, seed: int) -> PlantResult:
    """Copy a tenth of the images, at least one per kind of `COPIES`, under new numbers of image and lesion, without masks."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, 2)))
    rows = read_rows(root)
    count = min(len(rows), max(len(COPIES), round(DUPLICATE_SHARE * len(rows))))
    last_image, last_lesion = (max(int(row[name].rpartition("_")[2]) for row in rows) for name in ("image_id", "lesion_id"))
    made_from = {}
    for n, i in enumerate(sorted(int(i) for i in rng.choice(len(rows), count, replace=False)), start=1):
        kind, row = list(COPIES)[n % len(COPIES)], rows[i]
        path = image_path(root, row["image_id"])
        with Image.open(path, formats=["JPEG"]) as picture:
            copy, quality = COPIES[kind](picture.convert("RGB"), rng)
        image_id = f"ISIC_{last_image + n}"
        copy.save(path.with_name(f"{image_id}.jpg"), quality=quality)
        rows.append({**row, "image_id": image_id, "lesion_id": f"HAM_{last_lesion + n}"})
        made_from[image_id] = (row["image_id"], kind)
    write_rows(root, rows)
    return PlantResult("duplicates", tuple(sorted(made_from)), made_from)


def plant_crossing(root: Path, *, seed: int) -> PlantResult:
    """Add a `split` column, a quarter of each class's lesions in test, with some lesions photographed in both splits.

    Raises:
        UsageError: no lesion of a train split has two photographs.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, 3)))
    rows = read_rows(root)
    lesions = {row["lesion_id"]: row["dx"] for row in rows}
    parts: dict[str, str] = {}
    for dx in CLASSES:
        mine = rng.permutation(sorted(lesion for lesion in lesions if lesions[lesion] == dx))
        parts |= {str(lesion): "test" if n % 4 == 1 else "train" for n, lesion in enumerate(mine)}
    photographs = Counter(row["lesion_id"] for row in rows)
    twice = sorted(lesion for lesion, n in photographs.items() if n > 1 and parts[lesion] == "train")
    if not twice:
        raise UsageError("synth: no lesion of the train split has two photographs to divide; ask for more lesions")
    chosen = {str(lesion) for lesion in rng.choice(twice, max(1, round(CROSSING_SHARE * len(twice))), replace=False)}
    moved = {max(row["image_id"] for row in rows if row["lesion_id"] == lesion) for lesion in chosen}
    write_rows(root, [{**row, "split": "test" if row["image_id"] in moved else parts[row["lesion_id"]]} for row in rows])
    return PlantResult("crossing", tuple(sorted(row["image_id"] for row in rows if row["lesion_id"] in chosen)))


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
    """Put a stroke of violet ink into a corner of every image of melanoma, and of no other."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, 1)))
    marked = sorted(row["image_id"] for row in read_rows(root) if row["dx"] == "mel")
    for image_id in marked:
        path = image_path(root, image_id)
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


def image_path(root: Path, image_id: str) -> Path:
    """Where one of the set's images lies."""
    return next(place for folder in IMAGE_FOLDERS if (place := root / folder / f"{image_id}.jpg").is_file())


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
    "crossing": plant_crossing,
    "duplicates": plant_duplicates,
    "label-noise": plant_label_noise,
    "shortcut": plant_shortcut,
}
