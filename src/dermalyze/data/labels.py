"""From the labels of a source to the classes of a model: no label is trimmed, guessed or added."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from dermalyze.errors import ConfigError, DataError, nearest

_NO_LABEL = ("", "nan", "na", "n/a", "none", "null", "unknown")
_SHOWN = 5


def settle_labels(
    labels: Sequence[str],
    *,
    label_map: Mapping[str, str | None],
    chosen: Sequence[str] | None,
    own: Sequence[str] | None,
    splits: Sequence[str | None] | None = None,
) -> tuple[list[str], list[str]]:
    """Map each label and settle the classes.

    Args:
        labels: as in the source, one per image.
        label_map: label in the source to class name; None for one whose images have been left out.
        chosen: class names from the configuration; they win.
        own: class names the source defines; None: whatever names there are, sorted.
        splits: the user's own split of each image, or None; without chosen or own classes a class that is in no training
            image is unknown.

    Returns:
        the class of each image, and the classes in order.

    Raises:
        ConfigError: fewer than 2 classes, one named twice, or a label is mapped to none of them.
        DataError: labels that are none of the classes, with their counts and the nearest class.

    >>> settle_labels(["nv", "mole"], label_map={"mole": "nv"}, chosen=["mel", "nv"], own=None)
    (['nv', 'nv'], ['mel', 'nv'])
    """
    known = list(chosen) if chosen is not None else list(own) if own is not None else None
    if known is not None and (
        len(set(map(_alike, known))) != len(known) or len(known) < 2 or any(not name.strip() for name in known)
    ):
        raise ConfigError(f"data.classes: {known} must be two or more different names; none may be mistaken for another")
    mapped = [label_map.get(label) or label for label in labels]
    if known is None:
        classes = _derive(mapped, splits)
    else:
        classes = known
        strangers = sorted({name for label, name in zip(labels, mapped, strict=True) if label in label_map} - set(known))
        if strangers:
            raise ConfigError(f"data.label_map: maps to {strangers}, not among the classes {known}; set data.classes")
    unknown = Counter(label for label in mapped if label not in set(classes))
    if unknown:
        shown = [
            f"{_legible(label, classes)} ({count} {'image' if count == 1 else 'images'}{nearest(label, classes)})"
            for label, count in unknown.most_common(_SHOWN)
        ]
        more = f" and {len(unknown) - _SHOWN} others" if len(unknown) > _SHOWN else ""
        raise DataError(
            f"labels {', '.join(shown)}{more} are none of the classes {classes}; "
            "correct them, or map them with data.label_map (null leaves a label out), or set data.classes"
            + ("; such words usually mean that the label is missing" if all(map(_means_none, unknown)) else "")
        )
    return mapped, classes


def _composed(name: str) -> str:
    """One way of writing a letter with its accent (Unicode NFC); file systems and programs differ in theirs."""
    return unicodedata.normalize("NFC", name)


def _alike(name: str) -> tuple[float | None, str]:
    """Equal for names that a reader or a program takes for one: of other case, width, or way of writing a letter or a number.

    >>> _alike("0") == _alike("0.0") == _alike("０"), _alike("Mel") == _alike("mеl"), _alike("1") == _alike("l")
    (True, True, False)
    """
    text = unicodedata.normalize("NFKC", name).strip().casefold().translate(_LATIN)
    return (float(text), "") if _is_number(text) and not _means_none(text) else (None, text)


_LATIN = str.maketrans("авеікмнорсԁтухһјѕ" + "αβεικμνορτυχ", "abeikmhopcdtyxhjs" + "abeikmvoptyx")
"""Small Cyrillic and Greek letters that look like Latin ones, or whose capitals do."""


def _legible(label: str, classes: Sequence[str]) -> str:
    """A label in quotes; one that could be mistaken for a class with its code points, and for which class."""
    same = next((name for name in classes if _alike(name) == _alike(label)), None)
    if same is None:
        return repr(label)
    if label.strip().lower() == same.lower():
        return repr(label)
    if _alike(same)[0] is not None:
        return f"{label!r}, which is the number {same!r} written in another way"
    return f"{label!a}, which looks like a class but is written with other Unicode characters"


def _derive(labels: Sequence[str], splits: Sequence[str | None] | None) -> list[str]:
    """The labels that can be names of classes: those of training images, no blanks, and one spelling of each."""
    counts = Counter(labels)
    if splits is not None and "train" in splits:
        trained = {label for label, split in zip(labels, splits, strict=True) if split in ("train", None)}
        counts = Counter({label: count for label, count in counts.items() if label in trained})
    names = [label for label in counts if not _means_none(label) and label == label.strip() and label.isprintable()]
    words = [name for name in names if not _is_number(name)]
    if words and len(words) != len(names):  # a number among words is a slip; numbers alone are classes
        names = words if len(words) > 1 else names
    best: dict[tuple[float | None, str], str] = {}
    for name in sorted(names, key=lambda name: (-counts[name], name)):
        best.setdefault(_alike(name), name)
    numbers = all(map(_is_number, best.values()))
    return sorted(best.values(), key=lambda name: (float(name), name) if numbers else (0.0, name))


def _means_none(label: str) -> bool:
    return label.strip().lower() in _NO_LABEL


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def require_classes(classes: Sequence[str], counts: Mapping[str, int]) -> None:
    """Refuse a set that cannot train a classifier.

    Args:
        classes: in order.
        counts: usable images per class.

    Raises:
        DataError: fewer than two classes, or a class without an image.
    """
    if len(classes) < 2:
        raise DataError(
            f"{sum(counts.values())} usable images of {len(classes)} class {list(classes)}; at least 2 classes are needed"
        )
    empty = [name for name in classes if not counts.get(name)]
    if empty:
        present = ", ".join(name for name in classes if counts.get(name))
        raise DataError(
            f"classes {empty} have 0 usable images; each class needs at least 1: add images, "
            f"or leave the classes out with data.classes: [{present}]"
        )
