"""What of a study only a person can tell: `report.yaml`. The report shows it where a checklist asks, and guesses nothing."""

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
    """Answers in one's own words; where something does not apply, write that and why."""

    title: Text | None = Field(None, description="of the study")
    abstract: Text | None = Field(None, description="structured summary, or where it stands")
    background: Text | None = Field(None, description="the medical question, and what others have done")
    intended_use: Text | None = Field(None, description="what the model is meant for, for whom, and where in care")
    intended_users: Text | None = Field(None, description="who is to work with it, and with what training")
    health_inequalities: Text | None = Field(None, description="known differences in health between groups of people")
    objectives: Text | None = Field(None, description="aims and hypotheses; development, evaluation or both")
    study_design: Text | None = Field(None, description="prospective or retrospective")
    data_sources: Text | None = Field(None, description="where the data come from, and whom they represent")
    data_dates: Text | None = Field(None, description="first and last date of collection")
    setting: Text | None = Field(None, description="kind, number and place of the centres")
    eligibility: Text | None = Field(None, description="who and which pictures were taken in, and left out")
    data_selection: Text | None = Field(None, description="why a part of the data was used, if it was")
    participant_series: Text | None = Field(None, description="whether people were a consecutive, random or convenience series")
    treatments: Text | None = Field(None, description="treatments before the picture was taken, if they matter")
    characteristics: Text | None = Field(None, description="age, sex, skin tone and so on of the people in each part")
    severity: Text | None = Field(None, description="how severe the disease was in those who had it")
    test_interval: Text | None = Field(None, description="time and treatment between the picture and the right answer")
    missing_data: Text | None = Field(None, description="what was missing, and what was done about it")
    deidentification: Text | None = Field(None, description="how persons were made unrecognisable")
    acquisition: Text | None = Field(None, description="devices, settings and people that took the pictures")
    reference_standard: Text | None = Field(None, description="how and when the right answer was found")
    reference_rationale: Text | None = Field(None, description="why it was found this way")
    reference_cutoffs: Text | None = Field(None, description="from where on the right answer counts as disease, and why")
    annotators: Text | None = Field(None, description="who labelled, and with what experience")
    test_annotation: Text | None = Field(None, description="how the test part was labelled")
    rater_variability: Text | None = Field(None, description="how far those who label agree")
    outcome_blinding: Text | None = Field(None, description="whether those who label knew what the model is given")
    sample_size: Text | None = Field(None, description="how many cases were wanted, and why")
    fairness: Text | None = Field(None, description="what was done about fairness, and why")
    heterogeneity: Text | None = Field(None, description="differences between centres or other clusters")
    model_updating: Text | None = Field(
        None, description="whether the model was changed after evaluation, and with what result"
    )
    explainability: Text | None = Field(None, description="how answers are explained, and how that was validated")
    ethics: Text | None = Field(None, description="committee, number, consent or waiver")
    trial_registration: Text | None = Field(None, description="number of the clinical trial")
    registration: Text | None = Field(None, description="where the study is registered, or that it is not")
    protocol: Text | None = Field(None, description="where the protocol can be read, or that there is none")
    patient_involvement: Text | None = Field(None, description="how patients and the public took part")
    interpretation: Text | None = Field(
        None, description="what the results mean, beside those of others, and for whom they are fair"
    )
    adverse_events: Text | None = Field(None, description="harm from the picture or the reference, or that there was none")
    limitations: Text | None = Field(None, description="of the study")
    implications: Text | None = Field(None, description="for practice")
    input_handling: Text | None = Field(None, description="what a user is to do with poor or missing pictures")
    user_interaction: Text | None = Field(None, description="what users must do and know")
    output_audit: Text | None = Field(None, description="whether answers are stored, and who can look them through")
    next_steps: Text | None = Field(None, description="research that has to follow")
    data_sharing: Text | None = Field(None, description="whether and where the data can be had")
    code_sharing: Text | None = Field(None, description="whether and where code and model can be had")
    funding: Text | None = Field(None, description="who paid, and what part they had")
    conflicts: Text | None = Field(None, description="interests of the authors")


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
