"""The ISIC challenges and the archive, in the layout of their downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dermalyze.data.sources import SOURCES, Row
from dermalyze.data.sources.isic import isic2018, isic2019, isic2020, isic_archive
from dermalyze.data.store import ImageStore
from dermalyze.errors import DataError

Lay = Callable[..., ImageStore]

TRUTH_2018 = """image,MEL,NV,BCC,AKIEC,BKL,DF,VASC
ISIC_0024306,0.0,1.0,0.0,0.0,0.0,0.0,0.0
ISIC_0024307,0.0,0.0,0.0,1.0,0.0,0.0,0.0
"""
GROUPS_2018 = """image,lesion_id,diagnosis_confirm_type
ISIC_0024306,HAM_0000550,follow_up
ISIC_0024307,HAM_0003577,histopathology
"""
TRUTH_2019 = """image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK
ISIC_0000000,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
ISIC_0000002_downsampled,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
ISIC_0024306,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0
"""
METADATA_2019 = """image,age_approx,anatom_site_general,lesion_id,sex
ISIC_0024306,45,anterior torso,HAM_0000550,male
ISIC_0000000,55,,,female
ISIC_0000002_downsampled,,upper extremity,MSK4_0011169,
"""
TRUTH_2020 = """image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target
ISIC_2637011,IP_7279968,IL_7972535,male,45.0,head/neck,unknown,benign,0
ISIC_0015719,IP_3075186,IL_4649854,female,45.0,upper extremity,nevus,benign,0
ISIC_0052212,IP_2842074,IL_9087444,,50.0,lower extremity,melanoma,malignant,1
"""
JPEGS_2019 = {
    f"ISIC_2019_Training_Input/{name}.jpg": name for name in ("ISIC_0000000", "ISIC_0000002_downsampled", "ISIC_0024306")
}


def seen(row: Row) -> tuple[Any, ...]:
    return row.image_id, row.label, row.known.get("lesion_id"), row.path


def test_isic2018_from_its_zips_with_groupings(lay: Lay) -> None:
    store = lay(
        {
            "ISIC2018_Task3_Training_Input.zip": {
                f"ISIC2018_Task3_Training_Input/{n}.jpg": n for n in ("ISIC_0024306", "ISIC_0024307")
            },
            "ISIC2018_Task3_Training_GroundTruth.zip": {
                "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv": TRUTH_2018
            },
            "ISIC2018_Task3_Training_LesionGroupings.csv": GROUPS_2018,
        }
    )
    listing = isic2018(store)
    inside = "ISIC2018_Task3_Training_Input.zip!ISIC2018_Task3_Training_Input"
    assert [seen(row) for row in listing.rows] == [
        ("ISIC_0024306", "NV", "HAM_0000550", f"{inside}/ISIC_0024306.jpg"),
        ("ISIC_0024307", "AKIEC", "HAM_0003577", f"{inside}/ISIC_0024307.jpg"),
    ]
    assert [row.extra for row in listing.rows] == [
        {"diagnosis_confirm_type": "follow_up"},
        {"diagnosis_confirm_type": "histopathology"},
    ]
    assert listing.classes == ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    assert listing.notes == ()
    assert listing.rows[0].where == "ISIC2018_Task3_Training_GroundTruth.csv line 2"


def test_isic2018_without_groupings_warns_of_the_leak(lay: Lay) -> None:
    listing = isic2018(lay({"ISIC2018_Task3_Training_GroundTruth.csv": TRUTH_2018, "ISIC_0024306.jpg": "x"}))
    assert [row.known for row in listing.rows] == [{}, {}]
    assert [row.path for row in listing.rows] == ["ISIC_0024306.jpg", None]
    assert "the lesions of 2 images are unknown" in listing.notes[0]
    assert "LesionGroupings.csv" in listing.notes[0]


def test_isic2018_test_part_alone(lay: Lay) -> None:
    listing = isic2018(lay({"ISIC2018_Task3_Test_GroundTruth.csv": TRUTH_2018}))
    assert [row.label for row in listing.rows] == ["NV", "AKIEC"]


def test_isic2019_joins_metadata_by_image(lay: Lay) -> None:
    store = lay(
        {"ISIC_2019_Training_GroundTruth.csv": TRUTH_2019, "ISIC_2019_Training_Metadata.csv": METADATA_2019, **JPEGS_2019}
    )
    listing = isic2019(store)
    assert [seen(row)[:3] for row in listing.rows] == [
        ("ISIC_0000000", "NV", None),
        ("ISIC_0000002_downsampled", "MEL", "MSK4_0011169"),
        ("ISIC_0024306", "SCC", "HAM_0000550"),
    ]
    assert all(row.path == f"ISIC_2019_Training_Input/{row.image_id}.jpg" for row in listing.rows)
    assert listing.rows[2].known == {"lesion_id": "HAM_0000550", "age": 45.0, "sex": "male", "site": "anterior torso"}
    assert listing.rows[1].known == {"lesion_id": "MSK4_0011169", "age": None, "sex": None, "site": "upper extremity"}
    assert listing.classes == ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
    assert listing.notes == ("1 images have no lesion_id and stay together only where they look alike",)


def test_isic2019_knows_the_class_unk_only_where_it_is_used(lay: Lay) -> None:
    truth = TRUTH_2019.replace("0.0,1.0,0.0\n", "0.0,0.0,1.0\n")
    store = lay({"ISIC_2019_Training_GroundTruth.csv": truth, "ISIC_2019_Training_Metadata.csv": METADATA_2019})
    listing = isic2019(store)
    assert listing.rows[2].label == "UNK"
    assert listing.classes is not None
    assert listing.classes[-1] == "UNK"


def test_isic2019_needs_its_metadata(lay: Lay) -> None:
    with pytest.raises(DataError, match=r"no ISIC_2019_Training_Metadata\.csv beside .*would leak: fetch it"):
        isic2019(lay({"ISIC_2019_Training_GroundTruth.csv": TRUTH_2019}))


def test_column_names_in_another_case_are_taken_and_said(lay: Lay) -> None:
    header, _, rest = METADATA_2019.partition("\n")
    truth = TRUTH_2019.replace("image,MEL", "Image,mel")
    store = lay(
        {
            "ISIC_2019_Training_GroundTruth.csv": truth,
            "isic_2019_training_metadata.CSV": f"{header.upper()}\n{rest}",
            **JPEGS_2019,
        }
    )
    listing = isic2019(store)
    assert [row.label for row in listing.rows] == ["NV", "MEL", "SCC"]
    assert listing.rows[2].known["lesion_id"] == "HAM_0000550"
    for theirs, official in (("Image", "image"), ("AGE_APPROX", "age_approx"), ("LESION_ID", "lesion_id")):
        assert f"column '{theirs}' is used as '{official}' despite its spelling" in listing.notes


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("ISIC_0000009,1.0,1.0,0.0,0.0,0.0,0.0,0.0", "MEL '1.0', NV '1.0'"),
        ("ISIC_0000009,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "all 0"),
        ("ISIC_0000009,1.0,0.5,0.0,0.0,0.0,0.0,0.0", "MEL '1.0', NV '0.5'"),
        ("ISIC_0000009,1.0,,0.0,0.0,0.0,0.0,0.0", "MEL '1.0', NV ''"),
        ("ISIC_0000009,-1,2,0.0,0.0,0.0,0.0,0.0", "MEL '-1', NV '2'"),
    ],
    ids=["two", "none", "half", "empty", "sum of one"],
)
def test_rows_that_are_not_one_hot_are_refused_with_their_line(lay: Lay, row: str, shown: str) -> None:
    store = lay({"ISIC2018_Task3_Training_GroundTruth.csv": TRUTH_2018 + row + "\n"})
    with pytest.raises(DataError) as caught:
        isic2018(store)
    assert str(caught.value).startswith(
        f"ISIC2018_Task3_Training_GroundTruth.csv line 4: is not one-hot ({shown}); exactly one of"
    )
    assert "correct the row" in str(caught.value)


@pytest.mark.parametrize("ending", ["", ".", ".000", ".000e+00"])
def test_any_way_of_writing_a_number_is_one_hot(lay: Lay, ending: str) -> None:
    listing = isic2018(lay({"ISIC2018_Task3_Training_GroundTruth.csv": TRUTH_2018.replace(".0", ending)}))
    assert [row.label for row in listing.rows] == ["NV", "AKIEC"]


def test_a_missing_class_column_and_a_repeated_metadata_row(lay: Lay) -> None:
    with pytest.raises(DataError, match=r"GroundTruth\.csv: columns \['VASC'\] are missing; .*not the one-hot ground truth"):
        isic2018(lay({"ISIC2018_Task3_Training_GroundTruth.csv": TRUTH_2018.replace(",VASC", ",VAS")}, "a"))
    twice = METADATA_2019 + "ISIC_0000000,55,,HAM_1,female\n"
    files = {"ISIC_2019_Training_GroundTruth.csv": TRUTH_2019, "ISIC_2019_Training_Metadata.csv": twice}
    message = r"Metadata\.csv line 5: image 'ISIC_0000000' is repeated, first at ISIC_2019_Training_Metadata\.csv line 3"
    with pytest.raises(DataError, match=message):
        isic2019(lay(files, "b"))


def test_two_different_tables_of_one_name(lay: Lay) -> None:
    store = lay(
        {"a/metadata.csv": "isic_id,diagnosis\nISIC_1,nevus\n", "b/metadata.csv": "isic_id,diagnosis\nISIC_1,melanoma\n"}
    )
    with pytest.raises(DataError, match=r"metadata\.csv: is there 2 times with different content \(a/metadata\.csv, b/"):
        isic_archive(store, label=None)


def test_isic2020_by_target_or_diagnosis(lay: Lay) -> None:
    store = lay({"ISIC_2020_Training_GroundTruth_v2.csv": TRUTH_2020, "train/ISIC_2637011.jpg": "x"})
    listing = isic2020(store, label="benign_malignant")
    assert [row.label for row in listing.rows] == ["benign", "benign", "malignant"]
    assert listing.rows[0].known == {
        "patient_id": "IP_7279968",
        "lesion_id": "IL_7972535",
        "sex": "male",
        "age": 45.0,
        "site": "head/neck",
    }
    assert listing.rows[0].extra == {"diagnosis": "unknown"}
    assert [row.path for row in listing.rows] == ["train/ISIC_2637011.jpg", None, None]
    listing = isic2020(store, label="diagnosis")
    assert [row.label for row in listing.rows] == ["unknown", "nevus", "melanoma"]
    assert [row.extra for row in listing.rows] == [{}, {}, {}], "the other level of the label is no column of the user"


def test_isic2020_first_version_has_no_lesions(lay: Lay) -> None:
    rows = [line.split(",") for line in TRUTH_2020.splitlines()]
    first = "\n".join(",".join(row[:2] + row[3:]) for row in rows) + "\n"
    listing = isic2020(lay({"train.csv": first}), label="benign_malignant")
    assert [row.known["patient_id"] for row in listing.rows] == ["IP_7279968", "IP_3075186", "IP_2842074"]
    assert "lesion_id" not in listing.rows[0].known


def test_isic2020_listed_duplicates_share_a_lesion(lay: Lay) -> None:
    pairs = "image_name_1,image_name_2\nISIC_0052212,ISIC_2637011\nISIC_9999999,ISIC_2637011\n"
    store = lay({"ISIC_2020_Training_GroundTruth_v2.csv": TRUTH_2020, "ISIC_2020_Training_Duplicates.csv": pairs})
    listing = isic2020(store, label="benign_malignant")
    assert [row.known["lesion_id"] for row in listing.rows] == ["IL_7972535", "IL_4649854", "IL_7972535"]
    assert "1 pairs of the list of duplicates are kept together" in listing.notes


def test_isic_archive_takes_the_column_that_is_there(lay: Lay) -> None:
    old = "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis,lesion_id,patient_id,sex\n"
    old += "ISIC_0024306,ViDIR,CC-BY-NC,45,anterior torso,nevus,IL_1,IP_1,male\nISIC_0024307,A,CC-0,,,melanoma,,,\n"
    listing = isic_archive(lay({"metadata.csv": old, "ISIC_0024306.jpg": "x", "licenses/CC-0.txt": "x"}, "old"), label=None)
    assert [(row.label, row.path) for row in listing.rows] == [("nevus", "ISIC_0024306.jpg"), ("melanoma", None)]
    assert listing.rows[0].known == {
        "lesion_id": "IL_1",
        "patient_id": "IP_1",
        "age": 45.0,
        "sex": "male",
        "site": "anterior torso",
    }
    assert listing.classes is None
    assert "the label is the column 'diagnosis'" in listing.notes
    assert "licenses: CC-BY-NC 1, CC-0 1" in listing.notes
    new = "isic_id,copyright_license,diagnosis_1,diagnosis_2,diagnosis_3,image_type\n"
    new += "ISIC_1,CC-0,Benign,Benign melanocytic proliferations,Nevus,dermoscopic\n"
    store = lay({"metadata.csv": new}, "new")
    assert isic_archive(store, label=None).rows[0].label == "Nevus"
    row = isic_archive(store, label="diagnosis_1").rows[0]
    assert (row.label, row.extra["diagnosis_3"], row.extra["image_type"]) == ("Benign", "Nevus", "dermoscopic")
    with pytest.raises(
        DataError, match=r"columns \['diagnosys_1'\] are missing.*did you mean 'diagnosis_1'.*data\.source\.label"
    ):
        isic_archive(store, label="diagnosys_1")


def test_every_source_has_a_whole_card() -> None:
    words = ("What:", "Layout:", "Source:", "License", "itation", "iases:")
    own = {"folder": ("Layout:", "Source:"), "csv": ("Layout:", "Source:"), "merged": ("Layout:", "Source:")}
    for kind, function in SOURCES.items():
        missing = [word for word in words if word not in (function.__doc__ or "") and word not in own.get(kind, ())]
        assert not missing, f"{kind}: {missing}"
