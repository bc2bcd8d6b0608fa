"""The protocol of a perturbation, and the keyed streams that perturbations draw from.

Random bits are the keystream of AES-128 in counter mode (NIST SP 800-38A), keyed by seed and image
and counted by draw: any draw can be had without the ones before it, in blocks of any size.
"""

import hashlib
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from jaxtyping import Float32, Int, UInt8, UInt32, UInt64
from numpy.typing import ArrayLike

# Bytes of a block of AES.
CIPHER_BLOCK = 16
# Copies are float32, which holds all integers up to 2^24; 2^24 itself may be a rounded one.
MAX_EXACT_INTEGER = 2**24 - 1

Made = TypeVar("Made")


class InputValues(Enum):
    """The values that inputs of a perturbation have.

    Copies are float32 in any case; a classifier of token ids gets them as integers.
    """

    UNIT = "floats in [0, 1]"
    ANY = "numbers"
    TOKENS = "token ids"


@runtime_checkable
class Perturbation(Protocol):
    """What is done to an input before the classifier sees it.

    A frozen dataclass whose fields are its settings. Its draws are keyed by (seed, image key,
    draw): the copies of an image depend on nothing else, however the draws are divided into pages.

    A family with a fixed number of draws has an attribute `num_draws`, too; a measurement makes no
    more of them. One whose inputs are not in [0, 1] has an attribute `input_values` that says so.
    One that explanations are to describe has an attribute `effect`: a clause in plain words that
    says what it does to an input, `it`, such as "another image is added to it".

    Attributes:
        name: stable; goes into records and tables, such as `gaussian-0.1`.
    """

    @property
    def name(self) -> str:
        """The name in records and tables."""
        ...

    def copies(
        self,
        stream: "Stream",
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the next perturbed copies of an image.

        Args:
            stream: of the image, at the first of the draws.
            image: in [0, 1], unless the family has other `input_values`.
            draws: number of copies.
            out: `(draws, *image.shape)`, contiguous, where the copies go.
        """
        ...


@runtime_checkable
class DeviceDraws(Protocol):
    """The draws of the rows of a block on a device, each keyed by (seed, image key, draw).

    Noise is drawn on the device, whose bits are not those of a `Stream`; what a few words for each
    copy decide comes from the stream of its image, and is the same as on the host.
    """

    def numbers(self) -> Any:
        """Returns the number of each row's draw, int64 `(B,)`."""
        ...

    def normal(self) -> Any:
        """Returns standard-normal draws of the shape of the images."""
        ...

    def words(self, purpose: str, shape: tuple[int, ...]) -> Any:
        """Returns random 32-bit words of the device, int64 `(B, *shape)`.

        Args:
            purpose: what they decide; another purpose has independent words.
            shape: of one draw.
        """
        ...

    def from_host(self, parameters: Callable[["Stream", int], np.ndarray]) -> Any:
        """Returns parameters drawn on the host, `(B, ...)`; zeros in rows that fill up a block.

        Args:
            parameters: of a stream and a number of draws, a row for each draw.
        """
        ...

    def constant(self, name: str, make: Callable[[], np.ndarray]) -> Any:
        """Returns what all blocks share, made at the first use and kept on the device."""
        ...


@runtime_checkable
class LoweredPerturbation(Perturbation, Protocol):
    """A perturbation that can also be applied on a device."""

    def lower(self, images: Any, draws: DeviceDraws) -> Any:
        """Returns perturbed copies, tensors of the shape of `images`.

        Args:
            images: tensor `(B, ...)` on the device, a row for each copy.
            draws: of these rows.
        """
        ...


@runtime_checkable
class TrainingPerturbation(Protocol):
    """Perturbation of the labels of a training set before a classifier is trained on them.

    A frozen dataclass whose fields are its settings; its draws are keyed by (seed, key of the
    training set, draw).

    Attributes:
        name: as of a `Perturbation`.
    """

    @property
    def name(self) -> str:
        """The name in records and tables."""
        ...

    def training_labels(
        self, stream: "Stream", labels: Int[np.ndarray, " m"], draws: int, num_classes: int
    ) -> Int[np.ndarray, "B m"]:
        """Returns the next perturbed copies of the labels.

        Args:
            stream: of the training set, at the first of the draws.
            labels: `(m,)` classes, 0 to num_classes - 1.
            draws: number of copies.
            num_classes: at least 2.
        """
        ...


def not_of_inputs(got: str) -> str:
    """Returns the message for a perturbation of training sets in the place of one of inputs."""
    return (
        f"expected a perturbation of inputs, got {got}, one of training sets; measure it by "
        "wobbliness.sampling.trainings.measure_trainings"
    )


def num_draws_of(perturbation: Perturbation) -> int | None:
    """Returns the number of draws that there are of a perturbation; None where there is no end."""
    return getattr(perturbation, "num_draws", None)


def effect_of(perturbation: Perturbation) -> str:
    """Returns what a perturbation does to an input, `it`, as a clause in plain words.

    By its name where it does not say.
    """
    effect: str = getattr(perturbation, "effect", f"it is perturbed by {perturbation.name}")
    return effect


def input_values_of(perturbation: Perturbation | type[Any]) -> InputValues:
    """Returns the values that inputs of a perturbation, or of its class, have.

    Those of images by default.
    """
    return getattr(perturbation, "input_values", InputValues.UNIT)


def image_keys(images: ArrayLike) -> UInt64[np.ndarray, " N"]:
    """Returns the default noise keys: a hash of each image's own values.

    So W is a pure function of the image. Pass the keys of one array as `keys=` of a measurement of
    another to give both the same draws, for instance clean images and their triggered twins.

    Args:
        images: `(N, ...)` numbers; hashed as float32 together with their shape. Integers below
            2^24, such as token ids, are exact in it.

    Returns:
        `(N,)` unsigned 64-bit integers.
    """
    array = images if isinstance(images, np.ndarray) else np.asarray(images)
    return np.array([_key(image) for image in array], dtype=np.uint64)


class Scratch:
    """Memory that draws are made in, used again for those of the next image. For one thread."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(
        self, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32
    ) -> np.ndarray:
        """Returns a part of the memory by name; holds what was left there, zeros at first."""
        # The largest size so far serves all smaller ones, as the start of its memory.
        size = int(np.prod(shape))
        if name not in self._arrays or self._arrays[name].size < size:
            self._arrays[name] = np.zeros(size, dtype)
        return self._arrays[name][:size].reshape(shape)


class ThreadScratch(threading.local):
    """A `Scratch` for each thread, made when the thread first asks for it."""

    def __init__(self) -> None:
        self.scratch = Scratch()


class KeyStream:
    """The random bits of one image, draw after draw."""

    def __init__(
        self,
        seed: int,
        key: int,
        num_bytes: int,
        *,
        first_draw: int = 0,
        scratch: Scratch,
        purpose: str = "",
    ) -> None:
        """Goes to a draw.

        Args:
            seed: non-negative integer.
            key: the image's key, an unsigned 64-bit integer.
            num_bytes: of one draw; rounded up to whole cipher blocks.
            first_draw: number of the first draw that `take` will give.
            scratch: where the bits are made.
            purpose: what the bits decide; another purpose has other bits, independent of these.
        """
        # Whole blocks for each draw: the counter at any draw is known without those before it.
        self._blocks_per_draw = -(-num_bytes // CIPHER_BLOCK)
        self._algorithm = algorithms.AES128(_cipher_key(seed, key, purpose))
        self._scratch, self._name = scratch, f"bits {purpose} {num_bytes}"
        self._next = -1
        self.go_to(first_draw)

    def go_to(self, draw: int) -> None:
        """Goes to a draw, where it is not there already."""
        if draw == self._next:
            return
        counter = (draw * self._blocks_per_draw).to_bytes(CIPHER_BLOCK, "big")
        self._cipher = Cipher(self._algorithm, modes.CTR(counter)).encryptor()
        self._next = draw

    def take(self, num_draws: int) -> UInt8[np.ndarray, "B bytes"]:
        """Returns the bytes of the next draws; overwritten by the next ones in this scratch."""
        # the keystream is what enciphering zeros gives
        shape = (num_draws, self._blocks_per_draw * CIPHER_BLOCK)
        zeros = self._scratch.array("zeros", shape, np.uint8)
        bits = self._scratch.array(self._name, shape, np.uint8)
        self._cipher.update_into(zeros.data.cast("B"), bits.data.cast("B"))
        self._next += num_draws
        return bits


class Stream:
    """The draws of one image, page after page, for all perturbations of a measurement.

    Perturbations of one page share what they draw: Gaussian noise at several sigmas comes from the
    same standard-normal draws.

    Attributes:
        seed: of the noise.
        key: of the image.
        first: number of the first draw of the page.
        scratch: memory to draw in.
    """

    def __init__(self, seed: int, key: int, *, first_draw: int = 0, scratch: Scratch) -> None:
        self.seed, self.key, self.first, self.scratch = seed, key, first_draw, scratch
        self._sources: dict[str, Any] = {}
        self._drawn: dict[str, Any] = {}

    def source(self, name: str, make: Callable[[], Made]) -> Made:
        """Returns what draws under a name, made at the first use and kept for all pages."""
        if name not in self._sources:
            self._sources[name] = make()
        made: Made = self._sources[name]
        return made

    def once(self, name: str, draw: Callable[[], Made]) -> Made:
        """Returns what was drawn under a name on this page, drawn at the first use."""
        if name not in self._drawn:
            self._drawn[name] = draw()
        drawn: Made = self._drawn[name]
        return drawn

    def words(self, purpose: str, num_words: int, draws: int) -> UInt32[np.ndarray, "B words"]:
        """Returns random 32-bit words of this page, drawn once for all that ask.

        Args:
            purpose: what they decide, such as `uniform`; another purpose has independent words.
            num_words: of each draw.
            draws: of the page.
        """
        name = f"{purpose} {num_words}"

        def source() -> KeyStream:
            return KeyStream(
                self.seed,
                self.key,
                4 * num_words,
                first_draw=self.first,
                scratch=self.scratch,
                purpose=purpose,
            )

        def taken() -> np.ndarray:  # a shape here would be made a class in every call
            keys = self.source(name, source)
            keys.go_to(self.first)
            return keys.take(draws).view("<u4")[:, :num_words]

        # With their number: a family of few draws takes the first ones of the page alone.
        return self.once(f"{name} {draws}", taken)

    def turn(self, draws: int) -> None:
        """Turns to the next page, past the draws of this one."""
        # Sources go on where they are; what was drawn on this page is overwritten by the next.
        self.first += draws
        self._drawn.clear()


def _cipher_key(seed: int, key: int, purpose: str) -> bytes:
    text = f"{seed} {key} {purpose}" if purpose else f"{seed} {key}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _key(image: np.ndarray) -> int:
    # -0.0 and 0.0 are one image
    values = np.ascontiguousarray(image, dtype=np.float32) + np.float32(0)
    # With the shape, since images of other shapes may have the same bytes; these are in one order
    # on every machine.
    digest = hashlib.blake2b(repr(values.shape).encode(), digest_size=8)
    digest.update(values.astype("<f4", copy=False).tobytes())
    return int.from_bytes(digest.digest(), "little")
