"""Values that may not change: answers of the packaged model, and the numbers of a report on fixed predictions.

Where they change on purpose, keep the new ones with `python tests/support/goldens.py --write`, and say why in the commit.
What a training gives differs between processors; `python tests/support/goldens.py COMMIT` compares it with that of a commit.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from goldens import Change, compare, merged, tensors, translated
from kept import KEPT, STORE, TOLERANCE, flatten


@pytest.mark.parametrize("group", KEPT)
def test_values_are_those_kept(group: str) -> None:
    expected, found = json.loads(STORE.read_text())[group], KEPT[group]()
    assert list(found) == list(expected)
    wrong = {name: (expected[name], found[name]) for name in expected if found[name] != near(expected[name])}
    assert not wrong


def near(values: list[float | None]) -> list[Any]:
    return [None if value is None else pytest.approx(value, abs=TOLERANCE, rel=0) for value in values]


def test_every_group_is_kept() -> None:
    assert list(json.loads(STORE.read_text())) == list(KEPT)


def result(**values: float) -> dict[str, Any]:
    names = {"history.0.val_loss": 1.5, "evaluation.metrics.accuracy": 0.75, "reference.0.mel": 0.5}
    return {"weights": {"weights.a": "1", "weights.b": "2"}, "values": {**names, **values}}


def test_equal_results_are_the_same() -> None:
    found = compare(result(), result())
    assert found.same(loose=False)
    assert (found.tensors, found.values, found.worst) == (2, 3, (0.0, "history.0.val_loss"))


@pytest.mark.parametrize("name", list(result()["values"]))
@pytest.mark.parametrize("value", [2e-6, float("nan"), float("inf")])
def test_a_number_that_changed_is_found(name: str, value: float) -> None:
    found = compare(result(), result(**{name: result()["values"][name] + value}))
    assert not found.same(loose=False)
    assert [far[0] for far in found.far] == [name]
    assert found.worst is not None
    assert found.worst[1] == name


def test_rounding_is_no_difference() -> None:
    assert compare(result(), result(**{"reference.0.mel": 0.5 + 1e-7})).same(loose=False)


def test_a_missing_name_is_found_on_either_side() -> None:
    more = result(new=1.0)
    assert compare(result(), more).missing == ([], ["new"])
    assert compare(more, result()).missing == (["new"], [])
    assert not compare(result(), more).same(loose=False)


def test_other_weights_are_found() -> None:
    other = {**result(), "weights": {"weights.a": "1", "weights.b": "3"}}
    assert compare(result(), other).weights == ["weights.b"]
    assert not compare(result(), other).same(loose=False)
    assert compare(result(), other, loose=True).same(loose=True)


def test_a_missing_tensor_is_found_where_weights_may_differ() -> None:
    other = {**result(), "weights": {"weights.a": "1"}}
    assert not compare(result(), other, loose=True).same(loose=True)
    assert compare(result(), other).missing == (["weights.b"], [])


@pytest.mark.parametrize(
    ("name", "change", "same"),
    [
        ("history.0.val_loss", 5e-5, True),
        ("history.0.val_loss", 5e-4, False),
        ("evaluation.metrics.accuracy", 0.1, True),
        ("reference.0.mel", 1e-5, False),
    ],
)
def test_where_weights_may_differ(name: str, change: float, same: bool) -> None:
    found = compare(result(), result(**{name: result()["values"][name] + change}), loose=True)
    assert found.same(loose=True) is same


def test_new_names_are_mapped() -> None:
    old, new = result(**{"evaluation.old.x": 1.0}), result(**{"evaluation.new.x": 1.0})
    assert not compare(old, new, changes={}).same(loose=False)
    assert compare(old, new, changes={"evaluation.old": "evaluation.new"}).same(loose=False)
    assert compare(old, result(), changes={"evaluation.old": ""}).same(loose=False)


def test_settings_are_named_as_the_tree_names_them(tmp_path: Path) -> None:
    settings = {"train": {"mode": "deterministic", "threads": 1}}
    change = Change("src/new.py", keys={"train.mode": "machine.mode", "no.such": "key"}, values={"machine.mode": "same"})
    assert translated(settings, tmp_path, [change]) == settings
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "new.py").touch()
    assert translated(settings, tmp_path, [change]) == {"train": {"threads": 1}, "machine": {"mode": "same"}}


def test_settings_go_on_top() -> None:
    base = {"train": {"epochs": 40, "lr": 0.1}, "seed": 7}
    assert merged(base, {"train": {"epochs": 6}, "data": {"path": "x"}}) == {
        "train": {"epochs": 6, "lr": 0.1},
        "seed": 7,
        "data": {"path": "x"},
    }


def test_the_hash_is_of_tensors_and_not_of_the_header(tmp_path: Path) -> None:
    first = tensors(stored(tmp_path / "a", {"__metadata__": {"run": "1"}}, b"\x01\x02"))
    assert first == tensors(stored(tmp_path / "b", {"__metadata__": {"run": "22"}}, b"\x01\x02"))
    assert list(first) == ["weights.w"]
    assert first != tensors(stored(tmp_path / "c", {}, b"\x01\x03"))
    assert first["weights.w"] == hashlib.sha256(b'["w", "U8", [2]]\x01\x02').hexdigest()


def stored(path: Path, more: dict[str, Any], data: bytes) -> Path:
    header = json.dumps({**more, "w": {"dtype": "U8", "shape": [2], "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def test_numbers_are_found_at_any_depth() -> None:
    assert dict(flatten({"a": [1, {"b": 0.5}], "c": "text", "d": None, "e": True})) == {"a.0": 1.0, "a.1.b": 0.5, "e": 1.0}
