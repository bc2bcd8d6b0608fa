"""Cell names, noise, counts, tables, public names and options are those of the golden files."""

import json

import golden_values
import numpy as np
import pytest

MAX_CHANGED_SHARE = 1e-4  # of the labels: a network's own rounding differs between processors


def golden(name):
    return json.loads((golden_values.GOLDEN / f"{name}.json").read_text())


def test_cell_names_and_digests_of_every_recipe():
    assert golden_values.cell_names() == golden("cells")


def test_noise_of_three_keys():
    expected = np.load(golden_values.GOLDEN / "noise.npy")
    assert expected.shape == (3, 1000)
    np.testing.assert_array_equal(golden_values.noise(), expected)


def test_counts_of_a_saved_network(tmp_path):
    found, expected = golden_values.counts(tmp_path), golden("counts")
    assert found.keys() == expected.keys()
    for sigma, counts in expected.items():
        changed = np.abs(np.subtract(found[sigma], counts)).sum() / 2
        assert changed <= MAX_CHANGED_SHARE * np.sum(counts)
        assert np.sum(np.sum(counts, axis=0) > 0) > 3, "votes of several classes"


@pytest.mark.parametrize("part", ["names", "commands"])
def test_nothing_of_the_public_surface_is_lost_or_changed(part):
    found, expected = golden_values.surface()[part], golden("surface")[part]
    if part == "names":
        assert set(found) >= set(expected)
        return
    assert found.keys() >= expected.keys()
    for command, parameters in expected.items():
        assert found[command].items() >= parameters.items(), command
