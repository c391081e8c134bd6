"""`prepare` against FAULTS.md: each fault is made; message, exit code and an untouched run folder are checked."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes, read_manifest, usable
from dermalyze.errors import DermalyzeError, ResourceError
from dermalyze.stages import prepare as stage
from dermalyze.stages.prepare import prepare


def jpeg(seed: int, **options: Any) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "JPEG", quality=90, **options)
    return sink.getvalue()


class Place:
    """A data folder with a CSV, and a run beside it."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.run = root, root / "data", Run(root / "run")
        (self.data / "imgs").mkdir(parents=True)
        self.rows = [[f"i{n:02d}", f"imgs/i{n:02d}.jpg", ("mel", "nv", "nv")[n % 3], f"L{n // 2}"] for n in range(12)]
        for n, row in enumerate(self.rows):
            (self.data / row[1]).write_bytes(jpeg(n))
        self.header = ["image_id", "path", "label", "lesion_id"]

    def write(self) -> None:
        with (self.data / "m.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([self.header, *self.rows])

    def prepare(self, **data: Any) -> stage.PrepareResult:
        if not (self.data / "m.csv").exists() and data.get("source", {}).get("kind", "csv") == "csv":
            self.write()
        values = {"path": str(self.data), "source": {"kind": "csv"}, "workers": 0, **data}
        return prepare(self.run, build_experiment({"data": values}))

    def refused(self, match: str, *, code: int = 3, **data: Any) -> str:
        """The message of a refusal that left nothing behind."""
        before = self.files()
        with pytest.raises(DermalyzeError, match=match) as caught:
            self.prepare(**data)
        assert caught.value.exit_code == code
        assert "\n" not in str(caught.value)
        self.write_nothing(before)
        return str(caught.value)

    def write_nothing(self, before: dict[str, bytes]) -> None:
        assert self.files() == before
        assert not list(self.root.rglob("*.tmp"))

    def files(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.run.root.glob("*") if p.is_file() and p.name != ".lock"}

    def summary(self) -> dict[str, Any]:
        return dict(json.loads(self.run.summary_path.read_text()))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_good_set(place):
    result = place.prepare()
    assert result.fresh
    frame = read_manifest(place.run)
    assert frame["image_id"].tolist() == [row[0] for row in place.rows]
    assert read_classes(place.run) == ["mel", "nv"]
    assert frame["sha256"].nunique() == 12
    assert set(zip(frame["width"], frame["height"], strict=True)) == {(32, 24)}
    s = place.summary()
    assert (s["images"], s["lesions"], s["class_counts"]) == (12, 6, {"mel": 4, "nv": 8})
    assert s["images_per_lesion"] == {"2": 6}
    assert s["missing"]["patient_id"] == 12
    assert s["sizes"] == {"32x24": 12}
    with place.run.labels_path.open(newline="") as stream:
        assert list(csv.reader(stream)) == [["image_id", "label", "lesion_id"], *([r[0], r[2], r[3]] for r in place.rows)]
    assert result.lines()[0] == "12 usable images: mel 4, nv 8"
    assert result.lines()[1] == "6 lesions by number of images: 6 with 2"
    json.dumps(result.as_dict())


def test_again_is_no_work_and_the_same_bytes(place, monkeypatch):
    place.prepare()
    before = place.files()

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(stage, "inspect_images", never)
    again = place.prepare(workers=1)  # how it is done is no part of what is done
    assert not again.fresh
    assert place.files() == before
    assert "nothing was decoded again" in again.lines()[-1]


def test_elsewhere_and_in_processes_the_same_bytes(place, tmp_path):
    place.prepare()
    place.run = Run(tmp_path / "another")
    place.prepare(workers=2)
    first = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("[a-z]*")}
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "another").glob("[a-z]*")}


def test_touched_files_are_decoded_again_to_the_same_bytes(place):
    place.prepare()
    before = place.run.manifest_path.read_bytes()
    os.utime(place.data / "imgs" / "i00.jpg", (1, 1))
    assert place.prepare().fresh
    assert place.run.manifest_path.read_bytes() == before


# -- 1, 2: names -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["../../../../etc/passwd", "/etc/passwd"])
def test_01_traversal(place, path):
    place.rows[4][1] = path
    message = place.refused("leaves its folder")
    assert "m.csv line 6" in message


def test_01_link_out_of_the_folder(place, tmp_path):
    (tmp_path / "outside.jpg").write_bytes(jpeg(99))
    target = place.data / "imgs" / "i04.jpg"
    target.unlink()
    target.symlink_to(tmp_path / "outside.jpg")
    place.refused(r"imgs/i04\.jpg.*symbolic link that leaves the data folder.*data\.follow_links")
    assert place.prepare(follow_links=True).summary["images"] == 12


@pytest.mark.parametrize("key", ["a\0b", "a\nb", "x" * 300])
def test_02_odd_ids(place, key):
    place.rows[2][0] = key
    place.refused(r"NUL byte|control characters|300 characters")


@pytest.mark.parametrize("name", [b"a\nb.jpg", b"\xff.jpg"])
def test_02_odd_file_names(place, name):
    try:
        Path(os.fsdecode(os.fsencode(place.data / "imgs") + b"/" + name)).write_bytes(jpeg(1))
    except OSError:
        pytest.skip("this file system takes no such name")
    place.refused(r"control characters|not UTF-8", source={"kind": "folder"})


# -- 3, 4: tables ----------------------------------------------------------------------------------------------
def test_03_mark_and_windows_lines_are_fine_utf_16_is_not(place):
    place.write()
    text = (place.data / "m.csv").read_text()
    (place.data / "m.csv").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert place.prepare().summary["images"] == 12
    place.run = Run(place.root / "run2")
    (place.data / "m.csv").write_bytes(text.encode("utf-16"))
    place.refused(r"m\.csv: is UTF-16, must be UTF-8")


def test_04_endless_field(place):
    place.rows[3][3] = "x" * 131_073
    place.refused(r"m\.csv line 5: field larger")


# -- 5: labels -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("label", [" Mel ", "Mel", "NaN", "", "7"])
@pytest.mark.parametrize("classes", [None, ["mel", "nv"]])
def test_05_labels(place, label, classes):
    place.rows[2][2] = place.rows[5][2] = label
    message = place.refused(r"\(2 images", classes=classes)
    assert "none of the classes ['mel', 'nv']" in message
    if label.strip().lower() == "mel":
        assert "did you mean 'mel'?" in message
        assert place.prepare(classes=classes, label_map={label: "mel"}).summary["class_counts"] == {"mel": 6, "nv": 6}


def test_05_a_class_of_the_test_part_only(place):
    place.header.append("split")
    for row in place.rows:
        row.append("train")
    place.rows[0][2], place.rows[0][4] = "df", "test"
    place.refused(r"'df' \(1 image\) are none of the classes \['mel', 'nv'\]")


@pytest.mark.parametrize(
    ("evaluate", "said"),
    [
        ({"focus": ["mell"]}, r"evaluate\.focus: 'mell' is no class .*did you mean 'mel'"),
        ({"malignant": ["nw"]}, r"evaluate\.malignant: 'nw' is no class .*did you mean 'nv'"),
    ],
)
def test_05_a_class_to_watch_that_is_none_is_refused_before_the_training(place, evaluate, said):
    place.write()
    values = {"path": str(place.data), "source": {"kind": "csv"}, "workers": 0}
    with pytest.raises(DermalyzeError, match=said) as caught:
        prepare(place.run, build_experiment({"data": values, "evaluate": evaluate}))
    assert caught.value.exit_code == 2
    assert not place.run.manifest_path.exists()


# -- 6: repeats ------------------------------------------------------------------------------------------------
def test_06_one_id_twice(place):
    place.rows.append([*place.rows[0]])
    place.refused(r"m\.csv line 14: image_id 'i00' is repeated, first at m\.csv line 2, with the same label")


def test_06_one_id_with_two_labels(place):
    place.rows.append(["i00", "imgs/i00.jpg", "nv", "L9"])
    place.refused(r"with labels 'mel' and 'nv'")


def test_06_one_picture_under_two_ids_is_counted(place):
    (place.data / "imgs" / "i01.jpg").write_bytes((place.data / "imgs" / "i00.jpg").read_bytes())
    assert place.prepare().summary["duplicates"] == {"pictures": 1, "images": 2, "conflicting": 1}


# -- 9: broken images ------------------------------------------------------------------------------------------
BROKEN = {
    "empty file (0 bytes)": b"",
    "truncated file": jpeg(3)[:-300],
    "an HTML page, not an image; download it again": b"<!DOCTYPE html><html><body>404</body></html>",
    "an SVG drawing, not a photograph": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'></svg>",
}


def test_09_broken_images_are_quarantined(place):
    for n, data in enumerate(BROKEN.values()):
        (place.data / "imgs" / f"i{3 * n + 1:02d}.jpg").write_bytes(data)
    (place.data / "imgs" / "i11.jpg").unlink()
    reasons = {**dict.fromkeys(BROKEN, 1), "image file is missing": 1}
    message = place.refused(r"5 of 12 images are unusable \(41\.7%, at most 1\.0%\)")
    assert all(reason in message for reason in reasons)
    assert "data.max_bad_fraction" in message
    result = place.prepare(max_bad_fraction=0.5)
    assert result.summary["quarantined"] == {"images": 5, "by_reason": reasons}
    frame = read_manifest(place.run)
    assert usable(frame)["image_id"].tolist() == ["i00", "i02", "i03", "i05", "i06", "i08", "i09"]
    assert frame["quarantine_reason"].notna().sum() == 5
    assert "i01" not in place.run.labels_path.read_text()


def test_09_the_rest_is_as_without_them(place, tmp_path):
    place.prepare()
    whole = usable(read_manifest(place.run)).set_index("image_id").drop("i05")
    (place.data / "imgs" / "i05.jpg").write_bytes(b"")
    place.run = Run(tmp_path / "run2")
    place.prepare(max_bad_fraction=0.1)
    pd.testing.assert_frame_equal(usable(read_manifest(place.run)).set_index("image_id"), whole)


def test_09_the_limit_is_inclusive(place):
    (place.data / "imgs" / "i05.jpg").write_bytes(b"")
    assert place.prepare(max_bad_fraction=1 / 12).summary["images"] == 11


@pytest.mark.parametrize(
    ("move", "wanted"),
    [
        ({"imgs/i00.jpg": "imgs/j00.jpg"}, "the first is m.csv line 2, 'imgs/i00.jpg' (nearest file: 'imgs/j00.jpg'); repair"),
        ({"imgs/i00.jpg": "x/i00.jpg"}, "(nearest file: 'x/i00.jpg')"),
    ],
)
def test_a_missing_file_is_named_with_the_nearest(place, move, wanted):
    for old, new in move.items():
        (place.data / new).parent.mkdir(exist_ok=True)
        (place.data / old).rename(place.data / new)
    assert wanted in place.refused(r"image file is missing: 1")


# -- placeholders, codes and columns that reveal the label --------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "rows", "asked"),
    [
        ("-", (0, 1), True),  # no id has neither letter nor digit
        ("?", (3, 7, 11), True),
        ("0", (0, 1, 2, 3, 4, 5, 6), True),
        ("Missing", (0, 1, 2, 3, 4, 5, 6), True),
        ("-", (0,), False),  # one image is one group anyway
        ("0", (0, 1, 2, 3), False),  # a zero among numbers
        ("unknown", (0, 1, 2, 3, 4, 5, 6), False),  # missing without asking
        ("L9", (0, 1, 2, 3, 4, 5, 6), False),  # audit warns of a giant group
    ],
)
def test_a_placeholder_as_id_is_asked_about(place, value, rows, asked):
    for n in rows:
        place.rows[n][3] = value
    if asked:
        message = place.refused(f"lesion_id '{value.replace('?', '[?]')}' stands for {len(rows)} of 12 images")
        assert f"is it missing? then set data.missing_values=['{value}']; if it is an id, data.missing_values=[]" in message
    else:
        assert place.prepare().summary["lesions"] == 12 // 2 - (len(rows) // 2) + (value != "unknown")
        return
    assert place.prepare(missing_values=[]).summary["missing"]["lesion_id"] == 0
    place.run = Run(place.root / "again")
    assert place.prepare(missing_values=[value.lower()]).summary["missing"]["lesion_id"] == len(rows)


def test_missing_values_hold_for_every_column_but_id_and_label(place):
    place.header += ["age", "sex", "smoker"]
    for n, row in enumerate(place.rows):
        row += ["n/k", "n/k", "N/K"] if n < 3 else ["50", "male", "yes"]
    with pytest.raises(DermalyzeError, match="age 'n/k' is not a number of years"):
        place.prepare()
    summary = place.prepare(missing_values=["n/k"]).summary
    assert {name: summary["missing"][name] for name in ("age", "sex", "smoker")} == {"age": 3, "sex": 3, "smoker": 3}


def test_a_number_as_sex_is_noted(place):
    place.header.append("sex")
    for n, row in enumerate(place.rows):
        row.append("female" if n else "2")
    assert (
        "sex is a number: '2' (1 images); each counts as a category of its own: write female, male or nothing"
        in (place.prepare().summary["notes"])
    )


def with_column(place: Place, name: str, values: Any) -> None:
    """Forty images in two classes, with a further column of each row's own."""
    place.header.append(name)
    place.rows = [[f"i{n:02d}", f"imgs/i{n:02d}.jpg", ("mel", "nv")[n % 2], f"L{n}"] for n in range(40)]
    for n, row in enumerate(place.rows):
        row.append(str(values(n)))
        (place.data / row[1]).write_bytes(jpeg(n))
    place.write()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("grade", lambda n: "ab"[n % 2]),
        ("thickness", lambda n: n % 2 + n / 100),  # a number, all of one class above all of the other
        ("site", lambda n: "back" if n % 2 else "face"),  # a column of ours is no exception
    ],
)
def test_a_column_that_is_the_label_in_other_words_is_accepted_by_name_alone(place, name, values):
    with_column(place, name, values)
    data = {"path": str(place.data), "source": {"kind": "csv"}, "workers": 0}
    with pytest.raises(
        DermalyzeError, match=f"'{name}' alone predicts 'mel' nearly perfectly .AUROC (0.9.|1.00) on held-out groups"
    ):
        prepare(place.run, build_experiment({"data": data, "model": {"metadata": {"columns": [name]}}}))
    spec = build_experiment({"data": data, "model": {"metadata": {"columns": [name], "accept": [name]}}})
    assert prepare(place.run, spec).summary["images"] == 40


def test_a_column_that_tells_little_is_taken(place):
    with_column(place, "grade", lambda n: "ab"[n % 3 == 0])
    data = {"path": str(place.data), "source": {"kind": "csv"}, "workers": 0}
    assert prepare(place.run, build_experiment({"data": data, "model": {"metadata": {"columns": ["grade"]}}})).fresh


@pytest.mark.parametrize(
    "column", ["iddx_1", "iddx_full", "tbp_lv_dnn_lesion_confidence", "target", "mel_thick_mm", "Management"]
)
def test_known_columns_of_the_diagnosis_are_never_a_models_input(column):
    with pytest.raises(DermalyzeError, match=f"'{column}' reveals the label"):
        build_experiment({"model": {"metadata": {"columns": [column]}}})
    with pytest.raises(DermalyzeError, match="accept names"):
        build_experiment({"model": {"metadata": {"columns": ["age"], "accept": [column]}}})


# -- 10, 11: archives ------------------------------------------------------------------------------------------
def zipped(place: Place, *more: tuple[str, bytes]) -> Path:
    path = place.root / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in place.rows:
            archive.write(place.data / row[1], f"{row[2]}/{row[0]}.jpg")
        for name, data in more:
            archive.writestr(name, data)
    return path


def test_a_zip_is_read_in_place(place):
    result = place.prepare(path=str(zipped(place)), source={"kind": "folder"})
    assert result.summary["class_counts"] == {"mel": 4, "nv": 8}
    assert not (place.root / "mel").exists()


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("../../x", b"x", "leaves its folder"),
        ("zeros.bmp", bytes(8 * 2**20), "times its size; at most 200"),
        ("inner.zip", b"PK\x05\x06" + bytes(18), "archive within the archive"),
    ],
)
def test_10_11_unsafe_zips(place, name, data, match):
    place.refused(rf"set\.zip.*{match}", path=str(zipped(place, (name, data))), source={"kind": "folder"})
    assert not (place.root.parent.parent / "x").exists()


def test_10_tar(place):
    (place.root / "set.tar").write_bytes(b"")
    place.refused(r"set\.tar: tar, 7z and rar archives are not read", path=str(place.root / "set.tar"))


# -- 12, 13: kinds of images -----------------------------------------------------------------------------------
def test_12_kinds(place):
    grey = Image.fromarray(np.arange(1000, 1000 + 64, dtype=np.uint16).reshape(8, 8))
    grey.save(place.data / "imgs" / "i00.jpg", "PNG")
    Image.new("CMYK", (8, 8)).save(place.data / "imgs" / "i01.jpg", "JPEG")
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(place.data / "imgs" / "i02.jpg", "PNG")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(place.data / "imgs" / "i03.jpg", "PNG", save_all=True, append_images=frames[1:])
    frames[0].save(place.data / "imgs" / "i04.jpg", "MPO", save_all=True, append_images=frames[1:])
    summary = place.prepare(max_bad_fraction=0.2).summary
    assert summary["quarantined"]["by_reason"] == {
        "CMYK without an ICC profile; save as RGB": 1,
        "several frames (animated or multi-page); save one frame": 1,
    }
    assert summary["modes"] == {"RGB": 8, "I;16": 1, "RGBA": 1}
    assert summary["decoding"] == {
        "alpha composited on white": 1,
        "first frame of a multi-image file": 1,
        "gray of more than 8 bits scaled by its range": 1,
    }


def test_13_a_turned_photograph_is_the_same_picture(place):
    upright = Image.fromarray(np.random.default_rng(5).integers(0, 256, (6, 9, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(place.data / "imgs" / "i00.jpg", "PNG")
    upright.transpose(Image.Transpose.ROTATE_90).save(place.data / "imgs" / "i01.jpg", "PNG", exif=exif)
    summary = place.prepare().summary
    frame = read_manifest(place.run).set_index("image_id")
    assert frame.loc["i00", "pixel_sha256"] == frame.loc["i01", "pixel_sha256"]
    assert (frame.loc["i01", "width"], frame.loc["i01", "height"]) == (9, 6)
    assert summary["duplicates"]["images"] == 2


# -- 14: personal data -----------------------------------------------------------------------------------------
def test_14_nothing_personal_is_kept(place):
    exif = Image.Exif()
    exif[0x013B] = "DOE_JANE"
    exif.get_ifd(0x8825)[1] = "N"
    (place.data / "imgs" / "DOE_JOHN.jpg").write_bytes(jpeg(50, exif=exif, comment=b"MRN 123456"))
    place.rows.append(["mine", "imgs/DOE_JOHN.jpg", "mel", "L9"])
    result = place.prepare()
    assert result.summary["personal_metadata"] == {"comment": 1, "exif": 1, "exif_text": 1, "gps": 1}
    shown = "\n".join([*result.lines(), json.dumps(result.as_dict()), place.run.labels_path.read_text()])
    for secret in ("DOE", "123456", "imgs", str(place.root)):
        assert secret not in shown
    stored = read_manifest(place.run).to_csv()
    assert "DOE_JOHN" in stored  # the path, which nothing shows
    assert "MRN" not in stored
    assert "DOE_JANE" not in stored


def test_14_folders_make_ids_that_name_nobody(place):
    for row in place.rows:
        target = place.root / "folders" / row[2] / f"DOE_{row[0]}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((place.data / row[1]).read_bytes())
    result = place.prepare(path=str(place.root / "folders"), source={"kind": "folder"})
    assert result.summary["images"] == 12
    assert "DOE" not in place.run.labels_path.read_text() + json.dumps(result.as_dict())


# -- 16: too little --------------------------------------------------------------------------------------------
def test_16_no_rows(place):
    place.rows = []
    place.refused("0 images found for source 'csv'; at least one image of each of 2 classes is needed")


def test_16_one_image(place):
    place.rows = place.rows[:1]
    place.refused(r"1 usable images of 1 class \['mel'\]; at least 2 classes are needed")


def test_16_one_class(place):
    for row in place.rows:
        row[2] = "mel"
    place.refused(r"12 usable images of 1 class \['mel'\]; at least 2 classes are needed")


def test_16_a_class_without_a_usable_image(place):
    place.rows[0][2] = "df"
    (place.data / "imgs" / "i00.jpg").write_bytes(b"")
    place.refused(r"classes \['df'\] have 0 usable images; each class needs at least 1", max_bad_fraction=0.5)


def test_16_no_folder_and_no_files(place):
    place.refused("does not exist", path=str(place.root / "nowhere"))
    (place.root / "empty").mkdir()
    place.refused(r"no HAM10000_metadata\.csv among its 0 files", path=str(place.root / "empty"), source={"kind": "ham10000"})
    place.refused("0 images found", path=str(place.root / "empty"), source={"kind": "folder"})


# -- 17: formulas ----------------------------------------------------------------------------------------------
def test_17_formulas_are_neutralised_in_what_is_exported(place):
    ids = ['=HYPERLINK("http://x","y")', "+1", "@SUM", "-cmd", "<img src=x onerror=alert(1)>"]
    for row, key in zip(place.rows, ids, strict=False):
        row[0] = key
    place.prepare()
    assert set(ids) <= set(read_manifest(place.run)["image_id"])
    with place.run.labels_path.open(newline="") as stream:
        exported = {row[0] for row in csv.reader(stream)}
    assert {"'" + key for key in ids[:4]} <= exported
    assert not [key for key in exported if key.startswith(("=", "+", "@", "-"))]


# -- 18: edits -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["manifest.parquet", "labels.csv"])
def test_18_edited_files_are_refused(place, name):
    place.prepare()
    path = place.run.root / name
    path.write_bytes(path.read_bytes().replace(b"nv", b"xx"))
    place.refused(rf"{name}: was changed after prepare")


def test_data_that_changed_after_the_split_is_refused(place):
    place.prepare()
    (place.data / "imgs" / "i00.jpg").write_bytes(jpeg(77))
    place.run.certificate_path.parent.mkdir()
    place.run.certificate_path.write_text("{}")
    place.refused("the data changed after it was split; prepare it in a new run folder")
    place.run.certificate_path.unlink()
    before = place.run.manifest_path.read_bytes()
    assert place.prepare().fresh
    assert place.run.manifest_path.read_bytes() != before


# -- interruptions ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", ["write_text", "write_json", "write_manifest"])
def test_a_failed_write_leaves_nothing(place, monkeypatch, step):
    def fail(*args: Any, **options: Any) -> None:
        raise ResourceError("cannot write: No space left on device; free space")

    with monkeypatch.context() as patch:
        patch.setattr(stage, step, fail)
        place.refused("No space left", code=5)
    assert place.prepare().fresh


@pytest.mark.parametrize("step", ["write_text", "write_json", "write_manifest"])
def test_a_killed_write_is_taken_up_again(place, monkeypatch, step, tmp_path):
    """As after `kill -9`: no clean-up runs. The next prepare makes the bytes of an uninterrupted one."""
    original: Callable[..., Any] = getattr(stage, step)

    class Killed(BaseException):
        pass

    def die(*args: Any, **options: Any) -> None:
        original(*args, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stage, step, die)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(Killed):
            place.prepare()
    place.prepare()
    interrupted = {name: data for name, data in place.files().items() if name != ".writable"}
    place.run = Run(tmp_path / "clean")
    place.prepare()
    assert place.files() == interrupted


def test_a_terminated_prepare_writes_nothing(place):
    place.write()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom dermalyze.config.experiment import build_experiment\n"
        "from dermalyze.core.run import Run\nfrom dermalyze.stages import prepare as stage\n"
        "def slow(*args, **options):\n    print('decoding', flush=True); time.sleep(60)\n"
        "stage.inspect_images = slow\n"
        f"spec = build_experiment({{'data': {{'path': {str(place.data)!r}, 'source': {{'kind': 'csv'}}}}}})\n"
        f"stage.prepare(Run(Path({str(place.run.root)!r})), spec)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "decoding\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) != 0
    assert place.files() == {}
    assert place.prepare().fresh


def test_a_read_only_run_folder_is_a_resource_error(place, monkeypatch):
    def denied(self: Run) -> None:
        raise ResourceError("cannot write .writable: Read-only file system; give write permission or choose another folder")

    monkeypatch.setattr(Run, "require_writable", denied)
    monkeypatch.setattr(stage, "inspect_images", lambda *a, **k: pytest.fail("decoded before it was known to be in vain"))
    place.refused("Read-only", code=5)


def test_two_at_once_are_one_too_many(place):
    with place.run.lock(), pytest.raises(DermalyzeError, match="another process uses this run") as caught:
        place.prepare()
    assert caught.value.exit_code == 2
    assert place.prepare().fresh


def test_18_a_summary_without_its_fingerprint_prepares_again(place):
    place.prepare()
    before = place.files()
    summary = place.summary()
    del summary["fingerprint"]
    place.run.summary_path.write_text(json.dumps(summary))
    assert place.prepare().fresh
    assert place.files() == before
