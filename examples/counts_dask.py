"""Weigh the classes of a data set that no machine holds at once: Dask counts its partitions and adds the counts up.

Ten million labels in twenty partitions. A partition exists only while a worker counts it, and what travels between
workers is a `ClassCounts`: a few numbers. Here the partitions are drawn at random; where there are files instead,
``load`` reads one. `dask.config.set(scheduler=...)` or a `dask.distributed.Client` says where the workers are.
"""

from __future__ import annotations

import dask.bag
import numpy as np
from dask.delayed import delayed

from classweight import ClassCounts, class_weights

NAMES = ("background", "road", "car", "cyclist")
SHARES = (0.9, 0.09, 0.0099, 0.0001)


@delayed
def load(partition: int) -> np.ndarray:
    generator = np.random.default_rng(partition)
    return generator.choice(len(NAMES), 500_000, p=SHARES)


def count(labels: np.ndarray) -> ClassCounts:
    return ClassCounts(class_names=NAMES).update(labels)


def main() -> None:
    partitions = dask.bag.from_delayed([load(partition) for partition in range(20)])
    # Four counts at a time become one, until one is left.
    counts = partitions.reduction(count, sum, split_every=4).compute(scheduler="threads")
    print(class_weights(counts, "max_ratio"))


if __name__ == "__main__":
    main()
