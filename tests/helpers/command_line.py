"""The command line, run inside the process of a test."""

import sys

import pytest

from wobbliness.cli import main as cli


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["wobbliness", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err
