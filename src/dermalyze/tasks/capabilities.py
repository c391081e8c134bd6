"""What a task can be asked for, and the one sentence that refuses the rest."""

from __future__ import annotations

from dermalyze.errors import UsageError


class Capable:
    """Something with capabilities.

    Attributes:
        kind: as in the configuration.
        capabilities: what commands and options ask for by `require`; a word stands here where at least one task lacks it.

    >>> task = Capable()
    >>> task.kind, task.capabilities = "multilabel", frozenset({"thresholds"})
    >>> task.require("thresholds", "class_prior", what="predict --prevalence")
    Traceback (most recent call last):
    dermalyze.errors.UsageError: predict --prevalence: needs class_prior, which task multilabel lacks; ...
    """

    kind: str
    capabilities: frozenset[str] = frozenset()

    def has(self, *capabilities: str) -> bool:
        """Whether it has all of them."""
        return self.capabilities.issuperset(capabilities)

    def require(self, *capabilities: str, what: str) -> None:
        """Refuse what this task cannot do.

        Args:
            capabilities: all that are needed.
            what: the command, or the option.

        Raises:
            UsageError: with the first that is missing.
        """
        missing = [name for name in capabilities if name not in self.capabilities]
        if missing:
            raise UsageError(
                f"{what}: needs {missing[0]}, which task {self.kind} lacks; it has {', '.join(sorted(self.capabilities))}"
            )
