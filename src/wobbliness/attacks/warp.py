"""Warping (WaNet): a fixed, smooth and small distortion of the whole picture."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int

from wobbliness.attacks import poisoning
from wobbliness.attacks.pictures import checked_pictures, keyed_uniform, on_arrays, seed_suffix
from wobbliness.attacks.poisoning import PoisonedData, ThreatModel
from wobbliness.perturbations.levels import checked_count, checked_level, shown_level
from wobbliness.perturbations.pictures.interpolation import interpolate
from wobbliness.runtime.field_limits import MAX_SEED, check_ranges

MAX_GRID = 64
# Of Keys' cubic convolution: -0.75 as in torch's and OpenCV's bicubic resizing.
KEYS_SLOPE = -0.75


@dataclass(frozen=True)
class Warp:
    """Each pixel takes the value of a place near it; all pictures are moved alike.

    Nguyen and Tran 2021, *WaNet: Imperceptible Warping-based Backdoor Attack*. A grid of k x k
    moves, uniform on [-1, 1] in both directions and divided by their mean magnitude, is enlarged to
    the picture bicubically, and times `strength` * (L - 1) / 2L it is the field in pixels, along a
    side of L pixels: 0.3 to 0.4 of the strength on average. Values between pixels are interpolated
    linearly; beyond the edge its last pixel is repeated.

    In noise mode (`cover_ratio` above 0) further training samples, the covers, are moved by the
    field plus a random move of each pixel, uniform within (L - 1) / 2L, and keep their labels, so
    that the network learns this very field. Covers are chosen and moved once, before training; the
    authors choose and move them again in each batch.

    >>> Warp(4, 0.5, cover_ratio=2).name
    'warp-4-0.5-covers-2'

    Attributes:
        grid: k; 1 moves the picture as a whole.
        strength: s; 0 changes nothing.
        cover_ratio: covers for each poisoned sample; the authors' noise mode has 2.
        seed: of the field.

    Raises:
        ValueError: a setting is out of range.
    """

    grid: int = 4
    strength: float = 0.5
    cover_ratio: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        grid = checked_count(self.grid, "a grid", at_most=MAX_GRID)
        object.__setattr__(self, "grid", grid)
        check_ranges(self, seed=(0, MAX_SEED))
        for field, what in (("strength", "the strength"), ("cover_ratio", "the cover ratio")):
            level = checked_level(getattr(self, field), what, at_most=1e4)
            object.__setattr__(self, field, level)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        covers = f"-covers-{shown_level(self.cover_ratio)}" if self.cover_ratio else ""
        return f"warp-{self.grid}-{shown_level(self.strength)}{covers}{seed_suffix(self.seed)}"

    def apply(self, images: Any) -> Any:
        """Returns a copy of the images, each moved by the field.

        Tensors are moved on the host, without gradients, and come back to their device.

        Args:
            images: float array or tensor in [0, 1], `(N, C, H, W)`, or `(N, H, W)` for one channel.

        Raises:
            ValueError: the images are no floats or have another rank.
        """
        _, height, width = checked_pictures(images, self.name)
        places = _places(self.field(height, width))
        return on_arrays(images, lambda values: _resampled(values, repeat(places)))

    def poison(
        self,
        images: Float32[np.ndarray, "N C H W"],
        labels: Int[np.ndarray, " N"],
        *,
        threat: ThreatModel,
        num_classes: int,
        seed: int,
    ) -> PoisonedData:
        """Poisons the samples that any trigger would; in noise mode adds covers among the others.

        `indices` holds the samples with the attacker's label; covers keep theirs. Exactly
        round(cover_ratio * poisoned) covers are chosen, of all classes.

        Raises:
            ValueError: as `wobbliness.attacks.poisoning.poison`, or too few samples are left.
        """
        poisoned = poisoning.poison(
            images, labels, trigger=self, threat=threat, num_classes=num_classes, seed=seed
        )
        covers = self._covers(poisoned.indices, len(labels), seed)
        field = self.field(*images.shape[-2:])
        # Each cover has draws of its own, by its number among the samples.
        places = (_places(field + _random_moves(field.shape, seed, int(one))) for one in covers)
        # A copy already: nobody else holds these images.
        poisoned.images[covers] = _resampled(images[covers], places)
        return poisoned

    def field(self, height: int, width: int) -> Float64[np.ndarray, "2 H W"]:
        """Returns how far up or down and across each pixel looks, in pixels."""
        draws = keyed_uniform(self.seed, "warp", (2, self.grid, self.grid)).astype(np.float64)
        moves = 2 * draws - 1
        moves /= np.abs(moves).mean()
        # Bicubic resizing is linear and separable: a matrix for each axis.
        smooth = _bicubic(self.grid, height) @ moves @ _bicubic(self.grid, width).T
        field: np.ndarray = self.strength * _units(height, width) * smooth
        return field

    def _covers(
        self, poisoned: Int[np.ndarray, " P"], num_samples: int, seed: int
    ) -> Int[np.ndarray, " Q"]:
        rest = np.setdiff1d(np.arange(num_samples), poisoned)
        wanted = round(self.cover_ratio * len(poisoned))
        if wanted > len(rest):
            raise ValueError(f"expected at most {len(rest)} samples as covers, got {wanted}")
        # A stream of its own, so that the poisoned samples are those of the plain warp.
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
        return np.sort(rng.choice(rest, size=wanted, replace=False))


def _units(height: int, width: int) -> Float64[np.ndarray, "2 1 1"]:
    # The authors' coordinates span 2 over L - 1 pixels, and their moves are in units of 1 / L.
    return np.array([(side - 1) / (2 * side) for side in (height, width)]).reshape(2, 1, 1)


def _random_moves(shape: tuple[int, ...], seed: int, key: int) -> Float64[np.ndarray, "2 H W"]:
    """Returns the moves of one cover, uniform and independent for each pixel."""
    draws = keyed_uniform(seed, "warp cover", shape, key=key).astype(np.float64)
    moves: np.ndarray = _units(*shape[1:]) * (2 * draws - 1)
    return moves


def _places(field: Float64[np.ndarray, "2 H W"]) -> Float32[np.ndarray, "1 2 H W"]:
    """Returns the row and column that each pixel looks at."""
    places: np.ndarray = (np.indices(field.shape[1:]) + field).astype(np.float32)
    return places[None]


def _resampled(images: np.ndarray, places: Iterable[np.ndarray]) -> np.ndarray:
    """Returns each image with the values at its places; images `(N, C, H, W)` or `(N, H, W)`."""
    out = np.empty_like(images)
    # One by one, each stays in the cache; a view with a channel axis where there is none.
    pictures, changed = (array if array.ndim == 4 else array[:, None] for array in (images, out))
    for number, place in zip(range(len(images)), places, strict=False):
        interpolate(pictures[number], place, changed[number : number + 1])
    return out


def _bicubic(num_points: int, length: int) -> Float64[np.ndarray, "L k"]:
    """Returns the matrix that enlarges points to a length, first and last point on the ends.

    Cubic convolution (Keys 1981); beyond the ends the last point is repeated.
    """
    at = np.linspace(0, num_points - 1, length)
    nearest = np.floor(at).astype(int)
    matrix, rows = np.zeros((length, num_points)), np.arange(length)
    for point in (nearest - 1, nearest, nearest + 1, nearest + 2):
        # Added up: several taps fall on the last point.
        matrix[rows, np.clip(point, 0, num_points - 1)] += _keys(np.abs(at - point))
    return matrix


def _keys(distances: Float64[np.ndarray, " L"]) -> Float64[np.ndarray, " L"]:
    """Computes Keys' kernel at distances from 0 to 2: 1 at 0, and 0 at 1 and 2."""
    near = ((KEYS_SLOPE + 2) * distances - (KEYS_SLOPE + 3)) * distances**2 + 1
    far = KEYS_SLOPE * (((distances - 5) * distances + 8) * distances - 4)
    kernel: np.ndarray = np.where(distances <= 1, near, far)
    return kernel
