"""Stratified, grouped splits: a seeded apportionment, and reading and checking of its files.

Shapes: G groups, C classes, P splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.data import PART_WORDS, PARTS, SplitSpec
from dermalyze.core.atomic import sha256_bytes
from dermalyze.core.run import Run
from dermalyze.data.duplicates import Duplicates, joined, recorded
from dermalyze.data.grouping import describe_leaks, groups, keys, leaks
from dermalyze.data.label_splitting import iterative
from dermalyze.data.manifest import read_classes, read_manifest, read_task, usable
from dermalyze.data.multilabel_targets import counts_by
from dermalyze.errors import DataError, LeakError, ResourceError, UsageError, nearest, one_line
from dermalyze.tasks.base import TASKS, Task

RESTARTS = 20
"""Orders tried where groups hold several classes at once; with one class a group the first always succeeds."""


MULTICLASS = TASKS["multiclass"]


@dataclass(frozen=True)
class Division:
    """The split of each image, and how it was made.

    Attributes:
        parts: split of each image, indexed like the frame.
        kind: holdout, kfold, or own (the data set's split column).
        asked: requested share of images per split; None for the data set's split.
        notes: what a person should know, one line each.
    """

    parts: pd.Series
    kind: str
    asked: dict[str, float] | None
    notes: tuple[str, ...] = ()


def assign(frame: pd.DataFrame, spec: SplitSpec, *, classes: Sequence[str] | None = None, task: Task = MULTICLASS) -> pd.Series:
    """The split of each image: stratified by class, groups whole, the same for any order of rows.

    Each group goes, rarest class and largest first, to the split whose share of its classes is least filled
    (Webster's apportionment, so that large and small groups spread alike); ties by a seeded hash of the group's name.
    k-fold: the folds are apportioned alike, one is the test split, the others are divided by the remaining fractions.
    Images of any number of labels each are divided by iterative stratification instead.

    Args:
        frame: rows with `image_id`, `label` and, if it is there, `group`.
        spec: fractions or folds, and the seed.
        classes: classes that every split must hold; default: those in `frame`.
        task: what `label` holds.

    Raises:
        DataError: no image, one class, or a class with too few groups for the splits.

    >>> frame = pd.DataFrame({"image_id": [f"i{n:02}" for n in range(40)], "label": ["mel", "nv"] * 20})
    >>> assign(frame, SplitSpec()).value_counts().sort_index().to_dict()
    {'cal': 4, 'test': 6, 'train': 26, 'val': 4}
    """
    names = list(classes) if classes is not None else _names(frame, task)
    group = frame["group"] if "group" in frame else groups(frame)
    _require_labels(frame, names, task)
    parts = [part for part in PARTS if part in spec.fractions]
    counts, sizes = counts_by(group, frame["label"], names, task), _sizes(group, task)
    _require_groups(counts, parts, spec)
    shares = np.array([spec.fractions[part] for part in parts])
    seed = str(spec.seed)
    if spec.kind == "holdout":
        chosen = fill(counts, parts, shares, seed, sizes)
    else:
        folds = [f"fold {k}" for k in range(spec.folds)]
        mine = fill(counts, folds, np.full(spec.folds, 1 / spec.folds), seed, sizes) == folds[spec.fold]
        rest = fill(counts[~mine], parts[:-1], shares[:-1], seed, sizes)
        chosen = pd.Series("test", index=counts.index).where(mine, rest.reindex(counts.index))
    return group.map(chosen).rename("split")


def _names(frame: pd.DataFrame, task: Task) -> list[str]:
    """The classes or labels that are in a frame."""
    return task.names(frame["label"].dropna().astype(str).tolist())


def _sizes(group: pd.Series, task: Task) -> pd.Series | None:
    """Images of each group, where counts of labels do not tell it."""
    return None if task.has("one_class") else group.value_counts()


def fill(
    counts: pd.DataFrame, parts: Sequence[str], shares_P: NDArray[np.float64], seed: str, sizes: pd.Series | None = None
) -> pd.Series:
    """The split of each group, with every class in every split; `apportion` in other orders where the first leaves one out.

    Args:
        counts: images of each class (columns) in each group (index, sorted).
        parts: names of the splits.
        sizes: images of each group, where an image may count for several columns or none: then `iterative` divides.

    Raises:
        DataError: no order did it.
    """
    table, names = counts.to_numpy(dtype=np.int64), [str(name) for name in counts.index]
    images = None if sizes is None else sizes.reindex(counts.index).to_numpy(dtype=np.int64)
    for salt in range(RESTARTS):
        options: dict[str, Any] = {"seed": f"{seed}:{salt}", "shuffled": salt > 0}
        if images is None:
            chosen = apportion(table, names, shares_P, **options)
        else:
            chosen = iterative(table, images, names, shares_P, **options)
        present = np.array([(table[chosen == p] > 0).any(axis=0) for p in range(len(parts))])
        if present.all():
            return pd.Series(np.array(parts, dtype=object)[chosen], index=counts.index)
    p, c = np.argwhere(~present)[0]
    raise DataError(
        f"no split found that keeps groups whole and puts every class in every split: '{parts[p]}' lacks '{counts.columns[c]}' "
        f"({int((table[:, c] > 0).sum())} groups, some with several classes); add patients, leave the class out with "
        "data.classes, or ask for fewer splits"
    )


def apportion(
    counts_GC: NDArray[np.int64], names: Sequence[str], shares_P: NDArray[np.float64], seed: str, *, shuffled: bool = False
) -> NDArray[np.int64]:
    """The split of each group, so that every split comes close to its share of every class and holds at least one group of it.

    Args:
        counts_GC: images of each class in each group.
        names: the groups' names; with `seed` they decide ties, whatever their order.
        shares_P: share of each split, above 0; scaled to sum to 1.
        shuffled: take the groups in the order of the hash alone: less even, but another chance where the other order fails.

    Returns:
        (G,) index of a split. A class may be missing from a split only where groups hold several classes or are too few.

    >>> apportion(np.ones((4, 1), dtype=np.int64), list("abcd"), np.array([0.5, 0.5]), "0").tolist().count(0)
    2
    """
    shares = shares_P / shares_P.sum()
    total_C = counts_GC.sum(axis=0).clip(min=1)
    left_C = (counts_GC > 0).sum(axis=0)
    rarity = np.where(counts_GC > 0, left_C, np.iinfo(np.int64).max).min(axis=1, initial=np.iinfo(np.int64).max)
    ties = [sha256(f"{seed}:{name}".encode()).digest() for name in names]
    order = sorted(range(len(names)), key=lambda g: ties[g] if shuffled else (rarity[g], -counts_GC[g].sum(), ties[g]))
    have_PC = np.zeros((len(shares), counts_GC.shape[1]))
    chosen = np.zeros(len(names), dtype=np.int64)
    for g in order:
        held = np.flatnonzero(counts_GC[g])
        row = counts_GC[g, held]
        weight = row / total_C[held]
        fill_P = ((have_PC[:, held] + row / 2) / (shares[:, None] * total_C[held])) @ (weight / weight.sum())
        whole_P = (have_PC.sum(axis=1) + row.sum() / 2) / (shares * total_C.sum())
        cost_P = fill_P + 0.05 * whole_P  # the second term evens the sizes where the first is indifferent
        for c in sorted(held, key=lambda c: int(left_C[c]), reverse=True):  # the rarest class speaks last, so loudest
            lacking = have_PC[:, c] == 0
            if 0 < lacking.sum() >= left_C[c]:
                cost_P = np.where(lacking, cost_P - 1e6, cost_P)
        chosen[g] = np.argmin(cost_P)
        have_PC[chosen[g], held] += row
        left_C[held] -= 1
    return chosen


def divide(frame: pd.DataFrame, spec: SplitSpec, *, classes: Sequence[str] | None = None, task: Task = MULTICLASS) -> Division:
    """The data set's `split` column where it has one, else `assign`.

    The data set's split is kept. Where it has only train and test, the missing splits are taken out of train.

    Raises:
        DataError: as `assign`; unknown or missing values in the column; a split or a class missing from it.
    """
    own = keys(frame, "split")
    if own.isna().all():
        return Division(
            assign(frame, spec, classes=classes, task=task),
            spec.kind,
            {p: spec.fractions[p] for p in PARTS if p in spec.fractions},
        )
    if own.isna().any():
        first = frame.loc[own.isna(), "image_id"].iloc[0]
        raise DataError(
            f"split column: {int(own.isna().sum())} of {len(own)} images have no value (first: {first}); fill it for "
            "every image, or leave the column out"
        )
    known = own.str.lower().map(PART_WORDS)
    for value in sorted(set(own[known.isna()])):
        raise DataError(
            f"split column: unknown value '{value}' on {int((own == value).sum())} images; allowed: {', '.join(PART_WORDS)}"
            f"{nearest(value, list(PART_WORDS))}"
        )
    read = sorted({f"{value} as {part}" for value, part in zip(own, known, strict=True) if value != part})
    notes = ["the data set's split column is kept" + (f"; read {', '.join(read)}" if read else "")]
    missing = [part for part in ("train", "test") if part not in set(known)]
    if missing:
        raise DataError(
            f"split column: no image in {' and '.join(missing)}; train and test are needed, or leave the column out"
        )
    names = _names(frame, task) if classes is None else list(classes)
    if "val" not in set(known):
        wanted = [part for part in ("train", "val", "cal") if part in spec.fractions and part not in (set(known) - {"train"})]
        inside = known == "train"
        _require_labels(frame, names, task)
        group = (frame["group"] if "group" in frame else groups(frame))[inside]
        counts = counts_by(group, frame.loc[inside, "label"], names, task)
        shares = np.array([spec.fractions[part] for part in wanted])
        known = known.where(~inside, group.map(fill(counts, wanted, shares, str(spec.seed), _sizes(group, task))))
        notes.append(
            f"it has no validation split: {' and '.join(wanted[1:])} taken out of its train split, whole groups, stratified"
        )
    table = counts_by(known, frame["label"], names, task)
    for name in names:
        absent = [part for part in table.index if table.loc[part, name] == 0]
        if absent:
            raise DataError(
                f"split column: class '{name}' has no image in {' and '.join(absent)}; every split needs every class: "
                "correct the column, leave it out, or leave the class out with data.classes"
            )
    return Division(known.rename("split"), "own", None, tuple(notes))


def _require_labels(frame: pd.DataFrame, names: Sequence[str], task: Task) -> None:
    if len(frame) == 0:
        raise DataError(
            "no usable image; each split needs at least one group of at least 2 classes: run prepare on a filled folder"
        )
    if frame["label"].isna().any():
        raise DataError(f"image {frame.loc[frame['label'].isna(), 'image_id'].iloc[0]} has no label; label it or leave it out")
    unknown = sorted(set(_names(frame, task)) - set(names))
    if unknown:
        raise DataError(f"label '{unknown[0]}' is not one of the classes {', '.join(names)}{nearest(unknown[0], list(names))}")
    if len(names) < 2:
        raise DataError(f"only one class, '{names[0]}', on {len(frame)} images; at least 2 classes are needed")


def _require_groups(counts: pd.DataFrame, parts: Sequence[str], spec: SplitSpec) -> None:
    """Refuse classes with fewer groups than the splits need."""
    needed = len(parts)
    if spec.kind == "kfold":  # one fold is the test split, and what is left must still fill the other splits
        needed = max(spec.folds, next(n for n in range(1, 200) if n - -(-n // spec.folds) >= len(parts) - 1))
    held = (counts > 0).sum()
    short = [f"'{name}' has {n}" for name, n in held.items() if n < needed]
    if short:
        what = f"{spec.folds} folds with the splits" if spec.kind == "kfold" else f"{len(parts)} splits:"
        raise DataError(
            f"too few groups (images joined by patient, lesion, cluster or content) for {what} {', '.join(parts)}: "
            f"{', '.join(short)}, at least {needed} of each class are needed; add groups, leave the class out with "
            "data.classes, or ask for fewer splits (split.fractions without cal, fewer split.folds)"
        )


# -- files ----------------------------------------------------------------------------------------------------------------


def part_csv(frame: pd.DataFrame) -> bytes:
    """The bytes of a split's CSV: image_id, label, group; cells that a spreadsheet would run get a leading quote."""
    columns = {name: frame[name].astype(str).map(_as_text) for name in ("image_id", "label", "group")}
    text: str = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")
    return text.encode("utf-8")


def _as_text(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; undone by `_from_text`.

    >>> _as_text("=1+1"), _as_text("mel")
    ("'=1+1", 'mel')
    """
    return "'" + cell if cell[:1] in tuple("=+-@'\t\r") and cell else cell


def _from_text(cell: str) -> str:
    return cell.removeprefix("'")


def read_part(run: Run, part: str) -> pd.DataFrame:
    """The manifest rows of one split, in manifest order, with their `group`.

    Raises:
        UsageError: there is no such split, or has not been made.
        DataError: manifest or split files changed since the split.
    """
    frame, parts = read_division(run)
    if part not in set(parts):
        raise UsageError(f"{run.root.name}: no split '{part}'; allowed: {', '.join(p for p in PARTS if p in set(parts))}")
    return frame[parts == part].reset_index(drop=True)


def read_division(run: Run) -> tuple[pd.DataFrame, pd.Series]:
    """Usable manifest rows with `group`, and the split of each, from the split files, checked against manifest and certificate.

    Raises:
        UsageError: the split has not been made.
        DataError: manifest or split files changed since the split.
    """
    certificate = run.certificate()
    again = f"put it back, or run again: dermalyze split {run.root}"
    files = certificate.get("files")
    if not isinstance(files, dict) or not set(files) <= set(PARTS):
        raise DataError(f"{run.certificate_path.name}: names no split files; {again}")
    frame = usable(read_manifest(run)).reset_index(drop=True)
    frame["group"] = groups(frame)
    part_of: dict[str, str] = {}
    for part, digest in files.items():
        path = run.split_path(part)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path.name} is missing; {again}") from None
        except OSError as error:
            raise ResourceError(f"{path.name}: cannot be read: {error.strerror}") from error
        if sha256_bytes(data) != digest:
            raise DataError(f"{path.name} is not the one that was certified (its SHA-256 differs); {again}")
        rows = pd.read_csv(BytesIO(data), dtype=str, keep_default_na=False)
        for image_id in rows["image_id"].map(_from_text):
            if part_of.setdefault(image_id, part) != part:
                raise DataError(f"{path.name}: image {image_id} is in {part_of[image_id]} too; {again}")
        if data != part_csv(frame[frame["image_id"].isin(set(rows["image_id"].map(_from_text)))]):
            raise DataError(f"{path.name}: its images, labels or groups are not the manifest's; {again}")
    _require_labels(frame, read_classes(run), read_task(run))
    parts = frame["image_id"].map(part_of)
    if parts.isna().any():
        raise DataError(f"splits: image {frame.loc[parts.isna(), 'image_id'].iloc[0]} of the manifest is in no split; {again}")
    return frame, parts.rename("split")


def late_leaks(run: Run, found: Duplicates) -> list[dict[str, Any]]:
    """Leaks through near-duplicates that were found after the split, beside those that its manifest knows already.

    Raises:
        UsageError: the split has not been made.
        DataError: manifest or split files changed since the split.
    """
    frame, parts = read_division(run)
    known = [leak["image_ids"] for leak in leaks(frame, parts)]
    frame["cluster_id"] = joined(frame, found.pairs)
    return [leak for leak in leaks(frame.assign(group=groups(frame)), parts) if leak["image_ids"] not in known]


def require_no_leak(run: Run, accept_leak: str | None) -> str | None:
    """Refuse groups that cross splits. The check reads manifest and split files; it does not trust the certificate.

    Near-duplicates that an audit found after the split count as well.

    Args:
        accept_leak: the reason to accept a leak, or None.

    Returns:
        the reason, if the split leaks and one was given: every result must show it. None for a split without leaks.

    Raises:
        LeakError: it leaks and no reason was given.
        UsageError: an empty reason, or no split yet.
        DataError: manifest, split files or certificate changed.
    """
    if accept_leak is not None and not accept_leak.strip():
        raise UsageError('--accept-leak needs a reason, for example: --accept-leak "the published split, for comparison only"')
    frame, parts = read_division(run)
    found = leaks(frame, parts)
    if bool(found) == bool(run.certificate().get("passed")):
        raise DataError(
            f"{run.certificate_path.name}: does not say what its split files show; run again: dermalyze split {run.root}"
        )
    duplicates = recorded(run, frame)
    if duplicates is not None:
        found += late_leaks(run, duplicates)
    if not found:
        return None
    if accept_leak is None:
        raise LeakError(
            f"{run.root.name}: the split leaks: {describe_leaks(found)}; correct the split column, or split again if the audit "
            'came later, or continue with --accept-leak "reason", which every result then shows'
        )
    return one_line(accept_leak)
