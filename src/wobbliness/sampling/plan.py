"""What a measurement is about, checked once, for all who draw noise and count votes."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from typing import (
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
    runtime_checkable,
)

import numpy as np
from jaxtyping import Float32, Int, UInt64
from numpy.typing import ArrayLike

from wobbliness.classifiers import Classifier, open_classifier
from wobbliness.classifiers.base import (
    DeviceClassifier,
    NoClassesError,
    QuantisableClassifier,
    ScoredClassifier,
)
from wobbliness.classifiers.compile import processor
from wobbliness.classifiers.execution import Execution, default_block_size
from wobbliness.classifiers.probing import (
    COPIES_FOR_ONE,
    Answers,
    BlockWatch,
    CompanyError,
    NotRepeatableError,
    OrderWatch,
    crossed,
    in_whole_blocks,
    probe,
    require_alone,
    watched_rows,
)
from wobbliness.perturbations.base import (
    InputValues,
    LoweredPerturbation,
    Perturbation,
    Scratch,
    Stream,
    TrainingPerturbation,
    image_keys,
    not_of_inputs,
    num_draws_of,
)
from wobbliness.perturbations.noise.gaussian import Gaussian
from wobbliness.runtime.threads import default_workers
from wobbliness.sampling.checked_images import check_channels_first, checked_images
from wobbliness.sampling.input_values import common_values

NOISE_VALUES = 2**18  # drawn at a time: few calls, and still within the cache
# copies that the size of a block is chosen for where images share it, and most values of an image's
SHARED_COPIES, MAX_SHARED = 250, 2**22
# images that a classifier is prepared with, each also with noise, and with noise and a patch
EXAMPLES = 16
# what is wrong with a classifier in blocks of any size
UNLIKE_BLOCKS = (NotRepeatableError, NoClassesError)
ALONE_ONLY = "one copy at a time: the classifier takes no more at once"
ALONE = "one copy at a time: the answer to an image depends on the others of its block"
PATCH_SHARE = 4  # a patch has this part of each side
# of draws, of what is classified at a time, of threads: more is a slip, and overflows further in
MAX_COUNT = 2**40

# Float32, or the votes of a quantised twin where float32 would hardly change them.
Precision: TypeAlias = Literal["float32", "checked"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
# what a classifier's scores are
Scores: TypeAlias = Literal["logits", "probabilities"]
SCORES: tuple[str, ...] = get_args(Scores)

Result = TypeVar("Result")


@runtime_checkable
class Images(Protocol):
    """Images of one shape: an array `(N, ...)`, or what makes them when they are asked for."""

    def __len__(self) -> int:
        """Returns N."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Returns an image, a block of a slice, or the images of an array of places."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything that determines the votes, checked."""

    opened: Classifier
    # one of this measurement's own: what it learns and holds meanwhile is no other thread's
    classifier: Classifier
    images: Images
    keys: UInt64[np.ndarray, " N"]
    perturbations: tuple[Perturbation, ...]
    seed: int
    span: range
    block_size: int | None
    workers: int | None
    keeps_clean: bool = False
    scores: Scores | None = None
    values: InputValues = InputValues.UNIT
    precision: Precision = "float32"

    def rows_within_cache(self, block_size: int) -> int:
        """Returns how many copies of an image are made at a time: whole blocks, one at least."""
        num_blocks: int = max(1, NOISE_VALUES // (self.images[0].size * block_size))
        return block_size * num_blocks

    def span_of(self, row: int) -> range:
        """Returns the draws of one perturbation: those asked for, as far as there are any."""
        there = num_draws_of(self.perturbations[row])
        return self.span if there is None else range(self.span.start, min(self.span.stop, there))

    @property
    def num_workers(self) -> int:
        """Threads to work with: as asked, else the default; few for few images."""
        return (
            min(self.workers or default_workers(), max(2, len(self.images)))
            if self.classifier.thread_safe
            else 1
        )

    @property
    def is_on_device(self) -> bool:
        """Whether copies are made and votes are counted where the classifier runs."""
        can_be = isinstance(self.classifier, DeviceClassifier) and self.scores is None
        return can_be and all(isinstance(made, LoweredPerturbation) for made in self.perturbations)

    def run(self, work: Callable[["Prepared"], Result]) -> Result:
        """Makes the classifier ready, probes it and works with it.

        Args:
            work: called a second time, with one copy at a time, where it meets a CompanyError: the
                answer to an image depends on the others of its block, as the probe did not see.

        Raises:
            ValueError: the classifier's answer to an image is no function of the image, and running
                one copy at a time does not help or cannot be done.
        """
        result = self._work(work, _examples(self))
        # The caller's classifier learns how many classes it has; all else stays the copy's.
        if self.opened.num_classes is None:
            self.opened.num_classes = self.classifier.num_classes
        return result

    def _work(self, work: Callable[["Prepared"], Result], examples: np.ndarray) -> Result:
        with self.classifier.session(examples) as execution:
            # Where the classifier does not tell its largest step: twice an image's values.
            values = execution.values_per_image or 2 * self.images[0].size
            by_rule = execution.block_size or default_block_size(len(self.span), values)
            shares_blocks = self._shares_blocks(execution, values)
            if shares_blocks:
                by_rule = default_block_size(SHARED_COPIES, values)
            prepared = self._probed(
                replace(execution, block_size=self.block_size or by_rule),
                examples,
                execution.block_size,
            )
            if prepared.execution.company is None:
                prepared = replace(prepared, shares_blocks=shares_blocks)
            # Outside of the handler: an error of the second try is not one of the first.
            with suppress(CompanyError):
                return work(prepared)
            return work(self._alone(prepared.execution, examples))

    def _shares_blocks(self, execution: Execution, values: int) -> bool:
        """Checks whether copies of several images share blocks.

        They do under families of few draws alone, of which an image's own block would be small, and
        in a compiled graph, where a row's answer is the same in any company.
        """
        rows = range(len(self.perturbations))
        draws = [len(self.span_of(row)) for row in rows]
        is_few = max(draws) < default_block_size(SHARED_COPIES, values)
        return (
            execution.backend == "onnxruntime"
            and not (self.block_size or execution.block_size)
            and all(num_draws_of(made) is not None for made in self.perturbations)
            and is_few
            and sum(draws) * self.images[0].size <= MAX_SHARED
        )

    def _alone(
        self, execution: Execution, examples: np.ndarray, company: str = ALONE
    ) -> "Prepared":
        """Prepares for one copy at a time."""
        require_alone(self._answers, examples)
        return Prepared(
            execution=replace(execution, block_size=1, company=company),
            classify=self.classifier.classify,
            answers=self._answers,
        )

    def _alone_only(
        self, execution: Execution, examples: np.ndarray, answers: OrderWatch, error: Exception
    ) -> "Prepared":
        """Prepares for one copy at a time where the classifier takes no blocks.

        Where it does not take that either, the error stands.
        """
        try:
            prepared = self._alone(execution, examples, ALONE_ONLY)
        except UNLIKE_BLOCKS:
            raise
        except Exception:  # of any kind
            raise error from None
        self._check_alone(answers, examples)
        return prepared

    def _check_alone(self, answers: OrderWatch, examples: np.ndarray) -> None:
        """Checks answers to several images, asked one at a time, together.

        One row alone does not tell what it holds.
        """
        rows = watched_rows(len(examples))
        given = answers(examples[rows], 1)
        if isinstance(self.classifier, ScoredClassifier):
            self.classifier.labels_of(given, len(rows))
        answers.require_unsorted(examples, 1)

    @property
    def _answers(self) -> Answers:
        answers: Answers = getattr(self.classifier, "answers", self.classifier.classify)
        return answers

    def _probed(
        self, execution: Execution, examples: np.ndarray, own_size: int | None
    ) -> "Prepared":
        """Probes the classifier; prepares for one copy at a time where its company has a say."""
        answers = OrderWatch(self._answers, values=self.values)
        size = execution.block_size or 1
        # On a device the counter watches the first block itself.
        num_copies = 0 if self.is_on_device else len(self.images) * len(self.span)
        try:
            seen, only_whole = _company_seen(answers, examples, size, num_copies)
        except UNLIKE_BLOCKS:
            raise
        except Exception as error:  # of any kind, from a classifier that takes no blocks
            return self._alone_only(execution, examples, answers, error)
        if size == 1 and num_copies >= COPIES_FOR_ONE:
            self._check_alone(answers, examples)
        answers.require_unsorted(examples, size)
        has_one_size = only_whole or (own_size is not None and not self.is_on_device)
        if seen is None:
            return self._in_blocks(execution, has_one_size)
        if has_one_size:
            raise _company_error(seen, own_size or size)
        return self._alone(execution, examples)

    def _in_blocks(self, execution: Execution, has_one_size: bool) -> "Prepared":
        """Prepares for blocks; the first ones are watched where other sizes are taken as well."""
        if has_one_size:
            return Prepared(
                execution=execution,
                classify=self.classifier.classify,
                answers=self._answers,
                takes_whole_blocks=True,
            )
        watched = BlockWatch(self.classifier, len(self.perturbations))
        return Prepared(execution=execution, classify=watched.classify, answers=watched.answers)


def _company_seen(
    answers: OrderWatch, examples: np.ndarray, size: int, num_copies: int
) -> tuple[str | None, bool]:
    """Probes a classifier; returns what is seen, and whether it takes whole blocks alone."""
    settings: dict[str, Any] = {"block_size": size, "num_copies": num_copies}
    settings["values"] = answers.values
    try:
        return probe(answers, examples, **settings), False
    except UNLIKE_BLOCKS:
        raise
    except Exception:  # of any kind, from a classifier that takes no blocks of other sizes
        whole = in_whole_blocks(answers, size)
        return probe(whole, examples, **settings), True


def _company_error(seen: str, size: int) -> ValueError:
    return ValueError(
        "expected a classifier whose answer to an image does not depend on the others of "
        f"its block, got {seen}; "
        f"one image at a time would do, but it takes blocks of {size}"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A classifier that was made ready and probed.

    Attributes:
        execution: how it will run, with the size of the blocks.
        classify: the class of each image; may raise CompanyError.
        answers: scores or labels of each image; may raise CompanyError.
        takes_whole_blocks: whether it may take blocks of that size alone.
        shares_blocks: whether copies of several images share blocks.
    """

    execution: Execution
    classify: Callable[[np.ndarray, int], np.ndarray]
    answers: Answers
    takes_whole_blocks: bool = False
    shares_blocks: bool = False


def make_plan(
    classifier: Any,
    images: Any,
    perturbations: Iterable[float | Perturbation],
    *,
    draws: Any,
    seed: Any,
    keys: ArrayLike | None = None,
    first_draw: Any = 0,
    block_size: Any = None,
    workers: Any = None,
    num_classes: int | None = None,
    device: str | None = None,
    keep_clean: bool = False,
    scores: Any = None,
    precision: Any = "float32",
) -> Plan:
    """Checks the arguments of `measure` and opens the classifier.

    Raises:
        ValueError: as `measure` does.
    """
    checked = _checked_perturbations(perturbations)
    values = common_values(checked)
    array = checked_images(images, with_channels_first=False, values=values)
    settings: dict[str, Any] = {"num_classes": num_classes, "device": device}
    opened = _opened(classifier, images, array, integers=values is InputValues.TOKENS, **settings)
    own = _own(opened, values)
    if checked_precision(precision) == "checked" and processor.has_int8_dot_products():
        _keep_network(own)
    return Plan(
        opened=opened,
        classifier=own,
        images=array,
        keys=_checked_keys(keys, array),
        perturbations=checked,
        seed=checked_integer(seed, "a seed", at_least=0),
        span=_span_of_all(_checked_span(first_draw, draws), checked),
        block_size=_checked_number(block_size, "a block size"),
        workers=_checked_number(workers, "workers"),
        keeps_clean=keep_clean or scores is not None,
        scores=_checked_scores(scores, opened),
        values=values,
        precision=precision,
    )


def checked_precision(precision: Any) -> Precision:
    """Returns a precision, or raises ValueError where there is none of that name."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"expected a precision of {' or '.join(PRECISIONS)}, got {precision!r}")
    return cast(Precision, precision)


def _keep_network(classifier: Classifier) -> None:
    """Has a classifier of this measurement's own keep its graph, to make a quantised twin of."""
    if isinstance(classifier, QuantisableClassifier) and isinstance(classifier, ScoredClassifier):
        classifier.keeps_network = True


def _opened(classifier: Any, images: Any, array: np.ndarray, **settings: Any) -> Classifier:
    """Opens the classifier; checks the images' axes unless it declares exactly this shape."""
    opened = open_classifier(classifier, as_tensor=hasattr(images, "detach"), **settings)
    if getattr(opened, "image_shape", None) != array.shape[1:]:
        check_channels_first(array)
    return opened


def _own(opened: Classifier, values: InputValues) -> Classifier:
    """Returns a classifier of this measurement's own, which gets integers where inputs are such.

    Raises:
        ValueError: it would get token ids as floats.
    """
    own = copy(opened) if isinstance(opened, ScoredClassifier) else opened
    if values is InputValues.TOKENS:
        if not isinstance(own, ScoredClassifier):
            raise ValueError(
                "expected a callable, an estimator, a torch module or an ONNX file for token ids, "
                f"got the classifier {type(own).__name__}"
            )
        own.take_integers()
    return own


def _examples(plan: Plan) -> Float32[np.ndarray, "B ..."]:
    """Returns some of the images, spread over all: as they are, perturbed, and with a patch, too.

    Of several perturbations the one that changes most; of Gaussian noise, the largest sigma. Where
    inputs have values of their own, such as token ids, values of other inputs take the patch's
    place.
    """
    images, keys = spread_images(plan), plan.keys[_spread_places(plan)]
    perturbed = [_first_copies(plan.seed, made, images, keys) for made in plan.perturbations]
    # A probe without noise of the largest strength could miss what only that shows.
    most = int(np.argmax([np.abs(copies - images).mean() for copies in perturbed]))
    in_unit = plan.values is InputValues.UNIT
    changed = _patched(images) if in_unit else crossed(images, len(images))
    patched = _first_copies(plan.seed, plan.perturbations[most], changed, keys)
    return np.concatenate([images, perturbed[most], patched])


def spread_images(plan: Plan) -> Float32[np.ndarray, "B ..."]:
    """Returns some of the images, spread over all."""
    places = _spread_places(plan)
    return np.stack([np.asarray(plan.images[index], dtype=np.float32) for index in places])


def _spread_places(plan: Plan) -> Int[np.ndarray, " B"]:
    # Evenly spread: sets are often sorted by class.
    return np.unique(np.linspace(0, len(plan.images) - 1, EXAMPLES).round().astype(np.int64))


def _first_copies(
    seed: int,
    perturbation: Perturbation,
    images: Float32[np.ndarray, "B ..."],
    keys: UInt64[np.ndarray, " B"],
) -> Float32[np.ndarray, "B ..."]:
    """Returns the copy of each image at draw 0."""
    copies = np.empty(images.shape, np.float32)  # contiguous, however the images lie in memory
    for row, (image, key) in enumerate(zip(images, keys, strict=True)):
        stream = Stream(seed, int(key), scratch=Scratch())
        perturbation.copies(stream, image, 1, copies[row : row + 1])
    return copies


def _patched(images: Float32[np.ndarray, "B ..."]) -> Float32[np.ndarray, "B ..."]:
    """Returns copies with a patch at a random place: what a hidden branch may wait for.

    The patches are bright, dark and random by turns.
    """
    # Of a fixed seed: the probe must not differ from run to run.
    patched, rng = images.copy(), np.random.default_rng(0)
    for number, image in enumerate(patched):
        axes = image.shape[-2:] if image.ndim > 1 else image.shape
        sizes = [max(1, size // PATCH_SHARE) for size in axes]
        starts = [
            int(rng.integers(size - part + 1)) for size, part in zip(axes, sizes, strict=True)
        ]
        place = (
            ...,
            *(slice(start, start + part) for start, part in zip(starts, sizes, strict=True)),
        )
        image[place] = (1.0, 0.0, rng.random(image[place].shape, dtype=np.float32))[number % 3]
    return patched


def _checked_keys(keys: ArrayLike | None, images: np.ndarray) -> UInt64[np.ndarray, " N"]:
    if keys is None:
        return image_keys(images)
    array = np.asarray(keys)
    if (
        array.shape != (len(images),)
        or not np.issubdtype(array.dtype, np.integer)
        or array.min() < 0
    ):
        raise ValueError(
            f"expected {len(images)} non-negative integer keys, "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.uint64)


def _checked_perturbations(
    perturbations: Iterable[float | Perturbation],
) -> tuple[Perturbation, ...]:
    """Returns perturbations of distinct names; a number is the sigma of Gaussian noise."""
    given = [perturbation_of(value) for value in perturbations]
    # Names go into tables and records, so two of one name could not be told apart.
    names = [perturbation.name for perturbation in given]
    if not given or len(set(names)) < len(names):
        values = [getattr(made, "sigma", made.name) for made in given]
        raise ValueError(f"expected distinct sigmas, at least one, got {values}")
    return tuple(given)


def _span_of_all(span: range, perturbations: tuple[Perturbation, ...]) -> range:
    """Returns the draws that any of the perturbations makes.

    Raises:
        ValueError: one of them has none of these draws.
    """
    ends = [num_draws_of(perturbation) for perturbation in perturbations]
    for perturbation, end in zip(perturbations, ends, strict=True):
        if end is not None and end <= span.start:
            raise ValueError(
                f"expected a first draw below {end}, the number of draws of {perturbation.name}, "
                f"got {span.start}"
            )
    return range(span.start, max(min(span.stop, end or span.stop) for end in ends))


def _checked_scores(scores: Any, classifier: Classifier) -> Scores | None:
    if scores is None:
        return None
    if scores not in SCORES:
        raise ValueError(f"expected scores as {' or '.join(SCORES)}, got {scores!r}")
    if not isinstance(classifier, ScoredClassifier) or not hasattr(classifier, "answers"):
        raise ValueError(f"expected a classifier that gives {scores}, got one that gives labels")
    made: Scores = scores
    return made


def require_endless(plan: Plan) -> None:
    """Raises ValueError where the perturbation has a fixed number of draws: nothing is saved."""
    for perturbation in plan.perturbations:
        there = num_draws_of(perturbation)
        if there is not None:
            raise ValueError(
                "expected a perturbation with any number of draws, got "
                f"{perturbation.name} with {there}; measure it"
            )


def perturbation_of(value: Any) -> Perturbation:
    """Returns a perturbation as it is, and Gaussian noise for a number.

    Raises:
        ValueError: it is neither, or no sigma.
    """
    # The class itself has the protocol's methods, too, and is no perturbation.
    if isinstance(value, Perturbation) and not isinstance(value, type):
        return value
    try:
        return Gaussian(float(value))
    except TypeError:
        if isinstance(value, TrainingPerturbation) and not isinstance(value, type):
            raise ValueError(not_of_inputs(value.name)) from None
        raise ValueError(
            f"expected a sigma or a perturbation, got {type(value).__name__}"
        ) from None


def sigmas_or_perturbations(
    values: Iterable[float | Perturbation],
) -> tuple[float | Perturbation, ...]:
    """Returns perturbations as they are, Gaussian noise as its sigma.

    Raises:
        ValueError: a value is neither, or no sigma.
    """
    made = (perturbation_of(value) for value in values)
    return tuple(each.sigma if isinstance(each, Gaussian) else each for each in made)


def checked_integer(value: Any, name: str, *, at_least: int, at_most: int | None = None) -> int:
    """The integer, or ValueError where it is none, too small or too large."""
    # A boolean is an integer to Python, and a slip here.
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"expected {name} as an integer of at least {at_least}, got {value!r}")
    if at_most is not None and value > at_most:
        raise ValueError(f"expected {name} as an integer of at most {at_most}, got {value!r}")
    return int(value)


def _checked_number(value: Any, name: str) -> int | None:
    """Returns a positive integer, or None where the choice is left to the library."""
    if value is None:
        return None
    return checked_integer(value, name, at_least=1, at_most=MAX_COUNT)


def _checked_span(first_draw: Any, draws: Any) -> range:
    first = checked_integer(first_draw, "a first draw", at_least=0, at_most=MAX_COUNT)
    return range(first, first + checked_integer(draws, "draws", at_least=1, at_most=MAX_COUNT))
