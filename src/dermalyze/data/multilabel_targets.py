"""Images with any number of labels each: from what a source says to the manifest's text, and counts of each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from dermalyze.config.task import MultilabelTask
from dermalyze.data.labels import settle_labels
from dermalyze.data.sources.reading import Row
from dermalyze.errors import ConfigError, DataError
from dermalyze.tasks.base import Task
from dermalyze.tasks.multilabel import NO_LABEL, SEPARATOR, UNKNOWN, joined, multi_hot


def settle_label_sets(
    rows: Sequence[Row],
    task: MultilabelTask,
    *,
    label_map: Mapping[str, str | None],
    chosen: Sequence[str] | None,
    own: Sequence[str] | None,
) -> tuple[list[str], list[str]]:
    """Read, map and settle the labels of each image.

    A question mark before a name says that nobody knows whether the image has that label.

    Args:
        rows: of a source; `labels` where the source itself knows them, else the text of `label`.
        task: separator, and names that mean no label.
        label_map: name in the source to the label's; null leaves the label out, not its images.
        chosen: labels from the configuration; they win.
        own: labels that the source defines; None: whatever names there are, sorted.

    Returns:
        the manifest's text of each image (see `dermalyze.tasks.multilabel.joined`), and the labels in order.

    Raises:
        ConfigError: fewer than 2 labels, one named twice, one that holds a mark of the manifest, or a label map that leads
            to none of them.
        DataError: a label named twice, or beside a name that means none, in one image; labels that are none of those known.

    >>> rows = [Row("t.csv line 2", "a", "edema|effusion", None), Row("t.csv line 3", "b", "", None)]
    >>> settle_label_sets(rows, MultilabelTask(), label_map={}, chosen=None, own=None)
    (['edema|effusion', '(none)'], ['edema', 'effusion'])
    """
    read = [read_labels(row, task) for row in rows]
    kept = [[(label, missing) for label, missing in labels if label_map.get(label, label) is not None] for labels in read]
    parts = [row.known.get("split") for row, labels in zip(rows, kept, strict=True) for _ in labels]
    known = None if own is None else [label_map.get(name, name) for name in own if name not in task.none]
    mapped, classes = settle_labels(
        [label for labels in kept for label, _ in labels],
        label_map=label_map,
        chosen=chosen,
        own=None if known is None else list(dict.fromkeys(name for name in known if name is not None)),
        splits=[None if part is None else str(part) for part in parts],
    )
    if len(classes) < 2:
        raise DataError(
            f"only {len(classes)} label {classes} in {len(rows)} images; task multilabel needs at least 2: for one finding use "
            "task multiclass, with a class for its absence"
        )
    for name in classes:
        if SEPARATOR in name or name == NO_LABEL or name.startswith(UNKNOWN):
            raise ConfigError(
                f"label '{name}': a label may neither hold '{SEPARATOR}', nor begin with '{UNKNOWN}', nor be '{NO_LABEL}'; use "
                "data.label_map"
            )
    names = iter(mapped)
    return [text_of([(next(names), missing) for _, missing in labels], classes) for labels in kept], classes


def text_of(labels: Sequence[tuple[str | None, bool]], classes: Sequence[str]) -> str:
    """The manifest's text of one image.

    Args:
        labels: name after mapping (None: left out), and whether nobody knows if the image has it. Of names that are mapped to
            one label, the one that is known counts.
        classes: the labels in order.

    >>> text_of([("b", True), ("a", False), ("b", True)], ["a", "b"])
    'a|?b'
    """
    missing_of: dict[str, bool] = {}
    for name, missing in labels:
        if name is not None:
            missing_of[name] = missing and missing_of.get(name, True)
    return joined([UNKNOWN * missing_of[name] + name for name in classes if name in missing_of])


def read_labels(row: Row, task: MultilabelTask) -> list[tuple[str, bool]]:
    """The labels of one image, each once, without names that mean none, and whether nobody knows if the image has it.

    Raises:
        DataError: an empty name, one that stands there twice, or one that means none beside another.
    """
    labels = list(row.labels) if row.labels is not None else row.label.split(task.separator) if row.label else []
    if row.labels is None and {"", UNKNOWN} & set(labels):
        raise DataError(
            f"{row.where}: labels {row.label!r} hold an empty one; write names with '{task.separator}' between them, and leave "
            "the cell empty where there is none"
        )
    twice = [label for label, count in Counter(label.removeprefix(UNKNOWN) for label in labels).items() if count > 1]
    if twice:
        raise DataError(f"{row.where}: label '{twice[0]}' is listed twice; keep one")
    absent = [label for label in labels if label in task.none]
    if absent and len(labels) > 1:
        others = ", ".join(label for label in labels if label not in task.none) or ", ".join(absent[1:])
        raise DataError(f"{row.where}: '{absent[0]}' means no label, but {others} is listed too; keep one of them")
    named = [] if absent else [(label.removeprefix(UNKNOWN), label.startswith(UNKNOWN)) for label in labels]
    return [(label, missing) for label, missing in named if label not in task.none]


def require_both(labels: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse a label that every image has.

    Raises:
        DataError: with the label.
    """
    targets_NC = multi_hot(labels, classes)
    always = [c for c in range(len(classes)) if not (targets_NC[:, c] == 0).any()]
    if always:
        count = int((targets_NC[:, always[0]] == 1).sum())
        told = f"all {count} usable images" + (" of which it is known" if count < len(labels) else "")
        raise DataError(f"label '{classes[always[0]]}' is on {told}, so a model cannot learn it; leave it out")


def label_counts(labels: Sequence[str], classes: Sequence[str], task: Task) -> dict[str, int]:
    """Images of each class, or with each label."""
    members_NC = task.membership(task.targets(labels, classes), len(classes))
    return dict(zip(classes, members_NC.sum(axis=0).tolist(), strict=True))


def counts_by(by: pd.Series, labels: pd.Series, classes: Sequence[str], task: Task) -> pd.DataFrame:
    """Images of each class, or with each label, by a key of the images; keys sorted.

    Args:
        by: such as the group of each image.
        labels: as the manifest holds them.

    >>> from dermalyze.tasks.base import TASKS
    >>> counts_by(pd.Series(["g", "g"]), pd.Series(["a|b", "b"]), ["a", "b"], TASKS["multilabel"]).loc["g"].tolist()
    [1, 2]
    """
    members_NC = task.membership(task.targets(labels.astype(str).tolist(), classes), len(classes)).astype(np.int64)
    return pd.DataFrame(members_NC, index=labels.index, columns=list(classes)).groupby(by.to_numpy()).sum()
