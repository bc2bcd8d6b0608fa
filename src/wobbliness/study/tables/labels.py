"""Labels of networks and classes in tables, figures and page."""

from wobbliness.study.specs import NetworkSpec

CLASS_NAMES = {
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}
"""Names of the classes as published, in their order; the classes of the digits are numbers."""


def network_label(spec: NetworkSpec) -> str:
    """Returns a network's name in tables and figures, unique within a study."""
    trigger = "" if spec.attack is None else spec.attack.name
    poisoning = f"{spec.threat.name} {trigger}" if spec.threat else "clean"
    smoothing = "" if spec.smoothing is None else f", {spec.smoothing.label}"
    return f"{poisoning}, {spec.architecture}{smoothing}, seed {spec.seed}"


def class_names(dataset: str, num_classes: int) -> tuple[str, ...]:
    """Returns the names of a data set's classes; their numbers where they have no names.

    >>> class_names("digits", 3)
    ('0', '1', '2')
    """
    names = CLASS_NAMES.get(dataset, ())
    return names if len(names) == num_classes else tuple(map(str, range(num_classes)))
