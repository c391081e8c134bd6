"""Several sources as one set, without a lesion or a patient of one on both sides of a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from dermalyze.config.data import MergedPart
from dermalyze.data.sources import collections, general, isic
from dermalyze.data.sources.linking import archive_name, join_lesions
from dermalyze.data.sources.reading import Listing, Row
from dermalyze.data.store import Entry, ImageStore
from dermalyze.errors import ConfigError, DataError

ONE_SOURCE: dict[str, Callable[..., Listing]] = {**isic.ROWS, **general.ROWS, **collections.ROWS}
"""Every source but `merged`."""


def merged(store: ImageStore, *, sources: Sequence[MergedPart]) -> Listing:
    """Several sources as one set.

    What: the images of all sources, each read as its own kind, with its own `label_map` (null leaves a label out). The
        column source holds the source's name; what a source itself says there is kept as source_user.
    Keys: image_id becomes NAME-ID, so that it does not depend on which other sources there are. lesion_id and patient_id
        stay as they are, and equal ones join, whichever source they come from: HAM10000, ISIC 2018 and ISIC 2019 name one
        lesion alike, ISIC 2019 and BCN20000 too, and a join too few leaks where a join too many only makes a larger group.
        The notes count the keys that two sources share; where they are equal by chance, as with numbers that two clinics
        gave, `own_ids: true` keeps a source's keys apart. An image of the ISIC archive (ISIC_ and digits) is one image in
        every source that has it: its lesion ids become one, so that HAM10000's HAM_1 and the archive's IL_1 stay in one split.
        Equal files, equal pixels and near-duplicates are joined after that, by `split`.
    Splits: the sources' own splits are taken where all of them have one, else none is.
    License, citation: those of each source; the strictest license holds for the whole.
    Known biases: where sources differ in class and in camera a network learns the camera. Look at the audit's findings on
        source, and draw each source equally often with `train.balance_sources`.

    Raises:
        ConfigError: fewer than two sources, or classes that differ in case alone.
        DataError: as the sources.
    """
    if len(sources) < 2:
        raise ConfigError(
            f"data.source.sources: {len(sources)} sources; merging needs at least 2, "
            "as in [{path: a, source: {kind: ham10000}}, {path: b, source: {kind: isic2019}, label_map: ham10000}]"
        )
    listings = {part.title: _one(part, store.within(part.title)) for part in sources}
    rows = _joined([row for listing in listings.values() for row in listing.rows])
    notes = [f"{name}: {note}" for name, listing in listings.items() for note in listing.notes]
    own = [listing.classes for listing in listings.values()]
    classes = None if None in own else tuple(dict.fromkeys(name for names in own for name in names or ()))
    _refuse_spellings(classes if classes is not None else sorted({row.label for row in rows}))
    split = [name for name, listing in listings.items() if any(row.known.get("split") for row in listing.rows)]
    if split and len(split) < len(listings):
        rows = [replace(row, known={k: v for k, v in row.known.items() if k != "split"}) for row in rows]
        notes.append(f"the split of {', '.join(split)} is not used, since other sources have none")
    files = [entry for name, listing in listings.items() for entry in _prefixed(name, listing)]
    return Listing(rows, classes, files, (*notes, *_shared(rows)))


def _one(part: MergedPart, store: ImageStore) -> Listing:
    """A source, with its labels mapped and its keys, paths and name as the merged set has them."""
    name, source = part.title, part.source
    listing = ONE_SOURCE[source.kind](
        store, **{key: getattr(source, key) for key in type(source).model_fields if key != "kind"}
    )
    if not listing.rows:
        raise DataError(f"data.source.sources: source '{name}' holds 0 images; correct its path or leave it out")
    kept = [row for row in listing.rows if part.label_map.get(row.label, row.label) is not None]
    left_out = Counter(row.label for row in listing.rows if part.label_map.get(row.label, row.label) is None)
    classes = None if listing.classes is None else [part.label_map.get(label, label) for label in listing.classes]
    notes = [f"{count} images with label '{label}' are left out by its label map" for label, count in left_out.items()]
    moved = ["column 'source' is kept as 'source_user'"] if any("source" in row.known for row in kept) else []
    return Listing(
        [_renamed(row, part) for row in kept],
        None if classes is None else tuple(dict.fromkeys(label for label in classes if label is not None)),
        listing.files,
        (*listing.notes, *notes, *moved),
    )


def _renamed(row: Row, part: MergedPart) -> Row:
    known, extra = dict(row.known), dict(row.extra)
    for key in ("lesion_id", "patient_id"):
        if part.own_ids and known.get(key) is not None:
            known[key] = f"{part.title}-{known[key]}"
    if "source" in known:
        inner = known["source"]
        extra["source_user"] = None if inner is None else str(inner)
    if known.get("mask_path") is not None:
        known["mask_path"] = f"{part.title}/{known['mask_path']}"
    return Row(
        f"{part.title}: {row.where}",
        f"{part.title}-{row.image_id}",
        str(part.label_map.get(row.label, row.label)),
        None if row.path is None else f"{part.title}/{row.path}",
        {**known, "source": part.title},
        extra,
        {name: f"{part.title}/{path}" if path else "" for name, path in row.images.items()},
        wanted=row.wanted,
    )


def _prefixed(name: str, listing: Listing) -> list[Entry]:
    return [replace(entry, path=f"{name}/{entry.path}") for entry in listing.files]


def _joined(rows: list[Row]) -> list[Row]:
    """The rows with one lesion_id for all that show the same image of the ISIC archive."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if (name := archive_name(row.image_id)) is not None:
            by_name[name].append(i)
    same = [found for found in by_name.values() if len(found) > 1]
    lesions = [None if row.known.get("lesion_id") is None else str(row.known["lesion_id"]) for row in rows]
    joined = join_lesions(lesions, same, [archive_name(row.image_id) or row.image_id for row in rows])
    return [
        row if new == old else replace(row, known={**row.known, "lesion_id": new})
        for row, old, new in zip(rows, lesions, joined, strict=True)
    ]


def _refuse_spellings(classes: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name in classes:
        other = first.setdefault(name.strip().lower(), name)
        if other != name:
            raise ConfigError(
                f"data.source.sources: classes '{other}' and '{name}' of two sources differ only in spelling; "
                "give one of the sources a label_map, as in label_map: ham10000"
            )


def _shared(rows: Sequence[Row]) -> list[str]:
    """Notes on what each two sources have in common by their keys."""
    keys: Mapping[str, dict[str, set[str]]] = {word: defaultdict(set) for word in ("archive images", "lesions", "patients")}
    for row in rows:
        name = str(row.known["source"])
        if (image := archive_name(row.image_id)) is not None:
            keys["archive images"][name].add(image)
        for word, column in (("lesions", "lesion_id"), ("patients", "patient_id")):
            if row.known.get(column) is not None:
                keys[word][name].add(str(row.known[column]))
    notes = []
    for a, b in combinations(dict.fromkeys(str(row.known["source"]) for row in rows), 2):
        counts = {word: len(found[a] & found[b]) for word, found in keys.items()}
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        notes += [f"{a} and {b} share {told} by their ids; each stays in one split"] if told else []
    return notes
