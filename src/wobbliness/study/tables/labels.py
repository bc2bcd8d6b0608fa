"""Labels of networks, batches and patterns in tables, figures and page."""

from wobbliness.study.specs import CleanseSpec, MeasureSpec, NetworkSpec, UniversalSpec
from wobbliness.study.tables.curves import CANDIDATES, TARGETED, UNTARGETED


def network_label(spec: NetworkSpec) -> str:
    """Returns a network's name in tables and figures, unique within a study."""
    poisoning = f"{spec.threat.name} {spec.trigger}" if spec.threat else "clean"
    return f"{poisoning}, {spec.architecture}, seed {spec.seed}"


def batch_kind(spec: MeasureSpec) -> str:
    """Returns the kind of a batch: clean, active, inactive, or how it was crafted."""
    if isinstance(spec.crafted, CleanseSpec):
        return CANDIDATES[spec.form or ""]
    if isinstance(spec.crafted, UniversalSpec):
        return UNTARGETED if spec.crafted.target_class is None else TARGETED
    return (
        "clean"
        if spec.trigger is None
        else "active"
        if spec.trigger == spec.network.trigger
        else "inactive"
    )


def batch_pattern(spec: MeasureSpec) -> str:
    """Returns the trigger or universal perturbation on a batch.

    Empty for clean points and for Neural Cleanse candidates.
    """
    return (
        universal_label(spec.crafted)
        if isinstance(spec.crafted, UniversalSpec)
        else spec.trigger or ""
    )


def universal_label(spec: UniversalSpec) -> str:
    """Returns the name of a universal perturbation."""
    return f"universal {spec.norm}" + (
        "" if spec.target_class is None else f" to {spec.target_class}"
    )
