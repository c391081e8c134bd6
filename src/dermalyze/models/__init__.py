"""Networks: backbones, heads, fusion with metadata, weights, export to ONNX.

`classifier.build_classifier` makes a `Classifier` of a spec: normalized images (B, 3, H, W), and metadata where it
takes them, to logits (B, C). Its backbone gives a feature map and an embedding, its head the logits. `weights` loads
safetensors after checking them; `deployed` wraps a trained network with its normalization into one ONNX graph. Only
`backbones*.py` imports timm and transformers, only `clip.py` open_clip. Nothing here reads data or trains; only
`unpickle.py` opens a pickle, in a process of its own.

To add a head, fusion or attention block: a function, a spec and a row of its table; a backbone: a row of `OWN`.
"""
