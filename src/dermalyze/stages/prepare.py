"""From a folder of photographs to a manifest: every image is read and checked once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pandas as pd

from dermalyze.audit.association import refuse_revealing
from dermalyze.config.columns import is_giveaway
from dermalyze.config.data import DataSpec
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.task import MultilabelTask
from dermalyze.core.atomic import sha256_bytes, sha256_file, write_json, write_text
from dermalyze.core.run import MANIFEST_COLUMNS, OWN_NAMES, Run, read_json
from dermalyze.core.tables import csv_text
from dermalyze.data.inspection import Inspected, inspect_images
from dermalyze.data.labels import require_classes, settle_labels
from dermalyze.data.manifest import manifest_bytes, read_manifest, usable, write_manifest
from dermalyze.data.metadata import require_columns
from dermalyze.data.multilabel_targets import counts_by, label_counts, require_both, settle_label_sets
from dermalyze.data.samples import (
    as_samples,
    count_optional,
    inspect_optional,
    optional_columns,
    optional_lines,
    require_images,
)
from dermalyze.data.sources import MISSING_FILE, SOURCES, Listing
from dermalyze.data.sources.cards import focus_of, malignant_of
from dermalyze.data.sources.files import nearest_image
from dermalyze.data.sources.reading import code_notes, refuse_placeholders
from dermalyze.data.store import ImageStore
from dermalyze.errors import DataError
from dermalyze.imaging.modalities import modality_of
from dermalyze.tasks.base import TASKS, Task
from dermalyze.tasks.multilabel import NO_LABEL

VERSION = 1  # of what is written; another one decodes again
_ASKED = ("patient_id", "lesion_id", "mask_path", "age", "sex", "site", "source", "split")
_SHOWN = 20


@dataclass(frozen=True)
class PrepareResult:
    """What a data set holds.

    Attributes:
        summary: the content of summary.json.
        fresh: False where the run was prepared from the same input before and nothing had to be done.
    """

    summary: Mapping[str, Any]
    fresh: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.summary, "fresh": self.fresh}

    def lines(self) -> list[str]:
        """Lines for a person."""
        s = self.summary
        per_class = ", ".join(f"{name} {n}" for name, n in s["class_counts"].items())
        said = [f"{s['images']} usable images: {per_class}"]
        if s["task"] == "multilabel":
            said.append(f"{s['without_label']} images have no label; one may have several")
        if s["lesions"] is not None:
            images = ", ".join(f"{n} with {k}" for k, n in s["images_per_lesion"].items())
            said.append(f"{s['lesions']} lesions by number of images: {images}")
        if s["quarantined"]["images"]:
            said.append(f"{s['quarantined']['images']} images quarantined: {_pairs(s['quarantined']['by_reason'])}")
        said += optional_lines(s["optional_images"])
        said += [
            f"{pair['sources'][0]} and {pair['sources'][1]} share {pair['pictures']} identical images; each stays in one split"
            for pair in s["shared_pictures"]
        ]
        twice = s["duplicates"]
        if twice["images"]:
            said.append(
                f"{twice['images']} images are copies of {twice['pictures']} distinct images under several ids, "
                f"{twice['conflicting']} of them under two labels; dermalyze audit lists them"
            )
        if s["personal_metadata"]:
            said.append(f"metadata that can identify a person (never copied): {_pairs(s['personal_metadata'])}")
        missing = {name: n for name, n in s["missing"].items() if 0 < n < s["images"]}
        if missing:
            said.append(f"missing values: {_pairs(missing)}")
        return [*said, *s["notes"], *([] if self.fresh else ["the input is unchanged; nothing was decoded again"])]


def prepare(run: Run, spec: ExperimentSpec) -> PrepareResult:
    """Read the source, decode every image once, and write manifest, labels and summary.

    The same input again returns at once. Nothing is written before everything is known to be good; the manifest comes last.

    Args:
        run: gets manifest.parquet, labels.csv and summary.json.
        spec: its data section; paths are relative to the working folder.

    Raises:
        ConfigError: no data path, classes and label map that do not fit together, metadata that the set does not have, or a
            name in `evaluate.focus` or `evaluate.malignant` that is no class.
        DataError: an unsafe or unreadable source, unknown labels, an image_id given twice, too many bad images, fewer than
            two classes, a class without images, a manifest that was edited, or data that changed after the split.
        ResourceError: the run cannot be written, or a worker process was killed.
    """
    store = ImageStore.open(spec.data)
    listing, labels, classes = _settle(_list(store, spec), spec)
    task = TASKS[spec.task.kind]
    _refuse_repeats(listing, labels)
    focus_of(spec.evaluate, classes, spec.data)  # a wrong name is refused now, not after the training
    if task.has("one_class"):
        malignant_of(spec.evaluate, classes, spec.data)
    fingerprint = _fingerprint(listing, labels, classes, spec)
    before = _prepared(run)
    if before is not None and before.get("fingerprint") == fingerprint:
        return PrepareResult(before, fresh=False)
    with run.lock():
        run.require_writable()
        first = _inspect(store, listing, spec.data)
        optional = inspect_optional(store, listing.rows, workers=spec.data.workers, read=modality_of(spec.data).read)
        images = as_samples(first, optional)
        _refuse_bad(listing, images, spec.data.max_bad_fraction)
        frame = _frame(listing, labels, images, optional)
        known = usable(frame)["label"].tolist()
        require_classes(classes, label_counts(known, classes, task))
        if not task.has("one_class"):
            require_both(known, classes)
        require_columns(usable(frame), spec.model)
        require_images(usable(frame), spec.model)
        chosen = spec.model.metadata
        asked = [column for column in chosen.columns if column not in chosen.accept] if chosen is not None else []
        refuse_revealing(usable(frame), asked, classes, task)
        others = [one for each in optional.values() for one in each if one is not None]
        summary = _summary(frame, classes, images, listing, spec.data.source.kind, task, others)
        return PrepareResult(_write(run, frame, {**summary, "fingerprint": fingerprint}, before), fresh=True)


def _settle(listing: Listing, spec: ExperimentSpec) -> tuple[Listing, list[str], list[str]]:
    """The listing, the manifest's label of each of its images, and the classes."""
    if isinstance(spec.task, MultilabelTask):
        labels, classes = settle_label_sets(
            listing.rows, spec.task, label_map=spec.data.label_map, chosen=spec.data.classes, own=listing.classes
        )
        return listing, labels, classes
    listing = _left_out(listing, spec.data.label_map)
    labels, classes = settle_labels(
        [row.label for row in listing.rows],
        label_map=spec.data.label_map,
        chosen=spec.data.classes,
        own=listing.classes,
        splits=[_text(row.known.get("split")) for row in listing.rows],
    )
    return listing, labels, classes


def _list(store: ImageStore, spec: ExperimentSpec) -> Listing:
    source = spec.data.source
    listing = SOURCES[source.kind](
        store, **{name: getattr(source, name) for name in type(source).model_fields if name != "kind"}
    )
    if not listing.rows:
        raise DataError(
            f"data.path: 0 images found for source '{source.kind}'; at least one image of each of 2 classes is needed"
        )
    if spec.data.missing_values is None:
        refuse_placeholders(listing.rows)
    return replace(listing, notes=(*listing.notes, *code_notes(listing.rows)))


def _left_out(listing: Listing, label_map: Mapping[str, str | None]) -> Listing:
    """The listing without the images whose label is mapped to null."""
    dropped = Counter(row.label for row in listing.rows if row.label in label_map and label_map[row.label] is None)
    if not dropped:
        return listing
    notes = [f"{count} images with label '{label}' are left out by data.label_map" for label, count in dropped.items()]
    rows = [row for row in listing.rows if row.label not in dropped]
    classes = None if listing.classes is None else tuple(name for name in listing.classes if name not in dropped)
    return replace(listing, rows=rows, classes=classes, notes=(*listing.notes, *notes))


def _inspect(store: ImageStore, listing: Listing, data: DataSpec) -> list[Inspected]:
    paths = [row.path for row in listing.rows if row.path is not None]
    found = iter(inspect_images(store, paths, workers=data.workers, read=modality_of(data).read))
    return [Inspected(MISSING_FILE) if row.path is None else next(found) for row in listing.rows]


def _write(run: Run, frame: pd.DataFrame, summary: dict[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Write the three files, the manifest last: without it the run counts as not prepared."""
    if before is not None:
        frame = _with_clusters(frame, read_manifest(run))
    digest = sha256_bytes(manifest_bytes(frame))
    if before is not None and before.get("manifest_sha256") != digest and run.certificate_path.exists():
        raise DataError(f"{run.root.name}: the data changed after it was split; prepare it in a new run folder")
    columns = ["image_id", "label", "lesion_id"]
    table = csv_text(columns, usable(frame).sort_values("image_id")[columns].to_numpy().tolist())
    summary = {**summary, "labels_sha256": sha256_bytes(table.encode()), "manifest_sha256": digest}
    run.manifest_path.unlink(missing_ok=True)
    try:
        write_text(run.labels_path, table)
        write_json(run.summary_path, summary)
        write_manifest(run, frame)
    except BaseException:
        for path in (run.labels_path, run.summary_path):
            path.unlink(missing_ok=True)
        raise
    return summary


def _with_clusters(frame: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """The frame with the near-duplicates that an audit has joined, if it is otherwise the same set as before."""
    same = manifest_bytes(old.assign(cluster_id=None)) == manifest_bytes(frame.assign(cluster_id=None))
    return old if same else frame


def _prepared(run: Run) -> dict[str, Any] | None:
    """The summary of a finished preparation, its files unchanged; None where there is none."""
    if not (run.manifest_path.exists() and run.labels_path.exists() and run.summary_path.exists()):
        return None
    summary = read_json(run.summary_path)
    for path, key in ((run.manifest_path, "manifest_sha256"), (run.labels_path, "labels_sha256")):
        if sha256_file(path) != summary.get(key):
            raise DataError(
                f"{path.name}: was changed after prepare (its SHA-256 is not the one of {run.summary_path.name}); "
                "correct the source and run prepare in a new run folder"
            )
    return summary


def _refuse_repeats(listing: Listing, labels: Sequence[str]) -> None:
    """Refuse an image_id that stands twice, with one label or with two."""
    first: dict[str, int] = {}
    for i, row in enumerate(listing.rows):
        j = first.setdefault(row.image_id, i)
        if j == i:
            continue
        told = "the same label" if labels[i] == labels[j] else f"labels '{labels[j]}' and '{labels[i]}'"
        total = len(listing.rows) - len({row.image_id for row in listing.rows})
        raise DataError(
            f"{row.where}: image_id '{row.image_id}' is repeated, first at {listing.rows[j].where}, with {told} "
            f"({total} repeated rows); keep one row per image"
        )


def _refuse_bad(listing: Listing, images: Sequence[Inspected], limit: float) -> None:
    bad = [(row, image.reason) for row, image in zip(listing.rows, images, strict=True) if image.reason is not None]
    if len(bad) <= limit * len(images):
        return
    reasons, first = _pairs(Counter(str(reason) for _, reason in bad)), bad[0][0]
    like = nearest_image(listing.files, first.wanted) if first.path is None else ""
    wanted = f", {first.wanted!r}" + (f" (nearest file: {like!r})" if like else "") if first.path is None else ""
    raise DataError(
        f"{len(bad)} of {len(images)} images are unusable ({len(bad) / len(images):.1%}, at most {limit:.1%}): {reasons}; "
        f"the first is {first.where}{wanted}; repair them, or raise data.max_bad_fraction"
    )


def _frame(
    listing: Listing, labels: Sequence[str], images: Sequence[Inspected], optional: Mapping[str, Sequence[Inspected | None]]
) -> pd.DataFrame:
    """Manifest rows in the source's order; a missing file keeps an empty path."""
    extra = list(dict.fromkeys(name for row in listing.rows for name in row.extra))
    rows = [
        {
            **dict.fromkeys((*MANIFEST_COLUMNS, *extra)),
            **row.extra,
            **row.known,
            "image_id": row.image_id,
            "path": row.path,
            "label": label,
            **{name: getattr(image, name) for name in ("sha256", "pixel_sha256", "width", "height", "mode")},
            "quarantine_reason": image.reason,
            **optional_columns(row, image, {name: each[place] for name, each in optional.items()}),
        }
        for place, (row, label, image) in enumerate(zip(listing.rows, labels, images, strict=True))
    ]
    return pd.DataFrame(rows, dtype=object)


def _summary(
    frame: pd.DataFrame,
    classes: Sequence[str],
    images: Sequence[Inspected],
    listing: Listing,
    kind: str,
    task: Task,
    others: Sequence[Inspected],
) -> dict[str, Any]:
    good = usable(frame)
    done = [image for image in (*images, *others) if image.reason is None]
    known = good["lesion_id"].dropna()
    pictures = good.groupby("pixel_sha256")["label"].agg(["size", "nunique"])
    twice = pictures[pictures["size"] > 1]
    counts = label_counts(good["label"].tolist(), classes, task)
    by_lesion = counts_by(good["lesion_id"], good["label"], classes, task) if len(known) else None
    extra = [name for name in frame.columns if name not in OWN_NAMES]
    return {
        "schema_version": VERSION,
        "task": task.kind,
        "source": kind,
        "classes": list(classes),
        "rows": len(frame),
        "images": len(good),
        "without_label": int((good["label"] == NO_LABEL).sum()),
        "class_counts": counts,
        "class_lesions": None if by_lesion is None else {name: int((by_lesion[name] > 0).sum()) for name in classes},
        "lesions": int(known.nunique()) if len(known) else None,
        "images_per_lesion": _counted(known.value_counts().tolist(), by_value=True),
        "sources": _counted(good["source"].dropna()) if good["source"].notna().any() else None,
        "shared_pictures": _shared_pictures(good) if kind == "merged" else [],
        "optional_images": count_optional(good),
        "patients": int(good["patient_id"].nunique()) if good["patient_id"].notna().any() else None,
        "missing": {name: int(good[name].isna().sum()) for name in (*_ASKED, *extra)},
        "user_columns": extra,
        "giveaway_columns": [name for name in extra if is_giveaway(name)],
        "sizes": _counted(f"{image.width}x{image.height}" for image in done),
        "modes": _counted(image.mode for image in done),
        "formats": _counted(image.format for image in done),
        "decoding": _counted(note for image in done for note in image.notes),
        "personal_metadata": _counted(kind for image in done for kind in image.personal),
        "duplicates": {
            "pictures": len(twice),
            "images": int(twice["size"].sum()),
            "conflicting": int((twice["nunique"] > 1).sum()),
        },
        "quarantined": {
            "images": len(frame) - len(good),
            "by_reason": _counted(i.reason for i in images if i.reason is not None),
        },
        "notes": list(listing.notes),
    }


def _shared_pictures(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """How many images each two sources have in common, pixel for pixel."""
    pictures = {str(name): set(rows["pixel_sha256"]) for name, rows in frame.groupby("source")}
    common = [(a, b, len(pictures[a] & pictures[b])) for a, b in combinations(pictures, 2)]
    return [{"sources": [a, b], "pictures": count} for a, b, count in common if count]


def _fingerprint(listing: Listing, labels: Sequence[str], classes: Sequence[str], spec: ExperimentSpec) -> str:
    """SHA-256 of all that the manifest depends on, without opening an image: rows, settings, each file's size and stamp."""
    stamps = {entry.path: (entry.size, entry.stamp) for entry in listing.files}
    rows = [
        (
            row.image_id,
            label,
            row.path,
            stamps.get(row.path or ""),
            sorted(row.known.items()),
            sorted(row.extra.items()),
            [(name, path, stamps.get(path)) for name, path in sorted(row.images.items())],
        )
        for row, label in zip(listing.rows, labels, strict=True)
    ]
    settings = spec.data.model_dump(mode="json", exclude={"workers", "path"})
    return sha256_bytes(json.dumps([VERSION, settings, list(classes), rows]).encode())


def _counted(values: Any, *, by_value: bool = False) -> dict[str, int]:
    """Value to count, most frequent first (or by value); the rarest together as "other"."""
    counts = Counter(values)
    ordered = sorted(counts.items(), key=lambda item: item[0] if by_value else (-item[1], str(item[0])))
    rest = sum(n for _, n in ordered[_SHOWN:])
    return {**{str(value): n for value, n in ordered[:_SHOWN]}, **({"other": rest} if rest else {})}


def _pairs(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in counts.items())


def _text(value: str | float | None) -> str | None:
    return None if value is None else str(value)
