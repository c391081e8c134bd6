"""A study as text and figures: Markdown, and one self-contained HTML page. Every number is in study.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from dermalyze.config.classes import describe
from dermalyze.report.figures import draw
from dermalyze.report.html import figure_view, template
from dermalyze.report.run_comparison import p_text, signed
from dermalyze.report.section import Figure
from dermalyze.report.style import ACCENT, GRID, INK, QUIET
from dermalyze.report.text import interval_or_note, meanings, value_text

Json = Mapping[str, Any]

OTHER = "#D55E00"
SIGNIFICANT = 0.05


def ranked(s: Json) -> list[Json]:
    """The tested runs, the best by the first metric first."""
    return sorted((r for r in s["runs"] if r["tested"]), key=lambda r: -(r["metrics"][s["tested"][0]]["value"] or 0))


def title_of(s: Json, metric: str) -> str:
    """A metric's name for a person."""
    return meanings(s)[metric][0]


# -- words ----------------------------------------------------------------------------------------------------------------


def subtitle(s: Json) -> str:
    """What was compared on what."""
    test, train = s["data"]["parts"]["test"], s["data"]["parts"]["train"]
    return (
        f"{len(s['runs'])} trainings on the same {train['images']:,} images, tested on the same {test['images']:,} images of "
        f"{test['groups']:,} groups; source {s['data']['source']}."
    )


def methods(s: Json) -> str:
    """How the numbers were made."""
    return (
        f"Intervals are {100 * s['level']:g} %, from a bootstrap of {s['resamples']:,} resamples over groups. Differences are "
        "the variant minus the reference under the same resamples, the first seed of each; p (Holm) is corrected for all "
        "questions of its table. What is not significant has not been shown to be equal. The intervals hold for these trained "
        "networks on other patients like these; another seed moves a figure as well, and one seed does not tell by how much. "
        "Training time and images per second are of this machine and whatever else it did; milliseconds are of one image, "
        "in fp32. All variants had the same budget of epochs unless the table says otherwise: a network that learns "
        "slowly may lead under a larger one."
    )


def verdict(c: Json, s: Json) -> str:
    """What a comparison shows by the first metric, and what it does not."""
    metric = s["tested"][0]
    if not c["rows"]:
        return f"{c['title']}: {c['note']}."
    told: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    for row in c["rows"]:
        one = row[metric]
        clear = one["p_holm"] is not None and one["p_holm"] < SIGNIFICANT
        words = ("better than" if one["value"] > 0 else "worse than") if clear else "not told apart from"
        value = f" ({signed(one['value'])})" if one["value"] is not None else ""
        told[words].append(row["variant"] + value)
    parts = [f"{words} {c['reference']}: {', '.join(names)}" for words, names in told.items() if names]
    return f"{c['title']}, {title_of(s, metric)}: {'; '.join(parts)}."


def table(s: Json) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the table of runs: the tested ones, each followed by its other seeds."""
    focus = list(dict.fromkeys(name for r in s["runs"] for name in r["focus_recall"]))
    several = any(not r["tested"] for r in s["runs"])
    head = ["variant", *(["seed"] if several else []), *(title_of(s, name) for name in s["columns"])]
    head += [f"sensitivity: {describe(name)}" for name in focus]
    head += ["M parameters", "epochs", "trained, min", "images/s", "ms per image"]
    rows = []
    for first in ranked(s):
        seeds = [first, *(r for r in s["runs"] if r["variant"] == first["variant"] and not r["tested"])]
        for r in seeds:
            figures = [r["metrics"][name] for name in s["columns"]] + [r["focus_recall"].get(name) for name in focus]
            rows.append(
                [
                    r["variant"], *([str(r["seed"])] if several else []), *map(_cell, figures), f"{r['parameters'] / 1e6:.2f}",
                    str(r["epochs"]), f"{r['trained_s'] / 60:.1f}", f"{r['trained_per_s']:.0f}", f"{r['latency_ms']:.1f}",
                ]
            )  # fmt: skip
    return head, rows


def _cell(estimate: Json | None) -> str:
    """Value and interval; a dash where the variant does not watch the class."""
    if estimate is None:
        return "–"
    more = interval_or_note(estimate)
    return f"{value_text(estimate)} ({more})" if more else value_text(estimate)


def difference_table(c: Json, s: Json) -> tuple[list[str], list[list[str]]]:
    """Head and cells of one comparison."""
    head = ["variant minus reference"]
    for name in s["tested"]:
        head += [title_of(s, name), "p (Holm)"]
    rows = []
    for row in c["rows"]:
        cells = [row["variant"]]
        for name in s["tested"]:
            one = row[name]
            text = value_text(one) if one["value"] is None else signed(one["value"])
            if one["low"] is not None:
                text += f" ({signed(one['low'])} – {signed(one['high'])})"
            cells += [text, p_text(one["p_holm"])]
        rows.append(cells)
    return head, rows


def seeds_lines(s: Json) -> list[str]:
    """Mean and range over seeds, one line per variant."""
    lines = []
    for name, found in s["over_seeds"].items():
        parts = [
            f"{title_of(s, metric)} {found[metric]['mean']:.3f} ({found[metric]['least']:.3f} to {found[metric]['most']:.3f})"
            for metric in s["tested"]
            if metric in found
        ]
        lines.append(f"{name}, {len(found['seeds'])} seeds, mean and range: {', '.join(parts)}")
    return lines


def seed_differences(c: Json, s: Json) -> tuple[list[str], list[list[str]]]:
    """Head and cells of one comparison's differences, averaged over the seeds that both sides have."""
    head = ["variant minus reference", "seeds"]
    for name in s["tested"]:
        head += [f"{title_of(s, name)}, mean over seeds", "p", "of each seed"]
    rows = []
    for row in c["over_seeds"]:
        cells = [row["variant"], str(len(row["seeds"]))]
        for name in s["tested"]:
            one = row[name]
            text = value_text(one) if one["value"] is None else signed(one["value"])
            text += f" ({signed(one['low'])} – {signed(one['high'])})" if one["low"] is not None else ""
            cells += [text, p_text(one["p_value"]), ", ".join("–" if v is None else signed(v) for v in one["of_seeds"])]
        rows.append(cells)
    return head, rows


def study_text(s: Json, figures: Mapping[str, Figure]) -> list[str]:
    """Lines of Markdown, which a person can read as they are.

    Args:
        s: the content of study.json.
        figures: by file name, to refer to; none on a terminal.
    """
    lines = [f"# {s['title']}", "", subtitle(s), f"**{s['disclaimer']}**", ""]
    lines += [f"- {r['run']}: LEAK ACCEPTED, NOT A FAIR RESULT: {r['accepted_leak']}" for r in s["runs"] if r["accepted_leak"]]
    lines += [f"- {verdict(c, s)}" for c in s["comparisons"]]
    lines += ["", "## The runs", "", *markdown(*table(s)), *(f"\n{line}." for line in seeds_lines(s))]
    for name, figure in figures.items():
        lines += ["", f"![{figure.caption.split(':')[0]}]({name})", "", figure.caption]
    for c in (c for c in s["comparisons"] if c["rows"]):
        lines += ["", f"## {c['title']}: against {c['reference']}", "", *markdown(*difference_table(c, s))]
        if c["over_seeds"]:
            lines += ["", "Averaged over seeds, with intervals over groups for these trainings:", ""]
            lines += markdown(*seed_differences(c, s))
    if s["failures"]:
        lines += ["", "## What failed", "", *(f"- {f['run']}: {f['reason']}" for f in s["failures"])]
    return [*lines, "", methods(s)]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table.

    >>> markdown(["a", "b"], [["1", "2"]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    return [f"| {' | '.join(cells)} |" for cells in (head,)] + [
        "|" + "---|" * len(head),
        *(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in rows),
    ]


def study_page(s: Json, figures: Mapping[str, Figure]) -> str:
    """The whole page."""
    tables = [(f"{c['title']}: against {c['reference']}", *difference_table(c, s)) for c in s["comparisons"] if c["rows"]]
    tables += [
        (f"{c['title']}: against {c['reference']}, averaged over seeds", *seed_differences(c, s))
        for c in s["comparisons"]
        if c["over_seeds"]
    ]
    return template("study.html.jinja").render(
        s=s,
        title=s["title"],
        subtitle=subtitle(s),
        leaks=[r for r in s["runs"] if r["accepted_leak"]],
        verdicts=[verdict(c, s) for c in s["comparisons"]],
        runs=table(s),
        seeds=seeds_lines(s),
        tables=tables,
        pictures=[figure_view(figure) for figure in figures.values()],
        methods=methods(s),
        provenance=[
            ("manifest, SHA-256", s["data"]["manifest_sha256"]),
            ("split certificate, SHA-256", s["data"]["certificate_sha256"]),
            ("versions", ", ".join(f"{name} {version}" for name, version in s["versions"].items())),
        ],
    )


# -- figures -------------------------------------------------------------------------------------------------------------


def study_figures(s: Json) -> dict[str, Figure]:
    """By file name: the variants in order, and their differences from the references."""
    leak = "; ".join(dict.fromkeys(r["accepted_leak"] for r in s["runs"] if r["accepted_leak"])) or None
    drawn = {
        "study.png": Figure(
            ranking(s, leak),
            f"The variants, best {title_of(s, s['tested'][0])} first: a dot is the value on the test split, the bar its "
            f"{100 * s['level']:g} % interval; hollow dots are other seeds. Orange squares: references, each carried through "
            "by a line. Overlapping bars can still differ, since all share the luck of one test split: see the differences.",
        )
    }
    if any(c["rows"] for c in s["comparisons"]):
        drawn["study-differences.png"] = Figure(
            differences_panels(s, leak),
            "Each variant minus its reference: bars are intervals under one bootstrap; a filled dot stands for a difference "
            "that holds after Holm's correction, a hollow one for a difference that has not been shown. Of log loss less is "
            "better.",
        )
    return drawn


def ranking(s: Json, leak: str | None) -> bytes:
    """Dot and interval of every variant, a panel a metric."""
    rows = ranked(s)
    references = {c["reference"] for c in s["comparisons"]}
    others: dict[str, list[Json]] = {r["variant"]: [] for r in rows}
    for r in s["runs"]:
        if not r["tested"] and r["variant"] in others:
            others[r["variant"]].append(r)

    def paint(figure: Canvas) -> None:
        panels = figure.subplots(1, len(s["tested"]), sharey=True)
        for axes, metric in zip(panels, s["tested"], strict=True):
            for y, r in enumerate(rows):
                one, colour = r["metrics"][metric], OTHER if r["variant"] in references else ACCENT
                for other in others[r["variant"]]:
                    if other["metrics"][metric]["value"] is not None:
                        axes.plot(other["metrics"][metric]["value"], y + 0.2, "o", markersize=4, color=colour, mfc="white")
                if one["value"] is None:
                    axes.text(0.02, y, "not estimable", transform=axes.get_yaxis_transform(), color=QUIET, va="center")
                    continue
                if r["variant"] in references:
                    axes.axvline(one["value"], color=OTHER, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
                interval(axes, one, y, colour)
                axes.plot(one["value"], y, "s" if r["variant"] in references else "o", markersize=6, color=colour)
                axes.text(1.02, y, f"{one['value']:.3f}", transform=axes.get_yaxis_transform(), fontsize=9, va="center")
            finish(axes, title_of(s, metric) + (" (lower is better)" if metric == "log_loss" else ""))
        panels[0].set_yticks(range(len(rows)), [r["variant"] for r in rows])
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]

    return draw(11.0, 0.3 * len(rows) + 0.9, s["title"], leak, paint)


def differences_panels(s: Json, leak: str | None) -> bytes:
    """Difference and interval of every variant, a block a comparison, a panel a metric."""
    comparisons = [c for c in s["comparisons"] if c["rows"]]
    lines: list[tuple[str, Json | None]] = []
    for c in comparisons:
        lines += [(f"{c['title']}: minus {c['reference']}", None), *((row["variant"], row) for row in c["rows"])]

    def paint(figure: Canvas) -> None:
        panels = figure.subplots(1, len(s["tested"]), sharey=True)
        for axes, metric in zip(panels, s["tested"], strict=True):
            axes.axvline(0, color=QUIET, linewidth=1, linestyle=(0, (4, 2)), zorder=0)
            for y, (_, row) in enumerate(lines):
                if row is None:
                    continue
                one = row[metric]
                if one["value"] is None:
                    axes.text(0.02, y, "not estimable", transform=axes.get_yaxis_transform(), color=QUIET, va="center")
                    continue
                clear = one["p_holm"] is not None and one["p_holm"] < SIGNIFICANT
                interval(axes, one, y, INK if clear else QUIET)
                axes.plot(one["value"], y, "o", markersize=6.5, color=ACCENT, markerfacecolor=ACCENT if clear else "white")
                axes.text(1.02, y, signed(one["value"]), transform=axes.get_yaxis_transform(), fontsize=9, va="center")
            finish(axes, title_of(s, metric) + (" (lower is better)" if metric == "log_loss" else ""))
        panels[0].set_yticks(range(len(lines)), ["" if row is None else name for name, row in lines])
        for y, (name, row) in enumerate(lines):
            if row is None:  # over the panels, for it is longer than any name
                heading = panels[0].text(0, y, name, transform=panels[0].get_yaxis_transform(), va="center", fontweight="bold")
                heading.set(backgroundcolor="white", in_layout=False)
        panels[0].set_zorder(2)
        panels[0].set_ylim(len(lines) - 0.4, -0.6)
        figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]

    return draw(11.0, 0.3 * len(lines) + 0.9, "Differences from the references", leak, paint)


def interval(axes: Axes, one: Json, y: float, colour: str) -> None:
    """The bar of an estimate, if it has one."""
    if one["low"] is not None:
        axes.plot([one["low"], one["high"]], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")


def finish(axes: Axes, title: str) -> None:
    """Title, grid and margins of a panel."""
    axes.set_title(title, loc="left")
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
