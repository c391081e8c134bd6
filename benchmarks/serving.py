"""The server against plain alternatives, and under five times the load it can carry; ratios within one run.

    .venv/bin/python benchmarks/serving.py [a b d] [--seconds 8] [--litserve PYTHON_WITH_LITSERVE]

a: ResNet-18 at 224, requests per second of `dermalyze serve` and of FastAPI with PyTorch as a tutorial writes it (and of
   LitServe with the same graph, if an interpreter that has litserve, onnxruntime and pillow is named); and of
   `dermalyze serve` with the graph in eight bits. The weights are random, so no gate is asked;
   `dermalyze export RUN --int8` asks it of a real run.
b: five times the capacity: accepted requests, their p99, how soon the others are refused, and /live meanwhile.
d: int8 (static, QDQ) in onnxruntime against PyTorch in fp32, forward passes alone.

Load generator and servers share the machine; so does whatever else runs on it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

THREADS = 2
CLASSES = 7
BOUNDARY = "b0undary"
EDGE = 224

PLAIN = """
    import io, sys, numpy as np, torch, uvicorn
    from fastapi import FastAPI, UploadFile
    from PIL import Image
    from dermalyze.models import torch_guard
    torch_guard.install()
    import timm
    torch.set_num_threads({threads})
    model = timm.create_model("resnet18", num_classes={classes}).eval()
    app = FastAPI()
    mean, std = torch.tensor([.485, .456, .406]).view(3, 1, 1), torch.tensor([.229, .224, .225]).view(3, 1, 1)

    @app.get("/v2/health/live")
    def live():
        return {{}}

    @app.post("/v1/predict")
    def predict(file: UploadFile):
        image = Image.open(io.BytesIO(file.file.read())).convert("RGB").resize(({edge}, {edge}), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
        with torch.inference_mode():
            return {{"probabilities": model(((x - mean) / std)[None]).softmax(1)[0].tolist()}}

    uvicorn.run(app, port={port}, log_level="error")
"""
LIT = """
    import io, numpy as np, onnxruntime, litserve
    from PIL import Image

    class Api(litserve.LitAPI):
        def setup(self, device):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = {threads}
            self.session = onnxruntime.InferenceSession("{graph}", options)

        def decode_request(self, request):
            data = request["file"].file.read()
            image = Image.open(io.BytesIO(data)).convert("RGB").resize(({edge}, {edge}), Image.Resampling.BILINEAR)
            return np.asarray(image)

        def batch(self, inputs):
            return np.stack(inputs)

        def predict(self, x):
            return self.session.run(["logits"], {{"image": x}})[0]

        def unbatch(self, output):
            return list(output)

        def encode_response(self, output):
            e = np.exp(output - output.max())
            return {{"probabilities": (e / e.sum()).tolist()}}

    if __name__ == "__main__":
        api = Api(max_batch_size=8, batch_timeout=0.005, api_path="/v1/predict")
        server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/v2/health/live")
        server.run(port={port}, log_level="error")
"""


def picture(seed: int) -> bytes:
    """A JPEG of 600 x 450 px, as HAM10000's are."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(90, 220, (12, 16, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((600, 450), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def request(seed: int) -> bytes:
    """A whole POST."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = head.encode() + picture(seed) + f"\r\n--{BOUNDARY}--\r\n".encode()
    return (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    ).encode() + body


LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def make_artifact(folder: Path) -> Path:
    """ResNet-18 of random weights as an artifact."""
    from dermalyze.models import torch_guard

    torch_guard.install()
    from dermalyze.config.model import ModelSpec
    from dermalyze.imaging.preprocess import Preprocessing
    from dermalyze.models.classifier import build_classifier
    from dermalyze.models.deployed import Deployed, to_onnx

    model = build_classifier(ModelSpec(backbone="resnet18", pretrained=False), CLASSES, load_weights=False).eval()
    preprocessing = Preprocessing("squash", EDGE, EDGE, 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return write_artifact(folder, to_onnx(Deployed(model, preprocessing, (preprocessing.image,)).eval()))


def write_artifact(folder: Path, graph: bytes) -> Path:
    """A graph as an artifact."""
    from dermalyze.artifact.record import NOTHING_YET, sealed

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    folder.mkdir()
    files = {"model.onnx": graph, "model.safetensors": struct.pack("<Q", 2) + b"{}"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    record = {
        "schema_version": 2, "name": "resnet18", "created_from": {},
        "classes": [{"name": f"c{i}", "description": ""} for i in range(CLASSES)],
        "preprocessing": {
            "kind": "squash", "height": EDGE, "width": EDGE, "crop_ratio": 0.875, "mean": list(mean), "std": list(std),
            "draft": False, "dtype": "uint8", "modality": "dermoscopy",
        },
        "model": {}, "recipe": "plain", "training": {}, "accepted_leak": None, "disclaimer": "", "licence_note": "",
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, "parity": {},
        "task": "multiclass", "metadata": None,
        "inputs": [{"name": "image", "dtype": "uint8", "shape": [EDGE, EDGE, 3], "optional": False}],
        "outputs": [{"name": "logits", "shape": [CLASSES]}, {"name": "embedding", "shape": [512]}],
        "cam": {"kind": "none", "reason": "a stand-in", "height": 0, "width": 0}, **NOTHING_YET,
    }  # fmt: skip
    (folder / "artifact.json").write_bytes(sealed(record))
    return folder


@contextlib.contextmanager
def running(words: list[str], port: int) -> Iterator[None]:
    """A server process that answers /live."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(1200):
            try:
                asyncio.run(once(port, LIVE))
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"the server ended: {words[:3]}") from None
                time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait()


async def once(port: int, data: bytes) -> tuple[int, float]:
    """Status of one request on its own connection, and seconds."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    status = await answer(reader)
    writer.close()
    return status, time.perf_counter() - started


async def answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length"))
    await reader.readexactly(length)
    return int(head.split()[1])


async def closed_loop(port: int, seconds: float, clients: int = 4) -> tuple[float, list[float]]:
    """Requests a second of some clients that each wait for their answer, and the latencies."""
    requests, until = [request(i) for i in range(8)], time.perf_counter() + seconds
    took: list[float] = []

    async def client(k: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        i = k
        while time.perf_counter() < until:
            started = time.perf_counter()
            writer.write(requests[i % 8])
            status = await answer(reader)
            assert status == 200, status
            took.append(time.perf_counter() - started)
            i += 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(k) for k in range(clients)))
    return len(took) / (time.perf_counter() - started), took


def speed(words: list[str], port: int, seconds: float) -> float:
    with running(words, port):
        asyncio.run(closed_loop(port, 2))
        return asyncio.run(closed_loop(port, seconds))[0]


def ours(artifact: Path, port: int) -> list[str]:
    code = "from dermalyze.cli import main; main()"
    return [sys.executable, "-c", code, "serve", str(artifact), "--port", str(port)]


def eight_bits(artifact: Path) -> bytes:
    """The artifact's graph, static QDQ, ranges of random images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.left = [{"image": rng.integers(0, 256, (4, EDGE, EDGE, 3), dtype=np.uint8)} for _ in range(4)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            artifact / "model.onnx", path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
        )  # fmt: skip
        return path.read_bytes()


def against_pytorch(artifact: Path, seconds: float, litserve: str | None) -> None:
    """(a)"""
    with tempfile.TemporaryDirectory() as folder:
        values = {"threads": THREADS, "classes": CLASSES, "edge": EDGE, "graph": artifact / "model.onnx"}
        (Path(folder) / "plain.py").write_text(textwrap.dedent(PLAIN).format(**values, port=8911))
        (Path(folder) / "lit.py").write_text(textwrap.dedent(LIT).format(**values, port=8912))
        candidates = {"dermalyze serve": (ours(artifact, 8910), 8910)}
        small = write_artifact(Path(folder) / "int8", eight_bits(artifact))
        candidates["the same, eight bits"] = (ours(small, 8913), 8913)
        candidates["FastAPI with PyTorch"] = ([sys.executable, f"{folder}/plain.py"], 8911)
        if litserve:
            candidates["LitServe, same graph"] = ([litserve, f"{folder}/lit.py"], 8912)
        found: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(3):  # in turns, so that whatever else runs meets all of them
            for name, (words, port) in candidates.items():
                found[name].append(speed(words, port, seconds))
    for name, values_ in found.items():
        mean, turns = statistics.mean(values_), [round(value, 1) for value in values_]
        times = ", ".join(f"{statistics.mean(found[own]) / mean:.2f}" for own in ("dermalyze serve", "the same, eight bits"))
        print(f"a  {name:22} {mean:6.1f} requests/s {turns}; dermalyze serve and its eight bits: {times} times that")


async def overload(port: int, rate: float, seconds: float) -> dict[str, Any]:
    requests = [request(i) for i in range(8)]
    found: list[tuple[int, float]] = []
    live: list[float] = []
    tasks: list[asyncio.Task[None]] = []
    failed = 0

    async def one(i: int) -> None:
        nonlocal failed
        try:
            found.append(await once(port, requests[i % 8]))
        except (OSError, asyncio.IncompleteReadError):
            failed += 1

    async def watch() -> None:
        while True:
            live.append((await once(port, LIVE))[1])
            await asyncio.sleep(0.1)

    watcher = asyncio.create_task(watch())
    started = time.perf_counter()
    i = 0
    while (now := time.perf_counter() - started) < seconds:
        while i < now * rate:
            tasks.append(asyncio.create_task(one(i)))
            i += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    spent = time.perf_counter() - started
    watcher.cancel()
    return {"found": found, "live": live, "spent": spent, "failed": failed}


def under_load(artifact: Path, seconds: float, queue: int = 8) -> None:
    """(b)"""
    port = 8920
    with running([*ours(artifact, port), "--queue", str(queue)], port):
        asyncio.run(closed_loop(port, 2))
        started, mine = time.perf_counter(), time.process_time()
        capacity, _ = asyncio.run(closed_loop(port, seconds, clients=queue + 1))
        calm = (time.process_time() - mine) / (time.perf_counter() - started)
        mine = time.process_time()
        made = asyncio.run(overload(port, 5 * capacity, seconds))
        busy = (time.process_time() - mine) / made["spent"]
    good = [t for status, t in made["found"] if status == 200]
    refused = [t for status, t in made["found"] if status == 503]
    service = 1 / capacity
    p99 = float(np.quantile(good, 0.99))
    print(f"b  capacity {capacity:.1f}/s; offered {len(made['found']) / made['spent']:.0f}/s, no answer {made['failed']}")
    share, refused_ms, live_ms = len(good) / made["spent"] / capacity, 1000 * np.array(refused), 1000 * np.array(made["live"])
    print(f"b  accepted {len(good) / made['spent']:.1f}/s, {100 * share:.0f} % of capacity (wanted 95)")
    cores = os.cpu_count() or 1
    left = share * (cores - calm) / (cores - busy)
    print(f"b  the load generator took {calm:.2f} and {busy:.2f} of {cores} cores; of what it left: {100 * left:.0f} %")
    allowed = f"1.5 x {queue + 1} x {1000 * service:.0f} = {1500 * (queue + 1) * service:.0f} ms"
    print(f"b  p99 of the accepted {1000 * p99:.0f} ms; allowed {allowed}")
    print(f"b  refused: median {np.median(refused_ms):.0f} ms, p99 {np.quantile(refused_ms, 0.99):.0f} ms (wanted 50)")
    print(f"b  /live: median {np.median(live_ms):.0f} ms, worst {live_ms.max():.0f} ms (wanted 100)")


def int8(artifact: Path, seconds: float) -> None:
    """(d)"""
    import onnxruntime
    import timm
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(eight_bits(artifact), options)
    whole = onnxruntime.InferenceSession(str(artifact / "model.onnx"), options)
    torch.set_num_threads(THREADS)
    model = timm.create_model("resnet18", num_classes=CLASSES).eval()
    images, x = np.zeros((1, EDGE, EDGE, 3), np.uint8), torch.zeros(1, 3, EDGE, EDGE)

    def torch_pass() -> None:
        with torch.inference_mode():
            model(x)

    passes = {
        "PyTorch fp32": torch_pass,
        "onnxruntime fp32": lambda: whole.run(["logits"], {"image": images}),
        "onnxruntime int8": lambda: session.run(["logits"], {"image": images}),
    }
    best = dict.fromkeys(passes, 1e9)
    for _ in range(3):
        for name, run in passes.items():
            until = time.perf_counter() + seconds / 9
            while time.perf_counter() < until:
                started = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - started)
    vnni = "vnni" in Path("/proc/cpuinfo").read_text()
    for name, took in best.items():
        times = best["PyTorch fp32"] / took
        print(f"d  {name:18} {1000 * took:6.1f} ms at best, {times:.2f} times PyTorch (VNNI: {vnni})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["a", "b", "d"])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--litserve", metavar="PYTHON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifact = make_artifact(Path(folder) / "resnet18")
        for part in arguments.parts:
            if part == "a":
                against_pytorch(artifact, arguments.seconds, arguments.litserve)
            elif part == "b":
                under_load(artifact, arguments.seconds)
            else:
                int8(artifact, arguments.seconds)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
