"""The three sources: layouts, columns, and what is refused."""

import zipfile
from inspect import signature
from pathlib import Path
from typing import get_args

import pytest

from dermalyze.config.data import DataSpec, SourceSpec
from dermalyze.data.sources import SOURCES, Listing, csv, folder, ham10000, pseudonym
from dermalyze.data.store import ImageStore
from dermalyze.errors import ConfigError, DataError

MASKS = "HAM10000_segmentations_lesion_tschandl"
HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
ROWS = [
    "HAM_1,ISIC_1,bkl,histo,80.0,male,scalp",
    "HAM_1,ISIC_2,bkl,histo,,unknown,unknown",
    "HAM_2,ISIC_3,nv,follow_up,45,female,back",
]


def put(root: Path, *paths: str, data: bytes = b"x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def put_zip(path: Path, *members: str, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, data)


def store(*paths: Path) -> ImageStore:
    return ImageStore.open(DataSpec(path=[str(p) for p in paths]))


def read_csv(root: Path, text: str, *, file=None, columns=None, extension=".jpg") -> Listing:
    put(root, "m.csv", data=text.encode())
    return csv(store(root), file=file, columns=columns or {}, extension=extension, labels=None)


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    put(tmp_path, "HAM10000_metadata.csv", data="\n".join([HEADER, *ROWS]).encode())
    put_zip(tmp_path / "HAM10000_images_part_1.zip", "ISIC_1.jpg", "ISIC_2.jpg")
    put(tmp_path, "HAM10000_images_part_2/ISIC_3.jpg")
    put_zip(
        tmp_path / f"{MASKS}.zip",
        f"{MASKS}/ISIC_1_segmentation.png",
    )
    return tmp_path


def test_the_table_matches_the_specs():
    specs = {spec.model_fields["kind"].default: spec for spec in get_args(get_args(SourceSpec)[0])}
    assert SOURCES.keys() == specs.keys()
    for kind, function in SOURCES.items():
        assert set(signature(function).parameters) - {"store"} == set(specs[kind].model_fields) - {"kind"}
        for word in ("What:", "License", "iases:"):
            assert word in (function.__doc__ or "")


def test_ham10000_mixes_zips_and_folders(ham):
    listing = ham10000(store(ham))
    assert listing.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert [row.path for row in listing.rows] == [
        "HAM10000_images_part_1.zip!ISIC_1.jpg",
        "HAM10000_images_part_1.zip!ISIC_2.jpg",
        "HAM10000_images_part_2/ISIC_3.jpg",
    ]
    first, second, _ = listing.rows
    assert (first.image_id, first.label, first.where) == ("ISIC_1", "bkl", "HAM10000_metadata.csv line 2")
    assert first.known == {
        "lesion_id": "HAM_1",
        "age": 80.0,
        "sex": "male",
        "site": "scalp",
        "mask_path": f"{MASKS}.zip!{MASKS}/ISIC_1_segmentation.png",
    }
    assert first.extra == {"dx_type": "histo"}
    assert (second.known["age"], second.known["sex"], second.known["site"], second.known["mask_path"]) == (None,) * 4
    assert listing.notes == ()


def test_ham10000_from_a_list_of_archives(ham):
    paths = [*sorted(ham.glob("*.zip")), ham / "HAM10000_metadata.csv", ham / "HAM10000_images_part_2"]
    assert [row.path for row in ham10000(store(*paths)).rows] == [row.path for row in ham10000(store(ham)).rows]


@pytest.mark.parametrize(("name", "delimiter"), [("HAM10000_metadata", ","), ("HAM10000_metadata.tab", "\t")])
def test_ham10000_metadata_under_its_other_names(ham, name, delimiter):
    text = "\n".join([HEADER + ",dataset", *(row + ",vidir_modern" for row in ROWS)]).replace(",", delimiter)
    (ham / "HAM10000_metadata.csv").unlink()
    put(ham, name, data=text.encode())
    listing = ham10000(store(ham))
    assert {row.known["source"] for row in listing.rows} == {"vidir_modern"}
    assert listing.rows[0].known["lesion_id"] == "HAM_1"


def test_ham10000_missing_image_and_strangers(ham):
    (ham / "HAM10000_images_part_2" / "ISIC_3.jpg").rename(ham / "HAM10000_images_part_2" / "ISIC_9.jpg")
    listing = ham10000(store(ham))
    assert listing.rows[2].path is None
    assert listing.notes == ("1 image files have no row in the metadata and are left out",)


def test_an_archive_beside_its_unpacked_folder_is_read_once(ham):
    put(ham, "HAM10000_images_part_1/ISIC_1.jpg")
    listing = ham10000(store(ham))
    assert listing.rows[0].path == "HAM10000_images_part_1/ISIC_1.jpg"
    assert any("1 images exist twice" in note for note in listing.notes)
    put(ham, "HAM10000_images_part_1/ISIC_1.jpg", data=b"another picture")
    with pytest.raises(DataError, match="2 times with different content"):
        ham10000(store(ham))


def test_ham10000_without_metadata_or_columns(ham):
    put(ham, "HAM10000_metadata.csv", data=b"image_id,dx\nISIC_1,nv\n")
    with pytest.raises(DataError, match=r"columns \['lesion_id'\] are missing; found \['image_id', 'dx'\]"):
        ham10000(store(ham))
    (ham / "HAM10000_metadata.csv").unlink()
    with pytest.raises(DataError, match=r"no HAM10000_metadata\.csv among its 4 files.*data\.source\.kind"):
        ham10000(store(ham))


def test_folders_are_classes(tmp_path):
    put(tmp_path, "mel/DOE_JOHN.jpg", "mel/patient 7/b.PNG", "nv/a.jpg", "notes.txt")
    listing = folder(store(tmp_path))
    assert [(row.label, row.path) for row in listing.rows] == [
        ("mel", "mel/DOE_JOHN.jpg"),
        ("mel", "mel/patient 7/b.PNG"),
        ("nv", "nv/a.jpg"),
    ]
    assert [row.image_id for row in listing.rows] == [pseudonym(row.path) for row in listing.rows]
    assert not any("DOE" in row.image_id for row in listing.rows)
    assert listing.classes is None
    assert listing.notes == ("1 files are not images and are left out",)


def test_folders_in_a_zip_below_one_folder(tmp_path):
    put_zip(tmp_path / "set.zip", "set/v1/mel/a.jpg", "set/v1/nv/b.jpg", "__MACOSX/set/v1/mel/._a.jpg")
    assert [row.label for row in folder(store(tmp_path / "set.zip")).rows] == ["mel", "nv"]


def test_a_split_above_the_classes_is_taken(tmp_path):
    put(tmp_path, "d/Train/mel/a.jpg", "d/Train/nv/b.jpg", "d/validation/mel/c.jpg", "d/test/nv/d.jpg")
    listing = folder(store(tmp_path))
    assert [(row.label, row.known["split"]) for row in listing.rows] == [
        ("mel", "train"),
        ("nv", "train"),
        ("nv", "test"),
        ("mel", "val"),
    ]


def test_folders_without_classes(tmp_path):
    put(tmp_path, "mel/a.jpg", "mel/b.jpg")
    with pytest.raises(DataError, match="all 2 images lie in one folder; at least 2 class folders are needed"):
        folder(store(tmp_path))
    put(tmp_path, "nv/c.jpg", "stray.jpg")
    with pytest.raises(DataError, match=r"stray\.jpg: lies in no class folder"):
        folder(store(tmp_path))


def test_csv_with_a_column_map(tmp_path):
    put(tmp_path, "imgs/a.jpg", "imgs/b.jpg")
    listing = read_csv(
        tmp_path,
        "Bild,Befund,Patient,Alter,width,dx_type,part\nimgs/a.jpg,mel,P1,61,9,histo,training\nimgs/b.jpg,nv,,,8,,test\n",
        columns={"path": "Bild", "label": "Befund", "patient_id": "Patient", "age": "Alter", "split": "part"},
    )
    first, second = listing.rows
    assert (first.path, first.label, first.image_id) == ("imgs/a.jpg", "mel", pseudonym("imgs/a.jpg"))
    assert first.known == {"patient_id": "P1", "age": 61.0, "split": "train"}
    assert second.known == {"patient_id": None, "age": None, "split": "test"}
    assert first.extra == {"width_user": "9", "dx_type": "histo"}
    assert second.extra == {"width_user": "8", "dx_type": None}
    assert any("'width' is kept as 'width_user'" in note for note in listing.notes)


def test_csv_finds_images_by_id_and_ending_wherever_they_lie(tmp_path):
    put(tmp_path, "deep/er/a.png")
    put_zip(tmp_path / "z.zip", "in/b.png")
    listing = read_csv(tmp_path, "image_id,label\na,mel\nb,nv\nc,nv\n", extension=".png")
    assert [row.path for row in listing.rows] == ["deep/er/a.png", "z.zip!in/b.png", None]


def test_csv_takes_members_of_archives_and_masks(tmp_path):
    put_zip(tmp_path / "z.zip", "in/b.jpg", "m/b.png")
    text = "image_id,path,label,mask_path\nb,z.zip!in/b.jpg,nv,m/b.png\nc,in/b.jpg,nv,m/none.png\n"
    listing = read_csv(tmp_path, text)
    assert [row.path for row in listing.rows] == ["z.zip!in/b.jpg"] * 2
    assert [row.known["mask_path"] for row in listing.rows] == ["z.zip!m/b.png", None]


def test_csv_spelling_is_said(tmp_path):
    put(tmp_path, "a.jpg")
    listing = read_csv(tmp_path, "Image_ID,Label\na,mel\n")
    assert listing.rows[0].label == "mel"
    assert listing.notes == (
        "column 'Image_ID' is used despite its spelling",
        "column 'Label' is used despite its spelling",
    )


def test_a_column_that_the_user_maps_is_not_taken_for_what_its_name_says(tmp_path):
    put(tmp_path, "a.jpg")
    listing = read_csv(tmp_path, "image_id,site,source\na,mel,x\n", columns={"label": "site", "patient_id": "source"})
    assert listing.rows[0].label == "mel"
    assert listing.rows[0].known == {"patient_id": "x"}


@pytest.mark.parametrize(
    ("wanted", "files", "found"),
    [
        ("a.jpg", ("a.jpg",), "a.jpg"),  # an image_id with its ending
        ("a", ("a.JPG",), "a.JPG"),
        ("A.JPG", ("in/a.jpg",), "in/a.jpg"),
        ("a", ("a.png",), "a.png"),
        ("a", ("a.jpg", "a.png"), "a.jpg"),  # as asked for, before any other
        ("a.b", ("a.b.jpeg",), "a.b.jpeg"),
        ("a", ("b/a.PNG", "c/A.tif"), None),  # either could be meant
        ("a1", ("a2.jpg",), None),
    ],
)
def test_csv_finds_images_by_stem_and_letter_case_where_that_is_unique(tmp_path, wanted, files, found):
    for number, name in enumerate(files):
        put(tmp_path, name, data=b"x" * (number + 1))
    row = read_csv(tmp_path, f"image_id,label\n{wanted},mel\n").rows[0]
    assert (row.image_id, row.path) == (wanted, found)


def test_csv_paths_in_another_letter_case(tmp_path):
    put(tmp_path, "Images/A.jpg", "Other/a.jpg")
    listing = read_csv(tmp_path, "path,label,mask_path\nimages/a.JPG,mel,images/a.png\n")
    assert listing.rows[0].path == "Images/A.jpg"
    assert listing.rows[0].known["mask_path"] is None  # never the image itself
    assert listing.notes == ("1 images were found under another letter case or file ending than the table gives",)


def test_files_of_kinds_that_are_not_read_are_counted(tmp_path):
    put(tmp_path, "mel/a.jpg", "nv/b.jpg", "nv/c.PDF", "nv/d.jxl", "mel/e.NEF", "mel/f.jxl")
    assert "left out, since such files are not read: jxl (2), nef (1), pdf (1); save the images as JPEG or PNG" in (
        folder(store(tmp_path)).notes
    )


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"lable": "dx"}, ConfigError, r"'lable' is none of image_id, .*did you mean 'label'"),
        ({"label": "dxx"}, DataError, r"columns \['dxx'\] are missing; found \['image_id', 'dx'\]; did you mean 'dx'\?"),
        ({}, DataError, r"columns \['label'\] are missing.*data\.source\.columns"),
        ({"label": "image_id"}, ConfigError, "leaves no column for image_id or path; map one of them too"),
        ({"label": "dx", "site": "dx"}, ConfigError, "two of our names are mapped to one column"),
    ],
)
def test_csv_column_map_is_checked(tmp_path, columns, error, message):
    with pytest.raises(error, match=message):
        read_csv(tmp_path, "image_id,dx\na,mel\n", columns=columns)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../../../../etc/passwd,a.jpg,mel,,", None),
        ("a,../../../../etc/passwd,mel,,", r"m\.csv line 2: path '../../../../etc/passwd' leaves its folder"),
        ("a,/etc/passwd,mel,,", r"m\.csv line 2: path '/etc/passwd' leaves its folder"),
        ("a,z.zip!../x,mel,,", r"m\.csv line 2: path .* leaves its folder"),
        ("a,imgs\\a.jpg,mel,,", r"m\.csv line 2: path .* backslash"),
        ("a,a.jpg,mel,old,", r"m\.csv line 2: age 'old' is not a number of years"),
        ("a,a.jpg,mel,inf,", r"m\.csv line 2: age 'inf' is not a number of years"),
        ("a,a.jpg,mel,-1,", r"m\.csv line 2: age '-1' is not a number of years"),
        ("a,a.jpg,mel,5,tset", r"m\.csv line 2: split 'tset' is none of train, val, cal, test; did you mean 'test'\?"),
        (" a,a.jpg,mel,5,", r"m\.csv line 2: image_id ' a' has spaces around it"),
        (",a.jpg,mel,5,", r"m\.csv line 2: image_id '' is empty"),
    ],
)
def test_csv_rows_are_checked(tmp_path, row, message):
    put(tmp_path, "a.jpg")
    text = f"image_id,path,label,age,split\n{row}\n"
    if message is None:  # a key is only a key where a path stands beside it
        assert read_csv(tmp_path, text).rows[0].path == "a.jpg"
        return
    with pytest.raises(DataError, match=message):
        read_csv(tmp_path, text)


def test_csv_id_as_path_may_not_leave_either(tmp_path):
    with pytest.raises(DataError, match=r"m\.csv line 2: path '../../etc/passwd\.jpg' leaves its folder"):
        read_csv(tmp_path, "image_id,label\n../../etc/passwd,mel\n")


def test_csv_unknown_groups_are_missing_not_one_group(tmp_path):
    listing = read_csv(tmp_path, "image_id,label,lesion_id,patient_id\na,mel,unknown,NaN\nb,mel,L1,\n")
    assert [row.known for row in listing.rows] == [
        {"patient_id": None, "lesion_id": None},
        {"patient_id": None, "lesion_id": "L1"},
    ]
    with pytest.raises(DataError, match="lesion_id 'L1 ' has spaces around it"):
        read_csv(tmp_path, "image_id,label,lesion_id\na,mel,L1 \n")


def test_csv_one_table_or_its_name(tmp_path):
    with pytest.raises(DataError, match="0 tables in the data folder"):
        csv(store(tmp_path), file=None, columns={}, extension=".jpg", labels=None)
    put(tmp_path, "other.csv", data=b"image_id,label\nz,nv\n")
    with pytest.raises(DataError, match=r"2 tables .*data\.source\.file"):
        read_csv(tmp_path, "image_id,label\na,mel\n")
    assert read_csv(tmp_path, "image_id,label\na,mel\n", file="other.csv").rows[0].image_id == "z"
    with pytest.raises(DataError, match=r"data\.source\.file: none\.csv is not in the data folder"):
        read_csv(tmp_path, "image_id,label\na,mel\n", file="none.csv")
