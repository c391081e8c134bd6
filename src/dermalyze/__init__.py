"""Train, judge and serve classifiers of medical images, skin lesions first. For research and education, not for diagnosis.

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
from typing import TYPE_CHECKING, Any

# Since 1.29 ONNX Runtime reports names and hashes of models to its maker, unless this is set before it is imported; the client
# of the weights' hub reports too. From here nothing is reported to anybody; who wants it sets the variable to 0.
for _variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_variable, "1")

if TYPE_CHECKING:
    from dermalyze.config.experiment import ExperimentSpec, load_experiment
    from dermalyze.config.experiment import json_schema as schema
    from dermalyze.core.run import Run
    from dermalyze.data.fetch import fetch
    from dermalyze.data.synthetic.synth import synthesize as synth
    from dermalyze.errors import (
        ConfigError,
        DataError,
        DermalyzeError,
        InterruptedRunError,
        LeakError,
        MissingExtraError,
        ModelError,
        ResourceError,
        UsageError,
    )
    from dermalyze.models.import_weights import import_weights
    from dermalyze.serve.predictor.answers import predict
    from dermalyze.serve.predictor.predictor import Predictor
    from dermalyze.serve.predictor.verify import verify
    from dermalyze.serve.server.server import serve_http
    from dermalyze.stages.audit import audit
    from dermalyze.stages.calibrate import calibrate
    from dermalyze.stages.embed import embed
    from dermalyze.stages.evaluate import evaluate, evaluate_external, evaluate_predictions, recalibrate
    from dermalyze.stages.explain import explain
    from dermalyze.stages.export import export
    from dermalyze.stages.fit_check import fit_check
    from dermalyze.stages.frozen import frozen
    from dermalyze.stages.init import init
    from dermalyze.stages.map import draw_map as map
    from dermalyze.stages.plot import plot
    from dermalyze.stages.prepare import prepare
    from dermalyze.stages.probe import probe
    from dermalyze.stages.similar import similar
    from dermalyze.stages.split import split
    from dermalyze.stages.train import train
    from dermalyze.workflows.advise import advise
    from dermalyze.workflows.bench import bench
    from dermalyze.workflows.controls import controls
    from dermalyze.workflows.doctor import doctor
    from dermalyze.workflows.ensemble import ensemble
    from dermalyze.workflows.leak_bill import leak_bill
    from dermalyze.workflows.models import models
    from dermalyze.workflows.pipeline import run_experiment as run
    from dermalyze.workflows.runs import runs
    from dermalyze.workflows.study import compare

    __version__: str

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
    "advise": "workflows.advise:advise",
    "audit": "stages.audit:audit",
    "bench": "workflows.bench:bench",
    "calibrate": "stages.calibrate:calibrate",
    "compare": "workflows.study:compare",
    "controls": "workflows.controls:controls",
    "doctor": "workflows.doctor:doctor",
    "embed": "stages.embed:embed",
    "ensemble": "workflows.ensemble:ensemble",
    "evaluate": "stages.evaluate:evaluate",
    "evaluate_external": "stages.evaluate:evaluate_external",
    "evaluate_predictions": "stages.evaluate:evaluate_predictions",
    "explain": "stages.explain:explain",
    "export": "stages.export:export",
    "fetch": "data.fetch:fetch",
    "fit_check": "stages.fit_check:fit_check",
    "frozen": "stages.frozen:frozen",
    "import_weights": "models.import_weights:import_weights",
    "init": "stages.init:init",
    "leak_bill": "workflows.leak_bill:leak_bill",
    "load_experiment": "config.experiment:load_experiment",
    "map": "stages.map:draw_map",
    "models": "workflows.models:models",
    "plot": "stages.plot:plot",
    "predict": "serve.predictor.answers:predict",
    "prepare": "stages.prepare:prepare",
    "probe": "stages.probe:probe",
    "recalibrate": "stages.evaluate:recalibrate",
    "run": "workflows.pipeline:run_experiment",
    "runs": "workflows.runs:runs",
    "schema": "config.experiment:json_schema",
    "serve_http": "serve.server.server:serve_http",
    "similar": "stages.similar:similar",
    "split": "stages.split:split",
    "synth": "data.synthetic.synth:synthesize",
    "train": "stages.train:train",
    "verify": "serve.predictor.verify:verify",
}

__all__ = [
    "ConfigError",
    "DataError",
    "DermalyzeError",
    "ExperimentSpec",
    "InterruptedRunError",
    "LeakError",
    "MissingExtraError",
    "ModelError",
    "Predictor",
    "ResourceError",
    "Run",
    "UsageError",
    "__version__",
    "advise",
    "audit",
    "bench",
    "calibrate",
    "compare",
    "controls",
    "doctor",
    "embed",
    "ensemble",
    "evaluate",
    "evaluate_external",
    "evaluate_predictions",
    "explain",
    "export",
    "fetch",
    "fit_check",
    "frozen",
    "import_weights",
    "init",
    "leak_bill",
    "load_experiment",
    "map",
    "models",
    "plot",
    "predict",
    "prepare",
    "probe",
    "recalibrate",
    "run",
    "runs",
    "schema",
    "serve_http",
    "similar",
    "split",
    "synth",
    "train",
    "verify",
]


def _public(name: str) -> Any:
    module, attribute = _SOURCES[name].split(":")
    return getattr(import_module(f"dermalyze.{module}"), attribute)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("dermalyze")
    elif name in _SOURCES:
        value = _public(name)
    else:
        raise AttributeError(f"module 'dermalyze' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


class _Package(ModuleType):
    """This module. Python binds a package that is imported to its parent; that must not hide the function of its name."""

    audit = property(lambda _: _public("audit"), lambda _, package: None)
    explain = property(lambda _: _public("explain"), lambda _, package: None)
    models = property(lambda _: _public("models"), lambda _, package: None)


sys.modules[__name__].__class__ = _Package
