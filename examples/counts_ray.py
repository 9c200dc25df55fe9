"""Weigh the classes of a data set that no machine holds at once: Ray Data counts its blocks, and the counts add up.

Ten million labels in twenty blocks, as in ``counts_dask.py``. What travels from a worker is a `ClassCounts`: a few
numbers. Here Ray runs on this machine; ``ray.init(address=...)`` joins a cluster. A data set of files has its labels
already, and starts at ``map_batches(count, batch_size=None)``.
"""

from __future__ import annotations

import logging

import numpy as np
import ray
import ray.data

from classweight import ClassCounts, class_weights

NAMES = ("background", "road", "car", "cyclist")
SHARES = (0.9, 0.09, 0.0099, 0.0001)


def load(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    labels = [np.random.default_rng(i).choice(len(NAMES), 500_000, p=SHARES) for i in batch["id"]]
    return {"label": np.concatenate(labels)}


def count(batch: dict[str, np.ndarray]) -> dict[str, list[ClassCounts]]:
    return {"counts": [ClassCounts(class_names=NAMES).update(batch["label"])]}


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    labels = ray.data.range(20, override_num_blocks=20).map_batches(load, batch_size=None)
    counts = labels.map_batches(count, batch_size=None)
    print(class_weights(sum(row["counts"] for row in counts.iter_rows()), "max_ratio"))
    ray.shutdown()


if __name__ == "__main__":
    main()
