"""The packaged model from record format 1 (dermalyze 0.1) to 2: the same network under named inputs, not trained again.

git show 67ab978:src/dermalyze/serve/small ...   # the files of format 1 in a folder
python tests/support/convert_packaged.py FOLDER src/dermalyze/serve/small
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.graph import Graph
from dermalyze.artifact.record import check_record, sealed
from dermalyze.core.atomic import json_bytes, sha256_bytes
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.samples import network_inputs
from dermalyze.stages.export import graph_record

WORDS = {
    "melanoma sensitivity": "sensitivity: Melanoma",
    "test part": "test split",
    "centred blob": "center prior",
    "licence": "license",
}


def renamed(graph: bytes) -> bytes:
    """The graph with its input `images` called `image`."""
    model = onnx.load_from_string(graph)
    for value in model.graph.input:
        value.name = "image" if value.name == "images" else value.name
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = "image" if name == "images" else name
    return bytes(model.SerializeToString(deterministic=True))


def reworded(value: Any) -> Any:
    """JSON values with today's words in their texts."""
    if isinstance(value, dict):
        return {key: reworded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [reworded(inner) for inner in value]
    if isinstance(value, str):
        for old, new in WORDS.items():
            value = value.replace(old, new)
    return value


def converted(values: dict[str, Any], files: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The record and the files of format 2."""
    files = dict(files)
    files["model.onnx"] = renamed(files["model.onnx"])
    files["metrics.json"] = json_bytes(reworded(json.loads(files["metrics.json"])))
    files["model_card.md"] = str(reworded(files["model_card.md"].decode())).encode()
    made = reworded({key: value for key, value in values.items() if key not in ("second", "sha256")})
    made |= {"schema_version": 2, "preprocessing": {**made["preprocessing"], "dtype": "uint8", "modality": "dermoscopy"}}
    made["model"] = {"image_2" if key == "second" else key: value for key, value in made["model"].items()}
    points = made["calibration"]["operating_points"]
    points["mel"] = points.pop("melanoma")
    made["reference"]["images"] = made["reference"].pop("pictures")
    inputs, cam = network_inputs(Preprocessing.from_dict(made["preprocessing"]).image), made["cam"]
    graph = Graph(files["model.onnx"], inputs, classes=len(made["classes"]), cam=(cam["height"], cam["width"]))
    made |= graph_record(graph)
    for group in ("files", "calibration_files", "evaluation_files"):
        made[group] = {name: sha256_bytes(files[name]) for name in made[group]}
    record = check_record(made)
    made |= {"graded_scores_sha256": record.scores_sha256, "evaluated_answers_sha256": record.answers_sha256}
    return made, files


def main() -> None:
    """Convert one folder."""
    source, target = map(Path, sys.argv[1:3])
    values = json.loads((source / "artifact.json").read_text())
    files = {path.name: path.read_bytes() for path in source.iterdir() if path.name != "artifact.json"}
    made, files = converted(values, files)
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (target / name).write_bytes(data)
    (target / "artifact.json").write_bytes(sealed(made))
    Artifact.open(target)


if __name__ == "__main__":
    main()
