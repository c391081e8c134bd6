"""What a map costs: closed form against a forward pass, Grad-CAM against captum's and, where installed, the grad-cam package's.

    python benchmarks/explain.py [--backbone resnet18] [--size 224] [--batch 8] [--rounds 20]

Ratios of medians of interleaved rounds, one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from dermalyze.config.model import ModelSpec
from dermalyze.explain.attribution import explain_batch
from dermalyze.models.classifier import build_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_classifier(ModelSpec(backbone=asked.backbone), 7, load_weights=False).eval()
    images = torch.randn(asked.batch, 3, asked.size, asked.size)

    def forward() -> None:
        with torch.no_grad():
            model(images)

    ways: dict[str, Callable[[], Any]] = {
        "forward pass": forward,
        "closed form": lambda: explain_batch(model, images, "closed_form", 1),
        "Grad-CAM": lambda: explain_batch(model, images, "gradcam", 1),
    }
    try:
        from captum.attr import LayerGradCam

        captum = LayerGradCam(model, model.backbone.tap)
        ways["captum's Grad-CAM"] = lambda: captum.attribute(images, target=1)
    except ModuleNotFoundError:
        print("captum is not installed: pip install 'dermalyze[explain]'")
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        package = GradCAM(model=model, target_layers=[model.backbone.tap])
        targets = [ClassifierOutputTarget(1)] * asked.batch
        ways["grad-cam package's"] = lambda: package(input_tensor=images, targets=targets)
    except ModuleNotFoundError:
        print("grad-cam is not installed: pip install 'dermalyze[bench]'")
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(asked.rounds + 2):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if number >= 2:  # the first two warm up
                taken[name].append(time.process_time() - began)
    base = statistics.median(taken["forward pass"])
    print(f"{asked.backbone}, {asked.batch} images of {asked.size} px, medians of {asked.rounds} rounds, processor time")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{name:20} {1000 * median:9.1f} ms   {median / base:5.2f} forward passes")


if __name__ == "__main__":
    main()
