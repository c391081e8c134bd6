"""Near-duplicates: pairs of images of one photograph (`data.duplicate_search`) and the clusters that they form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from dermalyze.core.atomic import sha256_bytes
from dermalyze.core.run import Run, read_json
from dermalyze.data.duplicate_search import LEAST_CONTRAST, SIZE, find_near_duplicates, shrink
from dermalyze.data.grouping import components, keys
from dermalyze.data.inspection import map_images
from dermalyze.data.manifest import write_manifest
from dermalyze.data.samples import one_row_per_image
from dermalyze.data.store import ImageStore, ReadError
from dermalyze.data.thumbnails import Gallery, GalleryImage
from dermalyze.errors import DataError, ModelError
from dermalyze.imaging import phash
from dermalyze.imaging.decode import PREPARE_FORMATS, decode
from dermalyze.imaging.image import ImageError

VERSION = 1  # of what is found; another one looks at the images again
SHOWN = 200  # pairs in a gallery


@dataclass(frozen=True)
class Pair:
    """Two images that show one photograph.

    Attributes:
        first, second: image_ids, in order.
        correlation: of their detail once aligned, `CONFIRM`..1.
        transform: what turns the second into the first, one of `imaging.phash.TRANSFORMS`.
    """

    first: str
    second: str
    correlation: float
    transform: str


@dataclass(frozen=True)
class Duplicates:
    """What was found in a set.

    Attributes:
        fingerprint: SHA-256 of the pixels that were compared, and of the version of the comparison.
        pairs: by ids; images with the same pixels are no pairs.
        clusters: image_ids that pairs join, each sorted, two or more.
        compared, featureless: images that were compared; images of one color, which were not.
    """

    fingerprint: str
    pairs: tuple[Pair, ...]
    clusters: tuple[tuple[str, ...], ...]
    compared: int
    featureless: int

    @property
    def largest(self) -> int:
        """Images in the largest cluster; 0 without any."""
        return max(map(len, self.clusters), default=0)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, which `recorded` reads."""
        return {
            "fingerprint": self.fingerprint,
            "compared": self.compared,
            "featureless": self.featureless,
            "pairs": len(self.pairs),
            "clusters": len(self.clusters),
            "largest_cluster": self.largest,
            "list": [asdict(pair) for pair in self.pairs],
        }


def thumbnails(store: ImageStore, paths: Sequence[str], *, workers: int | None = None) -> NDArray[np.uint8]:
    """Every image decoded once and squeezed to (N, 64, 64, 3) RGB.

    Raises:
        DataError: an image that `prepare` could read is gone or changed.
        ResourceError: a worker was killed, or memory ran out.
    """
    found = np.empty((len(paths), SIZE, SIZE, 3), dtype=np.uint8)
    for i, small in enumerate(map_images(_shrink, store, paths, title="audit", workers=workers)):
        if isinstance(small, str):
            raise DataError(f"{paths[i]}: {small}; it could be read before: restore it, or run prepare in a new run folder")
        found[i] = small
    return found


def _shrink(store: ImageStore, path: str) -> NDArray[np.uint8] | str:
    try:
        return shrink(Image.fromarray(decode(store.read(path), formats=PREPARE_FORMATS).pixels))
    except ReadError as error:
        return error.reason
    except ImageError as error:
        return str(error)


def fingerprint(frame: pd.DataFrame) -> str:
    """SHA-256 of what the comparison depends on: ids and pixels of the images, and the version."""
    rows = [f"{image_id}\t{digest}" for image_id, digest in zip(frame["image_id"], frame["pixel_sha256"], strict=True)]
    return sha256_bytes("\n".join([f"{VERSION}", *sorted(rows)]).encode())


def find_duplicates(frame: pd.DataFrame, store: ImageStore, *, workers: int | None = None) -> Duplicates:
    """Compare every image with every other.

    Args:
        frame: usable manifest rows; those without a path or pixels are left out.
        store: reads the bytes.
        workers: decoding processes; None: one per core; 0: in this process.

    Raises:
        DataError: an image that `prepare` could read is gone or changed.
        ResourceError: a worker was killed, or memory ran out.
    """
    frame = comparable(frame)
    thumbs = thumbnails(store, frame["path"].tolist(), workers=workers)
    shown = np.array([thumb.std() >= LEAST_CONTRAST for thumb in thumbs], dtype=bool)
    images, transforms, values = find_near_duplicates(thumbs[shown])
    ids, pixels = (frame.loc[shown, name].astype(str).to_numpy() for name in ("image_id", "pixel_sha256"))
    pairs = tuple(
        Pair(str(ids[i]), str(ids[j]), round(float(value), 3), phash.TRANSFORMS[transform])
        for (i, j), transform, value in zip(images, transforms, values, strict=True)
        if pixels[i] != pixels[j] and ids[i] != ids[j]
    )
    if not frame["image_id"].is_unique:  # cases of two images may be alike in both
        best = {(pair.first, pair.second): pair for pair in sorted(pairs, key=lambda pair: pair.correlation)}
        pairs = tuple(best[ids] for ids in sorted(best))
    return Duplicates(fingerprint(frame), pairs, clusters_of(pairs), int(shown.sum()), int((~shown).sum()))


def recorded(run: Run, frame: pd.DataFrame) -> Duplicates | None:
    """What the last audit found, if it compared the same pixels in the same way.

    Args:
        frame: usable manifest rows.
    """
    try:
        found = read_json(run.audit_path).get("duplicates") if run.audit_path.exists() else None
        if not isinstance(found, dict) or found.get("fingerprint") != fingerprint(comparable(frame)):
            return None
        pairs = tuple(Pair(**pair) for pair in found["list"])
        known = set(frame["image_id"].astype(str))
        if not all(pair.first in known and pair.second in known for pair in pairs):
            return None
        return Duplicates(found["fingerprint"], pairs, clusters_of(pairs), int(found["compared"]), int(found["featureless"]))
    except (ModelError, KeyError, TypeError, ValueError):  # damaged or edited: it is made again
        return None


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose pixels are known, by image_id; an optional image is a row of its own."""
    frame = one_row_per_image(frame)
    known = keys(frame, "path").notna() & keys(frame, "pixel_sha256").notna()
    return frame[known].sort_values("image_id", kind="stable")


def joined(frame: pd.DataFrame, pairs: Sequence[Pair]) -> pd.Series:
    """The cluster of each image: what pairs join, and what the column `cluster_id` joins already; null where it is alone.

    Args:
        frame: manifest rows, with the image_ids of all pairs.

    Returns:
        the smallest image_id of each image's cluster, indexed like `frame`; the same again from its own result.

    >>> frame = pd.DataFrame({"image_id": list("abcd"), "cluster_id": [None, "k", "k", None]})
    >>> joined(frame, [Pair("a", "b", 0.9, "none")]).tolist()
    ['a', 'a', 'a', None]
    """
    ids, own = frame["image_id"].astype(str), keys(frame, "cluster_id")
    first = ids.groupby(own).transform("min")
    edges = [(a, b) for a, b in zip(ids, first, strict=True) if isinstance(b, str)]
    names = ids.tolist()
    parts = pd.Series(_components(names, [*edges, *((pair.first, pair.second) for pair in pairs)]), index=frame.index)
    size, smallest = ids.groupby(parts).transform("size"), ids.groupby(parts).transform("min")
    return smallest.astype(object).where(size > 1, None).rename("cluster_id")


def clusters_of(pairs: Sequence[Pair]) -> tuple[tuple[str, ...], ...]:
    """What the pairs join, each sorted, by first id.

    >>> clusters_of([Pair("a", "c", 0.9, "none"), Pair("b", "c", 0.9, "none"), Pair("x", "y", 0.9, "none")])
    (('a', 'b', 'c'), ('x', 'y'))
    """
    ids = sorted({image_id for pair in pairs for image_id in (pair.first, pair.second)})
    parts = _components(ids, [(pair.first, pair.second) for pair in pairs])
    return tuple(sorted(tuple(ids[i] for i in np.flatnonzero(parts == part)) for part in np.unique(parts)))


def _components(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    number = {name: i for i, name in enumerate(names)}
    return components(len(names), [(number[a], number[b]) for a, b in edges])


def join_clusters(run: Run, manifest: pd.DataFrame, found: Duplicates) -> pd.DataFrame:
    """The manifest with every near-duplicate joined in `cluster_id`, written where that changes it; its split then falls.

    Raises:
        UsageError: another process works in the run.
        ResourceError: the run cannot be written.
    """
    clusters = joined(manifest, found.pairs)
    changed = manifest.assign(cluster_id=clusters)
    if clusters.fillna("").tolist() != keys(manifest, "cluster_id").fillna("").tolist():
        with run.lock():
            run.certificate_path.unlink(missing_ok=True)  # it is of the manifest as it was
            write_manifest(run, changed)
    return changed


# -- what it means ---------------------------------------------------------------------------------------------------------


def across(frame: pd.DataFrame, pairs: Sequence[Pair], column: str) -> list[Pair]:
    """The pairs whose images differ in a column, where both have a value; the most alike first.

    >>> frame = pd.DataFrame({"image_id": ["a", "b", "c"], "label": ["mel", "nv", None]})
    >>> [pair.second for pair in across(frame, [Pair("a", "b", 0.8, "none"), Pair("a", "c", 0.9, "none")], "label")]
    ['b']
    """
    value = dict(zip(frame["image_id"].astype(str), keys(frame, column), strict=True))
    known = [pair for pair in pairs if isinstance(value[pair.first], str) and isinstance(value[pair.second], str)]
    return sorted((p for p in known if value[p.first] != value[p.second]), key=lambda p: (-p.correlation, p.first, p.second))


def galleries(frame: pd.DataFrame, found: Duplicates) -> tuple[Gallery, ...]:
    """Pairs to be looked at, the most alike first: under two labels, across two values of lesion_id, and across two sources."""
    label = dict(zip(frame["image_id"].astype(str), keys(frame, "label"), strict=True))
    shown = []
    for column, kind, title, explanation in (
        (
            "label",
            "duplicate_labels",
            "Near-duplicates under two labels",
            "One of the labels is wrong; correct it in the source.",
        ),
        (
            "lesion_id",
            "duplicate_lesions",
            "Near-duplicates under two values of lesion_id",
            "The same subject under two numbers. Each pair stays in one split.",
        ),
        (
            "source",
            "duplicate_sources",
            "Near-duplicates of two sources",
            "The sources overlap: do not train on one and test on the other.",
        ),
    ):
        pairs = across(frame, found.pairs, column)
        rows = tuple(
            (
                GalleryImage(pair.first, f"{label[pair.first]}"),
                GalleryImage(pair.second, f"{label[pair.second]}; correlation {pair.correlation:.2f}; {pair.transform}"),
            )
            for pair in pairs[:SHOWN]
        )
        if rows:
            more = f" The {SHOWN} most alike of {len(pairs)} are shown." if len(pairs) > SHOWN else ""
            shown.append(Gallery(kind, title, explanation + more, rows))
    return tuple(shown)
