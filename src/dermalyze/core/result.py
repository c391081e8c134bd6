"""The result of every stage: a frozen record, as JSON values and as lines of text."""

from __future__ import annotations

from typing import Any, Protocol


class Result(Protocol):
    """A stage's result."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, for `--json`."""

    def lines(self) -> list[str]:
        """Lines for a person on a terminal."""


DISCLAIMER = "For research and education only; not a medical device and not a diagnosis."
