"""Download addresses, sizes and licenses of the supported data sets."""

from __future__ import annotations

from dataclasses import dataclass

ISIC = "https://isic-challenge-data.s3.amazonaws.com"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set.

    Attributes:
        name: as it is stored.
        url: where it is.
        size: bytes; None where the host has to be asked.
        md5: as the host publishes it, 32 hexadecimal digits; None where it publishes none.
    """

    name: str
    url: str
    size: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class RemoteSet:
    """A data set that can be fetched, or the steps to get it.

    Attributes:
        title: its name.
        size: approximate size of the download, as text.
        license, citation: as in the dataset card of the source.
        page: web page of the data set.
        files: what is downloaded.
        index: address of a list of files with their checksums, in place of `files`; read as `index_kind`.
        index_kind: "dataverse" or "figshare".
        starts: beginnings of the names that are wanted from the index.
        steps: manual steps, where a set cannot be fetched.
    """

    title: str
    size: str
    license: str
    citation: str
    page: str
    files: tuple[RemoteFile, ...] = ()
    index: str | None = None
    index_kind: str = ""
    starts: tuple[str, ...] = ("",)
    steps: tuple[str, ...] = ()


def _isic(year: int, *names: str) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name, f"{ISIC}/{year}/{name}") for name in names)


REMOTE_SETS: dict[str, RemoteSet] = {
    "ham10000": RemoteSet(
        title="HAM10000: 10,015 dermoscopic images, 7 classes, with lesion masks",
        size="about 2.8 GB",
        license="CC BY-NC 4.0",
        citation="Tschandl, Rosendahl, Kittler, Sci Data 5, 180161 (2018); masks: Tschandl et al., Nat Med 26, 1229 (2020)",
        page="https://doi.org/10.7910/DVN/DBW86T",
        index="https://dataverse.harvard.edu/api/datasets/:persistentId/?persistentId=doi:10.7910/DVN/DBW86T",
        index_kind="dataverse",
        starts=("HAM10000_images_part", "HAM10000_metadata", "HAM10000_segmentations_lesion"),
    ),
    "isic2018": RemoteSet(
        title="ISIC 2018, task 3, training split: the images of HAM10000",
        size="about 2.8 GB",
        license="CC BY-NC 4.0",
        citation="Codella et al., arXiv:1902.03368 (2019); Tschandl, Rosendahl, Kittler, Sci Data 5, 180161 (2018)",
        page="https://challenge.isic-archive.com/data/#2018",
        files=_isic(
            2018,
            "ISIC2018_Task3_Training_LesionGroupings.csv",
            "ISIC2018_Task3_Training_GroundTruth.zip",
            "ISIC2018_Task3_Training_Input.zip",
        ),
    ),
    "isic2019": RemoteSet(
        title="ISIC 2019, training split: 25,331 dermoscopic images, 8 classes; contains HAM10000",
        size="about 9.8 GB",
        license="CC BY-NC 4.0",
        citation="Tschandl et al., Sci Data 5, 180161 (2018); Codella et al., arXiv:1710.05006; "
        "Hernández-Pérez et al., Sci Data 11, 641 (2024)",
        page="https://challenge.isic-archive.com/data/#2019",
        files=_isic(
            2019, "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv", "ISIC_2019_Training_Input.zip"
        ),
    ),
    "isic2020": RemoteSet(
        title="ISIC 2020 (SIIM-ISIC), training split: 33,126 dermoscopic images of 2,056 patients, as JPEG",
        size="about 23 GB",
        license="CC BY-NC 4.0",
        citation="Rotemberg et al., Sci Data 8, 34 (2021), doi:10.34970/2020-ds01",
        page="https://challenge.isic-archive.com/data/#2020",
        files=_isic(
            2020,
            "ISIC_2020_Training_GroundTruth_v2.csv",
            "ISIC_2020_Training_Duplicates.csv",
            "ISIC_2020_Training_JPEG.zip",
        ),
    ),
    "bcn20000": RemoteSet(
        title="BCN20000: dermoscopic lesions in the wild",
        size="several GB; the list of files tells",
        license="CC BY-NC 4.0 as the authors' repository has it; see the page",
        citation="Hernández-Pérez et al., Sci Data 11, 641 (2024), doi:10.1038/s41597-024-03387-w",
        page="https://doi.org/10.6084/m9.figshare.24140028",
        index="https://api.figshare.com/v2/articles/24140028",
        index_kind="figshare",
    ),
    "isic_archive": RemoteSet(
        title="Any collection of the ISIC archive",
        size="as much as you choose",
        license="each image's own (CC-0, CC-BY or CC-BY-NC), in its metadata",
        citation="each image's attribution",
        page="https://www.isic-archive.com",
        steps=(
            "install the archive's own tool in an environment of its own: pip install isic-cli",
            "find the number of your collection: isic collection list",
            "fetch images and metadata.csv: isic image download --collections NUMBER FOLDER",
            "then set data.source.kind to isic_archive and data.path to FOLDER",
        ),
    ),
    "pad_ufes_20": RemoteSet(
        title="PAD-UFES-20: 2,298 photographs of smartphones with clinical data",
        size="about 3.4 GB",
        license="CC BY 4.0",
        citation="Pacheco et al., Data in Brief 32, 106221 (2020), doi:10.1016/j.dib.2020.106221",
        page="https://data.mendeley.com/datasets/zr7vgbcyr2/1",
        steps=(
            "open the page in a browser and press 'Download All'",
            "unpack the one zip that comes (the zips of images inside can stay as they are)",
            "then set data.source.kind to pad_ufes_20 and data.path to that folder",
        ),
    ),
    "derm7pt": RemoteSet(
        title="Derm7pt, the seven-point checklist: 1,011 cases, dermoscopic and clinical",
        size="see the page",
        license="research and education only, by the form on the page",
        citation="Kawahara et al., IEEE J Biomed Health Inform 23, 538 (2019), doi:10.1109/JBHI.2018.2824327",
        page="https://derm.cs.sfu.ca",
        steps=(
            "open the page, agree to its terms and send the form; a link and a password come by mail",
            "download and unpack release_v0.zip",
            "then set data.source.kind to derm7pt and data.path to the folder with images and meta",
        ),
    ),
    "fitzpatrick17k": RemoteSet(
        title="Fitzpatrick17k: 16,577 clinical photographs of 114 conditions, with skin types",
        size="see the page",
        license="annotations CC BY-NC-SA 3.0; the images are the atlases' own",
        citation="Groh et al., CVPR Workshops 2021, arXiv:2104.09957",
        page="https://github.com/mattgroh/fitzpatrick17k",
        steps=(
            "take fitzpatrick17k.csv from the page",
            "ask for the images by the form named there, or fetch them from the addresses in the column url as MD5HASH.jpg",
            "then set data.source.kind to fitzpatrick17k and data.path to the folder with both",
        ),
    ),
}
"""Data sets of `dermalyze fetch`. Checksums come from the host's own list, where it has one."""
