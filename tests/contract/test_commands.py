"""Every task through every command, on forty images: each works, or is refused in one line that names what the task lacks."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator

import command_checks as checks
import pytest
from commands import Row, Worlds
from task_sets import SETS

from dermalyze.cli.table import COMMANDS
from dermalyze.scoring import quantize_gate
from dermalyze.tasks.base import TASKS

SCORE, LINEAR_PROBE, PLOT_EMBEDDINGS, LEAKAGE, OOD = "score", "linear-probe", "plot-embeddings", "leakage", "--ood"
EMBEDDINGS = "embeddings"
"""How the files of `PLOT_EMBEDDINGS` begin."""
METRICS, PAGE = "run/report/evaluation_metrics.json", "run/report/report.html"

TABLE = {
    # the way to the report
    "init": Row("init {run} --config {inputs}/experiment.yaml --json", ("run/config.yaml",), checks.init, after=None),
    "prepare": Row("prepare {run} --json", ("run/manifest.parquet", "run/summary.json"), checks.prepare, after="init"),
    "audit": Row("audit {run} --json", ("run/audit.json", "run/audit.html"), checks.audit, after="prepare"),
    "split": Row("split {run} --json", ("run/splits/*_split.csv", "run/splits/certificate.json"), checks.split, after="audit"),
    "train": Row("train {run} --json", ("run/checkpoints/best.*", "run/metrics.jsonl"), checks.train, after="split"),
    "export": Row("export {run} --json", ("run/export/artifact.json", "run/export/model.onnx"), checks.export, after="train"),
    "score": Row(f"{SCORE} {{run}} --json", ("run/predictions/*-plain.parquet",), checks.score, after="export"),
    "calibrate": Row("calibrate {run} --json", ("run/calibration/plain.json",), checks.calibrate, after="score"),
    "evaluate": Row("evaluate {run} --json", (METRICS, PAGE), checks.evaluate, after="calibrate"),
    "model card": Row(None, ("run/*/model_card.md", "run/export/metrics.json", "run/croissant.json"), checks.model_card),
    "evaluate by subgroups": Row("evaluate {run} --json", (METRICS, PAGE), checks.subgroups, given=checks.by_center),
    "evaluate --report-yaml": Row(
        "evaluate {run} --report-yaml {inputs}/report.yaml --json", (PAGE, "run/report.yaml"), checks.answered_report
    ),
    "evaluate --submission": Row(
        "evaluate {run} --submission {folder}/submission.csv --json",
        ("submission.csv",),
        checks.submission,
    ),
    "run": Row(
        "run {inputs}/experiment.yaml {folder}/second --set seed=5 --json",
        ("second/report/evaluation_metrics.json", "second/export/artifact.json"),
        checks.whole_run,
    ),
    # another set, other predictions, other models
    "evaluate --on": Row(
        "evaluate {run} --on {inputs}/other/set.csv --json", ("run/report/on-set/report.html",), checks.on_another_set
    ),
    "evaluate --recalibrate": Row(
        "evaluate {run} --on {inputs}/other/set.csv --recalibrate 0.5 --json",
        ("run/report/on-set/evaluation_metrics.json",),
        checks.recalibrated,
    ),
    "evaluate --predictions": Row(
        "evaluate {run} --predictions {folder}/theirs.csv --json",
        ("run/report/by-theirs/report.html",),
        checks.of_predictions,
        given=checks.write_predictions_csv,
    ),
    "score --model": Row(
        f"{SCORE} {{run}} --model {{run}}/export/model.onnx --json",
        ("run/predictions/test-by-model.parquet",),
        checks.other_model,
    ),
    "score --ood": Row(
        f"{SCORE} {{run}} {OOD} {{inputs}}/other --json", ("run/predictions/*/other-plain.parquet",), checks.ood
    ),
    # further recipes, corruptions, other forms of the model
    "score --recipes": Row(
        f"{SCORE} {{run}} --recipes flips tta mc_dropout --passes 3 --json",
        ("run/predictions/test-mc_dropout.parquet",),
        checks.recipes,
    ),
    "calibrate recipes": Row(
        "calibrate {run} --json", ("run/calibration/tta.json",), checks.calibrate_recipes, after="score --recipes"
    ),
    "evaluate recipes": Row(
        "evaluate {run} --json", ("run/report/uncertainty.png",), checks.evaluate_recipes, after="calibrate recipes"
    ),
    "score --corruptions": Row(
        f"{SCORE} {{run}} --corruptions 4 --json", ("run/predictions/corrupted/test-plain.parquet",), checks.corruptions
    ),
    "evaluate corruptions": Row(
        "evaluate {run} --json", ("run/report/corruptions.png",), checks.evaluate_corruptions, after="score --corruptions"
    ),
    "export --int8": Row("export {run} --int8 --json", ("run/export-int8/artifact.json",), checks.int8),
    "export --torch-export": Row("export {run} --torch-export --json", ("run/export-torch/program.json",), checks.torch_export),
    # several trainings
    "ensemble": Row(
        "ensemble {run} {folder}/second {folder}/both --json",
        ("both/report/evaluation_metrics.json", "both/export/artifact.json"),
        checks.ensemble,
        after="run",
    ),
    "runs compare": Row(
        "runs compare {run} {folder}/second --out {folder}/compared.html --json",
        ("compared.html",),
        checks.runs_compared,
        after="run",
    ),
    "runs list": Row("runs list {folder} --json", (), checks.runs_listed, after="run"),
    "runs show": Row("runs show {run} --json", (), checks.run_shown),
    "runs diff": Row("runs diff {run} {folder}/second --json", (), checks.runs_differ, after="run"),
    "runs tag": Row("runs tag {run} baseline --json", ("run/tags.json",), checks.tagged),
    "runs clean": Row("runs clean {folder} --yes --json", (), checks.cleaned),
    "compare": Row(
        "compare {inputs}/study.yaml {folder}/study --epochs 1 --json",
        ("study/study.json", "study/study.html"),
        checks.study,
        after=None,
    ),
    "leakage": Row(f"{LEAKAGE} {{run}} --epochs 1 --json", ("run/report/leak*.json",), checks.leakage),
    "controls": Row("controls {run} --epochs 1 --json", ("run/report/controls.json",), checks.controls),
    # the data and the features
    "audit --labels": Row("audit {run} --labels --json", ("run/audit.json", "run/audit.html"), checks.audit_labels),
    "embed": Row(
        "embed {run} --weights {folder}/tiny.safetensors --json",
        ("run/features/tiny_cnn.parquet",),
        checks.embed,
        given=checks.write_weights,
    ),
    "plot-embeddings": Row(
        f"{PLOT_EMBEDDINGS} {{run}} --method pca --by class --json",
        (f"run/report/{EMBEDDINGS}-pca.html", f"run/report/{EMBEDDINGS}-pca-class.png"),
        checks.embeddings,
    ),
    "plot-embeddings --by error": Row(
        f"{PLOT_EMBEDDINGS} {{run}} --by error --json", (f"run/report/{EMBEDDINGS}-tsne-error.png",), checks.embeddings
    ),
    "linear-probe": Row(
        f"{LINEAR_PROBE} {{run}} --json",
        (f"run/report/{LINEAR_PROBE}-own.json",),
        checks.linear_probe(f"{LINEAR_PROBE}-own.json"),
    ),
    "similar": Row("similar {run} {image} --k 3 --out {folder}/similar.html --json", ("similar.html",), checks.similar),
    "explain": Row(
        "explain {run} --count 4 --cases 1 --json",
        ("run/explain/explanations.json", "run/explain/gallery.html"),
        checks.explain,
    ),
    # answers
    "predict --json": Row("predict {run} {image} --threads 1 --json", (), checks.predict),
    "predict --format csv": Row("predict {run} {inputs}/set --threads 1 --format csv", (), checks.predict_csv),
    "predict --explain": Row(
        "predict {run} {image} --threads 1 --explain {folder}/maps --json", ("maps/*.png",), checks.predict
    ),
    "predict --prevalence": Row(
        "predict {run} {image} --threads 1 --prevalence {folder}/shares.yaml --json",
        (),
        checks.predict_elsewhere,
        refused={"multilabel": "class prior"},
        given=checks.write_prevalence,
    ),
    "serve": Row("serve {run} {image}", (), checks.served),
    "verify": Row("verify {run} --json", (), checks.verified),
    # training, and what it would cost
    "plot": Row("plot {run} --json", ("run/report/training_curves.png",), checks.plot),
    "fit-check": Row("fit-check {run} --json", (), checks.fit_check),
    "bench": Row("bench {run} --num-batches 1 --json", (), checks.bench),
    "advise": Row("advise {run} --no-measure --json", (), checks.advise),
}
"""Each command and option that a run goes through, with what it leaves. Where `refused` does not name a task, it works."""

NO_TASK = {"synth", "fetch", "import-weights", "models", "doctor", "schema"}
"""Commands that read neither a run nor an experiment: no task can change what they do."""

CASES = [(kind, name) for kind in TASKS for name in TABLE]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Worlds]]:
    """The table on each task; what two rows need is done once."""
    root = tmp_path_factory.mktemp("commands")
    made: dict[str, Worlds] = {}

    def of(kind: str) -> Worlds:
        if kind not in made:
            (root / kind).mkdir()
            made[kind] = Worlds(kind, root / kind, TABLE)
        return made[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(root / "cache"))
        for limit, value in (("LEAST_AGREEMENT", 0.0), ("MOST_AUROC_CHANGE", 1.0), ("MOST_LOSS_CHANGE", 1.0)):
            patch.setattr(quantize_gate, limit, value)  # five images cannot tell what eight bits lose
        yield of


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_command_works_or_names_what_the_task_lacks(kind: str, name: str, worlds: Callable[[str], Worlds]) -> None:
    row, done = TABLE[name], worlds(kind).after(name)
    if kind in row.refused:
        assert (done.code, done.out) == (2, "")
        (line,) = done.err.splitlines()  # nothing was said before: no work was begun
        assert line.startswith("error: ")
        assert row.refused[kind] in line.replace("_", " ")
        assert done.before == done.after, "a refused command leaves nothing behind"
        return
    assert done.code == 0, done.err
    for pattern in row.files:
        assert fnmatch.filter(done.written, pattern), f"{pattern} was promised"
    assert not list(done.faults())
    row.check(done)


def test_the_table_has_every_command() -> None:
    assert {row.words.split()[0] for row in TABLE.values() if row.words} == set(COMMANDS) - NO_TASK
    assert set(COMMANDS) > NO_TASK


def test_every_task_has_a_set() -> None:
    assert set(SETS) == set(TASKS)
    assert {kind for row in TABLE.values() for kind in row.refused} <= set(TASKS)
