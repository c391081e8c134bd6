"""Artifacts: what is accepted, and each way in which one is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.record import parse_record, sealed
from dermalyze.errors import ModelError

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 12, 16, 3), dtype=np.uint8)


INPUT = {"name": "image", "dtype": "uint8", "shape": [12, 16, 3], "optional": False}


def rehash(folder: Path, **changes: Any) -> None:
    """Make the record agree with the files again, so that only the deeper check can object."""
    record = json.loads((folder / "artifact.json").read_text())
    record["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in record["files"]}
    (folder / "artifact.json").write_bytes(sealed(record | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Artifact.open(folder)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert str(folder.parent) not in str(caught.value), "messages name the file, not where it lies"
    return str(caught.value)


def test_open_and_run(make_artifact: Any) -> None:
    artifact = Artifact.open(make_artifact(), threads=1)
    logits, embedding = artifact.run(IMAGES)
    ramp = np.linspace(1, 0, 16, dtype=np.float32)[None, None, :, None]
    assert np.allclose(embedding, (IMAGES / 255 * ramp).mean((1, 2)), atol=1e-6)
    assert (logits.shape, logits.dtype, embedding.dtype) == ((3, 3), np.float32, np.float32)
    assert (artifact.classes, artifact.descriptions["nv"], artifact.recipe) == (["mel", "nv", "vasc"], "NV", "plain")
    assert len(artifact.sha256) == len(artifact.model_sha256) == 64


def test_batch_of_one_equals_its_row_in_a_larger_batch(make_artifact: Any) -> None:
    artifact = Artifact.open(make_artifact())
    assert np.allclose(artifact.run(IMAGES[1:2])[0], artifact.run(IMAGES)[0][1:2], atol=1e-6)


def test_empty_batch_gives_empty_arrays(make_artifact: Any) -> None:
    logits, embedding = Artifact.open(make_artifact()).run(IMAGES[:0])
    assert (logits.shape, embedding.shape, logits.dtype) == ((0, 3), (0, 3), np.float32)


@pytest.mark.parametrize("bad", [IMAGES.astype(np.float32), IMAGES[:, :6], IMAGES[0], IMAGES[..., :1]])
def test_images_of_another_kind_are_refused(make_artifact: Any, bad: np.ndarray) -> None:
    with pytest.raises(ModelError, match="the model takes uint8"):
        Artifact.open(make_artifact()).run(bad)


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_one_bit_flipped(make_artifact: Any, name: str) -> None:
    folder = make_artifact()
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert f"{name}: SHA-256" in refusal(folder)


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "artifact.json"])
def test_file_missing(make_artifact: Any, name: str) -> None:
    folder = make_artifact()
    (folder / name).unlink()
    assert name in refusal(folder)


@pytest.mark.parametrize("name", ["extra.bin", "model.onnx.data", ".hidden"])
def test_file_that_the_record_does_not_name(make_artifact: Any, name: str) -> None:
    folder = make_artifact()
    (folder / name).write_bytes(b"x")
    assert name in refusal(folder)


def test_no_folder(tmp_path: Path) -> None:
    assert "no such artifact folder" in refusal(tmp_path / "none")


@pytest.mark.parametrize("name", ["model.onnx", "artifact.json"])
def test_symbolic_link(make_artifact: Any, tmp_path: Path, name: str) -> None:
    folder = make_artifact()
    shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert "links or folders" in refusal(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe_does_not_hang(make_artifact: Any) -> None:
    folder = make_artifact()
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    assert "links or folders" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    ["../model.onnx", "/etc/passwd", "a/b.onnx", "..", ".", "C:\\x.onnx", "a\0.onnx", "a\n.onnx", "", "artifact.json", "CON"],
)
def test_path_tricks_in_files(make_artifact: Any, name: str) -> None:
    folder = make_artifact()
    record = json.loads((folder / "artifact.json").read_text())
    record["files"][name] = "0" * 64
    (folder / "artifact.json").write_bytes(sealed(record))
    assert refusal(folder).startswith(
        ("artifact.json: files", "artifact.json: not valid JSON (text with the character U+0000)")
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 3}, "schema_version"),
        ({"schema_version": 1}, "exported by dermalyze 0.1, this version reads format 2; train and export it again"),
        ({"inputs": [INPUT, INPUT]}, "one twice"),
        ({"inputs": [{**INPUT, "name": "picture"}]}, "do not fit"),
        ({"inputs": [{**INPUT, "shape": [12, 12, 3]}]}, "do not fit"),
        ({"inputs": [INPUT, {**INPUT, "name": "image_2", "optional": True}]}, "do not fit"),
        ({"inputs": [INPUT, {"name": "metadata", "dtype": "float32", "shape": [4], "optional": False}]}, "do not fit"),
        ({"outputs": [{"name": "logits", "shape": [4]}, {"name": "embedding", "shape": [3]}]}, "outputs are not those"),
        ({"schema_version": "1"}, "schema_version"),
        ({"recipe": "exec"}, "recipe"),
        ({"classes": [{"name": "mel", "description": ""}]}, "classes"),
        ({"classes": [{"name": "mel", "description": ""}] * 3}, "one twice"),
        ({"surprise": 1}, "surprise"),
        ({"files": {}}, "does not name"),
        ({"preprocessing": {"height": -1, "width": 16}}, "height"),
        ({"preprocessing": {"width": 16}}, "height"),
        ({"accepted_leak": 5}, "accepted_leak"),
    ],
)
def test_record_of_another_shape(make_artifact: Any, changes: dict[str, Any], said: str) -> None:
    folder = make_artifact()
    rehash(folder, **changes)
    assert said in refusal(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}'])
def test_record_that_is_no_json_object(text: bytes) -> None:
    with pytest.raises(ModelError, match=r"artifact\.json"):
        parse_record(text)


@pytest.mark.parametrize(("text", "kind"), [(b"[]", "list"), (b"null", "NoneType"), (b'"x"', "str")])
def test_what_stands_there_instead_is_named(text: bytes, kind: str) -> None:
    with pytest.raises(ModelError, match=rf"artifact\.json: holds a {kind}, must be an object"):
        parse_record(text)


class Gadget:
    """What a malicious pickle is made of: unpickling it would start a process."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ["graph", "weights"])
def test_pickle_in_place_of_a_file_is_never_opened(
    make_artifact: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal(make_artifact(**{name: pickle.dumps(Gadget(), protocol=protocol)}))
    assert "not an ONNX file" in said or "not a safetensors file" in said
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "graph",
    [b"", b"PK\x03\x04" + bytes(60), b"<html></html>", bytes(100), random.Random(0).randbytes(1000), b"\x08\x0a"],
    ids=["empty", "zip", "html", "zeros", "noise", "cut short"],
)
def test_bytes_that_are_no_graph(make_artifact: Any, graph: bytes) -> None:
    assert "model.onnx" in refusal(make_artifact(graph=graph))


def test_truncated_graph(make_artifact: Any, graph_bytes: Any) -> None:
    whole = graph_bytes(3, 12, 16)
    for length in (1, len(whole) // 3, len(whole) - 1):
        assert "model.onnx" in refusal(make_artifact(f"a{length}", graph=whole[:length]))


@pytest.mark.parametrize("location", ["../../../../etc/passwd", "/etc/passwd", "model.safetensors", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph", "function"])
def test_external_data_anywhere(make_artifact: Any, graph_bytes: Any, location: str, where: str) -> None:
    from onnx import TensorProto, helper

    def change(model: Any) -> None:
        tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        constant = helper.make_node("Constant", [], ["outside"], value=tensor)
        if where == "initializer":
            model.graph.initializer.append(tensor)
        elif where == "constant":
            model.graph.node.append(constant)
        elif where == "subgraph":
            branch = helper.make_graph([constant], "branch", [], [])
            model.graph.node.append(helper.make_node("If", ["yes"], ["no"], then_branch=branch, else_branch=branch))
        else:
            model.functions.append(helper.make_function("x", "F", [], ["outside"], [constant], []))

    assert "external data" in refusal(make_artifact(graph=graph_bytes(3, 12, 16, change=change)))


def test_external_data_without_its_flag(make_artifact: Any, graph_bytes: Any) -> None:
    def change(model: Any) -> None:
        model.graph.initializer[0].external_data.add(key="location", value="x")

    assert "external data" in refusal(make_artifact(graph=graph_bytes(3, 12, 16, change=change)))


def test_external_data_under_an_overlong_field_key(make_artifact: Any, graph_bytes: Any) -> None:
    """C++ protobuf drops the bits of a key above 32, a naive reader doesn't and would see another field."""
    hidden = bytes([14 << 3 | 0x80, 0x80, 0x80, 0x80, 0x10, 1])  # data_location = EXTERNAL, bit 32 of the key set

    def tensor_field(payload: bytes) -> bytes:
        return bytes([5 << 3 | 2, len(payload)]) + payload

    inner = tensor_field(hidden)
    graph = graph_bytes(3, 12, 16) + bytes([7 << 3 | 2, len(inner)]) + inner
    assert "not an ONNX file" in refusal(make_artifact(graph=graph))


@pytest.mark.parametrize(("op", "domain"), [("NoSuchOp", ""), ("Exec", "evil.domain")])
def test_unknown_operator(make_artifact: Any, graph_bytes: Any, op: str, domain: str) -> None:
    def change(model: Any) -> None:
        model.graph.node[-1].op_type, model.graph.node[-1].domain = op, domain
        if domain:
            model.opset_import.add(domain=domain, version=1)

    assert "uses the operator" in refusal(make_artifact(graph=graph_bytes(3, 12, 16, change=change)))


def test_graph_of_two_gib(make_artifact: Any) -> None:
    folder = make_artifact()
    os.truncate(folder / "model.onnx", 2**31)  # sparse: takes no room
    assert "at most 2147483647" in refusal(folder)


def _dtype(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 1


def _rename(model: Any) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels_in"


def _fixed_batch(model: Any) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def _one_output(model: Any) -> None:
    del model.graph.output[1]


def _two_inputs(model: Any) -> None:
    extra = model.graph.input.add()
    extra.CopyFrom(model.graph.input[0])
    extra.name = "more"


@pytest.mark.parametrize("change", [_dtype, _rename, _fixed_batch, _one_output, _two_inputs])
def test_graph_with_other_inputs_or_outputs(make_artifact: Any, graph_bytes: Any, change: Callable[[Any], None]) -> None:
    assert "asks for" in refusal(make_artifact(graph=graph_bytes(3, 12, 16, change=change)))


@pytest.mark.parametrize(("classes", "height", "width"), [(4, 12, 16), (3, 16, 12)])
def test_graph_for_other_classes_or_size(make_artifact: Any, graph_bytes: Any, classes: int, height: int, width: int) -> None:
    assert "asks for" in refusal(make_artifact(graph=graph_bytes(classes, height, width)))


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_model_that_gives_no_numbers(make_artifact: Any, graph_bytes: Any, scale: float) -> None:
    artifact = Artifact.open(make_artifact(graph=graph_bytes(3, 12, 16, scale=scale)))
    with pytest.raises(ModelError, match="NaN or infinity"):
        artifact.run(IMAGES)


@pytest.mark.parametrize(
    "weights", [b"", b"\x02", (2**62).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]", b"PK" + bytes(30)]
)
def test_weights_that_are_no_safetensors(make_artifact: Any, weights: bytes) -> None:
    assert "not a safetensors file" in refusal(make_artifact(weights=weights))


def test_rehashed_damage_is_still_refused(make_artifact: Any) -> None:
    folder = make_artifact()
    (folder / "model.onnx").write_bytes(b"\x80\x04.")
    rehash(folder)
    assert "a pickle" in refusal(folder)


@pytest.mark.parametrize(
    "key", ["task", "metadata", "inputs", "outputs", "cam", "calibration", "reference", "evaluation_files", "cam_grade"]
)
def test_every_key_is_expected(make_artifact: Any, key: str) -> None:
    folder = make_artifact()
    record = json.loads((folder / "artifact.json").read_text())
    del record[key]
    (folder / "artifact.json").write_bytes(sealed(record))
    assert refusal(folder).startswith(f"artifact.json: {key}: Field required; ")


def test_no_byte_of_the_record_changes_unseen(make_artifact: Any) -> None:
    """Every value of `artifact.json` is under its own hash, and every other file under one that it names."""
    folder = make_artifact()
    record = json.loads((folder / "artifact.json").read_text())
    for key in record:
        changed = {**record, key: "0" * 64 if key == "sha256" else [record[key], 1]}
        (folder / "artifact.json").write_text(json.dumps(changed))
        assert "exported by" in refusal(folder) or "its SHA-256 is not that of its content" in refusal(folder)
    (folder / "artifact.json").write_text(json.dumps({**record, "name": "\ud800"}))
    assert "text with the character U+D800" in refusal(folder)
