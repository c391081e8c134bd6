"""Every kind of argument becomes items; what is bad becomes an error and the rest continue."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.serve.predictor import inputs
from dermalyze.serve.predictor.inputs import Item, read_inputs


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def only(items: list[Item]) -> Item:
    assert len(items) == 1
    return items[0]


def read(*arguments: str | Path, stdin: bytes = b"") -> list[Item]:
    return list(read_inputs(arguments, stdin=io.BytesIO(stdin)))


# -- files and folders -----------------------------------------------------------------------------------------


def test_file_and_missing_file_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    items = read(tmp_path / "a.png", tmp_path / "none.png", tmp_path / "a.png")
    assert [item.data for item in items] == [png(1), None, png(1)]
    assert items[1].error == "no such file"


def test_no_error_shows_a_path(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04junk")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "nopath.csv").write_text("path\n../x.png\n")
    items = read(*(tmp_path / name for name in ("none", "bad.zip", "bad.csv", "nopath.csv")), "x" * 5000, "a\0b")
    assert len(items) == 6
    assert all(item.error and str(tmp_path) not in item.error and "\n" not in item.error for item in items)


def test_folder_is_searched_to_the_bottom_by_content(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "b.png").write_bytes(png(2))
    (tmp_path / "a_scan").write_bytes(png(1))  # an image without a suffix
    (tmp_path / "deep" / "er" / "c.dat").write_bytes(png(3))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "broken.jpg").write_bytes(b"")  # named like an image: must be seen
    items = read(tmp_path)
    assert [Path(item.name).name for item in items] == ["a_scan", "b.png", "broken.jpg", "c.dat"]
    assert [item.data for item in items] == [png(1), png(2), b"", png(3)]


def test_images_of_other_kinds_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "phone").write_bytes(b"\0\0\0\x1cftypheic" + bytes(20))  # told by content
    for name in ("a.HEIC", "b.jxl", "c.nef", "d.dcm"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(item.name).name for item in read(tmp_path)] == ["a.HEIC", "b.jxl", "c.nef", "d.dcm", "phone"]


def test_link_that_leaves_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png(9))
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "real.png").write_bytes(png(1))
    (folder / "in.png").symlink_to(folder / "real.png")
    items = {Path(item.name).name: item for item in read(folder)}
    assert items["out.png"].data is None
    assert "leaves the folder" in str(items["out.png"].error)
    assert items["in.png"].data == png(1)


def test_links_in_a_circle_are_one_bad_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "c").symlink_to("c")
    (tmp_path / "real.png").write_bytes(png(1))
    items = read(tmp_path)
    assert [Path(item.name).name for item in items] == ["a.png", "b.png", "c", "real.png"]
    assert [item.data for item in items] == [None, None, None, png(1)]
    assert all(item.error and str(tmp_path) not in item.error for item in items[:3])


def test_closed_standard_input_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # as Python does for `dermalyze predict - <&-`
    assert list(read_inputs(["-"])) == []


def test_linked_folder_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "loop").symlink_to(tmp_path / "folder")
    (tmp_path / "folder" / "etc").symlink_to("/etc")
    assert read(tmp_path / "folder") == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert only(read(tmp_path / "pipe.png")).error == "not a plain file"
    assert only(read(tmp_path)).error == "not a plain file"


def test_strange_names(tmp_path: Path) -> None:
    for name in (b"a\nb.png", b"\xff.png", b"x" * 250 + b".png"):
        (tmp_path / os.fsdecode(name)).write_bytes(png(1))
    assert [item.data for item in read(tmp_path)] == [png(1)] * 3


def test_file_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(bytes(1001))
    (tmp_path / "b.png").write_bytes(bytes(1000))
    assert [item.error is None for item in read(tmp_path)] == [False, True]


# -- archives --------------------------------------------------------------------------------------------------


def test_zip_members_by_content(tmp_path: Path) -> None:
    members = {"x/": b"", "x/a.png": png(1), "b": png(2), "notes.txt": b"hi", "__MACOSX/._a.png": b"x", "broken.jpg": b"x"}
    (tmp_path / "some.bin").write_bytes(zipped(members, zipfile.ZIP_DEFLATED))
    assert [(i.name.split("!")[1], i.data) for i in read(tmp_path / "some.bin")] == [
        ("x/a.png", png(1)),
        ("b", png(2)),
        ("broken.jpg", b"x"),
    ]


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "C:\\a.png"])
def test_zip_traversal(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({name: png(1), "good.png": png(2)}))
    bad, good = read(tmp_path / "a.zip")
    assert "outside itself" in str(bad.error)
    assert good.data == png(2)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip"], "nothing is written"


def test_zip_bomb_by_ratio_and_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"bomb.png": bytes(8 * 2**20), "good.png": png(2)}, zipfile.ZIP_DEFLATED))
    bad, good = read(tmp_path / "a.zip")
    assert "bomb" in str(bad.error)
    assert good.data == png(2)
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 2**20)
    assert "largest file" in str(read(tmp_path / "a.zip")[0].error)


def test_zip_whose_header_lies_about_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 2**20)
    data = bytearray(zipped({"bomb.png": bytes(8 * 2**20)}, zipfile.ZIP_DEFLATED))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1000)  # the size that the list of members claims
    (tmp_path / "a.zip").write_bytes(data)
    item = only(read(tmp_path / "a.zip"))
    assert item.data is None
    assert item.error


def test_zip_with_a_link_an_encrypted_and_a_nested_member(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("locked.png", png(1))
        archive.writestr("inner.zip", zipped({"a.png": png(1)}))
        archive.writestr("bz.png", png(1), zipfile.ZIP_BZIP2)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.find(b"locked.png", data.find(b"PK\x01\x02")) - 46
    data[at + 8] |= 1  # encrypted
    (tmp_path / "a.zip").write_bytes(data)
    errors = {item.name.split("!")[1]: str(item.error) for item in read(tmp_path / "a.zip")}
    assert "link" in errors["link.png"]
    assert "encrypted" in errors["locked.png"]
    assert "method" in errors["bz.png"]
    assert "inner.zip" not in errors, "an archive inside is no image, and is not opened"


def test_zip_with_a_bad_checksum_goes_on(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.png": png(1), "b.png": png(2)}))
    data[data.find(b"PNG")] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    bad, good = read(tmp_path / "a.zip")
    assert "damaged" in str(bad.error)
    assert good.data == png(2)


def test_zip_with_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_ARCHIVE_MEMBERS", 5)
    (tmp_path / "a.zip").write_bytes(zipped({f"{i}.png": png(1) for i in range(6)}))
    assert "lists 6 members" in str(only(read(tmp_path / "a.zip")).error)


@pytest.mark.parametrize("keep", [10, 60, -30])
def test_truncated_zip(tmp_path: Path, keep: int) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"a.png": png(1)})[:keep])
    assert "zip" in str(only(read(tmp_path / "a.zip")).error)


# -- CSV -------------------------------------------------------------------------------------------------------


def test_csv_paths_are_relative_to_it_and_ids_are_kept(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(1))
    text = "\ufeffimage_id, path\r\nISIC_1,images/a.png\r\nISIC_2,images/none.png\r\n,images/a.png\r\n"
    (tmp_path / "list.csv").write_text(text, newline="")
    items = read(tmp_path / "list.csv")
    assert [(i.image_id, i.data, i.error) for i in items] == [
        ("ISIC_1", png(1), None),
        ("ISIC_2", None, "no such file"),
        (None, png(1), None),
    ]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "images/../../secret.png", "out.png", ""])
def test_csv_does_not_escape(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png(9))
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "list.csv").write_text(f"path,image_id\n{path},1\n")
    item = only(read(folder / "list.csv"))
    assert item.data is None
    assert item.error


@pytest.mark.parametrize(
    "content",
    [
        "path\na.png\n".encode("utf-16"),
        b"path\n\xff\xfe\n",
        b'path\n"open',
        b"name\na.png\n",
        b"",
        b"path\n" + b"x" * 200_000,
    ],
    ids=["utf-16", "latin", "quote", "no path column", "empty", "long field"],
)
def test_bad_csv_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    (tmp_path / "a.png").write_bytes(png(1))
    bad, good = read(tmp_path / "list.csv", tmp_path / "a.png")
    assert "CSV" in str(bad.error)
    assert good.data == png(1)


# -- standard input --------------------------------------------------------------------------------------------


def test_stdin_image() -> None:
    assert only(read("-", stdin=png(5))).data == png(5)


def test_stdin_zip() -> None:
    assert [item.data for item in read("-", stdin=zipped({"a.png": png(1), "b.png": png(2)}))] == [png(1), png(2)]


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_stdin_list(tmp_path: Path, end: str) -> None:
    for i in range(12):
        (tmp_path / f"{i}").write_bytes(png(i))
    lines = [str(tmp_path / f"{i}") for i in range(12)]
    items = read("-", stdin=((end or "\n").join([*lines[:5], "", "-", "nothing", *lines[5:]]) + end).encode())
    assert [i.data for i in items] == [png(i) for i in range(5)] + [None, None] + [png(i) for i in range(5, 12)]


def test_stdin_short_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abcdefghij":
        Path(name).write_bytes(png(ord(name)))
    assert [i.data for i in read("-", stdin=b"\n".join(bytes([c]) for c in b"abcdefghij"))] == [png(c) for c in b"abcdefghij"]


def test_stdin_that_is_neither() -> None:
    assert "not a list" in str(only(read("-", stdin=b"\x00\x01" * 100_000)).error)
    assert read("-", stdin=b"") == []


@pytest.mark.parametrize("name", ["http://169.254.169.254/", "file:///etc/passwd"])
def test_addresses_are_not_fetched(name: str) -> None:
    assert only(read(name)).error == "no such file"


def test_streaming_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))

    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield tmp_path / "a.png"

    stream = read_inputs(endless())
    assert [next(stream).data for _ in range(3)] == [png(1)] * 3


def test_an_empty_name_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    monkeypatch.chdir(tmp_path)
    assert [item.error for item in read("")] == ["an empty name"]
