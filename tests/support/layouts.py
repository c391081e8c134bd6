"""Writes small data sets in the layout of the published ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path


def write(root: Path, files: Mapping[str, str | bytes | dict[str, str]]) -> None:
    """Text and bytes as files, a mapping as a zip."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for member, text in content.items():
                    archive.writestr(member, text)
            content = buffer.getvalue()
        path.write_bytes(content.encode() if isinstance(content, str) else content)
