"""Run folder, artifact, runtime, errors and progress: what every other room stands on."""
