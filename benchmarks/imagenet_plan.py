"""The time that ImageNet would take at the rate measured on this machine.

It is that of 1.28 million images x 250 draws x 5 sigmas.

    python benchmarks/imagenet_plan.py --cores 2

ResNet-50 (transformers, random weights: they change no timing) on random images of 3 x 224 x 224,
through `sweep`.
"""

import argparse
import json
import time

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification

import wobbliness

IMAGES, DRAWS, SIGMAS = 1_281_167, 250, (0.05, 0.1, 0.15, 0.2, 0.3)
CLUSTERS = (64, 512, 4096)  # cores


class ResNet50(torch.nn.Module):
    """Logits in place of the answer that transformers wraps them in."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ResNetForImageClassification(ResNetConfig(num_labels=1000))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(B, 1000)`."""
        return self.model(images).logits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=2, help="threads of the measurement")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--draws", type=int, default=50)
    arguments = parser.parse_args()
    model, images = (
        ResNet50().eval(),
        np.random.default_rng(0).random((arguments.images, 3, 224, 224), dtype=np.float32),
    )
    settings = {"workers": arguments.cores, "num_classes": 1000}
    wobbliness.sweep(model, images[:1], SIGMAS, draws=2, **settings)
    began = time.perf_counter()
    votes = wobbliness.sweep(model, images, SIGMAS, draws=arguments.draws, **settings).votes[0]
    rate = (
        arguments.images
        * arguments.draws
        * len(SIGMAS)
        / (time.perf_counter() - began)
        / arguments.cores
    )
    core_hours = IMAGES * DRAWS * len(SIGMAS) / rate / 3600
    few = {"images": 10_000, "sigmas": 1, "core_hours": round(10_000 * DRAWS / rate / 3600)}
    print(
        json.dumps(
            {
                "passes a second and core": round(rate, 2),
                "backend": votes.execution and votes.execution.backend,
                "core hours": round(core_hours),
                "days": {f"{cores} cores": round(core_hours / cores / 24, 1) for cores in CLUSTERS},
                "a sample": few,
                "votes, MB at int64, dense": round(IMAGES * len(SIGMAS) * 1000 * 8 / 1e6),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
