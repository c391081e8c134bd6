"""Checks of a data set before training: pure functions from manifest rows to findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import pandas as pd

from dermalyze.audit.association import GIVEAWAY_AUROC, association, binned
from dermalyze.config.columns import is_giveaway
from dermalyze.config.data import SplitSpec
from dermalyze.core.run import OWN_NAMES
from dermalyze.data.duplicates import Duplicates, Pair, across
from dermalyze.data.grouping import conflicts, describe_leaks, groups, keys, leaks
from dermalyze.data.samples import shared_images
from dermalyze.data.splitting import MULTICLASS, divide
from dermalyze.errors import DataError
from dermalyze.tasks.base import Task

PURE_GROUPS, PURE_CHANCE = 10, 1e-4
"""A value is called one-class from this many groups on, where chance alone would make them so less often than this."""

NOT_JUDGED = "task multilabel: columns, files and image statistics are not checked for label leakage"
LARGE_CLUSTER = 20
COPIED_SHARE, COPIED_IMAGES = 0.2, 10
"""A class is said to hold copies where this share of its images, and as many, are near-duplicates that no id explains."""
EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One finding of an audit.

    Attributes:
        kind: what it is, a word for machines.
        severity: refuse (the set cannot be used so), warn (look at it), info (noted; the split takes care of it).
        count: how many images, groups or columns.
        detail: one line for a person: what, why it matters, what to do.
        examples: a few ids.
    """

    kind: str
    severity: Literal["refuse", "warn", "info"]
    count: int
    detail: str
    examples: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "examples": list(self.examples)}


def audit_frame(
    frame: pd.DataFrame, spec: SplitSpec, found: Duplicates | None = None, task: Task = MULTICLASS
) -> list[Finding]:
    """Every check on one set, the worst findings first.

    Where images have any number of labels each, what looks for giveaways of a class is left out.

    Args:
        frame: usable manifest rows, with any columns of the user.
        spec: only read where the set has its own split column with parts missing.
        found: near-duplicates, where they were looked for.
        task: what `label` holds.
    """
    frame = frame.reset_index(drop=True)
    if len(frame) == 0:
        return [Finding("empty", "refuse", 0, "no usable image; run prepare on a filled folder")]
    frame = frame.assign(group=groups(frame))
    findings = [
        *label_conflicts(frame),
        *crossing_groups(frame, spec, task),
        *(
            [*giveaway_columns(frame), *telling_files(frame), *one_class_values(frame), *mixed_lesions(frame)]
            if task.has("one_class")
            else [Finding("labels_not_judged", "info", 0, NOT_JUDGED)]
        ),
        *giant_groups(frame),
        *exact_duplicates(frame),
        *shared_optional_images(frame),
        *([] if found is None else near_duplicates(frame, found)),
    ]
    return sorted(findings, key=lambda finding: ("refuse", "warn", "info").index(finding.severity))


def label_conflicts(frame: pd.DataFrame) -> list[Finding]:
    """The same image (file bytes or pixels) under two labels.

    >>> twice = pd.DataFrame({"image_id": ["a", "b"], "sha256": ["1", "1"], "label": ["mel", "nv"]})
    >>> [finding.examples for finding in label_conflicts(twice)]
    [('a', 'b')]
    """
    found = conflicts(frame)
    if not found:
        return []
    label = dict(zip(frame["image_id"].astype(str), frame["label"].astype(str), strict=True))
    first = ", ".join(f"{i} is '{label[i]}'" for i in found[0][:4])
    detail = f"{len(found)} image(s) have two labels; first: {first}; keep one label, or remove both, and run prepare again"
    return [Finding("label_conflict", "refuse", len(found), detail, tuple(i for ids in found for i in ids)[: 2 * EXAMPLES])]


def exact_duplicates(frame: pd.DataFrame) -> list[Finding]:
    """The same file, or the same pixels in different files, more than once. The split keeps them together."""
    found = []
    by_file, by_pixels = keys(frame, "sha256"), keys(frame, "pixel_sha256")
    for kind, what, key in (
        ("duplicate_file", "file bytes", by_file),
        ("duplicate_pixels", "pixels (the files differ)", by_pixels),
    ):
        rows = frame.assign(key=key, file=by_file.fillna(""))[key.notna() & key.duplicated(keep=False)].sort_values("image_id")
        if kind == "duplicate_pixels":  # those with one file hash are listed already
            rows = rows[rows.groupby("key")["file"].transform("nunique") > 1]
        if len(rows):
            sets = int(rows["key"].nunique())
            detail = f"{sets} set(s) of images with the same {what}; each group stays in one split"
            ids = rows.sort_values("key", kind="stable")["image_id"].astype(str)[: 2 * EXAMPLES]
            found.append(Finding(kind, "info", len(rows) - sets, detail, tuple(ids)))
    return found


def shared_optional_images(frame: pd.DataFrame) -> list[Finding]:
    """Optional images that are in another sample too, in any place; a warning where the samples have different labels."""
    found = shared_images(frame)
    if not found:
        return []
    label = dict(zip(frame["image_id"].astype(str), frame["label"].astype(str), strict=True))
    mixed = [ids for ids in found if len({label[i] for i in ids}) > 1]
    detail = (
        f"{len(found)} optional image(s) are in another sample too, {len(mixed)} of them under different labels (an overview "
        "of two subjects? then it tells neither); each group of samples stays in one split"
    )
    shown = tuple(", ".join(ids) for ids in (mixed or found)[:EXAMPLES])
    return [Finding("shared_optional", "warn" if mixed else "info", len(found), detail, shown)]


def near_duplicates(frame: pd.DataFrame, found: Duplicates) -> list[Finding]:
    """Pairs that show one photograph: how many, and those under two labels, two ids or of two sources."""
    if not found.pairs:
        return []

    def ids(pairs: Sequence[Pair]) -> tuple[str, ...]:
        return tuple(f"{pair.first} {pair.second}" for pair in pairs)

    detail = (
        f"{len(found.pairs)} pair(s) of near-duplicates in {len(found.clusters)} cluster(s), the largest of "
        f"{found.largest} images; each cluster stays in one split"
    )
    findings = [Finding("near_duplicates", "info", len(found.pairs), detail, ids(found.pairs[:EXAMPLES]))]
    for column, kind, what in (
        ("label", "duplicate_labels", "have two labels: one of them is wrong"),
        (
            "lesion_id",
            "duplicate_lesions",
            "have two values of lesion_id: the data set counts one subject twice, and the split joins them",
        ),
        ("source", "duplicate_sources", "are in two sources: never train on one of these and test on the other"),
    ):
        pairs = across(frame, found.pairs, column)
        if pairs:
            first = f"{pairs[0].first} and {pairs[0].second}"
            line = f"{len(pairs)} pair(s) of near-duplicates {what}; first: {first}"
            findings.append(Finding(kind, "warn", len(pairs), line, ids(pairs)))
    findings += copied_classes(frame, found)
    if found.largest > max(LARGE_CLUSTER, len(frame) // 100):
        line = (
            f"the largest cluster of near-duplicates holds {found.largest} images: very even images, or one object "
            "photographed many times? look at it before you trust the split"
        )
        findings.append(Finding("large_cluster", "warn", found.largest, line, max(found.clusters, key=len)[:EXAMPLES]))
    return findings


def copied_classes(frame: pd.DataFrame, found: Duplicates) -> list[Finding]:
    """Classes with many near-duplicates of one label and no common lesion_id or patient_id: thumbnails or resized copies, such
    as a program left in the folder of the class."""
    known = {
        column: dict(zip(frame["image_id"].astype(str), keys(frame, column), strict=True))
        for column in ("label", "lesion_id", "patient_id")
    }
    label = known.pop("label")
    copied: dict[str, set[str]] = {}
    for pair in found.pairs:
        explained = any(of[pair.first] is not None and of[pair.first] == of[pair.second] for of in known.values())
        if label[pair.first] == label[pair.second] and not explained:
            copied.setdefault(str(label[pair.first]), set()).update((pair.first, pair.second))
    size = frame["label"].astype(str).value_counts()
    return [
        Finding(
            "copied_class", "warn", len(ids),
            f"{len(ids)} of {size[name]} images of class '{name}' are near-duplicates of another without a common lesion_id or "
            "patient_id: copies or thumbnails among the originals? remove them, or the class is counted too often",
            tuple(sorted(ids)[:EXAMPLES]),
        )
        for name, ids in sorted(copied.items())
        if len(ids) >= max(COPIED_IMAGES, COPIED_SHARE * size[name])
    ]  # fmt: skip


def crossing_groups(frame: pd.DataFrame, spec: SplitSpec, task: Task = MULTICLASS) -> list[Finding]:
    """Groups that cross the set's own split column, or a column that `split` would refuse."""
    if keys(frame, "split").isna().all():
        return []
    try:
        found = leaks(frame, divide(frame, spec, task=task).parts)
    except DataError as error:
        return [Finding("split_column", "refuse", 1, str(error))]
    if not found:
        return []
    detail = f"the data set's split column leaks: {describe_leaks(found)}; correct the column, or train with --accept-leak"
    return [
        Finding(
            "split_leak",
            "refuse",
            len(found),
            detail,
            tuple(", ".join(f["lesion_ids"]) or f["group"] for f in found[:EXAMPLES]),
        )
    ]


def mixed_lesions(frame: pd.DataFrame) -> list[Finding]:
    """Values of lesion_id whose photographs carry different labels."""
    known = keys(frame, "lesion_id")
    labels = frame["label"].groupby(known.dropna()).nunique()
    mixed = sorted(labels.index[labels > 1].astype(str))
    if not mixed:
        return []
    detail = f"{len(mixed)} value(s) of lesion_id have more than one label; one subject has one label at a time: check them"
    return [Finding("mixed_lesion", "warn", len(mixed), detail, tuple(mixed[:EXAMPLES]))]


def giant_groups(frame: pd.DataFrame) -> list[Finding]:
    """One group that holds more than a tenth of a set: often a placeholder such as 'unknown' in an id column."""
    size = frame["group"].value_counts()
    if len(frame) < 50 or size.iloc[0] <= len(frame) / 10:
        return []
    rows = frame[frame["group"] == size.index[0]]
    shared = [c for c in ("patient_id", "lesion_id", "cluster_id") if (keys(rows, c).value_counts() > len(frame) / 10).any()]
    by = f" by one value of {' and '.join(shared)} (a placeholder? leave such cells empty)" if shared else ""
    detail = f"one group holds {size.iloc[0]} of {len(frame)} images, joined{by}; no split can divide it"
    return [Finding("giant_group", "warn", int(size.iloc[0]), detail, (str(size.index[0]),))]


def giveaway_columns(frame: pd.DataFrame) -> list[Finding]:
    """Columns that reveal the label: by name, or because they predict a class on held-out groups."""
    skipped = {*OWN_NAMES, "group"} - {"age", "sex", "site", "source"}
    found = []
    for column in [c for c in frame.columns if c not in skipped]:
        named = is_giveaway(str(column))
        area, name = association(binned(frame[column]), frame["label"], frame["group"])
        if named or area >= GIVEAWAY_AUROC:
            why = "follows from the diagnosis" if named else "predicts the class"
            how = f" (AUROC {area:.2f} for '{name}' against the rest, on held-out groups)" if name else ""
            then = "it is never a model input" if named else "it is no model input until model.metadata.accept names it"
            detail = f"column '{column}' {why}{how}; {then}"
            found.append(Finding("giveaway_column", "warn", 1, detail, (str(column),)))
    return found


def telling_files(frame: pd.DataFrame) -> list[Finding]:
    """File properties that predict the class: size, stored mode, file type, prefix and number of the ids."""
    names = frame["image_id"].astype(str).map(lambda text: PurePosixPath(text).stem)
    size = frame["width"].astype(str) + "x" + frame["height"].astype(str) if {"width", "height"} <= set(frame) else None
    properties = {
        "image size": size,
        "stored mode": keys(frame, "mode"),
        "file type": keys(frame, "path").map(lambda path: PurePosixPath(path).suffix.lower(), na_action="ignore"),
        "prefix of image_id": names.str.extract(r"^([^\d]*)", expand=False),
        "number in image_id": binned(names.str.extract(r"(\d{1,15})(?!.*\d)", expand=False)),
        "prefix of lesion_id": keys(frame, "lesion_id").astype("string").str.extract(r"^([^\d]*)", expand=False),
    }
    found = []
    for what, values in properties.items():
        if values is None or values.nunique() < 2:
            continue
        area, name = association(values, frame["label"], frame["group"])
        if area >= GIVEAWAY_AUROC:
            detail = (
                f"{what} predicts the class (AUROC {area:.2f} for '{name}' against the rest): a network can learn how the set "
                "was made instead of what the images show; mix the origins, or evaluate on another set"
            )
            found.append(Finding("telling_files", "warn", int(values.nunique()), detail))
    return found


def one_class_values(frame: pd.DataFrame) -> list[Finding]:
    """Values of a source, site, size, mode or column of the user that hold one class only, more often than by chance."""
    extra = [c for c in frame.columns if c not in (*OWN_NAMES, "group")]
    columns = {str(c): keys(frame, c) for c in ("source", "site", "sex", "mode", *extra)}
    if {"width", "height"} <= set(frame):
        columns["size"] = frame["width"].astype(str) + "x" + frame["height"].astype(str)
    prior = frame.drop_duplicates("group")["label"].value_counts(normalize=True)
    found = []
    for column, values in columns.items():
        table = frame.groupby(values).agg(
            n=("label", "size"), label=("label", "first"), labels=("label", "nunique"), groups=("group", "nunique")
        )
        chance = table["label"].map(prior).fillna(0.0).astype(float) ** table["groups"]
        pure = table[(table["labels"] == 1) & (table["groups"] >= PURE_GROUPS) & (chance < PURE_CHANCE)]
        if len(table) > 1 and len(pure):
            name, row = pure.index[0], pure.iloc[0]
            detail = (
                f"{len(pure)} value(s) of '{column}' hold one class only; first: '{name}', {row['n']} images, "
                f"all '{row['label']}'; a network can learn the origin instead of what the images show"
            )
            found.append(Finding("one_class_value", "warn", len(pure), detail, tuple(str(v) for v in pure.index[:EXAMPLES])))
    return found


def summary(found: Sequence[Finding]) -> dict[str, int]:
    """How many findings of each severity."""
    return {severity: sum(f.severity == severity for f in found) for severity in ("refuse", "warn", "info")}
