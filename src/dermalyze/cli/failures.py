"""Expected failures become one line and an exit code; what nobody foresaw keeps its traceback."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from dermalyze.errors import DermalyzeError, MissingExtraError, one_line

EXTRAS = {
    "explain": "captum",
    "train": "torch torchvision timm safetensors sklearn scipy pandas pyarrow matplotlib tensorboard onnx onnxscript jinja2",
}
"""Modules that each optional part of the installation brings."""

DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


def explain(error: BaseException, doing: str) -> tuple[str | None, int]:
    """The line and exit code of a failure; no line for one that nobody foresaw.

    >>> explain(MemoryError(), "train")
    ('train: out of memory; close other programs, or make the images, the batch or the cache smaller', 5)
    """
    if isinstance(error, DermalyzeError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return f"{doing}: out of memory; close other programs, or make the images, the batch or the cache smaller", 5
    if isinstance(error, ImportError):
        root = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if root in modules.split()), None)
        if extra is None or sys.modules.get(root) is not None:
            return None, 1
        missing = MissingExtraError(f"dermalyze {doing}", extra)
        return str(missing), missing.exit_code
    if isinstance(error, OSError) and error.errno in (*DISK, *IN_THE_WAY):
        place = f" ({Path(str(error.filename)).name})" if error.filename else ""
        remedy = "check the permission and the free space of the folder"
        if error.errno in IN_THE_WAY:
            remedy = "something else stands where a file of the run belongs: move it"
        return one_line(f"{doing}: {error.strerror}{place}; {remedy}"), 5
    return None, 1
