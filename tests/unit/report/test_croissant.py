"""The data set described for machines: complete where it is HAM10000, closed in itself, and without anything of a person."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

from dermalyze.core.run import Run
from dermalyze.report.croissant import COLUMNS, CONFORMS_TO, croissant

REQUIRED = {
    "@context", "@type", "conformsTo", "name", "description", "url", "license", "creator", "datePublished", "distribution",
}  # fmt: skip
UNKNOWN = {"url", "license", "creator", "datePublished"}
"""What only a person can tell of a set of one's own."""
APPENDIX = {
    "column": "cr:column", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "extract": "cr:extract", "field": "cr:field",
    "fileProperty": "cr:fileProperty", "format": "cr:format", "includes": "cr:includes", "jsonPath": "cr:jsonPath",
    "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references",
    "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
    "@language": "en", "@vocab": "https://schema.org/",
}  # fmt: skip
"""The terms of the specification's appendix 1 that a context must agree with."""
SECRET = "DOE_JOHN"


@pytest.fixture
def described(prepared: Callable[..., Any]) -> Callable[..., tuple[Run, dict[str, Any]]]:
    def make(ids: list[str]) -> tuple[Run, dict[str, Any]]:
        n = len(ids)
        frame = pd.DataFrame(
            {
                "image_id": ids, "path": [f"/home/{SECRET}/{i}.jpg" for i in range(n)], "sha256": ["0" * 64] * n,
                "width": 600, "height": 450, "patient_id": [f"{SECRET}-{i}" for i in range(n)],
                "lesion_id": [f"{SECRET}-L{i}" for i in range(n)], "label": ["mel", "nv"] * (n // 2), "age": 55.0,
                "surname": SECRET,
            }
        )  # fmt: skip
        run, spec = prepared(frame, config={"name": "our clinic"})
        run.splits_dir.mkdir()
        for part in ("train", "val", "cal", "test"):
            run.split_path(part).write_text(f"image_id,label,group\n{ids[0]},mel,{SECRET}\n")
        return run, json.loads(json.dumps(croissant(run, spec.name)))

    return make


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(one)


def test_ham10000_has_all_that_the_specification_requires(described: Any) -> None:
    _, c = described(["ISIC_0024306", "ISIC_0034320"])
    assert set(c) >= REQUIRED
    assert c["@type"] == "sc:Dataset"
    assert c["conformsTo"] == CONFORMS_TO == "http://mlcommons.org/croissant/1.0"
    assert (c["name"], c["url"]) == ("HAM10000", "https://doi.org/10.7910/DVN/DBW86T")
    assert c["license"].startswith("https://creativecommons.org/licenses/by-nc/")
    assert "180161" in c["citeAs"]
    assert [one["name"].split()[-1] for one in c["creator"]] == ["Tschandl", "Rosendahl", "Kittler"]


def test_of_another_set_nothing_is_said_that_nobody_told(described: Any) -> None:
    _, c = described(["a1", "a2"])
    assert c["name"] == "our clinic"
    assert set(c) >= REQUIRED - UNKNOWN
    assert not set(c) & (UNKNOWN | {"citeAs"})


def test_a_set_that_holds_other_images_too_is_not_called_ham10000(described: Any) -> None:
    assert described(["ISIC_0024306", "ISIC_0099999"])[1]["name"] == "our clinic"


def test_the_context_is_that_of_the_specification_and_defines_every_word(described: Any) -> None:
    _, c = described(["a1", "a2"])
    context = c["@context"]
    assert {key: context.get(key) for key in APPENDIX} == APPENDIX
    assert context["cr"] == "http://mlcommons.org/croissant/"
    assert context[context["conformsTo"].partition(":")[0]] == "http://purl.org/dc/terms/"
    assert all(value.partition(":")[0] in context for value in context.values() if isinstance(value, str) and value[:2] == "cr")
    schema_org = {
        "name", "description", "url", "license", "creator", "datePublished", "distribution", "contentUrl", "contentSize",
        "encodingFormat", "sha256",
    }  # fmt: skip
    body = [one for key, value in c.items() if key != "@context" for one in objects(value)]
    words = {key for one in body for key in one if not key.startswith("@") and "/" not in key}
    assert words <= schema_org | set(context)


def test_every_reference_leads_somewhere_and_every_id_is_its_own(described: Any) -> None:
    _, c = described(["a1", "a2"])
    body = [one for key, value in c.items() if key != "@context" for one in objects(value)]
    named = [one["@id"] for one in body if "@id" in one and len(one) > 1]
    assert len(set(named)) == len(named)
    assert {one["@id"] for one in body if set(one) == {"@id"}} <= set(named)
    kinds = {one["@type"] for one in body if "@type" in one}
    assert kinds == {"cr:FileObject", "cr:RecordSet", "cr:Field"}
    for records in c["recordSet"]:
        fields = {field["@id"] for field in records["field"]}
        assert records["key"]["@id"] in fields
        assert all(one.startswith(f"{records['@id']}/") for one in fields)
        assert all(set(row) <= fields for row in records.get("data", []))


def test_files_are_those_of_the_run_with_their_hashes(described: Any) -> None:
    run, c = described(["a1", "a2"])
    names = [one["contentUrl"] for one in c["distribution"]]
    assert names == ["manifest.parquet", *(f"splits/{part}_split.csv" for part in ("train", "val", "cal", "test"))]
    for one in c["distribution"]:
        data = (run.croissant_path.parent / one["contentUrl"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(data).hexdigest()
        assert one["contentSize"] == f"{len(data)} B"
    assert c["distribution"][0]["sha256"] == run.manifest_hash()


def test_fields_have_the_types_of_their_columns(described: Any) -> None:
    from dermalyze.data.manifest import read_manifest

    run, c = described(["a1", "a2"])
    frame = read_manifest(run)
    images = next(one for one in c["recordSet"] if one["@id"] == "images")
    assert [field["name"] for field in images["field"]] == [name for name in COLUMNS if name in frame]
    types = {field["name"]: field["dataType"] for field in images["field"]}
    assert (types["width"], types["age"], types["label"]) == ("sc:Integer", "sc:Float", ["sc:Text", "cr:Label"])
    for name, kind in types.items():
        assert {"sc:Integer": "i", "sc:Float": "f"}.get(str(kind), "O") == frame[name].dtype.kind


def test_nothing_of_a_person_stands_in_it(described: Any) -> None:
    run, c = described(["a1", "a2"])
    text = json.dumps({key: value for key, value in c.items() if key != "@context"})
    for word in (SECRET, "patient_id", "lesion_id", "surname", "mask_path", "/home", str(run.root), '"a1"'):
        assert word not in text
