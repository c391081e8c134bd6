"""What only a person can state about a study: `report.yaml`. The report shows it where a checklist asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from dermalyze.config.base import Spec, read_mapping
from dermalyze.config.messages import validation_message
from dermalyze.errors import ConfigError

Text = Annotated[str, Field(min_length=1, max_length=4000)]


class ReportSpec(Spec):
    """Free text per item. If an item does not apply, write this and the reason."""

    title: Text | None = Field(None, description="title of the study")
    abstract: Text | None = Field(None, description="structured summary, or a reference to it")
    background: Text | None = Field(None, description="medical question and prior work")
    intended_use: Text | None = Field(
        None, description="purpose of the model, target patients, and place in the clinical pathway"
    )
    intended_users: Text | None = Field(None, description="intended users and the training they need")
    health_inequalities: Text | None = Field(None, description="known health inequalities between groups of people")
    objectives: Text | None = Field(None, description="aims and hypotheses; development, evaluation or both")
    study_design: Text | None = Field(None, description="prospective or retrospective")
    data_sources: Text | None = Field(None, description="sources of the data and the population they represent")
    data_dates: Text | None = Field(None, description="first and last date of collection")
    setting: Text | None = Field(None, description="kind, number and place of the centers")
    eligibility: Text | None = Field(None, description="inclusion and exclusion criteria for participants and images")
    data_selection: Text | None = Field(None, description="how and why a subset of the data was selected, if one was")
    participant_series: Text | None = Field(
        None, description="whether participants are a consecutive, random or convenience series"
    )
    treatments: Text | None = Field(None, description="treatments before image acquisition, if relevant")
    characteristics: Text | None = Field(
        None, description="age, sex, skin tone and other characteristics of the participants in each split"
    )
    severity: Text | None = Field(None, description="severity of disease in the affected participants")
    test_interval: Text | None = Field(None, description="time and treatment between image and reference standard")
    missing_data: Text | None = Field(None, description="what was missing and how it was handled")
    deidentification: Text | None = Field(None, description="how the data were de-identified")
    acquisition: Text | None = Field(None, description="devices, settings and operators of image acquisition")
    reference_standard: Text | None = Field(None, description="how and when the reference standard was obtained")
    reference_rationale: Text | None = Field(None, description="why this reference standard was chosen")
    reference_cutoffs: Text | None = Field(
        None, description="cut-off at which the reference standard counts as disease, and why"
    )
    annotators: Text | None = Field(None, description="who labeled the images, and their experience")
    test_annotation: Text | None = Field(None, description="how the test split was labeled")
    rater_variability: Text | None = Field(None, description="agreement between annotators")
    outcome_blinding: Text | None = Field(None, description="whether annotators were blinded to the model's inputs")
    sample_size: Text | None = Field(None, description="planned number of cases, and why")
    fairness: Text | None = Field(None, description="measures for fairness, and why")
    heterogeneity: Text | None = Field(None, description="differences between centers or other clusters")
    model_updating: Text | None = Field(None, description="changes to the model after evaluation, and their result")
    explainability: Text | None = Field(
        None, description="how predictions are explained, and how the explanations were validated"
    )
    ethics: Text | None = Field(None, description="committee, number, consent or waiver")
    trial_registration: Text | None = Field(None, description="number of the clinical trial")
    registration: Text | None = Field(None, description="registry of the study, or that it is not registered")
    protocol: Text | None = Field(None, description="access to the protocol, or that there is none")
    patient_involvement: Text | None = Field(None, description="involvement of patients and the public")
    interpretation: Text | None = Field(
        None, description="meaning of the results, comparison with other studies, and fairness across subgroups"
    )
    adverse_events: Text | None = Field(None, description="harm from imaging or the reference standard, or that there was none")
    limitations: Text | None = Field(None, description="limitations of the study")
    implications: Text | None = Field(None, description="implications for practice")
    input_handling: Text | None = Field(None, description="how users handle poor or missing images")
    user_interaction: Text | None = Field(None, description="required interaction and knowledge of users")
    output_audit: Text | None = Field(None, description="whether predictions are stored, and who can audit them")
    next_steps: Text | None = Field(None, description="further research needed")
    data_sharing: Text | None = Field(None, description="whether and where the data are available")
    code_sharing: Text | None = Field(None, description="whether and where code and model are available")
    funding: Text | None = Field(None, description="funders and their role")
    conflicts: Text | None = Field(None, description="competing interests of the authors")


def load_report(path: Path) -> ReportSpec:
    """Read and validate a `report.yaml`.

    Raises:
        ConfigError: unreadable, not YAML, unknown keys, or an answer that is no text.
    """
    try:
        return ReportSpec.model_validate(read_mapping(path, "of answers (intended_use, ethics, funding, ...)"))
    except ValidationError as error:
        raise ConfigError(validation_message(error, ReportSpec, path.name)) from None


def dump_report(spec: ReportSpec) -> str:
    """The answers that were given, as YAML."""
    return yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
