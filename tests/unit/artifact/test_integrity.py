"""Files of an artifact that are not what they say: each is refused in one line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from dermalyze.artifact.integrity import check_safetensors, strict_json
from dermalyze.artifact.record import content_sha256, parse_record
from dermalyze.errors import ModelError

GOOD = save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.int8), "none": np.zeros((0, 4), np.float16)})


def checked(data: bytes) -> None:
    check_safetensors(io.BufferedReader(io.BytesIO(data)), "w.safetensors")  # type: ignore[arg-type]


def forged(**changes: Any) -> bytes:
    """The good file with other entries of its header."""
    length = int.from_bytes(GOOD[:8], "little")
    header = {**json.loads(GOOD[8 : 8 + length]), **changes}
    text = json.dumps({name: entry for name, entry in header.items() if entry is not None}).encode()
    return len(text).to_bytes(8, "little") + text + GOOD[8 + length :]


def test_a_sound_file_passes() -> None:
    checked(GOOD)
    checked(forged())
    checked(save({}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 48]}}, "takes other bytes than its shape and dtype"),
        ({"a": {"dtype": "F64", "shape": [2, 3], "data_offsets": [0, 24]}}, "takes other bytes"),
        ({"a": {"dtype": "F32", "shape": [2, -3], "data_offsets": [0, 24]}}, "has no dtype, shape and offsets"),
        ({"a": {"dtype": "OBJ", "shape": [2, 3], "data_offsets": [0, 24]}}, "has no dtype"),
        ({"a": {"dtype": "F32", "shape": [2, 3]}}, "has no dtype"),
        ({"a": {"dtype": "F32", "shape": [6], "data_offsets": [-24, 0]}}, "overlap or leave a gap"),
        ({"a": {"dtype": "F32", "shape": [6], "data_offsets": [2**62, 2**62 + 24]}}, "overlap or leave a gap"),
        ({"b": {"dtype": "I8", "shape": [5], "data_offsets": [0, 5]}}, "overlap or leave a gap"),
        ({"b": None}, "its tensors take 24 bytes, and 29 are there"),
        ({"a": [1]}, "has no dtype"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        checked(forged(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"\x02", GOOD[:7], GOOD[:20], b"\xff" * 64, b"PK\x03\x04" + bytes(60), b"\x80\x05" + bytes(60)]
)
def test_other_files_are_no_safetensors(data: bytes) -> None:
    with pytest.raises(ModelError, match="not a safetensors file"):
        checked(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1, "a": 2}', "key 'a' twice"),
        (b'{"a": {"b": 1, "b": 1}}', "key 'b' twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999}', "1e999 is too large a number"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        (b'{"a": "\\ud800"}', r"text with the character U\+D800"),
        (b'{"\\udfff": 1}', r"U\+DFFF"),
        (b'{"a": "\\u001b[2J"}', r"U\+001B"),
        (b'{"a": ["\\u202e"]}', r"U\+202E"),  # turns what follows around
        (b'{"a": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
    ],
)
def test_json_that_two_programs_could_read_in_two_ways_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        strict_json(text, "artifact.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_letters_of_any_script_pass() -> None:
    text = json.dumps({"name": "痣 नेवस naevus é 🩺", "two": "a\nb\tc", "joined": "می\u200cخواهم"}, ensure_ascii=False)
    assert strict_json(text.encode(), "x") == json.loads(text)


@pytest.mark.parametrize("name", ["mel\x1b[31m", "mel\ud800", "mel\u202elev"])
def test_a_class_name_that_hides_is_refused(make_artifact: Any, name: str) -> None:
    values = json.loads((Path(make_artifact()) / "artifact.json").read_text())
    values["classes"][0]["name"] = name
    text = json.dumps({**values, "sha256": content_sha256(values)}).encode()  # half a character is written by its number
    with pytest.raises(ModelError, match=r"artifact.json: not valid JSON \(text with the character U\+"):
        parse_record(text)
