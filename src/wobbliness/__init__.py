"""Wobbliness: how smooth a classifier's decision is around an input, and what backdoors do."""

import sys

if sys.argv[:1] and sys.argv[0].endswith(("/wobbliness", "\\wobbliness", "\\wobbliness.exe")):
    from wobbliness.runtime.exit import end_on_interrupt

    # this process is the command: Ctrl-C is answered while the rest is still being loaded
    end_on_interrupt()

import lazy_loader

from wobbliness.runtime.telemetry import switch_off_telemetry

switch_off_telemetry()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
