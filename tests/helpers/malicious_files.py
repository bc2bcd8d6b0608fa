"""Changed archives of exported programs, and the check that a file is refused."""

import json
import resource
import zipfile

import pytest

import wobbliness

MEMORY = 512 * 2**20  # bytes that opening a hostile file may take beyond what the process has


def refuse(path, match, **options):
    """Opening is refused with one line, and quickly frees what it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=match) as caught:
        wobbliness.open_classifier(path, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def rewritten(archive, path, change, compression=zipfile.ZIP_STORED):
    """A copy of an archive, its files changed by `change`, which gets their contents by name."""
    with zipfile.ZipFile(archive) as source:
        root = source.namelist()[0].split("/")[0]
        contents = {name.removeprefix(f"{root}/"): source.read(name) for name in source.namelist()}
    change(contents)
    with zipfile.ZipFile(path, "w", compression) as copy:
        for name, content in contents.items():
            copy.writestr(f"{root}/{name}", content)
    return path


def edit_program(change):
    """Changes the program's document, given as a dict."""

    def edit(contents):
        program = json.loads(contents["models/model.json"])
        change(program)
        contents["models/model.json"] = json.dumps(program).encode()

    return edit


def nodes_of(program):
    return program["graph_module"]["graph"]["nodes"]
