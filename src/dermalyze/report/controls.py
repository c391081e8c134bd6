"""What the controls say, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dermalyze.report.figures import interval_text

Json = Mapping[str, Any]

TITLES = {
    "shuffled": "shuffled labels",
    "metadata": "metadata only",
    "foreground": "foreground only",
    "background": "background only",
    "border": "border only",
    "shortcut": "borders exchanged",
    "planted": "planted shortcut",
}
"""Controls by name, in order."""


def line(name: str, control: Json) -> str:
    """One line for a person.

    >>> line("foreground", {"verdict": "not estimable", "why": "the set has no masks"})
    'foreground only: not estimable. The set has no masks.'
    """
    return f"{TITLES[name]}: {control['verdict']}. {sentence(name, control)}"


def sentence(name: str, control: Json) -> str:
    """What a control found, with its figures."""
    if control["verdict"] == "not estimable":
        why = str(control["why"])
        return f"{why[:1].upper()}{why[1:]}."
    return WORDS[name](control)


def _noun(c: Json) -> str:
    """What the task tells apart: class, or label."""
    return str(c.get("noun", "class"))


def _shuffled(c: Json) -> str:
    found = f"Trained on labels dealt out at random, the macro AUROC is {interval_text(c['macro_auroc'])}"
    if c["verdict"] == "holds":
        return f"{found}: nothing, as it must be."
    return (
        f"{found} and should be 0.5: something tells the test labels to the training (chance alone does this once in twenty "
        "times; try another seed)."
    )


def _metadata(c: Json) -> str:
    own = "" if c["own"] is None else f"; the model itself reaches {interval_text(c['own'])}"
    inputs = ", ".join(c["inputs"])
    found = f"{inputs[:1].upper()}{inputs[1:]} without an image reach a macro AUROC of {interval_text(c['macro_auroc'])}{own}."
    return " ".join([found, *(f"{detail[:1].upper()}{detail[1:]}." for detail in c["findings"])])


def _compared(c: Json) -> str:
    return f"macro AUROC {interval_text(c['macro_auroc'])}, whole images with the same budget {interval_text(c['whole'])}"


def _without(c: Json) -> str:
    """How the lesion was hidden."""
    if c["masks"]:
        return "its box, grown a little, in the mean color of the rest; the box's size still shows"
    return "no masks: lesions that reach into the border are seen there"


def _foreground(c: Json) -> str:
    tells = "tells" if c["verdict"] == "holds" else "does not tell"
    end = f"the lesion alone {tells} the {_noun(c)}"
    return f"With all but the lesion painted over: {_compared(c)}; {end}."


def _background(c: Json) -> str:
    return f"Without the lesion ({_without(c)}): {_compared(c)}. {_told(c)}"


def _border(c: Json) -> str:
    return f"An outer ring of an eighth of each edge, without the lesion ({_without(c)}): {_compared(c)}. {_told(c)}"


def _told(c: Json) -> str:
    if c["verdict"] == "holds":
        return f"No {_noun(c)} is clearly told without its lesion."
    classes = c["telling"]
    best = max(classes, key=lambda name: float(c["per_class"][name]["value"])) if classes else None
    named = "" if best is None else f", above all {best} ({interval_text(c['per_class'][best])})"
    return f"The set has give-aways: what is not lesion tells the {_noun(c)}{named}."


def _shortcut(c: Json) -> str:
    macro = c["macro_auroc"]
    found = (
        f"With the border of another image of {SAME[_noun(c)]} the run's model has a macro AUROC of "
        f"{interval_text(macro['same'])}, with one of {OTHER[_noun(c)]} {interval_text(macro['other'])}; lost "
        f"{interval_text(macro['difference'])}"
    )
    if c["verdict"] == "holds":
        return f"{found}. No {_noun(c)} hangs on its borders."
    told = [f"{name} loses {interval_text(c['per_class'][name]['difference'])}" for name in c["telling"]]
    return f"{found}. The model takes the {_noun(c)} from borders: {', '.join(told) or ALL[_noun(c)]}."


def _planted(c: Json) -> str:
    absent, lying = c["lost"]["absent"], c["lost"]["lying"]
    found = (
        f"Trained with a mark on every {c['target']}: AUROC of {c['target']} {interval_text(absent['auroc']['truth'])} where "
        f"the mark tells the truth, {interval_text(absent['auroc']['absent'])} without it, "
        f"{interval_text(lying['auroc']['lying'])} where it lies; {RIGHT[_noun(c)]} lost "
        f"{interval_text(absent['accuracy']['difference'])} and {interval_text(lying['accuracy']['difference'])}"
    )
    by = interval_text(c["exchange"]["per_class"][c["target"]]["difference"])
    if c["verdict"] == "holds":
        return f"{found}. The exchange of borders finds it: {by}."
    return f"{found}. The exchange of borders does not find it ({by}): with this budget that it finds nothing tells little."


SAME = {"class": "the same class", "label": "the same labels"}
OTHER = {"class": "another class", "label": "other labels"}
ALL = {"class": "all classes together", "label": "all labels together"}
RIGHT = {"class": "accuracy", "label": "subset accuracy"}

WORDS: Mapping[str, Callable[[Json], str]] = {
    "shuffled": _shuffled,
    "metadata": _metadata,
    "foreground": _foreground,
    "background": _background,
    "border": _border,
    "shortcut": _shortcut,
    "planted": _planted,
}


def view(m: Json) -> dict[str, Any] | None:
    """What the page shows of the controls; nothing where none has been done."""
    c = m["controls"]
    if not c:
        return None
    rows = [
        {"title": TITLES[name], "verdict": found["verdict"], "sentence": sentence(name, found)}
        for name, found in c["controls"].items()
    ]
    return {"rows": rows, "notes": c["notes"], "epochs": c["settings"]["epochs"]}
