"""Attacks: hostile and awkward inputs, made when they are run, each with what must happen.

    python benchmarks/attacks.py [WORD ...]

Prints a table of all attacks, or of those whose name holds one of the words; the exit code is 1 if
any of them succeeds. Each runs a command, or calls the library, in a folder of its own. Whatever
the command, its output may hold no terminal escapes, a refusal is one line, nothing is looked up on
a network, and no code of the folder's author is run.
"""

import contextlib
import io
import json
import os
import pickle
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import torch
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import save_file

import wobbliness
from wobbliness.study.training.data import load_data

LARGEST_GROWTH = 2**30  # bytes of memory that one attack may take
LONGEST_SECONDS = 60.0
QUICK = ("--sigma", "0.2", "--draws", "5")
JUNK = ("\x1b", "Traceback", "site-packages", "ONNXRuntimeError", " at 0x", "::ReshapeHelper", "%|")


class Failed(AssertionError):
    """An attack succeeded."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Something that a stranger, or an unlucky user, does.

    Attributes:
        name: what is done.
        expected: what must happen.
        run: does it in a folder; raises `Failed` otherwise.
    """

    name: str
    expected: str
    run: Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


ATTACKS: list[Attack] = []


def attack(name: str, expected: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Puts a function into the list."""

    def listed(run: Callable[[Path], None]) -> Callable[[Path], None]:
        ATTACKS.append(Attack(name=name, expected=expected, run=run))
        return run

    return listed


def expect(holds: object, said: object) -> None:
    if not holds:
        raise Failed(str(said))


def command(*arguments: object) -> Ran:
    """Runs a command in this process; both streams are caught where the system writes them."""
    from wobbliness.cli import main as cli

    before, saved = sys.argv, (os.dup(1), os.dup(2))
    sys.argv = ["wobbliness", *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        _flush()
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (
            open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            for number in (1, 2)
        )
        try:
            cli.main()
            code: object = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        finally:
            _flush()
            sys.stdout, sys.stderr = streams
            for number in (1, 2):
                os.dup2(saved[number - 1], number)
                os.close(saved[number - 1])
            sys.argv = before
        texts = [
            (file.seek(0), file.read().decode("utf-8", "backslashreplace"))[1]
            for file in (out, err)
        ]
    ran = Ran(code=int(str(code)), out=texts[0], err=texts[1])
    expect(
        not [junk for junk in JUNK if junk in ran.out + ran.err],
        f"the output holds what it may not: {ran.out + ran.err!r}",
    )
    return ran


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def refused(ran: Ran, *words: str, codes: Sequence[int] = (2,)) -> Ran:
    """One line on stderr that says these words, and nothing else."""
    expect(
        ran.code in codes and (ran.out, ran.err.count("\n")) == ("", 1),
        f"code {ran.code}: {ran.err or ran.out}",
    )
    missing = [word for word in words if word.lower() not in ran.err.lower()]
    expect(not missing, f"no {missing} in: {ran.err}")
    return ran


def refuses(call: Callable[[], object], *words: str) -> None:
    """A ValueError of one line that says these words."""
    try:
        call()
    except ValueError as error:
        expect("\n" not in str(error) and all(word in str(error) for word in words), error)
    else:
        raise Failed(f"no refusal that says {words}")


def done(ran: Ran) -> Ran:
    expect(ran.code == 0, ran.err)
    return ran


def measured(ran: Ran) -> dict[str, Any]:
    """What `measure --json` found at its only sigma."""
    return json.loads(done(ran).out)["measurements"][0]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Counts look-ups of names and connections to other machines as attacks that succeeded."""
    asked: list[str] = []
    find, connect = socket.getaddrinfo, socket.socket.connect

    def no_names(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(str(host))
        raise OSError("no network here")

    def no_connections(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            return connect(self, address)
        return no_names(address)

    socket.getaddrinfo = no_names
    socket.socket.connect = no_connections  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.getaddrinfo, socket.socket.connect = find, connect  # type: ignore[method-assign]
    expect(not asked, f"asked for {asked}")


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, outputs, **attributes)


def value(name: str, shape: Sequence[Any] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, values: Any) -> Any:
    array = np.asarray(values)
    return onnx.numpy_helper.from_array(
        array if array.dtype.kind == "i" else array.astype(np.float32), name
    )


def graph(
    path: Path,
    nodes: Sequence[Any],
    tensors: Sequence[Any] = (),
    *,
    shape: Sequence[Any] = (None, 1, 8, 8),
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[Any] = (),
    claims: Sequence[Any] = (),
    domains: Sequence[str] = (),
) -> Path:
    """An ONNX file; its input is x and its output y unless said otherwise."""
    made = helper.make_graph(
        list(nodes),
        "attack",
        [value("x", shape, kind)],
        list(outputs) or [value("y", None)],
        list(tensors),
        value_info=list(claims),
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    path.write_bytes(
        helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


def linear(path: Path, *, num_classes: int = 3, name: str = "m.onnx") -> Path:
    """An honest model of 8 x 8 pixels."""
    weights = np.random.default_rng(0).normal(size=(64, num_classes))
    return graph(
        path / name,
        [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])],
        [constant("w", weights)],
    )


def pictures(
    path: Path, num: int = 4, shape: Sequence[int] = (1, 8, 8), name: str = "x.npy"
) -> Path:
    np.save(path / name, np.random.default_rng(1).random((num, *shape)).astype(np.float32))
    return path / name


def measure(path: Path, model: object, *options: object) -> Ran:
    return command(
        "measure",
        model,
        path / "x.npy" if (path / "x.npy").exists() else pictures(path),
        *QUICK,
        *options,
    )


class Proof:
    """A pickle of it leaves a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


# --- breaches


@attack(
    "files onnx.py, PIL.py, numpy.py ... beside a model",
    "none is imported; nothing is left in the home folder",
)
def working_folder(path: Path) -> None:
    import importlib.metadata

    linear(path), pictures(path)
    (path / "home").mkdir()
    names = {
        *importlib.metadata.packages_distributions(),
        *sys.stdlib_module_names,
        "torchvision",
        "tensorflow",
        "cupy",
    }
    for name in names - {"wobbliness"}:
        if name.isidentifier():
            (path / f"{name}.py").write_text(
                f"open({str(path / 'imported')!r}, 'a').write('{name} ')"
            )
    start = path / "home" / ".." / "elsewhere"
    start.mkdir()
    (start / "start.py").write_text("from wobbliness.cli.main import main\nmain()\n")
    hidden = ("ORT_DISABLE_TELEMETRY", "PYTHONSAFEPATH")
    variables = {key: text for key, text in os.environ.items() if key not in hidden} | {
        "HOME": str(path / "home"),
        "XDG_CACHE_HOME": str(path / "home" / ".cache"),
    }
    arguments = ["measure", "m.onnx", "x.npy", *QUICK]
    ran = subprocess.run(
        [sys.executable, start / "start.py", *arguments],
        cwd=path,
        env=variables,
        capture_output=True,
        text=True,
    )
    expect(ran.returncode == 0, ran.stderr)
    expect(
        not (path / "imported").exists(),
        f"imported {(path / 'imported').read_text() if (path / 'imported').exists() else ''}",
    )
    expect(not list((path / "home").iterdir()), f"left {list((path / 'home').rglob('*'))}")


@attack("a pickle under every name of a model", "refused, nothing of it is run")
def pickles(path: Path) -> None:
    for name in ("m.pkl", "m.pt", "m.onnx", "m.pt2", "m.safetensors", "m"):
        (path / name).write_bytes(pickle.dumps(Proof(path / "run")))
        refused(measure(path, path / name), "expected")
    expect(not (path / "run").exists(), "code was run")


@attack("pickled images", "refused, nothing of it is run")
def pickled_images(path: Path) -> None:
    np.save(path / "p.npy", np.array([Proof(path / "run")], dtype=object), allow_pickle=True)
    refused(command("measure", linear(path), path / "p.npy", *QUICK), "expected")
    expect(not (path / "run").exists(), "code was run")


@attack("a Hugging Face folder whose config names a backbone", "refused, the hub is not asked")
def backbone(path: Path) -> None:
    (path / "m").mkdir()
    config = {
        "model_type": "upernet",
        "backbone": "microsoft/resnet-50",
        "use_pretrained_backbone": True,
    }
    (path / "m" / "config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(4)}, path / "m" / "model.safetensors")
    refused(measure(path, path / "m"), "expected an image classifier")


@attack("a Hugging Face folder with code of its own", "refused, nothing of it is run")
def remote_code(path: Path) -> None:
    (path / "m").mkdir()
    (path / "m" / "evil.py").write_text(f"open({str(path / 'run')!r}, 'w')")
    config = {
        "model_type": "vit",
        "auto_map": {"AutoModelForImageClassification": "evil.Model", "AutoConfig": "evil.Config"},
    }
    (path / "m" / "config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(4)}, path / "m" / "model.safetensors")
    refused(measure(path, path / "m"), "expected")
    expect(not (path / "run").exists(), "code was run")


@attack("a data set whose README names files on the web", "refused, the web is not asked")
def data_files(path: Path) -> None:
    (path / "set").mkdir()
    readme = (
        "---\nconfigs:\n- config_name: default\n  data_files: http://127.0.0.1:9/x.parquet\n---\n"
    )
    (path / "set" / "README.md").write_text(readme)
    refused(command("measure", linear(path), f"hf:{path / 'set'}", *QUICK), "expected")


def study_folder(path: Path) -> Path:
    """A study of two small cells."""
    out = path / "study"
    done(command("study", "run", "digits", "--out", out, "--only", "C2", "--workers", "1"))
    return out


@attack(
    "a study folder whose tables are a link to another folder",
    "refused, nothing is written or deleted there",
)
def linked_tables(path: Path) -> None:
    out, victim = path / "study", path / "victim"
    victim.mkdir()
    (victim / ".secret").write_text("kept")
    for name in ("tables", "figures", "records", "damaged"):
        folder = path / name
        folder.mkdir()
        os.symlink(victim, folder / name)
        (folder / "study.json").write_text("{}")
        refused(command("study", "report", folder))
    expect([file.name for file in victim.iterdir()] == [".secret"], "written or deleted outside")
    expect(not out.exists(), out)


@attack("a study's recipe called ../../x", "refused, nothing is written outside")
def escaping_recipe(path: Path) -> None:
    (path / "mine.py").write_text(
        "import dataclasses\nfrom wobbliness.study.recipes import digits\n\n\n"
        "def recipe(seed):\n    return dataclasses.replace(digits(seed), name='../../x')\n"
    )
    refused(
        command(
            "study", "run", f"{path / 'mine.py'}:recipe", "--out", path / "a" / "b", "--only", "C2"
        ),
        "expected",
    )
    expect(not list(path.rglob("x*")), "written outside")


@attack(
    "escapes in the name of an operator, of files and of a member", "printed as visible characters"
)
def escapes(path: Path) -> None:
    evil = "ev\x1b[2J\x07il"
    refused(
        measure(
            path, graph(path / "m.onnx", [node("Run", ["x"], ["y"], domain=evil)], domains=[evil])
        ),
        "custom operator",
    )
    refused(measure(path, path / f"{evil}.onnx"), "expected")
    np.savez(path / "two.npz", **{evil: np.zeros((1, 1, 8, 8)), "b": np.zeros((1, 1, 8, 8))})
    refused(command("measure", linear(path), path / "two.npz", *QUICK))
    refused(measure(path, linear(path), "--trigger", evil), "expected a trigger")


@attack("pictures called =cmd(), with --out FILE.csv", "quoted as text in the table")
def formulas(path: Path) -> None:
    (path / "in").mkdir()
    for name in ("=cmd()", "+1", "@x", "-2"):
        Image.new("L", (8, 8)).save(path / "in" / f"{name}.png")
    done(command("measure", linear(path), path / "in", *QUICK, "--out", path / "v.csv"))
    cells = pd.read_csv(path / "v.csv")["name"].astype(str)
    expect(not cells.str.startswith(("=", "+", "-", "@")).any(), list(cells))


# --- wrong answers


@attack(
    "three threads that each measure a module of their own",
    "the streams are as before, the votes those of one thread",
)
def threads(path: Path) -> None:
    torch.manual_seed(0)
    modules, images = (
        [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval() for _ in range(3)],
        np.load(pictures(path)),
    )
    found: dict[int, Any] = {}

    def work(index: int) -> None:
        found[index] = wobbliness.measure(modules[index], images, 0.2, draws=10, workers=1).counts

    before = sys.stdout, sys.stderr
    workers = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    expect((sys.stdout, sys.stderr) == before, "the streams are redirected for good")
    alone = [
        wobbliness.measure(module, images, 0.2, draws=10, workers=1).counts for module in modules
    ]
    expect(
        len(found) == 3 and all(np.array_equal(found[index], alone[index]) for index in range(3)),
        "other votes",
    )


@attack(
    "a module that keeps features on itself, run eagerly by two workers", "the votes of one worker"
)
def shared_state(path: Path) -> None:
    class Keeping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Linear(64, 32), torch.nn.Linear(32, 3)
            self.first.register_forward_hook(
                lambda module, _, answer: setattr(module, "kept", answer)
            )

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.first(images.flatten(1))
            time.sleep(0.001)  # another thread may come between
            return self.last(torch.from_numpy(np.tanh(self.first.kept.detach().numpy())))

    torch.manual_seed(0)
    module, images = Keeping().eval(), np.load(pictures(path, 8))
    found = [
        wobbliness.measure(module, images, 0.2, draws=20, workers=workers).counts
        for workers in (1, 2)
    ]
    expect(np.array_equal(*found), "other votes with two workers")


@attack(
    "a module whose flag is changed after it was measured",
    "the new answer, not that of a kept graph",
)
def changed_module(path: Path) -> None:
    class Switched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.active = torch.nn.Linear(64, 3), False

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores = self.body(images.flatten(1))
            return -scores if self.active else scores

    torch.manual_seed(0)
    module, images = Switched().eval(), np.load(pictures(path, 8))
    before = wobbliness.measure(module, images, 1e-7, draws=2).label
    module.active = True
    after = wobbliness.measure(module, images, 1e-7, draws=2).label
    with torch.no_grad():
        wanted = module(torch.from_numpy(images)).argmax(dim=1).numpy()
    expect(
        np.array_equal(after, wanted) and not np.array_equal(before, after),
        "the old graph answered",
    )


@attack("a module that depends on the rest of its block", "refused, or run one image at a time")
def block_dependent(path: Path) -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(4, track_running_stats=False)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), norm, torch.nn.Flatten(), torch.nn.Linear(144, 3)
    ).eval()
    images = np.load(pictures(path, 8))
    try:
        found = [
            wobbliness.measure(module, images, 0.2, draws=20, block_size=size).counts
            for size in (None, 4)
        ]
    except ValueError:
        return
    expect(np.array_equal(*found), "votes depend on the block")


@attack("a module whose get_extra_state gives a dict", "measured")
def extra_state(path: Path) -> None:
    class Extra(torch.nn.Linear):
        def get_extra_state(self) -> Any:
            return {"version": 1}

        def set_extra_state(self, _: Any) -> None:
            return None

    module = torch.nn.Sequential(torch.nn.Flatten(), Extra(64, 3)).eval()
    wobbliness.measure(module, np.load(pictures(path)), 0.2, draws=5)


@attack("a graph that gives features before its logits", "the logits are read")
def features_first(path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 10))
    nodes = [node("Flatten", ["x"], ["features"]), node("MatMul", ["features", "w"], ["logits"])]
    outputs = [value("features", [None, 64]), value("logits", [None, 10])]
    found = measured(
        measure(
            path, graph(path / "m.onnx", nodes, [constant("w", weights)], outputs=outputs), "--json"
        )
    )
    expect(len(found["counts"][0]) == 10, f"{len(found['counts'][0])} classes")


@attack("a graph of two outputs that could both be meant", "refused, and both are named")
def two_outputs(path: Path) -> None:
    nodes = [node("Flatten", ["x"], ["first"]), node("Flatten", ["x"], ["second"])]
    outputs = [value("first", [None, 64]), value("second", [None, 64])]
    refused(measure(path, graph(path / "m.onnx", nodes, outputs=outputs)), "first", "second")


@attack(
    "a graph with Dropout in training mode, and RandomNormalLike",
    "refused, and the operator is named",
)
def random_graphs(path: Path) -> None:
    flag = onnx.numpy_helper.from_array(np.array(True), "yes")
    dropout = [node("Flatten", ["x"], ["f"]), node("Dropout", ["f", "half", "yes"], ["y"])]
    refused(
        measure(path, graph(path / "d.onnx", dropout, [constant("half", 0.5), flag])), "Dropout"
    )
    noise = [
        node("Flatten", ["x"], ["f"]),
        node("RandomNormalLike", ["f"], ["n"]),
        node("Add", ["f", "n"], ["y"]),
    ]
    refused(measure(path, graph(path / "n.onnx", noise)), "RandomNormalLike")


@attack("scikit-learn's SVC with probabilities", "the class is predict's")
def svc(path: Path) -> None:
    from sklearn.svm import SVC

    data = load_data("digits")
    flat = data.train.images[:60].reshape(60, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn will drop the argument
        estimator = SVC(probability=True, random_state=0).fit(flat, data.train.labels[:60])
    images = data.test.images[:40]
    labels = wobbliness.measure(estimator, images, 1e-6, draws=2).label
    wrong = int((estimator.classes_[labels] != estimator.predict(images.reshape(40, -1))).sum())
    expect(wrong == 0, f"{wrong} of 40 differ from predict in {path.name}")


@attack(
    "one picture (1, 8, 8) in an .npy", "one picture, not eight and not a refusal without advice"
)
def one_picture(path: Path) -> None:
    np.save(path / "x.npy", np.random.default_rng(0).random((1, 8, 8)).astype(np.float32))
    ran = measure(path, linear(path), "--json")
    expect(ran.code == 2 or len(measured(ran)["label"]) == 1, ran.out)


@attack("a 16-bit grey PNG as a trigger", "its grey levels")
def grey_trigger(path: Path) -> None:
    Image.fromarray(np.full((3, 3), 2**14, np.uint16)).save(path / "t.png")
    expect(
        np.allclose(wobbliness.trigger_from_png(path / "t.png").pattern, 0.25, atol=0.01),
        "not a quarter",
    )


@attack(
    "a zip from a Mac: __MACOSX beside the class folders",
    "no class, and the labels are not shifted",
)
def stray_folders(path: Path) -> None:
    for folder in ("__MACOSX", "@eaDir", ".ipynb_checkpoints", "cats", "dogs", "empty"):
        (path / "in" / folder).mkdir(parents=True)
        if folder != "empty":
            Image.new("L", (8, 8)).save(path / "in" / folder / "a.png")
    found = wobbliness.read_images(str(path / "in"))
    expect(list(found.labels) == [0, 1], f"labels {found.labels}")


# --- sizes, crashes, late refusals


@attack("an Expand to 10^9 values that the file declares as [1]", "refused")
def false_claim(path: Path) -> None:
    nodes = [
        node("Expand", ["one", "size"], ["big"]),
        node("ReduceSum", ["big"], ["s"]),
        node("Flatten", ["x"], ["f"]),
    ]
    nodes.append(node("Add", ["f", "s"], ["y"]))
    tensors = [constant("one", [1.0]), constant("size", np.array([10**9]))]
    refused(
        measure(path, graph(path / "m.onnx", nodes, tensors, claims=[value("big", [1])])),
        "expected",
    )


@attack("windows, ranges and spectra of sizes that the graph computes", "refused")
def computed_sizes(path: Path) -> None:
    first = [node("Flatten", ["x"], ["f"])]
    window = [
        node("HannWindow", ["n"], ["w"]),
        node("ReduceMax", ["w"], ["m"]),
        node("Add", ["f", "m"], ["y"]),
    ]
    refused(
        measure(path, graph(path / "h.onnx", first + window, [constant("n", np.array(2**33))])),
        "expected",
    )
    far = [constant(name, np.array(number)) for name, number in (("a", 0), ("b", 2**34), ("c", 1))]
    ranged = [
        node("Range", ["a", "b", "c"], ["r"], domain="com.microsoft"),
        node("ReduceMax", ["r"], ["m"]),
    ]
    ranged += [node("Cast", ["m"], ["k"], to=1), node("Add", ["f", "k"], ["y"])]
    refused(
        measure(path, graph(path / "r.onnx", first + ranged, far, domains=["com.microsoft"])),
        "expected",
    )


@attack("a trigger, images and a guard that are pipes or devices", "refused at once")
def pipes(path: Path) -> None:
    os.mkfifo(path / "t.png")
    refused(measure(path, linear(path), "--trigger", path / "t.png"), "expected")
    os.symlink("/dev/zero", path / "x.png")
    refused(command("measure", linear(path), path / "x.png", *QUICK), "expected")
    (path / "guard").mkdir()
    os.symlink("/dev/zero", path / "guard" / "guard.json")
    refused(command("guard", "judge", path / "guard", linear(path), path / "x.npy"), "expected")


@attack("safetensors and .npy headers that lie about their length", "refused")
def lying_headers(path: Path) -> None:
    (path / "m.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    refused(measure(path, path / "m.safetensors"), "expected")
    (path / "x.npy").write_bytes(
        np.lib.format.magic(1, 0)
        + (118).to_bytes(2, "little")
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1, 8, 8)}".ljust(117)
        + b"\n"
    )
    refused(measure(path, linear(path)), "expected")


@attack("a picture whose name is not UTF-8, with --out", "a table")
def odd_name(path: Path) -> None:
    (path / "in").mkdir()
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    with open(os.fsencode(path / "in") + b"/\xe9.png", "wb") as file:
        file.write(content.getvalue())
    done(command("measure", linear(path), path / "in", *QUICK, "--out", path / "v.csv"))
    expect(len(pd.read_csv(path / "v.csv")) == 1, "no table")


@attack("--out where nothing can be written", "refused before the work")
def unwritable(path: Path) -> None:
    refused(measure(path, linear(path), "--out", "/proc/x.csv"), "/proc/x.csv", codes=(1, 2))
    refused(measure(path, linear(path), "--out", path / ("x" * 300 + ".csv")), codes=(1, 2))
    refused(
        command("guard", "fit", linear(path), path / "x.npy", "--out", "/proc/guard", *QUICK),
        "/proc/guard",
        codes=(1, 2),
    )


# --- one line, and words that lead on


@attack("graphs that fail while they run", "one line, without the runtime's log")
def failing_graphs(path: Path) -> None:
    bad = [
        node("Shape", ["x"], ["s"]),
        node("Mul", ["s", "n"], ["t"]),
        node("Reshape", ["x", "t"], ["r"]),
    ]
    refused(
        measure(
            path,
            graph(
                path / "m.onnx",
                [*bad, node("Flatten", ["r"], ["y"])],
                [constant("n", np.array([7]))],
            ),
        )
    )
    gather = [node("Flatten", ["x"], ["f"]), node("Gather", ["f", "n"], ["y"], axis=1)]
    refused(
        measure(path, graph(path / "g.onnx", gather, [constant("n", np.array([999]))])), "expected"
    )


@attack("operators, versions and domains that do not exist", "one line")
def unknown_operators(path: Path) -> None:
    refused(measure(path, graph(path / "m.onnx", [node("Frobnicate", ["x"], ["y"])])), "Frobnicate")
    refused(
        measure(path, graph(path / "m.onnx", [node("MatMul", ["x", "nowhere"], ["y"])])), "expected"
    )


@attack("an exported program with an operator of no library", "one line that names it")
def unknown_program(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        torch.export.save(torch.export.export(module, (torch.rand(2, 1, 8, 8),)), path / "good.pt2")
    with (
        zipfile.ZipFile(path / "good.pt2") as source,
        zipfile.ZipFile(path / "bad.pt2", "w") as copy,
    ):
        for name in source.namelist():
            copy.writestr(
                name,
                source.read(name).replace(
                    b"torch.ops.aten.linear.default", b"torch.ops.aten.frobnicate.default"
                ),
            )
    refused(measure(path, path / "bad.pt2"), "expected")


@attack(
    "empty files, HTML and pointers of git-lfs under every name",
    "one line; of a pointer, how to get the file",
)
def no_models(path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
    for name in ("m.onnx", "m.pt2", "m.safetensors"):
        for content in (b"", b"<html>404</html>"):
            (path / name).write_bytes(content)
            refused(measure(path, path / name), "expected")
    (path / "x.png").write_bytes(pointer)
    refused(command("measure", linear(path), path / "x.png", *QUICK), "lfs")


@attack("a user's function that raises several lines, nothing, or an address", "one line each")
def faulty_functions(path: Path) -> None:
    (path / "faulty_attack.py").write_text(
        "def lines(batch):\n    raise ValueError('one\\ntwo')\n\n\n"
        "def silent(batch):\n    raise ValueError\n\n\n"
        "def address(batch):\n    raise RuntimeError(f'{object()}')\n"
    )
    before = os.getcwd()
    os.chdir(path)
    try:
        for name, code in (("lines", 2), ("silent", 2), ("address", 1)):
            refused(measure(path, f"faulty_attack:{name}", "--num-classes", "2"), codes=[code])
    finally:
        os.chdir(before)
        sys.modules.pop("faulty_attack", None)


# --- usual forms


def rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.load(pictures(path, 20))
    weights = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    return images.reshape(20, -1), weights


def same_labels(model: Path, images: np.ndarray, expected: np.ndarray, **options: Any) -> None:
    """The labels of the images themselves: their noise is below what a float tells apart."""
    found = wobbliness.measure(
        wobbliness.open_classifier(model, **options), images.reshape(-1, 1, 8, 8), 1e-7, draws=2
    ).label
    expect(np.array_equal(found, expected), f"{int((found != expected).sum())} labels differ")


@attack("one score that ends in a sigmoid", "two classes")
def one_score(path: Path) -> None:
    flat, weights = rows(path)
    weights = weights[:, :1] - weights[:, :1].mean()
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("MatMul", ["f", "w"], ["s"]),
        node("Sigmoid", ["s"], ["y"]),
    ]
    made = graph(path / "m.onnx", nodes, [constant("w", weights)], outputs=[value("y", [None, 1])])
    same_labels(made, flat, (flat @ weights > 0).ravel().astype(int))


@attack("scores (B, K, 1, 1), and images (B, H, W)", "measured")
def odd_ranks(path: Path) -> None:
    flat, weights = rows(path)
    product = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["s"])]
    tensors = [constant("w", weights), constant("four", np.array([0, 3, 1, 1]))]
    made = graph(
        path / "a.onnx",
        [*product, node("Reshape", ["s", "four"], ["y"])],
        tensors,
        outputs=[value("y", [None, 3, 1, 1])],
    )
    same_labels(made, flat, (flat @ weights).argmax(axis=1))
    product[1] = node("MatMul", ["f", "w"], ["y"])
    made = graph(
        path / "b.onnx", product, tensors[:1], shape=(None, 8, 8), outputs=[value("y", [None, 3])]
    )
    same_labels(made, flat, (flat @ weights).argmax(axis=1))


@attack("a graph that wants [0, 255]", "--input-range 0,255 gives its labels")
def pixel_range(path: Path) -> None:
    flat, weights = rows(path)
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("MatMul", ["f", "w"], ["s"]),
        node("Add", ["s", "b"], ["y"]),
    ]
    bias = np.array([0, 300, -300], np.float32)
    made = graph(
        path / "m.onnx",
        nodes,
        [constant("w", weights), constant("b", bias)],
        outputs=[value("y", [None, 3])],
    )
    done(measure(path, made, "--input-range", "0,255"))
    same_labels(made, flat, (flat * 255 @ weights + bias).argmax(axis=1), input_range=(0, 255))


def check(one: Attack, folder: Path) -> None:
    """Runs an attack in an empty folder; raises `Failed` where it succeeds."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    streams = sys.stdout, sys.stderr
    try:
        with offline():
            one.run(folder)
    finally:
        sys.stdout, sys.stderr = streams
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    expect(grown < LARGEST_GROWTH, f"took {grown / 2**20:.0f} MiB")
    expect(time.perf_counter() - begun < LONGEST_SECONDS, "took too long")


def main(words: Sequence[str]) -> int:
    """Prints the table; the number of attacks that succeeded."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    chosen = [one for one in ATTACKS if not words or any(word in one.name for word in words)]
    num_failed = 0
    for one in chosen:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(one, Path(folder))
                answer = "held"
            except Exception as error:  # an attack that ends in another error succeeded, too
                num_failed += 1
                answer = f"FAILED: {type(error).__name__}: {error}"
        print(
            f"{answer if answer == 'held' else 'FAILED':<7} {time.perf_counter() - begun:6.1f} s  "
            f"{one.name}: {one.expected}"
        )
        if answer != "held":
            print(f"        {answer[8:]}")
    print(f"{len(chosen) - num_failed} of {len(chosen)} attacks held")
    return num_failed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
