"""Training for a smoothed classifier: on noisy copies, and on adversarial ones."""

from dataclasses import dataclass, fields

from wobbliness.runtime.field_limits import MAX_SIGMA, check_ranges, is_default


@dataclass(frozen=True, kw_only=True)
class SmoothAdv:
    """Adversarial training of a smoothed classifier; without steps, Gaussian augmentation.

    Salman, Yang, Li, Zhang, Zhang, Razenshteyn and Bubeck (NeurIPS 2019, *Provably Robust Deep
    Learning via Adversarially Trained Smoothed Classifiers*): an image x of class y is trained on
    as x + d* + eta_i for i = 1, ..., m, where eta_i comes from N(0, sigma^2 I), and d* maximises

    -ln((1/m) sum_i F_y(x + d + eta_i)) over |d|_2 <= epsilon

    by projected gradient ascent with the same eta_i. Without steps d* is 0: the Gaussian
    augmentation of Cohen et al. (2019). Unlike them, x + d* is kept in [0, 1].

    Attributes:
        sigma: standard deviation of the noise, pixel units of [0, 1].
        epsilon: largest l2 norm of d, pixel units of [0, 1].
        steps: of the ascent, each of length 2 epsilon / steps.
        copies: m, noisy copies of each image.
        warm_up_epochs: over which epsilon grows in equal parts to its full size.

    Raises:
        ValueError: a number is beyond `wobbliness.runtime.field_limits`.
    """

    sigma: float
    epsilon: float = 0.25
    steps: int = 2
    copies: int = 1
    warm_up_epochs: int = 10

    def __post_init__(self) -> None:
        check_ranges(
            self,
            sigma=(0, MAX_SIGMA),
            epsilon=(0, 10**6),
            steps=(0, 10**3),
            copies=(1, 10**3),
            warm_up_epochs=(0, 10**5),
        )

    @property
    def label(self) -> str:
        """The label in tables and figures: sigma, and what is not at its default."""
        others = [
            f" {field.name.replace('_', '-')} {value:g}"
            for field in fields(self)
            if not is_default(field, value := getattr(self, field.name)) and field.name != "sigma"
        ]
        return f"smooth-adv {self.sigma:g}{''.join(others)}"

    @property
    def num_passes(self) -> int:
        """Passes forward and back for each image of an epoch; 1 without smoothing."""
        return self.copies * (self.steps + 1)

    def epsilon_at(self, epoch: int) -> float:
        """Returns the bound of d in an epoch, counted from 0.

        >>> [SmoothAdv(sigma=0.1, epsilon=1, warm_up_epochs=4).epsilon_at(i) for i in (0, 1, 3, 9)]
        [0.25, 0.5, 1.0, 1.0]
        """
        return self.epsilon * min(1.0, (epoch + 1) / max(1, self.warm_up_epochs))
