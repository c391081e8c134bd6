"""Downloads from a host of this machine: ranges, cuts, changed files, wrong checksums, refusals. No network is needed."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.data import fetch as module
from dermalyze.data.catalog import REMOTE_SETS, RemoteFile, RemoteSet
from dermalyze.data.download import download
from dermalyze.data.fetch import fetch
from dermalyze.data.sources import SOURCES
from dermalyze.errors import DataError, ResourceError, UsageError

DATA = bytes(range(256)) * 4096  # 1 MiB
MD5 = hashlib.md5(DATA).hexdigest()


@dataclass
class Host:
    """What the server holds and does, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"1"'
    cuts: list[int] = field(default_factory=list)
    """bytes after which to cut the next answers, one each"""
    ranges: bool = True
    status: int | None = None
    redirect: str | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    state = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted, data = self.headers.get("Range"), state.files.get(self.path.partition("?")[0])
            state.asked.append((self.path, wanted))
            if state.redirect is not None:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            if state.status is not None or data is None:
                self.send_error(state.status or 404)
                return
            start, total = 0, len(data)
            if wanted and state.ranges and self.headers.get("If-Range") in (None, state.etag):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.end_headers()
                    return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if state.etag is not None:
                self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(total - start))
            self.end_headers()
            rest = data[start:]
            self.wfile.write(rest[: state.cuts.pop(0)] if state.cuts else rest)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def remote(host: Host, **changes: Any) -> RemoteFile:
    host.files["/a.zip"] = DATA
    return RemoteFile(**{"name": "a.zip", "url": f"{host.url}/a.zip", "md5": MD5, **changes})


def known(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    told = {
        "title": "A set",
        "size": "about 1 MB",
        "license": "CC BY 4.0",
        "citation": "Someone 2020",
        "page": "https://a.example",
    }
    monkeypatch.setitem(module.REMOTE_SETS, "a_set", RemoteSet(**{**told, **changes}))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_whole_download_leaves_one_file(host: Host, tmp_path: Path) -> None:
    download(remote(host, size=len(DATA)), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert names(tmp_path) == {"a.zip"}
    assert host.asked == [("/a.zip", None)]


def test_a_cut_connection_is_taken_up_where_it_broke(host: Host, tmp_path: Path) -> None:
    host.cuts = [300_000, 100_000, 7]
    download(remote(host), tmp_path / "a.zip", pause_s=0)
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert [wanted for _, wanted in host.asked] == [None, "bytes=300000-", "bytes=400000-", "bytes=400007-"]


def test_a_host_that_always_cuts_ends_it_and_the_next_call_goes_on(host: Host, tmp_path: Path) -> None:
    host.cuts = [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(
        ResourceError, match=r"a\.zip: the connection .* cut again and again; 500 kB are kept; run the same command"
    ):
        download(remote(host), tmp_path / "a.zip", pause_s=0)
    assert not (tmp_path / "a.zip").exists()
    assert (tmp_path / ".a.zip.part").read_bytes() == DATA[:500_000]
    host.asked.clear()
    download(remote(host), tmp_path / "a.zip", pause_s=0)
    assert host.asked == [("/a.zip", "bytes=500000-")]
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert names(tmp_path) == {"a.zip"}


@pytest.mark.parametrize("how", ["changed", "no ranges", "no tag"])
def test_bytes_of_two_versions_never_meet(host: Host, tmp_path: Path, how: str) -> None:
    """A host with a new file, one that sends all of it again, and one that gives nothing to know the version by."""
    host.cuts, host.etag = [400_000, 0, 0, 0, 0, 0], None if how == "no tag" else '"1"'
    with pytest.raises(ResourceError):
        download(remote(host, md5=None), tmp_path / "a.zip", pause_s=0)
    host.files["/a.zip"], host.ranges = DATA[::-1], how != "no ranges"
    host.etag = None if how == "no tag" else '"2"'
    download(RemoteFile("a.zip", f"{host.url}/a.zip"), tmp_path / "a.zip", pause_s=0)
    assert (tmp_path / "a.zip").read_bytes() == DATA[::-1]


def test_a_part_that_is_whole_is_not_fetched_again(host: Host, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").write_bytes(DATA)
    (tmp_path / ".a.zip.part.etag").write_text('"1"')
    download(remote(host), tmp_path / "a.zip")
    assert host.asked == [("/a.zip", f"bytes={len(DATA)}-")]
    assert names(tmp_path) == {"a.zip"}


def test_a_longer_part_starts_afresh(host: Host, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").write_bytes(DATA + b"more")
    (tmp_path / ".a.zip.part.etag").write_text('"1"')
    download(remote(host), tmp_path / "a.zip", pause_s=0)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_wrong_checksum_or_size_leaves_nothing(host: Host, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"MD5 {MD5}, published is {'0' * 32}.*removed; run the same command again") as caught:
        download(remote(host, md5="0" * 32), tmp_path / "a.zip")
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="1048576 bytes, listed are 5"):
        download(remote(host, md5=None, size=5), tmp_path / "a.zip")
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("status", "message", "tries"),
    [
        (403, r"answers 403: a login or an agreement", 1),
        (404, r"answers 404 for a\.zip; the address may have changed", 1),
        (503, "answers 503 for a.zip; try later", 5),
    ],
)
def test_refusals_of_the_host(host: Host, tmp_path: Path, status: int, message: str, tries: int) -> None:
    host.status = status
    with pytest.raises(ResourceError, match=message) as caught:
        download(remote(host), tmp_path / "a.zip", pause_s=0)
    assert caught.value.exit_code == 5
    assert len(host.asked) == tries
    assert names(tmp_path) == set()


def test_no_network_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(
        ResourceError, match=r"no network: 127\.0\.0\.1 cannot be reached .*run the same command again"
    ) as caught:
        download(RemoteFile("a.zip", f"http://127.0.0.1:{port}/a.zip"), tmp_path / "a.zip")
    assert caught.value.exit_code == 5


def test_no_space_is_said_before_a_byte_is_written(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(ResourceError, match=r"a\.zip: needs 1 MB more, 1 kB are free; free space"):
        download(remote(host), tmp_path / "a.zip")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("url", ["http://a.example/a.zip", "file:///etc/passwd", "ftp://a.example/a"])
def test_only_safe_addresses_are_opened(host: Host, tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="offers the file without https"):
        download(RemoteFile("a.zip", url), tmp_path / "a.zip")


def test_a_set_is_shown_agreed_to_fetched_and_recorded(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = remote(host)
    host.files["/b.csv"] = b"image,label\n"
    known(monkeypatch, files=(file, RemoteFile("b.csv", f"{host.url}/b.csv")))
    asked: list[str] = []
    with pytest.raises(UsageError, match="nothing was downloaded; answer y, or give --yes"):
        fetch("a_set", tmp_path / "out", confirm=lambda question: bool(asked.append(question)))
    assert not (tmp_path / "out").exists()
    assert "under that license?" in asked[0]
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("about 1 MB", "CC BY 4.0", "Someone 2020", "https://a.example"))
    result = fetch("a_set", tmp_path / "out", confirm=lambda question: True)
    assert names(tmp_path / "out") == {"a.zip", "b.csv", "fetched.json"}
    record = json.loads((tmp_path / "out" / "fetched.json").read_text())
    assert record["license"] == "CC BY 4.0"
    assert [(f["name"], f["bytes"], f["checked"], f["fresh"]) for f in record["files"]] == [
        ("a.zip", len(DATA), True, True),
        ("b.csv", 12, False, True),
    ]
    assert record["files"][0]["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert result.lines()[0] == "a.zip: 1 MB, matches the published checksum"
    assert "no checksum is published; its SHA-256 is in fetched.json" in result.lines()[1]
    host.asked.clear()
    again = fetch("a_set", tmp_path / "out")
    assert host.asked == []
    assert [f["fresh"] for f in again.files] == [False, False]


def test_a_file_of_the_user_is_never_overwritten(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, files=(remote(host),))
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.zip: exists in .* and was not written by fetch; move it away"):
        fetch("a_set", tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == b"mine"
    (tmp_path / "a.zip").write_bytes(DATA)  # fetched by hand: the published checksum tells
    assert fetch("a_set", tmp_path).files[0]["fresh"] is False


def test_dataverse_lists_files_and_checksums(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = b"lesion_id\timage_id\n"
    host.files |= {"/api/access/datafile/7": DATA, "/api/access/datafile/8": table, "/api/access/datafile/9": b"no"}
    listed = [
        {"dataFile": {"id": 9, "filename": "ISIC2018_Test.zip", "filesize": 2, "md5": "0" * 32}},
        {
            "dataFile": {
                "id": 7,
                "filename": "HAM_part_1.zip",
                "filesize": len(DATA),
                "checksum": {"type": "MD5", "value": MD5.upper()},
            }
        },
        {"dataFile": {"id": 8, "filename": "HAM_metadata.tab", "filesize": 999, "md5": "0" * 32, "tabularData": True}},
    ]
    host.files["/api/datasets/:persistentId/"] = json.dumps({"data": {"latestVersion": {"files": listed}}}).encode()
    index = f"{host.url}/api/datasets/:persistentId/?persistentId=doi:1"
    known(monkeypatch, index=index, index_kind="dataverse", starts=("HAM_part", "HAM_metadata"))
    result = fetch("a_set", tmp_path)
    assert names(tmp_path) == {"HAM_part_1.zip", "HAM_metadata.tab", "fetched.json"}
    assert (tmp_path / "HAM_metadata.tab").read_bytes() == table
    assert {f["name"]: f["checked"] for f in result.files} == {"HAM_part_1.zip": True, "HAM_metadata.tab": False}


def test_figshare_lists_files_and_checksums(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote(host)
    listed = [{"name": "a.zip", "size": len(DATA), "download_url": f"{host.url}/a.zip", "computed_md5": MD5}]
    host.files["/v2/articles/1"] = json.dumps({"files": listed}).encode()
    known(monkeypatch, index=f"{host.url}/v2/articles/1", index_kind="figshare")
    assert fetch("a_set", tmp_path).files[0]["checked"] is True


@pytest.mark.parametrize(
    ("listed", "error", "message"),
    [
        (b"<html>moved</html>", ResourceError, "did not return a list of files"),
        (b"[]", ResourceError, "did not return a list"),
        (b'{"files": []}', ResourceError, "lists none of the files"),
        (
            b'{"files": [{"name": "../x", "size": 1, "download_url": "https://a.example/x", "computed_md5": ""}]}',
            DataError,
            "leaves its folder",
        ),
        (
            b'{"files": [{"name": "x", "size": 1, "download_url": "file:///etc/passwd", "computed_md5": ""}]}',
            DataError,
            "without https",
        ),
    ],
    ids=["html", "list", "empty", "traversal", "file"],
)
def test_strange_lists_are_refused(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bytes, error: type[Exception], message: str
) -> None:
    host.files["/index"] = listed
    known(monkeypatch, index=f"{host.url}/index", index_kind="figshare")
    with pytest.raises(error, match=message):
        fetch("a_set", tmp_path / "out")
    assert names(tmp_path) == set(), "not even a folder is left"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'ham1000' is not a supported data set; allowed: .*did you mean 'ham10000'\?"):
        fetch("ham1000")


def test_every_set_has_a_source_a_licence_and_a_way() -> None:
    assert set(REMOTE_SETS) <= set(SOURCES)
    for name, entry in REMOTE_SETS.items():
        assert all((entry.title, entry.size, entry.license, entry.citation, entry.page.startswith("https://"))), name
        assert sum(map(bool, (entry.files, entry.index, entry.steps))) == 1, name
        assert all(file.url.startswith("https://") for file in entry.files), name
        assert entry.index is None or (entry.index.startswith("https://") and entry.index_kind in ("dataverse", "figshare"))


def test_a_set_with_steps_prints_them_and_asks_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["fetch", "derm7pt"])
    assert result.exit_code == 0
    assert "this data set needs a manual download:" in result.output
    assert "  1. open the page, agree to its terms" in result.output
    assert names(tmp_path) == set()


def test_on_the_command_line_one_must_agree(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, files=(remote(host),))
    refused = CliRunner().invoke(app, ["fetch", "a_set", str(tmp_path / "out")])
    assert refused.exit_code == 2
    assert "give --yes" in refused.output
    agreed = CliRunner().invoke(app, ["fetch", "a_set", str(tmp_path / "out"), "--yes", "--json"])
    assert agreed.exit_code == 0
    assert json.loads(agreed.stdout)["files"][0]["name"] == "a.zip"
