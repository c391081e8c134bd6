"""Another labelled set, for external validation: found, mapped to the model's classes, decoded, compared with training."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dermalyze.config.base import parse_yaml, why_unreadable
from dermalyze.config.data import (
    PARTS,
    Bcn20000Source,
    CsvSource,
    DataSpec,
    Fitzpatrick17kSource,
    FolderSource,
    Ham10000Source,
    Isic2018Source,
    Isic2019Source,
    Isic2020Source,
    MergedSource,
    SourceSpec,
)
from dermalyze.config.task import MulticlassTask, MultilabelTask, TaskSpec
from dermalyze.core.run import Run
from dermalyze.data.grouping import conflicts, contents, groups
from dermalyze.data.inspection import inspect_images
from dermalyze.data.multilabel_targets import read_labels, text_of
from dermalyze.data.samples import as_samples, inspect_optional, optional_columns
from dermalyze.data.sources import MISSING_FILE, SOURCES, TABLE_SUFFIXES, Listing, Row
from dermalyze.data.sources.linking import archive_name
from dermalyze.data.sources.reading import read, refuse_placeholders
from dermalyze.data.splitting import read_division
from dermalyze.data.store import ImageStore
from dermalyze.errors import ConfigError, DataError, UsageError, nearest
from dermalyze.imaging.modalities import modality_of

# Shapes: B images of a batch, H height, W width.

MADE_WITH = ("train", "val", "cal")
"""Parts that the model was made with: weights, choices, calibration."""

_LAYOUTS: dict[str, SourceSpec] = {
    "ham10000_metadata": Ham10000Source(),
    "isic2018_task3_training_groundtruth": Isic2018Source(),
    "isic2018_task3_test_groundtruth": Isic2018Source(),
    "isic_2019_training_groundtruth": Isic2019Source(),
    "isic_2019_test_groundtruth": Isic2019Source(),
    "isic_2020_training_groundtruth": Isic2020Source(),
    "isic_2020_training_groundtruth_v2": Isic2020Source(),
    "bcn_20k_train": Bcn20000Source(),
    "fitzpatrick17k": Fitzpatrick17kSource(),
}
"""The table that tells a layout, in lower case and without its ending."""
_KNOWN = ("lesion_id", "patient_id", "age", "sex", "site", "source", "mask_path")
_SHARED_LESIONS = ("ham10000", "isic2018", "isic2019", "isic2020", "isic_archive", "bcn20000")
"""Sources whose lesion_id agree."""


@dataclass(frozen=True)
class ExternalSet:
    """A labelled set, ready to be evaluated.

    Attributes:
        name: from the folder's or file's name, safe as a file name.
        kind: which source it was read as.
        store: reads its images.
        frame: one row a usable image: image_id, path, sha256, pixel_sha256, width, height, label (a class of the model), group,
            lesion_id, patient_id, age, sex, site, source and mask_path where known, and the set's further columns.
        labels: {label, class (None: left out), images} for each label in the set.
        notes: what a person should know, without file names.
    """

    name: str
    kind: str
    store: ImageStore
    frame: pd.DataFrame
    labels: list[dict[str, Any]]
    notes: tuple[str, ...]


def open_external(
    on: Path,
    spec: DataSpec,
    classes: Sequence[str],
    label_map: Mapping[str, str | None],
    task: TaskSpec = MulticlassTask(),  # noqa: B008
    images: Path | None = None,
) -> ExternalSet:
    """Find, map and decode a labelled set.

    A file that ends in .csv, .tsv or .tab is a table beside its images; `data.source.columns` holds for it where the run's own
    source is a CSV, and then a folder or zip with a table of those columns is read like it. One with the table of HAM10000, of
    an ISIC challenge, BCN20000 or Fitzpatrick17k is in that layout; any other is read as the run's own source where that has a
    layout of its own, else it holds one folder a class.

    Args:
        on: folder, zip or table.
        spec: the run's `data`: limits, links, workers, columns.
        classes: of the model.
        label_map: label in the set to class of the model; None leaves the label's images out, or, where an image has several,
            the label alone.
        task: of the run.
        images: the folder or zip of the images of a table that does not lie beside them.

    Raises:
        UsageError: it is not there, or `images` is given with something else than a table.
        ConfigError: the map leads to no class of the model.
        DataError: labels that are no classes, too many unreadable images, an image under two labels, no image at all.
    """
    if not on.exists():
        raise UsageError(f"{on.name}: is not there; give a folder with one folder a class, a HAM10000 folder, or a CSV")
    is_table = on.suffix.lower() in TABLE_SUFFIXES
    if images is not None and (not is_table or not images.exists()):
        wrong = f"{images.name}: is not there" if is_table else f"{on.name}: is no table"
        raise UsageError(f"{wrong}; --images-dir names the folder of the images of a CSV")
    strangers = sorted({str(name) for name in label_map.values() if name is not None} - set(classes))
    if strangers:
        raise ConfigError(
            f"label map: leads to {strangers}; the model's classes are {list(classes)}{nearest(strangers[0], list(classes))}"
        )
    place: str | list[str] = str(on) if not is_table else str(on.parent) if images is None else [str(on), str(images)]
    store = ImageStore.open(DataSpec(path=place, follow_links=spec.follow_links, missing_values=spec.missing_values))
    source = _source(on, store, spec.source, label_map)
    listing: Listing = SOURCES[source.kind](store, **source.model_dump(exclude={"kind"}))
    if spec.missing_values is None:
        refuse_placeholders(listing.rows)
    rows, labels = _mapped(listing.rows, classes, label_map, task)
    frame, notes = _decoded(rows, store, spec)
    unused = sorted(set(label_map) - {row["label"] for row in labels})
    if unused:
        notes.append(f"labels of the map that the set does not have: {', '.join(unused)}")
    twice = conflicts(frame)
    if twice:
        raise DataError(
            f"{on.name}: {len(twice)} image(s) stand under two labels; first: {', '.join(twice[0][:4])}; keep one label"
        )
    frame["group"] = groups(frame)
    return ExternalSet(set_name(on), source.kind, store, frame, labels, (*listing.notes, *notes))


def set_name(on: Path) -> str:
    """A short name for a set, safe as a file name and never a part's.

    >>> set_name(Path("data/PH2 (2013)")), set_name(Path("test"))
    ('ph2-2013', 'set-test')
    """
    stem = on.resolve().stem if on.is_file() else on.resolve().name
    name = re.sub(r"[^a-z0-9_]+", "-", stem.lower()).strip("-_")[:40].strip("-_") or "set"
    return f"set-{name}" if name in PARTS else name


def read_label_map(path: Path) -> dict[str, str | None]:
    """A YAML or JSON file {label of the set: class of the model, or null to leave its images out}.

    Raises:
        ConfigError: unreadable, or anything but a flat mapping of texts.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text) if path.suffix.lower() == ".json" else parse_yaml(text, path.name)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path.name}: cannot be read as a label map: {why_unreadable(error)}; write lines such as 'their label: our class'"
        ) from error
    if not isinstance(values, dict) or not all(value is None or isinstance(value, str) for value in values.values()):
        raise ConfigError(
            f"{path.name}: must be a mapping such as 'their label: our class', one line per label (null leaves a label out)"
        )
    return {str(label): name for label, name in values.items()}


def trained_on(run: Run, external: ExternalSet, spec: DataSpec) -> dict[str, int]:
    """How many images of the set were used to make the model, by part; found by file bytes, by pixels, by the name in the ISIC
    archive and, where both sets name them alike, by lesion_id, so that a re-encoded copy or another photograph of a subject
    counts too."""
    return made_with(run, external.frame, by_lesion=shares_lesions(external.kind, spec))


def made_with(run: Run, images: pd.DataFrame, *, by_lesion: bool) -> dict[str, int]:
    """How many of some images were used to make the model, by part; see `trained_on`.

    Args:
        images: rows with image_id, sha256, pixel_sha256 and lesion_id.
        by_lesion: whether lesion_id means the same there and in the run.
    """
    frame, parts = read_division(run)
    columns = ["sha256", "pixel_sha256", *(["lesion_id"] if by_lesion else [])]
    used_rows, set_rows = (_keyed(rows, columns) for rows in (frame, images))
    found = {}
    seen = pd.Series(False, index=images.index)
    for part in MADE_WITH:
        inside = parts == part
        known = pd.Series(False, index=images.index)
        for column, values in set_rows.items():
            used = set[str]().union(*(one[inside].dropna() for one in used_rows[column]))
            for one in values:
                known |= one.isin(used)
        count = int((known & ~seen).sum())
        seen |= known
        if count:
            found[part] = count
    return found


def shares_lesions(kind: str, spec: DataSpec) -> bool:
    """Whether a set of that kind has lesion_id as the run's own source does, or as one of those it merges."""
    own = [part.source.kind for part in spec.source.sources] if isinstance(spec.source, MergedSource) else [spec.source.kind]
    return kind in _SHARED_LESIONS and any(one in _SHARED_LESIONS for one in own)


def _keyed(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, list[pd.Series]]:
    """The values to compare, of every image of a sample, and each image's name in the ISIC archive."""
    names = frame["image_id"].astype(str).map(archive_name).astype(object)
    return {**{column: contents(frame, column) for column in columns}, "archive": [names.where(names.notna(), None)]}


def _source(on: Path, store: ImageStore, own: SourceSpec, label_map: Mapping[str, str | None]) -> SourceSpec:
    file = on.name if on.suffix.lower() in TABLE_SUFFIXES else _table_within(on, store, own)
    if file is not None:
        settings = own if isinstance(own, CsvSource) else CsvSource(columns=_columns_of_ham10000(store, file))
        labels = settings.labels
        if labels is not None:  # a column that the map names is read in the place of the label's own
            labels = [label for label, name in label_map.items() if name is not None]
            labels += [name for name in settings.labels or () if name not in {*label_map, *label_map.values()}]
        return settings.model_copy(update={"file": file, "labels": labels})
    names = {entry.name.lower().partition(".")[0] for entry in store.entries()}
    found = next((source for name, source in _LAYOUTS.items() if name in names), None)
    if found is None:
        return FolderSource() if isinstance(own, CsvSource | MergedSource | Ham10000Source) else own
    return own if own.kind == found.kind else found


def _columns_of_ham10000(store: ImageStore, file: str) -> dict[str, str]:
    """Our names of HAM10000's columns, for a table that names its labels `dx`; none where it has a column `label`."""
    entry = next(entry for entry in store.entries() if entry.path == file)
    table = read(store, entry)
    if table.find("label") is not None or table.find("dx") is None:
        return {}
    return {ours: theirs for ours, theirs in {"label": "dx", "site": "localization"}.items() if table.find(theirs) is not None}


def _table_within(on: Path, store: ImageStore, own: SourceSpec) -> str | None:
    """The table of a folder in the layout of a run whose source is a CSV; None where there is none.

    Raises:
        DataError: several tables have its columns.
    """
    if not isinstance(own, CsvSource):
        return None
    wanted = [own.columns.get("label", "label")] if own.labels is None else own.labels
    tables = [entry for entry in store.entries() if entry.name.lower().endswith(TABLE_SUFFIXES)]
    named = [entry for entry in tables if entry.path == own.file]
    fitting = named or [entry for entry in tables if all(map(read(store, entry).find, wanted))]
    if len(fitting) > 1:
        raise DataError(
            f"{on.name}: holds {len(fitting)} tables with the run's columns {wanted} ("
            f"{', '.join(entry.path for entry in fitting[:5])}); name one: --on FOLDER/NAME.csv"
        )
    return fitting[0].path if fitting else None


def _mapped(
    rows: Sequence[Row], classes: Sequence[str], label_map: Mapping[str, str | None], task: TaskSpec
) -> tuple[list[tuple[Row, str]], list[dict[str, Any]]]:
    """The rows that are kept, each with its class or labels as the manifest holds them, and the table of labels."""
    several = isinstance(task, MultilabelTask)
    read = [read_labels(row, task) if isinstance(task, MultilabelTask) else [(row.label, False)] for row in rows]
    counts = Counter(label for labels in read for label, _ in labels)
    table = [{"label": label, "class": label_map.get(label, label), "images": n} for label, n in sorted(counts.items())]
    unknown = [row for row in table if row["class"] is not None and row["class"] not in classes]
    if unknown:
        shown = ", ".join(
            f"{row['label']!r} ({row['images']} images{nearest(str(row['label']), list(classes))})" for row in unknown[:5]
        )
        raise DataError(
            f"labels {shown} are no classes of the model, which has {list(classes)}; map them with --label-map FILE "
            "('their label: our class', or null to leave a label out)"
        )
    mapped = [[(label_map.get(label, label), missing) for label, missing in labels] for labels in read]
    if several:
        return [(row, text_of(labels, classes)) for row, labels in zip(rows, mapped, strict=True)], table
    return [(row, name) for row, ((name, _),) in zip(rows, mapped, strict=True) if name is not None], table


def _decoded(rows: Sequence[tuple[Row, str]], store: ImageStore, spec: DataSpec) -> tuple[pd.DataFrame, list[str]]:
    """The usable rows as a frame, and notes on the others."""
    there = [(row, name) for row, name in rows if row.path is not None]
    paths = [str(row.path) for row, _ in there]
    how: dict[str, Any] = {"workers": spec.workers, "read": modality_of(spec).read}
    optional = inspect_optional(store, [row for row, _ in there], **how)
    inspected = as_samples(inspect_images(store, paths, **how), optional)
    bad = Counter(found.reason for found in inspected if found.reason is not None)
    if len(rows) > len(there):
        bad[MISSING_FILE] = len(rows) - len(there)
    reasons = ", ".join(f"{reason} ({n})" for reason, n in bad.most_common(5))
    if not rows or bad.total() == len(rows):
        raise DataError(f"the set has no usable image{f': {reasons}' if reasons else ''}; at least 1 labelled image is needed")
    if bad.total() > spec.max_bad_fraction * len(rows):
        raise DataError(
            f"{bad.total()} of {len(rows)} images are unusable, more than data.max_bad_fraction "
            f"{spec.max_bad_fraction:g}: {reasons}; "
            "fix or remove them"
        )
    frame = pd.DataFrame(
        [
            {
                **row.extra, **{key: row.known.get(key) for key in _KNOWN},
                "image_id": row.image_id, "path": row.path, "sha256": found.sha256, "pixel_sha256": found.pixel_sha256,
                "width": found.width, "height": found.height, "label": name,
                **optional_columns(row, found, {which: images[place] for which, images in optional.items()}),
            }
            for place, ((row, name), found) in enumerate(zip(there, inspected, strict=True))
            if found.reason is None
        ]
    )  # fmt: skip
    repeated = sorted(set(frame.loc[frame["image_id"].duplicated(), "image_id"]))
    if repeated:
        raise DataError(
            f"image_id {repeated[0]!r} and {len(repeated) - 1} others are in more than one row; each image has its own"
        )
    return frame, [f"{bad.total()} of {len(rows)} images are left out: {reasons}"] if bad else []
