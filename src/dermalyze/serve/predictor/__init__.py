"""An artifact ready to answer.

`inputs` turns what a person names into a stream of items; `preparing` decodes each and brings it to the network's
size; `gate` checks the image; `predictor.Predictor` runs the graph and the calibration; `interpreter` makes the
numbers a `prediction.Prediction`, which reads like a dict; `output` prints it. A bad image becomes a prediction with
`error`, and the rest continue. `engine` collects images that wait, so that the server answers them together. Never
torch, timm or pandas.

To add a field of the answer: `Prediction`, its `as_dict`, and `server/replies.py` for HTTP.
"""
