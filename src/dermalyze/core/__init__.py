"""Run folder, artefact, runtime, errors and progress: what every other room stands on."""
