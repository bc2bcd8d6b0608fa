"""What guards of single inputs share: scikit-learn's conventions for inputs of any shape."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data


class InputGuard(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Outlier detector of inputs to a classifier, which clones share.

    Attributes:
        image_shape_: shape of one input, once fitted.
        warnings_: what is odd about the clean inputs, once fitted.
    """

    image_shape_: tuple[int, ...]
    warnings_: tuple[str, ...]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_clone__(self) -> "InputGuard":
        """Returns an unfitted guard that shares the classifier.

        A copy of the classifier would lose its fit, or fill the memory twice.
        """
        return type(self)(**self.get_params(deep=False))

    def _checked(self, inputs: Any, *, reset: bool) -> Any:
        """Returns inputs as a floating-point array; tensors as they are.

        Some classifiers want tensors.
        """
        is_tensor = hasattr(inputs, "detach")
        array = np.asarray(inputs.detach().cpu()) if is_tensor else inputs
        checked = validate_data(
            self, array, reset=reset, dtype=(np.float64, np.float32), allow_nd=True
        )
        return inputs if is_tensor else checked

    def _checked_as_fitted(self, inputs: Any) -> Any:
        check_is_fitted(self)
        # Of pictures scikit-learn would count channels, and call them features.
        shape = tuple(getattr(inputs, "shape", ()))
        if len(shape) > 1 and max(len(shape) - 1, len(self.image_shape_)) > 1:
            self._check_shape(shape[1:])
        images = self._checked(inputs, reset=False)
        self._check_shape(tuple(images.shape[1:]))
        return images

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.image_shape_:
            raise ValueError(f"expected inputs of shape {self.image_shape_} each, got {shape}")
