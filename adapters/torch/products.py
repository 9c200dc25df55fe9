"""The three products of a linear layer and a chunk of its rows: the logits, and what their gradient makes of the rest.

PyTorch multiplies float16 on a CPU up to a hundred times slower than float32, and rounds sums that float16 does not
hold; so float16 is multiplied in float32 there, some classes at a time. Sums over rows are float32 for each half type.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import HALF

# Of a half type, at a time: their products and their float32 stay in a cache.
CLASSES = 512


def sum_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type that gradients of the weight and the bias are added up in."""
    return torch.float32 if dtype in HALF else dtype


def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Write the logits of some rows."""
    if _is_wide(out):
        hidden = hidden.float()
        for start, z in _blocks(out, 1):
            w = weight[start : start + CLASSES].float().t()
            z.copy_(hidden @ w if bias is None else torch.addmm(bias[start : start + CLASSES].float(), hidden, w))
    elif bias is None:
        torch.mm(hidden, weight.t(), out=out)
    else:
        torch.addmm(bias, hidden, weight.t(), out=out)


def of_hidden(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the rows' gradient of the hidden layer."""
    if not _is_wide(gradient):
        return gradient @ weight
    total = gradient.new_zeros(len(gradient), weight.shape[1], dtype=torch.float32)
    for start, z in _blocks(gradient, 1):
        total.addmm_(z.float(), weight[start : start + CLASSES].float())
    return total.to(gradient.dtype)


def add_to_weight(sums: Tensor, gradient: Tensor, hidden: Tensor, first: bool) -> None:
    """Add the rows' gradient of the weight to ``sums``, which nothing was written to before the first."""
    if sums.dtype is gradient.dtype:
        torch.addmm(sums, gradient.t(), hidden, beta=0 if first else 1, out=sums)
        return
    if _is_wide(gradient):
        hidden = hidden.float()
    for start, part in _blocks(sums, 0):
        z = gradient[:, start : start + len(part)]
        product = (z.float() if _is_wide(z) else z).t() @ hidden
        if first:
            part.copy_(product)
        else:
            part += product


def _is_wide(x: Tensor) -> bool:
    return x.dtype is torch.float16 and x.is_cpu


def _blocks(x: Tensor, axis: int) -> list[tuple[int, Tensor]]:
    step = CLASSES if x.is_cpu else max(1, x.shape[axis])
    return [(i * step, part) for i, part in enumerate(torch.split(x, step, axis))]
