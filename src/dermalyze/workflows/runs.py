"""The runs that there are: list, show, diff, compare, tag, and clean of what can be made again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.core.atomic import write_json
from dermalyze.core.progress import say
from dermalyze.core.run import Run, differences, read_json
from dermalyze.errors import DermalyzeError, UsageError, nearest
from dermalyze.workflows.cleaning import MIB, Rubbish, delete, inner_runs, rubbish_of, size_of, unused_caches

DEFAULT_FOLDER = Path("outputs")
HEADLINE = {"balanced_accuracy": "balanced accuracy", "macro_auroc": "macro AUROC", "log_loss": "log loss"}
TAG = re.compile(r"[\w.-]{1,40}")


@dataclass(frozen=True)
class RunsResult:
    """What was asked for.

    Attributes:
        action: list, show, diff, compare, tag or clean.
        values: JSON-ready answer.
        told: the same for a person.
    """

    action: str
    values: dict[str, Any]
    told: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"action": self.action, **self.values}

    def lines(self) -> list[str]:
        """Lines for a person."""
        return list(self.told)


def runs(
    action: str,
    words: Sequence[str | Path] = (),
    *,
    remove: Sequence[str] = (),
    yes: bool = False,
    shared: bool = False,
    by: str = "image",
    out: Path | None = None,
) -> RunsResult:
    """List, show, diff, compare, tag or clean runs.

    - `list [FOLDER]`: every run under a folder (default: outputs), with state, data, network, best validation and test figures.
    - `show RUN`: one of them in full.
    - `diff RUN RUN`: the settings in which two differ, and their results side by side.
    - `compare RUN RUN [RUN...]`: their stored predictions of the same test images: every difference with its interval and
      p-value (cluster bootstrap, DeLong, McNemar, Holm's correction). `shared` takes the images that all test parts have where
      the parts differ, `by` "lesion" pools the photographs of a lesion, `out` writes a page.
    - `tag RUN [WORD...]`: words to find it by, kept beside the frozen configuration; `remove` takes some away.
    - `clean [FOLDER or RUN...]`: what can be made again: resumable states of finished trainings but the newest, TensorBoard
      logs, leftovers of killed processes and, for a folder, image caches that belong to no run in it. Best weights, exports,
      predictions, reports and everything of an unfinished training stay. Without `yes` it only says what and how much.

    Args:
        action: one of the six.
        words: as above.
        remove: tags to take away.
        yes: delete what `clean` found.
        shared, by, out: of `compare`; see `dermalyze.workflows.paired.compare_runs`, which says what else is refused.

    Raises:
        UsageError: another action, words that it does not take, a folder that is no run, a tag with odd characters.
        ResourceError: a run's folder cannot be written.
    """
    if action not in TAKES:
        raise UsageError(f"runs {action}: must be one of {', '.join(TAKES)}{nearest(action, list(TAKES))}")
    least, most, usage = TAKES[action]
    if not least <= len(words) <= most:
        raise UsageError(f"runs {action}: got {len(words)} words; write: dermalyze runs {action} {usage}")
    if remove and action != "tag":
        raise UsageError(f"--remove belongs to: dermalyze runs tag RUN, not to runs {action}")
    if action == "compare":
        from dermalyze.workflows.paired import compare_runs  # here, not above: the others need none of it

        values, told = compare_runs(words, shared=shared, by=by, out=out)
        return RunsResult("compare", values, tuple(told))
    if shared or out is not None or by != "image":
        raise UsageError(f"--shared, --by and --out belong to: dermalyze runs compare RUN RUN, not to runs {action}")
    return ACTIONS[action](list(words), list(remove), yes)


# -- looking --------------------------------------------------------------------------------------------------------------


def list_runs(words: list[str | Path], remove: list[str], yes: bool) -> RunsResult:
    """A line a run; see `runs`."""
    folder = Path(words[0]) if words else DEFAULT_FOLDER
    found = [summary_or_error(run) for run in runs_under(folder)]
    head = ("run", "state", "data", "network", "validation", *HEADLINE.values(), "size", "tags")
    rows = [row_of(values) for values in found]
    widths = [max(len(cells[i]) for cells in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in [head, *rows]
    ]
    return RunsResult("list", {"folder": str(folder), "runs": found}, tuple(lines) if found else (f"no run under {folder}",))


def show_run(words: list[str | Path], remove: list[str], yes: bool) -> RunsResult:
    """All that `list` tells, and the intervals; see `runs`."""
    values = summary(Run.open(words[0]))
    lines = [f"{key:<14}{said(value)}" for key, value in values.items() if key not in ("test", "best")]
    if values["best"]:
        lines.append(f"{'best':<14}epoch {values['best']['epoch']}: {values['best']['metric']} {values['best']['value']:.4f}")
    lines += [f"{'test':<14}{name} {with_interval(estimate)}" for name, estimate in (values["test"] or {}).items()]
    return RunsResult("show", values, tuple(lines))


def diff_runs(words: list[str | Path], remove: list[str], yes: bool) -> RunsResult:
    """Settings and results of two runs; see `runs`."""
    a, b = (Run.open(word) for word in words)
    names = differences(a.config(), b.config())
    settings = {name: [value_at(run.config().model_dump(mode="json"), name) for run in (a, b)] for name in names}
    first, second = summary(a), summary(b)
    results = {
        name: [(values["test"] or {}).get(name) for values in (first, second)]
        for name in dict.fromkeys([*(first["test"] or {}), *(second["test"] or {})])
    }
    width = max([len(name) for name in [*settings, *results]], default=0)
    lines = [f"{'':<{width}}  {a.root.name}  |  {b.root.name}"]
    lines += [f"{name:<{width}}  {old}  |  {new}" for name, (old, new) in settings.items()] or ["the same settings"]
    lines += [f"{name:<{width}}  {with_interval(old)}  |  {with_interval(new)}" for name, (old, new) in results.items()]
    return RunsResult("diff", {"runs": [str(a.root), str(b.root)], "settings": settings, "results": results}, tuple(lines))


def tag_run(words: list[str | Path], remove: list[str], yes: bool) -> RunsResult:
    """Add and remove words; see `runs`."""
    run, added = Run.open(words[0]), [str(word) for word in words[1:]]
    odd = [word for word in [*added, *remove] if not TAG.fullmatch(word)]
    if odd:
        raise UsageError(f"tag '{odd[0]}': must be 1 to 40 letters, digits, '.', '_' or '-'")
    before = tags_of(run)
    after = [word for word in dict.fromkeys([*before, *added]) if word not in remove]
    if after != before:
        write_json(run.tags_path, {"tags": after})
    return RunsResult("tag", {"run": str(run.root), "tags": after}, (f"{run.root}: {', '.join(after) or 'no tags'}",))


def runs_under(folder: Path) -> list[Run]:
    """The folder itself where it is a run, else every run below it, by path; runs within a run are part of it.

    Raises:
        UsageError: the folder is not there.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name the one that holds the runs: dermalyze runs list FOLDER")
    if Run(folder).config_path.is_file():
        return [Run(folder)]
    below = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [run for child in below if not child.is_symlink() for run in runs_under(child)]


def summary_or_error(run: Run) -> dict[str, Any]:
    """A run's summary; for one that cannot be read, why."""
    try:
        return summary(run)
    except DermalyzeError as error:
        return {"run": str(run.root), "error": str(error)}


def summary(run: Run) -> dict[str, Any]:
    """What a run is and came to, JSON-ready; None where a step has not been done.

    Raises:
        ConfigError, ModelError, ResourceError: a file of it is damaged or cannot be read.
    """
    spec, steps = run.config(), run.describe()
    data = read_json(run.summary_path) if run.summary_path.exists() else {}
    best = read_json(run.best_record_path) if run.best_record_path.exists() else None
    judged = read_json(run.evaluation_path) if run.evaluation_path.exists() else None
    done = [step for step, there in steps.items() if there]
    return {
        "run": str(run.root),
        "name": spec.name,
        "state": begun(run) or (done[-1] if done else "init"),
        "steps": done,
        "data": spec.data.source.kind,
        "images": data.get("images"),
        "network": spec.model.backbone,
        "best": {key: best.get(key) for key in ("metric", "value", "epoch")} if best else None,
        "test": {name: judged["metrics"].get(name) for name in HEADLINE} if judged else None,
        "accepted_leak": (judged or best or {}).get("accepted_leak"),
        "tags": tags_of(run),
        "bytes": size_of(run.root),
    }


def begun(run: Run) -> str | None:
    """How far a training came that is not finished; None where none was begun, or it is finished."""
    if run.history_path.exists() or not run.metrics_path.exists():
        return None
    with run.metrics_path.open(encoding="utf-8") as stream:
        return f"train, epoch {sum(1 for _ in stream)} of {run.config().train.epochs}"


def tags_of(run: Run) -> list[str]:
    """The run's tags, in the order they were given."""
    return [str(tag) for tag in read_json(run.tags_path).get("tags", [])] if run.tags_path.exists() else []


def row_of(values: dict[str, Any]) -> tuple[str, ...]:
    """Cells of `list`."""
    if "error" in values:
        return (values["run"], "unreadable", values["error"][:60], *[""] * (4 + len(HEADLINE)))
    best, test = values["best"], values["test"] or {}
    validation = f"{best['metric'].removeprefix('val_')} {best['value']:.4f}" if best else "-"
    figures = [f"{test[name]['value']:.3f}" if test.get(name) and test[name]["value"] is not None else "-" for name in HEADLINE]
    data = values["data"] + (f" ({values['images']})" if values["images"] else "")
    state = values["state"] + (", LEAK" if values["accepted_leak"] else "")
    size = f"{values['bytes'] / MIB:.0f} MiB"
    return (values["run"], state, data, values["network"], validation, *figures, size, ", ".join(values["tags"]))


def value_at(values: Any, name: str) -> Any:
    """A setting by its dotted name, None where it is not there.

    >>> value_at({"train": {"epochs": 3}}, "train.epochs"), value_at({}, "a.b")
    (3, None)
    """
    for key in name.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def with_interval(estimate: dict[str, Any] | None) -> str:
    """A test figure for a person.

    >>> with_interval({"value": 0.5, "low": 0.4, "high": 0.6}), with_interval(None)
    ('0.500 (0.400 to 0.600)', '-')
    """
    if estimate is None or estimate["value"] is None:
        return "-"
    interval = "" if estimate["low"] is None else f" ({estimate['low']:.3f} to {estimate['high']:.3f})"
    return f"{estimate['value']:.3f}{interval}"


def said(value: Any) -> str:
    """A value of `show`."""
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else "-" if value is None else str(value)


# -- cleaning -------------------------------------------------------------------------------------------------------------


def clean_runs(words: list[str | Path], remove: list[str], yes: bool) -> RunsResult:
    """Say or delete what can be made again; see `runs`."""
    places = [Path(word) for word in words] or [DEFAULT_FOLDER]
    found: list[Rubbish] = []
    freed = 0
    all_runs = [each for place in places for run in runs_under(place) for each in (run, *inner_runs(run))]
    for run in all_runs:
        if not yes:
            found += rubbish_of(run)
            continue
        try:
            with run.lock():
                rubbish = rubbish_of(run)
                found += rubbish
                freed += delete(rubbish)
        except UsageError:
            say(f"{run.root}: in work; left alone")
    folders = [place for place in places if not Run(place).config_path.is_file()]
    if folders:
        caches = unused_caches(all_runs)
        found += caches
        freed += delete(caches) if yes else 0
    total = sum(item.bytes for item in found) if not yes else freed
    items = [{"run": item.run, "what": item.what, "files": len(item.paths)} for item in found]
    lines = [f"{item.run or 'image cache'}: {item.what}" for item in found]
    verdict = "removed" if yes else "can be removed"
    lines.append(f"{total / MIB:.1f} MiB {verdict}" if found else "nothing to remove")
    return RunsResult("clean", {"removed": yes, "bytes": total, "items": items}, tuple(lines))


Action = Callable[[list[str | Path], list[str], bool], RunsResult]
ACTIONS: dict[str, Action] = {"list": list_runs, "show": show_run, "diff": diff_runs, "tag": tag_run, "clean": clean_runs}
TAKES: dict[str, tuple[int, int, str]] = {
    "list": (0, 1, "[FOLDER]"),
    "show": (1, 1, "RUN"),
    "diff": (2, 2, "RUN RUN"),
    "compare": (2, 10, "RUN RUN [RUN...]"),
    "tag": (1, 1000, "RUN [WORD...]"),
    "clean": (0, 1000, "[FOLDER or RUN...]"),
}
"""How many words each action takes."""
