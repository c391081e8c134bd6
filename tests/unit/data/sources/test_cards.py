"""The cards of the data sets: one of every kind of source, which of them a manifest calls for, and the classes they choose."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from dermalyze.config.classes import LABEL_MAP_CLASSES
from dermalyze.config.data import DataSpec
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.data.catalog import REMOTE_SETS
from dermalyze.data.sources import SOURCES
from dermalyze.data.sources.cards import GENERAL, biases_of, card_of, cards, class_notes, data_sets, focus_of, malignant_of
from dermalyze.errors import ConfigError

HAM = list(LABEL_MAP_CLASSES["ham10000"])
OF_HAM = ["ISIC_0024306", "a-ISIC_0034320_downsampled"]


def data(**values: Any) -> DataSpec:
    return TypeAdapter(DataSpec).validate_python(values)


def merged(*kinds: str, **more: Any) -> DataSpec:
    sources = [{"source": {"kind": kind}, **more} for kind in kinds]
    return data(source={"kind": "merged", "sources": sources}, modality="dermoscopy")


def test_every_kind_of_source_has_a_card() -> None:
    assert set(cards()) == set(SOURCES)
    for kind in set(SOURCES) - {*GENERAL, "merged"}:
        card = cards()[kind]
        assert card.name, kind
        assert card.biases, kind
        assert card.focus, kind
        assert set(card.focus) <= set(card.malignant), kind
        assert all(name == name.lower() for name in (*card.malignant, *card.focus, *card.class_notes)), kind
        assert all(text.endswith(".") for text in (*card.biases, *card.class_notes.values())), kind


def test_a_card_that_tells_its_images_by_id_has_all_that_a_description_needs() -> None:
    for kind, card in cards().items():
        if card.ids is not None:
            assert kind in REMOTE_SETS
            assert card.license_url
            assert card.creators
            assert card.published


def test_a_merged_source_has_what_its_members_record() -> None:
    card = card_of(merged("pad_ufes_20", "isic2018", "csv").source)
    ours = [cards()["pad_ufes_20"], cards()["isic2018"]]
    assert list(card.biases) == biases_of(ours)
    assert set(card.malignant) == {name for one in ours for name in one.malignant}
    assert card.license is None, "a license belongs to one data set"
    assert card_of(data(source={"kind": "derm7pt"}).source) == cards()["derm7pt"]


@pytest.mark.parametrize(
    ("spec", "ids", "kinds"),
    [
        (data(), OF_HAM, ["ham10000"]),
        (data(), ["ISIC_9000001"], []),  # a synthetic set in the layout of HAM10000
        (data(source={"kind": "csv"}), ["a", OF_HAM[1]], ["ham10000"]),
        (data(source={"kind": "csv"}), ["a"], []),
        (data(source={"kind": "folder"}), [], []),
        (data(source={"kind": "isic2019"}), OF_HAM, ["ham10000", "isic2019"]),
        (data(source={"kind": "isic2019"}), ["ISIC_0000001"], ["isic2019"]),
        (merged("csv", "pad_ufes_20"), ["a"], ["pad_ufes_20"]),
        (merged("ham10000", "bcn20000"), OF_HAM, ["ham10000", "bcn20000"]),
    ],
)
def test_data_sets_are_told_by_source_or_by_the_ids_of_images(spec: DataSpec, ids: list[str], kinds: list[str]) -> None:
    assert list(data_sets(spec.source, ids)) == kinds


def test_auto_takes_the_names_of_the_source() -> None:
    for spec in (None, data(), data(source={"kind": "csv"}), merged("ham10000", "folder")):
        assert malignant_of(EvaluateSpec(), HAM, spec) == ("akiec", "bcc", "mel")
        assert focus_of(EvaluateSpec(), HAM, spec) == ("mel",)
    for kind in ("isic2018", "csv"):
        assert malignant_of(EvaluateSpec(), ["MEL", "NV", "BCC"], data(source={"kind": kind})) == ("MEL", "BCC")
        assert focus_of(EvaluateSpec(), ["MEL", "NV", "BCC"], data(source={"kind": kind})) == ("MEL",)
    assert malignant_of(EvaluateSpec(), ["scc", "nv"], data()) == (), "HAM10000 has no such class"
    assert malignant_of(EvaluateSpec(), ["scc", "nv"], data(label_map={"akiec": "scc"})) == ("scc",), "renamed by the user"
    assert malignant_of(EvaluateSpec(), ["scc", "nv"], merged("ham10000", label_map={"akiec": "scc"})) == ("scc",)
    assert malignant_of(EvaluateSpec(), ["mel", "bcc"], data()) == (), "no class is left for the other answer"
    assert focus_of(EvaluateSpec(), ["pneumonia", "no finding"], data(source={"kind": "csv"})) == ()


def test_names_and_null() -> None:
    assert focus_of(EvaluateSpec(focus=["nv", "bcc"]), HAM) == ("nv", "bcc"), "in the order given: the first counts most"
    assert malignant_of(EvaluateSpec(malignant=["mel", "bcc"]), HAM) == ("bcc", "mel")
    assert focus_of(EvaluateSpec(focus=None), HAM) == malignant_of(EvaluateSpec(malignant=None), HAM) == ()
    assert set(class_notes(["akiec", "mel"])) == {"akiec"}


@pytest.mark.parametrize("key", ["malignant", "focus"])
@pytest.mark.parametrize(
    ("names", "words"),
    [(["mle"], "'mle' is no class of .*; did you mean 'mel'"), ([], "must name some"), (["mel", "mel"], "each once")],
)
def test_names_that_do_not_fit_are_refused(key: str, names: list[str], words: str) -> None:
    asked = {"malignant": malignant_of, "focus": focus_of}[key]
    with pytest.raises(ConfigError, match=rf"^evaluate\.{key}: .*{words}"):
        asked(EvaluateSpec(**{key: names}), HAM)


def test_all_classes_cannot_be_malignant() -> None:
    with pytest.raises(ConfigError, match="not all; null asks no such question"):
        malignant_of(EvaluateSpec(malignant=HAM), HAM)
