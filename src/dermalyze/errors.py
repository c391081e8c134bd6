"""The one exception tree. Each class carries the exit code the command line ends with."""

from __future__ import annotations


class DermalyzeError(Exception):
    """Base of every error that dermalyze raises on purpose.

    The message is one line: what is wrong, what was found, what is allowed, what to do.

    >>> raise DataError("labels.csv row 7: label 'mell' is unknown; did you mean 'mel'?")
    Traceback (most recent call last):
    ...
    dermalyze.errors.DataError: labels.csv row 7: label 'mell' is unknown; did you mean 'mel'?
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UsageError(DermalyzeError):
    """A command or function was called with arguments that make no sense (exit 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """The experiment's configuration is wrong (exit 2)."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency that is not installed (exit 2)."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional part: pip install 'dermalyze[{extra}]'")


class DataError(DermalyzeError):
    """The data is refused (exit 3)."""

    exit_code = 3


class LeakError(DataError):
    """The data would leak between parts (exit 3)."""


class ModelError(DermalyzeError):
    """A model, weight file, checkpoint, prediction or artifact is refused (exit 4)."""

    exit_code = 4


class ResourceError(DermalyzeError):
    """Disk, memory or permission (exit 5)."""

    exit_code = 5


class InterruptedRunError(DermalyzeError):
    """Stopped by a signal after saving; the same command continues (exit 75)."""

    exit_code = 75


def one_line(text: str) -> str:
    """Collapse any text to one printable line.

    >>> one_line("a\\nb\\x00c")
    'a b\\\\x00c'
    """
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)


def nearest(word: str, allowed: list[str] | tuple[str, ...]) -> str:
    """A '; did you mean ...?' suffix for a misspelt word, or '' when nothing is near.

    >>> nearest("learning_rte", ["learning_rate", "epochs"])
    "; did you mean 'learning_rate'?"
    """
    from difflib import get_close_matches

    match = get_close_matches(word.strip().lower(), list(allowed), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""
