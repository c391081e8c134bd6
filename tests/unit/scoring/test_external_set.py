"""Which layout another labelled set is read in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.data import CsvSource, DataSpec, Ham10000Source
from dermalyze.errors import DataError, UsageError
from dermalyze.scoring.external_set import open_external

CLASSES = ["mel", "nv"]
OWN = DataSpec(source=CsvSource(columns={"label": "dx"}), workers=0)


def images(folder: Path) -> None:
    for number in range(4):
        path = folder / CLASSES[number % 2] / f"i{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)).save(path)


def table(path: Path, header: str) -> None:
    rows = [f"i{number},{CLASSES[number // 2]}" for number in range(4)]  # other labels than the folders' names
    path.write_text("\n".join([header, *rows]))


@pytest.mark.parametrize(
    ("header", "kind", "labels"),
    [
        ("image_id,dx", "csv", ["mel", "mel", "nv", "nv"]),  # the run's own columns
        ("image_id,verdict", "folder", ["mel", "nv"] * 2),  # a table of something else
    ],
)
def test_a_folder_with_a_table_is_read_like_the_runs_own_csv(tmp_path: Path, header: str, kind: str, labels: list[str]) -> None:
    images(tmp_path)
    table(tmp_path / "list.csv", header)
    external = open_external(tmp_path, OWN, CLASSES, {})
    assert external.kind == kind
    paths = [Path(path).stem for path in external.frame["path"]]
    assert dict(zip(paths, external.frame["label"], strict=True)) == {f"i{n}": labels[n] for n in range(4)}


def test_of_several_tables_the_one_that_the_run_names_is_read(tmp_path: Path) -> None:
    images(tmp_path)
    for name in ("a.csv", "b.csv"):
        table(tmp_path / name, "image_id,dx")
    with pytest.raises(DataError, match=r"holds 2 tables with the run's columns .*; name one: --on FOLDER/NAME.csv"):
        open_external(tmp_path, OWN, CLASSES, {})
    source = CsvSource(columns={"label": "dx"}, file="b.csv")
    assert open_external(tmp_path, DataSpec(source=source, workers=0), CLASSES, {}).kind == "csv"
    assert open_external(tmp_path / "a.csv", OWN, CLASSES, {}).kind == "csv"


def test_the_run_of_another_source_reads_folders(tmp_path: Path) -> None:
    images(tmp_path)
    table(tmp_path / "list.csv", "image_id,label")
    assert open_external(tmp_path, DataSpec(source=Ham10000Source(), workers=0), CLASSES, {}).kind == "folder"


def test_a_split_file_of_the_documents_beside_a_folder_of_images(tmp_path: Path) -> None:
    images(tmp_path / "images")
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    rows = [f"L{n},i{n}.jpg,{CLASSES[n % 2]},histo,50,male,back" for n in range(3)]  # with another ending than the files
    (tmp_path / "splits").mkdir()
    file = tmp_path / "splits" / "test_split.csv"
    file.write_text("\n".join([header, *rows]))
    external = open_external(file, DataSpec(workers=0), CLASSES, {}, images=tmp_path / "images")
    assert external.frame["label"].tolist() == ["mel", "nv", "mel"]
    assert external.frame[["lesion_id", "site", "age"]].iloc[0].tolist() == ["L0", "back", 50.0]


def test_images_elsewhere_need_a_table(tmp_path: Path) -> None:
    images(tmp_path / "images")
    table(tmp_path / "t.csv", "image_id,label")
    with pytest.raises(UsageError, match="images: is no table; --images-dir names the folder of the images of a CSV"):
        open_external(tmp_path / "images", DataSpec(workers=0), CLASSES, {}, images=tmp_path / "images")
    with pytest.raises(UsageError, match="none: is not there; --images-dir"):
        open_external(tmp_path / "t.csv", DataSpec(workers=0), CLASSES, {}, images=tmp_path / "none")
