"""Coverage of reporting checklists: of each item, where the run answers it, what a person said, or NOT REPORTED.

Numbers are those of the checklists; names are short ones of our own, and no substitute for the checklists' text.

CLAIM 2024: Tejani et al. 2024, Radiology: Artificial Intelligence 6(4):e240300, doi:10.1148/ryai.240300
TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378, doi:10.1136/bmj-2023-078378
STARD-AI: Sounderajah et al. 2025, Nature Medicine 31(10):3283-3289, doi:10.1038/s41591-025-03953-8

What the numbers rest on: all 52 numbers of TRIPOD+AI were held against a word-for-word transcription of the article's table 2
with its footnotes (23b and 27a to 27c against three of them, 12d against two, which agree), and were right. Those of STARD-AI
(40 items, 48 with parts) are from a transcription of the article's table 2 that says it was compared with the table row by
row. The articles themselves were not at hand.

CLEAR Derm (Daneshjou et al. 2022, JAMA Dermatology 158(1):90-96, doi:10.1001/jamadermatol.2021.4915) is left out. It has 25
items under data, technique, technical assessment and application, but only summaries of it could be had, which give neither
their numbers nor their wording, and a table with invented numbers would be worse than none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dermalyze.errors import one_line

Json = Mapping[str, Any]

REPORTED, PARTLY, MISSING = "reported", "in part", "NOT REPORTED"
ALWAYS = ("about", "reproduce")
"""Places of the page that are no sections of the table."""


@dataclass(frozen=True)
class Item:
    """One item of a checklist.

    Attributes:
        number: the checklist's.
        name: our own short name.
        places: where a run can answer it: `#key` a section of the page, else a key of `m["files"]`, each with words after a
            blank.
        asks: fields of report.yaml that belong to it; where there are any, the run alone answers it in part at most.
    """

    number: str
    name: str
    places: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


CLAIM_2024 = (
    Item("1", "kind of AI named in the title", ("#about",), ("title",)),
    Item("2", "structured summary", (), ("abstract",)),
    Item("3", "background, intended use and role", (), ("background", "intended_use")),
    Item("4", "aims and hypotheses", (), ("objectives",)),
    Item("5", "prospective or retrospective", (), ("study_design",)),
    Item("6", "goal of the study", ("#about",), ("objectives",)),
    Item("7", "data sources", ("configuration data",), ("data_sources",)),
    Item("8", "taken in and left out", ("summary quarantined",), ("eligibility",)),
    Item("9", "preprocessing", ("configuration preprocess", "artifact preprocessing")),
    Item("10", "selection of parts of the data", ("configuration data",), ("data_selection",)),
    Item("11", "de-identification", ("summary personal_metadata",), ("deidentification",)),
    Item("12", "missing data", ("summary missing",), ("missing_data",)),
    Item("13", "how pictures were taken", (), ("acquisition",)),
    Item("14", "reference standard: method", (), ("reference_standard",)),
    Item("15", "reference standard: reason", (), ("reference_rationale",)),
    Item("16", "reference standard: who labelled", (), ("annotators",)),
    Item("17", "labels of the test part", (), ("test_annotation",)),
    Item("18", "agreement of those who label", (), ("rater_variability",)),
    Item("19", "division into parts", ("#split", "certificate")),
    Item("20", "level at which parts are disjoint", ("#split", "certificate checks")),
    Item("21", "intended sample size", (), ("sample_size",)),
    Item("22", "the model", ("#about", "configuration model", "artifact")),
    Item("23", "software and versions", ("environment versions", "#reproduce")),
    Item("24", "first weights", ("#about", "configuration model")),
    Item("25", "training", ("configuration train", "history")),
    Item("26", "choice of the final model", ("configuration train", "history")),
    Item("27", "ensembling", ("configuration inference",)),
    Item("28", "metrics", ("#metrics", "#classes")),
    Item("29", "statistics of uncertainty", ("#reproduce", "#metrics")),
    Item("30", "robustness and sensitivity", ("#corruptions", "#controls")),
    Item("31", "explanations and their validation", (), ("explainability",)),
    Item("32", "internal test", ("#split", "#metrics")),
    Item("33", "external test", ("#data", "external")),
    Item("34", "trial registration", (), ("trial_registration",)),
    Item("35", "numbers taken in and left out", ("summary images", "#split")),
    Item("36", "people in each part", ("#for_whom",), ("characteristics",)),
    Item("37", "performance with uncertainty", ("#metrics", "#calibration")),
    Item("38", "diagnostic accuracy with precision", ("#classes",)),
    Item("39", "analysis of failures", ("#failures", "#classes")),
    Item("40", "limitations", ("#biases",), ("limitations",)),
    Item("41", "implications for practice", (), ("implications",)),
    Item("42", "protocol or technical details", ("configuration",), ("protocol",)),
    Item("43", "availability of software, model and data", (), ("code_sharing", "data_sharing")),
    Item("44", "funding", (), ("funding",)),
)
TRIPOD_AI = (
    Item("1", "title", (), ("title",)),
    Item("2", "abstract", (), ("abstract",)),
    Item("3a", "health-care context", (), ("background",)),
    Item("3b", "people, purpose and users", (), ("intended_use", "intended_users")),
    Item("3c", "known health inequalities", (), ("health_inequalities",)),
    Item("4", "objectives", (), ("objectives",)),
    Item("5a", "data sources", ("configuration data",), ("data_sources",)),
    Item("5b", "dates", (), ("data_dates",)),
    Item("6a", "setting and centres", (), ("setting",)),
    Item("6b", "eligibility", ("summary quarantined",), ("eligibility",)),
    Item("6c", "treatments", (), ("treatments",)),
    Item("7", "data preparation", ("configuration preprocess", "audit", "summary quarantined")),
    Item("8a", "outcome", ("#classes",), ("reference_standard",)),
    Item("8b", "who assessed the outcome", (), ("annotators",)),
    Item("8c", "blinding of the outcome's assessment", (), ("outcome_blinding",)),
    Item("9a", "choice of predictors", ("#about", "configuration model")),
    Item("9b", "predictors and how they were measured", ("configuration preprocess",), ("acquisition",)),
    Item("9c", "who assessed the predictors", (), ("acquisition",)),
    Item("10", "sample size", ("#split",), ("sample_size",)),
    Item("11", "missing data", ("summary missing",), ("missing_data",)),
    Item("12a", "use and division of the data", ("#split", "certificate")),
    Item("12b", "handling of predictors", ("configuration preprocess", "configuration train")),
    Item("12c", "building, tuning, internal validation", ("configuration model", "configuration train", "history")),
    Item("12d", "heterogeneity between clusters: method", (), ("heterogeneity",)),
    Item("12e", "performance measures", ("#metrics", "#reproduce")),
    Item("12f", "updating after evaluation: method", (), ("model_updating",)),
    Item("12g", "how predictions are calculated", ("artifact", "configuration inference")),
    Item("13", "class imbalance", ("configuration train", "#calibration")),
    Item("14", "fairness: method", ("#for_whom", "#biases"), ("fairness",)),
    Item("15", "what the model puts out", ("#about", "#calibration", "#silence")),
    Item("16", "training against evaluation data", ("#split", "#data")),
    Item("17", "ethical approval", (), ("ethics",)),
    Item("18a", "funding", (), ("funding",)),
    Item("18b", "conflicts of interest", (), ("conflicts",)),
    Item("18c", "protocol", ("configuration",), ("protocol",)),
    Item("18d", "registration", (), ("registration",)),
    Item("18e", "data sharing", (), ("data_sharing",)),
    Item("18f", "code sharing", (), ("code_sharing",)),
    Item("19", "patients and public", (), ("patient_involvement",)),
    Item("20a", "flow of participants", ("summary images", "#split")),
    Item("20b", "characteristics of participants", ("#for_whom",), ("characteristics",)),
    Item("20c", "development against evaluation data", ("#split",), ("characteristics",)),
    Item("21", "numbers in each analysis", ("#split", "#classes")),
    Item("22", "the full model", ("artifact", "configuration model")),
    Item("23a", "performance with intervals", ("#metrics", "#classes", "#calibration", "#for_whom")),
    Item("23b", "heterogeneity between clusters: result", (), ("heterogeneity",)),
    Item("24", "updating: result", (), ("model_updating",)),
    Item("25", "interpretation", (), ("interpretation",)),
    Item("26", "limitations", ("#biases",), ("limitations",)),
    Item("27a", "poor or missing input", ("#silence",), ("input_handling",)),
    Item("27b", "users' part and expertise", (), ("user_interaction",)),
    Item("27c", "next steps", (), ("next_steps",)),
)
STARD_AI = (
    Item("1", "AI and a measure of accuracy in title or abstract", ("#about",), ("title",)),
    Item("2", "structured abstract", (), ("abstract",)),
    Item("3", "background, intended use, place in the workflow", (), ("background", "intended_use")),
    Item("4", "objectives and hypotheses", (), ("objectives",)),
    Item("5", "prospective or retrospective", (), ("study_design",)),
    Item("6", "ethical approval", (), ("ethics",)),
    Item("7", "eligibility of people and of data", ("summary quarantined",), ("eligibility",)),
    Item("8", "how people were found", (), ("eligibility",)),
    Item("9", "where and when", (), ("setting", "data_dates")),
    Item("10", "consecutive, random or convenience series", (), ("participant_series",)),
    Item("11", "source of the data, and why they were collected", ("configuration data",), ("data_sources",)),
    Item("12", "who annotated, and how", (), ("annotators",)),
    Item("13", "devices, and software with versions", ("environment versions", "#reproduce"), ("acquisition",)),
    Item("14", "acquisition and preprocessing", ("configuration preprocess", "artifact preprocessing"), ("acquisition",)),
    Item("15a", "the index test", ("#about", "configuration model", "artifact")),
    Item("15b", "its development and the size of each part", ("#split", "configuration train", "history")),
    Item("15c", "cut-offs of the index test", ("#operating", "#silence")),
    Item("15d", "users and their expertise", (), ("intended_users",)),
    Item("16a", "reference standard", (), ("reference_standard",)),
    Item("16b", "reference standard: reason", (), ("reference_rationale",)),
    Item("16c", "cut-offs of the reference standard", (), ("reference_cutoffs",)),
    Item("17a", "what was known to those who ran the index test", ("configuration model",), ("outcome_blinding",)),
    Item("17b", "what was known to those who set the reference", (), ("outcome_blinding",)),
    Item("18", "statistics of accuracy", ("#metrics", "#reproduce")),
    Item("19", "indeterminate results", ("#silence", "#decision"), ("input_handling",)),
    Item("20", "missing data", ("summary missing",), ("missing_data",)),
    Item("21", "variability of accuracy", ("#for_whom", "#corruptions")),
    Item("22", "intended sample size", (), ("sample_size",)),
    Item("23", "analysis of errors, bias and fairness", ("#failures", "#for_whom"), ("fairness",)),
    Item("24", "flow of participants", ("summary images", "#split")),
    Item("25", "characteristics of each part", ("#for_whom",), ("characteristics",)),
    Item("26a", "severity of disease", (), ("severity",)),
    Item("26b", "other diagnoses", ("#classes", "#split")),
    Item("27", "time and treatment between test and reference", (), ("test_interval",)),
    Item("28", "whether the data are as those of intended use", ("#biases",), ("data_sources",)),
    Item("29", "how an external set differs", ("#data", "external")),
    Item("30", "index test against reference, counted", ("#classes",)),
    Item("31", "accuracy with precision", ("#metrics", "#classes")),
    Item("32", "adverse events", (), ("adverse_events",)),
    Item("33", "limitations", ("#biases",), ("limitations",)),
    Item("34", "implications for practice", (), ("implications", "intended_use")),
    Item("35", "ethics and fairness of using it", ("#biases",), ("fairness", "ethics")),
    Item("36", "registration", (), ("registration",)),
    Item("37", "protocol", (), ("protocol",)),
    Item("38", "funding", (), ("funding",)),
    Item("39", "commercial interests", (), ("conflicts",)),
    Item("40a", "availability of data and code", (), ("data_sharing", "code_sharing")),
    Item("40b", "outputs stored and open to audit", (), ("output_audit",)),
)
CHECKLISTS: Mapping[str, tuple[Item, ...]] = {"CLAIM 2024": CLAIM_2024, "TRIPOD+AI": TRIPOD_AI, "STARD-AI": STARD_AI}


def answer(item: Item, m: Json, shown: Collection[str]) -> dict[str, Any]:
    """An item's state, where the run answers it, and what a person said.

    Args:
        item: of a checklist.
        m: what stands in evaluation_metrics.json; `files` and `person` are used.
        shown: keys of the sections that are on the page.

    >>> answer(Item("44", "funding", (), ("funding",)), {"files": {}, "person": {"funding": "none"}}, ())["state"]
    'reported'
    """
    files, person = m["files"] or {}, m["person"] or {}
    places = []
    for place in item.places:
        key, _, words = place.partition(" ")
        if key.startswith("#"):
            if key[1:] in shown or key[1:] in ALWAYS:
                places.append({"anchor": key[1:], "file": None, "words": ""})
        elif key in files:
            places.append({"anchor": None, "file": files[key], "words": words})
    said = [one_line(person[field]) for field in item.asks if person.get(field)]
    whole = len(said) == len(item.asks) and (places or said)
    state = REPORTED if whole else PARTLY if places or said else MISSING
    return {"number": item.number, "name": item.name, "state": state, "places": places, "said": said}


def coverage(m: Json, shown: Collection[str]) -> list[dict[str, Any]]:
    """Every checklist with the answers to its items, and how many are reported."""
    found = []
    for title, items in CHECKLISTS.items():
        rows = [answer(item, m, shown) for item in items]
        counts = {state: sum(row["state"] == state for row in rows) for state in (REPORTED, PARTLY, MISSING)}
        found.append({"title": title, "rows": rows, "counts": counts, "total": len(rows)})
    return found


def view(m: Json, shown: Mapping[str, str]) -> dict[str, Any] | None:
    """What the page shows, only for a run's own test part; `shown`: titles of the sections that stand on it, by key."""
    if m["files"] is None:
        return None
    return {"lists": coverage(m, shown), "names": dict(shown)}


def markdown(m: Json, shown: Mapping[str, str]) -> str:
    """The tables as Markdown, for a supplement."""
    v = view(m, shown)
    names = {} if v is None else v["names"]
    lines = [f"# Reporting checklists: {escaped(m['title'])}", "", *NOTE, ""]
    for found in [] if v is None else v["lists"]:
        lines += [f"## {found['title']}", "", summary(found), "", "| item | about | state | where |", "|---|---|---|---|"]
        for row in found["rows"]:
            where = [place_text(place, names) for place in row["places"]] + [f"“{escaped(said)}”" for said in row["said"]]
            lines.append(f"| {row['number']} | {row['name']} | {row['state']} | {'; '.join(where)} |")
        lines.append("")
    return "\n".join([*lines, m["disclaimer"], ""])


NOTE = (
    "Numbers are those of the checklists, names are short ones of our own: read the checklists themselves before submitting. "
    "An item is in part reported where the run answers some of it and the rest is for a person to write into report.yaml; "
    "nothing is guessed.",
    "",
    "CLAIM 2024: Tejani et al. 2024, doi:10.1148/ryai.240300. TRIPOD+AI: Collins et al. 2024, doi:10.1136/bmj-2023-078378. "
    "STARD-AI: Sounderajah et al. 2025, doi:10.1038/s41591-025-03953-8.",
)


def summary(found: Json) -> str:
    """How many items are answered."""
    return ", ".join(f"{state}: {count}" for state, count in found["counts"].items()) + f"; of {found['total']} items."


def place_text(place: Json, names: Json) -> str:
    """A place in words.

    >>> place_text({"anchor": None, "file": "config.yaml", "words": "train"}, {})
    '`config.yaml` (train)'
    """
    if place["anchor"] is not None:
        return f"report.html, {names.get(place['anchor'], OTHER.get(place['anchor'], place['anchor']))}"
    return f"`{place['file']}`" + (f" ({place['words']})" if place["words"] else "")


OTHER = {"about": "What this is", "reproduce": "How to get the same numbers again"}


def escaped(text: str) -> str:
    """Text that is no markup and breaks no table in Markdown.

    >>> escaped("a|b <i>")
    'a\\\\|b &lt;i&gt;'
    """
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)
