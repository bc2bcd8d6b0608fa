"""A test, before a measurement, that a classifier's answer is a function of the image alone.

Votes mean something only where the answer to an image depends on that image. Dropout that is left
on, batch normalisation without statistics of its own, dynamic quantisation or a counter of calls
make it depend on chance, on the rest of the block or on earlier calls. A few images are classified
alone, in a small block, in another block, and in the small block again.

A block as large as those of the measurement would cost too much there. So the first blocks of the
measurement itself are watched: a few of their images are classified again in a small one.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped

from wobbliness.perturbations.base import InputValues

# Images of a small block.
SMALL_BLOCK = 8
# Images that are compared at most where answers are labels, which differ less often than scores.
NUM_COMPARED_LABELS = 32
# Images that are classified twice where the block size is 1.
NUM_REPEATED = 3
# Images of a large block.
MAX_LARGE_BLOCK = 128
# Copies of a measurement for each image of the large block, so that probing stays cheap.
COPIES_FOR_ONE = 250
# Images of extreme values, which change the statistics of a block most; share of their dark pixels.
NUM_BRIGHT, DARK_SHARE = 6, 0.1
# Rounding, in units in the last place of the largest score, by which two answers to one call may
# differ.
MAX_ROUNDING_ULPS = 8
# Share of the largest score, or of 1, by which a score may depend on the size of the block.
SCORE_TOLERANCE = 1e-4
# Likewise for scores that are all of a type of 16 bits.
HALF_TOLERANCES = {"bfloat16": 2.0**-5, "float16": 2.0**-8}

# Contrast of faint images: a factor at which equal distances do not stay equal by rounding.
FAINT_CONTRAST = np.float32(0.53)
# Distinct scores of an image from which their order is evidence; distinct sorted answers from which
# more images are classified.
MIN_DISTINCT = 3
# Distinct answers, all sorted, that are no coincidence.
MIN_SORTED_ANSWERS = 16
# Standard deviation, pixel units of [0, 1].
LARGE_NOISE = np.float32(100)
# Images of each kind that are classified where all answers were sorted.
NUM_UNUSUAL = 16

Answers: TypeAlias = Callable[[np.ndarray, int], np.ndarray]


class NotRepeatableError(ValueError):
    """An error for two different answers to the same call."""


class CompanyError(ValueError):
    """An error for an answer that depends on the other images of the block."""


class BlockWatch:
    """A labeller for a measurement whose first blocks are compared with small ones.

    May be called by several threads where the classifier may.
    """

    def __init__(self, classifier: Any, num_calls: int) -> None:
        """Starts to watch a measurement.

        Args:
            classifier: predicts the classes; compared by its scores where it has `answers`.
            num_calls: number of calls that are watched, each in its first block.
        """
        self._classifier, self._num_left = classifier, num_calls
        self._lock = threading.Lock()

    def classify(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """Returns the class that the classifier predicts for each image.

        Raises:
            CompanyError: images of the first block have other answers in a small one.
        """
        classifier = self._classifier
        if not self._is_watched(min(block_size, len(images))):
            return np.asarray(classifier.classify(images, block_size))
        given = self._compared(images, block_size)
        # Scores show a difference that labels hide.
        has_answers = hasattr(classifier, "answers")
        return np.asarray(classifier.labels_of(given, len(images)) if has_answers else given)

    def answers(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Shaped[np.ndarray, "B ..."]:
        """Returns the classifier's answers before a class is chosen.

        Raises:
            CompanyError: as `classify`.
        """
        if not self._is_watched(min(block_size, len(images))):
            return np.asarray(self._ask(images, block_size))
        return self._compared(images, block_size)

    @property
    def _ask(self) -> Answers:
        answers: Answers = getattr(self._classifier, "answers", self._classifier.classify)
        return answers

    def _compared(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Shaped[np.ndarray, "B ..."]:
        """Returns answers, after some of the first block were asked for in a small one."""
        num_rows = min(block_size, len(images))
        before = images[:num_rows].copy()  # a module may change its batch in place
        given = np.asarray(self._ask(images, block_size))
        rows = (
            _spread(num_rows, NUM_COMPARED_LABELS) if _are_coarse(given) else watched_rows(num_rows)
        )
        require_close(given[rows], self._ask(before[rows], SMALL_BLOCK))
        return given

    def _is_watched(self, num_rows: int) -> bool:
        """Checks whether to compare this block: not one as small as those that were probed."""
        with self._lock:
            is_watched = self._num_left > 0 and num_rows > SMALL_BLOCK
            self._num_left -= is_watched
        return is_watched


def watched_rows(num_rows: int) -> Int[np.ndarray, " R"]:
    """Returns the rows of a block that are classified again in a small one."""
    return _spread(num_rows, SMALL_BLOCK)


def require_close(given: Shaped[np.ndarray, "R ..."], again: Shaped[np.ndarray, "R ..."]) -> None:
    """Compares answers of a block with those of the same images in a small one.

    Raises:
        CompanyError: the answers differ.
    """
    if not _are_close(given, again).all():
        raise CompanyError(_difference(given, again, f"in a block of {SMALL_BLOCK}"))


def probe(
    answers: Answers,
    examples: Float32[np.ndarray, "E ..."],
    *,
    block_size: int,
    num_copies: int,
    values: InputValues = InputValues.UNIT,
) -> str | None:
    """Probes a classifier with a few small calls.

    Args:
        answers: gives scores or labels for images, in blocks of a size.
        examples: images as they will be classified, with some variety.
        block_size: of the measurement.
        num_copies: that the measurement will classify; a small one is probed with few.
        values: of the images; where they are not in [0, 1], only values that occur are put
            together again.

    Returns:
        None where the answer to an image is a function of the image; else a description of how it
        differed in another block.

    Raises:
        NotRepeatableError: the same call gave two answers.
    """
    images = examples[_spread(len(examples), min(SMALL_BLOCK, block_size))]
    if block_size == 1:
        require_alone(answers, examples)
        return None
    size = min(block_size, MAX_LARGE_BLOCK, max(SMALL_BLOCK, num_copies // COPIES_FOR_ONE))
    # In reverse order, so that the company is not that of the small block.
    others = np.resize(examples[::-1], (size, *examples.shape[1:]))
    num_faint = min(NUM_COMPARED_LABELS, max(SMALL_BLOCK, size - NUM_BRIGHT))
    in_unit = values is InputValues.UNIT
    # Tables and token ids have no contrast: there, values of several examples are combined.
    faint = _faint(examples, num_faint) if in_unit else crossed(examples, num_faint)
    bright = _bright(examples, axis=None if in_unit else 0)

    def ask(some: np.ndarray, num_rows: int) -> np.ndarray:
        return answers(some, min(num_rows, block_size))

    return _probe_in_company(ask, images, np.concatenate([bright, others]), faint)


def _probe_in_company(
    answers: Answers,
    images: Float32[np.ndarray, "E ..."],
    others: Float32[np.ndarray, "C ..."],
    faint: Float32[np.ndarray, "F ..."],
) -> str | None:
    """Compares answers to two images in a small block, alone and at the end of a large block.

    The small block is classified again last.

    Labels depend on the block only where it changes the class. For labels, faint images are
    compared too: among themselves, and at the end of a large block, whose other images differ from
    them in mean, spread and largest values.
    """
    # First the small block, of copies since a module may change its batch in place, and two of its
    # images alone.
    pair = images[[0, -1]]
    first = answers(images.copy(), len(images))
    alone = np.concatenate([answers(image[None].copy(), 1) for image in pair])
    asked, company, together = pair, others[NUM_BRIGHT + len(pair) :], first[[0, -1]]
    among_themselves = _answers_to_faint(answers, faint, others) if _are_coarse(first) else None
    if among_themselves is not None:
        asked = np.concatenate([pair, faint])
        company = others[: max(NUM_BRIGHT, len(others) - NUM_BRIGHT - len(asked))]
        together = np.concatenate([together, among_themselves])
    elsewhere = _answers_at_end(answers, company, asked)
    # Only a classifier that repeats its answer can be said to depend on the block.
    require_same(first, answers(images.copy(), len(images)))
    for answer, circumstance in ((alone, "alone"), (elsewhere, "beside others")):
        if not _are_close(together[: len(answer)], answer).all():
            return _difference(together[: len(answer)], answer, circumstance)
    return None


def _answers_at_end(answers: Answers, company: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Returns answers to images in reverse order at the end of a large block."""
    block = np.concatenate([company, asked[::-1]])
    return answers(block, len(block))[-len(asked) :][::-1]


def _answers_to_faint(answers: Answers, faint: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """Returns answers to faint images among themselves; None where a classifier refuses any.

    Bright images, which they will have for company, are asked for in the same way.
    """
    found, bright = [_answers_or_none(answers, some) for some in (faint, others[:NUM_BRIGHT])]
    return None if bright is None else found


def _answers_or_none(answers: Answers, images: Float32[np.ndarray, "B ..."]) -> np.ndarray | None:
    """Returns answers to images that a classifier may refuse; None where it does."""
    try:
        return answers(images.copy(), len(images))
    except Exception:  # of any kind
        return None


def _faint(examples: Float32[np.ndarray, "E ..."], num_images: int) -> Float32[np.ndarray, "F ..."]:
    """Returns images of low contrast."""
    some = examples[_spread(len(examples), num_images)]
    return np.asarray(np.float32(0.5) + FAINT_CONTRAST * (some - np.float32(0.5)))


def _bright(
    examples: Float32[np.ndarray, "E ..."], axis: int | None
) -> Float32[np.ndarray, "C ..."]:
    """Returns images whose pixels have the largest value of all examples, a few the least.

    Of values at the same place alone where `axis` is 0: each column of a table has its own.
    """
    is_low = np.random.default_rng(0).random((NUM_BRIGHT, *examples.shape[1:])) < DARK_SHARE
    extremes = examples.min(axis=axis), examples.max(axis=axis)
    return np.asarray(np.where(is_low, *extremes), dtype=np.float32)


def crossed(
    examples: Float32[np.ndarray, "E ..."], num_images: int
) -> Float32[np.ndarray, "C ..."]:
    """Returns inputs that have at each place the value of a random example.

    So that each has a category of its column, or a token id that occurs.
    """
    shape = (num_images, *examples.shape[1:])
    # Each place from an example of its own: known values in new combinations.
    chosen = np.random.default_rng(0).integers(len(examples), size=shape)
    return np.take_along_axis(examples, chosen, axis=0)


def _are_coarse(answers: np.ndarray) -> bool:
    """Checks whether answers are labels, or whole numbers such as votes."""
    return not np.issubdtype(answers.dtype, np.floating) or bool(
        (answers == np.rint(answers)).all()
    )


class OrderWatch:
    """A recorder of a classifier's answers that notes whether all of them were sorted.

    The output of top-k and sort is sorted.
    """

    def __init__(self, answers: Answers, *, values: InputValues = InputValues.UNIT) -> None:
        """Starts to record.

        Args:
            answers: gives scores or labels for images, in blocks of a size.
            values: of the images.
        """
        self.values = values
        self._answers, self._orders, self._distinct = answers, set[str | None](), set[bytes]()

    def __call__(self, images: np.ndarray, block_size: int) -> np.ndarray:
        """Returns the classifier's answers and records their order."""
        answer = self._answers(images, block_size)
        self._orders.add(order_of(answer))
        # As bytes, and only as long as it matters: answers of a whole measurement would pile up.
        if len(self._distinct) < MIN_SORTED_ANSWERS and len(self._orders) == 1 and self.order:
            self._distinct.update(
                row.tobytes() for row in answer if len(np.unique(row)) >= MIN_DISTINCT
            )
        return answer

    @property
    def order(self) -> str | None:
        """Returns the order of all answers so far, or None where one had another order or none."""
        return next(iter(self._orders)) if len(self._orders) == 1 else None

    def require_unsorted(self, examples: Float32[np.ndarray, "E ..."], block_size: int) -> None:
        """Probes with unusual images where all answers so far were sorted.

        The images are unlike any that a network is trained on.

        A network that predicts one class only may well rank the others alike. It does not do so on
        all of these, and least on those of large values, where its biases are negligible.

        Args:
            examples: as they were classified.
            block_size: of the measurement.

        Raises:
            ValueError: all are sorted, and enough of them differ from each other.
        """
        if len(self._distinct) < MIN_DISTINCT:
            return
        accepted = [
            self.order is not None and self._accepts(images, block_size)
            for images in _unusual_images(examples, self.values)
        ]
        if any(accepted) and self.order is not None and len(self._distinct) >= MIN_SORTED_ANSWERS:
            raise ValueError(sorted_scores(self.order))

    def _accepts(self, images: np.ndarray, block_size: int) -> bool:
        try:
            in_whole_blocks(self, block_size)(images, block_size)
        except Exception:  # of any kind; a classifier need not take such images
            return False
        return True


def order_of(scores: Shaped[np.ndarray, "B ..."]) -> str | None:
    """Returns the order that the scores of every image have, `descending` or `ascending`.

    Returns None for another order, and for labels.
    """
    # Ties count as sorted, either way.
    rows = scores.reshape(len(scores), -1)
    if rows.shape[1] < 2 or rows.dtype.kind not in "iuf":
        return None
    left, right = rows[:, :-1], rows[:, 1:]
    if (left >= right).all():
        return "descending"
    return "ascending" if (left <= right).all() else None


def sorted_scores(order: str) -> str:
    """Returns the message about scores that are sorted."""
    return (
        f"expected scores of the classes, got values sorted in {order} order, as of topk or sort, "
        "whose places are no classes; give the scores before they are sorted, or labels"
    )


def _unusual_images(
    examples: Float32[np.ndarray, "E ..."], values: InputValues
) -> list[Float32[np.ndarray, "S ..."]]:
    """Returns out-of-distribution images: negatives, shuffled pixels, noise, and large noise.

    All but the last are in [0, 1]. Of tables there is large noise alone, in units of the standard
    deviation of each column; of token ids, texts of one token.
    """
    if values is not InputValues.UNIT:
        return [_texts_of_one_token(examples) if values is InputValues.TOKENS else _far(examples)]
    rng = np.random.default_rng(0)
    some = examples[_spread(len(examples), NUM_UNUSUAL)].clip(0, 1)
    mixed = rng.permuted(some.reshape(len(some), -1), axis=1).reshape(some.shape)
    noise = rng.random(some.shape, dtype=np.float32)
    large = LARGE_NOISE * rng.standard_normal(some.shape, dtype=np.float32)
    return [np.concatenate([1 - some, mixed, noise]), large]


def _texts_of_one_token(examples: Float32[np.ndarray, "E ..."]) -> Float32[np.ndarray, "S ..."]:
    # Ids that occur, since others may lie outside of the embedding.
    ids = np.unique(examples)
    ids = ids[_spread(len(ids), NUM_UNUSUAL)]
    return np.stack([np.full(examples.shape[1:], token, np.float32) for token in ids])


def _far(examples: Float32[np.ndarray, "E ..."]) -> Float32[np.ndarray, "S ..."]:
    some = examples[_spread(len(examples), NUM_UNUSUAL)]
    noise = np.random.default_rng(0).standard_normal(some.shape, dtype=np.float32)
    return np.asarray(some + LARGE_NOISE * examples.std(axis=0) * noise, np.float32)


def in_whole_blocks(answers: Answers, block_size: int) -> Answers:
    """Classifies in blocks of one size only, padded with the images that they hold.

    Some classifiers take no other size.
    """

    def ask(images: np.ndarray, _: int) -> np.ndarray:
        num_rows = -(-len(images) // block_size) * block_size
        return answers(np.resize(images, (num_rows, *images.shape[1:])), block_size)[: len(images)]

    return ask


def require_alone(answers: Answers, examples: Float32[np.ndarray, "E ..."]) -> None:
    """Checks that images classified one at a time get the same answers again.

    Raises:
        NotRepeatableError: the answers differ.
    """
    images = examples[_spread(len(examples), NUM_REPEATED)]
    require_same(answers(images.copy(), 1), answers(images.copy(), 1))


def _spread(num_examples: int, wanted: int) -> np.ndarray:
    """Selects rows evenly from the first to the last, repeated where there are too few."""
    return np.linspace(0, num_examples - 1, max(2, wanted)).round().astype(np.int64)


def require_same(first: np.ndarray, again: np.ndarray) -> None:
    """Raises NotRepeatableError where two answers to the same call differ by more than rounding."""
    if first.shape == again.shape and _are_equal(first, again):
        return
    seen = _difference(first, again, "the second time")
    raise NotRepeatableError(
        f"expected a classifier that gives the same answer to the same images, got {seen}; "
        "put the model into evaluation mode and leave out what is random or counts its calls "
        "(dropout, sampling, noise)"
    )


def _are_equal(first: Shaped[np.ndarray, "..."], again: Shaped[np.ndarray, "..."]) -> bool:
    """Checks for bitwise equality, or differences as small as another summation order makes."""
    if np.array_equal(first, again):
        return True
    if not np.issubdtype(first.dtype, np.floating) or not np.issubdtype(again.dtype, np.floating):
        return False
    # In the last place of the answers' own type; never more than blocks of other sizes may differ.
    rounding = MAX_ROUNDING_ULPS * max(float(np.finfo(first.dtype).eps), 2.0**-52) * _largest(first)
    return bool(_is_within(first, again, min(rounding, SCORE_TOLERANCE * _largest(first))).all())


def _are_close(
    first: Shaped[np.ndarray, "P ..."], other: Shaped[np.ndarray, "P ..."]
) -> Bool[np.ndarray, " P"]:
    """Checks whether answers differ by no more than rounding; labels have to be equal.

    Blocks of other sizes round differently.
    """
    if first.shape != other.shape:
        return np.zeros(len(first), dtype=bool)
    tolerance = (
        _tolerance(first) * max(1.0, _largest(first))
        if np.issubdtype(first.dtype, np.floating)
        else 0.0
    )
    return np.asarray(_is_within(first, other, tolerance).reshape(len(first), -1).all(axis=1))


def _tolerance(scores: np.ndarray) -> float:
    """Returns the tolerance, larger for scores that are all 16-bit numbers.

    Whatever computed such scores rounds to 16 bits.
    """
    # bfloat16 is the upper half of float32: the lower 16 bits are zero.
    single = scores.astype(np.float32)
    if (single.view(np.uint32) & 0xFFFF == 0).all():
        return HALF_TOLERANCES["bfloat16"]
    with np.errstate(over="ignore"):
        is_half = (single.astype(np.float16).astype(np.float32) == single).all()
    return HALF_TOLERANCES["float16"] if is_half else SCORE_TOLERANCE


def _is_within(first: np.ndarray, other: np.ndarray, tolerance: float) -> Bool[np.ndarray, "..."]:
    """Compares arrays within a tolerance.

    NaN is left to the counting of votes, which refuses it.
    """
    ours, theirs = first.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        is_near = np.abs(ours - theirs) <= tolerance
    return np.asarray(is_near | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))


def _largest(scores: np.ndarray) -> float:
    finite = np.abs(scores[np.isfinite(scores)])
    return float(finite.max()) if finite.size else 1.0


def _difference(first: np.ndarray, other: np.ndarray, circumstance: str) -> str:
    """Describes a difference in words."""
    if first.shape != other.shape:
        return f"an answer of shape {first.shape} and {circumstance} one of shape {other.shape}"
    if not np.issubdtype(first.dtype, np.floating):
        return f"other labels {circumstance}"
    with np.errstate(invalid="ignore"):
        largest = np.nan_to_num(
            np.abs(first.astype(np.float64) - other.astype(np.float64)), nan=np.inf
        ).max()
    return f"scores that differ by up to {largest:.2g} {circumstance}"
