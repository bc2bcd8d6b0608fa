"""The description of how forward passes are run, and the rule for the block size."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

# What one core can count on of the second and third level of cache together.
CACHE_BYTES = 5 * 2**20
# Of float32.
BYTES_PER_VALUE = 4
# Copies: so many at least share the fixed cost of a call.
MIN_BLOCK, MAX_BLOCK = 25, 256


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A description of how the forward passes of a measurement were run.

    Attributes:
        backend: `onnxruntime` (a compiled graph), `torch` (eager) or `callable`.
        device: `cpu`, `cuda`, ...
        reason: why a torch module was not compiled, or what is done to noisy copies for a graph of
            whole numbers; None where there is nothing to say.
        values_per_image: values in the input and output of the network's largest step for one
            image; None where unknown.
        block_size: noisy copies classified at a time.
        changed_labels: share of the first block's labels that bfloat16 changed; None in float32.
        threads: which threads ran them, in words; None where each worker ran its own on one core.
        company: why copies were classified one at a time, in words; None where the other images of
            a block do not matter.
        precision: where checked low precision was asked for, in words whether it was used, and why
            not; None where it was not asked for.
    """

    backend: str
    device: str = "cpu"
    reason: str | None = None
    values_per_image: int | None = None
    block_size: int | None = None
    changed_labels: float | None = None
    threads: str | None = None
    company: str | None = None
    precision: str | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """Returns remarks for a reader of the votes, in words."""
        compiled = f"not compiled: {self.reason}" if self.reason else None
        remarks = (compiled, self.threads, self.company, self.precision)
        return tuple(remark for remark in remarks if remark)

    def as_record(self) -> dict[str, object]:
        """Returns the fields as records hold them: without the precision where it says nothing."""
        fields = asdict(self)
        if self.precision is None:
            del fields["precision"]
        return fields


def default_block_size(draws: int, values_per_image: int) -> int:
    """Computes the number of noisy copies classified at a time.

    The largest step of the network, its input and output for a whole block as float32, stays within
    CACHE_BYTES, but a block has MIN_BLOCK to MAX_BLOCK copies. Within that, blocks that divide the
    draws are preferred, down to half the limit: a remainder of another shape makes the runtime plan
    its memory again. Otherwise there are as few blocks as the limit allows, all of nearly one size.
    The rule reads sizes alone, never a clock, so a repeat runs the same blocks.

    Args:
        draws: noisy copies of one image in all.
        values_per_image: of the largest step.
    """
    limit = min(MAX_BLOCK, max(MIN_BLOCK, CACHE_BYTES // (BYTES_PER_VALUE * values_per_image)))
    # A size above half the limit that divides the draws leaves no remainder.
    for size in range(min(limit, draws), limit // 2, -1):
        if draws % size == 0:
            return size
    # Otherwise the fewest blocks within the limit, all of nearly one size.
    num_blocks = -(-draws // limit)
    return -(-draws // num_blocks)


def precisions_of(executions: Iterable[Execution]) -> str | None:
    """Returns what executions say of their precision, each line once.

    None where float32 was asked for.
    """
    said = dict.fromkeys(execution.precision for execution in executions)
    return "; ".join(line for line in said if line is not None) or None
