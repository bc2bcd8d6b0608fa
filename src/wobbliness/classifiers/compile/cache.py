"""A cache on disk of exported graphs: exporting costs seconds in each new process."""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import platformdirs

FOLDER = "WOBBLINESS_CACHE"
"""The environment variable that overrides the user's cache folder.

The folder may be deleted at any time.
"""

# Of SHA-256, in front of the content.
SEAL_BYTES = 32
# Without its weights the small CNN's graph has 13,000 bytes.
MAX_GRAPH_BYTES = 16 * 2**20


def load_graph(key: str) -> bytes | None:
    """Returns the content stored under a key; None where there is none or it is damaged."""
    path = _path(key)
    try:
        if path.stat().st_size > MAX_GRAPH_BYTES:
            return None
        sealed = path.read_bytes()
    except OSError:
        return None
    content = sealed[SEAL_BYTES:]
    return content if sealed[:SEAL_BYTES] == _seal(key, content) else None


def store_graph(key: str, content: bytes) -> None:
    """Stores a graph atomically; does nothing where the folder cannot be written to."""
    path = _path(key)
    # Written next to it and renamed: other processes see the whole file or none.
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(_seal(key, content) + content)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _path(key: str) -> Path:
    folder = os.environ.get(FOLDER) or platformdirs.user_cache_path("wobbliness")
    return Path(folder) / "graphs" / sha256(key.encode()).hexdigest()


def _seal(key: str, content: bytes) -> bytes:
    # With the key: a file that was renamed to that of another module is not taken for it.
    return sha256(key.encode() + b"\0" + content).digest()
