"""The small model that comes with the package, so that an image is answered straight after installation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dermalyze.artifact.record import RECORD_NAME

FOLDER = Path(__file__).parents[1] / "small"
TOLD = (
    "answered by the small model of the package, for dermoscopy and HAM10000's seven classes, to try things out "
    "(docs/reference/packaged-model.md); for another name its run or artifact first"
)


def told_apart(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The model and the images of a command line whose first argument may be either.

    It is the model, unless it is a file that exists, standard input, or the only argument.

    >>> told_apart(["no-such-run", "photo.jpg"])[1], told_apart(["-"])[0].name
    (['photo.jpg'], 'small')
    """
    first = Path(arguments[0])
    model = (first / RECORD_NAME).exists() or (first / "config.yaml").exists()
    if model or (len(arguments) > 1 and not first.is_file() and arguments[0] != "-"):
        return first, list(arguments[1:])
    return FOLDER, list(arguments)
