"""Valid files damaged at random, and what every reader makes of them.

Each is read, or refused as documented, with nothing left behind. A reader may raise ValueError, or
what stops a study; anything else is a crash, and so is a process that dies, memory beyond the
limit, an answer that takes minutes, and a file that a refusal leaves. The files are read in a
process of its own, which is started again after it died. Damage `index` of a reader is the same
whenever the seed is.

    python benchmarks/fuzz_readers.py              # 10,000 damaged files for each reader
    python benchmarks/fuzz_readers.py --reader png --inputs 500 --seed 1
    python benchmarks/fuzz_readers.py --reader png --index 137 --keep damaged/   # one, to look at
"""

import argparse
import importlib
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from damages import Reader, Sample, damage

from wobbliness.runtime.files import StudyStopped

# beyond what the libraries need; a picture of MAX_PICTURE_PIXELS takes 2 GiB as float32, and while
# it is decoded
MEMORY = 3 * 2**30
SECONDS = 120  # that one file may take
REPAIRED = 0.6  # share of the damaged files whose checksums are made right again
NEXT, ACCEPTED, REFUSED, GROWTH, MILLISECONDS, IS_DONE = range(6)
"""What the reading process keeps of each reader in a file that outlives it."""


@dataclass(kw_only=True)
class Found:
    """What became of the damaged files of one reader.

    Attributes:
        crashes: what was raised, with the indices of the files.
        growth_mib: how much more memory the process ever took than after it had read the valid
            files.
    """

    reader: str
    inputs: int
    accepted: int
    refused: int
    crashes: dict[str, list[int]] = field(default_factory=dict)
    growth_mib: int
    seconds: float

    @property
    def num_crashes(self) -> int:
        """Files that made the reader crash."""
        return sum(map(len, self.crashes.values()))


def fuzz(inputs: Mapping[str, int], *, seed: int) -> list[Found]:
    """Has readers read damaged files, one reader after the other in one process.

    Args:
        inputs: how many damaged files each reader gets, by its name in READERS, or
            `package.module:attribute` of another Reader.
        seed: of the damages.

    Raises:
        RuntimeError: a reader cannot read valid files.
    """
    names = list(inputs)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "inputs.json").write_text(json.dumps(inputs))
        state = np.memmap(Path(folder) / "state", np.int64, "w+", shape=(len(names), IS_DONE + 1))
        crashes = Path(folder) / "crashes"
        crashes.touch()
        while not state[:, IS_DONE].all():
            current = int(np.argmin(state[:, IS_DONE]))
            before = int(state[current, NEXT])
            reading = subprocess.run(
                [sys.executable, __file__, "--child", folder, "--seed", str(seed)],
                capture_output=True,
                check=False,
            )
            if reading.returncode == 0:
                continue
            current = int(np.argmin(state[:, IS_DONE]))
            if reading.returncode > 0 or (state[current, NEXT] == before and before > 0):
                raise RuntimeError(reading.stderr.decode(errors="replace")[-3000:])
            _note(
                crashes,
                names[current],
                int(state[current, NEXT]) - 1,
                signal.Signals(-reading.returncode).name,
            )
        rows = [json.loads(line) for line in crashes.read_text().splitlines()]
        return [
            _found(name, inputs[name], state[number], rows) for number, name in enumerate(names)
        ]


def _found(name: str, inputs: int, state: Any, rows: list[dict[str, Any]]) -> Found:
    crashes: dict[str, list[int]] = {}
    for row in rows:
        if row["reader"] == name:
            crashes.setdefault(row["error"], []).append(row["index"])
    return Found(
        reader=name,
        inputs=inputs,
        accepted=int(state[ACCEPTED]),
        refused=int(state[REFUSED]),
        crashes=crashes,
        growth_mib=int(state[GROWTH]) // 1024,
        seconds=round(int(state[MILLISECONDS]) / 1000, 1),
    )


def _note(crashes: Path, name: str, index: int, error: str) -> None:
    with crashes.open("a") as file:
        print(json.dumps({"reader": name, "index": index, "error": error}), file=file)


def read_damaged(folder: Path, seed: int) -> None:
    """The reading process: goes on where the one before it died."""
    inputs = json.loads((folder / "inputs.json").read_text())
    state = np.memmap(folder / "state", np.int64, "r+", shape=(len(inputs), IS_DONE + 1))
    signal.signal(signal.SIGALRM, _too_long)
    warnings.simplefilter("ignore")
    for row, (name, num_inputs) in zip(state, inputs.items(), strict=True):
        if not row[IS_DONE]:
            shutil.rmtree(folder / "work", ignore_errors=True)
            _read_all(folder, row, name, num_inputs, seed)
            row[IS_DONE] = 1


def _read_all(folder: Path, row: Any, name: str, num_inputs: int, seed: int) -> None:
    reader, samples = _prepared(name, folder)
    with _limited_memory() as memory:
        for index in range(int(row[NEXT]), num_inputs):
            row[NEXT] = index + 1
            started = time.monotonic()
            column, error = _outcome(
                reader, damaged(reader, samples, name, index, seed), folder / "work"
            )
            if error:
                _note(folder / "crashes", name, index, error)
            else:
                row[column] += 1
            row[MILLISECONDS] += round(1000 * (time.monotonic() - started))
            row[GROWTH] = max(row[GROWTH], memory())


def _prepared(name: str, folder: Path) -> tuple[Reader, list[Sample]]:
    """A reader and its valid files, each of which it reads."""
    reader, samples = _reader(name), []
    for number in range(reader.num_samples):
        if torch := sys.modules.get("torch"):
            torch.manual_seed(number)
        made = folder / "work" / "input"
        made.mkdir(parents=True)
        reader.make(made, number)
        samples.append(
            {
                str(path.relative_to(made)): path.read_bytes()
                for path in made.rglob("*")
                if path.is_file()
            }
        )
        reader.read(made)
        shutil.rmtree(folder / "work")
    return reader, samples


def _reader(name: str) -> Reader:
    module, colon, attribute = name.partition(":")
    if colon:
        found: Reader = getattr(importlib.import_module(module), attribute)
        return found
    from readers import READERS

    return READERS[name]


def damaged(reader: Reader, samples: list[Sample], name: str, index: int, seed: int) -> Sample:
    """The valid files with one of them, rarely more, damaged."""
    rng = random.Random(f"{seed} {name} {index}")
    sample, other = dict(rng.choice(samples)), rng.choice(samples)
    for file in rng.sample(sorted(sample), min(len(sample), rng.choice((1, 1, 1, 2)))):
        if len(sample) > 1 and rng.random() < 0.01:
            del sample[file]
        else:
            sample[file] = damage(rng, file, sample[file], other.get(file, b""))
    if reader.repaired is not None and rng.random() < REPAIRED:
        try:
            return reader.repaired(sample)
        except KeyError:  # a file is missing
            return sample
    return sample


def _outcome(reader: Reader, sample: Sample, work: Path) -> tuple[int, str]:
    """ACCEPTED or REFUSED, and what was wrong about it."""
    for name, content in sample.items():
        path = work / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (work / "input").mkdir(parents=True, exist_ok=True)
    try:
        signal.alarm(SECONDS)
        reader.read(work / "input")
        column, error = ACCEPTED, ""
    except (ValueError, StudyStopped) as refusal:
        column, error = (
            REFUSED,
            "MemoryError, reported as a ValueError" if _is_of_memory(refusal) else "",
        )
    except BaseException as crash:
        column, error = REFUSED, f"{type(crash).__name__}: {' '.join(str(crash).split())[:150]}"
    finally:
        signal.alarm(0)
    left = {path for path in work.rglob("*") if path.is_file()} - {
        work / "input" / name for name in sample
    }
    shutil.rmtree(work)
    return column, error or (f"left {min(left).name}" if left else "")


def _is_of_memory(error: BaseException | None) -> bool:
    seen: list[BaseException] = []
    # what was raised from its own context leads in circles
    while error is not None and error not in seen:
        if isinstance(error, MemoryError):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


@contextmanager
def _limited_memory() -> Iterator[Any]:
    """Limits the address space to MEMORY more than now.

    Gives a function that tells by how many KiB the peak has grown since.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    start = _peak_kib()
    try:
        yield lambda: _peak_kib() - start
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _peak_kib() -> int:
    """Most memory the process ever held; getrusage would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def _table(found: list[Found]) -> Iterator[str]:
    yield "| reader | inputs | accepted | refused | crashes | memory, MiB | seconds |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row in found:
        counts = f"{row.inputs:,} | {row.accepted:,} | {row.refused:,} | {row.num_crashes:,}"
        yield f"| {row.reader} | {counts} | {row.growth_mib:,} | {row.seconds:.0f} |"


def _keep(name: str, index: int, seed: int, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as made:
        reader, samples = _prepared(name, Path(made))
    for file, content in damaged(reader, samples, name, index, seed).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    reader.read(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10_000, help="damaged files for each reader")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    parser.add_argument(
        "--reader", action="append", help="name of a reader; may be repeated; all by default"
    )
    parser.add_argument(
        "--index", type=int, help="of one damaged file, to be kept and read with its traceback"
    )
    parser.add_argument("--keep", type=Path, help="folder for it")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        read_damaged(arguments.child, arguments.seed)
        return
    if arguments.keep is not None:
        _keep(arguments.reader[0], arguments.index, arguments.seed, arguments.keep)
        return
    names, found = arguments.reader, []
    if not names:
        from readers import READERS

        names = list(READERS)
    for name in names:
        found += fuzz({name: arguments.inputs}, seed=arguments.seed)
        print(json.dumps(asdict(found[-1])), flush=True)
    print("\n".join(_table(found)))
    sys.exit(any(row.num_crashes for row in found))


if __name__ == "__main__":
    main()
