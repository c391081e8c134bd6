"""The second picture of a case, on its way to an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dermalyze.errors import UsageError
from dermalyze.imaging.cases import Pixels, packed
from dermalyze.serve.predictor.inputs import Item, read_file

NO_SECOND = "no second image: answered by the first alone"


@dataclass(frozen=True)
class Case:
    """Two pictures to answer for, each as `Predictor.predict` takes one; `second` is None where there is none."""

    first: Any
    second: Any | None


def parts_of(image: Any) -> tuple[Any, Any | None]:
    """The first and the second picture of whatever a person gave."""
    if isinstance(image, Case):
        return image.first, image.second
    second: Callable[[], Item] | None = image.second if isinstance(image, Item) else None
    return image, second() if second is not None else None


def joined(first: Any, second: Any, prepare: Callable[[Any], tuple[Any, Pixels | None]]) -> tuple[Any, Pixels | None]:
    """An answer still to be filled in and the case (H, W, 7), or a finished error and None.

    Args:
        first, second: the pictures.
        prepare: from a picture to its own answer, with notes or an error, and its pixels at the network's size or None.
    """
    blank, pixels = prepare(first)
    if pixels is None:
        return blank, None
    if second is None:
        return replace(blank, notes=(*blank.notes, NO_SECOND)), packed(pixels, None)
    other, more = prepare(second)
    if more is None:
        return replace(blank, error=f"second image: {other.error}"), None
    return replace(blank, notes=(*blank.notes, *(f"second image: {note}" for note in other.notes))), packed(pixels, more)


def one_case(images: Sequence[str | Path], second: str | Path) -> list[Case]:
    """The two pictures of one case, named by a person.

    Raises:
        UsageError: several images, or what may hold several: a folder, an archive, a table or standard input.
    """
    names = [*map(str, images), str(second)]
    several = any(name == "-" or Path(name).is_dir() or Path(name).suffix.lower() in (".csv", ".zip") for name in names)
    if several or len(names) != 2:
        raise UsageError("--second goes with one image file; for more write a CSV with the columns path and second_path")
    return [Case(read_file(images[0]), read_file(second))]
