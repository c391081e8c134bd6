"""Every command, declared once: the public functions, the help, completion and `docs/reference/cli.md` come from this table.

The options of a command are in the file of its group, as the signature of the function of its name.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command of the command line, and the function of the package behind it.

    Attributes:
        name: as it is typed.
        source: where the function is, `module:function` within the package.
        help: what it does, in a line of at most 58 characters.
        examples: words after the name that work.
        python: the public name of the function where it is not the command's own.
    """

    name: str
    source: str
    help: str
    examples: tuple[str, ...]
    python: str = ""

    @property
    def public(self) -> str:
        """The name of the function in `dermalyze`.

        >>> COMMANDS["fit-check"].public, COMMANDS["serve"].public
        ('fit_check', 'serve_http')
        """
        return self.python or self.name.replace("-", "_")

    @property
    def lines(self) -> tuple[str, ...]:
        """The examples as they are typed.

        >>> COMMANDS["split"].lines
        ('dermalyze split outputs/first',)
        """
        return tuple(f"dermalyze {self.name} {words}".rstrip() for words in self.examples)


class Group(NamedTuple):
    """Commands that are used together.

    Attributes:
        title: heading in help and reference.
        module: the file beside this one with their options.
        commands: in the order of the help.
    """

    title: str
    module: str
    commands: tuple[Command, ...]


GROUPS = (
    Group(
        "Steps of a run",
        "run_steps",
        (
            Command(
                "init",
                "stages.init:init",
                "Make a run folder and freeze its configuration.",
                (
                    "outputs/first --config experiments/dermalyze.yaml",
                    "outputs/second --config experiments/dermalyze.yaml --set train.epochs=20 seed=7",
                    "outputs/third --from config.yaml",
                ),
            ),
            Command(
                "prepare",
                "stages.prepare:prepare",
                "Decode, hash and list every image in the manifest.",
                (
                    "outputs/first",
                    "outputs/first --data ham10000",
                    "outputs/first --data images_part_1.zip images_part_2.zip HAM10000_metadata.csv",
                ),
            ),
            Command(
                "audit",
                "stages.audit:audit",
                "Find duplicates, contradictions and leaking columns.",
                ("outputs/first", "outputs/first --labels", "outputs/first --json"),
            ),
            Command("split", "stages.split:split", "Split without a leak, and certify it.", ("outputs/first",)),
            Command(
                "train",
                "stages.train:train",
                "Train, or resume where training was stopped.",
                ("outputs/first", "outputs/first --resume outputs/first", "outputs/first --accept-leak 'published split'"),
            ),
            Command(
                "export",
                "stages.export:export",
                "Write the artifact, checked against PyTorch.",
                ("outputs/first", "outputs/first --int8", "outputs/first --fp16"),
            ),
            Command(
                "score",
                "stages.score:score",
                "Store the exported model's scores of every part.",
                (
                    "outputs/first",
                    "outputs/first --recipes tta mc_dropout",
                    "outputs/first --ood chest_films pneumoniamnist.npz --corruptions 300",
                    "outputs/first --model theirs.onnx --set preprocess.size=224",
                ),
            ),
            Command("calibrate", "stages.calibrate:calibrate", "Fit what turns scores into probabilities.", ("outputs/first",)),
            Command(
                "evaluate",
                "stages.evaluate:evaluate",
                "Measure with intervals, and write the report.",
                (
                    "outputs/first",
                    "outputs/first --on other-clinic.csv --label-map map.yaml --recalibrate 0.3",
                    "outputs/first --test-csv test_split.csv --images-dir images",
                    "outputs/first --submission isic.csv",
                    "outputs/first --predictions theirs.csv",
                    "outputs/first --report-yaml report.yaml",
                ),
            ),
            Command(
                "run",
                "workflows.pipeline:run_experiment",
                "All steps above; given again, resume where it stopped.",
                ("experiments/dermalyze.yaml", "experiments/dermalyze.yaml outputs/first --set data.path=ham10000"),
            ),
        ),
    ),
    Group(
        "Data",
        "datasets",
        (
            Command(
                "fetch",
                "data.fetch:fetch",
                "Download a public data set, resumed and checked.",
                ("ham10000", "isic2019 data/isic2019 --yes", "pad_ufes_20"),
            ),
            Command(
                "synth",
                "data.synthetic.synth:synthesize",
                "Paint synthetic dermoscopy in the layout of HAM10000.",
                (
                    "synthetic --lesions 400 --size 64 --difficulty 0.2 --balance even",
                    "noisy --plant label-noise",
                    "leaky --plant duplicates",
                ),
            ),
        ),
    ),
    Group(
        "Predict and serve",
        "predict_serve",
        (
            Command(
                "predict",
                "serve.predictor.answers:predict",
                "Classify images; a bad one has its own line.",
                (
                    "photo.jpg",
                    "outputs/first photo.jpg",
                    "outputs/first/export photos more.zip --format csv --no-names",
                    "outputs/first photo.jpg --metadata age=55 sex=male site=back",
                    "outputs/pairs dermoscopy.jpg --image-2 clinical.jpg",
                    "outputs/first photo.jpg --explain maps",
                    "outputs/first - --format jsonl < photo.jpg",
                ),
            ),
            Command(
                "serve",
                "serve.server.server:serve_http",
                "Answer over HTTP until it is stopped.",
                (
                    "",
                    "outputs/first",
                    "outputs/first outputs/second --port 8080",
                    "outputs/first --host 0.0.0.0 --allow-host clinic.example --keys-file keys.txt",
                ),
                python="serve_http",  # `dermalyze.serve` is a package
            ),
            Command(
                "verify",
                "serve.predictor.verify:verify",
                "Hash a model again and ask for its recorded answers.",
                ("outputs/first", "outputs/first/export --sha256 HASH --json"),
            ),
            Command(
                "import-weights",
                "models.import_weights:import_weights",
                "Convert a checkpoint you trust to safetensors.",
                ("resnet18.pth resnet18.safetensors", "checkpoint.pt checkpoint.safetensors --trust"),
            ),
        ),
    ),
    Group(
        "Analyze a run",
        "analyze",
        (
            Command("plot", "stages.plot:plot", "Draw the training curves.", ("outputs/first",)),
            Command(
                "fit-check",
                "stages.fit_check:fit_check",
                "Say whether it over-fitted, under-fitted or fitted well.",
                ("outputs/first",),
            ),
            Command(
                "explain",
                "stages.explain:explain",
                "Show where networks look, graded for faithfulness.",
                (
                    "outputs/first",
                    "outputs/first --images ISIC_0024306 photos --methods gradcam occlusion --count 0",
                    "outputs/first --compare outputs/second outputs/third --count 200",
                ),
            ),
            Command(
                "embed",
                "stages.embed:embed",
                "Store features of every image by a pretrained network.",
                (
                    "outputs/first",
                    "outputs/first --backbone vit_small_patch14_dinov2.lvd142m",
                    "outputs/first --weights mobilenetv2_035_imagenet.safetensors",
                    "outputs/first --clip prompts.yaml",
                ),
            ),
            Command(
                "plot-embeddings",
                "stages.plot_embeddings:plot_embeddings",
                "Draw the features in two dimensions.",
                (
                    "outputs/first",
                    "outputs/first --method pca --by error",
                    "outputs/first --features mobilenetv2_035 --by part",
                ),
            ),
            Command(
                "similar",
                "stages.similar:similar",
                "Find the training cases that an image resembles.",
                ("outputs/first photo.jpg", "outputs/first photo.jpg --k 5 --out similar.html"),
            ),
            Command(
                "linear-probe",
                "stages.linear_probe:linear_probe",
                "Measure simple classifiers on frozen features.",
                ("outputs/first", "outputs/first --features mobilenetv2_035 --json"),
            ),
        ),
    ),
    Group(
        "Train several times",
        "trainings",
        (
            Command(
                "ensemble",
                "workflows.ensemble:ensemble",
                "Average several trainings; train them first, if asked.",
                (
                    "outputs/first outputs/second outputs/third outputs/ensemble",
                    "--config experiments/dermalyze.yaml --members 5 outputs/ensemble",
                ),
            ),
            Command(
                "compare",
                "workflows.study:compare",
                "Train variants on one split; table them with tests.",
                ("experiments/study.yaml", "experiments/study.yaml outputs/rehearsal --epochs 1 --cost-only"),
            ),
            Command(
                "leakage",
                "workflows.leakage:leakage",
                "Train twice to show what a random split flatters.",
                ("outputs/first", "outputs/first --epochs 6 --set preprocess.size=[96,128]"),
            ),
            Command(
                "controls",
                "workflows.controls:controls",
                "Negative controls: try what must fail.",
                (
                    "outputs/first",
                    "outputs/first --only shuffled metadata shortcut",
                    "outputs/first --epochs 4 --set preprocess.size=[72,96]",
                ),
            ),
        ),
    ),
    Group(
        "Choose and manage",
        "manage",
        (
            Command(
                "advise",
                "workflows.advise:advise",
                "Rank networks for a task, with reasons and YAML.",
                (
                    "outputs/first",
                    "outputs/first --need interpretability --no-measure",
                    "--images 800 --classes 2 --device cpu --need edge",
                ),
            ),
            Command(
                "models",
                "workflows.models:models",
                "Show what networks cost and can do.",
                ("list", "show resnet50", "list --json"),
            ),
            Command(
                "runs",
                "workflows.runs:runs",
                "List, show, compare, tag and tidy up runs.",
                (
                    "list",
                    "show outputs/first",
                    "diff outputs/first outputs/second",
                    "compare outputs/first outputs/second --out compared.html",
                    "tag outputs/first baseline paper --remove draft",
                    "clean outputs --yes",
                ),
            ),
            Command(
                "doctor", "workflows.doctor:doctor", "Check Python, packages, device, disk and memory.", ("", "outputs --json")
            ),
            Command(
                "bench",
                "workflows.bench:bench",
                "Time loading and training steps on this machine.",
                ("outputs/first", "outputs/first --num-batches 30 --json"),
            ),
            Command(
                "schema",
                "config.experiment:json_schema",
                "Print the JSON Schema of an experiment's YAML file.",
                ("", "> experiment.schema.json"),
            ),
        ),
    ),
)

COMMANDS = {command.name: command for group in GROUPS for command in group.commands}
