"""Labels of networks in tables, figures and page."""

from wobbliness.study.specs import NetworkSpec


def network_label(spec: NetworkSpec) -> str:
    """Returns a network's name in tables and figures, unique within a study."""
    trigger = "" if spec.attack is None else spec.attack.name
    poisoning = f"{spec.threat.name} {trigger}" if spec.threat else "clean"
    smoothing = "" if spec.smoothing is None else f", {spec.smoothing.label}"
    return f"{poisoning}, {spec.architecture}{smoothing}, seed {spec.seed}"
