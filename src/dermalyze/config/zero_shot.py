"""What a CLIP-type model is asked in words: its weights, templates, and names of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, field_validator

from dermalyze.config.base import Spec, read_mapping
from dermalyze.config.messages import validation_message
from dermalyze.errors import ConfigError, nearest

Words = Annotated[str, StringConstraints(min_length=1, max_length=300, strip_whitespace=True)]


class ZeroShotSpec(Spec):
    """Prompts: every template with every name of a class; their mean direction stands for the class."""

    name: str = Field("clip", pattern=r"^\w[\w.-]{0,39}$", description="of the features, for `--features`")
    weights: str = Field(
        min_length=1,
        description="a local .safetensors file with its open_clip_config.json beside it, or hf-hub:OWNER/NAME of such a pair",
    )
    templates: tuple[Words, ...] = Field(("{}",), min_length=1, description="each with one {}, the place of the class name")
    prompts: dict[str, tuple[Words, ...]] = Field(min_length=1, description="class to one or more names in words")

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_or_more(cls, prompts: Any) -> Any:
        if not isinstance(prompts, dict):
            return prompts
        for label, names in prompts.items():
            if names is None or (isinstance(names, list) and not names):
                raise ValueError(f"class '{label}' has no prompt; give it a name in words")
        return {str(label): [names] if isinstance(names, str) else names for label, names in prompts.items()}

    @field_validator("templates")
    @classmethod
    def _one_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            rest = template.replace("{}", "", 1)
            if "{}" not in template or "{" in rest or "}" in rest:
                raise ValueError(f"template '{template}' must hold {{}} once, where the name of a class goes")
        return templates

    def sentences(self, label: str) -> list[str]:
        """What is said of a class: every template with each of its names.

        >>> ZeroShotSpec(weights="x", templates=("a photo of {}",), prompts={"nv": ("a mole",)}).sentences("nv")
        ['a photo of a mole']
        """
        return [template.replace("{}", name) for name in self.prompts[label] for template in self.templates]

    def check_classes(self, classes: Sequence[str], file: str) -> None:
        """Refuse prompts that do not match these classes exactly.

        Raises:
            ConfigError: a class without a prompt, or a prompt of no class; all are named.
        """
        if missing := [label for label in classes if label not in self.prompts]:
            raise ConfigError(f"{file}: no prompt of {', '.join(missing)}; every class of the run needs one under prompts")
        if unknown := [label for label in self.prompts if label not in classes]:
            raise ConfigError(
                f"{file}: prompts of {', '.join(unknown)}, not classes of the run{nearest(unknown[0], list(classes))}; "
                f"its classes: {', '.join(classes)}"
            )


def load_zero_shot(path: Path) -> ZeroShotSpec:
    """Read and validate a file of prompts.

    Raises:
        ConfigError: unreadable, not YAML, unknown keys, a class without a prompt, or a template without its place.
    """
    try:
        return ZeroShotSpec.model_validate(read_mapping(path, "of weights, templates and prompts"))
    except ValidationError as error:
        raise ConfigError(validation_message(error, ZeroShotSpec, path.name)) from None
