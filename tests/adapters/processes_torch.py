"""One denominator of three processes, one of which has no rows: a script, for they are forked before any thread."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from classweight import SoftmaxCrossEntropy
from classweight.adapters.torch import distributed

SPEC = SoftmaxCrossEntropy(class_weight=[1, 2, 5], ignore_index=-100)
LABELS = torch.tensor([0, 2, 1, -100, 2, 2, 1])


def run(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    mine = LABELS[[slice(0, 2), slice(2, 7), slice(7, 7)][rank]]
    whole = distributed.denominator(SPEC, LABELS, group=dist.new_subgroups(1)[0])
    assert whole == 20
    assert distributed.denominator(SPEC, mine, average=False) == whole
    torch.testing.assert_close(distributed.denominator(SPEC, mine), whole / 3, rtol=1e-15, atol=0)
    later = distributed.denominator(SPEC, [mine, mine], async_op=True)
    torch.testing.assert_close(later.wait(), whole * 2 / 3, rtol=1e-15, atol=0)
    pair = dist.new_group([0, 1])
    if rank < 2:
        assert distributed.denominator(SPEC, mine, average=False, group=pair) == whole
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.start_processes(run, (sys.argv[1],), nprocs=3, start_method="fork")
