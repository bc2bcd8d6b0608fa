"""Detectors in checked low precision: guards, their files, and tests of batches."""

import json

import guard_folders
import low_precision as low
import numpy as np
import pytest
from sklearn.base import clone

from wobbliness.detectors.batches.batch_test import compare_batches
from wobbliness.detectors.batches.vote_destinations import compare_destinations
from wobbliness.detectors.guards.files.guard_files import SETTINGS_FILE, load_guard, save_guard
from wobbliness.detectors.guards.profile_guard import ProfileGuard
from wobbliness.detectors.guards.smoothness_guard import SmoothnessGuard
from wobbliness.perturbations import Uniform
from wobbliness.sampling.counting.low_precision import CHECKED, FLOAT32, NO_DOT_PRODUCTS

SIGMAS = (0.05, 0.2)
CLEAN, INPUTS = np.split(
    np.random.default_rng(4).random((160, low.NUM_VALUES)).astype(np.float32), [120]
)
KINDS = {
    "smoothness": lambda **settings: SmoothnessGuard(
        low.Linear(error=0.05), sigmas=SIGMAS, draws=100, **settings
    ),
    "profile": lambda **settings: ProfileGuard(
        low.Linear(error=0.05), perturbations=(0.1, Uniform(0.2)), draws=100, **settings
    ),
}


@pytest.fixture(autouse=True)
def small_calls(monkeypatch):
    low.allow_small_calls(monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_are_those_of_float32_but_for_few(kind):
    plain, checked = (KINDS[kind](precision=name).fit(CLEAN) for name in ("float32", "checked"))
    found, low_found = plain.judge(INPUTS), checked.judge(INPUTS)
    assert low_found.votes.precision == CHECKED
    assert found.votes.precision is None
    assert (found.is_suspicious == low_found.is_suspicious).mean() >= 0.95
    quick = checked.judge_quickly(INPUTS)
    assert (quick.is_suspicious == low_found.is_suspicious).mean() >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_guard_keeps_its_precision_and_its_verdicts(kind, tmp_path):
    guard = KINDS[kind](precision="checked").fit(CLEAN)
    save_guard(guard, tmp_path / "guard")
    loaded = load_guard(tmp_path / "guard", guard.classifier)
    assert loaded.precision == "checked"
    one, other = guard.judge(INPUTS), loaded.judge(INPUTS)
    assert other.votes.precision == CHECKED
    np.testing.assert_array_equal(one.pvalue, other.pvalue)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_of_a_guard_in_float32_say_nothing_of_it(kind, tmp_path):
    guard = KINDS[kind]().fit(CLEAN)
    save_guard(guard, tmp_path / "guard")
    assert "precision" not in json.loads((tmp_path / "guard" / SETTINGS_FILE).read_text())
    assert load_guard(tmp_path / "guard", guard.classifier).precision == "float32"


@pytest.mark.parametrize("given", ["int8", 3, ["checked"], None])
def test_a_precision_that_is_none_is_refused(given, tmp_path):
    guard = KINDS["smoothness"](precision="checked").fit(CLEAN)
    save_guard(guard, tmp_path / "guard")
    guard_folders.change_settings(tmp_path / "guard", precision=given)
    with pytest.raises(ValueError, match="expected a precision of float32 or checked"):
        load_guard(tmp_path / "guard", guard.classifier)


def test_clones_keep_the_precision_and_fit_refuses_another():
    assert clone(KINDS["smoothness"](precision="checked")).precision == "checked"
    for make in KINDS.values():
        with pytest.raises(ValueError, match="expected a precision of float32 or checked"):
            make().set_params(precision="int8").fit(CLEAN)


@pytest.mark.parametrize("compare", [compare_batches, compare_destinations])
def test_batches_say_how_their_votes_were_cast(compare, monkeypatch):
    classifier, names = low.Linear(error=0.01), ("clean", "suspect")
    batches = dict(zip(names, (CLEAN, INPUTS), strict=True))
    levels = {"sigmas" if compare is compare_batches else "perturbations": SIGMAS}
    settings = {**batches, **levels, "draws": 100}
    checked = compare(classifier, precision="checked", **settings)
    assert checked.precision == CHECKED
    plain = compare(classifier, **settings)
    assert plain.precision is None
    assert checked.pvalue == pytest.approx(plain.pvalue, abs=0.1)
    low.has_dot_products(monkeypatch, is_there=False)
    without = compare(classifier, precision="checked", **settings)
    assert without.precision == FLOAT32.format(NO_DOT_PRODUCTS)
    assert without.pvalue == plain.pvalue
