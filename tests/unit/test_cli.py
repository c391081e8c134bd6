"""The shell over the library: exit codes, one-line refusals, standard output for results only."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import dermalyze
from dermalyze.cli import app
from dermalyze.cli.program import main, spread, with_run
from dermalyze.core.run import Run

RUNNER = CliRunner()


def invoke(*words: str | Path) -> Any:
    return RUNNER.invoke(app, spread([str(word) for word in words]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    dermalyze.init(root, sets=["train.epochs=2"])
    return root


class Told:
    """A result that a fake stage gives."""

    def as_dict(self) -> dict[str, Any]:
        return {"images": 3, "name": "ä"}

    def lines(self) -> list[str]:
        return ["3 images"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--predictions", "a.csv", "--on", "b"], "--predictions and --on exclude each other"),
        (["--scores", "logits"], "--scores and --partial belong to: --predictions FILE"),
        (["--partial"], "--scores and --partial belong to: --predictions FILE"),
        (["--report-yaml", "r.yaml", "--on", "b"], "--report-yaml belongs to the report on the run's own test split"),
        (["--label-map", "m.yaml"], "--label-map belongs to another set"),
        (["--recalibrate", "0.3"], "--recalibrate belongs to another set"),
    ],
)
def test_options_of_evaluate_that_do_not_go_together(run: Path, options: list[str], said: str) -> None:
    found = invoke("evaluate", run, *options)
    assert found.exit_code == 2
    assert said in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (dermalyze.UsageError("wrong call"), 2, "wrong call"),
        (dermalyze.ConfigError("wrong key"), 2, "wrong key"),
        (dermalyze.LeakError("leaks"), 3, "leaks"),
        (dermalyze.ModelError("damaged"), 4, "damaged"),
        (dermalyze.ResourceError("disk full"), 5, "disk full"),
        (dermalyze.InterruptedRunError("saved; the same command continues"), 75, "saved"),
        (MemoryError(), 5, "out of memory"),
        (PermissionError(errno.EACCES, "Permission denied", "/secret/place/x.csv"), 5, "x.csv"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/secret/place/manifest.parquet"), 5, "manifest.parquet"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/secret/splits/certificate.json"), 5, "certificate.json"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "No space left"),
        (ModuleNotFoundError("No module named 'timm'", name="timm.layers"), 2, "pip install 'dermalyze[train]'"),
    ],
)
def test_expected_failures_are_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, run: Path, error: Exception, code: int, text: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(dermalyze, "audit", fail)
    if isinstance(error, ImportError):
        monkeypatch.delitem(sys.modules, "timm", raising=False)
    result = invoke("audit", run)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert "/secret" not in result.stderr


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), ImportError("no name"), FileNotFoundError(errno.ENOENT, "gone"), KeyError("x")]
)
def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, run: Path, error: Exception) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(dermalyze, "audit", fail)
    result = invoke("audit", run)
    assert result.exception is error


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    def fail(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dermalyze, "audit", fail)
    assert invoke("audit", run).exit_code == 130


def test_a_missing_extra_is_named(run: Path) -> None:
    code = f"import sys\nsys.modules['pandas'] = None\nimport dermalyze.cli\ndermalyze.cli.main(['split', {str(run)!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: dermalyze split needs an optional part: pip install 'dermalyze[train]'\n"


@pytest.mark.parametrize(
    "words", [[], ["tarin", "x"], ["train"], ["train", "x", "--what"], ["synth", "x", "--lesions", "many"]]
)
def test_usage_errors_are_2(words: list[str]) -> None:
    assert invoke(*words).exit_code == 2


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    result = invoke("train", tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "not a run folder" in result.stderr


# -- results -----------------------------------------------------------------------------------------------------


def test_results_for_people_and_machines(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    seen: list[Any] = []

    def audit(*args: Any, **options: Any) -> Told:
        seen.append(args)
        return Told()

    monkeypatch.setattr(dermalyze, "audit", audit)
    assert invoke("audit", run).stdout == "3 images\n"
    assert json.loads(invoke("audit", run, "--json").stdout) == {"images": 3, "name": "ä"}
    assert seen[0] == (Run(run), Run(run).config())


def test_options_reach_the_library(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    seen: dict[str, Any] = {}

    def take(name: str) -> Any:
        def stage(*args: Any, **options: Any) -> Told:
            seen[name] = options
            return Told()

        return stage

    for name in ("audit", "train", "evaluate", "evaluate_external", "evaluate_predictions", "recalibrate", "synth"):
        monkeypatch.setattr(dermalyze, name, take(name))
    assert invoke("train", run, "--resume", "a", "--accept-leak", "why").exit_code == 0
    assert invoke("evaluate", run, "--on", "b", "--label-map", "c").exit_code == 0
    assert invoke("evaluate", run, "--on", "b", "--recalibrate", "0.3").exit_code == 0
    assert invoke("evaluate", run, "--predictions", "p.csv", "--scores", "logits").exit_code == 0
    assert invoke("evaluate", run, "--submission", "s.csv").exit_code == 0
    assert invoke("synth", "out", "--size", "64x80", "--balance", "even", "--seed", "3", "--plant", "shortcut").exit_code == 0
    assert invoke("audit", run, "--labels").exit_code == 0
    assert seen["audit"] == {"labels": True}
    assert seen["train"] == {"resume": Path("a"), "accept_leak": "why"}
    given = {name: {key: value for key, value in options.items() if value} for name, options in seen.items()}
    assert given["evaluate_external"] == {"label_map": Path("c")}
    assert given["recalibrate"] == {}
    assert given["evaluate_predictions"] == {"scores": "logits"}
    assert given["evaluate"] == {"submission": Path("s.csv")}
    assert seen["synth"]["size_px"] == (64, 80)
    assert (seen["synth"]["balance"], seen["synth"]["seed"], seen["synth"]["plant"]) == ("even", 3, "shortcut")


@pytest.mark.parametrize("size", ["0x", "large", "96x96x3", "-5"])
def test_a_wrong_size_is_refused(tmp_path: Path, size: str) -> None:
    assert invoke("synth", tmp_path / "out", f"--size={size}").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_version_and_schema() -> None:
    assert invoke("--version").stdout == f"{dermalyze.__version__}\n"
    assert json.loads(invoke("schema").stdout)["title"] == "ExperimentSpec"


# -- init and prepare --------------------------------------------------------------------------------------------


def test_init_freezes_and_tells_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "pictures"
    data.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/opt/bin/dermalyze", "init", "run", "--set", f"data.path={data}"])
    result = invoke("init", "run", "--set", "data.path=pictures", "train.epochs=3", "seed=5")
    assert result.exit_code == 0, result.output
    spec = Run(tmp_path / "run").config()
    assert (spec.data.path, spec.train.epochs, spec.seed) == (str(data), 3, 5)
    text = (tmp_path / "run" / "environment.json").read_text(encoding="utf-8")
    environment = json.loads(text)
    assert str(tmp_path) not in text
    assert environment["command"] == [".../dermalyze", "init", "run", "--set", "data.path=.../pictures"]
    assert environment["versions"]["dermalyze"] == dermalyze.__version__
    assert environment["seed"] == 5
    assert os.uname().nodename not in text.replace(environment["platform"]["release"], "")


def test_init_again_is_no_change_and_another_is_refused(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert invoke("init", run, "--set", "train.epochs=2").exit_code == 0
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    refused = invoke("init", run, "--set", "train.epochs=4")
    assert refused.exit_code == 2
    assert "train.epochs" in refused.stderr
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--set", "train.epocs=4"], "train.epochs"),
        (["--set", "data.path=nowhere"], "data.path"),
        (["--set", "model.weights=nowhere.safetensors"], "model.weights"),
        (["--set", "epochs"], "key=value"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config", "a.yaml", "--from", "b.yaml"], "keep one"),
    ],
)
def test_init_refuses_and_leaves_nothing(tmp_path: Path, words: list[str], text: str) -> None:
    result = invoke("init", tmp_path / "run", *words)
    assert result.exit_code == 2
    assert text in result.stderr
    assert not (tmp_path / "run").exists()


def test_prepare_fills_the_data_in(monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(dermalyze, "prepare", lambda run, spec: Told())
    monkeypatch.chdir(tmp_path)
    for name in ("one.zip", "two.zip"):
        (tmp_path / name).touch()
    assert invoke("prepare", run, "--data", "one.zip", "two.zip").exit_code == 0
    assert Run(run).config().data.path == [str(tmp_path / "one.zip"), str(tmp_path / "two.zip")]
    assert invoke("prepare", run).exit_code == 0
    other = invoke("prepare", run, "--data", "one.zip")
    assert (other.exit_code, other.stderr.count("\n")) == (2, 1)
    assert "other data" in other.stderr


def test_prepare_refuses_data_that_is_not_there(run: Path) -> None:
    result = invoke("prepare", run, "--data", "nowhere.zip")
    assert result.exit_code == 2
    assert Run(run).config().data.path is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("prepare RUN --data a b -h", "prepare RUN --data a --data b -h"),
        ("init --set a=1 b.c=2 RUN", "init --set a=1 --set b.c=2 RUN"),
        ("init RUN --set a=1 --set b=2", "init RUN --set a=1 --set b=2"),
        ("init --set a=1 RUN b=2", "init --set a=1 RUN b=2"),
        ("evaluate RUN --on a b", "evaluate RUN --on a b"),
        ("audit RUN --data a b", "audit RUN --data a b"),
        ("serve --allow-host a.example RUN", "serve --allow-host a.example RUN"),
        ("--version --set a=1 b=2", "--version --set a=1 b=2"),
        ("tarin RUN --set a=1 b=2", "tarin RUN --set a=1 b=2"),
    ],
)
def test_several_values_of_one_option(words: str, expected: str) -> None:
    assert spread(words.split()) == expected.split()


def test_prepare_refused_leaves_the_data_open(monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path) -> None:
    """The wrong folder given once must not freeze the run on it."""
    before = Run(run).config_path.read_bytes()

    def refuse(run: Run, spec: Any) -> None:
        assert spec.data.path == [str(tmp_path / "wrong")]
        raise dermalyze.DataError("no images")

    monkeypatch.setattr(dermalyze, "prepare", refuse)
    for name in ("wrong", "right"):
        (tmp_path / name).mkdir()
    assert invoke("prepare", run, "--data", tmp_path / "wrong").exit_code == 3
    assert Run(run).config_path.read_bytes() == before
    monkeypatch.setattr(dermalyze, "prepare", lambda run, spec: Told())
    assert invoke("prepare", run, "--data", tmp_path / "right").exit_code == 0
    assert Run(run).config().data.path == [str(tmp_path / "right")]


@pytest.mark.parametrize("words", [["--config", "nowhere.yaml"], ["--config", "."], ["--from", "nowhere.yaml"]])
def test_an_unreadable_configuration_says_what_to_give(tmp_path: Path, words: list[str]) -> None:
    result = invoke("init", tmp_path / "new", words[0], tmp_path / words[1])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "give a YAML file in UTF-8" in result.stderr
    assert str(tmp_path) not in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", ["''", "[a, '']"])
def test_an_empty_data_path_is_not_the_working_folder(tmp_path: Path, value: str) -> None:
    result = invoke("init", tmp_path / "new", "--set", f"data.path={value}")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "got an empty text" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_name_that_the_terminal_lacks_is_no_traceback(make_artifact: Any, tmp_path: Path) -> None:
    photo = tmp_path / "naevus-\u03b1.png"
    Image.new("RGB", (64, 64), "tan").save(photo)
    code = "from dermalyze.cli import main; main()"
    words = [sys.executable, "-c", code, "predict", str(make_artifact()), str(photo), "--format", "csv"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "naevus-\\u03b1.png" in done.stdout


def test_the_remedy_does_not_blame_the_pictures_for_a_broken_table(make_artifact: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("file\nphoto.png\n")
    result = invoke("predict", make_artifact(), tmp_path / "rows.csv")
    assert result.exit_code == 3
    assert "give JPEG" not in result.stderr
    assert "their lines" in result.stderr


def test_predict_of_nothing_says_so(make_artifact: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = invoke("predict", make_artifact(), tmp_path / "empty")
    assert result.exit_code == 3
    assert "no image found" in result.stderr
    assert result.stderr.count("\n") == 1


PROGRAM = (sys.executable, "-c", "from dermalyze.cli import main; main()")


@pytest.mark.parametrize("words", [["predict", "photo.jpg"], ["schema"], ["models", "list", "--json"]])
def test_a_closed_standard_output_is_no_success(words: list[str]) -> None:
    """`dermalyze predict photo.jpg >&-`"""
    command = f"exec {shlex.join([*PROGRAM, *words])} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.endswith("error: standard output is closed, so the result would be lost; write it to a file: > FILE\n")


def test_a_closed_standard_output_does_not_matter_where_nothing_is_printed(tmp_path: Path) -> None:
    command = f"exec {shlex.join([*PROGRAM, 'init', str(tmp_path / 'run')])} >&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["evaluate", "--checkpoint", "outputs/a/checkpoint_best.pt", "--test-csv", "t.csv"],
            ["outputs/a", "--test-csv", "t.csv"],
        ),
        (["predict", "photo.jpg", "--checkpoint=outputs/a/checkpoint_latest.pt"], ["outputs/a", "photo.jpg"]),
        (["score", "--checkpoint", "outputs/a/checkpoints/best.safetensors"], ["outputs/a"]),
        (["score", "--checkpoint", "outputs/a"], ["outputs/a"]),
        (["score", "--checkpoint"], ["--checkpoint"]),  # left to the parser, which says what is missing
        (["score", "outputs/a"], ["outputs/a"]),
    ],
)
def test_a_checkpoint_is_another_word_for_its_run(words: list[str], expected: list[str]) -> None:
    assert with_run(words) == [words[0], *expected]


def test_a_pickled_checkpoint_is_refused_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "best.pt").write_bytes(b"x")
    with pytest.raises(SystemExit) as ended:
        main(["predict", "--checkpoint", str(tmp_path / "best.pt"), "photo.jpg"])
    assert ended.value.code == 2
    assert "best.pt: a pickle, which is never loaded; convert it: dermalyze import-weights" in capsys.readouterr().err
