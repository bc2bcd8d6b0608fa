"""Stages of work for a machine with a card that may be taken away at any moment.

Run: python tools/gpu_stages.py FOLDER [--device cuda] [--seconds 180] [--short] [--stage NAME ...]

Stages come in the order of their worth, and each is ended after so many seconds. What a stage has
found is written into FOLDER at once: a file of JSON for measurements, packed records for studies.
A second call does what is missing, also on another machine that was given FOLDER: of a study there
only networks are trained again. With --short each stage is a miniature on the digits; it takes two
minutes on a CPU and shows that all of them run.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WOBBLINESS = (sys.executable, "-m", "wobbliness")
# Workers write what they have before they end.
GRACE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of all stages."""

    folder: Path
    device: str
    seconds: float
    is_short: bool


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    Attributes:
        name: of its file in the folder.
        about: one line.
        run: does what is missing; returns whether nothing is missing any more.
    """

    name: str
    about: str
    run: Callable[[Options], bool]

    def is_done(self, folder: Path) -> bool:
        """Checks whether an earlier call has finished it."""
        return self._mark(folder).is_file()

    def finish(self, folder: Path) -> None:
        """Notes that it is finished."""
        self._mark(folder).write_text(json.dumps({"stage": self.name, "about": self.about}))

    def _mark(self, folder: Path) -> Path:
        return folder / f"{self.name}.done.json"


def ended_after(command: Sequence[str], seconds: float, out: Path | None = None) -> bool:
    """Runs a command, of whose output `out` gets all or nothing; returns whether it succeeded.

    After the seconds it is interrupted, and killed where that does not end it.
    """
    unfinished = None if out is None else out.with_suffix(".unfinished")
    stream = None if unfinished is None else unfinished.open("w")
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    try:
        # A group of its own: its workers are ended with it.
        process = subprocess.Popen(command, stdout=stream, env=environment, start_new_session=True)
        code = _code_within(process, seconds)
    finally:
        if stream is not None:
            stream.close()
    if code == 0 and unfinished is not None and out is not None:
        unfinished.replace(out)
    return code == 0


def _code_within(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    for sent, patience in ((None, seconds), (signal.SIGINT, GRACE_SECONDS), (signal.SIGKILL, None)):
        if sent is not None:
            os.killpg(process.pid, sent)
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return code if sent is None else None
    return None


def labels(options: Options) -> bool:
    """Compares labels of the device with the CPU's, on trained networks."""
    out = options.folder / "labels.json"
    command = [sys.executable, str(ROOT / "benchmarks/device_labels.py")]
    command += ["--device", options.device, *(["--short"] if options.is_short else [])]
    return ended_after(command, options.seconds, out)


def tests(options: Options) -> bool:
    """Runs the tests of the device's path; their results are kept, whatever they are."""
    files = ["tests/classifiers/test_torch_accelerator.py", "tests/perturbations/test_on_device.py"]
    chosen = ["-k", "closed_form"] if options.is_short else []
    results = f"--junitxml={options.folder / 'tests.xml'}"
    command = [sys.executable, "-m", "pytest", "-q", results, *chosen]
    return ended_after([*command, *(str(ROOT / file) for file in files)], options.seconds)


def speed(network: str, options: Options) -> bool:
    """Times measuring, and each family of perturbations."""
    size = ["--network", "small_cnn", "--scale", "0.01"] if options.is_short else []
    size = size or ["--network", network]
    command = [*WOBBLINESS, "bench", "--families", "--json", "--device", options.device, *size]
    command += ["--repeats", "1" if options.is_short else "3"]
    out = options.folder / f"speed-{network}.json"
    return ended_after(command, options.seconds, out)


def study(claims: str, options: Options) -> bool:
    """Runs what is missing of some claims, and packs all that is recorded."""
    recipe = "digits" if options.is_short else "cifar10"
    packed, out = options.folder / recipe, options.folder / "studies" / recipe
    if packed.is_dir() and not out.is_dir():
        ended_after([*WOBBLINESS, "study", "unpack", str(packed), str(out)], options.seconds)
    command = [*WOBBLINESS, "study", "run", recipe, "--out", str(out), "--only", claims]
    command += ["--device", options.device]
    command += ["--autocast"] if options.device != "cpu" else []
    is_done = ended_after(command, options.seconds)
    # Beside the old ones first: a machine that is taken away now leaves these.
    beside = options.folder / f"{recipe}.unfinished"
    shutil.rmtree(beside, ignore_errors=True)
    if ended_after([*WOBBLINESS, "study", "pack", str(out), str(beside)], options.seconds):
        shutil.rmtree(packed, ignore_errors=True)
        beside.replace(packed)
    return is_done


STAGES = (
    Stage("labels", "labels of the device beside the CPU's, on trained networks", labels),
    Stage("tests", "tests of the device's path", tests),
    Stage("speed-resnet18", "measuring with ResNet18", partial(speed, "resnet18")),
    Stage("C5-C7", "the study's claims C5 and C7", partial(study, "C5,C7")),
    Stage("C1-C2", "the study's claims C1 and C2", partial(study, "C1,C2")),
    Stage("C8-C9", "the study's claims C8 and C9", partial(study, "C8,C9")),
    Stage("F1-X1", "the study's figure F1, and X1 with what follows", partial(study, "F1,X1")),
    Stage("speed-large_cnn", "measuring with the large CNN", partial(speed, "large_cnn")),
)


def main(options: Options, names: Sequence[str]) -> int:
    """Runs the stages that are not done; returns 0 where all of them are."""
    options.folder.mkdir(parents=True, exist_ok=True)
    wanted = [stage for stage in STAGES if not names or stage.name in names]
    for stage in wanted:
        if stage.is_done(options.folder):
            print(f"{stage.name}: done before", flush=True)
            continue
        print(f"{stage.name}: {stage.about}", flush=True)
        if stage.run(options):
            stage.finish(options.folder)
        else:
            print(f"{stage.name}: not finished", flush=True)
    return 0 if all(stage.is_done(options.folder) for stage in wanted) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--stage", nargs="*", default=[], choices=[each.name for each in STAGES])
    given = parser.parse_args()
    sys.exit(
        main(
            Options(
                folder=given.folder,
                device=given.device,
                seconds=given.seconds,
                is_short=given.short,
            ),
            given.stage,
        )
    )
