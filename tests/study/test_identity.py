"""Cell names and recipe digests: unchanged by new fields and triggers; old schemas are read."""

import dataclasses
import json
from dataclasses import dataclass

import pytest
from made_studies import CLEAN, edit_study_file, make_study, recipe

from wobbliness.attacks import patch as triggers
from wobbliness.runtime.files import sealed
from wobbliness.study import specs
from wobbliness.study.identity import identity
from wobbliness.study.plan import plan
from wobbliness.study.recipes import (
    PAPER_TRIGGERS,
    RECIPES,
    Recipe,
    Universal,
    recipe_by_name,
    recipe_digest,
)
from wobbliness.study.records.record import read_recipe, read_record
from wobbliness.study.specs import NetworkSpec, cell_name, spec_types


def grown(kind):
    """A subclass with one more field, under the kind's own name and the same kind of cell."""
    return dataclass(frozen=True, kw_only=True)(
        type(kind.__name__, (kind,), {"__annotations__": {"is_new": bool}, "is_new": False})
    )


def rebuilt(made, kinds, **new):
    """The same object of the grown classes, those inside it too."""
    values = {
        field.name: rebuilt(value, kinds) if type(value) in kinds else value
        for field in dataclasses.fields(made)
        for value in [getattr(made, field.name)]
    }
    return kinds.get(type(made), type(made))(**values, **new)


@pytest.mark.parametrize("name", RECIPES)
def test_a_field_with_a_default_renames_no_cell_and_no_recipe(name):
    cells = plan(recipe_by_name(name, 0))
    kinds = {kind: grown(kind) for kind in spec_types().values()}
    for cell in cells:
        again = rebuilt(cell.spec, kinds)
        assert type(again) is not type(cell.spec)
        assert cell_name(again) == cell.name
    kinds_of_cells = {type(cell.spec) for cell in cells}
    assert kinds_of_cells >= {NetworkSpec}
    assert kinds_of_cells & {specs.MeasureSpec, specs.NoiseSpec}
    larger = rebuilt(recipe_by_name(name, 0), {Recipe: grown(Recipe)})
    assert recipe_digest(larger) == recipe_digest(recipe_by_name(name, 0))


def test_another_value_of_a_new_field_is_another_cell():
    """Control of the test above, also inside another spec."""
    spec = next(cell.spec for cell in plan(recipe_by_name("digits", 0)) if cell.spec.needs)
    kinds = {kind: grown(kind) for kind in spec_types().values()}
    assert cell_name(rebuilt(spec, kinds, is_new=True)) != cell_name(spec)
    inside = dataclasses.replace(
        rebuilt(spec, kinds), network=rebuilt(spec.network, kinds, is_new=True)
    )
    assert cell_name(inside) != cell_name(spec)


def test_fields_of_schema_3_count_also_at_their_default():
    assert identity(Universal(norm="l2", bound=1.0)) == {
        "norm": "l2",
        "bound": 1.0,
        "target_class": None,
        "fooling_rate": 0.8,
        "num_images": 500,
    }


def test_a_trigger_more_adds_no_cell(monkeypatch):
    before = [cell.name for cell in plan(recipe_by_name("digits", 0))]
    monkeypatch.setitem(triggers._DRAWINGS, "ring", ("###", "# #", "###"))
    monkeypatch.setattr(triggers, "TRIGGER_NAMES", tuple(triggers._DRAWINGS))
    assert triggers.trigger("ring").name == "ring"
    assert [cell.name for cell in plan(recipe_by_name("digits", 0))] == before
    assert len(PAPER_TRIGGERS) == 6


def test_files_of_the_schema_before_are_read_and_a_missing_new_field_is_its_default(tmp_path):
    out = make_study(tmp_path / "made")
    written = json.loads((out / "study.json").read_text())
    assert written["schema_version"] == 4
    edit_study_file(out, schema_version=3, resources=...)
    assert read_recipe(out) == recipe()
    record = min((out / "records").glob("train-*.json"))
    content = json.loads(record.read_text()) | {"schema_version": 3}
    record.write_text(json.dumps(sealed(content)))
    assert read_record(out / "records", record.stem).spec == CLEAN


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"schema_version": 5}, {"draws": ...}])
def test_other_schemas_and_missing_fields_of_schema_3_are_refused(tmp_path, change):
    """Control of the test above."""
    out = make_study(tmp_path / "made")
    edit_study_file(out, **change)
    with pytest.raises(ValueError, match=r"expected a (study of schema 3 or 4|whole study)"):
        read_recipe(out)
