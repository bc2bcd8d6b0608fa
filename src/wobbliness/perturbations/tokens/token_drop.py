"""Dropped tokens of a text."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import MAX_EXACT_INTEGER, InputValues, Stream
from wobbliness.perturbations.levels import checked_level, digest_of, shown_level, shown_share

# Ids that a name lists one by one; more of them are named by a digest.
MAX_NAMED_IDS = 4


@dataclass(frozen=True)
class TokenDrop:
    """Each token is replaced by a filler, padding or a mask, with a probability.

    Randomized [MASK] (Zeng et al. 2021, *Certified Robustness to Text Adversarial Attacks by
    Randomized [MASK]*) masks a fixed share of the words in this way, after the random ablation of
    pixels (Levine and Feizi 2020). Here each token goes on its own, so that the number of dropped
    ones is binomial. Inputs are token ids `(N, L)`, integers; the classifier gets integers, too.

    >>> TokenDrop(0.3, token=0, keep=(1, 2)).name
    'token-drop-0.3-token-0-keep-1-2'

    Attributes:
        share: probability that a token is dropped, from 0 to 1.
        token: id of the filler.
        keep: ids that are never dropped, such as padding and special tokens.

    Raises:
        ValueError: share is out of range, or an id is no integer from 0 to 2^24 - 1.
    """

    share: float
    token: int
    keep: tuple[int, ...] = ()

    input_values = InputValues.TOKENS

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", checked_level(self.share, "a share", at_most=1.0))
        object.__setattr__(self, "token", _checked_id(self.token))
        object.__setattr__(self, "keep", _checked_ids(self.keep))

    @property
    def name(self) -> str:
        """The name in records and tables; many ids that are kept are named by a digest."""
        few = len(self.keep) <= MAX_NAMED_IDS
        kept = "-".join(map(str, self.keep)) if few else digest_of(self.keep)
        start = f"token-drop-{shown_level(self.share)}-token-{self.token}"
        return f"{start}-keep-{kept}" if self.keep else start

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"{shown_share(self.share)} of its tokens are replaced"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the ids with their dropped tokens; one random word of each token decides."""
        if image.ndim != 1:
            raise ValueError(
                "expected token ids (L,) for a perturbation of the kind token-drop, got inputs of "
                f"shape {image.shape}"
            )
        words = stream.words("token-drop", image.size, draws)
        # Compared as 64-bit integers: of share 1 the limit is 2^32.
        is_dropped = words < np.uint64(round(self.share * 2**32))
        out[:] = image
        # Ids are exact in float32, so that they may be compared.
        is_dropped &= ~np.isin(image, self.keep)
        np.copyto(out, np.float32(self.token), where=is_dropped)


def _checked_ids(given: Any) -> tuple[int, ...]:
    """Returns ids in order; one id stands for itself."""
    ids = given if isinstance(given, Iterable) else (given,)
    # A sorted set: the same ids in another order have the same name.
    return tuple(sorted({_checked_id(each) for each in ids}))


def _checked_id(value: Any) -> int:
    # bool is an int in Python, and yet no id.
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or not 0 <= value <= MAX_EXACT_INTEGER:
        raise ValueError(
            f"expected token ids as integers from 0 to {MAX_EXACT_INTEGER}, got {value!r}"
        )
    return int(value)
