# Written by docs/generate.py; do not edit.

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
from dermalyze.stages.init import init
from dermalyze.stages.linear_probe import linear_probe
from dermalyze.stages.plot import plot
from dermalyze.stages.plot_embeddings import plot_embeddings
from dermalyze.stages.prepare import prepare
from dermalyze.stages.score import score
from dermalyze.stages.similar import similar
from dermalyze.stages.split import split
from dermalyze.stages.train import train
from dermalyze.workflows.advise import advise
from dermalyze.workflows.bench import bench
from dermalyze.workflows.controls import controls
from dermalyze.workflows.doctor import doctor
from dermalyze.workflows.ensemble import ensemble
from dermalyze.workflows.leakage import leakage
from dermalyze.workflows.models import models
from dermalyze.workflows.pipeline import run_experiment as run
from dermalyze.workflows.runs import runs
from dermalyze.workflows.study import compare

__version__: str

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
    "import_weights",
    "init",
    "leakage",
    "linear_probe",
    "load_experiment",
    "models",
    "plot",
    "plot_embeddings",
    "predict",
    "prepare",
    "recalibrate",
    "run",
    "runs",
    "schema",
    "score",
    "serve_http",
    "similar",
    "split",
    "synth",
    "train",
    "verify",
]
