"""Connection to a Ray cluster, or a Ray of this machine alone."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.threads import num_cores
from wobbliness.runtime.user_files import loaded_modules

# Time in which a cluster has to answer a connection.
REACH_SECONDS = 5.0
LOOPBACK = "127.0.0.1"


@contextmanager
def ray_cluster(address: str | None = None, *, cores: int | None = None) -> Iterator[Any]:
    """Yields the module `ray`, connected, and disconnects afterwards.

    A connection that is there already is used and left.

    Args:
        address: `HOST:PORT` of a cluster's head, `ray://HOST:PORT` of its client server, or `auto`
            for the cluster that this machine belongs to. None starts a Ray of this machine alone,
            which ends afterwards; see `keep_to_this_machine`.
        cores: of a Ray of this machine; by default those that this process may use.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _import_ray()
    for module in loaded_modules():  # a node need not have the user's files
        ray.cloudpickle.register_pickle_by_value(module)
    if ray.is_initialized():
        yield ray
        return
    _require_listener(address)
    _connect(ray, address, _own_settings(cores) if address is None else {})
    try:
        yield ray
    finally:
        ray.shutdown()


def _own_settings(cores: int | None) -> dict[str, Any]:
    """Returns settings of a Ray of this machine; a cluster has its own."""
    return {
        "num_cpus": cores or num_cores(),
        "_node_ip_address": LOOPBACK,
        "include_dashboard": False,
    }


def _connect(ray: Any, address: str | None, settings: dict[str, Any]) -> None:
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="error",
            job_config=_job_config(ray),
            **settings,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"expected a Ray cluster at {address or LOOPBACK}, got {reason_of(error)}"
        ) from error


def keep_to_this_machine() -> None:
    """Makes a Ray that this process starts listen on 127.0.0.1 only.

    The process cannot reach a cluster of other machines then.

    Ray takes the machine's outer address where it is told to use 127.0.0.1, except under this
    variable, and reads it once, when it is imported.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def num_cpus(ray: Any) -> int:
    """Returns the CPU cores of the whole cluster, as Ray counts them; at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def on_this_node(ray: Any) -> Any:
    """Returns the placement of an actor on the calling process's own node.

    It lives as long as that machine.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _import_ray() -> Any:
    # a cell without a GPU leaves the variables as they are
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ValueError(
            'expected Ray for this, which is not installed: pip install "wobbliness[ray]"'
        ) from None
    return ray


def _job_config(ray: Any) -> Any:
    """Makes workers import nothing from the working folder where Python is told so.

    Ray puts it first on their path otherwise.
    """
    if not os.environ.get("PYTHONSAFEPATH"):
        return None

    class WithoutWorkingFolder(ray.job_config.JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True  # Ray then leaves the path of the workers alone

    return WithoutWorkingFolder()


def _require_listener(address: str | None) -> None:
    """Checks that something listens at the address.

    Ray itself waits for minutes where nobody does, and then ends the process.
    """
    # The client server has a scheme in front; host and port are what stands around the last colon.
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if address in (None, "auto"):
        return
    if not host or not port.isdigit():
        raise ValueError(
            f"expected auto, HOST:PORT or ray://HOST:PORT of a Ray cluster, got {address}"
        )
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"expected a Ray cluster at {address}, got {error}") from error
