"""Fuzzed uploads against a server process: no status of 500 or above, no process lost for good, memory flat.

    .venv/bin/python tests/support/fuzz.py ARTIFACT [--uploads 10000] [--images FOLDER] [--seed 0] [--plant leak|failure]

Each upload is a function of the seed and its number. `--plant` puts a fault into the server that this very program has to find.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from serving import FILE, Server, answer_of, multipart, picture, post, server

Rng = np.random.Generator

PLANTS = {
    "": "",
    "leak": """
from dermalyze.serve.predictor.predictor import Predictor
whole, kept = Predictor.answer, []
def answer(self, prepared, known, explain=False):
    kept.append(b"x" * 400_000)
    return whole(self, prepared, known, explain)
Predictor.answer = answer
""",
    "failure": """
from dermalyze.serve.predictor.predictor import Predictor
whole, count = Predictor.answer, [0]
def answer(self, prepared, known, explain=False):
    count[0] += 1
    if count[0] % 40 == 0:
        raise ZeroDivisionError
    return whole(self, prepared, known, explain)
Predictor.answer = answer
""",
}
GROWTH_MIB = 24.0


def flipped(data: bytes, rng: Rng) -> bytes:
    """A few bytes changed."""
    made = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(0, len(made), rng.integers(1, 40))
    made[places] = rng.integers(0, 256, len(places), dtype=np.uint8)
    return made.tobytes()


def cut(data: bytes, rng: Rng) -> bytes:
    """The beginning alone."""
    return data[: int(rng.integers(0, len(data)))]


def spliced(data: bytes, rng: Rng) -> bytes:
    """A piece repeated, or put elsewhere."""
    a, b = sorted(rng.integers(0, len(data), 2).tolist())
    at = int(rng.integers(0, len(data)))
    return data[:at] + data[a:b] * int(rng.integers(1, 4)) + data[at:]


def head(data: bytes, rng: Rng) -> bytes:
    """Changes where formats keep their sizes."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        made[int(rng.integers(0, min(64, len(made))))] = int(rng.integers(0, 256))
    return bytes(made)


def stranger(data: bytes, rng: Rng) -> bytes:
    """No image, or the first bytes of one and noise."""
    starts = (
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"BM",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"%!PS",
        b"GIF89a",
        b"<svg",
        b"\0" * 128 + b"DICM",
    )
    return starts[int(rng.integers(0, len(starts)))] + rng.bytes(int(rng.integers(0, 3000)))


def bomb(data: bytes, rng: Rng) -> bytes:
    """A PNG that claims, or holds, far more than it weighs."""
    edge = int(rng.choice([1, 3000, 4900, 12_000, 65_000, 2**31 - 1]))
    packed = zlib.compress(b"\0" * int(rng.choice([100, 10**6, 3 * 10**7])), 1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    depth, colour = ((8, 2), (1, 0), (16, 6), (8, 3))[int(rng.integers(0, 4))]
    more = chunk(b"zTXt", b"a\0\0" + packed) if rng.random() < 0.3 else b""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", edge, edge, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + more + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


MUTATIONS: dict[str, Callable[[bytes, Rng], bytes]] = {
    "whole": lambda data, rng: data, "flipped": flipped, "cut": cut, "spliced": spliced, "head": head, "stranger": stranger,
    "bomb": bomb,
}  # fmt: skip


def upload(seeds: list[bytes], rng: Rng) -> bytes:
    """One request."""
    kinds = list(MUTATIONS)
    shares = [0.2, 0.2, 0.15, 0.15, 0.15, 0.12, 0.03]
    images = []
    for _ in range(1 if rng.random() < 0.9 else int(rng.integers(2, 5))):
        data = seeds[int(rng.integers(0, len(seeds)))]
        images.append(MUTATIONS[kinds[int(rng.choice(len(kinds), p=shares))]](data, rng))
    parts = [(FILE, image) for image in images]
    if rng.random() < 0.2:
        name = str(rng.choice(["top_k", "metadata", "explain", "recipe", "class", "model", "x", "file"]))
        values = [b"1", b"-1", b"true", b"{}", b"[]", b'{"age": 1e999}', b"mel", b"\xff\xfe", b"9" * 5000, rng.bytes(50)]
        parts.append((f'name="{name}"', values[int(rng.integers(0, len(values)))]))
    body = multipart(*parts)
    if rng.random() < 0.08:
        body = (flipped, cut, spliced)[int(rng.integers(0, 3))](body, rng)
    return post(body, "/v1/explain" if rng.random() < 0.1 else "/v1/predict")


def memory_mib(served: Server) -> float:
    """Of the server and its processes."""
    total = 0.0
    for pid in (served.process.pid, *served.children()):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            total += int(line.split()[1]) / 1024 if line.startswith("RssAnon") else 0.0
    return total


def fuzz(artifact: Path, uploads: int, seed: int, pictures: Path | None, plant: str) -> list[str]:
    """What was found; nothing is good."""
    seeds = [picture(i, kind=kind) for i, kind in enumerate(("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"))]
    if pictures is not None:
        seeds += [path.read_bytes() for path in sorted(pictures.glob("*.jpg"))[:50]]
    statuses: Counter[int] = Counter()
    found, memory, started = [], [], time.monotonic()
    with server(artifact, program=PLANTS[plant], options=("--body-mib", "4")) as served:
        for number in range(uploads):
            request = upload(seeds, np.random.default_rng([seed, number]))
            try:
                status = answer_of(served.raw(request))[0]
            except (TimeoutError, OSError, IndexError, ValueError) as error:
                status = 0
                found.append(f"upload {number}: no answer ({type(error).__name__})")
            statuses[status] += 1
            if status >= 500:
                found.append(f"upload {number}: status {status}")
            if served.process.poll() is not None:
                return [*found, f"upload {number}: the server ended ({served.process.returncode})"]
            if number % max(1, uploads // 40) == 0:
                memory.append(memory_mib(served))
            if number % 1000 == 999:
                print(
                    f"{number + 1} uploads, {(number + 1) / (time.monotonic() - started):.0f}/s, {memory[-1]:.0f} MiB",
                    flush=True,
                )
        text = served.raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").decode()
    replaced = next(
        (line.split()[-1] for line in text.splitlines() if line.startswith("dermalyze_decoders_replaced_total")), "?"
    )
    quarter = len(memory) // 4
    grown = float(np.median(memory[-quarter:]) - np.median(memory[quarter : 2 * quarter])) if quarter else 0.0
    print(f"{uploads} uploads, statuses {dict(sorted(statuses.items()))}, decoders replaced {replaced}")
    print(f"memory {memory[0]:.0f} MiB at first, {memory[-1]:.0f} MiB at last; second to last quarter {grown:+.1f} MiB")
    if statuses[200] == 0 or len(statuses) < 3:
        found.append("the uploads do not reach the server's inside: hardly any kind of answer")
    if grown > GROWTH_MIB:
        found.append(f"memory grows: {grown:.1f} MiB from the second to the last quarter")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--plant", choices=list(PLANTS), default="")
    arguments = parser.parse_args()
    found = fuzz(arguments.artifact, arguments.uploads, arguments.seed, arguments.pictures, arguments.plant)
    print("\n".join(found[:20]) if found else "nothing found")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
