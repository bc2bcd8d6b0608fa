"""Limits of strangers' studies in time, memory and field values: each refusal is one line."""

import base64
import io
import json
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run
from made_studies import CLEAN, edit_record, edit_study_file, make_study, recipe
from PIL import Image

from wobbliness.attacks.poisoning import t1
from wobbliness.reports.html import markdown_cell
from wobbliness.runtime.field_limits import shown
from wobbliness.runtime.files import read_json, sealed
from wobbliness.study.claims.claims import findings
from wobbliness.study.recipes import RECIPES, Cleanse, Universal, recipe_by_name
from wobbliness.study.records import bounded_tables
from wobbliness.study.records.archive import pack_study, unpack_study
from wobbliness.study.records.bounded_tables import Budget, packed_rows, packed_texts, table_of
from wobbliness.study.records.failures import Failure, read_failure, write_failure
from wobbliness.study.records.picture_strips import pictures_of, strip
from wobbliness.study.records.record import read_recipe, read_record
from wobbliness.study.report.report import form_report, write_markdown, write_pages, write_report
from wobbliness.study.running.status import study_status
from wobbliness.study.tables.tables import form_tables


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


TOO_MUCH = {
    "control_pairs": 10**9,
    "control_points": 10**9,
    "draws": 10**12,
    "parameter_points": 10**9,
    "effect_points": 0,
    "detection_points": 10**9,
    "class_points": -1,
    "draws_grid": [250, 10],
    "draws_sigmas": [0.1] * 10_000,
    "parameter_sigmas": [],
    "sigmas": [-0.1],
    "response_levels": [1e300],
    "seed": -1,
    "inactive_trigger": "none of the six",
    "universals": [
        {"norm": "l7", "bound": 1.0, "target_class": None, "fooling_rate": 0.8, "num_images": 10}
    ],
    "cleanse": {"num_images": 10, "restarts": 10**9, "max_steps": 1, "num_points": 1},
    "resources": {"cpus": -1.0, "gpus": 0.0, "memory_gib": None},
}


@pytest.mark.parametrize("field", TOO_MUCH)
def test_numbers_that_explode_are_refused_where_a_recipe_is_read(monkeypatch, capsys, study, field):
    edit_study_file(study, **{field: TOO_MUCH[field]})
    for command in ("report", "status"):
        code, out, err = run(monkeypatch, capsys, "study", command, study)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert field in err.lower() or field.rstrip("s").title() in err, err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 10**9),
        ("batch_size", 0),
        ("learning_rate", 1e30),
        ("seed", -1),
        ("trigger", "mine"),
    ],
)
def test_numbers_of_networks_are_bounded(field, value):
    with pytest.raises(ValueError, match=f"NetworkSpec.{field}"):
        replace(CLEAN, **{field: value})
    with pytest.raises(ValueError, match="ThreatModel"):
        t1(target_class=10**9)


def test_networks_and_cells_are_counted_before_they_are_planned():
    many = tuple(replace(CLEAN, seed=seed) for seed in range(800))
    for fields in (
        {"effect_networks": many, "strength_networks": many},
        {"detection_networks": many},
    ):
        with pytest.raises(ValueError, match="expected a recipe of at most"):
            recipe(**fields)
    with pytest.raises(ValueError, match="control_pairs times control_points"):
        recipe(control_pairs=10**5, control_points=5000)
    recipe(effect_networks=many)


def test_recipes_of_this_package_keep_their_digests():
    """Control: bounds change nothing in what is allowed."""
    for name in RECIPES:
        assert recipe_by_name(name, 3).seed == 3
    assert (Universal(norm="linf", bound=0.3).norm, Cleanse().restarts) == ("linf", 2)


@pytest.mark.parametrize("field", ["draws", "name", "sigmas", "parameter_networks"])
def test_a_missing_field_is_named(monkeypatch, capsys, study, field):
    edit_study_file(study, **{field: ...})
    code, _, err = run(monkeypatch, capsys, "study", "report", study)
    assert (code, err.count("\n"), f"got no {field}" in err) == (2, 1, True), err


@pytest.mark.parametrize("value", [None, "250", [250], 1e3, True, {}])
def test_a_field_of_another_type_is_named(monkeypatch, capsys, study, value):
    edit_study_file(study, draws=value)
    code, _, err = run(monkeypatch, capsys, "study", "report", study)
    assert (code, err.count("\n"), "Recipe.draws" in err) == (2, 1, True), err


@pytest.mark.parametrize(
    ("fields", "lacking"), [({"draws": 100}, "100"), ({"draws_grid": (10, 100)}, "250")]
)
def test_a_grid_without_the_draws_of_c1_leaves_c1_not_measured(tmp_path, fields, lacking):
    report = write_report(make_study(tmp_path / "study", **fields))
    first, second = report.findings[:2]
    assert (first.verdict, f"draws_grid lacks {lacking}" in first.settings) == (
        "not measured",
        True,
    )
    assert second.verdict != "not measured"
    whole = findings(form_tables(make_study(tmp_path / "whole")))[0]
    assert whole.verdict != "not measured", "control: a grid that has them"


IMPORT = "from made_studies import recipe\n"
ODD_FILES = {
    "raises two lines": "def f(seed):\n    raise RuntimeError('one\\ntwo')\n",
    "leaves": "import sys\nsys.exit(7)\n",
    "does not parse": "def f(seed:\n",
    "is not UTF-8": b"# \xe9\ndef f(seed):\n    return 1\n",
    "imports nothing that is there": "import nothing_of_this_name\n",
    "recurses": "def f(seed):\n    return f(seed)\n",
    "gives another type": "def f(seed):\n    return seed\n",
    "gives odd fields": f"{IMPORT}def f(seed):\n    return recipe(own_points='yes')\n",
    "gives a set": f"{IMPORT}def f(seed):\n    return recipe(parameter_networks={{1, 2}})\n",
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_a_recipe_file_with_errors_is_one_line(monkeypatch, capsys, tmp_path, name):
    content = ODD_FILES[name]
    (tmp_path / "mine.py").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = run(
        monkeypatch, capsys, "study", "run", f"{tmp_path}/mine.py:f", "--out", tmp_path / "out"
    )
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert not (tmp_path / "out").exists()


def test_a_recipe_file_may_give_lists(tmp_path):
    """Control: what its study file will hold is what counts."""
    (tmp_path / "mine.py").write_text(
        "from made_studies import recipe\ndef f(seed):\n    made = recipe()\n"
        # the tests' type checks refuse it as an argument
        "    object.__setattr__(made, 'sigmas', [0.1])\n    return made\n"
    )
    assert recipe_by_name(f"{tmp_path}/mine.py:f", 0) == recipe()


def parquet(table, **options):
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", **options)
    return content.getvalue()


def growing_texts(num):
    """Texts that each repeat the one before: stored as differences they take next to nothing."""
    return pa.table({"cell": ["x" * index for index in range(num)], "record": ["{}"] * num})


BOMBS = {
    "10^8 equal numbers": lambda: pa.table({"point": pa.array(np.zeros(10**8, np.int8))}),
    "a text for each of 10^6 rows": lambda: pa.table(
        {"point": pa.array(["x" * 1000] * 10**5).dictionary_encode()}
    ),
    "lists": lambda: pa.table({"point": pa.array([[1, 2]])}),
    "one text": lambda: pa.table({"point": ["=1+1"]}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_tables_that_explode_are_refused_unread(name):
    content = parquet(BOMBS[name]())
    assert len(content) < 4 * 10**5
    with pytest.raises(ValueError, match="values|where numbers belong"):
        table_of(content)


def test_pages_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    """Few rows, but long pages: texts that are all different, and those stored as differences."""
    monkeypatch.setattr(bounded_tables, "MAX_VALUES", 1000)
    long = pa.table(
        {"cell": [f"{index}" + "x" * 200 for index in range(100)], "record": ["{}"] * 100}
    )
    for table, options, text in (
        (long, {}, "pages that unpack"),
        (
            growing_texts(100),
            {"use_dictionary": False, "column_encoding": {"cell": "DELTA_BYTE_ARRAY"}},
            "in encoding 7",
        ),
        (
            growing_texts(100),
            {"use_dictionary": False, "column_encoding": {"cell": "DELTA_LENGTH_BYTE_ARRAY"}},
            "in encoding 6",
        ),
    ):
        (tmp_path / "records.parquet").write_bytes(parquet(table, **options))
        with pytest.raises(ValueError, match=text):
            list(packed_texts(tmp_path / "records.parquet"))
    (tmp_path / "records.parquet").write_bytes(parquet(growing_texts(20)))
    assert len(list(packed_texts(tmp_path / "records.parquet"))) == 20, "control"


def test_one_long_text_for_many_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_tables, "MAX_TEXT_BYTES", 10**6)
    table = pa.table(
        {"cell": [f"cell {index}" for index in range(2000)], "record": ["x" * 1000] * 2000}
    )
    (tmp_path / "records.parquet").write_bytes(parquet(table))
    with pytest.raises(ValueError, match="in all"):
        list(packed_texts(tmp_path / "records.parquet"))
    table = pa.table({"cell": ["x" * 1000] * 2000, "point": np.arange(2000)})
    (tmp_path / "measure-000.parquet").write_bytes(parquet(table))
    with pytest.raises(ValueError, match="a name of more than 100"):
        packed_rows(tmp_path / "measure-000.parquet")


def test_a_study_has_so_many_rows_in_all(monkeypatch, study):
    monkeypatch.setattr(bounded_tables, "MAX_STUDY_ROWS", 20)
    with pytest.raises(ValueError, match="expected a study of at most 20 rows"):
        form_tables(study)
    pack_study(study, study.parent / "packed")
    with pytest.raises(ValueError, match="expected a study of at most 20 rows"):
        unpack_study(study.parent / "packed", study.parent / "again")
    monkeypatch.setattr(bounded_tables, "MAX_STUDY_ROWS", 24)
    form_tables(study)
    Budget().take(pd.DataFrame())


def test_a_packed_bomb_takes_no_memory(study, tmp_path):
    """396 kB that would become 3 GB, under a limit of the address space."""
    pack_study(study, tmp_path / "packed")
    row_group = pa.table(
        {"cell": pa.array(["x"] * 1000).dictionary_encode(), "point": np.zeros(1000, np.int64)}
    )
    with pq.ParquetWriter(
        tmp_path / "packed" / "measure-000.parquet", row_group.schema, compression="zstd"
    ) as writer:
        big = pa.table(
            {
                "cell": pa.DictionaryArray.from_arrays(
                    pa.array(np.zeros(3 * 10**7, np.int8)), pa.array(["x"])
                ),
                "point": pa.array(np.zeros(3 * 10**7, np.int64)),
            },
        )
        writer.write_table(big.cast(row_group.schema))
    del big
    assert (tmp_path / "packed" / "measure-000.parquet").stat().st_size < 400_000
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from wobbliness.study.records.archive import unpack_study\n"
        "import pyarrow.parquet, pandas\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    unpack_study(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except ValueError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "packed", tmp_path / "again"],
        capture_output=True,
        text=True,
    )
    said, kilobytes = done.stdout.splitlines()
    assert "more than 20000000 values" in said
    assert int(kilobytes) < 200_000


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a": ' + "[" * 40 + "]" * 40 + "}",
        "[1]",
        '{"a": ' + "9" * 5000 + "}",
        "{",
    ],
)
def test_json_that_is_deep_or_odd_is_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="JSON") as refused:
        read_json(tmp_path / "a.json")
    assert len(str(refused.value)) < 300


def test_json_of_gigabytes_is_refused_unread(monkeypatch, capsys, study):
    with open(study / "study.json", "r+b") as file:
        file.truncate(2**33)
    code, _, err = run(monkeypatch, capsys, "study", "status", study)
    assert (code, err.count("\n"), "more than" in err) == (2, 1, True), err


ODD_RESULTS = {
    "no losses": ("train", {"losses": []}),
    "losses of text": ("train", {"losses": ["=1+1"]}),
    "more losses than epochs": ("train", {"losses": [1.0] * 10}),
    "no accuracy": ("train", {"clean_accuracy": None}),
    "text for an accuracy": ("train", {"clean_accuracy": "<script>"}),
    "a list for an accuracy": ("measure", {"accuracy_on_clean_labels": [1]}),
    "labels by text": ("measure", {"attacker_labels_by_class": ["a"]}),
    "pictures of nothing": ("measure", {"pictures": {"height": 0, "strips": {}}}),
    "pictures by name": ("measure", {"pictures": {"height": 8, "strips": {"../x": None}}}),
}


@pytest.mark.parametrize("name", ODD_RESULTS)
def test_records_of_odd_results_are_one_line(monkeypatch, capsys, study, name):
    kind, results = ODD_RESULTS[name]
    path = edit_record(study, kind, **results)
    with pytest.raises(ValueError, match="expected a whole record"):
        read_record(path.parent, path.stem)
    code, _, err = run(monkeypatch, capsys, "study", "report", study)
    assert (code, err.count("\n"), path.name in err) == (2, 1, True), err


ODD_TABLES = {
    "a row missing": lambda table: table.iloc[1:],
    "a row twice": lambda table: pd.concat([table, table.iloc[:1]]),
    "all rows twice": lambda table: pd.concat([table, table]),
    "no rows": lambda table: table.iloc[:0],
    "another sigma": lambda table: table.assign(sigma=0.7),
    "other draws": lambda table: table.assign(draws=11),
    "votes that do not add up": lambda table: table.assign(votes_0=table.votes_0 + 1),
    "votes below zero": lambda table: table.assign(votes_0=-1),
    "votes in fractions": lambda table: table.assign(
        votes_0=table.votes_0 + 0.0, votes_1=table.votes_1 + 0.0
    ),
    "a column too many": lambda table: table.assign(mine=1),
    "a column too few": lambda table: table.drop(columns="label"),
    "no top score": lambda table: table.assign(top_score=np.nan),
}


@pytest.mark.parametrize("name", ODD_TABLES)
def test_tables_of_odd_rows_are_one_line(study, name):
    path = min((study / "records").glob("measure-*.json"))
    content = json.loads(path.read_text())
    table = read_record(path.parent, path.stem).table
    for changed, is_whole in ((table, True), (ODD_TABLES[name](table), False)):
        changed.to_parquet(path.with_suffix(".parquet"), index=False)
        bare = {key: value for key, value in content.items() if key not in ("files", "checksum")}
        path.write_text(json.dumps(bare))
        if is_whole:
            read_record(path.parent, path.stem)
        else:
            with pytest.raises(ValueError, match="expected a whole record"):
                read_record(path.parent, path.stem)


def png_bomb(width, height):
    """A grey PNG of any size, all black."""

    def chunk(kind, content):
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes(10**6), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def picture(form, mode="L", size=(8, 16)):
    content = io.BytesIO()
    Image.new(mode, size).save(content, form)
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        png_bomb(30_000, 30_000),
        png_bomb(2**30, 2**30),
        picture("GIF"),
        picture("EPS"),
        picture("PNG", "RGBA"),
        picture("PNG", size=(8, 12)),
        b"",
    ],
)
def test_pictures_of_a_record_are_small_png_and_nothing_else(content):
    with pytest.raises(ValueError, match="expected a PNG of grey or colour pictures"):
        pictures_of(base64.b64encode(content).decode(), 8)


def test_pictures_that_a_record_may_hold():
    """Control of the test above, and the largest that is written."""
    assert pictures_of(base64.b64encode(picture("PNG")).decode(), 8).shape == (2, 1, 8, 8)
    assert strip(np.zeros((1, 3, 2000, 2000), np.float32)) is None
    assert pictures_of(strip(np.zeros((2, 3, 500, 500), np.float32)), 500).shape == (1, 3, 500, 500)


def test_a_failure_of_a_stranger_is_one_short_line(monkeypatch, capsys, study):
    cell = min((study / "records").glob("measure-*.json"))
    cell.unlink()
    write_failure(
        study, Failure(cell=cell.stem, message="[/bold]\nx" * 1000, details="", attempt="1")
    )
    path = study / "failed" / f"{cell.stem}.json"
    content = json.loads(path.read_text()) | {"cell": "\x1b[2J"}
    path.write_text(json.dumps(sealed(content)))
    kept = read_failure(study, cell.stem)
    assert (kept.cell, "\n" in kept.message, len(kept.message)) == (cell.stem, False, 1000)
    code, out, err = run(monkeypatch, capsys, "study", "status", study)
    assert (code, err, "\x1b" in out, len(out.splitlines())) == (0, "", False, 2)


@pytest.mark.parametrize("seconds", [10**400, -1, None, "long", 1e300])
def test_durations_that_are_none_are_left_out(study, seconds):
    path = min((study / "records").glob("train-*.json"))
    content = json.loads(path.read_text())
    content["provenance"]["duration_seconds"] = seconds
    path.write_text(json.dumps(sealed(content)))
    min((study / "records").glob("measure-*.json")).unlink()
    assert 0 <= study_status(read_recipe(study), study).seconds_left < 100


def test_markdown_of_a_stranger_is_text(tmp_path):
    report = write_report(make_study(tmp_path / "study"))
    evil = "a|b `c` <img src=x onerror=alert(1)>\n# head [x](http://y) [x][y] &lt;"
    tables = replace(report.tables, networks=report.tables.networks.assign(network=evil))
    found = [replace(finding, statements=(evil,), settings=evil) for finding in report.findings]
    write_markdown([replace(report, tables=tables, findings=found)], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "<img" not in text
    assert "`c`" not in text
    assert "](http" not in text
    assert "\n# head" not in text
    rows = [line for line in text.splitlines() if line.startswith("| **C")]
    assert {line.count("|") for line in rows} == {6}
    assert (
        markdown_cell("AUC 0.99 [0.98, 1.00], tau -0.5 (p < 1)")
        == "AUC 0.99 [0.98, 1.00], tau -0.5 (p &#60; 1)"
    )


def test_the_page_of_a_stranger_holds_text_alone(tmp_path):
    report = form_report(make_study(tmp_path / "study"))
    evil = "</script><img src=x onerror=alert(1)>\" onload='x' <!--"
    tables = replace(
        report.tables,
        **{
            name: getattr(report.tables, name).assign(network=evil)
            for name in ("networks", "points", "batches", "losses")
        },
    )
    found = [replace(finding, statements=(evil,), settings=evil) for finding in report.findings]
    write_pages(replace(report, tables=tables, findings=found))
    page = (tmp_path / "study" / "report.html").read_text()
    assert "<img src=x" not in page
    assert "</script><" not in page
    assert "<!--" not in page
    assert "&lt;/script&gt;&lt;img src=x" in page, "control: it is there as text"


def test_a_record_that_is_packed_twice_is_refused(study, tmp_path):
    pack_study(study, tmp_path / "packed")
    path = tmp_path / "packed" / "records.parquet"
    table = pd.read_parquet(path)
    pd.concat([table, table.iloc[:1]]).to_parquet(path, index=False)
    with pytest.raises(ValueError, match="two records of train-"):
        unpack_study(tmp_path / "packed", tmp_path / "again")


def test_few_bytes_do_not_become_many_numbers():
    table = pa.table({"point": np.zeros(10**7, np.int64)})
    with pytest.raises(ValueError, match="unpacks to at most"):
        table_of(parquet(table))
    assert len(table_of(parquet(table.slice(0, 10**6)))) == 10**6, "control: little may grow"


def test_whatever_is_shown_is_short_and_plain():
    deep = []
    for _ in range(10**5):
        deep = [deep]
    for value in ("\x1b[2J" * 100, deep, 10**5000, {"a": "b" * 10**6}):
        text = shown(value)
        assert len(text) < 120
        assert text.isprintable()
