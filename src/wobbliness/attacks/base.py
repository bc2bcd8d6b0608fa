"""The protocol of an attack: what an adversary does to inputs and to training data."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Attack(Protocol):
    """Trigger of an adversary, put on inputs at test time and on training data.

    A frozen dataclass whose fields are its settings, compared by value.

    Attributes:
        name: stable; goes into records and tables, such as `checkerboard`.
    """

    @property
    def name(self) -> str:
        """The name in records and tables."""
        ...

    def apply(self, images: Any) -> Any:
        """Returns a copy of the images with the trigger on each.

        Args:
            images: float array or tensor in [0, 1], `(N, ...)`; returned in the same kind and
                shape.
        """
        ...
