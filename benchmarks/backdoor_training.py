"""The clean accuracy, backdoor accuracy and training loss of one network of a recipe.

They tell whether the recipe learns its backdoor; the accuracies are those on test points.

Run: python benchmarks/backdoor_training.py DATASET ARCHITECTURE THREAT TRIGGER EPOCHS BATCH_SIZE
LEARNING_RATE SEED... for instance: python benchmarks/backdoor_training.py cifar10 resnet18_width16
T1 dot 1 64 0.003 0 1 2
"""

import sys

from wobbliness.attacks.poisoning import t1, t2, t3
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import train_network

THREATS = {"T1": t1(target_class=0), "T2": t2(), "T3": t3(target_class=0)}

if __name__ == "__main__":
    dataset, architecture, threat, trigger, epochs, batch_size, learning_rate = sys.argv[1:8]
    data = load_data(dataset)
    for seed in map(int, sys.argv[8:]):
        spec = NetworkSpec(
            dataset=dataset,
            architecture=architecture,
            epochs=int(epochs),
            batch_size=int(batch_size),
            learning_rate=float(learning_rate),
            threat=THREATS[threat],
            trigger=trigger,
            seed=seed,
        )
        found = train_network(spec, data)
        accuracies = f"clean {found.clean_accuracy:.1%}, backdoor {found.backdoor_accuracy:.1%}"
        print(f"seed {seed}: {accuracies}, losses {found.losses.round(3)}")
