"""What is recorded of each data set: its biases, its malignant classes, the classes a report watches, its license."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from dermalyze.config.data import DataSpec, MergedSource, SourceSpec
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.data.sources.linking import archive_name
from dermalyze.errors import ConfigError, nearest

GENERAL = ("csv", "folder")
"""Sources of any data set: their class names are looked up in the cards of all others."""


@dataclass(frozen=True)
class Card:
    """A kind of source.

    Attributes:
        name: of the data set.
        biases: known ones, in sentences.
        malignant: class names, in lower case, that `evaluate.malignant: auto` counts as malignant. akiec of HAM10000 holds
            actinic keratoses and Bowen's disease; AK and ACK are actinic keratoses alone.
        focus: class names, in lower case, that `evaluate.focus: auto` chooses.
        class_notes: by class name, in lower case: what a reader has to know of a class that counts as malignant.
        ids: first and last image_id of the data set; all ids between them belong to it, whatever source lists them, and only
            they do: a synthetic set has the same layout. None: the kind of the source tells.
        tags: for a model hub.
        license: as model hubs name it; None: not recorded.
        license_url: its text.
        license_note: what it asks of a model made from the images, a sentence.
        creators: names of persons.
        published: date of the article.
    """

    name: str
    biases: tuple[str, ...] = ()
    malignant: tuple[str, ...] = ()
    focus: tuple[str, ...] = ()
    class_notes: dict[str, str] = field(default_factory=dict)
    ids: tuple[str, str] | None = None
    tags: tuple[str, ...] = ()
    license: str | None = None
    license_url: str | None = None
    license_note: str | None = None
    creators: tuple[str, ...] = ()
    published: str | None = None

    def lists(self, image_id: str) -> bool:
        """Whether an image belongs to the data set by its id, with or without a prefix of the archive's.

        >>> cards()["ham10000"].lists("ISIC_0024306"), cards()["ham10000"].lists("ISIC_9000001")
        (True, False)
        """
        return self.ids is not None and self.ids[0] <= (archive_name(image_id) or image_id) <= self.ids[1]


@functools.cache
def cards() -> dict[str, Card]:
    """Kind of source to card, from `cards.json`, read once."""
    text = Path(__file__).with_name("cards.json").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Card]).validate_json(text, strict=True)


def card_of(source: SourceSpec) -> Card:
    """The card of a source; that of a merged one joins those of its members."""
    card = cards()[source.kind]
    return _union(card.name, [cards()[kind] for kind in kinds_of(source)]) if isinstance(source, MergedSource) else card


def kinds_of(source: SourceSpec) -> tuple[str, ...]:
    """The kinds of a merged source's members, each once; else its own kind."""
    members = source.sources if isinstance(source, MergedSource) else ()
    return tuple(dict.fromkeys(member.source.kind for member in members)) or (source.kind,)


def data_sets(source: SourceSpec, image_ids: Iterable[str]) -> dict[str, Card]:
    """Kind to card of the data sets that a manifest holds: by its source, or by the ids of its images.

    Args:
        source: of the manifest.
        image_ids: of its images.
    """
    ids, kinds = list(image_ids), kinds_of(source)
    return {
        kind: card
        for kind, card in cards().items()
        if (any(map(card.lists, ids)) if card.ids is not None else kind in kinds and card.biases)
    }


def biases_of(found: Iterable[Card]) -> list[str]:
    """The biases of several data sets, each once."""
    return list(dict.fromkeys(bias for card in found for bias in card.biases))


# -- classes that a report asks for -------------------------------------------------------------------------------------


def malignant_of(evaluate: EvaluateSpec, classes: Sequence[str], data: DataSpec | None = None) -> tuple[str, ...]:
    """The classes of `evaluate.malignant`, in the order of `classes`; none for null, or if auto recognizes all of them.

    Args:
        evaluate: the spec.
        classes: of the model.
        data: its source's card resolves auto; None: all cards do.

    Raises:
        ConfigError: a name that is no class, one given twice, or no class left for either answer.

    >>> malignant_of(EvaluateSpec(), ["bkl", "BCC", "mel", "nv"])
    ('BCC', 'mel')
    """
    asked = evaluate.malignant
    if asked == "auto":
        found = _recognized(classes, _names(data).malignant)
        return found if len(found) < len(classes) else ()
    chosen = _named("malignant", asked, classes)
    if asked is not None and not 0 < len(chosen) < len(classes):
        raise ConfigError(
            f"evaluate.malignant: {list(asked)} must name some of {list(classes)}, each once, and not all; "
            "null asks no such question"
        )
    return chosen


def focus_of(evaluate: EvaluateSpec, classes: Sequence[str], data: DataSpec | None = None) -> tuple[str, ...]:
    """The classes of `evaluate.focus`, in the order they were given; auto: in that of `classes`; none for null.

    Args:
        evaluate: the spec.
        classes: of the model.
        data: its source's card resolves auto; None: all cards do.

    Raises:
        ConfigError: a name that is no class, one given twice, or an empty list.

    >>> focus_of(EvaluateSpec(), ["bkl", "bcc", "mel", "nv"]), focus_of(EvaluateSpec(focus=["nv"]), ["mel", "nv"])
    (('mel',), ('nv',))
    """
    asked = evaluate.focus
    if asked == "auto":
        return _recognized(classes, _names(data).focus)
    chosen = _named("focus", asked, classes)
    if asked is not None and not chosen:
        raise ConfigError(f"evaluate.focus: [] must name some of {list(classes)}; null asks for none")
    return tuple(asked or ()) if chosen else ()


def class_notes(classes: Sequence[str], data: DataSpec | None = None) -> dict[str, str]:
    """What a reader has to know of some classes, by class; without those of which nothing is recorded."""
    notes = _names(data).class_notes
    return {name: notes[name.lower()] for name in classes if name.lower() in notes}


def _names(data: DataSpec | None) -> Card:
    """The card that recognizes class names: the source's, or all cards where names may be anybody's."""
    maps = [] if data is None else [data.label_map]
    if data is not None and isinstance(data.source, MergedSource):
        maps += [member.label_map for member in data.source.sources]
    if data is None or any(maps) or any(kind in (*GENERAL, "merged") for kind in kinds_of(data.source)):
        return _union("all", cards().values())
    return card_of(data.source)


def _recognized(classes: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in classes if name.lower() in names)


def _named(key: Literal["malignant", "focus"], asked: Sequence[str] | None, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that were asked for, in the order of `classes`.

    Raises:
        ConfigError: a name that is no class, or one given twice.
    """
    for name in asked or ():
        if name not in classes:
            raise ConfigError(f"evaluate.{key}: '{name}' is no class of {list(classes)}{nearest(name, list(classes))}")
    if len(set(asked or ())) != len(asked or ()):
        raise ConfigError(f"evaluate.{key}: {list(asked or ())} must name some of {list(classes)}, each once")
    return tuple(name for name in classes if name in (asked or ()))


def _union(name: str, joined: Iterable[Card]) -> Card:
    """All that several cards record; license, creators and ids belong to one data set alone."""
    several = list(joined)
    return Card(
        name,
        biases=tuple(biases_of(several)),
        malignant=tuple(dict.fromkeys(label for card in several for label in card.malignant)),
        focus=tuple(dict.fromkeys(label for card in several for label in card.focus)),
        class_notes={label: note for card in several for label, note in card.class_notes.items()},
        tags=tuple(dict.fromkeys(tag for card in several for tag in card.tags)),
    )
