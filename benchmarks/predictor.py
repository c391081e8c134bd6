"""A fresh process to its first answer, and what maps, libraries and eight bits cost; ratios within one run.

    python benchmarks/predictor.py [MODEL] [IMAGE]

MODEL is a run or an artifact; without one per small convolutional stand-in is made. The gate is half a second and 150 MB.
Processor seconds are given beside the clock's: on a busy machine they are what the program itself took.
"""

from __future__ import annotations

import hashlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

FRESH = """
import resource, sys, time
begun = time.time()
from dermalyze.serve.predictor.predictor import Predictor
imported = time.time()
predictor = Predictor(sys.argv[1])
opened = time.time()
predictor.predict(sys.argv[2])
done = time.time()
usage = resource.getrusage(resource.RUSAGE_SELF)
print(imported - begun, opened - imported, done - opened, done - float(sys.argv[3]), usage.ru_utime + usage.ru_stime,
      usage.ru_maxrss / 1024)
"""
NAMES = ("import, s", "open, s", "first answer, s", "whole process, s", "of that on the processor, s", "largest memory, MiB")


def stand_in(folder: Path, edge: int = 128, width: int = 64) -> Path:
    """An artifact of a small network: six convolutions, mean, linear layer, and its map."""
    from onnx import TensorProto, helper, numpy_helper

    from dermalyze.artifact.record import NOTHING_YET, sealed

    rng, node, info = np.random.default_rng(0), helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        node("Transpose", ["pixels"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    constants: dict[str, Any] = {"axes": np.array([2, 3]), "maps": rng.normal(size=(width, 7)).astype(np.float32) / width}
    for k in range(6):
        strides = [2, 2] if k < 4 else [1, 1]
        shape = (width, 3 if k == 0 else width, 3, 3)
        constants[f"w{k}"] = (rng.normal(size=shape) / np.sqrt(9 * shape[1])).astype(np.float32)
        nodes += [
            node("Conv", [f"x{k}", f"w{k}"], [f"c{k}"], pads=[1] * 4, strides=strides),
            node("Relu", [f"c{k}"], [f"x{k + 1}"]),
        ]
    nodes += [
        node("ReduceMean", ["x6", "axes"], ["embedding"], keepdims=0),
        node("MatMul", ["embedding", "maps"], ["logits"]),
        node("Transpose", ["x6"], ["places"], perm=[0, 2, 3, 1]),
        node("MatMul", ["places", "maps"], ["by_class"]),
        node("Transpose", ["by_class"], ["cam"], perm=[0, 3, 1, 2]),
    ]
    outputs = [
        info("logits", 1, ["n", 7]),
        info("embedding", 1, ["n", width]),
        info("cam", 1, ["n", 7, edge // 16, edge // 16]),
    ]
    graph = helper.make_graph(
        nodes, "stand_in", [info("image", TensorProto.UINT8, ["n", edge, edge, 3])], outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    files = {"model.onnx": model.SerializeToString(), "model.safetensors": struct.pack("<Q", 2) + b"{}"}
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    preprocessing = {
        "kind": "squash", "height": edge, "width": edge, "crop_ratio": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3,
        "draft": False, "dtype": "uint8", "modality": "dermoscopy",
    }  # fmt: skip
    names = [{"name": f"c{k}", "description": ""} for k in range(7)]
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    cam = {"kind": "closed_form", "reason": "a stand-in", "height": edge // 16, "width": edge // 16}
    record = {
        "schema_version": 2, "name": "stand-in", "created_from": {}, "classes": names, "preprocessing": preprocessing,
        "model": {}, "recipe": "plain", "training": {}, "accepted_leak": None, "disclaimer": "", "licence_note": "",
        "files": hashes, "parity": {}, "task": "multiclass", "metadata": None, "cam": cam,
        "inputs": [{"name": "image", "dtype": "uint8", "shape": [edge, edge, 3], "optional": False}],
        "outputs": [
            {"name": o.name, "shape": [d.dim_value for d in o.type.tensor_type.shape.dim][1:]} for o in outputs
        ], **NOTHING_YET,
    }  # fmt: skip
    (folder / "artifact.json").write_bytes(sealed(record))
    return folder


def fresh(model: Path, image: Path, times: int = 7) -> None:
    """Cold starts."""
    rows = []
    for _ in range(times):
        command = [sys.executable, "-c", FRESH, str(model), str(image), str(time.time())]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append([float(word) for word in done.stdout.split()])
    print(f"a fresh process to its first answer, median of {times}:")
    for name, column in zip(NAMES, zip(*rows, strict=True), strict=True):
        print(f"  {name:32} {statistics.median(column):8.3f}")


def seconds(act: Any, times: int = 30) -> float:
    """Median of processor seconds of one call."""
    act()
    taken = []
    for _ in range(times):
        begun = time.process_time()
        act()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def outputs_and_libraries(model: Path) -> None:
    """One image, one thread: the answer alone, with its map, and by OpenVINO."""
    from dermalyze.artifact.artifact import Artifact
    from dermalyze.errors import DermalyzeError
    from dermalyze.serve.predictor.provider import choose_provider

    artifact = Artifact.open(model, threads=1)
    edges = artifact.preprocessing["height"], artifact.preprocessing["width"]
    picture = np.random.default_rng(0).integers(0, 256, (1, *edges, 3), dtype=np.uint8)
    base = seconds(lambda: artifact.run(picture))
    print(f"one image, one thread: {1000 * base:.2f} ms")
    if artifact.graph.cam_shape is not None:
        print(f"  with its map: {seconds(lambda: artifact.cam(picture)) / base:.2f} times that")
    try:
        choose_provider(artifact, model, "openvino", 1)
        print(f"  by openvino: {seconds(lambda: artifact.run(picture)) / base:.2f} times that")
    except DermalyzeError as error:
        print(f"  by openvino: {error}")


def main(words: list[str]) -> None:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        model = Path(words[0]) if words else stand_in(Path(folder) / "artifact")
        image = Path(words[1]) if len(words) > 1 else Path(folder) / "picture.jpg"
        if len(words) < 2:
            noise = np.random.default_rng(0).integers(0, 256, (45, 60, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((600, 450)).save(image)
        fresh(model, image)
        outputs_and_libraries(model if (model / "artifact.json").exists() else model / "export")
        small = model / "export-int8"
        if small.exists():
            outputs_and_libraries(small)


if __name__ == "__main__":
    main(sys.argv[1:])
