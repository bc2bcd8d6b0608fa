"""Folders of guards, changed as an attacker would change them."""

import json

from safetensors.numpy import load_file, save_file

from wobbliness.detectors.guards.files.guard_files import ARRAYS_FILE, SETTINGS_FILE, _digest


def change_settings(folder, **changes):
    """Changes settings; `...` takes one away."""
    content = json.loads((folder / SETTINGS_FILE).read_text()) | changes
    (folder / SETTINGS_FILE).write_text(
        json.dumps({key: value for key, value in content.items() if value is not ...})
    )


def change_arrays(folder, **changes):
    """Arrays that the settings vouch for, as an attacker would make them; `...` takes one away."""
    arrays = {**load_file(folder / ARRAYS_FILE), **changes}
    save_file(
        {name: array for name, array in arrays.items() if array is not ...}, folder / ARRAYS_FILE
    )
    change_settings(folder, arrays=_digest((folder / ARRAYS_FILE).read_bytes()))
