"""Image statistics and artifacts of a data set, and how well they predict the label or the source.

Shapes: N images, K numbers of each, C classes, F folds.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from dermalyze.audit.association import FOLDS, GIVEAWAY_AUROC, association, best_of, binned, folds, held_out_aurocs
from dermalyze.audit.checks import Finding
from dermalyze.data.grouping import keys
from dermalyze.data.inspection import map_images
from dermalyze.data.store import ImageStore, ReadError
from dermalyze.data.thumbnails import Gallery, GalleryImage
from dermalyze.imaging.decode import PREPARE_FORMATS, decode
from dermalyze.imaging.image import ImageError
from dermalyze.imaging.modalities import Words
from dermalyze.imaging.photo_artifacts import ARTIFACTS, STATISTICS, THUMBNAIL_PX, jpeg_quality, measure, rim_colors
from dermalyze.imaging.skin_tone import skin_tone

FILE_STATISTICS = ("bytes_per_pixel", "jpeg_quality")
MEASURES = (*STATISTICS, *FILE_STATISTICS)
TONE = ("ita", "skin_share")
TELLING_AUROC = 0.65
"""An artifact or a JPEG quality that ranks one class so well is reported. For something that is there or not, the AUROC is
0.5 + (p - q) / 2, with p its share in the class and q in the rest: 0.65 is a difference of 30 percentage points."""
SOURCE_AUROC = 0.9
"""Looks that rank one source above the others this well are reported."""
TREES = 100
LEAST_IMAGES, LEAST_GROUPS = 50, 20  # of a set, for the trees; of a class, for an AUROC that is not mostly chance
SHOWN = 10
"""Images of each artifact in a gallery."""


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """What was measured on the images of a set.

    Attributes:
        frame: one row per image, index and order as given: `MEASURES`, the keys of `ARTIFACTS` and `TONE`, floats; NaN where
            it does not apply (no JPEG, too small) or the image cannot be read any more.
        rim: (N, 72) uint8, see `dermalyze.imaging.photo_artifacts.rim_colors`; 0 where the image cannot be read.
        unreadable: images that cannot be read any more.
    """

    frame: pd.DataFrame
    rim: NDArray[np.uint8]
    unreadable: int

    def artifact(self, name: str) -> pd.Series:
        """Whether it was found in each image, as text: "yes", "no", or null where it was not sought."""
        values = self.frame[name]
        return pd.Series(np.where(values >= ARTIFACTS[name].threshold, "yes", "no"), values.index).where(values.notna(), None)


def measure_images(store: ImageStore, frame: pd.DataFrame, *, workers: int | None = None) -> ImageStatistics:
    """Decode each image once and measure it.

    Args:
        store: reads the bytes.
        frame: usable manifest rows, with `path`, and `mask_path` where there are masks.
        workers: processes; None: one per core; 0: in this process.

    Raises:
        DataError: a path outside the data folder, or an unsafe archive.
        ResourceError: a worker was killed, or memory ran out.
    """
    masks = [mask if isinstance(mask, str) else None for mask in keys(frame, "mask_path")]
    images = list(zip(frame["path"].astype(str), masks, strict=True))
    found = map_images(_measure, store, images, workers=workers, title="looks")
    rows = [values for values, _ in found]
    names = [*MEASURES, *ARTIFACTS, *TONE]
    rim_N = np.stack([rim for _, rim in found]) if found else np.zeros((0, 72), np.uint8)
    return ImageStatistics(
        pd.DataFrame(rows, index=frame.index, columns=names, dtype=np.float64), rim_N, sum(not row for row in rows)
    )


def _measure(store: ImageStore, image: tuple[str, str | None]) -> tuple[dict[str, float], NDArray[np.uint8]]:
    path, mask_path = image
    try:
        data = store.read(path)
        pixels = decode(data, formats=PREPARE_FORMATS).pixels
    except (ReadError, ImageError):
        return {}, np.zeros(72, np.uint8)
    thumbnail = Image.fromarray(pixels)
    thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR)
    small = np.asarray(thumbnail)
    file = {"bytes_per_pixel": len(data) / (pixels.shape[0] * pixels.shape[1]), "jpeg_quality": _quality(data)}
    tone = skin_tone(small, _mask(store, mask_path, thumbnail.size))
    return {**asdict(measure(small)), **file, "ita": tone.ita, "skin_share": tone.share}, rim_colors(small)


def _mask(store: ImageStore, path: str | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Where the mask is set, at a thumbnail's size; None where no mask is known or it cannot be read."""
    if path is None:
        return None
    try:
        pixels = decode(store.read(path), formats=PREPARE_FORMATS).pixels
    except (ReadError, ImageError):
        return None
    return np.asarray(Image.fromarray(pixels.max(axis=2)).resize(size, Image.Resampling.NEAREST)) > 127


def _quality(data: bytes) -> float:
    if not data.startswith(b"\xff\xd8\xff"):
        return float("nan")
    with JpegImagePlugin.jpeg_factory(io.BytesIO(data), "") as image:
        return jpeg_quality([list(table) for table in image.quantization.values()])


def audit_statistics(frame: pd.DataFrame, looks: ImageStatistics, words: Words) -> tuple[list[Finding], dict[str, Any]]:
    """Findings and tables on how image statistics predict label and source.

    Args:
        frame: the rows that were measured, with `label`, `source` and `group`.
        looks: of the same rows.
        words: of the modality.

    Returns:
        Findings, and the tables "artifacts" and "looks" ({title, explanation, columns, rows}).
    """
    found = []
    if looks.unreadable:
        detail = f"{looks.unreadable} image(s) can no longer be read; restore the data, or prepare a new run folder"
        found.append(Finding("unreadable", "warn", looks.unreadable, detail))
    read = looks.frame["brightness"].notna()
    frame, looks = frame[read], ImageStatistics(looks.frame[read], looks.rim[read.to_numpy()], 0)
    if len(frame) == 0:
        return found, {}
    artifacts, artifact_table, telling = _audit_artifacts(frame, looks, words)
    giveaways, look_table = _audit_giveaways(frame, looks, words)
    look_table["rows"] += telling
    return [*found, *artifacts, *giveaways], {"artifacts": artifact_table, "looks": look_table}


def _audit_artifacts(
    frame: pd.DataFrame, looks: ImageStatistics, words: Words
) -> tuple[list[Finding], dict[str, Any], list[list[Any]]]:
    """Shares of each artifact, overall and by class, and where they differ strongly between classes; rows for "looks"."""
    label, found, telling = frame["label"].astype(str), [], list[list[Any]]()
    shares: dict[str, list[float | None]] = {name: [] for name in ("all", *sorted(set(label)))}
    for name, artifact in ARTIFACTS.items():
        there = looks.artifact(name)
        for row in shares:
            mine = there[label == row] if row != "all" else there
            shares[row].append(
                round(100 * float((mine == "yes").sum() / mine.notna().sum()), 1) if mine.notna().any() else None
            )
        area, best = association(there, label, frame["group"], least=LEAST_GROUPS)
        if best:
            telling.append([f"{artifact.title}, there or not", "class", round(area, 3), best])
        if area >= TELLING_AUROC:
            inside, outside = (100 * float((there[rows] == "yes").mean()) for rows in (label == best, label != best))
            detail = (
                f"{artifact.title}: in {inside:.0f} % of the images of '{best}' and {outside:.0f} % of the others "
                f"(estimates; AUROC {area:.2f} on held-out groups): a network can learn it instead of the {words.subject}; "
                "crop or paint it out, even it out between the classes, or measure on images with and without it"
            )
            found.append(Finding("artifact_by_class", "warn", int((there == "yes").sum()), detail, (name,)))
    counts = {name: int((looks.artifact(name) == "yes").sum()) for name in ARTIFACTS}
    if any(counts.values()):
        said = ", ".join(
            f"{ARTIFACTS[name].title} {share:.1f} %" for name, share in zip(ARTIFACTS, shares["all"], strict=True) if share
        )
        detail = (
            f"in the images, by estimate: {said}; augmentation does not remove them: compare the results with and without them"
        )
        found.append(
            Finding("artifacts", "info", sum(counts.values()), detail, tuple(n for n, count in counts.items() if count))
        )
    rows = [[name, len(frame) if name == "all" else int((label == name).sum()), *values] for name, values in shares.items()]
    table = {
        "title": "Artifacts by class, % of the images",
        "explanation": "Estimates, with thresholds set by eye on HAM10000. "
        + "; ".join(f"{a.title}: {a.meaning}" for a in ARTIFACTS.values())
        + ".",
        "columns": ["class", "images", *(a.title for a in ARTIFACTS.values())],
        "rows": rows,
    }
    return found, table, telling


def _audit_giveaways(frame: pd.DataFrame, looks: ImageStatistics, words: Words) -> tuple[list[Finding], dict[str, Any]]:
    """How well colors, sharpness and compression predict the class and the source, each alone and together."""
    source = keys(frame, "source").fillna("(none)").astype(str)
    several = source.nunique() > 1
    everything_NK = np.column_stack([looks.frame[[*MEASURES]].fillna(-1.0).to_numpy(), looks.rim])
    single = {name: binned(looks.frame[name]) for name in MEASURES if looks.frame[name].nunique() > 1}
    rows: list[list[Any]] = []
    for target, values in (("class", frame["label"].astype(str)), *((("source", source),) if several else ())):
        scores = {
            name.replace("_", " "): association(measure, values, frame["group"], least=LEAST_GROUPS)
            for name, measure in single.items()
        }
        if len(frame) >= LEAST_IMAGES:
            scores["the rim alone"] = _together(looks.rim.astype(np.float64), values, frame["group"])
            scores["all together"] = _together(everything_NK, values, frame["group"])
        rows += [[name, target, round(area, 3), best] for name, (area, best) in scores.items() if best]
    found = []
    for name, target, area, best in rows:
        if target == "class" and area >= (TELLING_AUROC if name == "jpeg quality" else GIVEAWAY_AUROC):
            detail = (
                f"image statistics ({name}) predict the class: AUROC {area:.2f} for '{best}' against the rest, on "
                f"held-out groups; the colors of the {words.subject} predict some of its class, but this much "
                "comes from how the data set was made: view the images, mix the origins, or evaluate on another set"
            )
            found.append(Finding("telling_looks", "warn", 1, detail, (name,)))
        if target == "source" and name == "all together" and area >= SOURCE_AUROC:
            telling = association(source, frame["label"], frame["group"])[0]
            detail = (
                f"image statistics predict the source: AUROC {area:.2f} for '{best}' against the rest, and the source "
                f"alone predicts a class with {telling:.2f}; a network can learn the source instead of the {words.subject}: "
                "balance the classes within each source, and report results by source"
            )
            found.append(Finding("telling_source", "warn", int(source.nunique()), detail, (best,)))
    table = {
        "title": "What image statistics predict",
        "explanation": "AUROC of one class (or source) against the rest, on held-out groups; 0.5 is chance. "
        f"{words.background.capitalize()} and {words.subject} do differ in color between diagnoses, so values up to about "
        f"0.9 are no alarm; from {GIVEAWAY_AUROC:g} on the way the set was made is the likelier reason. The rim, "
        f"where no {words.subject} is, and the compression say next to nothing of a diagnosis.",
        "columns": ["measure", "tells", "AUROC", "best told"],
        "rows": rows,
    }
    return found, table


def _together(values_NK: NDArray[np.float64], labels: pd.Series, group: pd.Series) -> tuple[float, str]:
    """`association` of many numbers at once: trees evaluated on held-out groups.

    Geurts, Ernst, Wehenkel 2006, "Extremely randomized trees", doi 10.1007/s10994-006-6226-1
    """
    from sklearn.ensemble import ExtraTreesClassifier

    names, fold_N = sorted(set(labels)), folds(group)
    code_N = np.array([names.index(label) for label in labels])  # labels like "0" and "1" are numbers to scikit-learn's weights
    score_NC = np.zeros((len(labels), len(names)))
    for fold in range(FOLDS):
        test = fold_N == fold
        if not test.any() or len(set(code_N[~test])) < 2:
            continue
        trees = ExtraTreesClassifier(TREES, min_samples_leaf=3, class_weight="balanced", random_state=0, n_jobs=1)
        trees.fit(values_NK[~test], code_N[~test])
        score_NC[np.ix_(test, trees.classes_)] = trees.predict_proba(values_NK[test])
    return best_of(held_out_aurocs(score_NC.round(12), labels, group, least=LEAST_GROUPS))


def artifact_galleries(frame: pd.DataFrame, looks: ImageStatistics) -> list[Gallery]:
    """Examples of each artifact, from the strongest to the weakest that counts."""
    galleries = []
    for name, artifact in ARTIFACTS.items():
        there = frame[(looks.artifact(name) == "yes").to_numpy()]
        if len(there) == 0:
            continue
        value = looks.frame[name]
        order = sorted(there.index, key=lambda i: (-value[i], str(frame["image_id"][i])))
        chosen = [order[round(k)] for k in np.linspace(0, len(order) - 1, min(SHOWN, len(order)))]
        row = tuple(GalleryImage(str(frame["image_id"][i]), str(frame["label"][i])) for i in chosen)
        said = f"{len(there)} of {len(frame)} images, by estimate: {artifact.meaning}. From the strongest to the weakest."
        galleries.append(Gallery(f"artifact_{name}", artifact.title.capitalize(), said, (row,)))
    return galleries
