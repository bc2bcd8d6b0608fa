"""Ownership of a study folder: which recipe it belongs to."""

from pathlib import Path
from typing import Any

from wobbliness.runtime.field_limits import named
from wobbliness.runtime.files import (
    DAMAGED,
    UNPACKING,
    check_study_folder,
    is_intact,
    make_folder,
    read_json,
    remove_unfinished,
    sealed,
    set_aside,
    unfinished_name,
    write_json,
)
from wobbliness.runtime.progress import Notice, print_notice
from wobbliness.study.identity import written
from wobbliness.study.recipes import Recipe, recipe_digest
from wobbliness.study.records.locks import LOCKS, lock
from wobbliness.study.records.record import STUDY_FILE
from wobbliness.study.specs import SCHEMA_VERSION

OWN_NAMES = {
    STUDY_FILE,
    LOCKS,
    DAMAGED,
    "records",
    "networks",
    "perturbations",
    "checkpoints",
    "failed",
}
OWN_NAMES |= {"tables", "figures", "report.html", UNPACKING}


def take_ownership(out: Path, recipe: Recipe, *, notice: Notice = print_notice) -> None:
    """Makes the output folder the recipe's own.

    Several processes may call it at the same time.

    Raises:
        ValueError: the folder holds another study, files that are no study at all, or a link.
        CannotWrite: the folder cannot be written to.
    """
    check_study_folder(out)
    if not _is_owned(out, recipe):
        if out.exists() and not (out.is_dir() and _has_no_owner(out)):
            raise ValueError(
                f"expected a new or empty output folder, or one of this study, got {out}"
            )
        make_folder(out)
        # checked again under the lock: another runner may have written the file meanwhile
        with lock(out, "study", wait=True):
            if not _is_owned(out, recipe):
                _write_study_file(out, recipe, notice)
    for folder in ("records", "networks", "perturbations"):
        make_folder(out / folder)


def _is_owned(out: Path, recipe: Recipe) -> bool:
    """Checks whether the folder belongs to the recipe.

    It does not where no owner is recorded, or none that can be read.
    """
    try:
        found = read_json(out / STUDY_FILE)
    except ValueError:
        return False
    if not is_intact(found):
        return False
    if any(found.get(key) != value for key, value in _identity(recipe).items()):
        raise ValueError(
            f"expected a folder of recipe {recipe.name} with seed {recipe.seed}, got {out}, which "
            f"belongs to {named(found.get('recipe'))} with seed {named(found.get('seed'))}"
        )
    return True


def _has_no_owner(out: Path) -> bool:
    """Checks whether the folder is empty, or holds what a runner leaves while claiming it."""
    names = {path.name for path in out.iterdir() if unfinished_name(path.name) != STUDY_FILE}
    return not names or (names <= OWN_NAMES and bool(names & {LOCKS, STUDY_FILE}))


def _identity(recipe: Recipe) -> dict[str, Any]:
    return {"recipe": recipe.name, "seed": recipe.seed, "digest": recipe_digest(recipe)}


def _write_study_file(out: Path, recipe: Recipe, notice: Notice) -> None:
    if (out / STUDY_FILE).exists():
        set_aside(out, out / STUDY_FILE)
        notice(f"{STUDY_FILE} was damaged: set aside in {DAMAGED}/ and written anew")
    remove_unfinished(out, [STUDY_FILE])
    content = {
        "schema_version": SCHEMA_VERSION,
        **_identity(recipe),
        **written(recipe),
        "recipe": recipe.name,
    }
    write_json(out / STUDY_FILE, sealed(content))
