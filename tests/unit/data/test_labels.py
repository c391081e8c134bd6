"""Labels to classes: FAULTS.md 5. Nothing becomes an eighth class."""

import pytest

from dermalyze.data.labels import require_classes, settle_labels
from dermalyze.errors import ConfigError, DataError

SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def settle(labels, *, own=SEVEN, label_map=None, chosen=None, splits=None):
    return settle_labels(labels, label_map=label_map or {}, chosen=chosen, own=own, splits=splits)


@pytest.mark.parametrize("label", [" Mel ", "Mel", "NaN", "", "7", "melanoma", "mel\n"])
def test_an_unknown_label_is_refused_with_its_count(label):
    with pytest.raises(DataError, match="are none of the classes") as caught:
        settle(["mel", "nv", label, label])
    assert f"{label!r} (2 images" in str(caught.value)
    assert "data.label_map" in str(caught.value)
    assert caught.value.exit_code == 3


def test_the_nearest_class_is_named():
    with pytest.raises(DataError, match=r"' Mel ' \(1 image; did you mean 'mel'\?\)"):
        settle(["nv", " Mel "])


def test_the_label_map_is_the_remedy():
    labels, classes = settle(["nv", " Mel ", "NaN"], label_map={" Mel ": "mel", "NaN": "nv"})
    assert labels == ["nv", "mel", "nv"]
    assert classes == list(SEVEN)


@pytest.mark.parametrize("label", [" mel ", "Mel", "NaN", "", "unknown", "7", "None"])
def test_without_own_classes_the_same_labels_are_refused(label):
    with pytest.raises(DataError, match=r"are none of the classes \['mel', 'nv'\]"):
        settle(["mel", "mel", "nv", "nv", label], own=None)


def test_own_names_are_sorted_and_numbers_are_numbers():
    assert settle(["nv", "mel", "nv"], own=None)[1] == ["mel", "nv"]
    assert settle(["10", "9", "0"], own=None)[1] == ["0", "9", "10"]
    assert settle(["b", "a"], own=None, chosen=["b", "a"])[1] == ["b", "a"]


def test_a_class_in_the_test_part_only_is_unknown():
    labels = ["mel", "nv", "df", "nv"]
    assert settle(labels, own=None, splits=[None] * 4)[1] == ["df", "mel", "nv"]
    with pytest.raises(DataError, match=r"'df' \(1 image\) are none of the classes \['mel', 'nv'\]"):
        settle(labels, own=None, splits=["train", "train", "test", "val"])


@pytest.mark.parametrize("chosen", [["mel"], ["mel", "mel"], [], ["mel", " "]])
def test_classes_must_be_two_different_names(chosen):
    with pytest.raises(ConfigError, match=r"data\.classes"):
        settle(["mel"], chosen=chosen)


def test_a_map_to_no_class_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"data\.label_map: maps to \['melanoma'\]"):
        settle(["mel"], label_map={"mel": "melanoma"})


def test_one_name_in_two_ways_of_writing_is_no_second_class():
    composed, apart = "n\u00e9vus", "ne\u0301vus"
    with pytest.raises(DataError, match="looks like a class but is written with other Unicode") as caught:
        settle_labels([composed, composed, apart, "mel"], label_map={}, chosen=None, own=None)
    assert r"'ne\u0301vus'" in str(caught.value)
    with pytest.raises(ConfigError, match="different names"):
        settle_labels([composed], label_map={}, chosen=[composed, apart], own=None)
    with pytest.raises(DataError, match="looks like a class"):
        settle_labels([apart, "mel"], label_map={}, chosen=[composed, "mel"], own=None)
    assert settle_labels([apart, "mel"], label_map={apart: composed}, chosen=[composed, "mel"], own=None)[0] == [
        composed,
        "mel",
    ]


def test_many_unknown_labels_are_cut_short():
    with pytest.raises(DataError, match="and 15 others") as caught:
        settle([f"class {i}" for i in range(20)])
    assert len(str(caught.value)) < 600


def test_each_class_needs_an_image():
    require_classes(["mel", "nv"], {"mel": 1, "nv": 9})
    with pytest.raises(DataError, match=r"\['df'\] have 0 usable images; each class needs at least 1.*\[mel, nv\]"):
        require_classes(["df", "mel", "nv"], {"mel": 1, "nv": 9})
    with pytest.raises(DataError, match="at least 2 classes are needed"):
        require_classes(["mel"], {"mel": 5})


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["0", "0", "0.0", "1"], "'0.0', which is the number '0' written in another way (1 image"),
        (["1", "1", "01", "2"], "'01', which is the number '1' written in another way (1 image"),
        (["1000", "1000", "1e3", "2"], "'1e3', which is the number '1000' written in another way (1 image"),
        (["1", "1", " 1", "2"], "' 1' (1 image"),
        (["1", "1", "\uff11", "2"], "'\uff11', which is the number '1' written in another way (1 image"),
        (
            ["mel", "mel", "m\u0435l", "nv"],
            r"'m\u0435l', which looks like a class but is written with other Unicode characters (1",
        ),
        (["nv", "nv", "\uff4e\uff56", "mel"], r"'\uff4e\uff56', which looks like a class but is written with other Unicode"),
        (["Mel", "mel", "mel", "nv"], "'Mel' (1 image; did you mean 'mel'?)"),
    ],
    ids=["0.0", "01", "1e3", "blank", "full-width digit", "Cyrillic letter", "full-width letters", "case"],
)
def test_labels_that_would_be_taken_for_one_are_named_and_refused(labels: list[str], said: str) -> None:
    with pytest.raises(DataError) as refused:
        settle_labels(labels, label_map={}, chosen=None, own=None)
    assert said in str(refused.value)


def test_numbers_are_classes_in_the_order_of_numbers() -> None:
    assert settle_labels(["10", "9", "-1", "0.5"], label_map={}, chosen=None, own=None)[1] == ["-1", "0.5", "9", "10"]


def test_words_that_mean_nothing_are_classes_where_they_are_named() -> None:
    with pytest.raises(DataError, match="such words usually mean that the label is missing"):
        settle_labels(["nan", "null"], label_map={}, chosen=None, own=None)
    assert settle_labels(["nan", "null"], label_map={}, chosen=["nan", "null"], own=None)[1] == ["nan", "null"]
