"""What each augmentation policy costs, as a ratio to `standard`, measured in turns on this machine.

.venv/bin/python benchmarks/augmentation.py [--rounds 9] [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from dermalyze.config.train import AugmentSpec
from dermalyze.training.augment import POLICIES, augment

BATCH, HEIGHT, WIDTH = 64, 144, 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    specs = {name: AugmentSpec(policy=name) for name in POLICIES}  # type: ignore[arg-type]
    specs["standard + perspective"] = AugmentSpec(perspective=0.3)
    images = torch.randint(0, 256, (BATCH, HEIGHT, WIDTH, 3), dtype=torch.uint8).to(options.device)
    times: dict[str, list[float]] = {name: [] for name in specs}
    for turn in range(options.rounds + 1):
        for name, spec in specs.items():
            started = time.perf_counter()
            augment(images, spec, seed=0, epoch=turn, positions_B=np.arange(BATCH))
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # warm
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        ratio = seconds / medians["standard"]
        print(f"{name:24s} {seconds * 1e3:7.1f} ms a batch of {BATCH} at {HEIGHT}x{WIDTH}, {ratio:.2f} of standard")


if __name__ == "__main__":
    main()
