"""Miller-Madow at 50 draws against the plug-in at 250, on the networks of a study.

The reference is the Miller-Madow W of 5,000 other draws. Run: python benchmarks/miller_madow.py
runs/fashion-mnist
"""

import sys
from pathlib import Path

import numpy as np

import wobbliness
from wobbliness.study.records.record import read_recipe
from wobbliness.study.specs import cell_name
from wobbliness.study.training.data import load_data
from wobbliness.study.training.saved_networks import load_network

POINTS, REFERENCE_DRAWS, SEEDS = 100, 5000, 10

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    recipe = read_recipe(folder)
    print(f"{'network':<34}{'sigma':>6}{'mean W':>9} | bias, root mean square error in nats of:")
    print(f"{'':<49} | Miller-Madow n = 50; plug-in n = 50; plug-in n = 250")
    for spec in recipe.effect_networks[:2]:
        network = load_network(folder / "networks" / f"{cell_name(spec)}.safetensors")
        images = load_data(spec.dataset).test.images[:POINTS]
        sigmas = [sigma for sigma in recipe.sigmas if 0.1 <= sigma <= 0.3]
        reference = wobbliness.sweep(network, images, sigmas, draws=REFERENCE_DRAWS, seed=0)
        few = [
            wobbliness.sweep(network, images, sigmas, draws=50, seed=1 + seed)
            for seed in range(SEEDS)
        ]
        many = [
            wobbliness.sweep(network, images, sigmas, draws=250, seed=100 + seed)
            for seed in range(SEEDS)
        ]
        for sigma in sigmas:
            exact = reference[sigma].miller_madow
            errors = (
                np.stack([one[sigma].miller_madow - exact for one in few]),
                np.stack([one[sigma].wobbliness - exact for one in few]),
                np.stack([one[sigma].wobbliness - exact for one in many]),
            )
            found = "; ".join(
                f"{error.mean():+.4f}, {np.sqrt((error**2).mean()):.4f}" for error in errors
            )
            print(
                f"{f'{spec.architecture} {spec.attack and spec.attack.name} seed {spec.seed}':<34}"
                f"{sigma:>6}{exact.mean():>9.3f} | {found}",
                flush=True,
            )
