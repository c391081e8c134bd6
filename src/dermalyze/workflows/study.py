"""A study carried out: variants of one experiment, trained on one split and compared on the same test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.study import ComparisonSpec, Study, load_study
from dermalyze.core.atomic import sha256_file, write_bytes, write_json, write_text
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run, differences, read_json
from dermalyze.errors import ConfigError, DermalyzeError, InterruptedRunError, UsageError, one_line
from dermalyze.metrics.paired_tests import holm, mean_difference, paired
from dermalyze.report.evaluation import versions
from dermalyze.report.study import study_figures, study_page, study_text
from dermalyze.stages.init import freeze
from dermalyze.tasks.base import TASKS, Task
from dermalyze.workflows.cost import Cost, measure_cost
from dermalyze.workflows.ensemble import copy_data
from dermalyze.workflows.paired import Side, on_the_same, read_side
from dermalyze.workflows.pipeline import STEPS, duration, finished, run_experiment

DATA_STEPS, OWN_STEPS = STEPS[:3], STEPS[3:]
REFUSALS = (DermalyzeError, MemoryError, OSError, RuntimeError)
"""What ends a variant and not the study; torch says most of what it cannot do by a RuntimeError."""


@dataclass(frozen=True)
class Trial:
    """One variant under one seed, and its run.

    Attributes:
        variant: its name.
        first: its seed is the first, the one that is tested.
    """

    variant: str
    first: bool
    run: Run
    spec: ExperimentSpec

    @property
    def key(self) -> str:
        """Variant and seed in one word."""
        return self.run.root.name


@dataclass(frozen=True)
class StudyResult:
    """A study.

    Attributes:
        study: the content of study.json; while nothing is trained, costs and failures alone.
        text: the same in words.
        page: study.html, None where nothing was trained.
    """

    study: dict[str, Any]
    text: list[str]
    page: Path | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.study, "page": None if self.page is None else str(self.page)}

    def lines(self) -> list[str]:
        """Lines for a person."""
        return [*self.text, *([] if self.page is None else [f"page: {self.page}"])]


def compare(
    study: Path | str, root: Path | str | None = None, *, epochs: int | None = None, sets: Sequence[str] = (),
    cost_only: bool = False,
) -> StudyResult:  # fmt: skip
    """Train every variant of a study on the same split, and hold each against its reference on the same test images.

    The data is prepared and split once, in `OUT/data`; each variant and seed is an ordinary run in `OUT/runs`. What it will
    cost is measured and said first. Given again, it continues where it stopped; variants and seeds can be added. A variant that
    fails is listed with its reason, and the others continue.

    Args:
        study: its YAML file.
        root: the folder to make; default: outputs/ and the name of the file.
        epochs: of every training, for a rehearsal.
        sets: `key=value` assignments on top of every variant.
        cost_only: stop when the cost is known.

    Raises:
        ConfigError: an unknown key, a variant that is none, or another study's folder.
        DataError: the data is refused, or no variant came to an end.
        InterruptedRunError: a signal came; the same call continues.
    """
    sets = [*sets, *([f"train.epochs={epochs}"] if epochs is not None else [])]
    plan = load_study(Path(study), sets)
    folder = Path(root if root is not None else Path("outputs") / Path(study).stem)
    data = prepared(plan, folder / "data")
    trials, failures = begun(plan, folder / "runs", data)
    costs = measured(trials, folder / "cost.json", failures)
    trials = [trial for trial in trials if trial.key in costs]
    text = costs_text(trials, costs)
    for line in text:
        say(line)
    if cost_only:
        values = {"costs": {key: cost.as_dict() for key, cost in costs.items()}, "failures": failures}
        return StudyResult(values, [*text, *(f"{f['run']}: {f['reason']}" for f in failures)], None)
    again = f"dermalyze compare {study} {folder}"
    done = [trial for n, trial in enumerate(trials, 1) if trained(trial, f"{n}/{len(trials)}", again, failures)]
    if not done:
        reasons = "; ".join(f"{f['run']}: {f['reason']}" for f in failures)
        raise UsageError(f"no variant came to an end: {reasons}")
    values = evaluated(plan, data, done, costs, failures)
    figures = study_figures(values)
    for name, figure in figures.items():
        write_bytes(folder / name, figure.data)
    write_text(folder / "study.md", "\n".join(study_text(values, figures)) + "\n")
    write_text(folder / "study.html", study_page(values, figures))
    write_json(folder / "study.json", values)
    return StudyResult(values, study_text(values, {}), folder / "study.html")


# -- carrying out ---------------------------------------------------------------------------------------------------------


def prepared(plan: Study, root: Path) -> Run:
    """The run that is prepared, audited and split for all, and never trained.

    Raises:
        ConfigError: no data is named, or the folder is of other data.
        DermalyzeError: whatever a step refuses.
    """
    spec = plan.shared
    if spec.data.path is None and spec.data.source.kind != "merged":
        raise ConfigError("data.path is not set; name the folder or the archives with --set data.path=FOLDER")
    run = freeze(root, spec)
    spec, redone = run.config(), False
    for step in DATA_STEPS:
        if not finished(run, spec, step, redone=redone):
            say(f"study: {step}")
            getattr(import_module(f"dermalyze.stages.{step}"), step)(run, spec)
            redone = True
    return run


def begun(plan: Study, root: Path, data: Run) -> tuple[list[Trial], list[dict[str, str]]]:
    """The run of each variant and seed with data and split copied, and what could not be begun."""
    trials, failures = [], []
    for name, spec in plan.variants.items():
        for number, seed in enumerate(plan.spec.seeds_of(name)):
            run, own = Run(root / f"{name}-seed{seed}"), spec.model_copy(update={"seed": seed})
            try:
                forget_unbegun(run, own)
                freeze(run.root, own)
                copy_data(data, run)
                trials.append(Trial(name, number == 0, run, run.config()))
            except REFUSALS as error:
                failures.append(failure(run.root.name, name, error))
    return trials, failures


def forget_unbegun(run: Run, spec: ExperimentSpec) -> None:
    """Let the settings of a run change as long as nothing has been trained with them."""
    if run.config_path.exists() and not run.state_records() and not run.best_record_path.exists():
        run.config_path.unlink()
        run.environment_path.unlink(missing_ok=True)


def measured(trials: Sequence[Trial], path: Path, failures: list[dict[str, str]]) -> dict[str, Cost]:
    """The cost of each run, measured once and kept; what cannot take a step is a failure."""
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    costs: dict[str, Cost] = {}
    of_variant: dict[str, Cost] = {}
    for trial in trials:
        settings = sha256_file(trial.run.config_path)
        if known.get(trial.key, {}).get("config_sha256") == settings:
            cost = Cost.read(known[trial.key]["cost"])
        elif trial.variant in of_variant:  # another seed costs the same
            cost = of_variant[trial.variant]
        else:
            say(f"study: timing a few steps of {trial.variant}")
            try:
                cost = measure_cost(trial.run, trial.spec)
            except REFUSALS as error:
                failures.append(failure(trial.key, trial.variant, error))
                continue
        of_variant[trial.variant] = costs[trial.key] = cost
        known[trial.key] = {"config_sha256": settings, "cost": cost.as_dict()}
        write_json(path, known)
    return costs


def trained(trial: Trial, number: str, again: str, failures: list[dict[str, str]]) -> bool:
    """Train, export, score, calibrate and evaluate one run, as far as that is not done; False where it failed.

    Raises:
        InterruptedRunError: a signal came.
    """
    say(f"study {number}: {trial.key}")
    try:
        run_experiment(trial.spec, trial.run.root, steps=OWN_STEPS)
    except InterruptedRunError as error:
        told = str(error).partition(";")[0]
        raise InterruptedRunError(f"{told}; continue with the same command: {again}") from error
    except REFUSALS as error:
        failures.append(failure(trial.key, trial.variant, error))
        say(f"study: {trial.key} failed: {failures[-1]['reason']}")
        return False
    return True


def failure(key: str, variant: str, error: BaseException) -> dict[str, str]:
    """A run that did not come to its end, and why."""
    reason = str(error) if isinstance(error, DermalyzeError) else f"{type(error).__name__}: {error}"
    return {"run": key, "variant": variant, "reason": one_line(reason)[:400]}


def costs_text(trials: Sequence[Trial], costs: Mapping[str, Cost]) -> list[str]:
    """What is still to be paid, a line a run, the dearest first."""
    left = sorted((t for t in trials if not t.run.describe()["evaluate"]), key=lambda t: -costs[t.key].total_s)
    total = sum(costs[trial.key].total_s for trial in left)
    rows = [
        f"  {trial.key:<36}{trial.spec.train.epochs:>4} epochs {duration(costs[trial.key].training_s):>14}, scoring "
        f"{duration(costs[trial.key].scoring_s)}"
        for trial in left
    ]
    head = f"study: {len(left)} of {len(trials)} runs to do, about {duration(total)} by a few steps of each"
    return [f"{head}; exports and evaluations come to it", *rows]


# -- evaluating --------------------------------------------------------------------------------------------------------------


def evaluated(
    plan: Study, data: Run, done: Sequence[Trial], costs: Mapping[str, Cost], failures: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """The content of study.json.

    Args:
        done: runs that came to their end.
        costs: of each.
    """
    trials = [(trial.variant, trial.spec.seed) for trial in done]
    every = on_the_same([read_side(trial.run, trial.key) for trial in done], shared=False) if done else []
    of_seed = dict(zip(trials, every, strict=True))
    sides = {trial.variant: of_seed[trial.variant, trial.spec.seed] for trial in done if trial.first}
    spec, counts = plan.shared.evaluate, data.certificate()["counts"]
    task = TASKS[plan.shared.task.kind]
    tested = task.compared["study"]
    rows = [row(plan, trial, costs[trial.key]) for trial in done]
    return {
        "schema_version": 1,
        "title": f"Study: {plan.spec.name}",
        "task": task.kind,
        "tested": list(tested),
        "columns": list(task.compared["table"]),
        "data": {
            "source": plan.shared.data.source.kind,
            "manifest_sha256": data.manifest_hash(),
            "certificate_sha256": sha256_file(data.certificate_path),
            "parts": {part: {key: c[key] for key in ("images", "groups")} for part, c in counts.items()},
        },
        "seeds": {name: list(plan.spec.seeds_of(name)) for name in plan.spec.variants},
        "level": spec.level,
        "resamples": spec.resamples,
        "runs": rows,
        "over_seeds": over_seeds(rows, tested),
        "comparisons": [
            compared(title, question, sides, of_seed, spec, task) for title, question in plan.spec.questions().items()
        ],
        "failures": [dict(one) for one in failures],
        "versions": versions(),
        "disclaimer": DISCLAIMER,
    }


def over_seeds(rows: Sequence[Mapping[str, Any]], tested: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each variant with several seeds the mean and the range of its figures over them."""
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for one in rows:
        by_variant.setdefault(one["variant"], []).append(one)
    found: dict[str, dict[str, Any]] = {}
    for name, members in by_variant.items():
        if len(members) > 1:
            found[name] = {"seeds": [one["seed"] for one in members]}
            for metric in tested:
                values = [one["metrics"][metric]["value"] for one in members]
                if None not in values:
                    found[name][metric] = {"mean": sum(values) / len(values), "least": min(values), "most": max(values)}
    return found


def row(plan: Study, trial: Trial, cost: Cost) -> dict[str, Any]:
    """One run: its figures as they are in its own evaluation_metrics.json, and what it took."""
    m, history = read_json(trial.run.evaluation_path), read_json(trial.run.history_path)
    task = TASKS[trial.spec.task.kind]
    shown = dict.fromkeys((*task.compared["table"], *task.headline))
    each = m["per_class"]
    reference = plan.variants[next(iter(plan.spec.questions().values())).reference]
    changed = differences(reference, plan.variants[trial.variant])
    return {
        "run": trial.key,
        "variant": trial.variant,
        "seed": trial.spec.seed,
        "tested": trial.first,
        "differs_in": [key for key in changed if key != "name"],
        "backbone": trial.spec.model.backbone,
        "strategy": trial.spec.train.strategy.kind,
        "epochs": len(history["epoch"]),
        "metrics": {name: m["metrics"][name] for name in shown},
        "focus_recall": {name: each[name]["recall"] for name in m["focus"]},
        "accepted_leak": m["accepted_leak"],
        "trained_s": sum(history["seconds"]),
        "trained_per_s": sorted(history["images_per_s"])[len(history["images_per_s"]) // 2],
        **{key: getattr(cost, key) for key in ("parameters", "learning", "latency_ms", "scored_per_s")},
    }


def compared(
    title: str,
    question: ComparisonSpec,
    sides: Mapping[str, Side],
    of_seed: Mapping[tuple[str, int], Side],
    spec: Any,
    task: Task,
) -> dict[str, Any]:
    """Each variant minus the reference under one bootstrap, Holm-corrected over all that the question asks.

    Args:
        sides: of the variants that came to an end, on the same images, with the first seed.
        of_seed: by variant and seed.
        spec: `evaluate` of all.
    """
    names = [name for name in question.variants if name in sides]
    head = {"title": title, "reference": question.reference}
    if question.reference not in sides or not names:
        return {**head, "rows": [], "over_seeds": [], "note": "the reference, or every variant, did not come to an end"}
    scores = {name: sides[name].scores for name in (*names, question.reference)}
    groups = sides[question.reference].frame["group"].tolist()
    asked = {name: f for name, f in task.overall_metrics(spec.ece_bins).items() if name in task.compared["study"]}
    found = paired(scores, groups, asked, resamples=spec.resamples, level=spec.level, seed=spec.seed)[1]
    rows = {name: found[name, question.reference] for name in names}
    corrected = iter(holm([rows[name][metric].p_value for name in names for metric in asked]))
    return {
        **head,
        "rows": [
            {"variant": name, **{metric: {**rows[name][metric].as_dict(), "p_holm": next(corrected)} for metric in asked}}
            for name in names
        ],
        "over_seeds": [
            averaged
            for name in names
            if (averaged := across_seeds(name, question.reference, of_seed, groups, asked, spec)) is not None
        ],
        "note": "",
    }


def across_seeds(
    variant: str,
    reference: str,
    of_seed: Mapping[tuple[str, int], Side],
    groups: Sequence[str],
    metrics: Mapping[str, Any],
    spec: Any,
) -> dict[str, Any] | None:
    """A variant minus the reference, averaged over the seeds that both have; None if that is one."""
    seeds = [seed for name, seed in of_seed if name == variant and (reference, seed) in of_seed]
    if len(seeds) < 2:
        return None
    pairs = [(of_seed[variant, seed].scores, of_seed[reference, seed].scores) for seed in seeds]
    how: dict[str, Any] = {"level": spec.level, "seed": spec.seed}
    mean = mean_difference(pairs, groups, metrics, resamples=spec.resamples, **how)
    each = [mean_difference([pair], groups, metrics, resamples=1, **how) for pair in pairs]
    found: dict[str, Any] = {"variant": variant, "seeds": seeds}
    for name, one in mean.items():
        of_seeds = [single[name].estimate.value for single in each]
        found[name] = {**one.estimate.as_dict(), "p_value": one.p_value, "of_seeds": of_seeds}
    return found
