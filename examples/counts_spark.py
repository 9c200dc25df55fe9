"""Weigh the classes of a data set that no machine holds at once: Spark counts its partitions and adds the counts up.

Ten million labels in twenty partitions, as in ``counts_dask.py``. What travels between executors is a `ClassCounts`: a
few numbers. Here Spark runs on this machine, for which it needs Java. Of a data frame, ``frame.rdd.mapPartitions`` has
the rows.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Iterator

import numpy as np
from pyspark.sql import SparkSession

from classweight import ClassCounts, class_weights

NAMES = ("background", "road", "car", "cyclist")
SHARES = (0.9, 0.09, 0.0099, 0.0001)


def load(partitions: Iterable[int]) -> Iterator[np.ndarray]:
    for partition in partitions:
        yield np.random.default_rng(partition).choice(len(NAMES), 500_000, p=SHARES)


def count(batches: Iterable[np.ndarray]) -> Iterator[ClassCounts]:
    counts = ClassCounts(class_names=NAMES)
    for labels in batches:
        counts.update(labels)
    yield counts


def main() -> None:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    quiet = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
    spark = SparkSession.builder.master("local[2]").config(map=quiet).getOrCreate()
    labels = spark.sparkContext.parallelize(range(20), 20).mapPartitions(load)
    print(class_weights(labels.mapPartitions(count).treeReduce(operator.add), "max_ratio"))
    spark.stop()


if __name__ == "__main__":
    main()
