"""Triton's kernels, for `triton_launch`: row losses with statistics, then the gradient, in a pass each.

A program holds ROWS rows by COLS columns and walks along the classes. Each lane has a running maximum and sums of its
own, so that an element costs one exponential and lanes meet once a row. What is computed once a row is float64.

A tensor's element at (outer position o, class c, inner position p) lies at o * so + c * sc + p * si. UNIT is 1 where
sc is 1, 2 where si is 1; V, which divides all other strides and lengths, is how many elements one instruction may move.
Where long rows are of odd lengths, SHIFT is what V could be, and a row is walked from the aligned address before it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import triton_numbers as numbers

NOWHERE = tl.constexpr(2**31 - 1)

# A kernel is compiled for what its flags say, and not again for each batch size.
SIZES = ("classes", "inner", "so", "sc", "si", "oo", "oc", "oi", "to", "tc", "ti", "size", "share")
kernel = triton.jit(do_not_specialize=SIZES)


@triton.jit
def _multiple(n, V: tl.constexpr):
    """Return ``n``, which V divides, so that the compiler knows it too."""
    return n // V * V


@triton.jit
def _sizes(classes, inner, UNIT: tl.constexpr, V: tl.constexpr):
    if UNIT == 1:
        classes = _multiple(classes, V)
    if UNIT == 2:
        inner = _multiple(inner, V)
    return classes, inner


@triton.jit
def _positions(inner, ROWS: tl.constexpr):
    """Return the outer position of the program, and its inner ones."""
    parts = (inner + ROWS - 1) // ROWS
    program = tl.program_id(0)
    return (program // parts).to(tl.int64), (program % parts).to(tl.int64) * ROWS + tl.arange(0, ROWS)


@triton.jit
def _first(o, p, so, si, UNIT: tl.constexpr, V: tl.constexpr):
    """Return the offset of each row's first element."""
    inner = p if UNIT == 2 else p * _multiple(si.to(tl.int64), V)
    return o * _multiple(so.to(tl.int64), V) + inner


@triton.jit
def _aligned(first, SHIFT: tl.constexpr):
    """Return the aligned offset before a row's first element, and how far that is, 0 without SHIFT."""
    if SHIFT:
        shift = tl.sum(first % SHIFT, 0).to(tl.int32)
        first = first // SHIFT * SHIFT
    else:
        shift = 0
    return first, shift


@triton.jit
def _load(z, first, stride, start, shift, classes, seen, fill, COLS: tl.constexpr, SHIFT: tl.constexpr):
    """Return the columns from ``start`` on, before which a row has ``shift`` elements of its neighbour's."""
    steps = start + tl.arange(0, COLS)
    here = z + first[:, None] + steps.to(tl.int64)[None, :] * stride
    inside = (steps >= shift) & (steps < classes + shift) if SHIFT else steps < classes
    if SHIFT:
        if (start > 0) & (start + COLS <= classes + shift) & (tl.max(seen.to(tl.int32), 0) > 0):
            x = tl.load(here)
        else:
            x = tl.load(here, mask=seen[:, None] & inside[None, :], other=fill)
    else:
        x = tl.load(here, mask=seen[:, None] & inside[None, :], other=fill)
    return x


@triton.jit
def _store(out, x, first, stride, start, shift, classes, live, COLS: tl.constexpr, SHIFT: tl.constexpr):
    steps = start + tl.arange(0, COLS)
    here = out + first[:, None] + steps.to(tl.int64)[None, :] * stride
    inside = (steps >= shift) & (steps < classes + shift) if SHIFT else steps < classes
    if SHIFT:
        if (start > 0) & (start + COLS <= classes + shift):
            tl.store(here, x)
        else:
            tl.store(here, x, mask=live[:, None] & inside[None, :])
    else:
        tl.store(here, x, mask=live[:, None] & inside[None, :])


@triton.jit
def _put_losses(losses, row, live, weighted, EACH: tl.constexpr):
    """Store each row's loss, or their sum."""
    if EACH:
        tl.store(losses + row, weighted, mask=live)
    else:
        tl.store(losses + tl.program_id(0), tl.sum(tl.where(live, weighted, 0.0), 0))


@kernel
def hard_statistics(
    z, index, alpha, losses, tops, sums, owns, classes, inner, so, sc, si,
    EACH: tl.constexpr, REAL: tl.constexpr, HALF: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, UNIT: tl.constexpr, V: tl.constexpr, SHIFT: tl.constexpr,
    OTHERS_SHIFT: tl.constexpr,
):  # fmt: skip
    """Store alpha_i L_iy, and of each row z_y, the largest other logit and the sum of the others' exponentials to it.

    The others' sum is at least 1, however sure the prediction is.
    """
    classes, inner = _sizes(classes, inner, UNIT, V)
    o, p = _positions(inner, ROWS)
    live = p < inner
    row = o * inner + p
    a = tl.load(alpha + row, mask=live, other=0.0)
    y = tl.load(index + row, mask=live, other=0)
    # A row that weighs nothing is not read, but for the sake of loads that are whole along the positions.
    seen = live if UNIT == 2 else live & (a != 0)
    first = _first(o, p, so, si, UNIT, V)
    stride = 1 if UNIT == 1 else _multiple(sc.to(tl.int64), V)
    own = numbers.widened(tl.load(z + first + y * stride, mask=seen, other=0.0), REAL)
    first, shift = _aligned(first, SHIFT)
    # Finite, so that -inf is at no distance of NaN from it.
    top = tl.full([ROWS, COLS], -1.7976931348623157e308 if tl.float64 == REAL else -3.4028234663852886e38, REAL)
    total = tl.full([ROWS, COLS], 0.0, REAL)
    width = (classes + shift) * tl.max((live & (a != 0)).to(tl.int32), 0)
    for start in range(0, width, COLS):
        x = numbers.widened(_load(z, first, stride, start, shift, classes, seen, float("-inf"), COLS, SHIFT), REAL)
        columns = start - shift + tl.arange(0, COLS)
        x = tl.where(columns[None, :] == y[:, None], float("-inf"), x)
        gap = x - top
        e = numbers.exp(-tl.abs(gap), 0.0, HALF)
        total = tl.where(gap > 0, total * e + 1.0, total + e)
        top = tl.maximum(top, x)
    largest = tl.max(top, 1)
    total = tl.sum(total * numbers.exp(top - largest[:, None], 0.0, HALF), 1)
    _, _, _, loss = numbers.against_target(own, largest, total, HALF)
    _put_losses(losses, row, live, tl.where(a == 0, 0.0, a * loss), EACH)
    tl.store(tops + row, largest, mask=live)
    tl.store(sums + row, total, mask=live)
    tl.store(owns + row, own, mask=live)


@kernel
def hard_gradient(
    z, out, index, alpha, factor, tops, sums, owns, classes, inner, so, sc, si, oo, oc, oi,
    PER_ROW: tl.constexpr, REAL: tl.constexpr, HALF: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, UNIT: tl.constexpr, V: tl.constexpr, SHIFT: tl.constexpr,
    OTHERS_SHIFT: tl.constexpr,
):  # fmt: skip
    """Store factor_i alpha_i (q_i - [c = y]), with q_y - 1 as -R_y / S."""
    classes, inner = _sizes(classes, inner, UNIT, V)
    o, p = _positions(inner, ROWS)
    live = p < inner
    row = o * inner + p
    a = tl.load(alpha + row, mask=live, other=0.0)
    f = tl.load(factor + row * PER_ROW, mask=live, other=0.0)
    y = tl.load(index + row, mask=live, other=0)
    own = tl.load(owns + row, mask=live, other=0.0)
    largest = tl.load(tops + row, mask=live, other=0.0)
    total = tl.load(sums + row, mask=live, other=1.0)
    top, others, whole, _ = numbers.against_target(own, largest, total, HALF)
    dead = (a == 0) | (f == 0)
    scale = tl.where(dead, 0.0, a * f * (1.0 / whole).to(tl.float64))
    at_target = tl.where(dead, 0.0, -others * scale).to(REAL)
    scale, boost = numbers.scaled(scale, REAL)
    seen = live if UNIT == 2 else live & (dead == 0)
    first = _first(o, p, so, si, UNIT, V)
    stride = 1 if UNIT == 1 else _multiple(sc.to(tl.int64), V)
    out_first = _first(o, p, oo, oi, UNIT, V)
    out_stride = 1 if UNIT == 1 else _multiple(oc.to(tl.int64), V)
    first, shift = _aligned(first, SHIFT)
    out_first = (out_first - shift) // OTHERS_SHIFT * OTHERS_SHIFT
    for start in range(0, classes + shift, COLS):
        x = numbers.widened(_load(z, first, stride, start, shift, classes, seen, float("-inf"), COLS, SHIFT), REAL)
        columns = start - shift + tl.arange(0, COLS)
        slope = numbers.exp(x - top[:, None], boost[:, None], HALF) * scale[:, None]
        slope = tl.where(columns[None, :] == y[:, None], at_target[:, None], slope)
        slope = tl.where(dead[:, None], 0.0, slope)
        _store(
            out, numbers.rounded_once(slope, out.dtype.element_ty),
            out_first, out_stride, start, shift, classes, live, COLS, SHIFT,
        )  # fmt: skip


@triton.jit
def _coefficients(
    targets, first, stride, index, alpha, column, beta, shared, start, shift, classes, seen,
    REAL: tl.constexpr, COLS: tl.constexpr, SHIFT: tl.constexpr,
):  # fmt: skip
    """Return a_c = alpha t_c column_c + beta shared_c, where t_c is [c = y] without targets; 0 beyond the classes."""
    columns = start - shift + tl.arange(0, COLS)
    inside = (columns >= 0) & (columns < classes)
    if targets is None:
        a = tl.where(columns[None, :] == index[:, None], alpha[:, None], 0.0)
    else:
        a = alpha[:, None] * _load(targets, first, stride, start, shift, classes, seen, 0.0, COLS, SHIFT).to(REAL)
        if column is not None:
            a *= tl.load(column + columns, mask=inside, other=0.0)[None, :]
    if beta is not None:
        if shared is None:
            a += tl.where(inside, 1.0, 0.0).to(REAL)[None, :] * beta[:, None]
        else:
            a += beta[:, None] * tl.load(shared + columns, mask=inside, other=0.0)[None, :]
    return tl.where(inside[None, :], a, 0.0)


@kernel
def dense_statistics(
    z, targets, index, alpha, column, beta, shared, losses, tops, others, rests, owns, dominants,
    classes, inner, so, sc, si, to, tc, ti,
    EACH: tl.constexpr, REAL: tl.constexpr, HALF: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, UNIT: tl.constexpr, V: tl.constexpr, SHIFT: tl.constexpr,
    OTHERS_SHIFT: tl.constexpr,
):  # fmt: skip
    """Store sum_c a_c L_c, and of each row k, z_k, a_k and the sums over c != k of exp(z_c - z_k) and a_c.

    Of a row without a coefficient k is -1: a sum of 0 does not say it, for coefficients of both signs may cancel.
    """
    classes, inner = _sizes(classes, inner, UNIT, V)
    o, p = _positions(inner, ROWS)
    live = p < inner
    row = o * inner + p
    alive = tl.load(alpha + row, mask=live, other=0.0)
    a_row = alive.to(REAL)
    b_row, y = a_row, row
    dead = alive == 0
    if beta is not None:
        b = tl.load(beta + row, mask=live, other=0.0)
        b_row, dead = b.to(REAL), dead & (b == 0)
    if index is not None:
        y = tl.load(index + row, mask=live, other=0)
    seen = live if UNIT == 2 else live & (dead == 0)
    first = _first(o, p, so, si, UNIT, V)
    stride = 1 if UNIT == 1 else _multiple(sc.to(tl.int64), V)
    t_first = _first(o, p, to, ti, UNIT, V)
    t_stride = 1 if UNIT == 1 else _multiple(tc.to(tl.int64), V)
    first, shift = _aligned(first, SHIFT)
    t_first = (t_first - shift) // OTHERS_SHIFT * OTHERS_SHIFT
    top = tl.full([ROWS, COLS], float("-inf"), REAL)
    at_top = tl.full([ROWS, COLS], NOWHERE, tl.int32)
    other = tl.full([ROWS, COLS], 0.0, REAL)
    rest, near, own = other, other, other
    used = tl.full([ROWS, COLS], 0, tl.int1)
    width = (classes + shift) * tl.max((live & (dead == 0)).to(tl.int32), 0)
    for start in range(0, width, COLS):
        x = numbers.widened(_load(z, first, stride, start, shift, classes, seen, float("-inf"), COLS, SHIFT), REAL)
        a = _coefficients(
            targets, t_first, t_stride, y, a_row, column, b_row if beta is not None else None, shared,
            start, shift, classes, seen, REAL, COLS, SHIFT,
        )  # fmt: skip
        used |= a != 0
        # What is larger than all before makes an other of what was; each distance is counted from the largest on.
        rises, distance = x > top, tl.where(x == top, 0.0, tl.abs(x - top))
        e = tl.where(x == float("-inf"), 0.0, numbers.exp(-distance, 0.0, HALF))
        other = tl.where(rises, (other + 1.0) * e, other + e)
        near += numbers.weighted(tl.where(rises, rest + own, a), distance)
        rest += tl.where(rises, own, a)
        own = tl.where(rises, a, own)
        at_top = tl.where(rises, (start - shift + tl.arange(0, COLS))[None, :], at_top)
        top = tl.where(rises, x, top)
    largest = tl.max(top, 1)
    k = tl.min(tl.where(top == largest[:, None], at_top, NOWHERE), 1)
    is_k, distance = at_top == k[:, None], largest[:, None] - top
    other = tl.sum(tl.where(is_k, other, (other + 1.0) * numbers.exp(-distance, 0.0, HALF)), 1)
    near = tl.sum(near + tl.where(is_k, 0.0, numbers.weighted(rest + own, distance)), 1)
    rest = tl.sum(rest + tl.where(is_k, 0.0, own), 1)
    own = tl.sum(tl.where(is_k, own, 0.0), 1)
    # 0, but NaN where the largest logit is infinite: such a row has no softmax.
    other += largest - largest
    weight = rest.to(tl.float64) + own.to(tl.float64)
    loss = weight * numbers.log1p(other).to(tl.float64) + near.to(tl.float64)
    k = tl.where(tl.max(used.to(tl.int32), 1) > 0, k, -1)
    _put_losses(losses, row, live, tl.where(k < 0, 0.0, loss), EACH)
    tl.store(tops + row, largest, mask=live)
    tl.store(others + row, other, mask=live)
    tl.store(rests + row, rest, mask=live)
    tl.store(owns + row, own, mask=live)
    tl.store(dominants + row, k, mask=live)


@kernel
def dense_gradient(
    z, out, targets, index, alpha, column, beta, shared, factor, tops, others, rests, owns, dominants,
    classes, inner, so, sc, si, oo, oc, oi, to, tc, ti,
    PER_ROW: tl.constexpr, REAL: tl.constexpr, HALF: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, UNIT: tl.constexpr, V: tl.constexpr, SHIFT: tl.constexpr,
    OTHERS_SHIFT: tl.constexpr,
):  # fmt: skip
    """Store factor_i (A_i q_ic - a_ic)."""
    classes, inner = _sizes(classes, inner, UNIT, V)
    o, p = _positions(inner, ROWS)
    live = p < inner
    row = o * inner + p
    f = tl.load(factor + row * PER_ROW, mask=live, other=0.0)
    k = tl.load(dominants + row, mask=live, other=0)
    top = tl.load(tops + row, mask=live, other=0.0)
    other = tl.load(others + row, mask=live, other=0.0).to(tl.float64)
    rest = tl.load(rests + row, mask=live, other=0.0).to(tl.float64)
    own = tl.load(owns + row, mask=live, other=0.0).to(tl.float64)
    weight = rest + own
    dead = (k < 0) | (f == 0)
    each = weight / (1.0 + other)
    # A q_k - a_k: summed over the other classes where q_k > 1/2, and where that would cancel as it stands.
    at_k = (tl.where(other < 1, rest - other * each, each - own) * f).to(REAL)
    scale, boost = numbers.scaled(tl.where(dead, 0.0, each * f), REAL)
    a_row = (tl.load(alpha + row, mask=live, other=0.0) * f).to(REAL)
    b_row, y = a_row, row
    if beta is not None:
        b_row = (tl.load(beta + row, mask=live, other=0.0) * f).to(REAL)
    if index is not None:
        y = tl.load(index + row, mask=live, other=0)
    seen = live if UNIT == 2 else live & (dead == 0)
    first = _first(o, p, so, si, UNIT, V)
    stride = 1 if UNIT == 1 else _multiple(sc.to(tl.int64), V)
    t_first = _first(o, p, to, ti, UNIT, V)
    t_stride = 1 if UNIT == 1 else _multiple(tc.to(tl.int64), V)
    out_first = _first(o, p, oo, oi, UNIT, V)
    out_stride = 1 if UNIT == 1 else _multiple(oc.to(tl.int64), V)
    first, shift = _aligned(first, SHIFT)
    t_first = (t_first - shift) // OTHERS_SHIFT * OTHERS_SHIFT
    out_first = (out_first - shift) // OTHERS_SHIFT * OTHERS_SHIFT
    for start in range(0, classes + shift, COLS):
        x = numbers.widened(_load(z, first, stride, start, shift, classes, seen, float("-inf"), COLS, SHIFT), REAL)
        a = _coefficients(
            targets, t_first, t_stride, y, a_row, column, b_row if beta is not None else None, shared,
            start, shift, classes, seen, REAL, COLS, SHIFT,
        )  # fmt: skip
        columns = start - shift + tl.arange(0, COLS)
        slope = numbers.exp(x - top[:, None], boost[:, None], HALF) * scale[:, None] - a
        slope = tl.where(columns[None, :] == k[:, None], at_k[:, None], slope)
        slope = tl.where(dead[:, None], 0.0, slope)
        _store(
            out, numbers.rounded_once(slope, out.dtype.element_ty),
            out_first, out_stride, start, shift, classes, live, COLS, SHIFT,
        )  # fmt: skip


@kernel
def binary_losses(
    z, pos, neg, losses, size,
    EACH: tl.constexpr, REAL: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Store pos softplus(-z) + neg softplus(z), each in REAL or their sum in float64."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < _multiple(size, V)
    x = numbers.widened(tl.load(z + i, mask=live, other=0.0), REAL)
    yes = tl.load(pos + i, mask=live, other=0.0).to(REAL)
    no = tl.load(neg + i, mask=live, other=0.0).to(REAL)
    tail = numbers.log1p(numbers.exp_of_minus_abs(x, HALF))
    loss = numbers.weighted(yes, tl.where(x > 0, tail, tail - x))
    loss += numbers.weighted(no, tl.where(x > 0, tail + x, tail))
    if EACH:
        tl.store(losses + i, loss, mask=live)
    else:
        tl.store(losses + tl.program_id(0), tl.sum(loss.to(tl.float64), 0))


@kernel
def binary_gradient(
    z, out, pos, neg, factor, size, share,
    PER_ROW: tl.constexpr, REAL: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Store factor (neg sigmoid(z) - pos sigmoid(-z)); ``share`` elements have a factor in common."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < _multiple(size, V)
    x = numbers.widened(tl.load(z + i, mask=live, other=0.0), REAL)
    yes = tl.load(pos + i, mask=live, other=0.0).to(REAL)
    no = tl.load(neg + i, mask=live, other=0.0).to(REAL)
    f = tl.load(factor + i // share * PER_ROW, mask=live, other=0.0).to(REAL)
    e = numbers.exp_of_minus_abs(x, HALF)
    large = tl.div_rn(1.0, 1.0 + e) if tl.float32 == REAL else 1.0 / (1.0 + e)
    small = e * large
    slope = tl.where(x > 0, no * large - yes * small, no * small - yes * large) * f
    slope = tl.where((f == 0) | ((yes == 0) & (no == 0)), 0.0, slope)
    tl.store(out + i, numbers.rounded_once(slope, out.dtype.element_ty), mask=live)
