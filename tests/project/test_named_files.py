"""Files that the pages name exist; a name that does not is found."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TESTS = {file.stem for file in (REPOSITORY / "tests").rglob("test_*.py")}


def missing_files(page):
    """Returns the test files and the modules of the package that a page names and are not there."""
    tests = set(re.findall(r"\b(test_\w+)\b", page)) - TESTS
    paths = set(re.findall(r"(?:[a-z_]+/)+[a-z_0-9]+\.py\b", page))
    return {*tests, *(path for path in paths if not _exists(path))}


def _exists(path):
    return any((folder / path).is_file() for folder in (REPOSITORY, REPOSITORY / "src"))


def test_every_file_that_security_names_exists():
    page = (REPOSITORY / "SECURITY.md").read_text()
    assert len(re.findall(r"\btest_\w+", page)) > 10  # it names some
    assert missing_files(page) == set()


def test_every_test_file_that_experiments_name_exists():
    page = (REPOSITORY / "EXPERIMENTS.md").read_text()
    assert not [name for name in missing_files(page) if name.startswith(("test_", "tests/"))]


@pytest.mark.parametrize(
    "name", ["test_hub_model", "wobbliness/telemetry.py", "tests/test_votes.py"]
)
def test_a_file_that_is_not_there_is_missed(name):
    """Control of the tests above."""
    assert missing_files(f"See `{name}` and `wobbliness/runtime/telemetry.py`.") == {name}
