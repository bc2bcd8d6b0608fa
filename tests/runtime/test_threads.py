"""Threads that share work: each item is done once; abandoned work stops between blocks."""

import threading
import time
from contextlib import nullcontext

import numpy as np
import pytest

import wobbliness
from wobbliness.classifiers.base import in_blocks
from wobbliness.classifiers.execution import Execution
from wobbliness.runtime.progress import ignore_progress
from wobbliness.runtime.threads import check_stopped, for_each


@pytest.mark.parametrize("workers", [1, 3])
def test_each_item_is_done_once(workers):
    done, advanced = [], []
    for_each(done.append, 50, workers=workers, advance=advanced.append)
    assert sorted(done) == list(range(50))
    assert sum(advanced) == 50
    check_stopped()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_work_in_blocks_is_given_up_once_another_thread_failed(error):
    """The first item fails while the second runs for ten minutes, a tenth of a second a block."""
    began, blocks = threading.Event(), []

    def block(images):
        began.set()
        blocks.append(len(images))
        time.sleep(0.1)
        return images

    def work(item):
        if item == 0:
            began.wait()
            raise error
        in_blocks(block, np.zeros((6000, 1), np.float32), 1)

    before = time.monotonic()
    with pytest.raises(error):
        for_each(work, 2, workers=2, advance=ignore_progress)
    assert time.monotonic() - before < 5
    assert len(blocks) < 50


def test_a_measurement_is_given_up_between_its_blocks(images):
    class Slow:
        num_classes, thread_safe, image_shape = 2, True, None
        calls = 0

        def classify(self, batch, _):
            type(self).calls += 1
            if self.calls > 4:
                raise KeyboardInterrupt
            time.sleep(0.05)
            return np.zeros(len(batch), np.int64)

        def session(self, _):
            return nullcontext(Execution(backend="slow"))

    with pytest.raises(KeyboardInterrupt):
        wobbliness.sweep(
            Slow(), images[:4], np.linspace(0.1, 0.9, 200), draws=4, block_size=1, workers=3
        )
    assert Slow.calls < 12
