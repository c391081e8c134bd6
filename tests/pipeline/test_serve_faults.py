"""FAULTS 39 to 49 against a server process: bombs, lies, slow and hostile clients, overload, signals, a broken model."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import FILE, Server, answer_of, multipart, picture, post, read_all, server

from dermalyze.errors import DataError, ResourceError, UsageError
from dermalyze.scoring.ood_images import SYNTHETIC
from dermalyze.serve.server.client import Client

pytest.importorskip("fastapi")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="decoding processes are bounded and found through /proc")

LIMIT_MIB = 1
SLOW_S = 2


@pytest.fixture(scope="module")
def artifact(artifact_writer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact_writer(tmp_path_factory.mktemp("served") / "artifact", training={"source": "ham10000"})


@pytest.fixture(scope="module")
def served(artifact: Path) -> Iterator[Server]:
    patience = f"import dermalyze.config.serve as c\nc.ServeSpec.model_fields['slow_s'].default = {SLOW_S}\n"
    patience += "c.ServeSpec.model_rebuild(force=True)"
    with server(artifact, program=patience, options=("--body-mib", str(LIMIT_MIB))) as made:
        yield made


def ask(served: Server, *parts: tuple[str, bytes], path: str = "/v1/predict") -> tuple[int, Any]:
    status, _, values = answer_of(served.raw(post(multipart(*parts), path)))
    return status, values


def counted(served: Server) -> str:
    """What Prometheus reads."""
    return served.raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").decode()


def alive(served: Server) -> bool:
    return ask(served, (FILE, picture()))[0] == 200


def wait_for(reached: Callable[[], bool], what: str) -> None:
    """Wait for a state, however busy the machine is; the bound is for one that never comes."""
    end = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.05)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, bits: int = 8, colour: int = 2, more: bytes = b"", data: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", data or zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def webp(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    body = b"VP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", bits) + b"\0"
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def zeros(size: int) -> bytes:
    packer, block = zlib.compressobj(1), b"\0" * 2**20
    return b"".join(packer.compress(block) for _ in range(size // 2**20)) + packer.flush()


BOMBS: dict[str, Callable[[], bytes]] = {
    "12000 squared": lambda: png(12_000, 12_000, data=zeros(100 * 2**20)),
    "50000 squared, 1 bit": lambda: png(50_000, 50_000, bits=1, colour=0),
    "zTXt": lambda: png(64, 64, more=chunk(b"zTXt", b"a\0\0" + zeros(100 * 2**20))),
    "65500 header": lambda: (
        b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65_500, 65_500) + b"\x03\1\x22\0\2\x11\1\3\x11\1\xff\xd9"
    ),
    "WebP 16383": lambda: webp(16_383, 16_383),
    "largest that is read": lambda: png(4900, 4900, data=zeros(4900 * 14_701 + 2**20)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_39_bombs_are_refused_without_memory(served: Server, name: str) -> None:
    assert alive(served)
    before = {pid: peak_mib(pid) for pid in [served.process.pid, *served.children()]}
    status, values = ask(served, (FILE, BOMBS[name]()))
    assert status in ((413, 422) if name != "largest that is read" else (200, 422))
    assert "error" in values or values["results"][0]["abstain"]
    assert all(peak_mib(pid) - before[pid] < 256 for pid in before if Path(f"/proc/{pid}").exists())
    assert alive(served)


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


STRANGERS = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "fits": b"SIMPLE  =                    T",
    "psd": b"8BPS\0\1" + b"\0" * 20,
    "gd": b"\xff\xff\0\5\0\5" + b"\0" * 30,
    "tiff": b"II*\0\x08\0\0\0",
    "pdf": b"%PDF-1.7\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_40_other_kinds_of_files_are_415(served: Server, name: str) -> None:
    status, values = ask(served, ('name="file"; filename="lesion.jpg"', STRANGERS[name]))
    assert (status, values["error"]["code"]) == (415, "not_an_image")


def flat(level: int) -> Callable[[], bytes]:
    return lambda: encoded(np.full((96, 128, 3), level, np.uint8))


def encoded(pixels: Any, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


NO_LESION: dict[str, Callable[[], bytes]] = {
    "black": flat(0), "white": flat(255),
    "noise": lambda: encoded(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)),
    "document": lambda: encoded(SYNTHETIC["text"](np.random.default_rng(0), 150, 200, 0)),
    "wall": lambda: encoded(SYNTHETIC["bricks"](np.random.default_rng(0), 150, 200, 0)),
    "1x1": lambda: encoded(np.zeros((1, 1, 3), np.uint8)),
    "10000x1": lambda: encoded(np.zeros((1, 10_000, 3), np.uint8)),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_LESION)
def test_41_what_is_no_lesion_gets_no_bare_class(served: Server, name: str) -> None:
    status, values = ask(served, (FILE, NO_LESION[name]()))
    if name in ("1x1", "10000x1"):
        assert (status, values["error"]["code"]) == (422, "undecodable")
    else:
        assert status == 200
        assert values["results"][0]["abstain"]
        assert values["results"][0]["reasons"]
        assert values["results"][0]["decision"] == "refer"


def test_42_wrong_requests_are_answered_in_json(served: Server) -> None:
    image = picture()
    assert ask(served, ('name="image"; filename="x.jpg"', image))[0] == 422
    assert ask(served)[0] in (400, 422)
    assert ask(served, (FILE, b""))[0] == 422
    assert ask(served, (FILE, image), (FILE, image), path="/v1/explain")[0] == 422
    assert ask(served, *[(f'name="f{i}"', b"") for i in range(5000)])[0] in (400, 422)
    assert ask(served, (FILE + "; x=" + "y" * 500_000, image))[0] == 400
    assert ask(served, (FILE, image), ("nonsense", b""))[0] == 400
    whole = multipart((FILE, image))
    assert answer_of(served.raw(post(whole[:-20])))[0] == 400
    for kind in ("application/json", "multipart/form-data", "text/plain", "multipart/form-data; boundary=" + "x" * 200):
        raw = post(whole).replace(b"multipart/form-data; boundary=b0undary", kind.encode())
        status, _, values = answer_of(served.raw(raw))
        assert status in (400, 415)
        assert set(values["error"]) == {"code", "message", "remedy"}


@pytest.mark.parametrize("way", ["content-length", "chunked", "lie"])
def test_43_a_body_over_the_limit_is_cut_off(served: Server, way: str) -> None:
    size = 8 * LIMIT_MIB * 2**20
    body = f"--b0undary\r\nContent-Disposition: form-data; {FILE}\r\n\r\n".encode() + b"\xff\xd8\xff" + b"x" * size
    before = set(Path(tempfile.gettempdir()).iterdir())
    with served.connect() as channel:
        if way == "chunked":
            channel.sendall(post(b"", "/v1/predict", "Transfer-Encoding: chunked"))
            pieces = [body[i : i + 2**16] for i in range(0, len(body), 2**16)]
            pieces = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]
        else:
            channel.sendall(post(b"", length=len(body) if way == "content-length" else 1000))
            pieces = [body[i : i + 2**16] for i in range(0, len(body), 2**16)]
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        sent = 0
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                channel.sendall(piece)
                sent += len(piece)
        response = read_all(channel)
    if way == "lie":  # what comes after 1000 bytes is not of this request
        assert not response or answer_of(response.split(b"HTTP/1.1 ")[0] or response)[0] in (400, 413, 415, 422)
    else:
        # the reset can overtake the answer while this side still sends; what was read is bounded either way
        assert not response or answer_of(response)[0] == 413
    assert sent < len(body)
    assert {p for p in set(Path(tempfile.gettempdir()).iterdir()) - before if p.is_file()} == set()
    assert alive(served)


def test_43_the_413_itself_arrives(served: Server) -> None:
    status, headers, values = answer_of(served.raw(post(b"x" * 70_000, length=3 * 2**20)))
    assert (status, values["error"]["code"], headers["connection"]) == (413, "too_large", "close")


def test_44_framing_and_encodings_that_smuggle(served: Server) -> None:
    body = multipart((FILE, picture()))
    assert answer_of(served.raw(post(gzip.compress(body), "/v1/predict", "Content-Encoding: gzip")))[0] == 415
    both = post(body, "/v1/predict", f"Content-Length: {len(body)}", "Transfer-Encoding: chunked")
    assert answer_of(served.raw(both))[0] == 400
    assert answer_of(served.raw(post(b"", length=-5)))[0] == 400
    long = b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert answer_of(served.raw(long))[0] in (414, 431)  # by whether it comes in one piece
    with served.connect() as channel:
        for i in range(18):  # the last piece takes it over the limit
            channel.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " if i == 0 else b"a" * 2_000)
            time.sleep(0.01)
        status, _, values = answer_of(read_all(channel))
    assert (status, set(values["error"])) == (431, {"code", "message", "remedy"})
    shorter = b"GET /v1/models?" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert answer_of(served.raw(shorter))[0] == 414


def test_45_slow_clients_are_let_go(served: Server) -> None:
    started = time.monotonic()
    slow = []
    for first in (b"", b"POST /v1/pre", post(b"--b0und", length=100_000)):
        channel = served.connect(timeout=30)
        channel.sendall(first)
        slow.append(channel)
    answers = [read_all(channel) for channel in slow]
    assert time.monotonic() - started < 10
    assert all(answer_of(answer)[0] == 408 for answer in answers)
    assert alive(served)


def test_45_an_answer_that_nobody_reads_is_given_up(served: Server) -> None:
    channel = socket.socket()
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    channel.connect(("127.0.0.1", served.port))
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    channel.setblocking(False)
    until, ended = time.monotonic() + 25, False
    while time.monotonic() < until and not ended:
        try:
            channel.send(asked * 50)
        except BlockingIOError:
            time.sleep(0.2)
        except ConnectionError:
            ended = True
    channel.close()
    assert ended
    assert alive(served)


SLOW_MODEL = """
import time
from dermalyze.serve.predictor.predictor import Predictor
whole = Predictor.answer
def answer(self, prepared, known, explain=False):
    time.sleep({seconds} * len(prepared))
    return whole(self, prepared, known, explain)
Predictor.answer = answer
"""


def test_46_overload_is_refused_and_live_answers(artifact: Path) -> None:
    with server(artifact, program=SLOW_MODEL.format(seconds=0.4), options=("--queue", "2")) as slow:
        body = post(multipart((FILE, picture())))
        alive_s: list[float] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                started = time.monotonic()
                assert b" 200 " in slow.raw(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                alive_s.append(time.monotonic() - started)
                time.sleep(0.05)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(15) as pool:
            answers = [answer_of(raw) for raw in pool.map(slow.raw, [body] * 15)]
        done.set()
        watcher.join()
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 503}
        assert 3 <= statuses.count(200) < 15
        assert all(int(headers["retry-after"]) >= 1 for status, headers, _ in answers if status == 503)
        assert len(alive_s) >= 3


def test_46_who_is_turned_away_is_told_as_anybody_else(artifact: Path) -> None:
    body = post(multipart((FILE, picture(width=640, height=480))))
    with (
        server(artifact, program=SLOW_MODEL.format(seconds=8), options=("--queue", "0")) as slow,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(slow.raw, body)
        while "dermalyze_requests_under_way 1.0" not in counted(slow):
            assert not running.done(), "it was answered before it was seen to be under way"
        at_the_door = answer_of(slow.raw(body))
        assert at_the_door[0] == 503
        with slow.connect() as channel:  # its first line in two splits: refused only when it has been read
            channel.sendall(body[:10])
            time.sleep(0.2)
            channel.sendall(body[10:])
            inside = answer_of(read_all(channel))
        assert inside[0] == 503
        assert inside[2] == at_the_door[2]
        own = {"date", "server", "retry-after"}
        assert {k: v for k, v in inside[1].items() if k not in own} == {k: v for k, v in at_the_door[1].items() if k not in own}
        assert answer_of(slow.raw(body[:200]))[0] == 503, "its head is not waited for"
        assert answer_of(slow.raw(body + b"x" * 30_000))[0] == 503, "nor is its body"
        assert answer_of(running.result())[0] == 200
        assert alive(slow)
        assert 'dermalyze_requests_total{method="POST",route="/v1/predict",status="503"}' in counted(slow)


def test_46_a_request_that_takes_too_long_is_given_up(artifact: Path) -> None:
    with server(artifact, program=SLOW_MODEL.format(seconds=3), options=("--deadline", "0.5")) as slow:
        status, _, values = answer_of(slow.raw(post(multipart((FILE, picture())))))
        assert (status, values["error"]["code"]) == (504, "too_late")


def test_47_sigterm_lets_requests_finish(artifact: Path) -> None:
    with server(artifact, program=SLOW_MODEL.format(seconds=1.5)) as slow, ThreadPoolExecutor(3) as pool:
        body = post(multipart((FILE, picture())))
        running = [pool.submit(slow.raw, body) for _ in range(3)]
        time.sleep(1.0)
        slow.process.send_signal(signal.SIGTERM)
        assert [answer_of(future.result())[0] for future in running] == [200] * 3
        assert "Traceback" not in slow.log()
        assert slow.process.returncode == 0


def test_47_a_killed_decoder_is_replaced(served: Server) -> None:
    for _ in range(2):
        before = set(served.children())
        assert before
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert alive(served), "the request itself is answered by the next process"
        wait_for(lambda gone=before: len(set(served.children()) - gone) == len(gone), "fresh processes in place of all")
        assert alive(served)
    assert "dermalyze_decoders_replaced_total" in counted(served)


def test_47_nan_from_the_model_is_a_fault_and_no_number(artifact_writer: Any, graph_bytes: Any, tmp_path: Path) -> None:
    broken = artifact_writer(tmp_path / "broken", graph=graph_bytes(3, 12, 16, scale=float("nan")))
    with server(broken) as faulty:
        for _ in range(2):
            status, values = ask(faulty, (FILE, picture()))
            assert (status, values["error"]["code"]) == (503, "model_fault")
        assert "dermalyze_model_faults_total 2.0" in counted(faulty)


def test_48_addresses_and_paths_are_no_input(served: Server) -> None:
    body = b'{"image":"http://169.254.169.254/"}'
    raw = post(body).replace(b"multipart/form-data; boundary=b0undary", b"application/json")
    assert answer_of(served.raw(raw))[0] == 415
    for where in (b"http://169.254.169.254/", b"file:///etc/passwd", b"/etc/passwd"):
        assert ask(served, ('name="image"', where))[0] == 422
        assert ask(served, ('name="url"', where))[0] == 422
        status, values = ask(served, (FILE, where))
        assert (status, values["error"]["code"]) == (415, "not_an_image")


def test_49_names_origins_and_hosts(served: Server) -> None:
    svg = "<svg onload=alert(1)>.jpg"
    raw = served.raw(post(multipart((f'name="file"; filename="{svg}"', picture()))))
    status, headers, _ = answer_of(raw)
    assert status == 200
    assert b"svg" not in raw
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    body = multipart((FILE, picture()))
    assert answer_of(served.raw(post(body, "/v1/predict", "Origin: http://evil.example")))[0] == 403
    assert answer_of(served.raw(post(body, "/v1/predict", "Sec-Fetch-Site: cross-site")))[0] == 403
    assert answer_of(served.raw(post(body, "/v1/predict", "Origin: http://localhost")))[0] == 200
    assert answer_of(served.raw(post(body).replace(b"Host: localhost", b"Host: evil")))[0] == 400


def test_the_client(served: Server) -> None:
    client = Client(served.address)
    assert client.ready()
    assert [model["name"] for model in client.models()] == ["stand-in"]
    answer = client.predict([picture(), picture(1)], top_k=1)
    assert [len(result["top"]) for result in answer["results"]] == [1, 1]
    with pytest.raises(DataError, match="not_an_image"):
        client.predict(b"no image")
    with pytest.raises(DataError, match="none of that name"):
        client.predict(picture(), model="other")
    with pytest.raises(DataError, match="not_found"):
        client.card("stand-in")
    with pytest.raises(ResourceError):
        Client("http://127.0.0.1:9", timeout_s=2).models()
    assert not Client("http://127.0.0.1:9").ready()
    with pytest.raises(UsageError):
        Client("ftp://x")


def test_the_log_tells_nothing_of_what_was_sent(artifact: Path) -> None:
    with server(artifact) as logged:
        ask(logged, ('name="file"; filename="DOE_JOHN.jpg"', picture()), ('name="metadata"', b'{"name": "DOE"}'))
        logged.raw(b"GET /DOE?q=DOE HTTP/1.1\r\nHost: localhost\r\nX-Patient: DOE\r\nConnection: close\r\n\r\n")
        logged.process.terminate()
        log = logged.log()
        assert '"event": "request"' in log
        assert "DOE" not in log


def test_a_log_that_nobody_reads_does_not_stop_it(artifact: Path) -> None:
    block = "import os\nkept, full = os.pipe()\nos.dup2(full, 2)"
    ask_live = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"
    with server(artifact, program=block) as served:
        answers = served.raw((ask_live + b"\r\n") * 999 + ask_live + b"Connection: close\r\n\r\n", timeout=120)
        assert answers.count(b'{"live":true}') == 1000  # some 160 KiB of log


def test_it_leaves_nothing_behind(artifact: Path) -> None:
    with server(artifact) as short:
        assert alive(short)
        children = short.children()
        assert children
        short.process.kill()
        short.process.wait()
        until = time.monotonic() + 20
        while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in children):
            time.sleep(0.1)
        assert not any(Path(f"/proc/{pid}").exists() for pid in children), "decoders end with the server"
