"""Collections of clinics and atlases: PAD-UFES-20, BCN20000, Derm7pt, Fitzpatrick17k."""

from __future__ import annotations

from collections.abc import Callable

from dermalyze.config.data import PART_WORDS
from dermalyze.core.archives import name_problem
from dermalyze.data.sources.files import Files
from dermalyze.data.sources.isic import ISIC_2019_CLASSES
from dermalyze.data.sources.reading import Listing, Row, cells, need_table, optional_values, read, take
from dermalyze.data.store import ImageStore
from dermalyze.errors import DataError

PAD_CLASSES = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")


def pad_ufes_20(store: ImageStore) -> Listing:
    """PAD-UFES-20: skin lesions photographed with smartphones, with clinical data.

    What: 2,298 clinical (not dermoscopic) images of 1,641 lesions of 1,373 patients: BCC 845, ACK 730, NEV 244, SEK 235,
        SCC 192 (Bowen's disease within it), MEL 52.
    Layout: `imgs_part_1`, `_2`, `_3` (zips or folders) with `PAT_*.png`; `metadata.csv` with patient_id, lesion_id, img_id
        (with .png), diagnostic, age, gender, region, fitspatrick, biopsed, diameter_1, diameter_2 and the answers to
        questions. The outer zip of the download has to be unpacked.
    Source: Mendeley Data, doi:10.17632/zr7vgbcyr2.1.
    License: CC BY 4.0.
    Citation: Pacheco et al., Data in Brief 32, 106221 (2020), doi:10.1016/j.dib.2020.106221.
    Known biases: one Brazilian state, mostly people of European descent who work outdoors; cancers biopsied, the others by
        consensus, so `biopsed` gives the label away; clinical data is missing for most benign lesions, so that its absence
        tells too. Sharpness, distance and light differ with the phone.
    """
    files = Files(store)
    table = need_table(store, files, "metadata")
    names, notes = take(
        table,
        {"img_id": "image_id", "patient_id": "patient_id", "lesion_id": "lesion_id", "diagnostic": "label"},
        {"age": "age", "gender": "sex", "region": "site"},
        "this is not the PAD-UFES-20 metadata",
    )
    rows = []
    for place, values, extra in cells(table, names):
        image_id = values["image_id"].removesuffix(".png")
        image, known = files.image(image_id), optional_values(values, place)
        known["sex"] = None if known.get("sex") is None else str(known["sex"]).lower()
        rows.append(Row(place, image_id, values["label"], None if image is None else image.path, known, extra, wanted=image_id))
    strangers = files.strangers({row.image_id for row in rows})
    return Listing(rows, PAD_CLASSES, files.entries, (*notes, *files.notes, *strangers))


def bcn20000(store: ImageStore) -> Listing:
    """BCN20000, "Dermoscopic lesions in the wild".

    What: 18,946 dermoscopic images of 5,583 lesions, Hospital Clínic de Barcelona, 2010 to 2016, with nails, mucosa, large
        and hypopigmented lesions; the training images have diagnoses in the eight classes of ISIC 2019.
    Layout: `BCN_20k_train` (zip or folder) with `BCN_*.jpg`; `bcn_20k_train.csv` (or `metadata.csv`) with bcn_filename,
        age_approx, anatom_site_general, diagnosis, lesion_id, capture_date, sex, split. `split` is the user's own split
        where it names test images as well; the published table says train throughout and is split here.
    Source: figshare, doi:10.6084/m9.figshare.24140028; https://github.com/imatge-upc/BCN20000.
    License: CC BY-NC 4.0 as the authors' repository has it; see the page of the download.
    Citation: Hernández-Pérez et al., "BCN20000: dermoscopic lesions in the wild", Sci Data 11, 641 (2024),
        doi:10.1038/s41597-024-03387-w.
    Known biases: one hospital that others refer to, almost only light skin. Most of its training images are in ISIC 2019
        too, under other names: never test one on the other. Patients are not named, so two lesions of a patient can be
        apart.
    """
    files = Files(store)
    table = need_table(store, files, "bcn_20k_train", "metadata")
    names, notes = take(
        table,
        {"bcn_filename": "image_id", "diagnosis": "label", "lesion_id": "lesion_id"},
        {"age_approx": "age", "sex": "sex", "anatom_site_general": "site", "split": "split"},
        "this is not the BCN20000 table",
    )
    if "split" in names and not {"train", "test"} <= {
        PART_WORDS.get(text.strip().lower()) for text in table.column(names["split"])
    }:
        del names["split"]
        notes.append("column 'split' has no test images and is not used as the split")
    rows = []
    for place, values, extra in cells(table, names):
        image_id = values["image_id"].removesuffix(".jpg")
        image, known = files.image(image_id), optional_values(values, place)
        rows.append(Row(place, image_id, values["label"], None if image is None else image.path, known, extra, wanted=image_id))
    strangers = files.strangers({row.image_id for row in rows})
    return Listing(rows, ISIC_2019_CLASSES, files.entries, (*notes, *files.notes, *strangers))


def derm7pt(store: ImageStore, *, images: str) -> Listing:
    """Derm7pt, the seven-point checklist: a dermoscopic and a clinical image of each case.

    What: 1,011 cases with twenty diagnoses and the criteria of the checklist. `images` chooses dermoscopic, clinical or
        both; the two images of a case share its lesion_id (`derm7pt_` and case_num) and so never separate. The column
        image_type says which is which. With paired a case is one row, dermoscopic, with the clinical image as image_2.
    Layout: `images/` in folders; `meta/meta.csv` with case_num, diagnosis, seven_point_score, the criteria, location, sex,
        management, clinic and derm (paths below `images`); `meta/train_indexes.csv`, `valid_indexes.csv`,
        `test_indexes.csv` (indexes: rows of meta.csv from 0), which become the split where all three are there. `label_map:
        derm7pt` groups the diagnoses in five.
    Source: https://derm.cs.sfu.ca (a form has to be sent).
    License: research and education only, not to be passed on; see the form.
    Citation: Kawahara, Daneshvar, Argenziano, Hamarneh, IEEE J Biomed Health Inform 23, 538 (2019),
        doi:10.1109/JBHI.2018.2824327.
    Known biases: from a teaching atlas: typical and difficult cases, a quarter melanomas, light skin, slides that were
        scanned. `seven_point_score` and `management` follow from the diagnosis; so do some of the criteria.
    """
    files = Files(store)
    table = need_table(store, files, "meta")
    wanted = {"dermoscopic": ("derm",), "clinical": ("clinic",), "both": ("derm", "clinic"), "paired": ("derm",)}[images]
    names, notes = take(
        table,
        {"case_num": "image_id", "diagnosis": "label", "derm": "derm", "clinic": "clinic"},
        {"sex": "sex", "location": "site"},
        "this is not the Derm7pt metadata",
    )
    parts = _derm7pt_split(store, files, len(table.rows))
    rows = []
    for i, (place, values, extra) in enumerate(cells(table, names)):
        known = optional_values(values, place) | {"lesion_id": f"derm7pt_{values['image_id']}"}
        known |= {} if parts is None else {"split": parts[i]}
        found = {}
        for which in ("derm", "clinic") if images == "paired" else wanted:
            path = values[which]
            if path and (problem := name_problem(path)) is not None:
                raise DataError(f"{place}: path {path!r} {problem}; paths are relative to the folder of images")
            found[which] = files.image(path) if path else None
        clinic = found.get("clinic")
        optional = {"image_2": "" if clinic is None else clinic.path} if images == "paired" and values["clinic"] else {}
        for which in wanted:
            image = found[which]
            told = {**extra, "image_type": "dermoscopic" if which == "derm" else "clinical"}
            at = None if image is None else image.path
            image_id = f"{values['image_id']}_{which}"
            rows.append(Row(place, image_id, values["label"], at, known, told, optional, wanted=values[which]))
    notes += [
        "the data set's split is used" if parts is not None else "the three lists of indexes are missing: no split is used"
    ]
    return Listing(rows, None, files.entries, (*notes, *files.notes))


def fitzpatrick17k(store: ImageStore, *, label: str) -> Listing:
    """Fitzpatrick17k: clinical photographs of 114 skin conditions with the skin type.

    What: 16,577 images of two online atlases, labelled by the atlases; skin types I to VI by annotators (fitzpatrick_scale,
        fitzpatrick_centaur; -1: unknown). `label` chooses three_partition_label (benign, malignant, non-neoplastic),
        nine_partition_label or label (the condition).
    Layout: `MD5HASH.jpg` anywhere; `fitzpatrick17k.csv` with md5hash, fitzpatrick_scale, fitzpatrick_centaur, label,
        nine_partition_label, three_partition_label, qc, url, url_alphanum.
    Source: https://github.com/mattgroh/fitzpatrick17k (the table); the images are fetched from the atlases, or asked for
        there.
    License: CC BY-NC-SA 3.0 for the annotations; the images are the atlases' own.
    Citation: Groh et al., "Evaluating deep neural networks trained on clinical images in dermatology with the Fitzpatrick
        17k dataset", CVPR Workshops 2021, arXiv:2104.09957.
    Known biases: no lesion and no patient is named, and the set holds many duplicates and near-duplicates, some under two
        labels (Abhishek et al. 2024, arXiv:2401.14497): a random split leaks, so audit before you split. Few images of dark
        skin; diagnoses without histology; `qc` marks a checked sample, some of it as wrongly labelled. The atlas shows in
        size and watermark.
    """
    files = Files(store)
    table = need_table(store, files, "fitzpatrick17k")
    others = [c for n in ("three_partition_label", "nine_partition_label", "label") if (c := table.find(n)) is not None]
    names, notes = take(
        table, {"md5hash": "image_id", label: "label"}, {}, "this is not the Fitzpatrick17k table", without=others
    )
    rows = []
    for place, values, extra in cells(table, names, without=others):
        image_id = values["image_id"]
        image = files.image(image_id)
        rows.append(Row(place, image_id, values["label"], None if image is None else image.path, {}, extra, wanted=image_id))
    wrong = sum("wrong" in (row.extra.get("qc") or "").lower() for row in rows)
    notes += [f"{wrong} images are marked as wrongly labelled in column 'qc'"] if wrong else []
    strangers = files.strangers({row.image_id for row in rows})
    return Listing(rows, None, files.entries, (*notes, *files.notes, *strangers))


ROWS: dict[str, Callable[..., Listing]] = {
    "pad_ufes_20": pad_ufes_20,
    "bcn20000": bcn20000,
    "derm7pt": derm7pt,
    "fitzpatrick17k": fitzpatrick17k,
}


def _derm7pt_split(store: ImageStore, files: Files, cases: int) -> list[str] | None:
    """The split of each case, where all three lists of indexes are there."""
    entries = {part: files.table(f"{part}_indexes") for part in ("train", "valid", "test")}
    if any(entry is None for entry in entries.values()):
        return None
    found: list[str | None] = [None] * cases
    for part, entry in entries.items():
        assert entry is not None
        table = read(store, entry)
        column = table.require(["indexes"], "this is not a list of indexes")["indexes"]
        for text, line in zip(table.column(column), table.lines, strict=True):
            at = _index(text, cases)
            if at is None or found[at] is not None:
                why = "is in two lists" if at is not None else f"is no row of meta.csv, 0 to {cases - 1}"
                raise DataError(f"{table.name} line {line}: index '{text}' {why}; fetch the lists again")
            found[at] = PART_WORDS[part]
    if None in found:
        raise DataError(
            f"the lists of indexes name no split for {found.count(None)} of {cases} cases, first row {found.index(None)}; "
            "fetch them again, or remove them to split anew"
        )
    return [str(part) for part in found]


def _index(text: str, cases: int) -> int | None:
    return int(text) if text.isdecimal() and int(text) < cases else None
