"""Answers for images, on the command line and over HTTP, without PyTorch.

`predictor` holds an artifact ready to answer; `server` puts it behind HTTP; `web` is the page that asks the server;
`small` is the model that comes with the package. It may import the artifact, calibration, tasks, imaging and what
they stand on, and nothing of data, models or training: what the base install can do is a fact of this layout. Every
surface says that an answer is no diagnosis.
"""
