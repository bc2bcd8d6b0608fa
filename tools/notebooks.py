"""The tutorials, executed for the documentation site and the tests, or as scripts without Jupyter.

The site runs this as a hook of mkdocs. In the repository they are without outputs: whatever is
shown was just computed, and no picture is stored twice. The pages are plain Markdown and PNG files,
so that viewing them needs no script from anywhere.
"""

import base64
import os
import re
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
NAMES = ("measure_pytorch_model", "check_batch_onnx", "judge_inputs")
# if this variable is set, the pages lack outputs: enough to find broken links
AS_STORED = "TUTORIALS_AS_STORED"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# a notebook gives its commands a terminal, so slow ones show their progress
BARS = re.compile(r"^.*━.*\n", re.MULTILINE)


class OwnKernelManager(AsyncKernelManager):
    """Starts this interpreter, whatever kernels a user registered."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))


def read(name: str) -> Any:
    """A tutorial as it is stored, without outputs."""
    return nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)


def executed(notebook: Any, folder: Path) -> Any:
    """Returns the notebook with its outputs.

    It is run in `folder` by this interpreter and this environment's `wobbliness`.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook,
        kernel_manager_class=OwnKernelManager,
        # else each kernel warns of its port, which is local and takes signed messages only
        extra_arguments=["--log-level=40"],
        timeout=300,
        resources=resources,
    )
    return client.execute(env=_environment(folder))


def _environment(folder: Path) -> dict[str, str]:
    """This environment's commands first; no settings of the user's; no colours."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MPLBACKEND", "PYTHONWARNINGS")
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return inherited | {"PATH": path, "TERM": "dumb", "IPYTHONDIR": str(folder / ".ipython")}


def printed(cell: Any) -> str:
    """What a cell wrote on standard output, in one piece."""
    text = "".join(
        output.text
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    return BARS.sub("", ESCAPES.sub("", text).replace("\r\n", "\n"))


def as_markdown(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """An executed notebook as Markdown, and its figures by file name."""
    parts, figures = list[str](), dict[str, bytes]()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source.replace(".ipynb)", ".md)"))
            continue
        is_command = cell.source.startswith("!")
        parts.append(f"```{'sh' if is_command else 'python'}\n{cell.source.removeprefix('!')}\n```")
        if text := printed(cell):
            parts.append(f"```text\n{text.rstrip()}\n```")
        for picture in (
            output.data["image/png"]
            for output in cell.outputs
            if "image/png" in output.get("data", {})
        ):
            file = f"{name}-{len(figures)}.png"
            figures[file] = base64.b64decode(picture)
            parts.append(f"![figure drawn by the cell above]({file})")
    parts.append(f"[This page as a notebook]({name}.ipynb)")
    return "\n\n".join(parts) + "\n", figures


def as_script(notebook: Any) -> str:
    """A notebook's cells for plain Python: `!command` stops the script if the command fails."""
    lines = "\n\n".join(
        cell.source for cell in notebook.cells if cell.cell_type == "code"
    ).splitlines()
    run = [
        f"subprocess.run({line[1:]!r}, shell=True, check=True)" if line.startswith("!") else line
        for line in lines
    ]
    return "\n".join(["import subprocess", *run]) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Adds the tutorials' pages and figures to the site; mkdocs calls it."""
    from mkdocs.structure.files import File

    for name in NAMES:
        text, figures = _page(name, (TUTORIALS / f"{name}.ipynb").read_text(encoding="utf-8"))
        for file, content in {f"{name}.md": text, **figures}.items():
            files.append(File.generated(config, f"tutorials/{file}", content=content))
    return files


@cache
def _page(name: str, source: str) -> tuple[str, dict[str, bytes]]:
    """Returns a tutorial as Markdown, and its figures by file name.

    It is executed once for each state of the source, however often a site that is being written is
    built; or taken as stored.
    """
    if os.environ.get(AS_STORED):
        return as_markdown(nbformat.reads(source, as_version=4), name)
    with tempfile.TemporaryDirectory() as folder:
        return as_markdown(executed(nbformat.reads(source, as_version=4), Path(folder)), name)
