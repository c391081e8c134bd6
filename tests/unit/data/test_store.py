"""The store and its archives: FAULTS.md 1, 2, 10, 11."""

import io
import os
import pickle
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from dermalyze.config.data import DataSpec
from dermalyze.core.archives import Limits, open_archive
from dermalyze.data.store import ImageStore, ReadError, split_path
from dermalyze.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "imgs").mkdir(parents=True)
    (root / "imgs" / "a.jpg").write_bytes(b"picture a")
    with zipfile.ZipFile(root / "part.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/b.jpg", b"picture b")
        archive.writestr("__MACOSX/._b.jpg", b"rubbish")
    (root / ".hidden").write_bytes(b"x")
    return root


def store(*paths: Path, follow_links: bool = False) -> ImageStore:
    chosen = str(paths[0]) if len(paths) == 1 else [str(p) for p in paths]
    return ImageStore.open(DataSpec(path=chosen, follow_links=follow_links))


def write_zip(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data, method)
    return path


def test_files_and_members_are_listed_and_read(folder):
    s = store(folder)
    assert [entry.path for entry in s.entries()] == ["imgs/a.jpg", "part.zip!deep/b.jpg"]
    assert s.read("imgs/a.jpg") == b"picture a"
    assert s.read("part.zip!deep/b.jpg") == b"picture b"
    assert [entry.stem for entry in s.entries()] == ["a", "b"]


def test_several_archives_and_folders_are_mounted_by_name(folder, tmp_path):
    (tmp_path / "meta.csv").write_text("image_id\n")
    s = store(folder / "part.zip", folder / "imgs", tmp_path / "meta.csv")
    assert [entry.path for entry in s.entries()] == ["imgs/a.jpg", "meta.csv", "part.zip!deep/b.jpg"]
    assert s.read("imgs/a.jpg") == b"picture a"
    assert s.read("part.zip!deep/b.jpg") == b"picture b"
    assert s.read("meta.csv") == b"image_id\n"
    with pytest.raises(DataError, match="in none of the entries"):
        s.read("elsewhere/a.jpg")
    one = store(folder / "part.zip")
    assert one.read("part.zip!deep/b.jpg") == b"picture b"


def test_it_travels_to_another_process(folder):
    s = store(folder)
    s.read("part.zip!deep/b.jpg")
    assert pickle.loads(pickle.dumps(s)).read("part.zip!deep/b.jpg") == b"picture b"  # noqa: S301


def test_a_changed_archive_is_opened_anew(folder):
    s = store(folder)
    assert s.read("part.zip!deep/b.jpg") == b"picture b"
    write_zip(folder / "part.zip", ("deep/b.jpg", b"another, longer picture"))
    assert s.read("part.zip!deep/b.jpg") == b"another, longer picture"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "imgs/../../secret", "a\0b", "a\nb", "C:/x", "", "x" * 300])
def test_paths_that_leave_are_refused_before_anything_is_opened(folder, tmp_path, path):
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(DataError, match=r"leaves its folder|control characters|255 bytes") as caught:
        store(folder).read(path)
    assert not isinstance(caught.value, ReadError)


def test_a_link_that_leaves_is_refused_unless_allowed(folder, tmp_path):
    (tmp_path / "outside.jpg").write_bytes(b"outside")
    (folder / "imgs" / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    for act in (lambda s: s.read("imgs/link.jpg"), lambda s: s.entries()):
        with pytest.raises(DataError, match=r"link\.jpg.*symbolic link that leaves.*follow_links"):
            act(store(folder))
    allowed = store(folder, follow_links=True)
    assert allowed.read("imgs/link.jpg") == b"outside"
    assert "imgs/link.jpg" in [entry.path for entry in allowed.entries()]


def test_a_linked_folder_that_leaves_is_refused_too(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.jpg").write_bytes(b"c")
    (folder / "more").symlink_to(tmp_path / "other")
    with pytest.raises(DataError, match="symbolic link that leaves"):
        store(folder).entries()
    with pytest.raises(DataError, match="symbolic link that leaves"):
        store(folder).read("more/c.jpg")
    assert "more/c.jpg" in [entry.path for entry in store(folder, follow_links=True).entries()]


@pytest.mark.parametrize("follow", [False, True])
def test_links_in_a_circle_are_named(folder, follow):
    (folder / "a.jpg").symlink_to("b.jpg")
    (folder / "b.jpg").symlink_to("a.jpg")
    with pytest.raises(DataError, match=r"'a\.jpg' cannot be read: Too many levels"):
        store(folder, follow_links=follow).entries()


def test_links_inside_are_fine_and_loops_end(folder):
    (folder / "imgs" / "same.jpg").symlink_to(folder / "imgs" / "a.jpg")
    (folder / "imgs" / "loop").symlink_to(folder)
    for follow in (False, True):
        paths = [entry.path for entry in store(folder, follow_links=follow).entries()]
        assert paths == ["imgs/a.jpg", "imgs/same.jpg", "part.zip!deep/b.jpg"]
        assert store(folder, follow_links=follow).read("imgs/same.jpg") == b"picture a"


@pytest.mark.parametrize("name", [b"a\nb.jpg", b"\xff.jpg", b"a\x7fb.jpg"])
def test_names_that_break_tables_are_refused(folder, name):
    try:
        Path(os.fsdecode(os.fsencode(folder / "imgs") + b"/" + name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DataError, match=r"control characters|not UTF-8"):
        store(folder).entries()


def test_what_cannot_be_read_says_so_without_the_name_in_its_reason(folder):
    with pytest.raises(ReadError) as caught:
        store(folder).read("imgs/none.jpg")
    assert caught.value.reason == "file is missing"
    assert "imgs/none.jpg" in str(caught.value)
    with pytest.raises(ReadError) as caught:
        store(folder).read("part.zip!none.jpg")
    assert caught.value.reason == "file is missing"
    os.mkfifo(folder / "imgs" / "pipe.jpg")
    with pytest.raises(ReadError) as caught:
        store(folder).read("imgs/pipe.jpg")
    assert caught.value.reason == "not a regular file"
    with pytest.raises(ReadError) as caught:
        store(folder).read("imgs")
    assert caught.value.reason == "not a regular file"


def test_a_file_of_more_than_256_mib_is_not_read(folder):
    with (folder / "imgs" / "huge.jpg").open("wb") as stream:
        stream.truncate(256 * 2**20 + 1)
    with pytest.raises(ReadError, match="more than 256 MiB"):
        store(folder).read("imgs/huge.jpg")


def test_a_damaged_member_is_a_read_error(folder):
    path = write_zip(folder / "part.zip", ("b.jpg", b"picture b" * 50), method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ReadError) as caught:
        store(folder).read("part.zip!b.jpg")
    assert caught.value.reason == "damaged in its archive"


def test_data_path_is_checked(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.path: is not set"):
        ImageStore.open(DataSpec())
    with pytest.raises(DataError, match="does not exist"):
        store(tmp_path / "nowhere")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "imgs").mkdir()
    with pytest.raises(ConfigError, match="same name"):
        store(folder / "imgs", tmp_path / "b" / "imgs")


def test_tar_is_refused_by_name_and_told_of_in_a_folder(folder, tmp_path):
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as archive:
        member = tarfile.TarInfo("../x")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("lnk")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    with pytest.raises(DataError, match=r"evil\.tar: tar, 7z and rar archives are not read; unpack"):
        store(evil)
    assert store(folder).unread() == []
    (folder / "more.tar.gz").write_bytes(evil.read_bytes())
    assert store(folder).unread() == [".tar.gz"]
    assert not (tmp_path.parent / "x").exists()


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "data", "problem"),
    [
        ("../../x", b"x", "leaves its folder"),
        ("/etc/x", b"x", "leaves its folder"),
        ("a/../../x", b"x", "leaves its folder"),
        ("C:/x", b"x", "leaves its folder"),
        ("a\\..\\x", b"x", "backslash"),
        ("a\nb.jpg", b"x", "control characters"),
        (linked("lnk"), b"/etc", "symbolic link"),
        ("inner.zip", b"PK\x05\x06" + bytes(18), "archive within the archive"),
        ("inner.tar.gz", b"x", "archive within the archive"),
        ("zeros.bmp", bytes(4 * 2**20), "times its size; at most 200"),
    ],
)
def test_unsafe_members_refuse_the_whole_zip(tmp_path, member, data, problem):
    path = write_zip(tmp_path / "x.zip", ("good.jpg", b"good"), (member, data))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=rf"x\.zip.*{problem}") as caught:
        store(path).read("x.zip!good.jpg")
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match=problem):
        store(tmp_path).entries()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_nul_in_a_member_s_name_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", ("aXb.jpg", b"x"))
    path.write_bytes(path.read_bytes().replace(b"aXb.jpg", b"a\0b.jpg"))
    with pytest.raises(DataError, match="control characters"):
        open_archive(path)


def test_encrypted_and_oddly_packed_zips_are_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", ("a.jpg", b"secret"))
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    path.write_bytes(data[: at + 8] + struct.pack("<H", 1) + data[at + 10 :])
    with pytest.raises(DataError, match="is encrypted"):
        open_archive(path)
    with pytest.raises(DataError, match="other than deflate"):
        open_archive(write_zip(tmp_path / "y.zip", ("a.jpg", b"x" * 100), method=zipfile.ZIP_LZMA))


def test_overlapping_members_are_refused(tmp_path):
    """Two directory entries that share one member's bytes, as in Fifield's bomb (2019)."""
    path = write_zip(tmp_path / "x.zip", ("a.bin", os.urandom(5000)))
    data = path.read_bytes()
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    directory = data[at:end]
    record = data[end : end + 8] + struct.pack("<HHLLH", 3, 3, 3 * len(directory), at, 0)
    path.write_bytes(data[:at] + directory * 3 + record)
    with pytest.raises(DataError, match="overlap"):
        open_archive(path)


def test_many_small_members_count_together(tmp_path):
    members = [(f"{i}.bmp", bytes(2**19)) for i in range(4)]
    with pytest.raises(DataError, match=r"unpacks to \d+ times its size"):
        open_archive(write_zip(tmp_path / "x.zip", *members))
    open_archive(write_zip(tmp_path / "y.zip", ("a.bmp", bytes(2**19)))).close()  # one small black image is none


def test_limits(tmp_path):
    path = write_zip(tmp_path / "x.zip", *((f"{i}.jpg", b"x" * 100) for i in range(5)))
    open_archive(path, Limits(members=5, member_bytes=100)).close()
    with pytest.raises(DataError, match="5 members; at most 4"):
        open_archive(path, Limits(members=4))
    with pytest.raises(DataError, match="unpacks to 100 bytes; at most 99"):
        open_archive(path, Limits(member_bytes=99))


def test_a_million_members_are_refused_before_the_list_is_read(tmp_path, monkeypatch):
    """A zip64 end record that tells of 1,000,001 members; zipfile itself must not be reached."""
    path = tmp_path / "x.zip"
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1_000_001, 1_000_001, 60_000_000, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 100, 1)
    path.write_bytes(bytes(100) + record + locator + b"PK\x05\x06" + b"\0\0\0\0" + b"\xff" * 12 + b"\0\0")
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(DataError, match="1000001 members; at most 1000000"):
        open_archive(path)


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04" + bytes(40), b"PK\x05\x06\xff"])
def test_no_zip_at_all(tmp_path, data):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip: not a readable zip"):
        store(tmp_path / "x.zip").entries()


def test_split_path():
    assert split_path("A.ZIP!b!c.jpg") == ("A.ZIP", "b!c.jpg")
    assert split_path("a/b.jpg") == ("a/b.jpg", "")


@pytest.mark.parametrize("system", ["@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "@Recycle", "lost+found", ".Trashes"])
def test_folders_of_systems_are_no_classes_and_are_said(tmp_path: Path, system: str) -> None:
    """A network share keeps a folder of thumbnails beside the images of each class."""
    from dermalyze.data.sources.general import folder

    for name in ("mel", "nv"):
        for place in (tmp_path / name, tmp_path / name / system / "a.jpg"):
            place.mkdir(parents=True)
            (place / "a.jpg").write_bytes(b"image")
    (tmp_path / system).mkdir()
    (tmp_path / system / "b.jpg").write_bytes(b"image")
    (tmp_path / "nv" / "Thumbs.db").write_bytes(b"")
    listing = folder(ImageStore.open(DataSpec(path=str(tmp_path))))
    assert sorted(row.label for row in listing.rows) == ["mel", "nv"]
    [note] = [note for note in listing.notes if note.startswith("left out, made by the system")]
    assert f"{system} (3)" in note
    assert "Thumbs.db (1)" in note
