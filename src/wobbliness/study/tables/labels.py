"""Labels of networks in tables, figures and page."""

from wobbliness.study.specs import NetworkSpec


def network_label(spec: NetworkSpec) -> str:
    """Returns a network's name in tables and figures, unique within a study."""
    trigger = "" if spec.attack is None else spec.attack.name
    poisoning = f"{spec.threat.name} {trigger}" if spec.threat else "clean"
    return f"{poisoning}, {spec.architecture}, seed {spec.seed}"
