"""C6: backdoor accuracy and W over target classes (section 3.2.3, Fig. 5 right, drawn with C5)."""

from functools import partial

from wobbliness.study.claims.base import Claim
from wobbliness.study.claims.paper.c5_strength_over_networks import (
    QUANTITY,
    WANTED,
    find_correlation,
)

CLAIM = Claim(
    id="C6",
    topic="Better backdoors are smoother, over classes",
    claim="The same over target classes",
    paper="tau -0.49 (p 1.5e-10), Pearson -0.58 (p 1.8e-8): Fashion-MNIST T2, 79 pairs of network "
    "and class (Fig. 5 right)",
    rule="as C5",
    find=partial(find_correlation, claim="C6", unit="pairs of network and class"),
    quantity=QUANTITY,
    wanted=WANTED,
    tables=("correlations",),
)
