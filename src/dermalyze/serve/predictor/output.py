"""Answers as text: a table for a person, JSON lines or CSV for a machine. Every form carries the disclaimer."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from dermalyze.calibration.served_points import ServedPoint
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.tables import neutralise
from dermalyze.errors import UsageError, one_line
from dermalyze.serve.predictor.prediction import PointResult, Prediction
from dermalyze.serve.predictor.predictor import no_image

Format = Literal["table", "jsonl", "csv"]
FILE_WIDTH = 32


def write(
    rows: Iterable[Prediction], stream: TextIO, *, classes: Sequence[str], format: Format = "table", names: bool = False,
    task: str = "multiclass", points: Sequence[ServedPoint] = (), top: int | None = None,
) -> int:  # fmt: skip
    """Write answers as they come.

    Args:
        rows: answers, in order.
        stream: open for text.
        classes: of the model, in its order (columns of the CSV).
        format: "table", "jsonl" or "csv".
        names: add `file`, what the user called each image, which may identify a person; the table shows it in place of the
            hash.
        task: of the model; of multilabel the labels that are called take the place of a class.
        top: how many classes or labels are listed with their probabilities, in the table and in JSON lines; None: as without.
        points: operating points of the model: each has its summed probability, and a mark where it reaches the threshold.

    Returns:
        Number of rows with an error.

    Raises:
        UsageError: no such format.

    >>> import sys
    >>> rows = [Prediction(0, "ab" * 32, "nv", "Melanocytic nevi", 0.9, {"nv": 0.9}), Prediction(1, None, error="no such file")]
    >>> write(rows, sys.stdout, classes=["nv"])
        #  image         class       prob.  description
        0  abababababab  nv          0.900  Melanocytic nevi
        1  -             error           -  no such file
    For research and education only; not a medical device and not a diagnosis.
    1
    """
    writers = {"table": _table, "jsonl": _jsonl, "csv": _csv}
    if format not in writers:
        raise UsageError(f"format '{format}' is not one of {', '.join(writers)}")
    return writers[format](rows, stream, _Columns(classes, names, task == "multilabel", points, top))


@dataclass(frozen=True)
class _Columns:
    """What is in a row; see `write`."""

    classes: Sequence[str]
    names: bool
    several: bool
    points: Sequence[ServedPoint]
    top: int | None


def shortened(text: str, width: int) -> str:
    """The end of a long name, which tells files of one folder apart.

    >>> shortened("photos/clinic/ISIC_0024306.jpg", 20)
    '...ISIC_0024306.jpg'
    """
    return text if len(text) <= width else f"...{text[3 - width :]}"


def safe_cell(text: str | None) -> str:
    """A cell that no spreadsheet takes for a formula and no terminal for a command.

    >>> safe_cell('=HYPERLINK("http://x")'), safe_cell("ISIC_0024306"), safe_cell(None)
    ('\\'=HYPERLINK("http://x")', 'ISIC_0024306', '')
    """
    return neutralise(one_line(text or ""))


def _table(rows: Iterable[Prediction], stream: TextIO, c: _Columns) -> int:
    width = max(10, *(len(name) for name in c.classes))
    questions = [max(9, len(point.name)) for point in c.points]
    head = "".join(f"  {point.name:{w}}" for point, w in zip(c.points, questions, strict=True))
    title, column = ("file", FILE_WIDTH) if c.names else ("image", 12)
    what, last = ("top label", "labels") if c.several else ("class", "description")
    print(f"{'#':>5}  {title:{column}}  {what:{width}}  prob.{head}  {last}", file=stream)
    errors, leak, alone, grade = 0, None, 0, None
    lacking: Counter[str] = Counter()
    for row in rows:
        errors, leak, grade = errors + (row.error is not None), row.accepted_leak or leak, row.cam_grade or grade
        lacking.update(row.metadata_unknown or ())
        alone += row.error is None and no_image("image_2") in row.notes
        image = one_line(row.image_id or (row.sha256 or "-")[:12])
        if c.names and row.file:
            image = shortened(one_line(row.file), FILE_WIDTH)
        label, highest = _top(row)
        probability = "    -" if highest is None else f"{highest:.3f}"
        results = {one.point.name: one for one in row.operating_points}
        cells = "".join(f"  {_at(results.get(point.name)):{w}}" for point, w in zip(c.points, questions, strict=True))
        line = f"{row.index:5}  {image:{column}}  {one_line(label):{width}}  {probability}{cells}  {one_line(_said(row))}"
        if c.top is not None and row.probabilities and row.verdict != "refer":
            line += f" ({', '.join(f'{one_line(name)} {p:.3f}' for name, p in row.ranked()[: c.top])})"
        print(f"{FLAGGED}{line}{PLAIN}" if row.flagged and stream.isatty() else line, file=stream)
    footer = []
    if leak:
        footer.append(f"Trained on leaking data, accepted because: {one_line(leak)}")
    if lacking:
        counts = ", ".join(f"{one_line(name)} of {n}" for name, n in lacking.items())
        footer.append(f"Answered without metadata that the model takes: {counts}; give them with --metadata or in a CSV")
    if alone:
        footer.append(f"Answered without a second image: {alone}; give it with --image-2 or in a CSV's column image_2_path")
    if grade:
        measured = f" ({grade.groups} test groups)" if grade.groups else ""
        footer.append(f"Heat maps of this model: {one_line(grade.words)}{measured}")
    for line in (*footer, *map(_rule, c.points), DISCLAIMER):
        print(line, file=stream)
    return errors


FLAGGED, PLAIN = "\x1b[1;35m", "\x1b[0m"
"""Bold magenta, on a terminal, for an image that is to be looked at."""


def _top(row: Prediction) -> tuple[str, float | None]:
    """What is in a row as class, and its probability: of several labels the most probable one."""
    if row.error is not None:
        return "error", None
    if row.withheld or row.verdict == "refer":
        return "refer", None
    if row.positive is not None:
        return max(row.probabilities.items(), key=lambda item: item[1])
    return "set" if row.decision == "set" else row.predicted_class or "error", row.confidence


def _said(row: Prediction) -> str:
    """The last cell: first that an image is to be looked at, then the reasons; else what is seen."""
    if row.error is not None:
        return row.error
    called = row.predicted_class_description or ", ".join(row.positive or ()) or "none"
    reasons = [row.reason] if row.reason and not row.reasons else list(row.reasons)
    if row.flagged:
        flags = [one.words() for one in row.operating_points if one.positive]
        likely = [] if row.decision == "set" else [f"most likely {called}"]
        return "; ".join(["HAVE IT LOOKED AT", *likely, *(reason for reason in reasons if reason not in flags)])
    return "; ".join(reasons) or called


def _at(result: PointResult | None) -> str:
    """A result at an operating point: its probability, marked where it reaches the threshold."""
    return "-" if result is None else f"{result.probability:.3f}{' !' if result.positive else ''}"


def _rule(point: ServedPoint) -> str:
    """An operating point and what was measured there, in one line."""
    if point.threshold is None:
        return f"{point.name}: no threshold ({point.note}), so no image is marked"
    measured = [
        f"{name} {share.value:.3f} ({share.low:.3f} - {share.high:.3f})"
        for name, share in (("sensitivity", point.sensitivity), ("specificity", point.specificity))
        if share is not None and share.value is not None and share.low is not None and share.high is not None
    ]
    said = f"on the test split: {', '.join(measured)}" if measured else "not measured on a test split"
    return (
        f"{point.name} !: at or above {point.threshold:.3f}, chosen for a sensitivity of {point.target:g}; {said}. An image "
        "below it is not ruled out"
    )


def _jsonl(rows: Iterable[Prediction], stream: TextIO, c: _Columns) -> int:
    errors = 0
    for row in rows:
        errors += row.error is not None
        print(json.dumps(row.as_dict(names=c.names, top=c.top), allow_nan=False), file=stream)
    return errors


def _csv(rows: Iterable[Prediction], stream: TextIO, c: _Columns) -> int:
    writer = csv.writer(stream, lineterminator="\n")
    header = ["index", *(["file"] if c.names else []), "image", "image_id"]
    header += [
        "flagged",
        *(f"{point.name}_probability" for point in c.points),
        *(["positive"] if c.several else ["predicted_class", "predicted_class_description", "confidence"]),
        *(f"p_{one_line(name)}" for name in c.classes),
        "abstain",
        "decision",
        "ood_score",
        "reason",
        "verdict",
        "reasons",
        "metadata_unknown",
        "notes",
        "error",
        "accepted_leak",
        "disclaimer",
    ]
    writer.writerow(header)
    errors = 0
    for row in rows:
        errors += row.error is not None
        cells = [str(row.index), *([safe_cell(row.file)] if c.names else []), (row.sha256 or "")[:12], safe_cell(row.image_id)]
        results = {one.point.name: one.probability for one in row.operating_points}
        cells += [safe_cell("|".join(row.flagged)), *(_number(results.get(point.name)) for point in c.points)]
        if c.several:
            cells += [safe_cell("|".join(row.positive or ()))]
        else:
            cells += [safe_cell(row.predicted_class), safe_cell(row.predicted_class_description), _number(row.confidence)]
        cells += [_number(row.probabilities.get(name)) for name in c.classes]
        cells += ["" if row.error is not None else str(row.abstain).lower(), row.decision or ""]
        cells += [_number(row.ood_score), safe_cell(row.reason)]
        cells += [row.verdict or "", safe_cell("; ".join(row.reasons))]
        cells += [safe_cell("; ".join(row.metadata_unknown or ()))]
        cells += [safe_cell("; ".join(row.notes)), safe_cell(row.error), safe_cell(row.accepted_leak), DISCLAIMER]
        writer.writerow(cells)
    return errors


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"
