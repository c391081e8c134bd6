"""Durable writes: the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from dermalyze.core import atomic
from dermalyze.errors import ResourceError


def test_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.json"
    atomic.write_json(target, {"b": 1, "a": "é"})
    assert target.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'
    atomic.write_json(target, [])
    assert json.loads(target.read_text()) == []
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_users_umask_holds(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        atomic.write_text(tmp_path / "a", "patients")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_a_failure_inside_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic.replacing(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_has_no_word_for(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "a", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_failing_flush_is_not_success(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    target.write_text("old")

    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ResourceError, match="cannot write a: ") as caught:
        atomic.write_text(target, "new")
    assert caught.value.exit_code == 5
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_flushes_the_file_before_the_rename_and_the_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (happened.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (happened.append("rename"), replace(self, to))[1])
    atomic.write_text(tmp_path / "a", "x")
    assert happened == ["fsync", "rename", "fsync"]


def test_a_file_where_a_folder_belongs(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(ResourceError, match="check the disk and the path"):
        atomic.write_text(tmp_path / "a" / "b", "x")


def test_other_operating_system_errors_pass_through() -> None:
    with pytest.raises(ConnectionError), atomic.resource_errors("a"):
        raise ConnectionError(errno.ECONNRESET, "reset")


def test_hashes(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "a").write_bytes(data)
    assert atomic.sha256_file(tmp_path / "a") == atomic.sha256_bytes(data) == hashlib.sha256(data).hexdigest()
