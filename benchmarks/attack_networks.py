"""Accuracy and attack success rate of poisoned Fashion-MNIST networks.

One large CNN each, poisoned under T1 (target class 0, a share of 0.15) with a checkerboard, blended
stripes, a sinusoid, and a warp without and with noise mode, of the authors' strength and of twice
that; and under T2 (all to all) with a dot. The rate at which clean images of other classes are
predicted as the target class is the control.

Run: python benchmarks/attack_networks.py FOLDER EPOCHS SEED [NAME ...]

Each network goes to FOLDER/NAME_seedSEED.pt (its state dict) with NAME_seedSEED.json (its spec).
"""

import json
import sys
from pathlib import Path

import torch

import wobbliness
from wobbliness.attacks.poisoning import t1, t2
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.identity import written
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.data import ImageData, load_data
from wobbliness.study.training.train import train_network, triggered_accuracy

ATTACKS = {
    "checkerboard": wobbliness.trigger("checkerboard"),
    "all_to_all": wobbliness.trigger("dot"),
    "blended": wobbliness.Blended("stripes", 0.2),
    "sinusoid": wobbliness.Sinusoid(0.1, 6),
    "warp": wobbliness.Warp(4, 0.5),
    "warp_noise_mode": wobbliness.Warp(4, 0.5, cover_ratio=2),
    "warp_strong": wobbliness.Warp(4, 1),
    "warp_strong_noise_mode": wobbliness.Warp(4, 1, cover_ratio=2),
}
THREATS = {"all_to_all": t2()}
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
