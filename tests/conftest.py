"""Fixtures of all tests; shapes and types of the package are checked at run time here only."""

import functools
import gc
import hashlib
import importlib
import os
import pkgutil
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # read once, by torch: where each core has its process, threads wait for those of the others
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    HANDS_OUT_TESTS = False
else:  # the process that hands out the tests runs none of them, and the others wait for it
    HANDS_OUT_TESTS = "--numprocesses" in sys.argv
if not HANDS_OUT_TESTS:
    gc.disable()  # until all tests are collected: millions of objects, and all of them stay

import hypothesis
import numpy as np
import pytest
import sampled_checks
from at_scale import is_at_scale
from jaxtyping import install_import_hook

if not HANDS_OUT_TESTS:
    import quick_exports
    import torch

    # before the hook: what numba compiles must stay as it is written
    import wobbliness.attacks.gradients.pooling_loops
    import wobbliness.perturbations.noise.box_muller
    import wobbliness.perturbations.noise.laplace_transform
    import wobbliness.perturbations.pictures.interpolation
    import wobbliness.perturbations.pictures.poisson
    import wobbliness.perturbations.pictures.stretching  # noqa: F401
from wobbliness.runtime.ray import keep_to_this_machine

hypothesis.settings.register_profile("all", deadline=None)  # machines differ
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)
keep_to_this_machine()
# read once, when anything imports Ray
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}

ROOMS = (
    "attacks",
    "classifiers",
    "detectors",
    "images",
    "perturbations",
    "sampling",
    "statistics",
    "study.cells",
    "study.training",
)

# scikit-learn hands values of any kind to an estimator, which refuses them when it is fitted
UNCHECKED = (
    "wobbliness.detectors.guards.smoothness_guard",
    "wobbliness.detectors.guards.files.guard_files",
)


def _check_rooms():
    """Imports all modules of the rooms with the checks of shapes and types written into them."""
    sampled_checks.install()
    hook = install_import_hook("wobbliness", "sampled_checks.check_types")
    should_check = hook.hook.should_instrument
    # also where a checked module imports one of these
    hook.hook.should_instrument = lambda name: name not in UNCHECKED and should_check(name)
    with hook:
        for room in ROOMS:
            package = importlib.import_module(f"wobbliness.{room}")
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)


if not HANDS_OUT_TESTS:
    _check_rooms()
    quick_exports.keep_exporter_tables()

SLOWEST = (
    "ray",
    "readme",
    "study",
    "locks",
    "worker_crashes",
    "tutorials",
    "smoothness_guard",
    "model_formats",
    "detectors",
    "results",
    "html_report",
    "profile_guard",
    "model_scan",
    "damaged_files",
    "probing",
    "fashion_mnist",
    "sequential_test",
    "hugging_face",
    "torch_module",
    "profile_guard_files",
    "study_folders",
    "rehearsal",
    "noises",
    "compiled_modules",
    "command_line",
)
SHARED = "WOBBLINESS_SHARED_BY_TESTS"
SAVE_FASHION_MNIST = """
import sys
import numpy as np
from wobbliness.study.training.data import load_data

loaded = load_data("fashion_mnist")
for name in ("train", "test"):
    split = getattr(loaded, name)
    np.save(f"{sys.argv[1]}/{name}_images.npy", split.images)
    np.save(f"{sys.argv[1]}/{name}_labels.npy", split.labels)
"""
RANKS = {f"test_{name}": rank for rank, name in enumerate(SLOWEST)}


def pytest_configure(config):
    """Keeps exported graphs, and what `made_once` makes, for all processes of this run."""
    # of the 100 examples of a property most repeat at length what the first ones assert
    is_quick = config.option.markexpr == "not scale"
    hypothesis.settings.load_profile("quick" if is_quick else "all")
    if hasattr(config, "workerinput"):  # it has the environment of the process that started it
        return
    for variable in ("WOBBLINESS_CACHE", SHARED):
        kept = tempfile.TemporaryDirectory(prefix="wobbliness-")
        os.environ[variable] = kept.name
        config.add_cleanup(kept.cleanup)


def pytest_runtest_setup():
    """Checks the first calls of every function; a test's networks do not depend on those before."""
    sampled_checks.counts.clear()
    torch.manual_seed(0)


def made_once(name, make):
    """Returns a folder that `make` fills for the first process that asks, and that all read."""
    from filelock import FileLock

    folder = Path(os.environ[SHARED]) / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            beside = folder.with_suffix(".unfinished")
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            make(beside)
            beside.rename(folder)
    return folder


def pytest_collection_finish():
    """Leaves the objects of modules and tests out of all later garbage collections."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks tests that `make test` leaves out; starts files that take minutes first.

    The other cores wait for the last file to start.
    """
    for item in items:
        case = item.callspec.id if hasattr(item, "callspec") else ""
        if is_at_scale(getattr(item, "originalname", item.name), case):
            item.add_marker("scale")
    items.sort(key=lambda item: RANKS.get(item.path.stem, len(RANKS)))


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

        margin = (np.asarray(images, dtype=np.float64).reshape(len(images), -1) * self.normal).sum(
            axis=1
        ) - self.offset
        return stats.norm.cdf(margin / (sigma * np.linalg.norm(self.normal)))


@pytest.fixture(scope="session")
def half_space():
    return HalfSpace(64)


@pytest.fixture(scope="session")
def digits():
    from wobbliness.study.training.data import load_data

    return load_data("digits")


@pytest.fixture(scope="session")
def fashion_mnist():
    """Fashion-MNIST by `load_data`, its 70,000 pictures decoded once in the whole run."""
    from wobbliness.study.training.data import DATA_VARIABLE, ImageData, Split

    if not os.environ.get(DATA_VARIABLE):
        pytest.skip(f"{DATA_VARIABLE} does not name the folder of data sets")

    def make(folder):
        # in a process without checks of shapes, which take as long as all else
        subprocess.run([sys.executable, "-c", SAVE_FASHION_MNIST, str(folder)], check=True)

    folder = made_once("fashion_mnist", make)

    def read(name):
        images, labels = (np.load(folder / f"{name}_{part}.npy") for part in ("images", "labels"))
        return Split(images=images, labels=labels, num_classes=10)

    return ImageData(name="fashion_mnist", train=read("train"), test=read("test"))


@pytest.fixture(scope="session")
def images(digits):
    return digits.test.images[:40]


@pytest.fixture(scope="session")
def trained(digits):
    """Gives a network of the digits by its spec, trained once in the whole run."""
    from wobbliness.runtime.progress import ignore_progress
    from wobbliness.study.training.train import train_network

    def train(spec, folder):
        torch.save(
            train_network(spec, digits, progress=ignore_progress).network, folder / "network.pt"
        )

    def network(spec):
        name = f"network-{hashlib.sha256(repr(spec).encode()).hexdigest()[:16]}"
        return torch.load(
            made_once(name, functools.partial(train, spec)) / "network.pt", weights_only=False
        )

    return network


@pytest.fixture(scope="session")
def uninterrupted():
    """The folder of `small_study.small()` done by one process, never written to, and its tables."""
    from small_study import small, tables_of

    from wobbliness.study.running.runner import run_study

    def make(folder):
        run_study(small(), folder / "study", workers=1)
        tables_of(folder / "study")

    out = made_once("uninterrupted", make) / "study"
    return out, {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}


@pytest.fixture
def mounted(tmp_path):
    """Mounts a new file system of a size (`512k`) under `tmp_path`; it is gone after the test."""
    folders = []

    def mount(size):
        folder = tmp_path / "disk"
        folder.mkdir()
        done = shutil.which("mount") and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if not done or done.returncode:
            pytest.skip("file systems can be mounted by the superuser alone")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
