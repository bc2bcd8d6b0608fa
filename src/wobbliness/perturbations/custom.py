"""A function of the user's own as a perturbation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import Stream


@dataclass(frozen=True)
class Custom:
    """Calls a function for each copy, with a random generator of that copy's own.

    >>> mine = Custom(lambda image, rng: image + rng.normal(0, 0.1, image.shape), name="my-noise")

    Attributes:
        function: takes an image, an array as the user's images are, and a `numpy.random.Generator`;
            returns the copy. It must draw from the generator alone, and is called in several
            threads.
        name: in records and tables; must change when the function does.

    Raises:
        ValueError: there is no name, or the function returns another shape.
    """

    function: Callable[[np.ndarray, np.random.Generator], Any]
    name: str

    def __post_init__(self) -> None:
        function: object = self.function  # of a user, of any type
        if not (callable(function) and self.name):
            raise ValueError(
                f"expected a function with a name, got {self.function!r}, {self.name!r}"
            )

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes what the function returns; four random words of each draw seed its generator."""
        seeds = stream.words("custom", 4, draws)
        for row in range(draws):
            # Philox takes 128 bits of key: generators of other copies are independent.
            rng = np.random.Generator(np.random.Philox(key=seeds[row].view("<u8")))
            copy = np.asarray(self.function(image.copy(), rng))
            if copy.shape != image.shape:
                raise ValueError(
                    f"expected {self.name} to return a copy of shape {image.shape}, got "
                    f"{copy.shape}"
                )
            out[row] = copy
