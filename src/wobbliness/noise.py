"""Standard-normal draws keyed by (seed, image key, draw).

Any draw can be had without the ones before it, in blocks of any size: the noise depends on the key alone.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, UInt64
from numpy.typing import ArrayLike

PAGE = 64  # draws that share one generator: seeding takes about as long as two draws of a 28 x 28 image


def image_keys(images: ArrayLike) -> UInt64[np.ndarray, " N"]:
    """The default noise keys: a hash of each image's own values, so that W is a pure function of the image.

    Pass the keys of one array as `keys=` of a measurement of another to give both the same draws, for instance clean images and
    their triggered twins.

    Args:
        images: `(N, ...)` floats; hashed as float32 together with their shape.

    Returns:
        `(N,)` unsigned 64-bit integers.
    """
    array = images if isinstance(images, np.ndarray) else np.asarray(images)
    return np.array([_key(image) for image in array], dtype=np.uint64)


def standard_normal(
    seed: int, key: int, shape: tuple[int, ...], *, first_draw: int, block_sizes: list[int]
) -> Iterator[Float32[np.ndarray, "..."]]:
    """Yields the draws `first_draw`, `first_draw + 1`, ... of one image, in blocks of the given sizes.

    Args:
        seed: non-negative integer.
        key: the image's key, an unsigned 64-bit integer.
        shape: of one draw.
        first_draw: number of the first draw wanted.
        block_sizes: number of draws in each block.

    Yields:
        `(block_size, *shape)` float32 arrays. Each is overwritten by the next one of the same size.
    """
    generator, draw = _generator(seed, key, first_draw // PAGE), first_draw - first_draw % PAGE
    generator.standard_normal((first_draw - draw, *shape), dtype=np.float32)
    draw, buffers = first_draw, {size: np.empty((size, *shape), np.float32) for size in set(block_sizes)}
    for size in block_sizes:
        block, filled = buffers[size], 0
        while filled < size:
            if draw % PAGE == 0:
                generator = _generator(seed, key, draw // PAGE)
            step = min(size - filled, PAGE - draw % PAGE)
            generator.standard_normal(out=block[filled : filled + step], dtype=np.float32)
            filled, draw = filled + step, draw + step
        yield block


def _generator(seed: int, key: int, page: int) -> np.random.Generator:
    sequence = np.random.SeedSequence(seed, spawn_key=(key >> 32, key & 0xFFFFFFFF, page))
    return np.random.Generator(np.random.SFC64(sequence))


def _key(image: np.ndarray) -> int:
    values = np.ascontiguousarray(image, dtype=np.float32) + np.float32(0)  # -0.0 and 0.0 are one image
    digest = hashlib.blake2b(repr(values.shape).encode(), digest_size=8)
    digest.update(values.astype("<f4", copy=False).tobytes())
    return int.from_bytes(digest.digest(), "little")
