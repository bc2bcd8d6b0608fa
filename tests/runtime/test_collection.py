"""Garbage collection, paused while modules are imported."""

import gc

import pytest

from wobbliness.runtime.process_state import without_collection


def test_collection_is_as_it_was_afterwards():
    assert gc.isenabled()
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled(), "the outer one holds"
    assert gc.isenabled()
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert gc.isenabled()
