"""Accuracy and attack success rate of poisoned Fashion-MNIST networks.

One large CNN each, poisoned under T1 (target class 0, a share of 0.15) with the paper's patches,
blended stripes, a random picture at three opacities, a sinusoid, and a warp without and with
noise mode, of the authors' strength and of twice that; under T2 (all to all) with a dot; and under
T3 (250 images) with a checkerboard. The rate at which clean images of other classes are
predicted as the target class is the control.

Run: python benchmarks/attack_networks.py FOLDER EPOCHS SEED [NAME ...]

Each network goes to FOLDER/NAME_seedSEED.pt (its state dict) with NAME_seedSEED.json (its spec).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

import wobbliness
from wobbliness.attacks.patch import TRIGGER_NAMES, Trigger
from wobbliness.attacks.poisoning import t1, t2, t3
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.identity import written
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.data import ImageData, load_data
from wobbliness.study.training.train import train_network, triggered_accuracy


def blend(opacity: float) -> Trigger:
    """A random picture blended in (Chen et al. 2017), as in the study `noises`."""
    return Trigger(
        name=f"blend-{opacity:g}",
        pattern=np.random.default_rng(0).random((1, 28, 28), dtype=np.float32),
        mask=np.ones((28, 28), np.float32),
        opacity=opacity,
    )


ATTACKS = {
    **{name: wobbliness.trigger(name) for name in TRIGGER_NAMES},
    "few": wobbliness.trigger("checkerboard"),
    "blend_0.05": blend(0.05),
    "blend_0.1": blend(0.1),
    "blend_0.2": blend(0.2),
    "all_to_all": wobbliness.trigger("dot"),
    "blended": wobbliness.Blended("stripes", 0.2),
    "sinusoid": wobbliness.Sinusoid(0.1, 6),
    "warp": wobbliness.Warp(4, 0.5),
    "warp_noise_mode": wobbliness.Warp(4, 0.5, cover_ratio=2),
    "warp_strong": wobbliness.Warp(4, 1),
    "warp_strong_noise_mode": wobbliness.Warp(4, 1, cover_ratio=2),
}
THREATS = {"all_to_all": t2(), "few": t3(target_class=0)}
NOTHING = wobbliness.Blended("stripes", 0)


def train(name: str, data: ImageData, folder: Path, epochs: int, seed: int) -> str:
    """Trains and saves one network; returns what it reaches on the test images."""
    spec = NetworkSpec(
        dataset=data.name,
        architecture="large_cnn",
        epochs=epochs,
        batch_size=64,
        learning_rate=2e-3,
        threat=THREATS.get(name, t1(target_class=0)),
        trigger=ATTACKS[name],
        seed=seed,
    )
    found = train_network(spec, data, progress=ignore_progress)
    torch.save(found.network.state_dict(), folder / f"{name}_seed{seed}.pt")
    (folder / f"{name}_seed{seed}.json").write_text(json.dumps(written(spec), indent=2))
    without = triggered_accuracy(found.network, spec, data, NOTHING)
    return (
        f"{name} ({ATTACKS[name].name}), seed {seed}: clean accuracy {found.clean_accuracy:.4f}, "
        f"ASR {found.backdoor_accuracy:.4f}, without trigger {without:.4f}"
    )


if __name__ == "__main__":
    folder, epochs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    fashion = load_data("fashion_mnist")
    for name in sys.argv[4:] or ATTACKS:
        print(train(name, fashion, folder, epochs, seed), flush=True)
