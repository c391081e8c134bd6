"""Checkpoints that are turned into safetensors, and those that are not: no code of a file runs unless a person says so."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dermalyze.errors import ModelError, UsageError
from dermalyze.models import unpickle
from dermalyze.models.import_weights import check_checkpoint, common_prefix, import_weights
from dermalyze.models.weights import read_tensors


class Gadget:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def state() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.arange(24.0).view(2, 3, 2, 2), "conv.bias": torch.ones(2), "steps": torch.tensor(3)}


def opened(path: Path, folder: Path, *, trust: bool = False) -> dict[str, Any]:
    """What the program reports, run here."""
    folder.mkdir(exist_ok=True)
    unpickle.main(path, folder, trust=trust)
    return dict(json.loads((folder / unpickle.REPORT_NAME).read_text()))


def test_a_checkpoint_becomes_safetensors(tmp_path: Path) -> None:
    """In a process of its own, whole."""
    wrapped = {f"module.model.{name}": tensor for name, tensor in state().items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    result = import_weights(tmp_path / "a.pth", tmp_path / "new" / "a.safetensors")
    read = read_tensors(result.out, like=state(), expected_sha256=result.sha256)
    assert all(torch.equal(read[name], tensor) for name, tensor in state().items())
    assert (result.tensors, result.parameters, result.prefix, result.ran_code) == (3, 27, "module.model.", False)
    assert any("3 tensors, 27 numbers" in line for line in result.lines())
    assert result.as_dict()["shapes"]["conv.weight"] == [2, 3, 2, 2]
    assert [path.name for path in result.out.parent.iterdir()] == ["a.safetensors"]


def test_a_gadget_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    torch.save({"state_dict": state(), "hook": Gadget(mark)}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"holds more than tensors .*--trust") as caught:
        import_weights(tmp_path / "a.pt", tmp_path / "a.safetensors")
    assert (caught.value.exit_code, mark.exists()) == (4, False)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt"], "nothing half-written"


def test_trust_runs_what_the_file_says_but_not_here(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"state_dict": state(), "hook": Gadget(mark)}, tmp_path / "a.pt")
    result = import_weights(tmp_path / "a.pt", tmp_path / "a.safetensors", trust=True)
    assert mark.exists()
    assert (result.ran_code, result.tensors) == (True, 3)
    assert any("own code was run" in line for line in result.lines())


def test_trust_is_not_used_where_it_is_not_needed(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "a.pt")
    assert opened(tmp_path / "a.pt", tmp_path / "out", trust=True) == {"others": 0, "ran_code": False}


def test_a_whole_module_needs_trust(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), tmp_path / "a.pt")
    assert "error" in opened(tmp_path / "a.pt", tmp_path / "out")
    assert opened(tmp_path / "a.pt", tmp_path / "out", trust=True) == {"others": 0, "ran_code": True}
    assert sorted(load_file(tmp_path / "out" / unpickle.TENSORS_NAME)) == ["bias", "weight"]


def test_older_pickles_are_read_too(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    check_checkpoint(tmp_path / "a.pt")
    assert opened(tmp_path / "a.pt", tmp_path / "out")["others"] == 0


def test_tensors_that_share_memory_are_all_there(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    torch.save({"a": shared, "b": shared[2:], "c": shared.view(2, 3).T}, tmp_path / "a.pt")
    opened(tmp_path / "a.pt", tmp_path / "out")
    read = load_file(tmp_path / "out" / unpickle.TENSORS_NAME)
    assert read["b"].tolist() == [2, 3, 4, 5]
    assert read["c"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([torch.ones(2)], "a list"),
        ({"lr": 0.1}, "no named tensor"),
        ({}, "no named tensor"),
        (torch.ones(2), "a Tensor"),
        ({1: torch.ones(1)}, "no named tensor"),
    ],
)
def test_what_holds_no_named_tensors(tmp_path: Path, value: Any, said: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    assert said in opened(tmp_path / "a.pt", tmp_path / "out")["error"]


def test_numbers_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dermalyze.models import import_weights as module

    torch.save({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "a.pt")

    def here(source: Path, folder: Path, trust: bool) -> dict[str, Any]:
        return opened(source, folder, trust=trust)

    monkeypatch.setattr(module, "_opened", here)
    with pytest.raises(ModelError, match="NaN or infinite"):
        import_weights(tmp_path / "a.pt", tmp_path / "a.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt"]


def packed(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_files_that_torch_save_did_not_write(tmp_path: Path) -> None:
    inner = tmp_path / "inner.zip"
    packed(inner, {"archive/data.pkl": b"x"})
    packed(tmp_path / "bomb", {"archive/data.pkl": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    packed(tmp_path / "nested", {"inner.zip": inner.read_bytes()})
    torch.save(state(), tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    at = good.index(state()["conv.bias"].numpy().tobytes())
    (tmp_path / "bad crc").write_bytes(good[:at] + b"\xff" + good[at + 1 :])
    flagged = bytearray(good)
    central = flagged.rindex(b"PK\x01\x02")
    flagged[central + 8] |= 1  # "encrypted"
    (tmp_path / "flag bits").write_bytes(flagged)
    (tmp_path / "truncated").write_bytes(good[: len(good) // 2])
    (tmp_path / "text").write_bytes(b"no checkpoint at all")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "protocol 1").write_bytes(pickle.dumps({"a": 1}, protocol=1))
    refusals = {
        "bomb": "packed", "nested": "no data.pkl", "bad crc": "damaged", "flag bits": "encrypted", "truncated": "damaged",
        "text": "no checkpoint", "empty": "no checkpoint", "safetensors": "already", "protocol 1": "no checkpoint",
        "no such": "no such file",
    }  # fmt: skip
    for name, said in refusals.items():
        with pytest.raises(ModelError, match=said) as caught:
            import_weights(tmp_path / name, tmp_path / "out.safetensors")
        assert caught.value.exit_code == 4
    with pytest.raises(UsageError, match=r"\*\.safetensors"):
        import_weights(tmp_path / "good", tmp_path / "out.pt")
    (tmp_path / "there.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="is there already"):
        import_weights(tmp_path / "good", tmp_path / "there.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_prefixes() -> None:
    assert common_prefix(["backbone.a", "backbone.b", "head.c"]) == ""
    assert common_prefix(["module.backbone.a", "module.backbone.b"]) == "module.backbone."
    assert common_prefix(["model.", "model.a"]) == ""
