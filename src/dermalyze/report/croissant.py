"""A machine-readable description of the prepared data set: Croissant 1.0, JSON-LD with the vocabulary of schema.org.

It names files, columns, classes and splits. It contains no values of single images and no column that identifies a person.

MLCommons 2024, http://mlcommons.org/croissant/1.0
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermalyze.config.classes import describe
from dermalyze.config.data import PARTS
from dermalyze.core.atomic import sha256_file
from dermalyze.core.run import Run
from dermalyze.data.catalog import REMOTE_SETS
from dermalyze.data.manifest import read_classes, read_manifest
from dermalyze.data.sources.cards import cards

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_TERMS = (
    "citeAs", "column", "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isLiveDataset",
    "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "separator",
    "source", "subField", "transform",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in _TERMS},
}
"""The recommended context (appendix 1 of the specification) with the namespaces that it leaves undeclared."""

COLUMNS: dict[str, tuple[str | list[str], str]] = {
    "image_id": ("sc:Text", "key of an image"),
    "sha256": ("sc:Text", "SHA-256 of the file"),
    "pixel_sha256": ("sc:Text", "SHA-256 of the decoded pixels"),
    "width": ("sc:Integer", "px"),
    "height": ("sc:Integer", "px"),
    "label": (["sc:Text", "cr:Label"], "class of the image"),
    "age": ("sc:Float", "years"),
    "sex": ("sc:Text", "as recorded in the source"),
    "site": ("sc:Text", "body site"),
    "source": ("sc:Text", "collection or center"),
    "quarantine_reason": ("sc:Text", "why an image is excluded; empty if it is not"),
}
"""Described columns of the manifest, with type and meaning: a closed list, so that no column of the user's is described."""


def _named(ids: Sequence[str]) -> dict[str, Any]:
    """What is recorded of the data set that all images belong to by their ids; empty if there is none."""
    for kind, card in cards().items():
        if len(ids) and all(map(card.lists, ids)):
            return {
                "name": card.name,
                "url": REMOTE_SETS[kind].page,
                "license": card.license_url,
                "citeAs": REMOTE_SETS[kind].citation,
                "creator": [{"@type": "sc:Person", "name": name} for name in card.creators],
                "datePublished": card.published,
            }
    return {}


def croissant(run: Run, name: str) -> dict[str, Any]:
    """The description, JSON-ready; `url`, `license`, `creator` and `datePublished` only if they are known.

    The specification also requires these four: for the user's own data set, a person has to add them.

    Args:
        run: prepared; its splits are described if it has been split.
        name: of the data set, unless the ids of all images tell which data set it is.
    """
    frame, classes = read_manifest(run), read_classes(run)
    ids = frame["image_id"].astype(str)
    named = _named(ids) or {"name": name}
    parts = [part for part in PARTS if run.split_path(part).exists()]
    manifest = run.require(run.manifest_path, "prepare")
    described = [name for name in COLUMNS if name in frame]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        **named,
        "description": (
            f"{len(frame):,} images in {len(classes)} classes ({', '.join(classes)}), as dermalyze prepared them: one "
            "row per image in manifest.parquet. The images themselves are not included. The manifest has further columns "
            "(paths, groups of patients and lesions, columns of the source) that are not described here; check them "
            "before you share it. For research and education."
        ),
        "distribution": [
            _file(run, manifest, "application/x-parquet"),
            *(_file(run, run.split_path(part), "text/csv") for part in parts),
        ],
        "recordSet": [
            {
                **_records("classes", "The classes and their meaning.", "sc:Enumeration", key="name"),
                "field": [_field("classes/name", "sc:Text"), _field("classes/description", "sc:Text")],
                "data": [{"classes/name": name, "classes/description": describe(name)} for name in classes],
            },
            {
                **_records("images", "One record per image.", key="image_id"),
                "field": [
                    {
                        **_field(f"images/{name}", *COLUMNS[name], file=manifest.name),
                        **({"references": {"field": {"@id": "classes/name"}}} if name == "label" else {}),
                    }
                    for name in described
                ],
            },
            *(
                {
                    **_records(part, f"The images of the {part} split.", key="image_id"),
                    "field": [
                        {
                            **_field(f"{part}/image_id", "sc:Text", "key of an image", _name(run, run.split_path(part))),
                            "references": {"field": {"@id": "images/image_id"}},
                        }
                    ],
                }
                for part in parts
            ),
            *([_splits(parts)] if parts else []),
        ],
    }


def _name(run: Run, path: Path) -> str:
    """A file's path relative to the run."""
    return path.relative_to(run.root).as_posix()


def _file(run: Run, path: Path, form: str) -> dict[str, Any]:
    name = _name(run, path)
    return {
        "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": form, "sha256": sha256_file(path),
    }  # fmt: skip


def _records(name: str, description: str, kind: str | None = None, *, key: str) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "key": {"@id": f"{name}/{key}"},
        **({"dataType": kind} if kind else {}),
    }  # fmt: skip


def _field(name: str, kind: str | list[str], description: str = "", file: str | None = None) -> dict[str, Any]:
    column = name.rpartition("/")[2]
    return {
        "@type": "cr:Field",
        "@id": name,
        "name": column,
        **({"description": description} if description else {}),
        "dataType": kind,
        **({"source": {"fileObject": {"@id": file}, "extract": {"column": column}}} if file else {}),
    }


def _splits(parts: Sequence[str]) -> dict[str, Any]:
    """The names of the splits. Croissant's own split terms have none for calibration, so they are not used."""
    return {
        **_records("splits", "The splits; cal is used for calibration, after training.", "cr:Split", key="name"),
        "field": [_field("splits/name", "sc:Text")],
        "data": [{"splits/name": part} for part in parts],
    }
