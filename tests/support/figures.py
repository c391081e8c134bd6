"""Numbers of a report as they are printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

PRINTED = re.compile(r"-?\d\.\d{3}")


def printed(value: Any) -> Iterator[str]:
    """Every float of a JSON value, with three decimals."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from printed(one)
    elif isinstance(value, float):
        yield f"{value:.3f}"
