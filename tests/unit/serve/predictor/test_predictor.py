"""The predictor: every kind of image, bad ones in between, and nothing heavy loaded."""

from __future__ import annotations

import csv
import io
import itertools
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dermalyze.core.result import DISCLAIMER
from dermalyze.errors import DataError, ModelError, UsageError
from dermalyze.serve.predictor.inputs import Item, read_inputs
from dermalyze.serve.predictor.output import write
from dermalyze.serve.predictor.prediction import Prediction
from dermalyze.serve.predictor.predictor import Predictor

PIXELS = np.random.default_rng(7).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encoded(pixels: NDArray[np.uint8] = PIXELS, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def predictor(make_artifact: Callable[..., Path]) -> Predictor:
    return Predictor(make_artifact(), threads=1)


def test_answer_reads_like_the_documents_dict(predictor: Predictor) -> None:
    answer = predictor.predict(PIXELS)
    assert answer["predicted_class"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["predicted_class_description"] == answer["predicted_class"].upper()
    assert answer["confidence"] == max(answer["probabilities"].values()) == answer.confidence
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert list(answer["probabilities"]) == predictor.classes == ["mel", "nv", "vasc"]
    assert answer["disclaimer"] == DISCLAIMER
    assert dict(answer) == answer.as_dict()
    assert "error" not in answer
    json.dumps(answer.as_dict())


def test_every_form_of_one_image_gives_one_answer(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    forms = [
        str(tmp_path / "a.png"), tmp_path / "a.png", encoded(), encoded(kind="BMP"), encoded(kind="WEBP", lossless=True),
        Image.fromarray(PIXELS), Image.open(tmp_path / "a.png"), PIXELS, PIXELS[::-1][::-1],
    ]  # fmt: skip
    answers = [predictor.predict(form)["probabilities"] for form in forms]
    assert all(answer == answers[0] for answer in answers)
    grey = PIXELS[..., 0]
    assert predictor.predict(grey)["probabilities"] == predictor.predict(encoded(grey))["probabilities"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("recipe", ["plain", "flips"])
def test_all_eight_exif_orientations_give_the_same_answer(make_artifact: Any, kind: str, recipe: str) -> None:
    predictor = Predictor(make_artifact(recipe=recipe), threads=1)
    # how upright pixels are stored under each orientation (EXIF 2.3, tag 0x0112)
    stored: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1], 8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }  # fmt: skip
    smooth = np.zeros((32, 48, 3), np.uint8)
    smooth[:16, :16], smooth[16:, 32:] = 250, (40, 120, 200)  # whole blocks, which JPEG keeps
    probabilities = []
    for orientation, turn in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
        data = encoded(np.ascontiguousarray(turn(smooth)), kind, exif=exif, **options)
        probabilities.append(list(predictor.predict(data, scores=True)["probabilities"].values()))
        with Image.open(io.BytesIO(data)) as opened:
            probabilities.append(list(predictor.predict(opened, scores=True)["probabilities"].values()))
    assert np.allclose(probabilities, probabilities[0], atol=2e-4 if kind == "JPEG" else 1e-7)
    if recipe == "plain":
        assert not np.allclose(
            list(predictor.predict(smooth[:, ::-1], scores=True)["probabilities"].values()), probabilities[0], atol=1e-3
        )


BAD = {
    "empty": b"",
    "html": b"<html><body>404</body></html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "truncated": encoded(kind="JPEG")[:300],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "gif": encoded(kind="GIF"),
    "tiff": encoded(kind="TIFF"),
    "strip": encoded(np.zeros((1, 10_000, 3), np.uint8)),
}


def test_bad_images_are_reported_on_their_own_row_and_the_rest_go_on(predictor: Predictor) -> None:
    images = [part for bad in BAD.values() for part in (bad, encoded())]
    answers = list(predictor.predict_batch(images, batch_size=3))
    assert [answer.index for answer in answers] == list(range(len(images)))
    for bad, good in (
        itertools.batched(answers, 2) if sys.version_info >= (3, 12) else zip(answers[::2], answers[1::2], strict=True)
    ):
        assert bad["error"]
        assert set(bad) <= {"index", "image", "error", "disclaimer"}
        assert good.error is None
    with pytest.raises(KeyError):
        answers[0]["predicted_class"]


@pytest.mark.parametrize(
    "bad", [*BAD.values(), "no/such.jpg", Path("no/such.jpg"), 7, None, PIXELS.astype(float), PIXELS[:0], "a\0b"]
)
def test_predict_says_why_one_image_is_refused(predictor: Predictor, bad: Any) -> None:
    with pytest.raises(DataError) as caught:
        predictor.predict(bad)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_answers_do_not_depend_on_the_batch(predictor: Predictor, batch_size: int) -> None:
    images = [np.roll(PIXELS, i, axis=1) for i in range(7)]
    alone = [predictor.predict(image)["confidence"] for image in images]
    together = [answer["confidence"] for answer in predictor.predict_batch(images, batch_size=batch_size)]
    assert together == pytest.approx(alone, abs=1e-6)


def test_batches_stream(predictor: Predictor) -> None:
    taken = []

    def endless():  # type: ignore[no-untyped-def]
        for i in itertools.count():
            taken.append(i)
            yield PIXELS

    answers = predictor.predict_batch(endless(), batch_size=4)
    assert [next(answers).index for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(taken) == 8, "one batch in memory at a time"


def test_nothing_in_nothing_out(predictor: Predictor) -> None:
    assert list(predictor.predict_batch([])) == []
    with pytest.raises(UsageError, match="batch_size"):
        next(predictor.predict_batch([], batch_size=0))


def test_flips_recipe_does_not_see_mirroring(make_artifact: Any) -> None:
    predictor = Predictor(make_artifact(recipe="flips"))
    one, other = (predictor.predict(p)["confidence"] for p in (PIXELS, PIXELS[:, ::-1]))
    assert one == pytest.approx(other, abs=1e-6)


def test_accepted_leak_stands_on_every_answer(make_artifact: Any) -> None:
    predictor = Predictor(make_artifact(accepted_leak="to compare with a published split"))
    for answer in predictor.predict_batch([PIXELS, b""]):
        assert answer["accepted_leak"] == "to compare with a published split"


def test_model_that_gives_nan_ends_it(make_artifact: Any, graph_bytes: Any) -> None:
    predictor = Predictor(make_artifact(graph=graph_bytes(3, 12, 16, scale=np.nan)))
    with pytest.raises(ModelError, match="NaN"):
        predictor.predict(PIXELS)


def test_run_folder_stands_for_its_export(make_artifact: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: x\n")
    with pytest.raises(UsageError, match="dermalyze export"):
        Predictor(tmp_path / "run")
    make_artifact("run/export")
    assert Predictor(tmp_path / "run").classes == ["mel", "nv", "vasc"]
    with pytest.raises(UsageError, match="neither a run"):
        Predictor(tmp_path)


# -- output ----------------------------------------------------------------------------------------------------


def text(rows: list[Prediction], **options: Any) -> str:
    stream = io.StringIO()
    write(rows, stream, classes=["mel", "nv", "vasc"], **options)
    return stream.getvalue()


@pytest.fixture
def rows(predictor: Predictor, tmp_path: Path) -> list[Prediction]:
    (tmp_path / "DOE_JOHN.png").write_bytes(encoded())
    (tmp_path / "list.csv").write_text("image_id,path\n=cmd|'/c calc'!A1,DOE_JOHN.png\n+1,none.png\n")
    return list(predictor.predict_batch(read_inputs([tmp_path / "list.csv", tmp_path / "DOE_JOHN.png"])))


@pytest.mark.parametrize("format", ["table", "jsonl", "csv"])
def test_names_only_when_asked_for(rows: list[Prediction], format: str) -> None:
    assert "DOE" not in text(rows, format=format)
    assert "DOE_JOHN.png" in text(rows, format=format, names=True)


def test_the_field_of_a_name_is_file(rows: list[Prediction]) -> None:
    files = ["DOE_JOHN.png", "none.png", rows[2].file]
    assert [json.loads(line)["file"] for line in text(rows, format="jsonl", names=True).splitlines()] == files
    assert [row["file"] for row in csv.DictReader(io.StringIO(text(rows, format="csv", names=True)))] == files
    assert all("file" not in json.loads(line) for line in text(rows, format="jsonl").splitlines())
    assert "file" not in text(rows, format="csv").splitlines()[0].split(",")


def test_the_table_shows_the_end_of_a_long_name_and_no_hash(rows: list[Prediction]) -> None:
    table = text(rows, names=True).splitlines()
    assert table[0].split()[1] == "file"
    assert table[3].split()[1].startswith("...")
    assert table[3].split()[1].endswith("DOE_JOHN.png")
    assert rows[2].sha256[:12] not in table[3]  # type: ignore[index]


def test_only_what_was_read_from_the_command_line_has_a_name(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "DOE_JOHN.png").write_bytes(encoded())
    assert predictor.predict(tmp_path / "DOE_JOHN.png").file is None
    assert predictor.predict(encoded()).file is None
    assert next(predictor.predict_batch(read_inputs(["-"], stdin=io.BytesIO(encoded())))).file == "stdin"
    (named,) = predictor.predict_batch(read_inputs(["https://clinic.example/DOE.png"]))
    assert (named.file, named.error) == ("https://clinic.example/DOE.png", "no such file")
    with zipfile.ZipFile(archive := io.BytesIO(), "w") as members:
        members.writestr("a/DOE.png", encoded())
    archive.seek(0)
    assert next(predictor.predict_batch(read_inputs(["-"], stdin=archive))).file == "stdin!a/DOE.png"


@pytest.mark.parametrize("format", ["table", "jsonl", "csv"])
def test_every_form_carries_the_disclaimer(rows: list[Prediction], format: str) -> None:
    assert DISCLAIMER in text(rows, format=format)


def test_jsonl(rows: list[Prediction]) -> None:
    values = [json.loads(line) for line in text(rows, format="jsonl").splitlines()]
    assert [v["index"] for v in values] == [0, 1, 2]
    assert [v.get("image_id") for v in values] == ["=cmd|'/c calc'!A1", "+1", None]
    assert values[1]["error"] == "no such file"
    assert values[0]["probabilities"] == rows[0].probabilities
    assert values[0]["image"] == rows[0].sha256[:12] == values[2]["image"]  # type: ignore[index]


def test_csv_cells_are_no_formulas(rows: list[Prediction]) -> None:
    table = list(csv.DictReader(io.StringIO(text(rows, format="csv", names=True))))
    assert [row["image_id"] for row in table] == ["'=cmd|'/c calc'!A1", "'+1", ""]
    hostile = text([Prediction(0, None, error="no such file", file="=HYPERLINK(1).png")], format="csv", names=True)
    assert next(csv.DictReader(io.StringIO(hostile)))["file"] == "'=HYPERLINK(1).png"
    assert [row["error"] for row in table] == ["", "no such file", ""]
    assert float(table[0]["p_mel"]) == pytest.approx(rows[0].probabilities["mel"], abs=1e-8)
    assert [row["disclaimer"] for row in table] == [DISCLAIMER] * 3


def test_hostile_names_stay_on_their_line() -> None:
    row = Prediction(0, "ab" * 32, error="no such file", file="a\nb\x1b[31m,\udcff.png", image_id="x\ny")
    assert len(text([row], format="table", names=True).splitlines()) == 3
    for format in ("table", "jsonl", "csv"):
        written = text([row], format=format, names=True)
        assert "\x1b" not in written
        written.encode("utf-8")
    assert len(list(csv.reader(io.StringIO(text([row], format="csv", names=True))))) == 2


def test_write_counts_errors_and_knows_its_formats(rows: list[Prediction]) -> None:
    assert write(rows, io.StringIO(), classes=["mel"], format="jsonl") == 1
    with pytest.raises(UsageError, match="table, jsonl, csv"):
        write(rows, io.StringIO(), classes=["mel"], format="xml")  # type: ignore[arg-type]


# -- weight ----------------------------------------------------------------------------------------------------


def test_predicting_loads_neither_torch_nor_timm_nor_pandas(make_artifact: Any, tmp_path: Path) -> None:
    artifact = make_artifact()
    (tmp_path / "a.png").write_bytes(encoded())
    code = (
        "import sys, dermalyze.serve.predictor.predictor, dermalyze.serve.predictor.output\n"
        "from dermalyze.serve.predictor.predictor import Predictor\n"
        "before = set(sys.modules)\n"
        f"answer = Predictor({str(artifact)!r}).predict({str(tmp_path / 'a.png')!r})\n"
        "heavy = {'torch', 'timm', 'pandas', 'onnx', 'torchvision', 'pyarrow', 'matplotlib', 'sklearn', 'scipy'}\n"
        "print(answer['predicted_class'], 'onnxruntime' in before, sorted(heavy & {m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    label, early, heavy = done.stdout.split(maxsplit=2)
    assert label in ("mel", "nv", "vasc")
    assert (early, heavy.strip()) == ("False", "[]"), "onnxruntime is loaded when a model is opened, not before"


def test_items_with_errors_pass_through(predictor: Predictor) -> None:
    answer = next(predictor.predict_batch([Item("x", error="because", image_id="7")]))
    assert (answer["error"], answer["image_id"], answer["image"]) == ("because", "7", None)
