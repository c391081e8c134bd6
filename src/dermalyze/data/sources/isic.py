"""The collections of the ISIC archive: HAM10000, the challenges of 2018, 2019 and 2020, and what isic-cli downloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dermalyze.config.classes import HAM10000_CLASSES
from dermalyze.data.sources.files import Files
from dermalyze.data.sources.linking import join_lesions
from dermalyze.data.sources.reading import (
    Cells,
    Listing,
    Row,
    cells,
    cells_by_id,
    need_table,
    one_hot,
    optional_values,
    read,
    take,
)
from dermalyze.data.store import Entry, ImageStore
from dermalyze.errors import DataError

ISIC_2018_CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
ISIC_2019_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
OPTIONAL = {
    "lesion_id": "lesion_id", "patient_id": "patient_id", "age_approx": "age", "sex": "sex",
    "anatom_site_general_challenge": "site", "anatom_site_general": "site",
}  # fmt: skip
"""The archive's columns to ours."""


def ham10000(store: ImageStore) -> Listing:
    """HAM10000, "Human Against Machine with 10000 training images".

    What: 10,015 dermoscopic images (600 x 450 px) of 7,470 pigmented lesions; several photographs of a lesion are common.
        nv 6705, mel 1113, bkl 1099, bcc 514, akiec 327, vasc 142, df 115. Expert lesion masks exist for all.
    Layout: `HAM10000_images_part_1.zip` and `_part_2.zip` as downloaded, or unpacked, or both; `HAM10000_metadata.csv` (or
        `.tab`, or no ending) with lesion_id, image_id, dx, dx_type, age, sex, localization and, in later editions, dataset;
        `HAM10000_segmentations_lesion_tschandl.zip` if masks are wanted. A column `split` that somebody added is taken as
        the user's own split.
    Source: Harvard Dataverse, doi:10.7910/DVN/DBW86T.
    License: CC BY-NC 4.0.
    Citation: Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Sci Data 5, 180161 (2018), doi:10.1038/sdata.2018.161;
        masks: Tschandl et al., Nat Med 26, 1229 (2020).
    Known biases: two clinics (Vienna, Queensland), almost only light skin, referral and surgical populations, so that
        malignant lesions are over-represented; benign ones without histology were chosen for being benign. `dx_type` tells
        how the label was found and gives it away; so, in part, does `dataset`. Markings, rulers and dark corners come with
        some classes more than with others. No amelanotic melanoma, no rare tumours, no inflammatory disease.
    """
    files = Files(store)
    table = need_table(store, files, "HAM10000_metadata")
    names, notes = take(
        table,
        {"image_id": "image_id", "lesion_id": "lesion_id", "dx": "label"},
        {"age": "age", "sex": "sex", "localization": "site", "dataset": "source", "split": "split"},
        "this is not the HAM10000 metadata",
    )
    rows = []
    for place, values, extra in cells(table, names):
        image_id = values["image_id"]
        known = optional_values(values, place)
        mask = files.by_stem(f"{image_id}_segmentation")
        known["mask_path"] = None if mask is None else mask.path
        rows.append(_row(files, (place, values, extra), values["label"], known))
    return _listing(rows, tuple(HAM10000_CLASSES), files, notes)


def isic2018(store: ImageStore) -> Listing:
    """ISIC 2018, task 3: HAM10000 as a challenge.

    What: 10,015 dermoscopic training images, the same as HAM10000's and under the same names (MEL 1113, NV 6705, BCC 514,
        AKIEC 327, BKL 1099, DF 115, VASC 142); 193 validation and 1,512 test images of further clinics.
    Layout: `ISIC2018_Task3_Training_Input.zip` or its folder; `ISIC2018_Task3_Training_GroundTruth.csv` (one-hot: image,
        MEL, NV, BCC, AKIEC, BKL, DF, VASC), also inside its zip; `ISIC2018_Task3_Training_LesionGroupings.csv` (image,
        lesion_id, diagnosis_confirm_type). With the files of the validation or the test split alone, that split is read.
    Source: https://challenge.isic-archive.com/data/#2018.
    License: CC BY-NC 4.0.
    Citation: Codella et al., arXiv:1902.03368 (2019); Tschandl, Rosendahl, Kittler, Sci Data 5, 180161 (2018).
    Known biases: those of HAM10000. Without the lesion groupings photographs of one lesion fall on both sides of a split.
        `diagnosis_confirm_type` tells how the label was found and gives it away.
    """
    files = Files(store)
    parts = ("Training", "Validation", "Test")
    table = need_table(store, files, *(f"ISIC2018_Task3_{part}_GroundTruth" for part in parts))
    labels, columns = one_hot(table, ISIC_2018_CLASSES)
    names, notes = take(table, {"image": "image_id"}, {}, "this is not the ISIC 2018 ground truth", without=columns.values())
    groupings, told = _second(store, files, "ISIC2018_Task3_Training_LesionGroupings", "image")
    rows, missing = _joined(files, cells(table, names, without=columns.values()), labels, groupings)
    if missing:
        notes.append(
            f"the lesions of {missing} images are unknown, so photographs of one lesion can fall on both sides of a split; "
            "put ISIC2018_Task3_Training_LesionGroupings.csv beside the images"
        )
    return _listing(rows, ISIC_2018_CLASSES, files, [*notes, *told])


def isic2019(store: ImageStore) -> Listing:
    """ISIC 2019: eight classes from three collections.

    What: 25,331 dermoscopic training images: MEL 4522, NV 12875, BCC 3323, AK 867, BKL 2624, DF 239, VASC 253, SCC 628. The
        column UNK ("none of the others") is empty in training and filled in the test split.
    Layout: `ISIC_2019_Training_Input.zip` or its folder; `ISIC_2019_Training_GroundTruth.csv` (one-hot: image, MEL, NV,
        BCC, AK, BKL, DF, VASC, SCC, UNK); `ISIC_2019_Training_Metadata.csv` (image, age_approx, anatom_site_general,
        lesion_id, sex). With the files of the test split alone, that split is read.
    Source: https://challenge.isic-archive.com/data/#2019.
    License: CC BY-NC 4.0.
    Citation: Tschandl et al., Sci Data 5, 180161 (2018); Codella et al., arXiv:1710.05006; Hernández-Pérez et al., Sci Data
        11, 641 (2024).
    Known biases: it CONTAINS HAM10000, under the same image names and lesion ids, besides BCN20000 and MSK: whoever trains
        on one and tests on the other tests on training images. The three differ in size, crop and classes (SCC is almost
        only BCN20000's), so a network can learn the clinic. 2,084 images have no lesion_id; MSK's were made smaller
        (`_downsampled`).
    """
    files = Files(store)
    table = need_table(store, files, "ISIC_2019_Training_GroundTruth", "ISIC_2019_Test_GroundTruth")
    classes = (*ISIC_2019_CLASSES, "UNK") if table.find("UNK") is not None else ISIC_2019_CLASSES
    labels, columns = one_hot(table, classes)
    names, notes = take(table, {"image": "image_id"}, {}, "this is not the ISIC 2019 ground truth", without=columns.values())
    name = "ISIC_2019_Training_Metadata" if "training" in table.name.lower() else "ISIC_2019_Test_Metadata"
    metadata, told = _second(store, files, name, "image")
    if metadata is None:
        raise DataError(f"data.path: no {name}.csv beside {table.name}; without its lesion_id a split would leak: fetch it")
    rows, missing = _joined(files, cells(table, names, without=columns.values()), labels, metadata)
    notes += [f"{missing} images have no lesion_id and stay together only where they look alike"] if missing else []
    own = tuple(name for name in classes if name != "UNK" or "UNK" in labels)
    return _listing(rows, own, files, [*notes, *told])


def isic2020(store: ImageStore, *, label: str) -> Listing:
    """ISIC 2020, the SIIM-ISIC melanoma challenge: several lesions per patient.

    What: 33,126 dermoscopic training images of 2,056 patients; 584 melanomas (1.8 %), all else benign. `label` chooses
        benign_malignant (the challenge's target) or diagnosis, which is "unknown" for most images.
    Layout: `ISIC_2020_Training_JPEG.zip` or its folder (`train/`); `ISIC_2020_Training_GroundTruth_v2.csv` (image_name,
        patient_id, lesion_id, sex, age_approx, anatom_site_general_challenge, diagnosis, benign_malignant, target), or the
        first version without lesion_id, or Kaggle's `train.csv`; `ISIC_2020_Training_Duplicates.csv` (image_name_1,
        image_name_2) joins what it lists.
    Source: https://challenge.isic-archive.com/data/#2020, doi:10.34970/2020-ds01.
    License: CC BY-NC 4.0.
    Citation: Rotemberg et al., "A patient-centric dataset of images and metadata for identifying melanomas using clinical
        context", Sci Data 8, 34 (2021), doi:10.1038/s41597-021-00815-z.
    Known biases: benign lesions mostly without histology, melanomas all with it; light skin; some 400 pairs of duplicates
        within the set; clinics differ in size and in their share of melanoma. Group by patient: one has many lesions.
    """
    files = Files(store)
    table = need_table(store, files, "ISIC_2020_Training_GroundTruth_v2", "ISIC_2020_Training_GroundTruth", "train")
    without = [column for name in ("target", "benign_malignant") if (column := table.find(name)) is not None]
    names, notes = take(
        table, {"image_name": "image_id", label: "label", "patient_id": "patient_id"}, OPTIONAL,
        "this is not the ISIC 2020 ground truth", without=without,
    )  # fmt: skip
    without = [column for column in without if column not in names.values()]
    rows = []
    for place, values, extra in cells(table, names, without=without):
        rows.append(_row(files, (place, values, extra), values["label"], optional_values(values, place)))
    if (entry := files.table("ISIC_2020_Training_Duplicates")) is not None:
        rows, count = _with_duplicates(rows, store, entry)
        notes.append(f"{count} pairs of the list of duplicates are kept together")
    return _listing(rows, None, files, notes)


def isic_archive(store: ImageStore, *, label: str | None) -> Listing:
    """A download of the ISIC archive, as `isic image download` of isic-cli writes it.

    What: any collection or search of the archive, with one `metadata.csv`.
    Layout: `ISIC_*.jpg`, `metadata.csv` with isic_id and, as far as known, attribution, copyright_license, age_approx,
        anatom_site_general, benign_malignant, diagnosis, diagnosis_1 (benign, malignant, indeterminate) to diagnosis_5
        (ever finer), lesion_id, patient_id, sex, image_type, ...; the columns differ between downloads. `label` names the
        one that is the label: by default diagnosis, else diagnosis_3. Images without one are left out with `label_map: {"":
        null}`.
    Source: https://www.isic-archive.com, https://github.com/ImageMarkup/isic-cli.
    License: each image's own, in copyright_license (CC-0, CC-BY or CC-BY-NC); the notes count them.
    Citation: each image's attribution, and the collection's own paper.
    Known biases: the archive is many collections; clinics differ in camera, patients and diagnoses, and images with a
        diagnosis are not like those without. It holds HAM10000, BCN20000 and the challenges: their images keep their ISIC
        names. `diagnosis_confirm_type`, `mel_*` and the other levels of the diagnosis give the label away.
    """
    files = Files(store)
    table = need_table(store, files, "metadata", "isic_metadata")
    column = label or ("diagnosis" if table.find("diagnosis") is not None else "diagnosis_3")
    remedy = "name the label's column with --set data.source.label=COLUMN"
    names, notes = take(table, {"isic_id": "image_id", column: "label"}, OPTIONAL, remedy)
    rows = []
    for place, values, extra in cells(table, names):
        rows.append(_row(files, (place, values, extra), values["label"], optional_values(values, place)))
    licences = Counter(row.extra.get("copyright_license") or "none stated" for row in rows)
    notes.append("licenses: " + ", ".join(f"{name} {count}" for name, count in licences.most_common()))
    return _listing(rows, None, files, [f"the label is the column '{names['label']}'", *notes])


ROWS: dict[str, Callable[..., Listing]] = {
    "ham10000": ham10000,
    "isic2018": isic2018,
    "isic2019": isic2019,
    "isic2020": isic2020,
    "isic_archive": isic_archive,
}


def _row(files: Files, row: Cells, label: str, known: Mapping[str, str | float | None]) -> Row:
    place, values, extra = row
    image = files.image(values["image_id"])
    path = None if image is None else image.path
    return Row(place, values["image_id"], label, path, known, extra, wanted=values["image_id"])


def _listing(rows: Sequence[Row], classes: tuple[str, ...] | None, files: Files, notes: Sequence[str]) -> Listing:
    ids = {row.image_id for row in rows}
    return Listing(rows, classes, files.entries, (*notes, *files.notes, *files.strangers(ids)))


def _second(store: ImageStore, files: Files, name: str, key: str) -> tuple[dict[str, Cells] | None, list[str]]:
    """The rows of a table beside the ground truth by image, with its notes; None where it is not there."""
    entry = files.table(name)
    if entry is None:
        return None, []
    table = read(store, entry)
    names, notes = take(table, {key: "image_id"}, OPTIONAL, f"this is not {name}.csv")
    return cells_by_id(table, names), notes


def _joined(
    files: Files, rows: Sequence[Cells], labels: Sequence[str], second: Mapping[str, Cells] | None
) -> tuple[list[Row], int]:
    """Ground truth and second table together, and how many images have no lesion."""
    found = []
    for (place, values, extra), label in zip(rows, labels, strict=True):
        where, more, further = (second or {}).get(values["image_id"], (place, {}, {}))
        found.append(_row(files, (place, values, {**extra, **further}), label, optional_values(more, where)))
    return found, sum(row.known.get("lesion_id") is None for row in found)


def _with_duplicates(rows: Sequence[Row], store: ImageStore, entry: Entry) -> tuple[list[Row], int]:
    """The rows with one lesion_id for the two images of each listed pair, and the number of pairs."""
    table = read(store, entry)
    columns = table.require(["image_name_1", "image_name_2"], "this is not the list of duplicates")
    at = {row.image_id: i for i, row in enumerate(rows)}
    pairs = zip(*(table.column(column) for column in columns.values()), strict=True)
    same = [[at[a], at[b]] for a, b in pairs if a in at and b in at]
    known = [row.known.get("lesion_id") for row in rows]
    lesions = join_lesions([None if k is None else str(k) for k in known], same, [row.image_id for row in rows])
    return [replace(row, known={**row.known, "lesion_id": lesion}) for row, lesion in zip(rows, lesions, strict=True)], len(
        same
    )
