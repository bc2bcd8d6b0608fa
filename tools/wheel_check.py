"""The first steps of a new user, from the wheel to the last command of the tutorials.

The wheel is installed into an empty environment, then what the README and the tutorials print is
typed. The commands are read from those files. Run by `make wheel-check`; prints the time from `pip
install` to the first verdict.
"""

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import notebooks

ROOT = Path(__file__).parents[1]
SECTION = "## A model you did not make"
EXPECTED = {  # what a command of the README has to say, by its beginning
    "wobbliness test": "verdict: smoother (",
    "wobbliness scan": "report: scan/report.html",
    "wobbliness guard fit": "clean inputs for reference",
    "wobbliness guard judge": "inputs are suspicious (",
    "wobbliness measure": "mean W",
    "wobbliness detect": "top-score judges inputs",
}
EXPECTED_OF_TUTORIALS = {
    "measure_pytorch_model": ("poisoned network checkerboard",),
    "check_batch_onnx": ("verdict: smoother (", "verdict: no difference ("),
    "judge_inputs": ("of 60 inputs are suspicious (",),
}


def readme_commands() -> list[str]:
    """Returns the commands of the code block in the README's section.

    `pip install` is left out, for the wheel stands in for it.
    """
    block = (
        (ROOT / "README.md").read_text(encoding="utf-8").split(f"{SECTION}\n")[1].split("```")[1]
    )
    commands = [line for line in block.strip().splitlines() if not line.startswith("pip install")]
    if [command for command in commands if not command.startswith(tuple(EXPECTED))] or len(
        commands
    ) != len(EXPECTED):
        raise SystemExit(f"expected a command for each of {', '.join(EXPECTED)}, got {commands}")
    return commands


class EmptyEnvironment:
    """A new virtual environment, and commands run in it as a user's shell would."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        inherited = {name: value for name, value in os.environ.items() if name not in left_out}
        path = os.pathsep.join([str(self.bin), os.environ.get("PATH", "")])
        self.variables = inherited | {"PATH": path, "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}

    def pip_install(self, *what: str) -> None:
        """Installs as `constraints.txt` says."""
        pinned = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run(
            [self.bin / "python", "-m", "pip", "install", "--quiet", *pinned, *what],
            env=self.variables,
            check=True,
        )

    def shell(self, command: str, folder: Path, *expected: str) -> None:
        """Runs a command, which has to succeed and to say what is expected."""
        done = subprocess.run(
            command, shell=True, cwd=folder, env=self.variables, capture_output=True, text=True
        )
        print(f"$ {command}\n{done.stdout}", flush=True)
        missing = [text for text in expected if text not in done.stdout]
        if done.returncode or missing:
            raise SystemExit(f"exit code {done.returncode}, not said: {missing}\n{done.stderr}")


def main() -> None:
    """Builds, installs, runs, and says how long it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "wheel",
                "--quiet",
                "--no-deps",
                "--wheel-dir",
                folder,
                ROOT,
            ],
            check=True,
        )
        environment = EmptyEnvironment(folder / "environment")
        started = time.monotonic()
        environment.pip_install("torch==2.13.0")  # first, as in the Makefile
        environment.pip_install(*map(str, folder.glob("wobbliness-*.whl")))
        installing = time.monotonic() - started
        for tutorial, expected in EXPECTED_OF_TUTORIALS.items():
            (folder / tutorial).mkdir()
            (folder / tutorial / "tutorial.py").write_text(
                notebooks.as_script(notebooks.read(tutorial)), encoding="utf-8"
            )
            environment.shell("python tutorial.py", folder / tutorial, *expected)
        # where that tutorial has left a model and folders of pictures
        user = folder / "check_batch_onnx"
        seconds = [_timed(environment, command, user) for command in readme_commands()]
        if not all((user / table).is_file() for table in ("verdicts.csv", "votes.csv")):
            raise SystemExit("expected verdicts.csv and votes.csv")
        verdict, everything = installing + seconds[0], installing + sum(seconds)
        print(
            f"pip install {installing:.0f} s; to the first verdict {verdict:.0f} s; "
            f"to the last command {everything:.0f} s"
        )


def _timed(environment: EmptyEnvironment, command: str, folder: Path) -> float:
    started = time.monotonic()
    (expected,) = (text for beginning, text in EXPECTED.items() if command.startswith(beginning))
    environment.shell(command, folder, expected)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
