"""Telemetry of the libraries: switched off, unless the user has set it.

A library reads its variable when it is imported or first used, so this comes before any other
import of the package. Who imports ONNX Runtime before it has to set the variable himself: its
Python call `disable_telemetry_events` comes too late.
"""

import os

SWITCHED_OFF = {
    # ONNX Runtime: events to Microsoft; a device id and a data base in the user's cache
    "ORT_DISABLE_TELEMETRY": "1",
    # huggingface_hub, transformers and datasets: what is used, with each request
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # datasets: a request for each data set that is loaded, also from a folder
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    # transformers: asks a service to convert a model's weights
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: a report each hour
}
"""Environment variables and the values that keep a library from reporting."""


def switch_off_telemetry() -> None:
    """Sets the variables that are not set yet; processes started from this one inherit them."""
    for variable, value in SWITCHED_OFF.items():
        os.environ.setdefault(variable, value)
