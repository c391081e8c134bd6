"""The comparison of runs in words: lines for a terminal, and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermalyze.report.figures import differences_figure
from dermalyze.report.html import figure_view, template
from dermalyze.report.section import Figure
from dermalyze.report.text import cell, meanings, task_of

Json = Mapping[str, Any]

QUESTIONS = {
    "multiclass": {
        "metrics": "The whole set, by cluster bootstrap",
        "recall": "Sensitivity of each class, by cluster bootstrap",
        "auroc": "AUROC of each class against the rest and of malignant against benign, by DeLong's test",
    },
    "multilabel": {
        "metrics": "The whole set, by cluster bootstrap",
        "recall": "Sensitivity of each label, by cluster bootstrap",
        "auroc": "AUROC of each label, by DeLong's test",
        "calls": "Share of right calls of each label, by McNemar's test (mid-p)",
    },
}


RIGHT = {"multiclass": "Right answers", "multilabel": "Answers right in every label"}


def told(c: Json) -> list[str]:
    """Lines for a person.

    Args:
        c: what `dermalyze.workflows.paired.evaluated` gives.
    """
    lines = [subtitle(c), *(f"{run['name']}: LEAK ACCEPTED, NOT A FAIR RESULT: {run['accepted_leak']}" for run in leaks(c))]
    for pair in c["pairs"]:
        lines += ["", f"{pair['first']} minus {pair['second']}"]
        for title, rows in tables(c, pair):
            lines += [f"  {title}", *aligned([("", "difference", "interval", "p", "p (Holm)"), *rows])]
        lines.append(f"  {right_answers(pair, c)}")
    return ["", *lines, "", c["methods"], c["disclaimer"]][1:]


def subtitle(c: Json) -> str:
    """What was compared on what."""
    names = " and ".join(run["name"] for run in c["runs"])
    cases = f"{c['n']:,} lesions, pooled from {c['n_images']:,} images" if c["unit"] == "lesion" else f"{c['n']:,} images"
    torn = f"; {c['left_out']} lesion(s) under two labels left out" if c["left_out"] else ""
    return f"{names} on the same {cases} of {c['n_groups']:,} groups{torn}"


def leaks(c: Json) -> list[Json]:
    """The runs with an accepted leak."""
    return [run for run in c["runs"] if run["accepted_leak"]]


def spoken(name: str, c: Json) -> str:
    """A metric's name for a person; a class is called as it is."""
    return meanings(c)[name][0] if name in meanings(c) else name


def tables(c: Json, pair: Json) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Title and rows of each question about two runs."""
    found: list[tuple[str, list[tuple[str, ...]]]] = []
    for key, title in QUESTIONS[task_of(c)].items():
        cells = (lambda one: call_cells(one, pair)) if key == "calls" else difference_cells
        found.append((title, [(spoken(name, c), *cells(one)) for name, one in pair[key].items()]))
    return found


def call_cells(one: Json, pair: Json) -> tuple[str, str, str, str]:
    """Difference of the shares that are called right, who alone is right how often, mid-p and corrected mid-p."""
    n = sum(one[key] for key in ("both", "first", "second", "neither"))
    value = signed((one["first"] - one["second"]) / n) if n else "not estimable (n = 0)"
    alone = f"right alone: {one['first']:,} {pair['first']}, {one['second']:,} {pair['second']}"
    return value, alone, p_text(one["mid_p"]), p_text(one["mid_p_holm"])


def difference_cells(one: Json) -> tuple[str, str, str, str]:
    """Difference, interval, p and corrected p.

    >>> difference_cells({"value": 0.1, "low": 0.02, "high": 0.18, "n": 9, "note": "", "p_value": 0.001, "p_holm": 0.0004})
    ('+0.100', '+0.020 – +0.180', '0.001', '< 0.001')
    """
    value, interval = cell(one)
    if one["value"] is not None:
        value = signed(one["value"])
    if one["low"] is not None:
        interval = f"{signed(one['low'])} – {signed(one['high'])}"
    return value, interval, p_text(one["p_value"]), p_text(one["p_holm"])


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(-0.0312), signed(0.0)
    ('−0.031', '0.000')
    """
    text = f"{value:+.3f}".replace("-", "−")
    return text[1:] if float(f"{value:.3f}") == 0 else text


def p_text(p: float | None) -> str:
    """A p-value.

    >>> p_text(0.0312), p_text(1e-5), p_text(None)
    ('0.031', '< 0.001', '–')
    """
    return "–" if p is None else "< 0.001" if p < 0.0005 else f"{p:.3f}"


def right_answers(pair: Json, c: Json) -> str:
    """McNemar's test in words."""
    m, unit = pair["mcnemar"], c["unit"]
    return (
        f"{RIGHT[task_of(c)]} (McNemar): {m['first']:,} {unit}s only {pair['first']} has right, {m['second']:,} only "
        f"{pair['second']}, {m['both']:,} both, {m['neither']:,} neither; exact p {p_text(m['exact'])}, "
        f"mid-p {p_text(m['mid_p'])}, mid-p (Holm) {p_text(m['mid_p_holm'])}"
    )


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in columns of even width; the first is to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "    " + "  ".join(f"{text:{'<' if i in (0, 2) else '>'}{widths[i]}}" for i, text in enumerate(row)).rstrip()
        for row in rows
    ]


def comparison_page(c: Json) -> str:
    """The whole page; every number on it is in `c`."""
    level = f"{100 * c['level']:g} %"
    stamp = "; ".join(run["accepted_leak"] for run in leaks(c)) or None
    pairs = []
    for pair in c["pairs"]:
        drawn = differences_figure(
            {spoken(name, c): one for name, one in pair["metrics"].items()},
            title=f"{pair['first']} minus {pair['second']}, {c['n']:,} {c['unit']}s",
            leak=stamp,
        )
        caption = (
            f"Differences of the overall figures: points right of the line are larger for {pair['first']}, points left of it "
            f"for {pair['second']}. Bars are {level} intervals; one that does not touch the line tells the two apart, before "
            "any correction for the number of questions. Hollow: losses, Brier score, calibration error; less is better."
        )
        pairs.append(
            {
                "title": f"{pair['first']} minus {pair['second']}",
                "tables": [{"title": title, "rows": rows} for title, rows in tables(c, pair)],
                "right": right_answers(pair, c),
                "picture": figure_view(Figure(drawn, caption)),
            }
        )
    names = [run["name"] for run in c["runs"]]
    return template("pairs.html.jinja").render(
        c=c,
        title=f"{' and '.join(names)}: the same images",
        subtitle=subtitle(c),
        level=level,
        leaks=leaks(c),
        names=names,
        values=[(spoken(key, c), [cell(c["values"][name][key]) for name in names]) for key in c["values"][names[0]]],
        pairs=pairs,
    )
