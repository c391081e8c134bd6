"""The exported model: one folder that holds all that answers need. numpy and onnxruntime, never torch.

`artifact.Artifact.open` checks every file against the SHA-256 in `artifact.json` and its bounds (`integrity`,
`onnx_scan`) before anything runs, and gives the checked record and the `graph.Graph`: pixels (B, H, W, 3) uint8 to
logits and embedding. `edit` replaces the calibration or the evaluation; the network itself is never changed in place.
What is refused raises `ModelError`. Nothing is unpickled.

To add a field: `ArtifactRecord`, with a default where older artifacts lack it, and `scores_sha256` if scores depend
on it.
"""
