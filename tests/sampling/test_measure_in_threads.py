"""Measurements from several threads give the votes of one, and leave the process as it was."""

import logging
import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

import wobbliness
from wobbliness.runtime.process_state import borrowed_state, quiet_thread
from wobbliness.study.training.networks import build_network

SETTINGS = {"sigma": 0.3, "draws": 60}


@pytest.fixture
def few(images):
    return images[:6]


def at_the_same_time(functions):
    """Calls each function in a thread of its own; returns their results."""
    start = threading.Barrier(len(functions))

    def call(function):
        start.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(call, functions))


class WithDropout(nn.Module):
    """Cannot be compiled as float64; in training mode its answers are random."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 4)
            )

    def forward(self, batch):
        return self.layers(batch)


class Keeping(nn.Module):
    """Keeps features on itself, and goes on from them in a way that no exporter follows."""

    def __init__(self):
        super().__init__()
        self.inside = WithDropout()
        self.inside.layers[1].register_forward_hook(self._keep)

    def _keep(self, _module, _inputs, output):
        self.kept = np.array(output.tolist(), np.float32)

    def forward(self, batch):
        self.inside(batch)
        features = self.kept.reshape(len(batch), 4, -1)
        return torch.from_numpy(features.sum(axis=2))


@contextmanager
def talking():
    """Another thread that prints and logs all the time; gives how often, and what was logged.

    Entered by the test itself: between the phases of a test its prints are captured elsewhere.
    """
    said, is_over, wanted = [], threading.Event(), []
    logger = logging.getLogger("wobbliness_test_talking")
    logger.propagate = False

    class Keep(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    handler = Keep()
    logger.addHandler(handler)

    def talk():
        while not is_over.wait(0.001):
            print("still here")
            logger.warning("still here")
            wanted.append("still here")

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield wanted, said
    finally:
        is_over.set()
        thread.join()
        logger.removeHandler(handler)


def test_fresh_modules_measured_side_by_side(few, capsys):
    networks = [build_network("small_cnn", (1, 8, 8), 10, seed=seed).train() for seed in range(4)]
    import sympy  # noqa: F401  # the exporter loads it, and it adds a filter of warnings for good

    before = (
        sys.stdout,
        sys.stderr,
        logging.root.manager.disable,
        list(warnings.filters),
        torch.get_num_threads(),
    )
    with talking() as (wanted, logged):
        found = at_the_same_time(
            [lambda own=network: wobbliness.measure(own, few, **SETTINGS) for network in networks]
        )
    assert (
        sys.stdout,
        sys.stderr,
        logging.root.manager.disable,
        list(warnings.filters),
        torch.get_num_threads(),
    ) == before
    assert logged == wanted != []
    assert capsys.readouterr().out.splitlines() == wanted
    for network, votes in zip(networks, found, strict=True):
        assert votes.execution.backend == "onnxruntime"
        assert np.array_equal(votes.counts, wobbliness.measure(network, few, **SETTINGS).counts)
        assert all(part.training for part in network.modules())
        assert not any(part._forward_hooks for part in network.modules())


def test_a_module_in_training_mode_measured_by_two_threads(few):
    module = WithDropout().double()
    alone = wobbliness.measure(module.eval(), few, **SETTINGS)
    module.train()
    for votes in at_the_same_time([lambda: wobbliness.measure(module, few, **SETTINGS)] * 4):
        assert np.array_equal(votes.counts, alone.counts)
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("workers", [None, 4])
def test_a_module_that_keeps_features_on_itself_runs_on_one_thread(few, workers):
    module = Keeping().eval()
    one = wobbliness.measure(module, few, workers=1, **SETTINGS)
    assert one.wobbliness.max() > 0.1, "control: there is something to confuse"
    assert np.array_equal(
        wobbliness.measure(module, few, workers=workers, **SETTINGS).counts, one.counts
    )
    for votes in at_the_same_time(
        [lambda: wobbliness.measure(module, few, workers=workers, **SETTINGS)] * 3
    ):
        assert np.array_equal(votes.counts, one.counts)
        assert votes.execution.threads == "one calling thread, with torch's own threads inside"


def test_one_classifier_shared_by_many_threads(few):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    alone = wobbliness.measure(network, few, **SETTINGS)
    assert alone.execution.threads is None
    shared = wobbliness.open_classifier(network)
    for votes in at_the_same_time([lambda: wobbliness.measure(shared, few, **SETTINGS)] * 6):
        assert np.array_equal(votes.counts, alone.counts)
        assert votes.execution == alone.execution
    assert shared.num_classes == 10


def test_a_module_may_be_used_while_another_thread_compiles_it(few):
    """The exporter traces a twin: with the module itself, others would meet its symbols."""
    network, is_over = WithDropout().eval(), threading.Event()
    batch = torch.from_numpy(few)
    with torch.no_grad():
        expected = network(batch)

    def use():
        found = []
        while not is_over.is_set():
            with torch.no_grad():
                found.append(torch.equal(network(batch), expected))
        return found

    def compile_it():
        try:
            return wobbliness.measure(network, few, **SETTINGS).execution.backend
        finally:
            is_over.set()

    used, backend = at_the_same_time([use, compile_it])
    assert backend == "onnxruntime"
    assert all(used)
    assert len(used) > 3


def test_a_callable_may_measure_by_itself_and_by_threads_of_its_own(few):
    inner = WithDropout().double().eval()
    w = wobbliness.measure(inner, few, **SETTINGS).wobbliness

    def nested(batch):
        one = wobbliness.measure(inner, few, **SETTINGS).wobbliness
        (other,) = at_the_same_time([lambda: wobbliness.measure(inner, few, **SETTINGS).wobbliness])
        assert np.array_equal(one, w)
        assert np.array_equal(other, w)
        return np.zeros(len(batch), np.int64)

    assert wobbliness.measure(
        nested, few[:1], sigma=0.1, draws=2, num_classes=2
    ).counts.tolist() == [[2, 0]]


class Nested(nn.Module):
    """Measures another module in the middle of its own pass."""

    def __init__(self, images):
        super().__init__()
        self.inner, self.images = WithDropout().double(), images

    def forward(self, batch):
        w = wobbliness.measure(self.inner, self.images, sigma=0.3, draws=5).wobbliness
        return batch.flatten(1)[:, :3] + float(w.sum()) * 0


def test_a_module_may_measure_another_one(few):
    assert wobbliness.measure(Nested(few[:1]), few[:2], **SETTINGS).counts.sum() == 120


def test_an_error_gives_everything_back(few):
    module = WithDropout().double().train()
    with pytest.raises(ValueError, match="^expected images that the module accepts"):
        wobbliness.measure(module, few[:, :, :4], **SETTINGS)
    assert all(part.training for part in module.modules())
    assert not any(part._forward_hooks for part in module.modules())
    (found,) = at_the_same_time([lambda: wobbliness.measure(module, few, **SETTINGS).draws])
    assert found == SETTINGS["draws"], "no lock is held"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_while_another_thread_borrows_does_not_wait_for_it(few):
    module = WithDropout().double().eval()
    # starts torch's own threads, which a fork leaves behind
    alone = wobbliness.measure(module, few, **SETTINGS)
    is_inside, may_leave = threading.Event(), threading.Event()

    def borrow():
        with borrowed_state():
            is_inside.set()
            may_leave.wait()

    thread = threading.Thread(target=borrow)
    thread.start()
    is_inside.wait()
    child = os.fork()
    if child == 0:
        try:
            votes = wobbliness.measure(module, few, **SETTINGS)
            os._exit(0 if np.abs(votes.counts - alone.counts).sum() <= 2 else 1)
        finally:
            os._exit(2)
    may_leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_only_the_one_thread_is_kept_quiet(recwarn, caplog):
    warnings.simplefilter("always")
    logger = logging.getLogger("wobbliness_test_quiet.inside")

    def say(what):
        warnings.warn(what, stacklevel=1)
        logger.warning(what)

    with quiet_thread("wobbliness_test_quiet"):
        say("of this thread")
        thread = threading.Thread(target=say, args=["of another one"])
        thread.start()
        thread.join()
        with warnings.catch_warnings():  # puts a copy of the filters in the place of the list
            say("still of this thread")
    say("afterwards")
    assert [str(warning.message) for warning in recwarn] == ["of another one", "afterwards"]
    assert caplog.messages == ["of another one", "afterwards"]
    assert not logger.filters


class KeepsByAHook(torch.nn.Module):
    """Keeps features on itself by a hook on a part, and goes on from them through numpy."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inside, self.outside = torch.nn.Linear(64, 16), torch.nn.Linear(16, 5)
        self.inside.register_forward_hook(lambda _, __, found: setattr(self, "kept", found))

    def forward(self, images):
        self.inside(images.flatten(1))
        weight = self.outside.weight.detach().numpy().T * 9
        return torch.from_numpy(np.tanh(self.kept.detach().numpy()) @ weight).float()


class PlainTwin(KeepsByAHook):
    """Control: the same function of the image without a hook."""

    def forward(self, images):
        return torch.tanh(self.inside(images.flatten(1))) @ (self.outside.weight.T * 9)


def test_features_that_a_hook_keeps_are_those_of_the_batch(few):
    """No graph holds the features of another batch as constants."""
    plain = wobbliness.measure(PlainTwin().eval(), few, **SETTINGS)
    module = KeepsByAHook().eval()
    for _ in range(2):  # the second time with what the first one has left on the module
        found = wobbliness.measure(module, few, **SETTINGS)
        changed = np.abs(found.counts - plain.counts).sum() / 2
        assert changed <= 1e-3 * plain.counts.sum()
    alone = wobbliness.measure(KeepsByAHook().eval(), few, workers=1, **SETTINGS)
    assert np.array_equal(found.counts, alone.counts)
