"""Every attack of the list is held off; what counts as held off is told from what does not."""

import attacks
import pytest


@pytest.mark.parametrize("one", attacks.ATTACKS, ids=lambda one: one.name)
def test_attack(one, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    attacks.check(one, tmp_path)


def test_what_succeeds_is_found(tmp_path):
    """Control of the test above."""
    import socket

    def measured(path):
        attacks.refused(attacks.measure(path, attacks.linear(path)))

    def looks_up(_path):
        try:
            socket.create_connection(("example.com", 80))
        except OSError:
            return

    for run in (measured, looks_up):
        with pytest.raises(attacks.Failed):
            attacks.check(attacks.Attack(name="control", expected="", run=run), tmp_path)
