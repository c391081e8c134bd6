"""Train, evaluate and serve classifiers of medical images. For research and education, not for diagnosis.

Every command of the command line is one function here, and nothing heavy is imported before it is asked for.

>>> import dermalyze
>>> dermalyze.load_experiment is dermalyze.load_experiment
True
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from dermalyze.cli.table import COMMANDS

# Since 1.29 ONNX Runtime reports names and hashes of models to its maker, unless this is set before it is imported; the client
# of the weights' hub reports too. From here nothing is reported to anybody; who wants it sets the variable to 0.
for _variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_variable, "1")

_SOURCES = {
    "ConfigError": "errors:ConfigError",
    "DataError": "errors:DataError",
    "DermalyzeError": "errors:DermalyzeError",
    "ExperimentSpec": "config.experiment:ExperimentSpec",
    "InterruptedRunError": "errors:InterruptedRunError",
    "LeakError": "errors:LeakError",
    "MissingExtraError": "errors:MissingExtraError",
    "ModelError": "errors:ModelError",
    "Predictor": "serve.predictor.predictor:Predictor",
    "ResourceError": "errors:ResourceError",
    "Run": "core.run:Run",
    "UsageError": "errors:UsageError",
    "evaluate_external": "stages.evaluate:evaluate_external",
    "evaluate_predictions": "stages.evaluate:evaluate_predictions",
    "load_experiment": "config.experiment:load_experiment",
    "recalibrate": "stages.evaluate:recalibrate",
    **{command.public: command.source for command in COMMANDS.values()},
}
"""Public names and where they are defined; type checkers read the same in `__init__.pyi`."""

__all__ = sorted([*_SOURCES, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("dermalyze")
    elif name in _SOURCES:
        module, attribute = _SOURCES[name].split(":")
        value = getattr(import_module(f"dermalyze.{module}"), attribute)
    else:
        raise AttributeError(f"module 'dermalyze' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


class _Package(ModuleType):
    """This module. Python binds a room that is imported to its parent; that must not hide the function of its name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _SOURCES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
