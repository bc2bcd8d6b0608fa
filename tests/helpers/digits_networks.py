"""Networks of the digits that tests of detectors judge."""

from wobbliness.study.specs import NetworkSpec


def planted_and_clean(trained, threat, trigger):
    """A network poisoned by a threat, and a clean one of the same training."""
    base = {
        "dataset": "digits",
        "architecture": "small_cnn",
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "seed": 0,
    }
    return [
        trained(NetworkSpec(**base, threat=threat, trigger=trigger)),
        trained(NetworkSpec(**base, threat=None, trigger=None)),
    ]
