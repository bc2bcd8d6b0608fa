"""Shapes and types are checked at run time while the tests run; the package itself does not pay for it."""

import os
import secrets
import tempfile

import numpy as np
import pytest
from jaxtyping import install_import_hook

import wobbliness.box_muller  # before the hook: what numba compiles must stay as it is written
import wobbliness.pooling_loops
from wobbliness.ray_cluster import keep_to_this_machine

keep_to_this_machine()
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}  # read once, when anything imports Ray

with install_import_hook("wobbliness", "beartype.beartype"):
    import wobbliness.batches
    import wobbliness.bootstrap
    import wobbliness.candidates
    import wobbliness.classifiers.accelerated
    import wobbliness.classifiers.compiled
    import wobbliness.classifiers.estimator
    import wobbliness.classifiers.exported_program
    import wobbliness.classifiers.function
    import wobbliness.classifiers.hub_model
    import wobbliness.classifiers.kept_exports
    import wobbliness.classifiers.onnx_file
    import wobbliness.classifiers.torch_module
    import wobbliness.classifiers.weights_file
    import wobbliness.cleanse
    import wobbliness.cost_schedule
    import wobbliness.deciding
    import wobbliness.detection
    import wobbliness.entropy
    import wobbliness.execution
    import wobbliness.images
    import wobbliness.judgements
    import wobbliness.noise
    import wobbliness.pattern_effects
    import wobbliness.planning
    import wobbliness.row_tests
    import wobbliness.sampling
    import wobbliness.scan_findings
    import wobbliness.scan_pictures
    import wobbliness.scanning
    import wobbliness.smooth_ranks
    import wobbliness.statistics
    import wobbliness.stopping
    import wobbliness.strays
    import wobbliness.study.cells
    import wobbliness.study.data
    import wobbliness.study.poisoning
    import wobbliness.study.training
    import wobbliness.triggers
    import wobbliness.universal
    import wobbliness.votes  # noqa: F401


SLOWEST = ("documented", "ray", "results", "study", "forms", "tutorials", "page", "locks", "fuzz", "faults")
TURNS = {f"test_{name}": turn for turn, name in enumerate(SLOWEST)}


def pytest_configure(config):
    """Exported graphs are kept for all processes of this run, and for none after it."""
    if hasattr(config, "workerinput"):  # it has the environment of the process that began it
        return
    kept = tempfile.TemporaryDirectory(prefix="wobbliness-")
    os.environ["WOBBLINESS_CACHE"] = kept.name
    config.add_cleanup(kept.cleanup)


def pytest_collection_modifyitems(items):
    """Files that take minutes begin first: the last one to begin is what the other cores wait for."""
    items.sort(key=lambda item: TURNS.get(item.path.stem, len(TURNS)))


class HalfSpace:
    """Class 1 where w . x > b, else class 0; its rows never depend on the batch they are in."""

    def __init__(self, num_features, seed=0):
        self.normal = np.random.default_rng(seed).normal(size=num_features)
        self.offset = 0.5 * self.normal.sum()

    def __call__(self, images):
        flat = np.asarray(images, dtype=np.float64).reshape(len(images), -1)
        return ((flat * self.normal).sum(axis=1) > self.offset).astype(np.int64)

    def probability(self, images, sigma):
        """Exact probability of class 1: Phi(margin / (sigma ||w||))."""
        from scipy import stats

        margin = (np.asarray(images, dtype=np.float64).reshape(len(images), -1) * self.normal).sum(axis=1) - self.offset
        return stats.norm.cdf(margin / (sigma * np.linalg.norm(self.normal)))


@pytest.fixture(scope="session")
def half_space():
    return HalfSpace(64)


@pytest.fixture(scope="session")
def digits():
    from wobbliness.study.data import load_data

    return load_data("digits")


@pytest.fixture(scope="session")
def images(digits):
    return digits.test.images[:40]
