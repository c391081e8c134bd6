"""The small model that comes with the package, so that an image is answered straight after installation."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from dermalyze.artifact.record import RECORD_NAME
from dermalyze.errors import DataError, UsageError
from dermalyze.serve.predictor.inputs import check_directory

MODEL_SUFFIXES = (".onnx", ".pt", ".pth", ".ckpt", ".safetensors", ".h5", ".keras", ".tflite")
FOLDER = Path(__file__).parents[1] / "small"
TOLD = (
    "answered by the small model of the package, for dermoscopy and HAM10000's seven classes, to try things out "
    "(docs/reference/packaged-model.md); for another name its run or artifact first"
)


def told_apart(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The model and the images of a command line whose first argument may be either.

    It is the model, unless it is a file that exists, standard input, or the only argument.

    Raises:
        UsageError: it is a model's file, such as an artifact in a zip archive, which is not opened.

    >>> told_apart(["no-such-run", "photo.jpg"])[1], told_apart(["-"])[0].name
    (['photo.jpg'], 'small')
    """
    first = Path(arguments[0])
    if len(arguments) > 1 and first.is_file() and _is_model(first):
        raise UsageError(
            f"{first.name}: is a model in one file; give the folder of an artifact or a run: unpack a zip, or export the "
            "network with dermalyze export RUN"
        )
    model = (first / RECORD_NAME).exists() or (first / "config.yaml").exists()
    if model or (len(arguments) > 1 and not first.is_file() and arguments[0] != "-"):
        return first, list(arguments[1:])
    return FOLDER, list(arguments)


def _is_model(file: Path) -> bool:
    """Whether a file holds a model: by its ending, or an archive with the record of an artifact in it."""
    if file.suffix.lower() in MODEL_SUFFIXES:
        return True
    try:
        with file.open("rb") as stream:
            if stream.read(2) != b"PK":
                return False
            check_directory(stream)
            with zipfile.ZipFile(stream) as archive:
                return any(name.rpartition("/")[2] == RECORD_NAME for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, DataError):
        return False  # what is wrong with it is said where its images are read
