"""What every stage returns: a frozen record with a form for machines and a form for people."""

from __future__ import annotations

from typing import Any, Protocol


class Result(Protocol):
    """A stage's result."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, for `--json`."""

    def lines(self) -> list[str]:
        """Lines for a person on a terminal."""


DISCLAIMER = "For research and education only; not a medical device and not a diagnosis."
