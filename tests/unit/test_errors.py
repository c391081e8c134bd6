"""One tree of errors, one line a message."""

from __future__ import annotations

import pytest

from dermalyze import errors


def classes() -> list[type[errors.DermalyzeError]]:
    found = [errors.DermalyzeError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_every_exit_code_is_a_documented_one() -> None:
    codes = {kind.__name__: kind.exit_code for kind in classes() if kind is not errors.DermalyzeError}
    assert set(codes.values()) == {2, 3, 4, 5, 75}
    assert codes["ConfigError"] == codes["UsageError"] == codes["MissingExtraError"] == 2
    assert codes["LeakError"] == codes["DataError"] == 3


@pytest.mark.parametrize("text", ["a\nb", "a\r\n\tb", "a\x0bb", "a\u2028b"])
def test_messages_are_one_line(text: str) -> None:
    assert str(errors.DataError(text)) == "a b"


def test_control_characters_cannot_reach_a_terminal() -> None:
    assert "\x1b" not in str(errors.DataError("row \x1b[31mred"))


def test_nearest() -> None:
    assert errors.nearest("Mel ", ["mel", "nv"]) == "; did you mean 'mel'?"
    assert errors.nearest("zzz", ["mel", "nv"]) == ""


def test_missing_extra_says_what_to_install() -> None:
    assert "pip install 'dermalyze[train]'" in str(errors.MissingExtraError("dermalyze train", "train"))
