"""Several sources as one set: names, labels, and keys that join whatever they must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from layouts import write

from dermalyze.config.data import DataSpec
from dermalyze.config.experiment import build_experiment
from dermalyze.data.grouping import groups
from dermalyze.data.sources import Listing
from dermalyze.data.sources.linking import join_lesions
from dermalyze.data.sources.merging import merged
from dermalyze.data.store import ImageStore
from dermalyze.errors import ConfigError, DataError

HAM = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\n"
HAM += "HAM_1,ISIC_0000001,nv,histo,50,male,back,vidir_modern\n"
HAM += "HAM_2,ISIC_0000002,akiec,histo,60,male,face,rosendahl\n"
TRUTH = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
TRUTH += "ISIC_0000002,0,0,0,1,0,0,0,0,0\nISIC_0000003,0,0,0,0,0,0,0,1,0\nISIC_0000001_downsampled,0,1,0,0,0,0,0,0,0\n"
METADATA = "image,age_approx,anatom_site_general,lesion_id,sex\n"
METADATA += "ISIC_0000002,60,head/neck,HAM_2,male\nISIC_0000003,60,head/neck,HAM_1,male\nISIC_0000001_downsampled,,,,\n"


def put(root: Path) -> dict[str, Any]:
    """HAM10000 and ISIC 2019, one per folder and one per list of a zip and tables."""
    write(root / "h", {"HAM10000_metadata.csv": HAM, "imgs/ISIC_0000001.jpg": "1", "imgs/ISIC_0000002.jpg": "2"})
    write(
        root / "i",
        {
            "ISIC_2019_Training_Input.zip": {f"in/ISIC_000000{n}.jpg": n for n in ("1_downsampled", "2", "3")},
            "ISIC_2019_Training_GroundTruth.csv": TRUTH,
            "ISIC_2019_Training_Metadata.csv": METADATA,
        },
    )
    names = ("ISIC_2019_Training_Input.zip", "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv")
    return {
        "source": {
            "kind": "merged",
            "sources": [
                {"name": "ham", "path": str(root / "h"), "source": {"kind": "ham10000"}},
                {"path": [str(root / "i" / name) for name in names], "source": {"kind": "isic2019"}, "label_map": "ham10000"},
            ],
        }
    }


def read(values: dict[str, Any]) -> tuple[Listing, ImageStore]:
    spec = build_experiment({"data": values}).data
    store = ImageStore.open(spec)
    assert spec.source.kind == "merged"
    return merged(store, sources=spec.source.sources), store


def two_tables(root: Path, a: str, b: str, **part: Any) -> dict[str, Any]:
    write(root, {"a/m.csv": a, "b/m.csv": b})
    sources = [{"name": n, "path": str(root / n), "source": {"kind": "csv"}, **(part if n == "b" else {})} for n in "ab"]
    return {"source": {"kind": "merged", "sources": sources}}


def grouped(listing: Listing) -> dict[str, str]:
    frame = pd.DataFrame([{**row.known, "image_id": row.image_id} for row in listing.rows])
    return dict(zip(frame["image_id"], groups(frame), strict=True))


def test_rows_of_both_with_names_paths_and_mapped_labels(tmp_path: Path) -> None:
    listing, store = read(put(tmp_path))
    assert [(row.image_id, row.label, row.path, row.known["source"]) for row in listing.rows] == [
        ("ham-ISIC_0000001", "nv", "ham/imgs/ISIC_0000001.jpg", "ham"),
        ("ham-ISIC_0000002", "akiec", "ham/imgs/ISIC_0000002.jpg", "ham"),
        ("isic2019-ISIC_0000002", "akiec", "isic2019/ISIC_2019_Training_Input.zip!in/ISIC_0000002.jpg", "isic2019"),
        ("isic2019-ISIC_0000003", "akiec", "isic2019/ISIC_2019_Training_Input.zip!in/ISIC_0000003.jpg", "isic2019"),
        (
            "isic2019-ISIC_0000001_downsampled",
            "nv",
            "isic2019/ISIC_2019_Training_Input.zip!in/ISIC_0000001_downsampled.jpg",
            "isic2019",
        ),
    ]
    assert [store.read(str(row.path)) for row in listing.rows] == [b"1", b"2", b"2", b"3", b"1_downsampled"]
    assert {entry.path for entry in listing.files} == {entry.path for entry in store.entries()}
    assert listing.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert listing.rows[0].extra == {"dx_type": "histo", "source_user": "vidir_modern"}
    assert listing.rows[2].where == "isic2019: ISIC_2019_Training_GroundTruth.csv line 2"


def test_what_two_collections_of_the_archive_share_cannot_part(tmp_path: Path) -> None:
    """Equal lesion ids join, and so does an image that both have, though one names no lesion for it."""
    listing, _ = read(put(tmp_path))
    group = grouped(listing)
    assert [row.known["lesion_id"] for row in listing.rows] == ["HAM_1", "HAM_2", "HAM_2", "HAM_1", "HAM_1"]
    assert len(set(group.values())) == 2
    assert group["ham-ISIC_0000001"] == group["isic2019-ISIC_0000001_downsampled"] == group["isic2019-ISIC_0000003"]
    assert "ham and isic2019 share 2 archive images, 2 lesions by their ids; each stays in one split" in listing.notes


def test_lesions_that_two_collections_name_differently_are_one_over_a_shared_image(tmp_path: Path) -> None:
    a = "image_id,label,lesion_id\nISIC_1,mel,HAM_1\nISIC_2,mel,HAM_1\nISIC_5,nv,\nISIC_6,nv,\n"
    b = "image_id,label,lesion_id\nISIC_2,mel,IL_9\nISIC_3,mel,IL_9\nISIC_5,nv,\nISIC_4,nv,IL_8\n"
    listing, _ = read(two_tables(tmp_path, a, b))
    lesions = {row.image_id: row.known["lesion_id"] for row in listing.rows}
    assert lesions == {
        "a-ISIC_1": "HAM_1", "a-ISIC_2": "HAM_1", "a-ISIC_5": "ISIC_5", "a-ISIC_6": None,
        "b-ISIC_2": "HAM_1", "b-ISIC_3": "HAM_1", "b-ISIC_5": "ISIC_5", "b-ISIC_4": "IL_8",
    }  # fmt: skip


def test_own_ids_are_kept_apart_only_when_asked_for(tmp_path: Path) -> None:
    a = "image_id,label,lesion_id,patient_id\n1,mel,7,P1\n2,nv,8,\n"
    b = "image_id,label,lesion_id,patient_id\n1,mel,7,P2\n2,nv,9,P1\n"
    listing, _ = read(two_tables(tmp_path / "shared", a, b))
    assert len(set(grouped(listing).values())) == 2, "a-1, b-1 by lesion and b-2 by patient; a-2"
    assert "a and b share 1 lesions, 1 patients by their ids; each stays in one split" in listing.notes
    listing, _ = read(two_tables(tmp_path / "own", a, b, own_ids=True))
    assert [row.known["lesion_id"] for row in listing.rows] == ["7", "8", "b-7", "b-9"]
    assert [row.known["patient_id"] for row in listing.rows] == ["P1", None, "b-P2", "b-P1"]
    assert len(set(grouped(listing).values())) == 4


def test_a_label_mapped_to_null_is_left_out_of_its_source_alone(tmp_path: Path) -> None:
    text = "image_id,label\n1,mel\n2,nv\n3,odd\n"
    listing, _ = read(two_tables(tmp_path, text.replace("odd", "nv"), text, label_map={"odd": None, "mel": "nv"}))
    assert [(row.image_id, row.label) for row in listing.rows] == [
        ("a-1", "mel"), ("a-2", "nv"), ("a-3", "nv"), ("b-1", "nv"), ("b-2", "nv"),
    ]  # fmt: skip
    assert "b: 1 images with label 'odd' are left out by its label map" in listing.notes


def test_own_splits_are_taken_together_or_not_at_all(tmp_path: Path) -> None:
    split = "image_id,label,split\n1,mel,train\n2,nv,test\n"
    listing, _ = read(two_tables(tmp_path / "both", split, split))
    assert [row.known["split"] for row in listing.rows] == ["train", "test"] * 2
    listing, _ = read(two_tables(tmp_path / "one", split, "image_id,label\n1,mel\n2,nv\n"))
    assert not any("split" in row.known for row in listing.rows)
    assert "the split of a is not used, since other sources have none" in listing.notes


def test_classes_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    values = put(tmp_path)
    del values["source"]["sources"][1]["label_map"]
    with pytest.raises(
        ConfigError, match=r"classes 'mel' and 'MEL' of two sources differ only in spelling; .*label_map: ham10000"
    ):
        read(values)
    with pytest.raises(ConfigError, match="classes 'MEL' and 'mel'"):
        read(two_tables(tmp_path, "image_id,label\n1,mel\n", "image_id,label\n1,MEL\n"))


def test_too_few_sources_no_path_no_image(tmp_path: Path) -> None:
    values = put(tmp_path)
    one = {"source": {"kind": "merged", "sources": values["source"]["sources"][:1]}}
    with pytest.raises(ConfigError, match="1 sources; merging needs at least 2"):
        read(one)
    del values["source"]["sources"][1]["path"]
    with pytest.raises(ConfigError, match="source 'isic2019' has no path"):
        read(values)
    with pytest.raises(DataError, match="source 'b' holds 0 images"):
        read(two_tables(tmp_path, "image_id,label\n1,mel\n", "image_id,label\n"))


def test_names_and_the_path_beside_are_checked() -> None:
    part = {"path": "a", "source": {"kind": "folder"}}
    with pytest.raises(ConfigError, match="source name 'folder' is used twice; give each source its own name"):
        build_experiment({"data": {"source": {"kind": "merged", "sources": [part, part]}}})
    with pytest.raises(ConfigError, match=r"path is set together with source\.kind merged"):
        build_experiment({"data": {"path": "a", "source": {"kind": "merged"}}})
    for name in ("a/b", "..", "A-1", ""):
        with pytest.raises(ConfigError, match="name"):
            build_experiment({"data": {"source": {"kind": "merged", "sources": [{**part, "name": name}]}}})
    with pytest.raises(ConfigError, match="merged"):  # a merge of merges
        build_experiment({"data": {"source": {"kind": "merged", "sources": [{"source": {"kind": "merged"}}]}}})


def test_a_merged_source_cannot_be_left_by_its_paths(tmp_path: Path) -> None:
    values = put(tmp_path)
    (tmp_path / "secret.jpg").write_text("x")
    _, store = read(values)
    for path in ("ham/../../secret.jpg", "ham/../secret.jpg", "../secret.jpg", "secret.jpg", "isic2019/secret.jpg"):
        with pytest.raises(DataError):
            store.read(path)
    (tmp_path / "h" / "imgs" / "ISIC_0000001.jpg").unlink()
    (tmp_path / "h" / "imgs" / "ISIC_0000001.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match="symbolic link that leaves"):
        read(values)


def test_join_lesions_over_chains() -> None:
    lesions = ["a", "b", "b", "c", None, None, "d"]
    assert join_lesions(lesions, [[0, 1], [2, 4]], list("tuvwxyz")) == ["a", "a", "a", "c", "a", None, "d"]
    assert join_lesions([None, None], [[0, 1]], ["y", "x"]) == ["x", "x"]
    assert join_lesions(["a", None], [], ["x", "y"]) == ["a", None]


def test_within_gives_each_source_its_own_paths(tmp_path: Path) -> None:
    values = put(tmp_path)
    store = ImageStore.open(DataSpec.model_validate(values))
    assert [entry.path for entry in store.within("ham").entries()] == [
        "HAM10000_metadata.csv", "imgs/ISIC_0000001.jpg", "imgs/ISIC_0000002.jpg",
    ]  # fmt: skip
    assert store.within("isic2019").entries()[0].path == "ISIC_2019_Training_GroundTruth.csv"
