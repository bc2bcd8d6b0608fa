"""The choice of the output that predicts the class, among those that a model declares.

The choice uses names, types and shapes, never values: features look like scores. Where more than
one output could be meant, the user has to choose.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

LOGIT_WORDS = frozenset({"logit", "logits"})
PROBABILITY_WORDS = frozenset(
    {"prob", "probs", "proba", "probability", "probabilities", "softmax", "sigmoid"}
)
SCORE_WORDS = LOGIT_WORDS | PROBABILITY_WORDS | {"score", "scores"}
LABEL_WORDS = frozenset(
    {"label", "labels", "class", "classes", "classifier", "classification", "category", "argmax"}
    | {"pred", "preds", "predicted", "prediction", "predictions"}
)
CLASS_WORDS = SCORE_WORDS | LABEL_WORDS
OUTPUT_WORDS = frozenset({"output", "outputs", "out", "y", "0"})
# Words for what a network computes besides classes.
# fmt: off
OTHER_WORDS = frozenset([
    "feat", "feats", "feature", "features", "emb", "embed", "embeds", "embedding", "embeddings",
    "hidden", "state", "states", "pooled", "pooler", "penultimate", "latent", "latents", "encoding",
    "encodings", "descriptor", "descriptors", "representation", "representations", "backbone",
    "attention", "attentions", "token", "tokens", "loss", "box", "boxes", "bbox", "bboxes", "mask",
    "masks", "keypoint", "keypoints", "landmark", "landmarks", "heatmap", "heatmaps", "objectness",
    "distance", "distances", "reconstruction", "segmentation",
])
# fmt: on
# Words for the step that made an output, which say nothing about what it is.
PLAIN_WORDS = frozenset(
    {"head", "fc", "dense", "linear", "gemm", "layer", "final", "main", "top", "model"}
    | {"add", "bias"}
)
# Words for further classifiers that are there for training alone.
AUXILIARY_WORDS = frozenset({"aux", "auxiliary", "distillation"})
# What a type's name begins with: in ONNX, in torch, or in neither; sequences and maps do otherwise.
TENSOR = r"(tensor\(|torch\.)?"
# Quantised scores are of these types; integers of wider types are numbers of classes.
NARROW_TYPES = ("int8", "int16")


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output, as a model declares it.

    Attributes:
        name: its own, or its number where outputs have none, such as those of a tuple.
        dtype: the type in the model's own words, for instance `tensor(float)` or `torch.int64`.
        shape: with the axis of the batch first; None inside where an axis is free, None where not
            even the rank is known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        """Describes name, type and shape, for errors."""
        if self.shape is None:
            return f"{self.name}: {self.dtype}"
        others = ("?" if size is None else str(size) for size in self.shape[1:])
        # A single value has no axis, not even of the batch.
        sizes = ["B", *others] if self.shape else []
        return f"{self.name}: {self.dtype} ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    @property
    def is_float(self) -> bool:
        """Checks whether it holds floats, which are scores."""
        return re.match(TENSOR + r"(b?float|double|half)", self.dtype) is not None

    @property
    def width(self) -> int | None:
        """Values for one image if the shape is that of labels `(B,)` or scores `(B, K)`.

        Axes of length 1 do not count.
        """
        sizes = None if not self.shape else [size for size in self.shape[1:] if size != 1]
        return None if sizes is None or len(sizes) > 1 else (sizes[0] if sizes else 1)

    @property
    def may_hold_classes(self) -> bool:
        """Checks whether declared type and shape are those of labels `(B,)` or scores `(B, K)`."""
        if self.shape == () or not (
            self.is_float or re.match(TENSOR + r"(u?int|bool)", self.dtype)
        ):
            return False
        fixed = [size for size in (self.shape or ())[1:] if size not in (1, None)]
        # Rows of wide integers are no scores, but indices of several classes or pixels.
        is_narrow = self.is_float or any(name in self.dtype for name in NARROW_TYPES)
        return len(fixed) <= 1 and (is_narrow or not fixed)

    @property
    def words(self) -> frozenset[str]:
        """The words of its name: `class`, `logits` and `0` for `classLogits:0`."""
        return frozenset(_words(self.name))

    @property
    def is_of_something_else(self) -> bool:
        """Checks for a name of features, hidden states, boxes or auxiliary classifiers.

        The last word counts, `class_token` is a token; scores of something else,
        `attention_scores`, are no classes either.
        """
        relevant = [
            word for word in _relevant_words(self.name) if word in OTHER_WORDS | CLASS_WORDS
        ]
        is_other = bool(OTHER_WORDS & set(relevant)) and (
            relevant[-1] not in LOGIT_WORDS | LABEL_WORDS
        )
        return is_other or bool(self.words & AUXILIARY_WORDS)

    @property
    def is_in_doubt(self) -> bool:
        """Checks for a name of classes and something else, as `feature_logits`."""
        words = set(_relevant_words(self.name))
        plain = CLASS_WORDS | OUTPUT_WORDS | PLAIN_WORDS
        return bool(words & CLASS_WORDS) and not all(
            word in plain or word.isdecimal() for word in words
        )


def _words(name: str) -> list[str]:
    """Splits a name into its words, in order."""
    # Capitals begin a word, as in `classLogits`; so do the words for scores within `outputlogits`.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"logits?|softmax|[a-z]+?(?=logit|softmax|[^a-z]|$)|[0-9]+", spaced.lower())


def _relevant_words(name: str) -> list[str]:
    """Returns the words of a name, or of its last part alone if that indicates classes.

    An example of a last part is `classifier` in `loss3/classifier`.
    """
    last = _words(re.split(r"[/.]", name)[-1])
    return last if CLASS_WORDS & set(last) else _words(name)


def choose_output(
    outputs: Sequence[Output],
    wanted: str | int | None = None,
    *,
    num_classes: int | None = None,
    source: str = "the model",
    wants_scores: bool = False,
) -> int:
    """Chooses the output that predicts the class.

    A name of classes (logits, scores, probabilities, label ...) is preferred to one with "output",
    and this to any other; names of features, hidden states, boxes or auxiliary classifiers are
    left out. A name of the classes of something else, such as `domain_logits`, is taken where no
    other is left. Where a model gives labels and scores, as scikit-learn's converters make it, the
    labels are the class. Where it gives logits and probabilities, the logits are read.

    Args:
        outputs: all that the model declares.
        wanted: the user's choice, a name or else a number; it is checked like any other.
        num_classes: K where it is known; scores of another width are left out.
        source: of the outputs, for errors.
        wants_scores: whether labels are of no use, as where the output is differentiated.

    Returns:
        The number of the output.

    Raises:
        ValueError: none can hold labels or scores, more than one could be meant, or the wanted one
            is not there or not usable.
    """
    if wanted is not None:
        return _wanted(outputs, str(wanted), source, wants_scores=wants_scores)
    candidates = _candidates(outputs, num_classes, wants_scores=wants_scores)
    best = _preferred([output for output in candidates if _rank(output) is not None])
    if len(best) == 1:
        return next(index for index, output in enumerate(outputs) if output is best[0])
    if best:
        raise ValueError(
            f"expected one output of labels or scores, got {_listed(best)} in {source}; choose one "
            "by output=NAME (--output)"
        )
    found = f"{_listed(outputs)} in {source}{_hint(outputs, candidates)}"
    raise ValueError(f"expected an output of {_kinds(wants_scores, num_classes)}, got {found}")


def _candidates(
    outputs: Sequence[Output], num_classes: int | None, *, wants_scores: bool
) -> list[Output]:
    """Selects the outputs whose type and shape are those of an answer."""
    usable = [output for output in outputs if _is_usable(output, wants_scores=wants_scores)]
    # Outputs of a known width are preferred to those of an undeclared shape.
    declared = [output for output in usable if output.width is not None] or usable
    fitting = [output for output in declared if _fits(output, num_classes)]
    return [output for output in fitting if not _is_of_top_k(output, outputs)]


def _is_usable(output: Output, *, wants_scores: bool) -> bool:
    return output.may_hold_classes and (output.is_float or not wants_scores)


def _wanted(outputs: Sequence[Output], wanted: str, source: str, *, wants_scores: bool) -> int:
    """Returns the number of the output that the user chose by its name, else by its number."""
    names = [output.name for output in outputs]
    number = int(wanted) if wanted.isdecimal() else len(outputs)
    index = names.index(wanted) if wanted in names else number
    if index >= len(outputs):
        raise ValueError(
            f"expected an output of {source}, one of {', '.join(names)}, got {wanted!r}"
        )
    output = outputs[index]
    if not _is_usable(output, wants_scores=wants_scores) or _is_of_top_k(output, outputs):
        found = f"{output} in {source}{_hint([output])}"
        raise ValueError(f"expected an output of {_kinds(wants_scores)}, got {found}")
    return index


def threshold_by_name(output: Output) -> float | None:
    """Returns the threshold of class 1: 0 for logits, 0.5 for probabilities, else None."""
    if output.words & LOGIT_WORDS:
        return 0.0
    return 0.5 if output.words & PROBABILITY_WORDS else None


def _fits(output: Output, num_classes: int | None) -> bool:
    """Checks whether the width fits labels, one score for two classes, or K scores."""
    if num_classes is None or output.width is None or (output.width == 1 and not output.is_float):
        return True
    return output.width == num_classes or (output.width == 1 and num_classes == 2)


def _is_of_top_k(output: Output, outputs: Sequence[Output]) -> bool:
    """Checks for values of top-k: another output of the same shape holds their indices."""
    if not output.is_float or output.width == 1 or output.shape is None:
        return False
    return any(
        other.shape == output.shape and re.match(TENSOR + r"u?int(32|64)", other.dtype)
        for other in outputs
    )


def _rank(output: Output) -> int | None:
    """Ranks how clearly a name indicates classes, 3 at best; None for other meanings."""
    if output.is_of_something_else:
        return None
    # 3: a name of classes; 2: of classes and something else; 1: of an output; 0: any other.
    if output.words & CLASS_WORDS:
        return 2 if output.is_in_doubt else 3
    return 1 if output.words & (OUTPUT_WORDS - {"0"}) else 0


def _preferred(candidates: Sequence[Output]) -> list[Output]:
    """Selects the outputs that most clearly indicate classes.

    Labels are preferred to scores, and logits to probabilities.
    """
    # A highest rank of 2 is a doubtful name: then all outputs remain candidates.
    highest = max((_rank(output) or 0 for output in candidates), default=0)
    best = [output for output in candidates if _rank(output) == highest or highest == 2]
    # One output of labels is the class itself, if its name is clear or there are no rows of scores.
    labels = [output for output in best if not output.is_float and output.width == 1]
    scores = [output for output in best if output not in labels]
    if len(labels) == 1 and (highest == 3 or all(output.width == 1 for output in scores)):
        return labels
    return _logits_of(scores) if not labels else best


def _logits_of(scores: list[Output]) -> list[Output]:
    """Returns the logits if all others are probabilities of the same classes; else all.

    Names and widths decide which classes an output is about.
    """
    # Without the words for scores, names of outputs about the same classes are equal.
    logits = [output for output in scores if output.words & LOGIT_WORDS]
    about = {(output.words - SCORE_WORDS, output.width) for output in scores}
    return logits if len(logits) == 1 and len(about) == 1 else scores


def _hint(outputs: Sequence[Output], candidates: Sequence[Output] = ()) -> str:
    """Returns what the user may do: choose, or convert without maps from class to probability."""
    if candidates:
        return "; if one of them is meant, choose it by output=NAME (--output)"
    # The default of scikit-learn's converter.
    has_maps = any("map(" in output.dtype for output in outputs)
    return "; convert the model with zipmap=False" if has_maps else ""


def _kinds(wants_scores: bool, num_classes: int | None = None) -> str:
    return f"{'' if wants_scores else 'labels (B,) or '}scores (B, {num_classes or 'K'})"


def _listed(outputs: Sequence[Output]) -> str:
    return ", ".join(str(output) for output in outputs) or "none"
