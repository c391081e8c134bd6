"""An invented set in the exact layout of HAM10000, so that everything can be taught, tried and tested with no download.

    OUT/HAM10000_metadata.csv                                  one row per image
    OUT/HAM10000_images_part_1/ISIC_9000001.jpg                the first half of the images
    OUT/HAM10000_images_part_2/ISIC_9000271.jpg                the others
    OUT/HAM10000_segmentations_lesion_tschandl/ISIC_9000001_segmentation.png

A class shows only in the lesion (`class_appearance`, `lesion`); skin, hair, light, scale and instrument (`photo`)
are drawn without knowing it. `dx_type` and, weakly, age and site do depend on the class, as in the real set. The numbers
of images and lesions begin with 9, which no real HAM10000 image has; the seed chooses where among a million they start,
so that two small sets of different seeds hardly ever share one.

The layout: Tschandl, Rosendahl, Kittler 2018, "The HAM10000 dataset", Sci Data 5:180161, doi 10.1038/sdata.2018.161.
"""

from __future__ import annotations

import csv
import multiprocessing
import operator
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dermalyze.core.atomic import resource_errors, sync_folder
from dermalyze.core.machine import available_cores
from dermalyze.core.progress import progress
from dermalyze.data.synthetic.class_appearance import CLASSES, draw_look
from dermalyze.data.synthetic.lesion import paint_lesion
from dermalyze.data.synthetic.photo import canvas_for, draw_session, paint_skin, photograph
from dermalyze.data.synthetic.plan import IMAGE_FOLDERS, MASK_FOLDER, METADATA, Balance, LesionPlan, Row, plan_set
from dermalyze.data.synthetic.plant import PlantResult, plant_defect, read_rows, require_kind
from dermalyze.errors import DataError, ResourceError, UsageError

LESIONS = (7, 200_000)
REMEDY = 'put the call under `if __name__ == "__main__":` if a script makes it, or give workers=1'
EDGE_PX = (32, 1024)
ONE_WORKER_PX = 1_200_000  # up to this many pixels (a few seconds) a second process costs more than it saves


@dataclass(frozen=True)
class SynthResult:
    """What was written.

    Attributes:
        root: the folder of the set.
        images: number of images.
        lesions: number of lesions.
        counts: images of each class, in the order of `CLASSES`.
        planted: the defect that was asked for.
    """

    root: Path
    images: int
    lesions: int
    counts: dict[str, int]
    planted: PlantResult | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        planted = {"kind": self.planted.kind, "images": len(self.planted.image_ids)} if self.planted else None
        return {
            "root": str(self.root),
            "images": self.images,
            "lesions": self.lesions,
            "counts": self.counts,
            **({"planted": planted} if planted else {}),
        }

    def lines(self) -> list[str]:
        """Lines for a person."""
        counts = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        lines = [f"{self.images} synthetic images of {self.lesions} lesions in {self.root}: {counts}"]
        if self.planted:
            lines.append(f"planted {self.planted.kind} in {len(self.planted.image_ids)} images; planted.json names them")
        return lines


@dataclass(frozen=True)
class Recipe:
    """What all lesions of a set share."""

    root: Path
    seed: int
    size_px: tuple[int, int]
    difficulty: float


def synthesize(
    out: Path,
    *,
    lesions: int = 400,
    seed: int = 7,
    size_px: int | tuple[int, int] = (150, 200),
    difficulty: float = 0.3,
    balance: Balance = "ham10000",
    images_per_lesion: float = 1.34,
    plant: str | None = None,
    workers: int | None = None,
) -> SynthResult:
    """Write an invented set to `out`.

    The same arguments give the same bytes, whatever the number of workers (on one machine and one version of numpy and
    Pillow). The set is made in a hidden folder beside `out` and renamed at the end.

    Args:
        out: the folder to make; it may exist when it is empty.
        lesions: number of lesions, 7..200000.
        seed: any whole number >= 0.
        size_px: (height, width), or one edge of a square, each 32..1024.
        difficulty: 0 (classes easy to tell) .. 1 (next to nothing tells them apart).
        balance: "ham10000" (its shares of lesions, but 5 of each class where the number allows) or "even".
        images_per_lesion: mean number of photographs of one lesion, 1..4; 1.34 in HAM10000.
        plant: a known defect, a key of `dermalyze.data.synthetic.plant.PLANTS`; which images carry it is written to
            planted.json.
        workers: processes; by default one per core. A script that is run itself must have an `if __name__ == "__main__":`
            guard around this call, or give `workers=1`.

    Raises:
        UsageError: a value is not allowed, or `out` exists and is not an empty folder. Nothing has been written.
        ResourceError: the disk is full, permission is lacking, or a worker process died. Nothing is left.

    >>> import tempfile
    >>> result = synthesize(Path(tempfile.mkdtemp()), lesions=7, size_px=32, balance="even", workers=1)
    >>> result.lesions, sorted(p.name for p in result.root.iterdir())[0]
    (7, 'HAM10000_images_part_1')
    """
    size_px = (size_px, size_px) if isinstance(size_px, int) else size_px
    check(lesions, seed, size_px, difficulty, balance, images_per_lesion, workers)
    if plant is not None:
        require_kind(plant)
    out = out.resolve()
    with resource_errors(out.name), folder_beside(out) as root:
        rows, plans = plan_set(lesions, seed, balance, images_per_lesion)
        for folder in (*IMAGE_FOLDERS, MASK_FOLDER):
            (root / folder).mkdir()
        with (root / METADATA).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow([field.name for field in fields(Row)])
            writer.writerows([[getattr(row, field.name) for field in fields(Row)] for row in rows])
        paint_all(Recipe(root, seed, size_px, difficulty), plans, workers)
        planted = plant_defect(plant, root, seed=seed) if plant is not None else None
        table = read_rows(root)
    counts = Counter(row["dx"] for row in table)
    lesions_made = len({row["lesion_id"] for row in table})
    return SynthResult(out, len(table), lesions_made, {dx: counts[dx] for dx in CLASSES}, planted)


# --- checks ----------------------------------------------------------------------------------------------------------


def check(
    lesions: int,
    seed: int,
    size_px: tuple[int, int],
    difficulty: float,
    balance: str,
    images_per_lesion: float,
    workers: int | None,
) -> None:
    """Refuse arguments that make no sense; see `synthesize`."""
    check_whole("lesions", lesions, *LESIONS)
    check_whole("seed", seed, 0, 2**63 - 1)
    if not isinstance(size_px, tuple) or len(size_px) != 2:
        raise UsageError(f"synth: size_px is {size_px!r}; allowed are (height, width) or one edge; give for example 150,200")
    for edge in size_px:
        check_whole("an edge of size_px", edge, *EDGE_PX)
    if workers is not None:
        check_whole("workers", workers, 1, 256)
    for name, value, low, high in (("difficulty", difficulty, 0, 1), ("images_per_lesion", images_per_lesion, 1, 4)):
        if not low <= value <= high:
            raise UsageError(f"synth: {name} is {value}; allowed is a number from {low} to {high}; change {name}")
    if balance not in get_args(Balance):
        raise UsageError(f"synth: balance is '{balance}'; allowed are {', '.join(get_args(Balance))}; choose one of them")


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Refuse what is no whole number from `low` to `high`."""
    try:
        good = not isinstance(value, bool) and low <= operator.index(value) <= high
    except TypeError:
        good = False
    if not good:
        raise UsageError(f"synth: {name} is {value!r}; allowed is a whole number from {low} to {high}; change it")


def check_free(out: Path) -> None:
    """Refuse a place that is taken."""
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"synth: {out.name} is a folder that holds files; allowed is a new or empty one; choose another")
    nearest = next(place for place in (out, *out.parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"synth: {nearest.name} is a file; allowed is a new or empty folder; choose another name")


@contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `out`; on success it becomes `out`, on failure it is removed."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker, which only reads a script without a guard
        raise ResourceError(f"synth: called again by its own worker process; {REMEDY}")
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        yield root
        root.chmod(0o755)
        check_free(out)
        if out.exists():
            out.rmdir()
        root.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(root, ignore_errors=True)


# --- painting --------------------------------------------------------------------------------------------------------


def paint_all(recipe: Recipe, plans: Sequence[LesionPlan], workers: int | None) -> None:
    """Paint and write every lesion, in this process when one worker is enough."""
    if workers is None:
        height, width = recipe.size_px
        workers = min(available_cores(), 1 + len(plans) * height * width // ONE_WORKER_PX)
    if workers == 1:
        with progress("synth", len(plans), "lesions", cost=True) as advance:
            for plan in plans:
                write_lesion(recipe, plan)
                advance(1)
        return
    step = max(1, min(16, len(plans) // (4 * workers)))
    chunks = [plans[start : start + step] for start in range(0, len(plans), step)]
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context)
    try:
        with progress("synth", len(plans), "lesions", cost=True) as advance:
            for chunk, _ in zip(chunks, pool.map(write_lesions, [recipe] * len(chunks), chunks), strict=True):
                advance(len(chunk))
    except BrokenProcessPool as error:
        raise ResourceError(f"synth: a worker process died; {REMEDY}") from error
    finally:
        pool.shutdown(cancel_futures=True)


def write_lesions(recipe: Recipe, plans: Sequence[LesionPlan]) -> None:
    """Paint and write some lesions (the work of one process)."""
    for plan in plans:
        write_lesion(recipe, plan)


def write_lesion(recipe: Recipe, plan: LesionPlan) -> None:
    """Paint one lesion on its skin and write each of its photographs and masks."""

    def stream(*purpose: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(1, plan.index, *purpose)))

    canvas = canvas_for(recipe.size_px)
    skin = paint_skin(stream(0), canvas)
    look = draw_look(stream(1), plan.dx, recipe.difficulty)
    size = float(np.clip(stream(2).lognormal(np.log(0.26), 0.38), 0.12, 0.50))
    mask = paint_lesion(stream(3), skin, canvas, look, size)
    session, colour = draw_session(stream(4)), skin.colour()
    for shot, (image_file, mask_file) in enumerate(plan.files):
        image, lesion = photograph(stream(5, shot), canvas, colour, mask, session, recipe.size_px)
        image.save(recipe.root / image_file, quality=92)
        lesion.save(recipe.root / mask_file, optimize=False)


# --- looking at it ---------------------------------------------------------------------------------------------------


def contact_sheet(root: Path, *, columns: int = 8, rows_per_class: int = 1) -> Image.Image:
    """An image of a HAM10000-like folder: for each class, labelled, the first images of different lesions.

    Args:
        root: a folder in HAM10000's layout, invented or real, images unpacked.
        columns: images in a row, >= 1.
        rows_per_class: rows per class, >= 1.

    Returns:
        An RGB image of 7 * rows_per_class rows of tiles, each at most 200 x 150 pixels.

    Raises:
        DataError: the metadata or an image is not there, or cannot be read.
    """
    check_whole("columns", columns, 1, 64)
    check_whole("rows_per_class", rows_per_class, 1, 64)
    width, height, margin = 200, 150, 64
    sheet = Image.new("RGB", (margin + columns * width, len(CLASSES) * rows_per_class * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    chosen = first_of_each_lesion(root, columns * rows_per_class)
    for line, dx in enumerate(CLASSES):
        top = line * rows_per_class * height
        draw.text((8, top + rows_per_class * height // 2 - 10), dx, fill="black", font=font)
        for place, path in enumerate(chosen[dx]):
            try:
                with Image.open(path, formats=["JPEG"]) as image:
                    tile = image.convert("RGB")
            except OSError as error:
                raise DataError(f"{path.name}: no readable JPEG ({type(error).__name__}); restore the file") from error
            tile.thumbnail((width, height))
            row, column = divmod(place, columns)
            sheet.paste(tile, (margin + column * width, top + row * height))
    return sheet


def first_of_each_lesion(root: Path, count: int) -> Mapping[str, list[Path]]:
    """Up to `count` image paths of each class, one per lesion, in the order of the metadata."""
    table = root / METADATA
    if not table.is_file():
        raise DataError(f"{root.name}: {METADATA} is not there; give the folder that holds it")
    chosen: dict[str, list[Path]] = {dx: [] for dx in CLASSES}
    seen: set[str] = set()
    with table.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if missing := {"lesion_id", "image_id", "dx"} - set(reader.fieldnames or ()):
            raise DataError(f"{table.name}: column {', '.join(sorted(missing))} is missing; give HAM10000's own table")
        for row in reader:
            paths = chosen.get(row["dx"], [])
            if row["lesion_id"] in seen or row["dx"] not in chosen or len(paths) >= count:
                continue
            places = [root / folder / f"{Path(row['image_id']).name}.jpg" for folder in IMAGE_FOLDERS]
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                raise DataError(f"{table.name}: image {row['image_id']} is in none of {', '.join(IMAGE_FOLDERS)}; unpack them")
            seen.add(row["lesion_id"])
            paths.append(path)
    return chosen
