"""PAD-UFES-20, BCN20000, Derm7pt and Fitzpatrick17k, in the layout of their downloads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dermalyze.data.sources.collections import bcn20000, derm7pt, fitzpatrick17k, pad_ufes_20
from dermalyze.data.store import ImageStore
from dermalyze.errors import DataError

Lay = Callable[..., ImageStore]

PAD = (
    "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,skin_cancer_history,"
    "cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,diameter_1,diameter_2,diagnostic,itch,grew,hurt,"
    "changed,bleed,elevation,img_id,biopsed\n"
    "PAT_1516,1765,,,,,8,,,,,,,,ARM,,,NEV,FALSE,FALSE,FALSE,FALSE,FALSE,FALSE,PAT_1516_1765_530.png,FALSE\n"
    "PAT_46,881,FALSE,FALSE,POMERANIA,POMERANIA,55,FALSE,FEMALE,TRUE,TRUE,TRUE,TRUE,3.0,NECK,6.0,5.0,BCC,TRUE,TRUE,FALSE,"
    "TRUE,TRUE,TRUE,PAT_46_881_939.png,TRUE\n"
)
BCN = """bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split
BCN_0000000001.jpg,55.0,anterior torso,MEL,BCN_0003884,2012-05-16,male,train
BCN_0000000003.jpg,50.0,,SCC,BCN_0000019,2015-07-09,female,train
"""
DERM = """case_num,diagnosis,seven_point_score,pigment_network,location,sex,management,clinic,derm,case_id,notes
1,basal cell carcinoma,0,absent,abdomen,female,excision,NEL/Nel026.jpg,NEL/NEL027.jpg,,
2,clark nevus,1,typical,back,male,clinical follow up,NEL/Nel028.jpg,NEL/NEL030.jpg,,
3,melanoma (in situ),4,atypical,back,male,excision,,NEL/NEL032.jpg,,
"""
INDEXES = {
    "meta/train_indexes.csv": "indexes\n2\n",
    "meta/valid_indexes.csv": "indexes\n0\n",
    "meta/test_indexes.csv": "indexes\n1\n",
}
FITZ = (
    "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url,url_alphanum\n"
    "5e82a45bc5d78bd24ae9202d194423f8,3,3,drug induced pigmentary changes,inflammatory,non-neoplastic,,http://a,a\n"
    "fa2911a9b13b6f8af79cb700937cc14f,-1,1,malignant melanoma,malignant melanoma,malignant,3 Wrongly labelled,http://b,b\n"
)


def test_pad_finds_its_images_in_three_parts(lay: Lay) -> None:
    store = lay(
        {
            "metadata.csv": PAD,
            "images/imgs_part_1/imgs_part_1/PAT_1516_1765_530.png": "a",
            "images/imgs_part_2.zip": {"imgs_part_2/PAT_46_881_939.png": "b"},
            "images/imgs_part_3/PAT_9_9_9.png": "stranger",
        }
    )
    listing = pad_ufes_20(store)
    first, second = listing.rows
    assert (first.image_id, first.label, first.path) == (
        "PAT_1516_1765_530",
        "NEV",
        "images/imgs_part_1/imgs_part_1/PAT_1516_1765_530.png",
    )
    assert second.path == "images/imgs_part_2.zip!imgs_part_2/PAT_46_881_939.png"
    assert first.known == {"patient_id": "PAT_1516", "lesion_id": "1765", "age": 8.0, "sex": None, "site": "ARM"}
    assert second.known["sex"] == "female"
    assert (second.extra["biopsed"], second.extra["fitspatrick"]) == ("TRUE", "3.0")
    assert listing.classes == ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")
    assert listing.notes == ("1 image files have no row in the metadata and are left out",)


def test_pad_with_another_table(lay: Lay) -> None:
    with pytest.raises(DataError, match=r"metadata\.csv: columns \['img_id', 'diagnostic'\] are missing.*not the PAD-UFES-20"):
        pad_ufes_20(lay({"metadata.csv": "patient_id,lesion_id,label\nP,1,NEV\n"}, "other"))
    with pytest.raises(DataError, match=r"no metadata\.csv among its 1 files; put it beside the images"):
        pad_ufes_20(lay({"a.png": "x"}, "none"))


def test_bcn_split_is_taken_only_where_it_names_test_images(lay: Lay) -> None:
    listing = bcn20000(lay({"bcn_20k_train.csv": BCN, "BCN_20k_train/BCN_0000000001.jpg": "x"}, "published"))
    first, second = listing.rows
    assert (first.image_id, first.label, first.path) == ("BCN_0000000001", "MEL", "BCN_20k_train/BCN_0000000001.jpg")
    assert first.known == {"lesion_id": "BCN_0003884", "age": 55.0, "sex": "male", "site": "anterior torso"}
    assert first.extra == {"capture_date": "2012-05-16", "split_user": "train"}
    assert second.path is None
    assert "column 'split' has no test images and is not used as the split" in listing.notes
    own = bcn20000(lay({"metadata.csv": BCN.replace("female,train", "female,test")}, "own"))
    assert [row.known["split"] for row in own.rows] == ["train", "test"]


@pytest.mark.parametrize(
    ("images", "ids"),
    [
        ("dermoscopic", ["1_derm", "2_derm", "3_derm"]),
        ("clinical", ["1_clinic", "2_clinic", "3_clinic"]),
        ("both", ["1_derm", "1_clinic", "2_derm", "2_clinic", "3_derm", "3_clinic"]),
    ],
)
def test_derm7pt_images_of_a_case_share_a_lesion(lay: Lay, images: str, ids: list[str]) -> None:
    store = lay({"meta/meta.csv": DERM, **INDEXES, "images/NEL/NEL027.jpg": "d", "images/NEL/Nel026.jpg": "c"})
    listing = derm7pt(store, images=images)
    assert [row.image_id for row in listing.rows] == ids
    assert [row.known["lesion_id"] for row in listing.rows] == [f"derm7pt_{name[0]}" for name in ids]
    assert [row.known["split"] for row in listing.rows] == [{"1": "val", "2": "test", "3": "train"}[name[0]] for name in ids]
    assert {row.image_id: row.path for row in listing.rows if row.path} == {
        name: path
        for name, path in {"1_derm": "images/NEL/NEL027.jpg", "1_clinic": "images/NEL/Nel026.jpg"}.items()
        if name in ids
    }
    assert {row.extra["image_type"] for row in listing.rows} == {"dermoscopic", "clinical"} if images == "both" else {images}
    assert listing.rows[0].extra["seven_point_score"] == "0"
    assert (listing.rows[0].known["sex"], listing.rows[0].known["site"]) == ("female", "abdomen")


def test_derm7pt_pairs_the_images_of_a_case(lay: Lay) -> None:
    store = lay({"meta/meta.csv": DERM, **INDEXES, "images/NEL/NEL027.jpg": "d", "images/NEL/Nel026.jpg": "c"})
    first, second, third = derm7pt(store, images="paired").rows
    assert (first.image_id, first.path, first.images["image_2"]) == ("1_derm", "images/NEL/NEL027.jpg", "images/NEL/Nel026.jpg")
    assert [row.path for row in (second, third)] == [None, None]
    assert [dict(row.images) for row in (second, third)] == [{"image_2": ""}, {}]  # named and not there, and not named
    assert derm7pt(store, images="both").rows[0].images == {}


def test_derm7pt_without_lists_has_no_own_split(lay: Lay) -> None:
    listing = derm7pt(lay({"meta.csv": DERM, "train_indexes.csv": "indexes\n0\n"}), images="dermoscopic")
    assert not any("split" in row.known for row in listing.rows)
    assert "the three lists of indexes are missing: no split is used" in listing.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta/test_indexes.csv": "indexes\n0\n"}, r"test_indexes\.csv line 2: index '0' is in two lists"),
        ({"meta/test_indexes.csv": "indexes\n3\n"}, r"test_indexes\.csv line 2: index '3' is no row of meta\.csv, 0 to 2"),
        ({"meta/test_indexes.csv": "indexes\n-1\n"}, r"index '-1' is no row"),
        ({"meta/test_indexes.csv": "indexes\n"}, r"name no split for 1 of 3 cases, first row 1"),
        ({"meta/test_indexes.csv": "index\n1\n"}, r"columns \['indexes'\] are missing"),
        ({"meta/meta.csv": DERM.replace("NEL/NEL027.jpg", "../../etc/passwd")}, r"meta\.csv line 2: path .* leaves its folder"),
    ],
    ids=["twice", "beyond", "negative", "missing", "column", "path"],
)
def test_derm7pt_faults(lay: Lay, change: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        derm7pt(lay({"meta/meta.csv": DERM, **INDEXES, **change}), images="dermoscopic")


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        ("three_partition_label", ["non-neoplastic", "malignant"]),
        ("nine_partition_label", ["inflammatory", "malignant melanoma"]),
        ("label", ["drug induced pigmentary changes", "malignant melanoma"]),
    ],
)
def test_fitzpatrick17k_by_each_label(lay: Lay, label: str, labels: list[str]) -> None:
    store = lay({"fitzpatrick17k.csv": FITZ, "data/finalfitz17k/5e82a45bc5d78bd24ae9202d194423f8.jpg": "x"})
    listing = fitzpatrick17k(store, label=label)
    assert [row.label for row in listing.rows] == labels
    assert [row.path for row in listing.rows] == ["data/finalfitz17k/5e82a45bc5d78bd24ae9202d194423f8.jpg", None]
    assert set(listing.rows[0].extra) == {"fitzpatrick_scale", "fitzpatrick_centaur", "qc", "url", "url_alphanum"}
    assert listing.notes == ("1 images are marked as wrongly labelled in column 'qc'",)
