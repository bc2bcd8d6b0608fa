"""Damaged files: one clear line each, the cell is done again, and the tables come out the same."""

import json
import os
import random
import shutil

import pandas as pd
import pytest
from small_study import finish_times, needs, small, tables_of

from wobbliness.runtime.files import CannotWrite, sealed, set_aside, write_bytes
from wobbliness.study.plan import plan
from wobbliness.study.records.archive import pack_study, unpack_study
from wobbliness.study.records.integrity import weights_file
from wobbliness.study.records.record import read_recipe, read_record
from wobbliness.study.running.runner import run_study

CELLS = plan(small())
MEASURED = next(cell.name for cell in CELLS if cell.kind == "measure")


@pytest.fixture
def study(uninterrupted, tmp_path):
    """A copy of a finished study, to be damaged."""
    shutil.copytree(uninterrupted[0], tmp_path / "study")
    return tmp_path / "study"


def run_again(out):
    """Runs the study again; which cells were done, and the notices."""
    before, notices = finish_times(out, small()), []
    run_study(small(), out, workers=1, notice=notices.append)
    after = finish_times(out, small())
    return {name for name in after if after[name] != before.get(name)}, notices


def flip_a_bit(path, seed=0):
    content = bytearray(path.read_bytes())
    position = random.Random(seed).randrange(8 * len(content))
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


def other_cell(path):
    """The same file of another cell of the same kind."""
    return next(
        other
        for other in sorted(path.parent.glob(f"{path.name.split('-')[0]}-*{path.suffix}"))
        if other.read_bytes() != path.read_bytes()
    )


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit flipped": flip_a_bit,
    "emptied": lambda path: path.write_bytes(b""),
    "another cell's": lambda path: shutil.copyfile(other_cell(path), path),
}


@pytest.mark.parametrize("suffix", ["json", "parquet"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_set_aside_in_one_line_and_done_again(
    uninterrupted, study, damage, suffix
):
    path = study / "records" / f"{MEASURED}.{suffix}"
    DAMAGES[damage](path)
    damaged = path.read_bytes()
    done, notices = run_again(study)
    assert done == {MEASURED}
    assert len(notices) == 1
    assert notices[0].startswith(
        f"records/{MEASURED}.json and records/{MEASURED}.parquet "
        "set aside in damaged/ and done again: expected"
    )
    assert "\n" not in notices[0]
    assert (study / "damaged" / path.name).read_bytes() == damaged
    assert tables_of(study) == uninterrupted[1]


def test_a_record_and_its_table_of_another_cell_are_found_out(uninterrupted, study):
    """Both are whole, and fit each other; they are not this cell's."""
    for suffix in ("json", "parquet"):
        DAMAGES["another cell's"](study / "records" / f"{MEASURED}.{suffix}")
    assert run_again(study)[0] == {MEASURED}
    assert tables_of(study) == uninterrupted[1]


@pytest.mark.parametrize("seed", range(40))
def test_no_flipped_bit_of_a_record_changes_what_is_read(study, seed):
    """Either it is found, or it changed nothing that is read, as the case of the e in 1e-05."""
    path = study / "records" / f"{MEASURED}.json"
    whole = read_record(path.parent, MEASURED)
    flip_a_bit(path, seed)
    try:
        found = read_record(path.parent, MEASURED)
    except ValueError:
        return
    assert (found.spec, found.results, found.provenance) == (
        whole.spec,
        whole.results,
        whole.provenance,
    )


@pytest.mark.parametrize("kind", ["train", "universal", "cleanse"])
@pytest.mark.parametrize("damage", ["cut", "one bit flipped", "emptied"])
def test_damaged_weights_are_made_again_for_a_cell_that_needs_them(
    uninterrupted, study, kind, damage
):
    user = next(
        cell
        for cell in reversed(CELLS)
        if any(cell.kind != kind and f"{kind}-" in need for need in needs(cell))
    )
    maker = next(name for name in needs(user) if name.startswith(f"{kind}-"))
    before = weights_file(study, maker).read_bytes()
    DAMAGES[damage](weights_file(study, maker))
    assert run_again(study) == (set(), []), "no one needs them"
    (study / "records" / f"{user.name}.json").unlink()
    done, notices = run_again(study)
    assert done == {user.name, maker}
    assert [line.split(" ")[0] for line in notices] == [
        str(weights_file(study, maker).relative_to(study))
    ]
    assert weights_file(study, maker).read_bytes() == before
    assert tables_of(study) == uninterrupted[1]


def test_a_packed_study_trains_again_only_what_a_missing_cell_needs(uninterrupted, tmp_path):
    pack_study(uninterrupted[0], tmp_path / "packed")
    unpack_study(tmp_path / "packed", tmp_path / "study")
    assert run_again(tmp_path / "study") == (set(), [])
    user = next(cell for cell in CELLS if cell.kind == "universal")
    (tmp_path / "study" / "records" / f"{user.name}.json").unlink()
    assert run_again(tmp_path / "study") == ({user.name, *needs(user)}, [])
    assert tables_of(tmp_path / "study") == uninterrupted[1]


def test_records_from_before_checksums_are_done_as_far_as_they_can_be_verified(study):
    for path in (study / "records").glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(
            json.dumps(
                {
                    name: value
                    for name, value in content.items()
                    if name not in ("files", "checksum")
                }
            )
        )
    assert run_again(study) == (set(), [])
    path = study / "records" / f"{MEASURED}.parquet"
    DAMAGES["cut"](path)
    assert run_again(study)[0] == {MEASURED}
    for name in ("checksum", "files"):  # one of the two alone was never written
        content = json.loads((study / "records" / f"{MEASURED}.json").read_text())
        del content[name]
        (study / "records" / f"{MEASURED}.json").write_text(json.dumps(content))
        assert run_again(study)[0] == {MEASURED}


def test_a_damaged_study_file_is_written_anew(uninterrupted, study):
    for damage in ("cut", "emptied"):
        DAMAGES[damage](study / "study.json")
        assert run_again(study) == (
            set(),
            ["study.json was damaged: set aside in damaged/ and written anew"],
        )
    (study / "study.json").unlink()
    assert run_again(study) == (set(), [])
    assert tables_of(study) == uninterrupted[1]


def test_files_of_one_name_are_set_aside_side_by_side(tmp_path):
    for content in ("one", "two"):
        (tmp_path / "a.json").write_text(content)
        set_aside(tmp_path, tmp_path / "a.json")
    assert sorted(path.read_text() for path in (tmp_path / "damaged").iterdir()) == ["one", "two"]


def test_a_file_is_complete_or_absent(tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", b"before")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CannotWrite, match="No space left on device"):
        write_bytes(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


WRONG_TYPES = {
    "a list for a name": {"inactive_trigger": ["dot"]},
    "text for a number": {"draws": "250"},
    "a number beyond 64 bits": {"draws": 10**400},
    "a truth for a number": {"seed": True},
    "text for networks": {"parameter_networks": "networks"},
    "networks of text": {"parameter_networks": ["network"]},
    "a network of nothing": {"parameter_networks": [{}]},
    "a field of no one's": {"resources": {"cpus": 1, "tpus": 1}},
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_a_study_file_of_other_types_is_refused(study, name):
    content = json.loads((study / "study.json").read_text()) | WRONG_TYPES[name]
    (study / "study.json").write_text(json.dumps(sealed(content)))
    with pytest.raises(ValueError, match="expected a whole study"):
        read_recipe(study)


@pytest.mark.parametrize("name", ["../../outside", "measure-0", "", None])
def test_a_packed_record_of_no_cell_is_refused_and_leaves_nothing(study, tmp_path, name):
    pack_study(study, tmp_path / "packed")
    path = tmp_path / "packed" / "records.parquet"
    table = pd.read_parquet(path)
    table.loc[len(table) - 1, "cell"] = name
    table.to_parquet(path)
    with pytest.raises(ValueError, match="which is no cell of it"):
        unpack_study(tmp_path / "packed", tmp_path / "a" / "b" / "unpacked")
    assert not (tmp_path / "a").exists()
