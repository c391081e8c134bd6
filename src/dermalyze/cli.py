"""The command line: a table of commands, each a thin shell over the library function of the same name.

Nothing heavy is imported before a command needs it, so that `dermalyze --help` answers at once.
"""

from __future__ import annotations

import functools
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import dermalyze
from dermalyze.errors import DermalyzeError, MissingExtraError, one_line

if TYPE_CHECKING:
    from dermalyze.core.result import Result

# One command, one public function of the package.
COMMANDS = {
    "init": "init",
    "prepare": "prepare",
    "audit": "audit",
    "split": "split",
    "train": "train",
    "export": "export",
    "probe": "probe",
    "calibrate": "calibrate",
    "evaluate": "evaluate",
    "run": "run",
    "synth": "synth",
    "fetch": "fetch",
    "predict": "predict",
    "serve": "serve_http",
    "verify": "verify",
    "import-weights": "import_weights",
    "plot": "plot",
    "fit-check": "fit_check",
    "ensemble": "ensemble",
    "compare": "compare",
    "leak-bill": "leak_bill",
    "controls": "controls",
    "bench": "bench",
    "embed": "embed",
    "map": "map",
    "similar": "similar",
    "explain": "explain",
    "frozen": "frozen",
    "advise": "advise",
    "models": "models",
    "runs": "runs",
    "doctor": "doctor",
    "schema": "schema",
}

EXTRAS = {
    "explain": "captum",
    "train": "torch torchvision timm safetensors sklearn scipy pandas pyarrow matplotlib tensorboard onnx onnxscript jinja2",
}
"""Modules that each optional part of the installation brings."""


def examples(*lines: str) -> str:
    """The end of a help page, unwrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    name="dermalyze",
    help="Train, judge and serve classifiers of medical images, skin lesions first. Not for diagnosis.",
    epilog=examples("dermalyze run experiment.yaml outputs/first", "dermalyze predict outputs/first photo.jpg"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":  # a letter it lacks is shown by its number
            stream.reconfigure(errors="backslashreplace")
    app(spread(list(sys.argv[1:] if argv is None else argv)), prog_name="dermalyze")


SEVERAL = ("--compare", "--data", "--foreign", "--images", "--metadata", "--methods", "--only", "--recipes", "--set")
"""Options that take several values."""


ASSIGNED = ("--set", "--metadata")
"""Those whose words are assignments."""


def spread(words: list[str]) -> list[str]:
    """Give each of several values its option: `--data a.zip b.zip`, `--recipes tta flips`, `--set a=1 b=2`.

    >>> spread(["prepare", "RUN", "--data", "a.zip", "b.zip", "--json"])
    ['prepare', 'RUN', '--data', 'a.zip', '--data', 'b.zip', '--json']
    >>> spread(["probe", "RUN", "--foreign", "films", "pages", "--corruptions", "3"])
    ['probe', 'RUN', '--foreign', 'films', '--foreign', 'pages', '--corruptions', '3']
    >>> spread(["predict", "RUN", "--metadata", "age=55", "sex=male", "a.jpg"])
    ['predict', 'RUN', '--metadata', 'age=55', '--metadata', 'sex=male', 'a.jpg']
    >>> spread(["init", "--set", "seed=1", "train.epochs=2", "RUN"])
    ['init', '--set', 'seed=1', '--set', 'train.epochs=2', 'RUN']
    >>> spread(["controls", "RUN", "--only", "border", "shortcut", "--epochs", "4"])
    ['controls', 'RUN', '--only', 'border', '--only', 'shortcut', '--epochs', '4']
    """
    spread_words: list[str] = []
    option: str | None = None
    taken = 0
    for word in words:
        if word.startswith("-"):
            option, taken = (word, 0) if word in SEVERAL else (None, 0)
        elif option is not None:
            # names and paths come after RUN (the run folder is always first); an assignment is known by its shape.
            more = option not in ASSIGNED or re.match(r"[A-Za-z_][\w.]*=", word)
            if taken and more:
                spread_words.append(option)
            elif taken:
                option = None
            taken += 1
        spread_words.append(word)
    return spread_words


def assignment(word: str) -> tuple[str, str]:
    """A name and its value.

    >>> assignment("site=lower extremity")
    ('site', 'lower extremity')
    """
    name, equals, value = word.partition("=")
    if not name or not equals:
        raise dermalyze.UsageError(f"--metadata {word}: write NAME=VALUE, for example age=55")
    return name, value


def command(name: str, *lines: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command with its examples, and turn every expected failure into one line and an exit code."""

    def register(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                body(*args, **kwargs)
            except (DermalyzeError, OSError, MemoryError, ImportError) as error:
                line, code = explain(error, name)
                if line is None:
                    raise
                typer.echo(f"error: {line}", err=True)
                raise typer.Exit(code) from None

        app.command(name, epilog=examples(*lines))(guarded)
        return guarded

    return register


def explain(error: BaseException, doing: str) -> tuple[str | None, int]:
    """The line and exit code of a failure; no line for one that nobody foresaw.

    >>> explain(MemoryError(), "train")
    ('train: out of memory; close other programs, or make the images, the batch or the cache smaller', 5)
    """
    import errno

    if isinstance(error, DermalyzeError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return f"{doing}: out of memory; close other programs, or make the images, the batch or the cache smaller", 5
    if isinstance(error, ImportError):
        root = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if root in modules.split()), None)
        if extra is None or sys.modules.get(root) is not None:
            return None, 1
        missing = MissingExtraError(f"dermalyze {doing}", extra)
        return str(missing), missing.exit_code
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
        place = f" ({Path(str(error.filename)).name})" if error.filename else ""
        return one_line(f"{doing}: {error.strerror}{place}; check the permission and the free space of the folder"), 5
    if isinstance(error, OSError) and error.errno in (
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    ):
        place = f" ({Path(str(error.filename)).name})" if error.filename else ""
        return one_line(f"{doing}: {error.strerror}{place}; something else stands where a file of the run belongs: move it"), 5
    return None, 1


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call the library function of a command, imported now."""
    return getattr(dermalyze, COMMANDS[name])(*args, **kwargs)


def show(result: Result, as_json: bool) -> None:
    """Print a result for a machine or for a person."""
    if as_json:
        typer.echo(json.dumps(result.as_dict(), ensure_ascii=False, allow_nan=False))
    else:
        for line in result.lines():
            typer.echo(line)


def stage(name: str, root: Path, as_json: bool, **kwargs: Any) -> None:
    """Run one stage on a run folder."""
    run = dermalyze.Run.open(root)
    show(call(name, run, run.config(), **kwargs), as_json)


class Counted:
    """Iterate over rows and count them."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self.source, self.rows = rows, 0

    def __iter__(self) -> Iterator[Any]:
        for row in self.source:
            self.rows += 1
            yield row


class Format(StrEnum):
    """Forms of answers."""

    table = "table"
    jsonl = "jsonl"
    csv = "csv"


class Provider(StrEnum):
    """What computes the network."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Balance(StrEnum):
    """Class balance of a synthetic set."""

    ham10000 = "ham10000"
    even = "even"


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for example train.epochs=20; as often as needed."),
]
LeakOption = Annotated[
    str | None,
    typer.Option("--accept-leak", metavar="REASON", help="Go on although data leaks; the reason then stands on every result."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(dermalyze.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of the program itself."""


@command(
    "init",
    "dermalyze init outputs/first --config experiments/dermalyze.yaml",
    "dermalyze init outputs/second --config experiments/dermalyze.yaml --set train.epochs=20 seed=7",
    "dermalyze init outputs/third --from config.yaml",
)
def init(
    run: RunArgument,
    config: Annotated[Path | None, typer.Option("--config", help="The experiment's YAML file; default: every default.")] = None,
    legacy: Annotated[Path | None, typer.Option("--from", help="An older config.yaml (the Dermalyze document's keys).")] = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a run folder and freeze its configuration."""
    show(call("init", run, config=config, legacy=legacy, sets=sets or ()), as_json)


@command(
    "prepare",
    "dermalyze prepare outputs/first",
    "dermalyze prepare outputs/first --data ham10000",
    "dermalyze prepare outputs/first --data images_part_1.zip images_part_2.zip HAM10000_metadata.csv",
)
def prepare(
    run: RunArgument,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="FOLDER|ZIP...", help="The images, where the configuration names none."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Decode, hash and list every image: the manifest."""
    if data:
        for path in data:
            if not path.exists():
                raise dermalyze.UsageError(f"--data {path}: not there; relative paths start from the working folder")
        with dermalyze.Run.open(run).filled_data_path([str(path.absolute()) for path in data]):
            stage("prepare", run, as_json)
    else:
        stage("prepare", run, as_json)


@command(
    "audit", "dermalyze audit outputs/first", "dermalyze audit outputs/first --labels", "dermalyze audit outputs/first --json"
)
def audit(
    run: RunArgument,
    labels: Annotated[bool, typer.Option("--labels", help="Judge every label by a model that has not seen the image.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find duplicates, contradictions and give-away columns."""
    stage("audit", run, as_json, labels=labels)


@command("split", "dermalyze split outputs/first")
def split(run: RunArgument, as_json: JsonOption = False) -> None:
    """Split without a leak, and certify it."""
    stage("split", run, as_json)


@command(
    "train",
    "dermalyze train outputs/first",
    "dermalyze train outputs/first --resume outputs/first",
    "dermalyze train outputs/first --accept-leak 'the split of the paper'",
)
def train(
    run: RunArgument,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="PATH", help="Of this run; default: the newest.")] = None,
    accept_leak: LeakOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train; goes on by itself where it was stopped."""
    stage("train", run, as_json, resume=resume, accept_leak=accept_leak)


@command("export", "dermalyze export outputs/first", "dermalyze export outputs/first --int8")
def export(
    run: RunArgument,
    int8: Annotated[bool, typer.Option("--int8", help="A smaller one, where it answers the same; after calibrate.")] = False,
    torch_export: Annotated[
        bool, typer.Option("--torch-export", help="The network alone as a torch.export program; after export.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the artifact, checked against PyTorch."""
    stage("export", run, as_json, int8=int8, torch_export=torch_export)


@command(
    "probe",
    "dermalyze probe outputs/first",
    "dermalyze probe outputs/first --recipes tta mc_dropout",
    "dermalyze probe outputs/first --foreign chest_films pneumoniamnist.npz --corruptions 300",
    "dermalyze probe outputs/first --model theirs.onnx --set preprocess.size=224",
)
def probe(
    run: RunArgument,
    recipes: Annotated[
        list[str] | None,
        typer.Option("--recipes", metavar="NAME...", help="Further ones to compare: plain, flips, tta, mc_dropout."),
    ] = None,
    passes: Annotated[int, typer.Option("--passes", min=2, help="Of mc_dropout.")] = 20,
    foreign: Annotated[
        list[Path] | None, typer.Option("--foreign", metavar="FOLDER|NPZ...", help="Pictures that are no skin.")
    ] = None,
    corruptions: Annotated[
        int, typer.Option("--corruptions", metavar="N", min=0, help="Test images to score corrupted copies of.")
    ] = 0,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="Another model (.onnx, .safetensors), not its own.")
    ] = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store the exported model's scores of every part."""
    options = {"recipes": recipes, "passes": passes, "foreign": foreign or (), "corruptions": corruptions}
    stage("probe", run, as_json, **options, model=model, sets=sets or ())


@command("calibrate", "dermalyze calibrate outputs/first", "dermalyze calibrate outputs/first --json")
def calibrate(run: RunArgument, as_json: JsonOption = False) -> None:
    """Fit what turns scores into probabilities."""
    stage("calibrate", run, as_json)


@command(
    "evaluate",
    "dermalyze evaluate outputs/first",
    "dermalyze evaluate outputs/first --on other-clinic.csv --label-map map.yaml",
    "dermalyze evaluate outputs/first --submission isic.csv",
    "dermalyze evaluate outputs/first --on other-clinic.csv --recalibrate 0.3",
    "dermalyze evaluate outputs/first --predictions theirs.csv",
    "dermalyze evaluate outputs/first --report-yaml report.yaml",
)
def evaluate(
    run: RunArgument,
    on: Annotated[Path | None, typer.Option("--on", metavar="FOLDER|CSV", help="Another labelled set.")] = None,
    label_map: Annotated[
        Path | None, typer.Option("--label-map", metavar="FILE", help="Labels of that set to classes.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option("--submission", metavar="FILE.csv", help="Probabilities as the ISIC challenges take them.")
    ] = None,
    recalibrate: Annotated[
        float | None,
        typer.Option("--recalibrate", metavar="SHARE", help="Fit a calibrator on this share of that set, measure on the rest."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="FILE", help="Of another model: image_id and a column a class.")
    ] = None,
    scores: Annotated[
        str | None, typer.Option("--scores", metavar="probabilities|logits", help="What FILE holds; default: as it looks.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Go on although FILE lacks test images.")] = False,
    report_yaml: Annotated[
        Path | None, typer.Option("--report-yaml", metavar="FILE", help="What only a person can tell, for the checklists.")
    ] = None,
    accept_leak: LeakOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure with intervals, and write the report."""
    refuse_mixed(on, label_map, recalibrate, predictions, scores, partial, report_yaml)
    asked: dict[str, Any] = {"accept_leak": accept_leak, "submission": submission}
    if predictions is not None:
        alone = not dermalyze.Run(run).config_path.is_file()  # a folder for the report of a file that has labels of its own
        opened = dermalyze.Run(run) if alone else dermalyze.Run.open(run)
        spec = dermalyze.ExperimentSpec() if alone else opened.config()
        found = dermalyze.evaluate_predictions(opened, spec, predictions, scores=scores, partial=partial, **asked)
    else:
        opened = dermalyze.Run.open(run)
        spec = opened.config()
        if on is None:
            found = dermalyze.evaluate(opened, spec, report_yaml=report_yaml, **asked)
        elif recalibrate is None:
            found = dermalyze.evaluate_external(opened, spec, on, label_map=label_map, **asked)
        else:
            found = dermalyze.recalibrate(opened, spec, on, recalibrate, label_map=label_map, **asked)
    show(found, as_json)


def refuse_mixed(
    on: Path | None,
    label_map: Path | None,
    recalibrate: float | None,
    predictions: Path | None,
    scores: str | None,
    partial: bool,
    report_yaml: Path | None,
) -> None:
    """Refuse options of `evaluate` that do not go together.

    Raises:
        UsageError: with what to do.
    """
    if predictions is not None and on is not None:
        raise dermalyze.UsageError("--predictions and --on exclude each other: name the predictions, or the set to predict")
    if predictions is None and (scores is not None or partial):
        raise dermalyze.UsageError("--scores and --partial belong to: --predictions FILE")
    if report_yaml is not None and (on is not None or predictions is not None):
        raise dermalyze.UsageError(
            "--report-yaml belongs to the report on the run's own test part; leave out --on and --predictions"
        )
    for option, value in (("--label-map", label_map), ("--recalibrate", recalibrate)):
        if on is None and value is not None:
            raise dermalyze.UsageError(f"{option} belongs to another set: give that with --on FOLDER or --on FILE.csv")


@command(
    "run",
    "dermalyze run experiments/dermalyze.yaml",
    "dermalyze run experiments/dermalyze.yaml outputs/first --set data.path=ham10000",
)
def run(
    config: Annotated[Path, typer.Argument(metavar="EXPERIMENT.YAML", help="The experiment.")],
    root: Annotated[Path | None, typer.Argument(metavar="RUN", help="The run folder; default: outputs/run_DATE_TIME.")] = None,
    sets: SetOption = None,
    accept_leak: LeakOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do all of the above; given again, go on where it stopped."""
    show(call("run", config, root, sets=sets or (), accept_leak=accept_leak), as_json)


@command(
    "synth",
    "dermalyze synth synthetic --lesions 400 --seed 7",
    "dermalyze synth easy --size 64 --difficulty 0.2 --balance even",
    "dermalyze synth noisy --plant label-noise",
    "dermalyze synth leaky --plant duplicates",
)
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    lesions: Annotated[int, typer.Option("--lesions", help="Number of lesions; each has one to several photographs.")] = 400,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same bytes.")] = 7,
    size: Annotated[str, typer.Option("--size", metavar="PX|HxW", help="Edge of a square, or height x width.")] = "150x200",
    difficulty: Annotated[float, typer.Option("--difficulty", min=0, max=1, help="0 (classes far apart) to 1 (hard).")] = 0.3,
    balance: Annotated[Balance, typer.Option("--balance", help="Skewed as in HAM10000, or even.")] = Balance.ham10000,
    plant: Annotated[
        str | None, typer.Option("--plant", metavar="KIND", help="A known defect: crossing, duplicates, label-noise, shortcut.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Paint synthetic dermoscopy in the layout of HAM10000."""
    edges = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    if edges is None:
        raise dermalyze.UsageError(f"--size {size}: write one edge in pixels (96) or height x width (150x200)")
    size_px = (int(edges[1]), int(edges[2] or edges[1]))
    drawn = {"lesions": lesions, "seed": seed, "size_px": size_px, "difficulty": difficulty, "balance": balance.value}
    show(call("synth", out, **drawn, plant=plant), as_json)


@command(
    "fetch",
    "dermalyze fetch ham10000",
    "dermalyze fetch isic2019 data/isic2019 --yes",
    "dermalyze fetch pad_ufes_20",
)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ham10000, isic2018, isic2019, isic2020, bcn20000, ...")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The folder; default: one of that name here.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree to size and licence without being asked.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Download a known data set; goes on where it stopped."""

    def ask(question: str) -> bool:
        return sys.stdin.isatty() and typer.confirm(question, err=True)

    show(call("fetch", name, out, confirm=None if yes else ask), as_json)


@command(
    "predict",
    "dermalyze predict photo.jpg",
    "dermalyze predict outputs/first photo.jpg",
    "dermalyze predict outputs/first/export photos more.zip --format csv --names",
    "dermalyze predict outputs/first photo.jpg --metadata age=55 sex=male site=back",
    "dermalyze predict outputs/pairs dermoscopy.jpg --second clinical.jpg",
    "dermalyze predict outputs/first photo.jpg --explain maps",
    "dermalyze predict outputs/first - --format jsonl < photo.jpg",
)
def predict(
    asked: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] IMAGE...",
            help="A run or artifact (default: the package's small model), then files, folders, CSV, zip, - for standard input.",
        ),
    ],
    form: Annotated[Format, typer.Option("--format", help="How answers are written.")] = Format.table,
    names: Annotated[bool, typer.Option("--names", help="Show file names, which may identify a person.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in memory at a time.")] = 32,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: one a core.")] = None,
    prevalence: Annotated[
        Path | None, typer.Option("--prevalence", metavar="FILE", help="YAML: the share of each class where you work.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="NAME=VALUE...", help="Of patient and lesion: age=55 sex=male.")
    ] = None,
    second: Annotated[
        str | None, typer.Option("--second", metavar="IMAGE", help="The case's second picture, of a model of two.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option("--explain", metavar="DIR", help="Write each picture there with what spoke for the class.")
    ] = None,
    provider: Annotated[
        Provider, typer.Option("--provider", help="What computes the network; auto measures both.")
    ] = Provider.onnxruntime,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
) -> None:
    """Answer for pictures; a bad one has its own line."""
    from dermalyze.config.base import read_mapping
    from dermalyze.core.progress import say
    from dermalyze.serve.predictor.output import write
    from dermalyze.serve.predictor.packaged import FOLDER, TOLD, told_apart

    model, images = told_apart(asked)
    if not images:
        raise dermalyze.UsageError(f"{model.name} is a model; name the images that it is to answer for")
    if model == FOLDER:
        say(TOLD)
    shares = read_mapping(prevalence, "of each class to its share, such as mel: 0.03") if prevalence is not None else None
    known = dict(map(assignment, metadata or ()))
    given = {"prevalence": shares, "metadata": known, "second": second, "explain": explain, "provider": provider.value}
    answers = call("predict", model, images, batch_size=batch_size, threads=threads, **given)
    counted = Counted(answers.rows)
    shown = {"classes": answers.classes, "format": "jsonl" if as_json else form.value, "names": names, "task": answers.task}
    errors = write(counted, sys.stdout, **shown)
    if counted.rows == 0:
        raise dermalyze.DataError("no image found; name image files, or a folder, zip or CSV that holds some")
    if errors == counted.rows:
        raise dermalyze.DataError(
            f"no image was answered ({errors} of {counted.rows} could not be read); mend what their lines name"
        )
    if errors:
        say(f"{errors} of {counted.rows} images could not be read; their lines say why")


@command(
    "serve",
    "dermalyze serve",
    "dermalyze serve outputs/first",
    "dermalyze serve outputs/first outputs/second --port 8080",
    "dermalyze serve outputs/first --host 0.0.0.0 --allow-host clinic.example --keys-file keys.txt",
)
def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL...]", help="Runs or artifacts; the first is the default. None: the package's small model."
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8000,
    hosts: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="A name it may be called by; * allows all.")
    ] = None,
    origins: Annotated[
        list[str] | None, typer.Option("--allow-origin", metavar="URL", help="A page elsewhere that may post to it.")
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option("--keys-file", metavar="FILE", help="API keys, one a line; else DERMALYZE_API_KEYS.")
    ] = None,
    queue: Annotated[int | None, typer.Option("--queue", help="Requests that may wait; default 8.")] = None,
    body_mib: Annotated[int | None, typer.Option("--body-mib", help="Largest request, MiB; default 32.")] = None,
    deadline_s: Annotated[
        float | None, typer.Option("--deadline", help="Seconds until a request is given up; default 30.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="CPU threads of one pass; default: half of the cores.")
    ] = None,
    provider: Annotated[
        Provider, typer.Option("--provider", help="What computes the network; auto measures both.")
    ] = Provider.onnxruntime,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON object once it listens.")] = False,
) -> None:
    """Answer over HTTP, until it is stopped."""
    from dermalyze.serve.predictor.packaged import FOLDER
    from dermalyze.serve.server.server import spec_of

    given = {"host": host, "port": port, "hosts": tuple(hosts or ()), "origins": tuple(origins or ())}
    limits = {"queue": queue, "body_mib": body_mib, "deadline_s": deadline_s, "threads": threads}
    spec = spec_of({**given, **limits, "provider": provider.value})
    tell = (lambda address: typer.echo(json.dumps({"address": address}))) if as_json else None
    call("serve", models or [FOLDER], spec, keys_file=keys_file, started=tell)


@command("verify", "dermalyze verify outputs/first", "dermalyze verify outputs/first/export --json")
def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run, or an artifact (its export folder).")],
    as_json: JsonOption = False,
) -> None:
    """Hash a model again and ask for its recorded answers."""
    found = call("verify", model)
    show(found, as_json)
    if not found.passed:
        raise typer.Exit(dermalyze.ModelError.exit_code)


@command(
    "import-weights",
    "dermalyze import-weights resnet18.pth resnet18.safetensors",
    "dermalyze import-weights checkpoint.pt checkpoint.safetensors --trust",
)
def import_weights(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint as torch.save writes it.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to make.")],
    trust: Annotated[bool, typer.Option("--trust", help="Run the file's own code if it holds more than tensors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a checkpoint you trust into safetensors."""
    show(call("import-weights", source, out, trust=trust), as_json)


@command("plot", "dermalyze plot outputs/first")
def plot(run: RunArgument, as_json: JsonOption = False) -> None:
    """Draw the training curves."""
    stage("plot", run, as_json)


@command("fit-check", "dermalyze fit-check outputs/first")
def fit_check(run: RunArgument, as_json: JsonOption = False) -> None:
    """Say whether it over-fitted, under-fitted or fitted well."""
    stage("fit-check", run, as_json)


@command(
    "ensemble",
    "dermalyze ensemble outputs/first outputs/second outputs/third outputs/ensemble",
    "dermalyze ensemble --config experiments/dermalyze.yaml --members 5 outputs/ensemble",
)
def ensemble(
    roots: Annotated[list[Path], typer.Argument(metavar="RUN... OUT", help="Finished runs, then the folder to make.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="An experiment; its members are trained by seeds, and OUT alone is named.")
    ] = None,
    members: Annotated[int, typer.Option("--members", min=2, help="With --config: how many to train.")] = 5,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Average several trainings; train them first, if asked."""
    show(call("ensemble", *roots, config=config, members=members, sets=sets or ()), as_json)


@command(
    "compare",
    "dermalyze compare experiments/study.yaml",
    "dermalyze compare experiments/study.yaml outputs/rehearsal --epochs 1 --cost-only",
)
def compare(
    study: Annotated[Path, typer.Argument(metavar="STUDY.YAML", help="An experiment and its variants.")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The folder; default: outputs/ and the name.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Of every training, for a rehearsal.")] = None,
    sets: SetOption = None,
    cost_only: Annotated[bool, typer.Option("--cost-only", help="Measure what it will cost, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train variants on one split; table them with tests."""
    show(call("compare", study, out, epochs=epochs, sets=sets or (), cost_only=cost_only), as_json)


@command(
    "leak-bill",
    "dermalyze leak-bill outputs/first",
    "dermalyze leak-bill outputs/first --epochs 6 --set preprocess.size=[96,128]",
)
def leak_bill(
    run: RunArgument,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of each of the two trainings.")] = 10,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train twice to show what a random split flatters."""
    stage("leak-bill", run, as_json, epochs=epochs, sets=sets or ())


@command(
    "controls",
    "dermalyze controls outputs/first",
    "dermalyze controls outputs/first --only shuffled metadata shortcut",
    "dermalyze controls outputs/first --epochs 4 --set preprocess.size=[72,96]",
)
def controls(
    run: RunArgument,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME...",
            help="Some of: shuffled, metadata, lesion, background, border, shortcut, planted.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of each training.")] = 6,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try what must fail: is the result real?"""
    stage("controls", run, as_json, only=only or (), epochs=epochs, sets=sets or ())


@command("bench", "dermalyze bench outputs/first", "dermalyze bench outputs/first --num-batches 30 --json")
def bench(
    run: RunArgument,
    num_batches: Annotated[int, typer.Option("--num-batches", min=1, help="Batches and steps to time.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Time loading and training steps on this machine."""
    stage("bench", run, as_json, num_batches=num_batches)


FeaturesOption = Annotated[
    str, typer.Option("--features", metavar="NAME", help="own (the run's network), or a name that embed stored.")
]


@command(
    "embed",
    "dermalyze embed outputs/first",
    "dermalyze embed outputs/first --backbone vit_small_patch14_dinov2.lvd142m",
    "dermalyze embed outputs/first --weights mobilenetv2_035_imagenet.safetensors",
    "dermalyze embed outputs/first --clip prompts.yaml",
)
def embed(
    run: RunArgument,
    backbone: Annotated[str | None, typer.Option("--backbone", metavar="NAME", help="A timm network, from its hub.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="A local file with its sidecar.")] = None,
    clip: Annotated[
        Path | None, typer.Option("--clip", metavar="YAML", help="A CLIP-type model and prompts of the classes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Store features of every image by a pretrained network."""
    stage("embed", run, as_json, backbone=backbone, weights=weights, clip=clip)


@command(
    "map",
    "dermalyze map outputs/first",
    "dermalyze map outputs/first --method pca --by error",
    "dermalyze map outputs/first --features mobilenetv2_035 --by part",
)
def map_(
    run: RunArgument,
    features: FeaturesOption = "own",
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="pca, tsne, or umap with its extra.")] = "tsne",
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Coloured by class, error, site, source or part.")] = "class",
    part: Annotated[str | None, typer.Option("--part", metavar="NAME", help="train, val, cal, test or all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the features in two dimensions."""
    stage("map", run, as_json, features=features, method=method, by=by, part=part)


@command(
    "similar",
    "dermalyze similar outputs/first photo.jpg",
    "dermalyze similar outputs/first photo.jpg --k 5 --out similar.html",
)
def similar(
    run: RunArgument,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="One picture.")],
    k: Annotated[int, typer.Option("--k", min=1, help="Training cases to show, one a lesion.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="A sheet with the pictures: .png or .html.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the training cases that a picture resembles."""
    stage("similar", run, as_json, image=image, k=k, out=out)


@command(
    "explain",
    "dermalyze explain outputs/first",
    "dermalyze explain outputs/first --images ISIC_0024306 ISIC_0024307 --methods gradcam occlusion --count 0",
    "dermalyze explain outputs/first --compare outputs/second outputs/third --count 200",
)
def explain_(
    run: RunArgument,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", metavar="ID|FILE|FOLDER...", help="Default: mistakes, confusions, doubt, each class."),
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--methods", metavar="NAME...", help="Such as gradcam, rollout, occlusion; or all.")
    ] = None,
    compare: Annotated[
        list[Path] | None, typer.Option("--compare", metavar="RUN...", help="Further runs on the same test images.")
    ] = None,
    count: Annotated[int, typer.Option("--count", help="Test lesions on which maps are graded; 0: none.")] = 100,
    cases: Annotated[int, typer.Option("--cases", help="Pictures a section of the gallery.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Show where networks look, graded for faithfulness."""
    options = {"images": images or (), "methods": methods or (), "compare": compare or ()}
    stage("explain", run, as_json, **options, count=count, cases=cases)


@command("frozen", "dermalyze frozen outputs/first", "dermalyze frozen outputs/first --features mobilenetv2_035 --json")
def frozen(
    run: RunArgument, features: FeaturesOption = "own", accept_leak: LeakOption = None, as_json: JsonOption = False
) -> None:
    """Judge simple classifiers on frozen features."""
    stage("frozen", run, as_json, features=features, accept_leak=accept_leak)


@command(
    "advise",
    "dermalyze advise outputs/first",
    "dermalyze advise outputs/first --need interpretability --no-measure",
    "dermalyze advise --images 800 --classes 2 --device cpu --need edge",
)
def advise(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run that is split: its data is counted.")] = None,
    images: Annotated[int | None, typer.Option("--images", help="Without a run: how many images.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="Without a run: how many classes.")] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="cpu|gpu", help="Default: what is here.")] = None,
    need: Annotated[
        str | None, typer.Option("--need", metavar="NEED", help="interpretability, speed, accuracy or edge.")
    ] = None,
    like: Annotated[str | None, typer.Option("--like", metavar="SET", help="pathmnist, chestmnist or dermamnist.")] = None,
    metadata: Annotated[bool, typer.Option("--metadata", help="Age, sex and site are at hand.")] = False,
    measure: Annotated[
        bool | None, typer.Option("--measure/--no-measure", help="Time the leaders here; default: for a run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rank networks for a task, with reasons and YAML."""
    opened = None if run is None else dermalyze.Run.open(run)
    options = {"images": images, "classes": classes, "device": device, "need": need, "like": like, "metadata": metadata}
    show(call("advise", opened, None if opened is None else opened.config(), **options, measure=measure), as_json)


@command("models", "dermalyze models list", "dermalyze models show resnet50", "dermalyze models list --json")
def models(
    action: Annotated[str, typer.Argument(metavar="list|show", help="What to do.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="show: the network.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what networks cost and can do."""
    show(call("models", action, name), as_json)


@command(
    "runs",
    "dermalyze runs list",
    "dermalyze runs show outputs/first",
    "dermalyze runs diff outputs/first outputs/second",
    "dermalyze runs compare outputs/first outputs/second --out compared.html",
    "dermalyze runs tag outputs/first baseline paper --remove draft",
    "dermalyze runs clean outputs --yes",
)
def runs(
    action: Annotated[str, typer.Argument(metavar="list|show|diff|compare|tag|clean", help="What to do.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="WORD...", help="Folder, runs or tags; see below.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="TAG", help="tag: take a tag away.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="clean: delete without asking.")] = False,
    shared: Annotated[bool, typer.Option("--shared", help="compare: on the images that all test parts have.")] = False,
    by: Annotated[str, typer.Option("--by", metavar="image|lesion", help="compare: what counts as one case.")] = "image",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="compare: write a page as well.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List, show, compare, tag and tidy up runs."""
    found = call("runs", action, words or (), remove=remove or (), yes=yes, shared=shared, by=by, out=out)
    show(found, as_json)
    if action == "clean" and found.values["items"] and not yes and not as_json:
        if not sys.stdin.isatty():
            typer.echo("nothing was removed; to remove it, add --yes", err=True)
        elif typer.confirm("Remove this?", err=True):
            show(call("runs", action, words or (), yes=True), as_json)


@command("doctor", "dermalyze doctor", "dermalyze doctor outputs --json")
def doctor(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the runs are to stand.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Check Python, packages, device, disk and memory."""
    found = call("doctor", folder)
    show(found, as_json)
    if not found.usable:
        raise typer.Exit(dermalyze.ResourceError.exit_code)


@command("schema", "dermalyze schema", "dermalyze schema > experiment.schema.json")
def schema(as_json: JsonOption = True) -> None:
    """Print the JSON Schema of an experiment's YAML file."""
    typer.echo(json.dumps(call("schema"), indent=2, ensure_ascii=False))
