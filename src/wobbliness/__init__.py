"""Wobbliness: how smooth a classifier's decision is around an input, and what that says about backdoors."""

import lazy_loader

from wobbliness.telemetry import switch_off_telemetry

switch_off_telemetry()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
