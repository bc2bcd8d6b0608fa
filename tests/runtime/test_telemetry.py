"""Telemetry of libraries: no name is looked up, and no file is left in the user's folders."""

import os
import shutil
import subprocess
import sys

import certifi
import numpy as np
import pytest
from model_files import linear_model

from wobbliness.runtime.telemetry import SWITCHED_OFF, switch_off_telemetry

CI_VARIABLES = {
    "CI",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "CIRCLECI",
    "TRAVIS",
    "JENKINS_URL",
    "TF_BUILD",
}  # ONNX Runtime looks at them
RESOLVER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    int file = open(getenv("LOOKUPS"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dprintf(file, "%s\n", name ? name : "");
    close(file);
    return EAI_FAIL;
}
"""
WAIT = """
import os, sys, time
end = time.monotonic() + 40
while time.monotonic() < end and not os.path.exists({path!r}):
    time.sleep(0.1)
time.sleep({more})
"""
MEASURE = """
import sys
from wobbliness.cli.main import main
sys.argv = ["wobbliness", "measure", "model.onnx", "images.npy", "--sigma", "0.1", "--draws", "5"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
"""
UNPROTECTED = """
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
"""


def test_importing_the_package_switches_telemetry_off():
    code = f"import wobbliness, os\nprint([os.environ[name] for name in {list(SWITCHED_OFF)}])"
    clean = {name: value for name, value in os.environ.items() if name not in SWITCHED_OFF}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == str(list(SWITCHED_OFF.values()))


def test_what_the_user_has_set_wins(monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    switch_off_telemetry()
    assert (os.environ["ORT_DISABLE_TELEMETRY"], os.environ["RAY_USAGE_STATS_ENABLED"]) == (
        "0",
        "1",
    )


def test_the_libraries_obey():
    code = (
        "import wobbliness, huggingface_hub.constants, datasets.config\n"
        "assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY\n"
        "assert not datasets.config.HF_UPDATE_DOWNLOAD_COUNTS"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def watched(tmp_path, digits):
    """Starts a script with an empty home folder and a resolver that records its requests."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("needs gcc and Linux")
    (tmp_path / "resolver.c").write_text(RESOLVER)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", tmp_path / "resolver.so", tmp_path / "resolver.c"],
        check=True,
    )
    linear_model(tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(64, 4)))
    np.save(tmp_path / "images.npy", digits.test.images[:2])

    def start(name, script):
        home = tmp_path / name
        home.mkdir()
        variables = {
            key: value
            for key, value in os.environ.items()
            if key not in {*SWITCHED_OFF, *CI_VARIABLES}
        }
        variables |= {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "LD_PRELOAD": str(tmp_path / "resolver.so"),
        }
        variables |= {
            "LOOKUPS": str(tmp_path / f"{name}.lookups"),
            "SSL_CERT_FILE": certifi.where(),
        }
        return subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=variables)

    return tmp_path, start


def test_a_measurement_asks_for_no_name_and_leaves_nothing_behind(watched):
    folder, start = watched
    looked_up = folder / "unprotected.lookups"
    ours = start("ours", MEASURE + WAIT.format(path=str(looked_up), more=1))
    unprotected = start("unprotected", UNPROTECTED + WAIT.format(path=str(looked_up), more=0))
    assert (ours.wait(), unprotected.wait()) == (0, 0)
    left = sorted(path.name for path in (folder / "unprotected").rglob("*") if path.is_file())
    if not left and not looked_up.exists():
        pytest.skip("this ONNX Runtime reports nothing")
    assert left == ["deviceid", "onnxruntime.db"], "control"
    assert "events.data.microsoft.com" in looked_up.read_text(), "control"
    assert not (folder / "ours.lookups").exists()
    assert list((folder / "ours").rglob("*")) == []
