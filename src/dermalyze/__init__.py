"""Train, judge and serve classifiers of medical images, skin lesions first. For research and education, not for diagnosis.

Every command of the command line is one function here, and nothing heavy is imported before it is asked for.

>>> import dermalyze
>>> dermalyze.load_experiment is dermalyze.load_experiment
True
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Since 1.29 ONNX Runtime reports names and hashes of models to its maker, unless this is set before it is imported; the client
# of the weights' hub reports too. From here nothing is reported to anybody; who wants it sets the variable to 0.
for _variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_variable, "1")

if TYPE_CHECKING:
    from dermalyze.config.experiment import ExperimentSpec, load_experiment
    from dermalyze.config.experiment import json_schema as schema
    from dermalyze.core.errors import (
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
    from dermalyze.core.run import Run
    from dermalyze.data.fetch import fetch
    from dermalyze.data.synth import synthesize as synth
    from dermalyze.fleet.advise import advise
    from dermalyze.fleet.bench import bench
    from dermalyze.fleet.controls import controls
    from dermalyze.fleet.doctor import doctor
    from dermalyze.fleet.ensemble import ensemble
    from dermalyze.fleet.leak_bill import leak_bill
    from dermalyze.fleet.models import models
    from dermalyze.fleet.pipeline import run_experiment as run
    from dermalyze.fleet.runs import runs
    from dermalyze.fleet.study import compare
    from dermalyze.model.import_weights import import_weights
    from dermalyze.serve.answers import predict
    from dermalyze.serve.predictor import Predictor
    from dermalyze.serve.server import serve_http
    from dermalyze.serve.verify import verify
    from dermalyze.stages.audit import audit
    from dermalyze.stages.calibrate import calibrate
    from dermalyze.stages.embed import embed
    from dermalyze.stages.evaluate import evaluate
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

    __version__: str

_SOURCES = {
    "ConfigError": "core.errors:ConfigError",
    "DataError": "core.errors:DataError",
    "DermalyzeError": "core.errors:DermalyzeError",
    "ExperimentSpec": "config.experiment:ExperimentSpec",
    "InterruptedRunError": "core.errors:InterruptedRunError",
    "LeakError": "core.errors:LeakError",
    "MissingExtraError": "core.errors:MissingExtraError",
    "ModelError": "core.errors:ModelError",
    "Predictor": "serve.predictor:Predictor",
    "ResourceError": "core.errors:ResourceError",
    "Run": "core.run:Run",
    "UsageError": "core.errors:UsageError",
    "advise": "fleet.advise:advise",
    "audit": "stages.audit:audit",
    "bench": "fleet.bench:bench",
    "calibrate": "stages.calibrate:calibrate",
    "compare": "fleet.study:compare",
    "controls": "fleet.controls:controls",
    "doctor": "fleet.doctor:doctor",
    "embed": "stages.embed:embed",
    "ensemble": "fleet.ensemble:ensemble",
    "evaluate": "stages.evaluate:evaluate",
    "explain": "stages.explain:explain",
    "export": "stages.export:export",
    "fetch": "data.fetch:fetch",
    "fit_check": "stages.fit_check:fit_check",
    "frozen": "stages.frozen:frozen",
    "import_weights": "model.import_weights:import_weights",
    "init": "stages.init:init",
    "leak_bill": "fleet.leak_bill:leak_bill",
    "load_experiment": "config.experiment:load_experiment",
    "map": "stages.map:draw_map",
    "models": "fleet.models:models",
    "plot": "stages.plot:plot",
    "predict": "serve.answers:predict",
    "prepare": "stages.prepare:prepare",
    "probe": "stages.probe:probe",
    "run": "fleet.pipeline:run_experiment",
    "runs": "fleet.runs:runs",
    "schema": "config.experiment:json_schema",
    "serve_http": "serve.server:serve_http",
    "similar": "stages.similar:similar",
    "split": "stages.split:split",
    "synth": "data.synth:synthesize",
    "train": "stages.train:train",
    "verify": "serve.verify:verify",
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


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("dermalyze")
    elif name in _SOURCES:
        from importlib import import_module

        module, attribute = _SOURCES[name].split(":")
        value = getattr(import_module(f"dermalyze.{module}"), attribute)
    else:
        raise AttributeError(f"module 'dermalyze' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
