"""Objects of the user's files: loaded once, found by pickle, in other processes too."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from wobbliness.runtime.user_files import LoadedFiles, load_file, load_object

FILE = (
    "from dataclasses import dataclass\n"
    "@dataclass(frozen=True)\n"
    "class Settings:\n"
    "    number: int = 1\n"
    "made = Settings(number=3)\n"
)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


def test_a_file_is_loaded_once_and_a_changed_one_again(path):
    first = load_object(f"{path}:made")
    assert first == load_object(f"{path}:made")
    assert pickle.loads(pickle.dumps(first)) == first
    path.write_text(FILE.replace("number=3", "number=4"))
    changed = load_object(f"{path}:made")
    assert (first.number, changed.number) == (3, 4)
    assert type(changed) is not type(first)
    assert not (path.parent / "__pycache__").exists()


@pytest.mark.parametrize("num_threads", [1, 4])
def test_a_file_that_another_thread_is_loading_is_waited_for(path, num_threads):
    path.write_text(f"import time\ntime.sleep(0.2)\nmade = object()  # for {num_threads}\n")
    with ThreadPoolExecutor(num_threads) as threads:
        found = list(threads.map(load_object, [f"{path}:made"] * num_threads))
    assert len(set(found)) == 1


def number_of(_, made):
    return made.number


def test_another_process_loads_the_files_first(path):
    gone = path.with_name("gone.py")
    gone.write_text("made = 1\n")
    load_file(gone)
    gone.unlink()
    made = load_object(f"{path}:made")
    spawn = multiprocessing.get_context("spawn")
    # a pool that notices where a process of it cannot read its task
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert pool.submit(number_of, LoadedFiles(), made).result(timeout=60) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("missing.py:made", "which does not exist"),
        ("{path}:other", "expected other in .*mine.py, which does not define it"),
        ("{broken}:made", "broken.py: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(path, text, said):
    broken = path.with_name("broken.py")
    broken.write_text("1 / 0\n")
    with pytest.raises(ValueError, match=said) as raised:
        load_object(text.format(path=path, broken=broken))
    assert "\n" not in str(raised.value)


def test_a_file_that_failed_is_tried_again(path):
    path.write_text("1 / 0\n")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_file(path)
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_file(path)
    path.write_text(FILE)
    assert load_file(path).made.number == 3
