"""Draw a run's features in two dimensions."""

# Shapes: N images, D features.

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.config.data import PARTS
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_bytes, write_text
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes
from dermalyze.data.store import ImageStore
from dermalyze.data.thumbnails import small_pixels
from dermalyze.errors import ConfigError, DataError, UsageError, nearest
from dermalyze.report.feature_map import MOST_CLASSES, Colouring, colouring, even_sample, map_figure, map_page
from dermalyze.report.similar import jpeg
from dermalyze.scoring.features.pca import kept_neighbours
from dermalyze.scoring.features.projection import PROJECTION_NAMES, PROJECTIONS
from dermalyze.scoring.features.store import OWN, Features, read_features
from dermalyze.tasks.base import TASKS, Task

MOST_POINTS = 5000
MOST_PICTURES = 600
"""On the page: about 1.5 MB."""
PICTURE_PX = 120
NEIGHBOURS = 10
COLOURS = ("class", "error", "site", "source", "part")


@dataclass(frozen=True)
class EmbeddingsResult:
    """What was drawn.

    Attributes:
        figure, page: where it is.
        points: images in the figure.
        thumbnails: images on the page.
        kept: share of the 10 nearest on the map that are among the 10 nearest by features; None with too few images.
        caption: what to see, and what not.
    """

    figure: Path
    page: Path
    points: int
    thumbnails: int
    kept: float | None
    caption: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**vars(self), "figure": str(self.figure), "page": str(self.page)}

    def lines(self) -> list[str]:
        """Lines for a person."""
        return [
            f"{self.points} images. {self.caption}",
            f"figure: {self.figure}",
            f"page with {self.thumbnails} thumbnails: {self.page}",
        ]


def plot_embeddings(
    run: Run, spec: ExperimentSpec, *, features: str = OWN, method: str = "tsne", by: str = "class", part: str | None = None
) -> EmbeddingsResult:
    """A figure of one part's features, and a page on which pointing at a mark shows its image; the same seed, the same map.

    Args:
        run: split, with predictions of every part.
        spec: `seed` and `inference.recipe` are used, and `data` for the images.
        features: `own`, or a name that `embed` stored.
        method: pca, tsne or umap.
        by: class (with several labels per image: the label set), error, site, source or part, to which the page can be
            changed too; or the name of one class or label.
        part: train, val, cal, test or all; None: test, and all where they are colored by part.

    Raises:
        UsageError: an unknown word, nothing stored yet, or fewer than 3 images.
        MissingExtraError: umap without its extra.
        DataError, ModelError: see `read_features`.
    """
    task, classes = TASKS[spec.task.kind], read_classes(run)
    for option, word, allowed in (
        ("method", method, tuple(PROJECTIONS)),
        ("by", by, (*COLOURS, *(name for name in classes if name not in COLOURS))),
        ("part", part or "all", (*PARTS, "all")),
    ):
        if word not in allowed:
            raise UsageError(f"--{option} {word}: must be one of {', '.join(allowed)}{nearest(word, allowed)}")
    run.require_writable()
    part = part or ("all" if by == "part" else "test")
    found = read_features(run, spec.inference.recipe, features)
    found = found.rows(((found.frame["part"] == part) | (part == "all")).to_numpy())
    total, generator = len(found.frame), np.random.default_rng(spec.seed)
    if total < 3:
        raise UsageError(f"--part {part}: holds {total} images, at least 3 are needed")
    if total > MOST_POINTS:
        keep = np.zeros(total, dtype=bool)
        keep[generator.choice(total, MOST_POINTS, replace=False)] = True
        found = found.rows(keep)
    colours = colourings(found, classes, task)
    if by in classes and by not in COLOURS:
        colours[by] = one_class(found, classes, by, task)
    if by not in colours:
        raise UsageError(f"--by {by}: the run knows nothing of it; there are {', '.join(colours)}")
    say(f"plot-embeddings: {len(found.frame)} images by {PROJECTION_NAMES[method]}")
    points = PROJECTIONS[method](found.values, spec.seed)
    k = min(NEIGHBOURS, len(points) - 2)
    kept = kept_neighbours(found.values, points, k) if k >= 1 else None
    some = f", {len(points):,} drawn at random of {total:,}" if total > len(points) else ""
    what = f"{PROJECTION_NAMES[method]} of {found.what}, {'all parts' if part == 'all' else f'{part} part'}{some}"
    caption = caption_of(kept, k, len(points), trained=features == OWN and part in ("train", "all"))
    name = method if features == OWN else f"{method}-{features}"
    shown_by = re.sub(r"[^\w.-]+", "_", by)
    figure, page = run.embeddings_path(f"{name}-{shown_by}", ".png"), run.embeddings_path(name, ".html")
    drawn = map_figure(points, colours[by], title=f"{spec.name}: {what}", caption=caption, leak=found.accepted_leak)
    shown = even_sample(found.frame["label"].to_numpy(), MOST_PICTURES, generator)
    inside = found.rows(np.isin(np.arange(len(points)), shown))
    ordered = {one: colours[one] for one in sorted(colours, key=lambda one: (one != by, [*COLOURS, by].index(one)))}
    parts = {
        c.by: Colouring(c.by, c.names, c.of[shown], c.styles) for one, c in ordered.items() if len(c.names) > 1 or one == by
    }
    text = map_page(
        points[shown], parts, encoded_thumbnails(inside, spec), [words(inside, row) for row in range(len(shown))],
        title=f"{spec.name}: map of the features",
        subtitle=f"{what}; {len(shown):,} of {len(points):,} images are shown, as many of each {task.answer} as can be.",
        caption=caption, leak=found.accepted_leak,
    )  # fmt: skip
    write_bytes(figure, drawn)
    write_text(page, text)
    return EmbeddingsResult(figure, page, len(points), len(shown), kept, caption)


def caption_of(kept: float | None, k: int, points: int, *, trained: bool) -> str:
    """What a map shows and what it does not."""
    told = "Points that lie together look alike to the network; sizes of groups and distances between them are no evidence."
    if kept is not None:
        told += f" Of each image's {k} nearest on the map {kept:.0%} are among its {k} nearest by features "
        told += f"(chance: {k / (points - 1):.1%})."
    return told + (" Training images lie apart because their labels were learnt." if trained else "")


def colourings(found: Features, classes: list[str], task: Task) -> dict[str, Colouring]:
    """Those that the run knows something for."""
    frame = found.frame
    made = {"class": colouring(task.answer, frame["label"].astype(str).tolist(), classes, most=MOST_CLASSES)}
    if (found.called != "").all():
        right = np.where(found.right, "right", "wrong")
        made["error"] = colouring("error", right.tolist(), ["right", "wrong"])
    for column in ("site", "source"):
        if frame[column].notna().any():
            made[column] = colouring(column, frame[column].fillna("unknown").astype(str).tolist())
    return {**made, "part": colouring("part", frame["part"].astype(str).tolist(), PARTS)}


def one_class(found: Features, classes: list[str], name: str, task: Task) -> Colouring:
    """Whether each image has one class or label."""
    targets, c = task.targets(found.frame["label"].astype(str).tolist(), classes), classes.index(name)
    present_N, asked_N = task.membership(targets, len(classes))[:, c], task.observed(targets, len(classes))[:, c]
    values = np.where(present_N, "present", np.where(asked_N, "absent", "not known"))
    return colouring(name, values.tolist(), ["present", "absent", "not known"])


def words(found: Features, row: int) -> list[str]:
    """Lines about one image."""
    values = found.frame.iloc[row]
    called = str(found.called[row])
    lines = [str(values["image_id"]), f"label {values['label']}" + (f", called {called}" if called else "")]
    lines += [f"{column} {values[column]}" for column in ("site", "source") if isinstance(values[column], str)]
    return [*lines, f"{values['part']} part, group {values['group']}"]


def encoded_thumbnails(found: Features, spec: ExperimentSpec) -> list[str | None]:
    """A small JPEG of each image, in base64; None for one that is gone."""
    try:
        store = ImageStore.open(spec.data)
    except (ConfigError, DataError):
        say("map: the images are not available; the page shows none")
        return [None] * len(found.frame)
    made: list[str | None] = []
    with progress("thumbnails", len(found.frame)) as advance:
        for path in found.frame["path"]:
            pixels = small_pixels(store, str(path), PICTURE_PX)
            made.append(None if pixels is None else jpeg(pixels, PICTURE_PX, quality=70))
            advance(1)
    return made
