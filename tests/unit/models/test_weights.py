"""Weight files and sidecars: what is good is loaded, what is not is refused before anything changes."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import nn

from dermalyze.config.model import ModelSpec
from dermalyze.core import atomic
from dermalyze.errors import ModelError, ResourceError
from dermalyze.models.backbones import InputConfig, create_backbone, pretrained_cfg_of
from dermalyze.models.classifier import build_classifier
from dermalyze.models.weights import load_state, read_sidecar, read_tensors, save_state


class Gadget:
    """What an attacker's pickle does when it is opened."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, (self.command,)


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A right weight file of `module()`, with other values."""
    path = tmp_path / "good.safetensors"
    torch.manual_seed(1)
    save_state(path, nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    return path


def refused(path: Path, message: str, **options: Any) -> None:
    """`load_state` raises with `message`, on one line, exit code 4, and leaves the module as it was."""
    target = module()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(ModelError, match=message) as caught:
        load_state(path, target, **options)
    assert caught.value.exit_code == 4
    assert path.name in str(caught.value)
    assert str(path.parent) not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_save_and_load(good: Path) -> None:
    target = module()
    load_state(good, target, expected_sha256=atomic.sha256_file(good))
    stored = load_file(good)
    assert target.state_dict().keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in target.state_dict().items())


def test_same_tensors_same_bytes(tmp_path: Path) -> None:
    values = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3)}
    first = save_state(tmp_path / "1", values)
    second = save_state(tmp_path / "2", dict(reversed(values.items())))
    strided = save_state(tmp_path / "3", {**values, "b": values["b"].t().contiguous().t()})
    assert first == second == strided == atomic.sha256_file(tmp_path / "1")


def test_shared_memory_and_channels_last_are_written(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_state(tmp_path / "a", {"one": weight, "two": weight, "part": weight[:2]})
    assert torch.equal(load_file(tmp_path / "a")["two"], weight)
    assert torch.equal(load_file(tmp_path / "a")["part"], weight[:2])


def test_disk_full_keeps_the_old_file(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = good.read_bytes()

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match=r"No space left.*\(1\.0 MiB are needed\)") as caught:
        save_state(good, {"a": torch.zeros(2**18)})
    assert caught.value.exit_code == 5
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == ["good.safetensors"]


# --- FAULTS 50: pickles ---


def torch_zip(path: Path, gadget: Gadget) -> None:
    torch.save({"a": gadget}, path)


def torch_legacy(path: Path, gadget: Gadget) -> None:
    torch.save({"a": gadget}, path, _use_new_zipfile_serialization=False)


def plain_pickle(protocol: int) -> Callable[[Path, Gadget], None]:
    return lambda path, gadget: path.write_bytes(pickle.dumps(gadget, protocol=protocol)) and None


def nested_zip(path: Path, gadget: Gadget) -> None:
    inner = path.with_suffix(".inner")
    torch_zip(inner, gadget)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "inner.pt")
    inner.unlink()


def bad_crc(path: Path, gadget: Gadget) -> None:
    torch_zip(path, gadget)
    data = bytearray(path.read_bytes())
    data[14:18] = b"\xff\xff\xff\xff"
    path.write_bytes(data)


def zip_flags(path: Path, gadget: Gadget) -> None:
    torch_zip(path, gadget)
    data = bytearray(path.read_bytes())
    data[6] |= 1  # "encrypted"
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["weights.pt", "weights.pt2", "weights.safetensors"])
@pytest.mark.parametrize(
    "make", [torch_zip, torch_legacy, nested_zip, bad_crc, zip_flags, *[plain_pickle(p) for p in (2, 3, 4, 5)]]
)
def test_pickles_are_refused_and_start_nothing(make: Callable[[Path, Gadget], None], name: str, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    make(tmp_path / name, Gadget(f"touch {witness}"))
    refused(tmp_path / name, "pickle or zip archive .* not loaded; .*import-weights")
    with pytest.raises(ModelError, match="pickle or zip archive"):
        build_classifier(ModelSpec(backbone="tiny_cnn", weights=str(tmp_path / name)), 3, load_weights=True)
    assert not witness.exists()


def test_a_pickle_of_protocol_0_is_refused(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    plain_pickle(0)(tmp_path / "a.pt", Gadget(f"touch {witness}"))
    refused(tmp_path / "a.pt", "not a safetensors file; not loaded")
    assert not witness.exists()


@pytest.mark.parametrize("second", [2, 3, 4, 5])
def test_a_safetensors_file_that_begins_like_a_pickle_is_loaded(second: int, tmp_path: Path) -> None:
    """Its first two bytes are the header's length, and may well be 0x80 0x02."""
    length = 0x80 + 256 * second
    data = save({"a": torch.ones(2)})
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].rstrip()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header.ljust(length) + data[-8:])
    assert torch.equal(read_tensors(path)["a"], torch.ones(2))


# --- FAULTS 51: damaged and forged safetensors ---


def container(header: dict[str, Any] | bytes, payload: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def test_truncated_at_every_tenth_byte(good: Path) -> None:
    data = good.read_bytes()
    for length in [*range(0, len(data), 10), len(data) - 1]:
        good.write_bytes(data[:length])
        refused(good, "truncated|damaged|not a safetensors")


def test_bytes_at_the_end(good: Path) -> None:
    good.write_bytes(good.read_bytes() + b"\0")
    refused(good, "damaged")


@pytest.mark.parametrize("length", [2**62, 2**64 - 1, 2**31, 17 * 2**20])
def test_header_length_that_cannot_be(good: Path, length: int) -> None:
    good.write_bytes(struct.pack("<Q", length) + good.read_bytes()[8:])
    refused(good, f"header of {length} bytes in a file of")


def test_header_too_long_even_if_it_fits(good: Path) -> None:
    good.write_bytes(container(b"{" + b" " * (16 * 2**20) + b"}", b""))
    refused(good, "header of 16777218 bytes")


@pytest.mark.parametrize(
    "second",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},  # overlap
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},  # the same bytes twice
        {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]},  # a hole
        {"dtype": "F32", "shape": [3], "data_offsets": [8, 16]},  # more shape than bytes
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [8, 16]},  # overflow
        {"dtype": "F32", "shape": [-2], "data_offsets": [8, 16]},
        {"dtype": "Q99", "shape": [2], "data_offsets": [8, 16]},
    ],
)
def test_offsets_that_cannot_be(tmp_path: Path, second: dict[str, Any]) -> None:
    path = tmp_path / "forged.safetensors"
    first = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    path.write_bytes(container({"a": first, "b": second}, bytes(20)))
    refused(path, "damaged safetensors")


@pytest.mark.parametrize("header", [b"{}", b"{nonsense", b'{"a": 1}', b'{"a": {}}', b"{" * 1000])
def test_header_that_is_no_table(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "forged.safetensors"
    path.write_bytes(container(header, b""))
    refused(path, r"damaged safetensors|misses 7 tensor\(s\)")


def test_each_flipped_bit_of_a_byte_is_found_by_the_hash(good: Path) -> None:
    data, expected = good.read_bytes(), atomic.sha256_file(good)
    flipped = bytearray(data)
    flipped[-1] ^= 1
    good.write_bytes(flipped)
    load_state(good, module())  # nothing but the hash can see it
    refused(good, "SHA-256 is not the recorded", expected_sha256=expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_numbers_that_are_none(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    tensors = {"a": torch.ones(5, dtype=dtype), "b": torch.tensor([1, 0])}
    tensors["a"][3] = value
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="tensor a holds NaN or infinite numbers"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, r"misses 1 tensor\(s\) \(0\.weight\)"),
        ({"9.extra": torch.zeros(1)}, r"holds unknown 1 tensor\(s\) \(9\.extra\)"),
        ({"0.weight": torch.zeros(3, 2)}, r"tensor 0\.weight is F32 3x2, not F32 2x3"),
        ({"0.weight": torch.zeros(1, 3)}, "F32 1x3, not F32 2x3"),
        ({"0.weight": torch.zeros(2, 3, dtype=torch.float16)}, "F16 2x3, not F32 2x3"),
        ({"1.num_batches_tracked": torch.tensor(1.0)}, "F32 scalar, not I64 scalar"),
    ],
)
def test_tensors_that_do_not_fit(good: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
    tensors = {**load_file(good), **change}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, good)
    refused(good, message)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", bytes(100)]
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path, "not a safetensors file; not loaded")


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no such weight file")
    refused(tmp_path, "is not a file")


# --- sidecars ---


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A weight file of tiny_cnn with its sidecar."""
    torch.manual_seed(3)
    path = tmp_path / "tiny.safetensors"
    net = create_backbone(ModelSpec(backbone="tiny_cnn", kwargs={"channels": [8, 16]}), load_weights=False).net
    sidecar = {
        "file": path.name,
        "sha256": save_state(path, net),
        "create_name": "tiny_cnn",
        "create_kwargs": {"num_classes": 0, "channels": [8, 16]},
        "input_size": [3, 40, 56],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
    }
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def spec_of(path: Path, **kwargs: Any) -> ModelSpec:
    return ModelSpec(backbone="tiny_cnn", weights=str(path), kwargs={"channels": [8, 16], **kwargs})


def test_sidecar_decides_size_mean_and_std(pair: Path) -> None:
    expected = InputConfig((40, 56), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert pretrained_cfg_of(spec_of(pair)) == expected
    backbone = create_backbone(spec_of(pair), load_weights=True)
    assert (backbone.default_size, backbone.mean, backbone.std) == (expected.size, expected.mean, expected.std)
    stored = load_file(pair)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in backbone.net.state_dict().items())


def test_a_checkpoint_needs_no_weight_file(pair: Path) -> None:
    pair.unlink()
    pair.with_suffix(".json").unlink()
    build_classifier(spec_of(pair), 3, load_weights=False)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, r"need channels; found kwargs \{\}; write model\.kwargs: \{channels: \[8, 16\]\}"),
        ({"channels": [8, 17]}, r"need channels; .*write model\.kwargs: \{channels: \[8, 16\]\}"),
        ({"channels": [8, 16], "act": "silu"}, "were not made with act"),
    ],
)
def test_kwargs_other_than_the_sidecars(pair: Path, kwargs: dict[str, Any], message: str) -> None:
    spec = ModelSpec(backbone="tiny_cnn", weights=str(pair), kwargs=kwargs)
    for ask in (pretrained_cfg_of, lambda spec: build_classifier(spec, 3, load_weights=True)):
        with pytest.raises(ModelError, match=message):
            ask(spec)


def test_kwargs_that_only_change_training_are_free(pair: Path) -> None:
    read_sidecar(pair).check(spec_of(pair, drop_path_rate=0.2, bn_momentum=0.01))


def test_another_backbone(pair: Path) -> None:
    with pytest.raises(
        ModelError, match=r"the weights are of tiny_cnn, model\.backbone is resnet10t; write model\.backbone: tiny_cnn"
    ):
        create_backbone(ModelSpec(backbone="resnet10t", weights=str(pair)), load_weights=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sha256", "0" * 64, "SHA-256 is not the recorded 000000000000"),
        ("sha256", None, "sha256 is not 64 hexadecimal digits"),
        ("file", "other.safetensors", "is about 'other.safetensors'"),
        ("mean", None, "key missing or wrong"),
        ("mean", [0.5, 0.5], "key missing or wrong"),
        ("mean", ["a", 0, 0], "key missing or wrong"),
        ("std", [0, 1, 1], "make no sense"),
        ("mean", [float("nan"), 1, 1], "make no sense"),
        ("input_size", [1, 28, 28], "make no sense"),
        ("create_kwargs", "none", "key missing or wrong"),
    ],
)
def test_sidecars_that_are_refused(pair: Path, key: str, value: Any, message: str) -> None:
    sidecar = pair.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), key: value}))
    with pytest.raises(ModelError, match=message) as caught:
        create_backbone(spec_of(pair), load_weights=True)
    assert str(pair.parent) not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_sidecars_that_are_no_json_object(pair: Path, content: bytes) -> None:
    pair.with_suffix(".json").write_bytes(content)
    with pytest.raises(ModelError, match=r"not a readable JSON sidecar|key missing or wrong"):
        pretrained_cfg_of(spec_of(pair))


def test_no_sidecar_and_a_huge_one(pair: Path) -> None:
    pair.with_suffix(".json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ModelError, match="at most 1048576"):
        pretrained_cfg_of(spec_of(pair))
    pair.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match=r"its sidecar tiny\.json is not beside it"):
        pretrained_cfg_of(spec_of(pair))


# --- the real file ---

REAL = "mobilenetv2_035_imagenet"
REAL_KWARGS = {"pad_type": "same", "bn_eps": 1e-3}


@pytest.fixture
def real(shared: Path) -> Path:
    path = shared / "weights" / f"{REAL}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the shared folder beside the repository")
    return path


def test_real_weights_load(real: Path) -> None:
    spec = ModelSpec(backbone="mobilenetv2_035", weights=str(real), kwargs=REAL_KWARGS)
    assert pretrained_cfg_of(spec) == InputConfig((224, 224), (0.5,) * 3, (0.5,) * 3)
    model = build_classifier(spec, 7, load_weights=True).eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        maps = model.features(torch.rand(2, 3, 224, 224) * 2 - 1)
        pooled = model.embed(torch.rand(2, 3, 96, 128) * 2 - 1)
    assert maps.shape == (2, 1280, 7, 7)
    assert pooled.shape == (2, 1280)
    assert torch.isfinite(maps).all()
    assert maps.max() == 6  # ReLU6, reached by trained features
    assert (maps == 0).float().mean() > 0.5
    convolution = hashlib.sha256(model.backbone.net.conv_stem.weight.detach().numpy().tobytes())  # type: ignore[union-attr, operator]
    assert convolution.hexdigest() == hashlib.sha256(load_file(real)["conv_stem.weight"].numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("kwargs", [{}, {"pad_type": "same"}, {"bn_eps": 1e-3}, {"pad_type": "same", "bn_eps": 1e-5}])
def test_real_weights_with_wrong_kwargs(real: Path, kwargs: dict[str, Any]) -> None:
    """Each of these loads strictly without complaint, and computes something else."""
    spec = ModelSpec(backbone="mobilenetv2_035", weights=str(real), kwargs=kwargs)
    with pytest.raises(ModelError, match=r"write model\.kwargs: \{pad_type: same, bn_eps: 0\.001\}"):
        build_classifier(spec, 7, load_weights=True)
    load_state(real, create_backbone(spec, load_weights=False).net)
