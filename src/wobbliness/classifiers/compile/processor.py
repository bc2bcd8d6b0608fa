"""Abilities of the processor: dot products of 8-bit integers, which int8 networks live by."""

import functools
import platform
import re
from pathlib import Path

# Flags of /proc/cpuinfo: Intel's and AMD's VNNI in 512 and 256 bits, Arm's UDOT and SDOT.
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})
CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def has_int8_dot_products() -> bool:
    """Checks whether the processor adds products of 8-bit integers in one instruction.

    Without it a network of 8-bit integers is not faster than one of float32. Where the system does
    not tell, there are none.
    """
    if CPU_INFO.exists():
        return bool(_flags(CPU_INFO.read_text(errors="replace")) & INT8_FLAGS)
    # Every processor that Apple builds for its computers has Arm's.
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def _flags(cpu_info: str) -> frozenset[str]:
    """Returns the flags of the first core that are listed, `flags` on x86 and `Features` on Arm."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpu_info, re.MULTILINE)
    return frozenset(found.group(1).split() if found else ())
