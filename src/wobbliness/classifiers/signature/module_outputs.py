"""The answer of a torch module to a batch, and the tensor of it that predicts the classes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from wobbliness.classifiers.signature.outputs import Output, choose_output


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A rule for how scores are read from a module's answers.

    Attributes:
        name: of the output that predicts the classes; None where an answer is one tensor.
        is_plain: whether an answer is the scores as they are.
    """

    name: str | None = None
    is_plain: bool = True

    @classmethod
    def of(
        cls, answer: object, num_images: int, *, wanted: str | int | None, num_classes: int | None
    ) -> "Reading":
        """Returns the rule for an answer, chosen by `choose_output`.

        Args:
            answer: a tensor, or a tuple, dict, dataclass or `ModelOutput` of tensors.
            num_images: B, of the batch.
            wanted: name or number of an output, as the user chose.
            num_classes: K where it is known.

        Raises:
            ValueError: no tensor of the answer can hold labels or scores, more than one could be
                meant, or one is wanted of one.
        """
        if isinstance(answer, torch.Tensor):
            _check_not_chosen(wanted)
            return cls(is_plain=_is_plain(answer))
        outputs = _outputs_of(answer, num_images)
        if not outputs:
            raise ValueError(
                f"expected the module to give a tensor of logits ({num_images}, K), got "
                f"{type(answer).__name__}"
            )
        chosen = choose_output(
            outputs, wanted, num_classes=num_classes, source="the module's answer"
        )
        return cls(name=outputs[chosen].name, is_plain=False)

    def scores(self, answer: object) -> torch.Tensor:
        """Returns scores `(B, K)`, or one score or label for each image `(B,)`.

        Axes of length 1 beyond these are dropped.

        Raises:
            ValueError: the answer has no such output, or it is nested or complex.
        """
        scores = answer if self.name is None else _named(answer).get(self.name)
        if not isinstance(scores, torch.Tensor):
            raise ValueError(
                f"expected the module to give a tensor of logits, got {type(answer).__name__}"
            )
        if scores.is_nested or scores.is_complex():
            raise ValueError(
                "expected a tensor of real scores of one shape, got "
                f"{'a nested one' if scores.is_nested else scores.dtype}"
            )
        scores = scores if scores.layout == torch.strided else scores.to_dense()
        scores = scores.to(torch.uint8) if scores.dtype == torch.bool else scores
        return scores if scores.ndim <= 2 else _squeezed(scores)


class OneOutput(torch.nn.Module):
    """A module with one output, the scores."""

    def __init__(self, module: torch.nn.Module, reading: Reading) -> None:
        super().__init__()
        self._module, self._reading = module, reading

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes scores `(B, K)`."""
        return self._reading.scores(self._module(images))


def _squeezed(scores: torch.Tensor) -> torch.Tensor:
    # By their numbers: a plain squeeze would drop the axis of a batch of one image, too.
    axes = tuple(axis for axis in range(1, scores.ndim) if scores.shape[axis] == 1)
    return scores.squeeze(axes)


def _is_plain(scores: torch.Tensor) -> bool:
    return scores.ndim <= 2 and scores.layout == torch.strided and scores.dtype != torch.bool


def _check_not_chosen(wanted: str | int | None) -> None:
    if wanted is not None:
        raise ValueError(
            f"expected no output to be chosen of a module that gives one tensor, got {wanted!r}"
        )


def _outputs_of(answer: object, num_images: int) -> list[Output]:
    """Returns the tensors of an answer that have a row for each image."""
    return [
        Output(name=name, dtype=str(tensor.dtype), shape=(None, *tensor.shape[1:]))
        for name, tensor in _named(answer).items()
        if tensor.ndim and len(tensor) == num_images
    ]


def _named(answer: object) -> dict[str, torch.Tensor]:
    """Returns the tensors of an answer by name, or by number where they have no names."""
    items = _items(answer)
    # A tuple of one dict, for instance, is that dict.
    if len(items) == 1 and not isinstance(only := next(iter(items.values())), torch.Tensor):
        return _named(only)
    return {name: value for name, value in items.items() if isinstance(value, torch.Tensor)}


def _items(answer: Any) -> dict[str, object]:
    # Before dataclasses: a ModelOutput of transformers is both, and as a dict leaves out None.
    if isinstance(answer, Mapping):
        return {str(name): value for name, value in answer.items()}
    if is_dataclass(answer) and not isinstance(answer, type):
        return {field.name: getattr(answer, field.name) for field in fields(answer)}
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, tuple | list):
        return {str(number): value for number, value in enumerate(answer)}
    return {}
