"""Dropped tokens: closed forms, and integers for every kind of classifier."""

import numpy as np
import pytest
import torch
from model_files import save_onnx
from scipy import stats
from test_closed_forms import DRAWS, assert_frequency
from test_families import copies

import wobbliness
from wobbliness.classifiers.torch_accelerator import AcceleratedClassifier
from wobbliness.perturbations import Gaussian, TokenDrop

MARKER, FILLER, VOCABULARY = 7, 0, 30


@pytest.fixture
def texts():
    """Texts of 12 tokens, of which 0 to 5 are the marker."""
    ids = np.random.default_rng(0).integers(8, VOCABULARY, size=(6, 12))
    for row in range(6):
        ids[row, :row] = MARKER
    return ids


def has_marker(ids):
    return (ids == MARKER).any(axis=1).astype(int)


class Bag(torch.nn.Module):
    """The mean of embeddings, and a linear layer; refuses what are no 64-bit integers."""

    def __init__(self, kind=torch.int64):
        super().__init__()
        self.kind = kind
        self.embedding = torch.nn.Embedding(VOCABULARY, 8)
        self.linear = torch.nn.Linear(8, 3)
        with torch.no_grad():
            self.linear.bias.zero_()

    def forward(self, ids):
        if ids.dtype != self.kind:
            raise TypeError(f"expected token ids, got {ids.dtype}")
        return self.linear(self.embedding(ids.long()).mean(dim=1))


@pytest.fixture
def bag():
    torch.manual_seed(1)
    return Bag().eval()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_marker_survives_with_one_minus_share_to_the_number_of_markers(texts, share):
    votes = wobbliness.measure(has_marker, texts, TokenDrop(share, FILLER), DRAWS, num_classes=2)
    markers = np.arange(6)
    assert_frequency(votes.probabilities[:, 1], 1 - share**markers)
    assert votes.counts[0, 1] == 0, "control: no marker, no vote for it"


def test_the_number_of_kept_tokens_is_binomial(texts):
    made = copies(TokenDrop(0.3, FILLER), texts[5].astype(np.float32), DRAWS)
    is_kept = made != FILLER
    assert np.array_equal(made[is_kept], np.broadcast_to(texts[5], made.shape)[is_kept])
    expected = stats.binom.pmf(np.arange(13), 12, 0.7)
    assert_frequency(np.bincount(is_kept.sum(axis=1), minlength=13) / DRAWS, expected)
    off = np.corrcoef(is_kept.T)[np.triu_indices(12, 1)]
    assert np.abs(off).max() < 5 / np.sqrt(DRAWS), "independent"


def test_ids_to_keep_are_kept_and_no_others(texts):
    image = texts[3].astype(np.float32)
    made = copies(TokenDrop(1, FILLER, keep=(MARKER,)), image, 5)
    assert (made == np.where(image == MARKER, MARKER, FILLER)).all()
    assert (copies(TokenDrop(1, FILLER), image, 5) == FILLER).all(), "control"
    assert (copies(TokenDrop(0, FILLER), image, 5) == image).all()


def test_names_tell_settings_apart():
    assert TokenDrop(0.3, 0, keep=3).name == "token-drop-0.3-token-0-keep-3"
    assert TokenDrop(0.3, np.int64(0), keep={2, 1}) == TokenDrop(0.3, 0, keep=(1, 2))
    many, others = (TokenDrop(0.3, 0, keep=range(first, 100)).name for first in (1, 2))
    assert many != others
    assert len(many) < 50


@pytest.mark.parametrize("classes", [None, 2])
def test_a_callable_gets_integers_that_occur_in_the_probe_too(texts, classes):
    """Labels and scores are probed in different ways."""
    known, seen = {FILLER, *np.unique(texts).tolist()}, []

    def watch(ids):
        assert isinstance(ids, np.ndarray)
        assert ids.dtype == np.int64
        assert set(np.unique(ids).tolist()) <= known
        seen.append(ids.copy())
        return has_marker(ids) if classes else np.eye(2)[has_marker(ids)] * [3.0, 2.0]

    for kept in (texts, texts[:1], texts.astype(np.uint16)):
        wobbliness.measure(watch, kept, TokenDrop(0.3, FILLER), 300, num_classes=classes)
    assert len(np.unique(np.concatenate(seen), axis=0)) > 300


def test_texts_for_a_classifier_of_sorted_scores_are_of_known_ids(texts):
    """Such answers make the probe look for a text with another order."""
    known = {FILLER, *np.unique(texts).tolist()}

    def by_rank(ids):
        assert set(np.unique(ids).tolist()) <= known
        share = (ids == ids[:, :1]).mean(axis=1)
        noise = ids.mean(axis=1) / 1000
        return np.stack([0.5 + 0 * share, 0.4 - noise, np.where(share == 1, 0.9, 0.2)], axis=1)

    votes = wobbliness.measure(by_rank, texts[1:], TokenDrop(0.3, FILLER), 50)
    assert votes.counts[:, 0].sum() == 250

    def always_sorted(ids):
        return np.sort(np.stack([np.sin(ids).sum(axis=1), ids[:, 0] / 9, ids[:, 1]], axis=1))

    with pytest.raises(ValueError, match="values sorted in ascending order"):
        wobbliness.measure(always_sorted, texts, TokenDrop(0.3, FILLER), 50)


def test_a_callable_gets_tensors_of_integers_for_a_tensor(texts):
    def of_tensors(ids):
        assert ids.dtype == torch.int64
        return (ids == MARKER).any(dim=1).long()

    drop = TokenDrop(0.5, FILLER)
    by_tensors = wobbliness.measure(of_tensors, torch.from_numpy(texts), drop, 60, num_classes=2)
    by_arrays = wobbliness.measure(has_marker, texts, drop, 60, num_classes=2)
    assert np.array_equal(by_tensors.counts, by_arrays.counts)


def test_an_embedding_is_compiled_and_gives_the_votes_of_the_module(texts, bag, tmp_path):
    drop = TokenDrop(0.4, FILLER)
    compiled = wobbliness.measure(bag, texts, drop, 200)
    assert (compiled.execution.backend, compiled.execution.reason) == ("onnxruntime", None)
    assert compiled.wobbliness.max() > 0
    eager = wobbliness.measure(wobbliness.open_classifier(bag, compiled=False), texts, drop, 200)
    assert eager.execution.backend == "torch"
    assert np.array_equal(eager.counts, compiled.counts)

    def by_hand(ids):
        with torch.inference_mode():
            return bag(torch.from_numpy(ids)).numpy()

    assert np.array_equal(wobbliness.measure(by_hand, texts, drop, 200).counts, compiled.counts)
    path = save_onnx(bag, tmp_path / "bag.onnx", torch.from_numpy(texts[:2]))
    for source in (path, wobbliness.open_classifier(path, integers=True)):
        assert np.array_equal(wobbliness.measure(source, texts, drop, 200).counts, compiled.counts)


def test_a_module_on_a_device_gets_integers_from_the_host(texts, bag):
    """The code of devices, on the CPU."""
    on_device = AcceleratedClassifier(bag, device=torch.device("cpu"))
    drop = TokenDrop(0.4, FILLER)
    found = wobbliness.measure(on_device, texts, drop, 200)
    assert np.array_equal(found.counts, wobbliness.measure(bag, texts, drop, 200).counts)


def test_one_module_takes_floats_and_integers_in_turn(texts):
    """An exported graph is kept for one type of input alone."""
    linear = torch.nn.Sequential(Cast(), torch.nn.Linear(12, 3)).eval()
    floats = (texts / 100).astype(np.float32)
    for _ in range(2):
        by_floats = wobbliness.measure(linear, floats, 0.1, 20)
        by_integers = wobbliness.measure(linear, texts, TokenDrop(0.3, FILLER), 20)
        assert by_floats.execution.backend == by_integers.execution.backend == "onnxruntime"


class Cast(torch.nn.Module):
    def forward(self, values):
        return values.float() / 30


def test_a_graph_of_floats_gets_floats_and_one_of_bytes_what_fits(texts, tmp_path):
    """The type that the graph declares decides."""
    rows = torch.rand(2, 12)
    linear = torch.nn.Sequential(Cast(), torch.nn.Linear(12, 3)).eval()
    floats = save_onnx(linear, tmp_path / "floats.onnx", rows)
    bytes_ = save_onnx(linear, tmp_path / "bytes.onnx", (9 * rows).to(torch.uint8))
    drop = TokenDrop(0.3, FILLER)
    expected = wobbliness.measure(linear, texts, drop, 50).counts
    for path in (floats, bytes_):
        assert np.array_equal(wobbliness.measure(path, texts, drop, 50).counts, expected)
    with pytest.raises(ValueError, match="token ids up to 255 for a graph of uint8, got 287"):
        wobbliness.measure(bytes_, texts + 280 * (texts == MARKER) + 0, TokenDrop(0.3, 300), 50)


def test_an_estimator_gets_integers(texts):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def as_text(ids):
        assert ids.dtype == np.int64
        return [" ".join(map(str, row)) for row in ids]

    words = CountVectorizer(token_pattern=r"\d+")
    pipeline = make_pipeline(FunctionTransformer(as_text), words, MultinomialNB())
    pipeline.fit(np.repeat(texts, 3, axis=0), np.repeat(has_marker(texts), 3))
    votes = wobbliness.measure(pipeline, texts, TokenDrop(0.8, FILLER), 100)
    assert votes.counts.sum() == 600
    assert votes.wobbliness.max() > 0


def test_decisions_and_repeated_measurements(texts):
    drop = TokenDrop(0.5, FILLER)
    decided = wobbliness.decide(has_marker, texts, drop, threshold=0.3, num_classes=2)
    entropies = [stats.entropy([0.5**markers, 1 - 0.5**markers]) for markers in range(6)]
    sure = decided.is_decided
    assert sure.sum() >= 4
    assert np.array_equal(decided.is_below[sure], np.less(entropies, 0.3)[sure])
    assert 0 < decided.is_below[sure].sum() < sure.sum()
    settings = {"num_classes": 2, "check_repeatable": True, "keep_clean": True}
    votes = wobbliness.measure(has_marker, texts, drop, 40, **settings)
    assert np.array_equal(votes.clean_label, has_marker(texts))


class Own:
    """A classifier by protocol, which says nothing of integers."""

    num_classes, thread_safe, image_shape = 2, True, None

    def classify(self, images, block_size):
        raise NotImplementedError(block_size)

    def session(self, examples):
        raise NotImplementedError


REFUSED = {
    "floats": (lambda ids: ids.astype(float), "expected token ids as integers, got float64"),
    "booleans": (lambda ids: ids > 9, "expected token ids as integers, got bool"),
    "negative ids": (lambda ids: ids - 9, "expected token ids from 0 to 16777215, got values from"),
    "ids that float32 rounds": (lambda ids: ids + 2**24, "expected token ids from 0 to 16777215"),
    "two axes": (lambda ids: ids[:, None], r"expected token ids \(L,\) .* got inputs of shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_are_no_token_ids_gets_one_line(texts, case):
    change, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as raised:
        wobbliness.measure(has_marker, change(texts), TokenDrop(0.3, FILLER), num_classes=2)
    assert "\n" not in str(raised.value)


def test_integers_are_taken_for_nothing_else(texts, bag, tmp_path):
    """Also where a perturbation of tokens is measured together with another one."""
    message = r"expected images as floats in \[0, 1\], got int64; divide 8-bit pixels by 255"
    for other in (0.1, Gaussian(0.1)):
        with pytest.raises(ValueError, match=message):
            wobbliness.measure(has_marker, texts, other, num_classes=2)
    with pytest.raises(ValueError, match="token ids alone beside token-drop-.*, got gaussian-0.1"):
        wobbliness.sweep(has_marker, texts, [TokenDrop(0.3, 0), 0.1], num_classes=2)
    with pytest.raises(ValueError, match="a callable, an estimator, .* got the classifier Own"):
        wobbliness.measure(Own(), texts, TokenDrop(0.3, FILLER))
    scaled = wobbliness.open_classifier(has_marker, num_classes=2, input_range=(0, 255))
    with pytest.raises(ValueError, match="expected token ids as they are, got the input range"):
        wobbliness.measure(scaled, texts, TokenDrop(0.3, FILLER))
    path = save_onnx(bag, tmp_path / "bag.onnx", torch.from_numpy(texts[:2]))
    with pytest.raises(ValueError, match="say what 0 and 1 become"):
        wobbliness.open_classifier(path)
    opened = wobbliness.open_classifier(path, integers=True)
    with pytest.raises(ValueError, match="expected token ids up to .* for a graph of int64, got"):
        wobbliness.measure(opened, texts / 100, 0.1)


def test_an_opened_classifier_stays_one_of_floats(texts):
    """Control: a measurement of token ids leaves the caller's classifier as it was."""
    seen = []

    def remember(values):
        seen.append(values.dtype)
        return (values.sum(axis=1) > 6).astype(int)

    opened = wobbliness.open_classifier(remember, num_classes=2)
    wobbliness.measure(opened, texts, TokenDrop(0.3, FILLER), 20)
    assert set(seen) == {np.dtype(np.int64)}
    seen.clear()
    wobbliness.measure(opened, texts / 100, 0.1, 20)
    assert set(seen) == {np.dtype(np.float32)}
