"""A Ray cluster on 127.0.0.1 in its own process; standard input takes `add` and `kill`."""

import sys

from ray.cluster_utils import Cluster

HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
}
NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100_000_000}


def main():
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "include_dashboard": False, "_system_config": HEALTH},
    )
    print(cluster.address, flush=True)
    added = []
    for line in sys.stdin:
        if line.strip() == "add":
            added.append(cluster.add_node(**NODE))
        else:  # as when its machine loses power
            cluster.remove_node(added.pop(), allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
