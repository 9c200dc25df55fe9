"""The kernels of the CPU, compiled by Numba: index targets, distributions and smoothing, binary losses.

Each walks along blocks of rows: loss and gradient of a block while it is in cache. Coefficients come in factors and are
multiplied here; nothing of the logits' size is made but the gradient. Formulas and names are those of
`classweight.compute.composite`; with ``e_c = exp(z_c - m)``, m the largest logit of a row, k its class::

    index targets   alpha L_y,                          gradient  alpha (e_c / S - [c = y]),   at y  -alpha R_y / S
    distributions   A log1p(R) + sum_c a_c (m - z_c),             A e_c / S - a_c,   at k  sum_{c != k} a_c - A R / S
    binary          pos softplus(-z) + neg softplus(z),           neg sigmoid(z) - pos sigmoid(-z)

A row's bits depend on the row and its coefficients alone. Sums run over classes in an order that their number decides:
few classes in tiles of rows, many row by row. Logits of float32 and of half types are computed in float32, each row's
few sums in float64; exponentials carry a factor of 2^64, so that none that counts is below the smallest normal number.
A row whose coefficients float32 does not carry is left for the kernel that computes in float64, as exact precision
does.

Memory is read and written by pointers: a kernel takes the address of a block of arguments, so it can be called by any
thread of any library, and Numba compiles that in a third of the time that arrays take.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils, registry
from numba.core.caching import Cache, CacheImpl
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic, overload

# Sums may be taken in any order, which the compiler fixes, and products be fused with them.
FAST = {"reassoc", "contract", "nsz"}
TILE = 128  # rows of few classes
PIECE = 1024  # elements of a binary loss
VECTORS = 64  # elements, a multiple of what a loop takes at a time
CHUNK = 2048  # classes that are added up in the logits' own type

# Half types come as their bits: unsigned for float16, signed for bfloat16.
FLOAT16, BFLOAT16 = types.uint16, types.int16


def _inner(fastmath: Any = False, inline: str = "never") -> Any:
    """Compile a function for kernels alone, without what Python needs to call it."""
    return njit(fastmath=fastmath, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, inline=inline)


def _by_type(chosen: Any) -> Any:
    """Make a function for kernels of one that chooses it by its arguments' types; its operations stay as written."""

    def function(*arguments: Any) -> Any:
        raise NotImplementedError

    overload(function, jit_options={"fastmath": {"contract"}}, strict=False)(chosen)
    return function


# -- What Numba does not have ------------------------------------------------------------------------------------------


@intrinsic
def _pointer(context: Any, address: Any, like: Any) -> Any:
    """Return a pointer to numbers of the type of ``like`` at an address."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), build


@intrinsic
def _address(context: Any, pointer: Any) -> Any:
    return types.int64(pointer), lambda t, builder, s, arguments: builder.ptrtoint(arguments[0], ir.IntType(64))


def _apart(builder: Any, access: Any, name: str) -> Any:
    """Say that what is written is never what `_read` reads, which the compiler cannot know."""
    domain = builder.module.add_metadata(["kernel"])
    access.set_metadata(name, builder.module.add_metadata([builder.module.add_metadata(["written", domain])]))
    return access


def _loaded(target: Any, builder: Any, place: Any, found: Any, like: Any, apart: bool) -> Any:
    x = builder.load(place)
    if apart:
        _apart(builder, x, "noalias")
    if found in (FLOAT16, BFLOAT16) and isinstance(like, types.Float):
        widened = _from_half if found is FLOAT16 else _from_bfloat
        x, found = target.compile_internal(builder, widened, types.float32(found), [x]), types.float32
    return target.cast(builder, x, found, like)


def _store(target: Any, builder: Any, place: Any, to: Any, x: Any, found: Any) -> None:
    if to in (FLOAT16, BFLOAT16):
        if found is types.float64:
            x = target.compile_internal(builder, _to_odd, types.float32(found), [x])
        narrowed = _to_half if to is FLOAT16 else _to_bfloat
        x = target.compile_internal(builder, narrowed, to(types.float32), [x])
    else:
        x = target.cast(builder, x, found, to)
    _apart(builder, builder.store(x, place), "alias.scope")


def _load(apart: bool) -> Any:
    def typing(context: Any, pointer: Any, i: Any, like: Any) -> Any:
        found = pointer.dtype

        def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _loaded(target, builder, builder.gep(arguments[0], [arguments[1]]), found, like, apart)

        return like(pointer, types.int64, like), build

    return intrinsic(typing)


# Both return the i-th number behind a pointer in the type of a third argument; `_read` where no kernel writes.
_get, _read = _load(apart=False), _load(apart=True)


@intrinsic
def _put(context: Any, pointer: Any, i: Any, x: Any) -> Any:
    """Write a number behind a pointer, rounded once to what lies there."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _store(target, builder, builder.gep(arguments[0], [arguments[1]]), pointer.dtype, arguments[2], x)
        return target.get_dummy_value()

    return types.void(pointer, types.int64, x), build


@intrinsic
def _new(context: Any, n: Any, like: Any) -> Any:
    """Return a pointer to memory for n numbers."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = builder.mul(arguments[0], ir.Constant(ir.IntType(64), like.bitwidth // 8))
        memory = target.nrt.allocate(builder, size)
        return builder.bitcast(memory, target.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), build


@intrinsic
def _free(context: Any, pointer: Any) -> Any:
    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target.nrt.free(builder, builder.bitcast(arguments[0], ir.IntType(8).as_pointer()))
        return target.get_dummy_value()

    return types.void(pointer), build


@intrinsic
def _shifted(context: Any, pointer: Any, n: Any) -> Any:
    """Return a pointer n numbers further."""
    return pointer(pointer, types.int64), lambda t, builder, s, arguments: builder.gep(arguments[0], [arguments[1]])


@intrinsic
def _fetch_add(context: Any, pointer: Any, i: Any) -> Any:
    """Add 1 to an integer that threads share; return what it was."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(pointer, types.int64), build


def _of_llvm(name: str) -> Any:
    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x = arguments[0].type
        function = builder.module.declare_intrinsic(name, [x], ir.FunctionType(x, [x] * len(arguments)))
        return builder.call(function, arguments, fastmath=("nsz",))

    return build


@intrinsic
def _alone(context: Any) -> Any:
    """Keep the function that calls this out of others: inlined, its loops are not vectorized, or have other bits."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return target.get_dummy_value()

    return types.void(), build


@intrinsic
def _rint(context: Any, x: Any) -> Any:
    return x(x), _of_llvm("llvm.rint")


@intrinsic
def _larger(context: Any, x: Any, y: Any) -> Any:
    """Return the larger number, NaN if either is."""
    return x(x, x), _of_llvm("llvm.maximum")


@intrinsic
def _bits(context: Any, x: Any) -> Any:
    """Return a float's bits as an integer, or an integer's as a float."""
    pairs = ((types.float32, types.int32), (types.float64, types.int64))
    to = dict([*pairs, *((integer, real) for real, integer in pairs)])[x]
    return to(x), lambda t, builder, s, arguments: builder.bitcast(arguments[0], t.get_value_type(s.return_type))


@intrinsic
def _magnitude(context: Any, x: Any) -> Any:
    """Return an integer that is in the order of |x|, infinity and NaN last."""
    to = types.int32 if x is types.float32 else types.int64

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], target.get_value_type(to))
        return builder.and_(bits, ir.Constant(bits.type, (1 << (to.bitwidth - 1)) - 1))

    return to(x), build


@intrinsic
def _as(context: Any, x: Any, like: Any) -> Any:
    """Return a number in the type of ``like``; float to integer where the float is one."""
    return like(x, like), lambda t, builder, s, arguments: t.cast(builder, arguments[0], x, like)


# -- Numbers -----------------------------------------------------------------------------------------------------------

_I32, _I64, _F32, _F64 = np.int32(0), np.int64(0), np.float32(0), np.float64(0)


def _from_half(bits: Any) -> Any:
    magnitude = (np.int64(bits) & 0x7FFF) << 13
    finite = _bits(np.int32(magnitude)) * np.float32(2.0**112)
    x = finite if magnitude < 0x0F800000 else _bits(np.int32(magnitude | 0x7F800000))
    return -x if np.int64(bits) & 0x8000 else x


def _from_bfloat(bits: Any) -> Any:
    return _bits(np.int32(np.int32(bits) << 16))


def _to_half(x: Any) -> Any:
    bits = np.int64(_bits(x)) & 0xFFFFFFFF
    shifted = (bits << 1) & 0xFFFFFFFF
    base = (abs(x) * np.float32(2.0**112)) * np.float32(2.0**-110)
    bias: Any = max(shifted & 0xFF000000, 0x71000000)
    rounded = np.int64(_bits(_bits(np.int32((bias >> 1) + 0x07800000)) + base))
    magnitude = ((rounded >> 13) & 0x7C00) + (rounded & 0x0FFF)
    return np.uint16(((bits >> 16) & 0x8000) | (0x7E00 if shifted > 0xFF000000 else magnitude))


def _to_bfloat(x: Any) -> Any:
    bits = np.int64(_bits(x)) & 0xFFFFFFFF
    return np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 if x == x else 0x7FC0)


def _to_odd(x: Any) -> Any:
    """Return float64 as a float32 that shows in its last bit if something was cut off: a rounding can then follow."""
    near = np.float32(x)
    bits, back = _bits(near), np.float64(near)
    if back != x and x == x and bits & 1 == 0:
        bits = np.int32(bits + (1 if abs(back) < abs(x) else -1))
    return _bits(bits)


_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504088896341), np.float32(0.693359375), np.float32(-2.12194440e-4)
_P5, _P4, _P3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P2, _P1, _P0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_ONE, _LOWEST32, _LOWEST64, _NO_LESS = np.float32(1), np.float32(-132.4), -1033.0, np.float32(-0.5)
# Added to a number, they round it to an integer, which then is the last bits of the sum, the bias of 2^n included.
_ROUND32, _ROUND32_UNIT = np.float32(0xC00000 + 127), np.float32(0xC00000 + 191)
_ROUND64, _ROUND64_UNIT = float(0x18000000000000 + 1023), float(0x18000000000000 + 1491)


@_inner({"contract"})
def _power32(r, n):
    """Return exp(r) 2^n for |r| < 0.5; of n the sum with a number that rounded it."""
    p = ((((_P5 * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r + _P0
    return (p * (r * r) + (r + _ONE)) * _bits(np.int32(_bits(n) << 23))


@_inner({"contract"})
def _power64(r, n):
    p = ((1.6059043836821613e-10 * r + 2.08767569878681e-09) * r + 2.505210838544172e-08) * r + 2.755731922398589e-07
    p = ((p * r + 2.7557319223985893e-06) * r + 2.48015873015873e-05) * r + 1.984126984126984e-04
    p = ((p * r + 1.388888888888889e-03) * r + 8.333333333333333e-03) * r + 4.1666666666666664e-02
    p = (((p * r + 1.6666666666666666e-01) * r + 0.5) * r + 1.0) * r + 1.0
    return p * _bits(_bits(n) << 52)


@_by_type
def _exp(z: Any) -> Any:
    """Return exp(z) for |z| <= SMALL."""

    def of_float32(z: Any) -> Any:
        n = z * _LOG2_E + _ROUND32
        whole = n - _ROUND32
        return _power32(z - whole * _LN2_HIGH - whole * _LN2_LOW, n)

    def of_float64(z: Any) -> Any:
        n = z * 1.4426950408889634 + _ROUND64
        whole = n - _ROUND64
        return _power64(z - whole * 6.93147180369123816490e-01 - whole * 1.90821492927058770002e-10, n)

    return of_float32 if z is types.float32 else of_float64


@_by_type
def _exp_of_difference(z: Any, m: Any) -> Any:
    """Return exp(z - m) / unit for z <= m, and 0 where that is below the smallest normal number."""

    def of_float32(z: Any, m: Any) -> Any:
        x = z - m
        b = x - z
        rest = (z - (x - b)) - (m + b)  # what the rounding of the difference cost; NaN where that is infinite
        x = x if x > _LOWEST32 else _LOWEST32
        n = x * _LOG2_E + _ROUND32_UNIT
        whole = n - _ROUND32_UNIT
        r = (x - whole * _LN2_HIGH - whole * _LN2_LOW) + rest
        return _power32(r if r > _NO_LESS else _NO_LESS, n)

    def of_float64(z: Any, m: Any) -> Any:
        x = z - m
        x = x if x > _LOWEST64 else _LOWEST64
        n = x * 1.4426950408889634 + _ROUND64_UNIT
        whole = n - _ROUND64_UNIT
        return _power64(x - whole * 6.93147180369123816490e-01 - whole * 1.90821492927058770002e-10, n)

    return of_float32 if z is types.float32 else of_float64


@_inner({"contract"})
def _log(x):
    """Return log(x) of a normal float64."""
    bits = _bits(x)
    n = ((bits >> 52) & 0x7FF) - 1023
    f = _bits((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    large = f > 1.4142135623730951
    f = f * 0.5 if large else f
    k = _as(n + 1 if large else n, _F64)
    s = (f - 1.0) / (f + 1.0)
    q = s * s
    p = ((1 / 23 * q + 1 / 21) * q + 1 / 19) * q + 1 / 17
    p = ((p * q + 1 / 15) * q + 1 / 13) * q + 1 / 11
    p = ((((p * q + 1 / 9) * q + 1 / 7) * q + 1 / 5) * q + 1 / 3) * q + 1.0
    return k * 6.93147180369123816490e-01 + (2.0 * s * p + k * 1.90821492927058770002e-10)


@_inner()
def _log1p(x):
    """Return log(1 + x) for x >= 0."""
    u = 1.0 + x
    return _log(u) + (x - (u - 1.0)) / u


# -- The arguments of a kernel: slots of 8 bytes, integers and then floats --------------------------------------------

# fmt: off
(
    NEXT, BAD, LEFT, BLOCKS, BLOCK_ROWS, ROWS, CLASSES, INNER, Z_TYPE, T_TYPE, OPTIONS, BY_TARGET, LOSSES, SUMS,
    Z, Z_OUTER, Z_INNER, Z_CLASS,
    G, G_OUTER, G_INNER, G_CLASS,
    T, T_OUTER, T_INNER, T_CLASS,
    SHARE, SHARE_OUTER, SHARE_INNER, SHARE_CLASS,
    VALID, VALID_OUTER, VALID_INNER, VALID_CLASS,
    UP, UP_OUTER, UP_INNER, UP_CLASS,
    COLUMN, COLUMN_OUTER, COLUMN_INNER, COLUMN_CLASS,
    ROW, ROW_OUTER, ROW_INNER, ROW_CLASS
) = range(46)
# fmt: on
INTEGERS = ROW_CLASS + 1
ALPHA, BETA, UPSTREAM, SPREAD = range(4)
FLOATS = 4
# Of a binary loss: targets become KEEP t + SPREAD, and these are the weights of the two sides.
KEEP, POSITIVE, NEGATIVE = BETA, COLUMN, ROW
# Whether beta has the factor of the target's class, too; logits and gradient are one memory; only the rows are wanted
# that float32 has left; a binary weight is that of the label; a binary loss is wanted of each row; its arrays lie
# without gaps, in the type that is computed in.
BETA_BY_TARGET, APART, REST, BY_LABEL, PER_ROW, FLAT = 1, 2, 4, 8, 16, 32


def _slots(first: int, n: int, like: Any) -> Any:
    def typing(context: Any, address: Any) -> Any:
        def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            slots = builder.inttoptr(arguments[0], target.get_value_type(like).as_pointer())
            places = [builder.gep(slots, [ir.Constant(ir.IntType(64), first + i)]) for i in range(n)]
            return target.make_tuple(builder, signature.return_type, [builder.load(place) for place in places])

        return types.UniTuple(like, n)(types.int64), build

    return intrinsic(typing)


_integers, _floats = _slots(0, INTEGERS, types.int64), _slots(INTEGERS, FLOATS, types.float64)


@intrinsic
def _at(context: Any, address: Any, outer: Any, inner: Any, o: Any, i: Any, like: Any) -> Any:
    """Return a pointer to row (o, i) of what lies at an address, with these strides."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at, outer_step, inner_step, o_, i_, _ = arguments
        n = builder.add(builder.mul(o_, outer_step), builder.mul(i_, inner_step))
        return builder.gep(builder.inttoptr(at, target.get_value_type(signature.return_type)), [n])

    return types.CPointer(like)(*(types.int64,) * 5, like), build


@_inner()
def _of_row(q, d, o, i, y):
    """Return whether a row is neither ignored nor masked, its alpha and beta, and its upstream gradient."""
    share, upstream, w = 1.0, d[UPSTREAM], 1.0
    if q[VALID] != 0 and _get(_at(q[VALID], q[VALID_OUTER], q[VALID_INNER], o, i, np.uint8(0)), 0, _I64) == 0:
        return False, 0.0, 0.0, 0.0
    if q[SHARE] != 0:
        share = _get(_at(q[SHARE], q[SHARE_OUTER], q[SHARE_INNER], o, i, _F64), 0, _F64)
    if q[UP] != 0:
        upstream = _get(_at(q[UP], q[UP_OUTER], q[UP_INNER], o, i, _F64), 0, _F64)
    if q[BY_TARGET] != 0:
        w = np.nan
        if 0 <= y < q[CLASSES]:
            w = _get(_at(q[BY_TARGET], 1, 0, y, 0, _F64), 0, _F64)
    return True, d[ALPHA] * share * w, d[BETA] * share * (w if q[OPTIONS] & BETA_BY_TARGET else 1.0), upstream


@_inner()
def _is_carried(x, n):
    """Return whether float32 carries a coefficient, with an exponential's factor and among the sums over n classes."""
    return x == 0 or x != x or n * 2.0**-60 <= abs(x) <= 2.0**30


@_inner()
def _is_wanted(q, alpha, beta, upstream, shrunk):
    """Return whether a row is for this kernel: float32 leaves some, float64 takes all, or those that were left."""
    if q[OPTIONS] & REST == 0 and shrunk < 2.0**-64:
        return True
    n = q[CLASSES]
    carried = _is_carried(alpha, n) and _is_carried(alpha * upstream, n)
    carried = carried and _is_carried(beta, n) and _is_carried(beta * upstream, n)
    return carried == (q[OPTIONS] & REST == 0)


@_inner()
def _fill(to, n, x):
    _alone()
    for c in range(n):
        _put(to, c, x)


# -- Memory of any type ------------------------------------------------------------------------------------------------

# Of which type logits, gradient and targets are is known when a kernel runs: one is compiled for the type that is
# computed in, and not for each pair. Numbers of another type, or apart, are brought into memory of the kernel's own,
# and results delivered.
TYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int64")  # the last, of indices, is brought nowhere
_NUMBA_TYPES = (FLOAT16, BFLOAT16, types.float32, types.float64, types.uint8)


@_by_type
def _is_own(kind: Any, like: Any) -> Any:
    """Whether numbers are of the type that is computed in."""
    own = _NUMBA_TYPES.index(like)
    return lambda kind, like: kind == own


def _moves(brings: bool) -> Any:
    """Return a function that brings rows of numbers from memory of any type into the kernel's own, or delivers them.

    Row j starts ``places[j]`` numbers behind the address and goes ``step`` ahead; in the kernel's own memory it starts
    ``j * own_row`` behind the pointer and goes ``own_step`` ahead.
    """

    @intrinsic
    def loops(
        context: Any, address: Any, kind: Any, places: Any, rows: Any, step: Any, own: Any, own_row: Any, own_step: Any,
        n: Any,
    ) -> Any:  # fmt: skip
        like, i64 = own.dtype, ir.IntType(64)

        def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            address, kind, places, rows, step, own, own_row, own_step, n = arguments

            def move(there: Any, their_type: Any, here: Any) -> None:
                if brings:
                    x = _loaded(target, builder, there, their_type, like, apart=True)
                    _store(target, builder, here, like, x, like)
                else:
                    _store(target, builder, there, their_type, builder.load(here), like)

            for number, their_type in enumerate(_NUMBA_TYPES if brings else _NUMBA_TYPES[:4]):
                with builder.if_then(builder.icmp_signed("==", kind, ir.Constant(i64, number))):
                    base = builder.inttoptr(address, target.get_value_type(their_type).as_pointer())
                    with cgutils.for_range(builder, rows) as row:
                        start = builder.gep(base, [builder.load(builder.gep(places, [row.index]))])
                        mine = builder.gep(own, [builder.mul(row.index, own_row)])
                        with cgutils.for_range(builder, n) as column:
                            there = builder.gep(start, [builder.mul(column.index, step)])
                            move(there, their_type, builder.gep(mine, [builder.mul(column.index, own_step)]))
            return target.get_dummy_value()

        return types.void(types.int64, types.int64, places, types.int64, types.int64, own, *(types.int64,) * 3), build

    def function(
        address: Any, kind: Any, places: Any, rows: Any, step: Any, own: Any, own_row: Any, own_step: Any, n: Any
    ) -> None:
        _alone()
        loops(address, kind, places, rows, step, own, own_row, own_step, n)

    return _inner()(function)


_bring, _deliver = _moves(brings=True), _moves(brings=False)


@_inner()
def _factors(address, n, like):
    """Return the classes' factors in the type that is computed in; ones where there are none."""
    to = _new(n, like)
    for c in range(n):
        _put(to, c, _get(_pointer(address, _F64), c, _F64) if address != 0 else 1.0)
    return to


@_by_type
def _coefficient(t: Any, c: Any, alpha: Any, beta: Any, column: Any, row: Any) -> Any:
    """Return a_c, of distributions or of an index; `_target_from` made ``t``."""
    if isinstance(t, types.CPointer):
        return lambda t, c, alpha, beta, column, row: (
            alpha * (_read(t, c, alpha) * _read(column, c, alpha)) + beta * _read(row, c, alpha)
        )
    return lambda t, c, alpha, beta, column, row: (alpha if c == t else _as(0.0, alpha)) + beta * _read(row, c, alpha)


@_by_type
def _target_from(t: Any, start: Any) -> Any:
    """Return targets, or an index, as counted from a class."""
    if isinstance(t, types.CPointer):
        return lambda t, start: _shifted(t, start)
    return lambda t, start: np.int32(t - start)


@_by_type
def _is_bad(t: Any, c: Any, like: Any) -> Any:
    """Return 1 where a target is NaN, infinite or negative."""
    if isinstance(t, types.CPointer):
        return lambda t, c, like: np.int32(0 if (_read(t, c, like) >= 0) & (_read(t, c, like) < np.inf) else 1)
    return lambda t, c, like: np.int32(0)


@_inner()
def _dominant_slope(others, weight, rest, own):
    """Return A q_k - a_k: summed over the other classes where q_k > 1/2, and where that would cancel as it stands."""
    return rest - others * (weight / (1 + others)) if others < 1 else weight / (1 + others) - own


# -- Rows of many classes ----------------------------------------------------------------------------------------------


@_inner(FAST)
def _largest(z, n, like):
    _alone()
    m = _read(z, 0, like)
    for c in range(n):
        m = _larger(m, _read(z, c, like))
    return m


@_inner(FAST)
def _first_at(z, n, m):
    """Return the first class whose logit is m, the last if m is NaN."""
    _alone()
    first = np.int32(n - 1)
    for c in range(np.int32(n)):
        first = min(first, np.int32(c) if _read(z, c, m) == m else np.int32(n - 1))
    return np.int64(first)


@_inner(FAST)
def _exponentials(z, y, e, n, like):
    """Write exp(z_c) to ``e``; return their sum but for that of y, and whether all logits are small."""
    _alone()
    total, zero = 0.0, _as(0.0, like)
    most = limit = _magnitude(_as(32.0, like))
    for start in range(0, n, CHUNK):
        part, zs, es, at = zero, _shifted(z, start), _shifted(e, start), np.int32(y - start)
        for c in range(np.int32(min(CHUNK, n - start))):
            x = _read(zs, c, like)
            most = max(most, _magnitude(x))
            x = _exp(x)
            _put(es, c, x)
            part += x if c != at else zero
        total += part
    return total, most == limit


@_inner(FAST)
def _exponentials_of_difference(z, m, y, e, n):
    """Write exp(z_c - m) / unit to ``e``; return their sum but for that of y."""
    _alone()
    total, zero = 0.0, _as(0.0, m)
    for start in range(0, n, CHUNK):
        part, zs, es, at = zero, _shifted(z, start), _shifted(e, start), np.int32(y - start)
        for c in range(np.int32(min(CHUNK, n - start))):
            x = _exp_of_difference(_read(zs, c, m), m)
            _put(es, c, x)
            part += x if c != at else zero
        total += part
    return total


@_inner(FAST)
def _scaled(e, scale, n):
    _alone()
    for c in range(n):
        _put(e, c, _get(e, c, scale) * scale)


@_inner(FAST)
def _sums(z, m, k, t, alpha, beta, column, row, e, n):
    """Write exp(z_c - m) / unit to ``e``.

    Return their sum and that of the coefficients but for k's, the sum of a_c (m - z_c), and whether any coefficient is
    not 0, or any target bad.
    """
    _alone()
    others = rest = near = 0.0
    zero, one, bad = _as(0.0, m), _as(1.0, m), np.int32(0)
    used = _magnitude(zero)
    for start in range(0, n, CHUNK):
        zs, es, columns, rows = _shifted(z, start), _shifted(e, start), _shifted(column, start), _shifted(row, start)
        part_e = part_a = part_n = zero
        ts, at = _target_from(t, start), np.int32(k - start)
        for c in range(np.int32(min(CHUNK, n - start))):
            z_c, a = _read(zs, c, m), _coefficient(ts, c, alpha, beta, columns, rows)
            x = _exp_of_difference(z_c, m)
            _put(es, c, x)
            other = one if c != at else zero  # a factor: two sums of one condition are not vectorized
            part_e += x * other
            part_a += a * other
            gap = m - z_c if a != 0 else zero
            part_n += a * gap
            used = max(used, _magnitude(a))
            bad = max(bad, _is_bad(ts, c, m))
        others += part_e
        rest += part_a
        near += part_n
    return others, rest, near, used != 0, bad != 0


@_inner(FAST)
def _slopes(e, scale, t, alpha, beta, column, row, n):
    _alone()
    ts = _target_from(t, 0)
    for c in range(np.int32(n)):
        _put(e, c, _get(e, c, scale) * scale - _coefficient(ts, c, alpha, beta, column, row))


@_inner(inline="always")
def _index_row(z, y, alpha, beta, upstream, factors, g, n, like, shrunk):
    """Return the loss of an index without smoothing, and whether it is bad; write the gradient over exponentials."""
    if alpha == 0:
        _fill(g, n, 0.0)
        return 0.0, False
    others, small = _exponentials(z, y, g, n, like)
    own, unit = _get(g, y, _F64), 1.0
    if small:
        loss = _log1p(others / own)
    else:
        m, unit = _largest(z, n, like), shrunk
        others = _exponentials_of_difference(z, m, y, g, n) * unit
        if not abs(m) < np.inf:
            others = np.nan  # no softmax
        own, top, target = _get(g, y, _F64) * unit, np.float64(m), _get(z, y, _F64)
        loss = _log1p(others) if target == top else _log(others + own) + (top - target) if others == others else np.nan
    slope = alpha * upstream
    if slope == 0:
        _fill(g, n, 0.0)
    else:
        scale = slope / (others + own)
        _scaled(g, _as(scale * unit, like), n)
        _put(g, y, -others * scale)
    return alpha * loss, False


@_inner(inline="always")
def _dense_row(z, t, alpha, beta, upstream, factors, g, n, like, shrunk):
    """Return the loss of a distribution or a smoothed index, and whether it is bad; write the gradient."""
    column, row = factors
    m = _largest(z, n, like)
    k = _first_at(z, n, m)
    others, rest, near, used, bad = _sums(z, m, k, t, _as(alpha, like), _as(beta, like), column, row, g, n)
    if (not used or upstream == 0) and not bad:
        _fill(g, n, 0.0)
    if not used and not bad:
        return 0.0, False
    if bad or not abs(m) < np.inf:
        _fill(g, n, np.nan if upstream != 0 else 0.0)
        return np.nan, bad
    others *= shrunk
    own = np.float64(_coefficient(_target_from(t, 0), k, _as(alpha, like), _as(beta, like), column, row))
    weight = rest + own
    if upstream != 0:
        scale = weight * upstream / (1 + others) * shrunk
        on_t, on_all = _as(alpha * upstream, like), _as(beta * upstream, like)
        _slopes(g, _as(scale, like), t, on_t, on_all, column, row, n)
        _put(g, k, _dominant_slope(others, weight, rest, own) * upstream)
    return weight * _log1p(others) + near, False


@_inner(inline="always")
def _index(q, o, i, place, kept, like):
    """Return a row's target, as what its coefficients are made of and as an index."""
    y = _get(_at(q[T], q[T_OUTER], q[T_INNER], o, i, _I64), 0, _I64)
    return y if 0 <= y < q[CLASSES] else 0, y


@_inner(inline="always")
def _distribution(q, o, i, place, kept, like):
    if q[T_CLASS] == 1 and _is_own(q[T_TYPE], like):
        return _at(q[T], q[T_OUTER], q[T_INNER], o, i, like), 0
    _put(place, 0, o * q[T_OUTER] + i * q[T_INNER])
    _bring(q[T], q[T_TYPE], place, 1, q[T_CLASS], kept, 0, 1, q[CLASSES])
    return kept, 0


@_inner()
def _no_factors(q, like):
    return _new(0, like), _new(0, like)


@_inner()
def _column_and_row(q, like):
    return _factors(q[COLUMN], q[CLASSES], like), _factors(q[ROW], q[CLASSES], like)


def _over_rows(like: Any, target_of: Any, factors_of: Any, row_of: Any) -> Any:
    """Return the kernel that walks along rows of many classes."""

    def rows(memory: Any) -> None:
        address = _address(memory)
        q, d = _integers(address), _floats(address)
        counters, n, wanted, z_type = _pointer(address, _I64), q[CLASSES], q[G] != 0, q[Z_TYPE]
        shrunk = 1.0 / _as(_exp_of_difference(like, like), _F64)
        factors = factors_of(q, like)
        z_kept, g_kept, t_kept, place = _new(n, like), _new(n, like), _new(n, like), _new(1, _I64)
        own = _is_own(z_type, like)
        z_stays, g_stays = own and q[Z_CLASS] == 1 and q[OPTIONS] & APART == 0, own and q[G_CLASS] == 1 and wanted
        while True:
            block = _fetch_add(counters, NEXT)
            if block >= q[BLOCKS]:
                break
            total = 0.0
            for r in range(block * q[BLOCK_ROWS], min((block + 1) * q[BLOCK_ROWS], q[ROWS])):
                o, i = r // q[INNER], r % q[INNER]
                t, y = target_of(q, o, i, place, t_kept, like)
                valid, alpha, beta, upstream = _of_row(q, d, o, i, y)
                bad = valid and (y < 0 or y >= n)
                if bad:
                    alpha = np.nan
                if not _is_wanted(q, alpha, beta, upstream, shrunk):
                    _fetch_add(counters, LEFT)
                    continue
                z, g, loss = z_kept, g_kept, 0.0
                if g_stays:
                    g = _at(q[G], q[G_OUTER], q[G_INNER], o, i, like)
                if valid:
                    if z_stays:
                        z = _at(q[Z], q[Z_OUTER], q[Z_INNER], o, i, like)
                    else:
                        _put(place, 0, o * q[Z_OUTER] + i * q[Z_INNER])
                        _bring(q[Z], z_type, place, 1, q[Z_CLASS], z_kept, 0, 1, n)
                    loss, found = row_of(z, t, alpha, beta, upstream, factors, g, n, like, shrunk)
                    bad = bad or found
                else:
                    _fill(g, n, 0.0)
                if bad:
                    _fetch_add(counters, BAD)
                if wanted and not g_stays:
                    _put(place, 0, o * q[G_OUTER] + i * q[G_INNER])
                    _deliver(q[G], z_type, place, 1, q[G_CLASS], g_kept, 0, 1, n)
                total += loss
                if q[LOSSES] != 0:
                    _put(_pointer(q[LOSSES], _F64), r, loss)
            sums = _pointer(q[SUMS], _F64)
            _put(sums, block, total + _get(sums, block, _F64))
        for memory in (z_kept, g_kept, t_kept, factors[0], factors[1]):
            _free(memory)
        _free(place)

    return rows


# -- Tiles of rows of few classes: a vector holds the same class of neighbouring rows ---------------------------------


@_inner()
def _is_whole(kept, places, step, count):
    """Whether all rows of a tile are kept, and lie beside each other."""
    start, whole = _get(places, 0, _I64), step != 1
    for j in range(count):
        whole = whole and _get(kept, j, _I64) != 0 and _get(places, j, _I64) == start + j
    return whole


@_inner()
def _of_classes(places, step, n, to):
    """Return places of the classes of a tile whose rows lie beside each other."""
    for c in range(n):
        _put(to, c, _get(places, 0, _I64) + c * step)
    return to


@_inner(inline="always")
def _tile_read(address, kind, places, of_classes, step, b, n, count):
    """Bring rows at these places into a tile, class by class."""
    if step != 1 and _get(places, count - 1, _I64) - _get(places, 0, _I64) == count - 1:
        _bring(address, kind, _of_classes(places, step, n, of_classes), n, 1, b, TILE, 1, count)
    else:
        _bring(address, kind, places, count, step, b, 1, TILE, n)


@_inner(inline="always")
def _tile_write(address, kind, kept, places, of_classes, step, b, n, count):
    """Write a tile to its rows' places, but for rows that are not kept."""
    if _is_whole(kept, places, step, count):
        _deliver(address, kind, _of_classes(places, step, n, of_classes), n, 1, b, TILE, 1, count)
    else:
        start = 0
        while start < count:  # runs of rows that are kept
            stop = start
            while stop < count and _get(kept, stop, _I64) != 0:
                stop += 1
            _deliver(address, kind, _shifted(places, start), stop - start, step, _shifted(b, start), 1, TILE, n)
            start = stop + 1


@_inner(FAST)
def _tile_tops(b, n, tops, shifts, like):
    """Find each row's largest logit, and what to subtract before exp: nothing where all logits are small."""
    _alone()
    for j in range(TILE):
        _put(tops, j, _get(b, j, like))
        _put(shifts, j, abs(_get(b, j, like)))
    for c in range(1, n):
        for j in range(TILE):
            x = _get(b, c * TILE + j, like)
            _put(tops, j, _larger(_get(tops, j, like), x))
            _put(shifts, j, _larger(_get(shifts, j, like), abs(x)))
    for j in range(TILE):
        _put(shifts, j, _as(0.0, like) if _get(shifts, j, like) <= _as(32.0, like) else _get(tops, j, like))


@_inner(FAST)
def _tile_exponentials(b, n, ys, shifts, others, like):
    """Make exponentials of logits; add up each row's but for that of its y."""
    _alone()
    for j in range(TILE):
        _put(others, j, _as(0.0, like))
    for c in range(n):
        for j in range(TILE):
            x = _exp_of_difference(_get(b, c * TILE + j, like), _get(shifts, j, like))
            _put(b, c * TILE + j, x)
            _put(others, j, _get(others, j, like) + (x if np.int32(c) != _get(ys, j, _I32) else _as(0.0, like)))


@_inner()
def _tile_index_losses(tops, shifts, targets, others, owns, slopes, losses, at_y, shrunk):
    """Return each row's loss, what its exponentials are to be multiplied by, and the slope at its target."""
    _alone()
    for j in range(TILE):
        top, shift, target = _get(tops, j, _F64), _get(shifts, j, _F64), _get(targets, j, _F64)
        other, own = _get(others, j, _F64) * shrunk, _get(owns, j, _F64) * shrunk
        other = other if abs(top) < np.inf else np.nan  # no softmax
        total = other + own
        small = (shift == 0) & (top != 0)  # nothing was subtracted, and so nothing is to be added
        near = _log1p(other / own if small else other)
        far = _log(total) + (top - target) if total == total else np.nan
        _put(losses, j, near if small or target == top else far)
        scale = _get(slopes, j, _F64) / total
        _put(slopes, j, scale * shrunk)
        _put(at_y, j, -other * scale)


@_inner(FAST)
def _tile_scaled(b, n, scales, like):
    _alone()
    for c in range(n):
        for j in range(TILE):
            _put(b, c * TILE + j, _get(b, c * TILE + j, like) * _as(_get(scales, j, _F64), like))


@_inner(FAST)
def _tile_coefficients(a, n, ys, alphas, betas, column, row, is_index, like):
    """Make coefficients of distributions, or of indices."""
    _alone()
    for c in range(n):
        for j in range(TILE):
            alpha, beta = _as(_get(alphas, j, _F64), like), _as(_get(betas, j, _F64), like)
            if is_index:
                own = alpha if np.int32(c) == _get(ys, j, _I32) else _as(0.0, like)
            else:
                own = alpha * (_get(a, c * TILE + j, like) * _get(column, c, like))
            _put(a, c * TILE + j, own + beta * _get(row, c, like))


@_inner()
def _tile_bad(a, n, bad, like):
    """Mark rows with a target that is NaN, infinite or negative."""
    _alone()
    for c in range(n):
        for j in range(TILE):
            t = _get(a, c * TILE + j, like)
            _put(bad, j, max(_get(bad, j, _I32), np.int32(0 if (t >= 0) & (t < np.inf) else 1)))


@_inner(FAST)
def _tile_sums(b, a, n, ks, tops, others, rests, nears, used, like):
    """Make exponentials of logits; add up each row's, and its coefficients, but for its dominant class."""
    _alone()
    zero = _as(0.0, like)
    for j in range(TILE):
        _put(ks, j, np.int32(n - 1))
        _put(others, j, zero)
        _put(rests, j, zero)
        _put(nears, j, zero)
        _put(used, j, zero)
    for back in range(n):
        c = n - 1 - back
        for j in range(TILE):
            is_top = _get(b, c * TILE + j, like) == _get(tops, j, like)
            _put(ks, j, np.int32(c) if is_top else _get(ks, j, _I32))
    for c in range(n):
        for j in range(TILE):
            z, top, x = _get(b, c * TILE + j, like), _get(tops, j, like), _get(a, c * TILE + j, like)
            e, other = _exp_of_difference(z, top), np.int32(c) != _get(ks, j, _I32)
            _put(b, c * TILE + j, e)
            _put(others, j, _get(others, j, like) + (e if other else zero))
            _put(rests, j, _get(rests, j, like) + (x if other else zero))
            _put(nears, j, _get(nears, j, like) + (x * (top - z) if x != 0 else zero))
            _put(used, j, _larger(_get(used, j, like), abs(x)))


@_inner()
def _tile_dense_losses(tops, others, rests, owns, nears, ups, losses, scales, at_k, shrunk):
    _alone()
    for j in range(TILE):
        other, rest, own, up = (
            _get(others, j, _F64) * shrunk,
            _get(rests, j, _F64),
            _get(owns, j, _F64),
            _get(ups, j, _F64),
        )
        other = other if abs(_get(tops, j, _F64)) < np.inf else np.nan  # no softmax
        weight = rest + own
        _put(losses, j, weight * _log1p(other) + _get(nears, j, _F64))
        _put(scales, j, weight * up / (1 + other) * shrunk)
        _put(at_k, j, _dominant_slope(other, weight, rest, own) * up)


@_inner(FAST)
def _tile_slopes(b, a, n, scales, ups, like):
    _alone()
    for c in range(n):
        for j in range(TILE):
            e, x = _get(b, c * TILE + j, like), _get(a, c * TILE + j, like)
            _put(b, c * TILE + j, e * _as(_get(scales, j, _F64), like) - x * _as(_get(ups, j, _F64), like))


def _over_tiles(like: Any, is_index: bool, is_sparse: bool) -> Any:
    """Return the kernel that walks along tiles; sparse are indices without smoothing."""

    def tiles(memory: Any) -> None:
        address = _address(memory)
        q, d = _integers(address), _floats(address)
        counters, n, wanted = _pointer(address, _I64), q[CLASSES], q[G] != 0
        shrunk = 1.0 / _as(_exp_of_difference(like, like), _F64)
        column, row = _factors(q[COLUMN], n, like), _factors(q[ROW], n, like)
        b, a = _new(n * TILE, like), _new(1 if is_sparse else n * TILE, like)
        of_type, of_float = _new(6 * TILE, like), _new(9 * TILE, _F64)
        of_int, places = _new(4 * TILE, _I32), _new(4 * TILE, _I64)
        tops, shifts, others = of_type, _shifted(of_type, TILE), _shifted(of_type, 2 * TILE)
        rests, nears, used = (_shifted(of_type, 3 * TILE), _shifted(of_type, 4 * TILE), _shifted(of_type, 5 * TILE))
        alphas, betas, ups = of_float, _shifted(of_float, TILE), _shifted(of_float, 2 * TILE)
        owns, targets, slopes = (
            _shifted(of_float, 3 * TILE),
            _shifted(of_float, 4 * TILE),
            _shifted(of_float, 5 * TILE),
        )
        losses, at_own = _shifted(of_float, 6 * TILE), _shifted(of_float, 7 * TILE)
        ys, kept, bad, ks = of_int, _shifted(of_int, TILE), _shifted(of_int, 2 * TILE), _shifted(of_int, 3 * TILE)
        z_places, g_places, t_places = places, _shifted(places, TILE), _shifted(places, 2 * TILE)
        of_classes = _shifted(places, 3 * TILE)
        for j in range(n * TILE):
            _put(b, j, 0.0)
            if not is_sparse:
                _put(a, j, 0.0)
        for j in range(TILE):
            _put(ys, j, 0)
            _put(targets, j, 0.0)
            _put(alphas, j, 0.0)
            _put(betas, j, 0.0)
            _put(ups, j, 0.0)
            _put(slopes, j, 0.0)
            _put(owns, j, 1.0)
        while True:
            block = _fetch_add(counters, NEXT)
            if block >= q[BLOCKS]:
                break
            total, stop = 0.0, min((block + 1) * q[BLOCK_ROWS], q[ROWS])
            for first in range(block * q[BLOCK_ROWS], stop, TILE):
                count = min(TILE, stop - first)
                for j in range(count):
                    o, i = (first + j) // q[INNER], (first + j) % q[INNER]
                    y = _get(_at(q[T], q[T_OUTER], q[T_INNER], o, i, _I64), 0, _I64) if is_index else 0
                    valid, alpha, beta, upstream = _of_row(q, d, o, i, y)
                    is_bad = valid and (y < 0 or y >= n)
                    alpha = np.nan if is_bad else alpha
                    y = y if 0 <= y < n else 0
                    wanted_row = _is_wanted(q, alpha, beta, upstream, shrunk)
                    if not wanted_row:
                        _fetch_add(counters, LEFT)
                    _put(z_places, j, o * q[Z_OUTER] + i * q[Z_INNER])
                    _put(g_places, j, o * q[G_OUTER] + i * q[G_INNER])
                    _put(t_places, j, o * q[T_OUTER] + i * q[T_INNER])
                    _put(ys, j, y)
                    _put(kept, j, 1 if wanted_row else 0)
                    _put(bad, j, 1 if is_bad else 0)
                    _put(used, j, 1.0 if valid else 0.0)
                    _put(alphas, j, alpha)
                    _put(betas, j, beta)
                    _put(ups, j, upstream)
                    _put(slopes, j, alpha * upstream)
                _tile_read(q[Z], q[Z_TYPE], z_places, of_classes, q[Z_CLASS], b, n, count)
                _tile_tops(b, n, tops, shifts, like)
                if is_sparse:
                    for j in range(count):
                        _put(targets, j, _get(b, _get(ys, j, _I64) * TILE + j, _F64))
                    _tile_exponentials(b, n, ys, shifts, others, like)
                    for j in range(count):
                        _put(owns, j, _get(b, _get(ys, j, _I64) * TILE + j, _F64))
                    _tile_index_losses(tops, shifts, targets, others, owns, slopes, losses, at_own, shrunk)
                    for j in range(count):
                        alpha = _get(alphas, j, _F64)
                        _put(losses, j, alpha * _get(losses, j, _F64))
                        _put(used, j, 1.0 if alpha != 0 else 0.0)
                    if wanted:
                        _tile_scaled(b, n, slopes, like)
                else:
                    if not is_index:
                        _tile_read(q[T], q[T_TYPE], t_places, of_classes, q[T_CLASS], a, n, count)
                        for j in range(count):
                            if _get(used, j, _F64) == 0:  # ignored or masked, whatever lies there
                                for c in range(n):
                                    _put(a, c * TILE + j, 0.0)
                        _tile_bad(a, n, bad, like)
                        for j in range(count):
                            if _get(bad, j, _I64) != 0:
                                _put(alphas, j, np.nan)
                    _tile_coefficients(a, n, ys, alphas, betas, column, row, is_index, like)
                    _tile_sums(b, a, n, ks, tops, others, rests, nears, used, like)
                    for j in range(count):
                        k = _get(ks, j, _I64)
                        _put(ys, j, k)
                        _put(owns, j, _get(a, k * TILE + j, _F64))
                    _tile_dense_losses(tops, others, rests, owns, nears, ups, losses, slopes, at_own, shrunk)
                    if wanted:
                        _tile_slopes(b, a, n, slopes, ups, like)
                for j in range(count):
                    is_bad, is_used = _get(bad, j, _I64) != 0, _get(used, j, _F64) != 0
                    loss = _get(losses, j, _F64) if is_used else 0.0
                    loss = np.nan if is_bad else loss
                    if is_bad:
                        _fetch_add(counters, BAD)
                    if _get(kept, j, _I64) != 0:
                        total += loss
                        if q[LOSSES] != 0:
                            _put(_pointer(q[LOSSES], _F64), first + j, loss)
                    if wanted:
                        if is_bad or not is_used or _get(ups, j, _F64) == 0:
                            for c in range(n):
                                _put(b, c * TILE + j, np.nan if is_bad and _get(ups, j, _F64) != 0 else 0.0)
                        else:
                            _put(b, _get(ys, j, _I64) * TILE + j, _get(at_own, j, _F64))
                if wanted:
                    _tile_write(q[G], q[Z_TYPE], kept, g_places, of_classes, q[G_CLASS], b, n, count)
            sums = _pointer(q[SUMS], _F64)
            _put(sums, block, total + _get(sums, block, _F64))
        for memory in (column, row, b, a, of_type):
            _free(memory)
        _free(of_float)
        _free(of_int)
        _free(places)

    return tiles


# -- Binary losses: pieces of elements ---------------------------------------------------------------------------------

_K15, _K13, _K11, _K9, _K7, _K5, _K3 = (np.float32(1 / k) for k in (15, 13, 11, 9, 7, 5, 3))
_TWO = np.float32(2)


@_by_type
def _exp_of_negative(x: Any) -> Any:
    """Return exp(x) / unit for x <= 0."""

    def of_float32(x: Any) -> Any:
        x = x if x > _LOWEST32 else _LOWEST32
        n = x * _LOG2_E + _ROUND32_UNIT
        whole = n - _ROUND32_UNIT
        return _power32(x - whole * _LN2_HIGH - whole * _LN2_LOW, n)

    return of_float32 if x is types.float32 else lambda x: _exp_of_difference(x, 0.0)


@_by_type
def _log1p_of_exp(e: Any, scaled: Any, shrunk: Any) -> Any:
    """Return log(1 + e) / unit, e from 0 to 1."""

    def of_float32(e: Any, scaled: Any, shrunk: Any) -> Any:
        s = scaled / (_TWO + e)  # log(1 + e) = 2 atanh(e / (2 + e))
        q = (s * shrunk) * (s * shrunk)
        p = ((((((_K15 * q + _K13) * q + _K11) * q + _K9) * q + _K7) * q + _K5) * q + _K3) * q + _ONE
        return _TWO * s * p

    return of_float32 if e is types.float32 else lambda e, scaled, shrunk: _log1p(e) / shrunk


@_inner(FAST)
def _elements(x, t, pos, neg, ups, up, keep, spread, by_label, shrunk, g, losses, n):
    """Write losses and slopes of a piece; return the losses' sum, and whether a target is bad."""
    _alone()
    total, bad = 0.0, np.int32(0)
    zero, half, one, nan = _as(0.0, keep), _as(0.5, keep), _as(1.0, keep), _as(np.nan, keep)
    # Whole vectors alone: what is left over is compiled apart, and its last bits can be others.
    for c in range((n + VECTORS - 1) // VECTORS * VECTORS):
        z, t_c, w_pos, w_neg = _read(x, c, keep), _read(t, c, keep), _read(pos, c, keep), _read(neg, c, keep)
        t_c = t_c if (t_c >= zero) & (t_c < np.inf) else nan
        of_label = w_pos if t_c > half else w_neg
        w_pos, w_neg = of_label if by_label else w_pos, of_label if by_label else w_neg
        p, m = w_pos * (keep * t_c + spread), w_neg * (keep * (one - t_c) + spread)
        e = _exp_of_negative(-abs(z))
        e_1 = e * shrunk
        r = one / (one + e_1)
        above = z > zero
        a, b = m if above else p, p if above else m
        linear = a * abs(z)
        linear = linear if a != 0 else zero
        loss = ((p + m) * _log1p_of_exp(e_1, e, shrunk)) * shrunk + linear
        slope = a * r - (b * (e * r)) * shrunk
        slope = slope if above else -slope
        known = (z == z) | ((p == 0) & (m == 0))
        loss, slope = loss if known else nan, slope if known else nan
        _put(losses, c, loss)
        factor = up * _read(ups, c, keep)
        _put(g, c, zero if (slope == 0) | (factor == 0) else slope * factor)
    for c in range(n):
        total += np.float64(_get(losses, c, keep))
        t_c = _read(t, c, keep)
        bad = max(bad, np.int32(0 if (t_c >= zero) & (t_c < np.inf) else 1))
    return total, bad != 0


@_inner()
def _weight(q, name, o, i, c):
    """Return a factor of an element, 1 where there is none."""
    if q[name] == 0:
        return 1.0
    return _get(_at(q[name], q[name + 1], q[name + 2], o, i, _F64), c * q[name + 3], _F64)


@_inner(inline="always")
def _deliver_kept(address, kind, places, rows, step, x, kept, whole, n):
    """Write parts of rows, but for what is not kept."""
    if whole:
        _deliver(address, kind, places, rows, step, x, n, 1, n)
    else:
        for j in range(rows):
            for c in range(n):
                if _get(kept, j * n + c, _I64) != 0:
                    _deliver(address, kind, _shifted(places, j), 1, 1, _shifted(x, j * n + c), 0, 1, 1)
                _put(places, j, _get(places, j, _I64) + step)


def _over_elements(like: Any) -> Any:
    """Return the kernel that walks along the elements of a binary loss, the last axis of which is a row."""

    def elements(memory: Any) -> None:
        address = _address(memory)
        q, d = _integers(address), _floats(address)
        counters, n, wanted, inner = _pointer(address, _I64), q[CLASSES], q[G] != 0, q[INNER]
        shrunk_64 = 1.0 / _as(_exp_of_negative(_as(-0.0, like)), _F64)
        shrunk, keep, spread, up = (
            _as(shrunk_64, like),
            _as(d[KEEP], like),
            _as(d[SPREAD], like),
            _as(d[UPSTREAM], like),
        )
        rows = max(1, PIECE // n)
        size = min(n, PIECE) if rows == 1 else rows * n
        room = size + VECTORS
        x, t, g, losses, ups = _new(room, like), _new(room, like), _new(room, like), _new(room, like), _new(room, like)
        pos, neg, kept = _new(room, like), _new(room, like), _new(size, np.int8(0))
        places = _new(4 * rows, _I64)
        z_places, t_places, g_places = places, _shifted(places, rows), _shifted(places, 2 * rows)
        loss_places = _shifted(places, 3 * rows)
        narrow, rest = shrunk_64 > 2.0**-65, q[OPTIONS] & REST != 0
        # Weights that all rows share are made once.
        of_rows = q[COLUMN_OUTER] | q[COLUMN_INNER] | q[ROW_OUTER] | q[ROW_INNER]
        fixed = q[SHARE] == 0 and q[VALID] == 0 and of_rows == 0 and not rest
        length = n * rows if fixed else 0
        all_pos, all_neg = _new(length + VECTORS, like), _new(length + VECTORS, like)
        for c in range(length):
            w_pos, w_neg = d[ALPHA] * _weight(q, POSITIVE, 0, 0, c % n), d[ALPHA] * _weight(q, NEGATIVE, 0, 0, c % n)
            fixed = fixed and (not narrow or (_is_carried(w_pos, 1) and _is_carried(w_neg, 1)))
            _put(all_pos, c, w_pos)
            _put(all_neg, c, w_neg)
        flat = fixed and q[OPTIONS] & FLAT != 0
        for c in range(size):
            _put(ups, c, 1.0)
            _put(kept, c, 1)
        while True:
            block = _fetch_add(counters, NEXT)
            if block >= q[BLOCKS]:
                break
            total, stop = 0.0, min((block + 1) * q[BLOCK_ROWS], q[ROWS])
            for first in range(block * q[BLOCK_ROWS], stop, rows):
                count, row_loss = min(rows, stop - first), 0.0
                for start in range(0, n, size if rows == 1 else n):
                    width, whole = min(n - start, size), True
                    for j in range(count):
                        o, i = (first + j) // inner, (first + j) % inner
                        _put(z_places, j, o * q[Z_OUTER] + i * q[Z_INNER] + start * q[Z_CLASS])
                        _put(t_places, j, o * q[T_OUTER] + i * q[T_INNER] + start * q[T_CLASS])
                        _put(g_places, j, o * q[G_OUTER] + i * q[G_INNER] + start * q[G_CLASS])
                        _put(loss_places, j, (first + j) * n + start)
                    if not flat:
                        _bring(q[Z], q[Z_TYPE], z_places, count, q[Z_CLASS], x, width, 1, width)
                        _bring(q[T], q[T_TYPE], t_places, count, q[T_CLASS], t, width, 1, width)
                    for j in range(count):
                        o, i = (first + j) // inner, (first + j) % inner
                        if q[UP] != 0:
                            for c in range(width):
                                _put(ups, j * width + c, _weight(q, UP, o, i, start + c))
                        if not fixed:
                            valid_row = _at(q[VALID], q[VALID_OUTER], q[VALID_INNER], o, i, np.uint8(0))
                            for c in range(width):
                                at, share = j * width + c, d[ALPHA] * _weight(q, SHARE, o, i, start + c)
                                w_pos = share * _weight(q, POSITIVE, o, i, start + c)
                                w_neg = share * _weight(q, NEGATIVE, o, i, start + c)
                                if q[VALID] != 0 and _get(valid_row, (start + c) * q[VALID_CLASS], _I64) == 0:
                                    w_pos = w_neg = 0.0
                                    _put(t, at, 0.0)
                                if narrow or rest:
                                    mine = (_is_carried(w_pos, 1) and _is_carried(w_neg, 1)) != rest
                                    _put(kept, at, 1 if mine else 0)
                                    whole = whole and mine
                                    if not mine:
                                        w_pos = w_neg = 0.0
                                        _put(t, at, 0.0)
                                        _fetch_add(counters, LEFT)
                                _put(pos, at, w_pos)
                                _put(neg, at, w_neg)
                    used_pos, used_neg = pos, neg
                    if fixed:
                        used_pos, used_neg = _shifted(all_pos, start), _shifted(all_neg, start)
                    by_label = q[OPTIONS] & BY_LABEL != 0
                    # Whole vectors where they lie, then what is left over, of memory with room for a whole one.
                    n_all, done = count * width, 0
                    zs, given = _at(q[Z], n, 0, first, 0, like), _at(q[T], n, 0, first, 0, like)
                    while done < n_all:
                        m = n_all // VECTORS * VECTORS if done == 0 and n_all >= VECTORS else n_all - done
                        xs, ts, gs = _shifted(x, done), _shifted(t, done), _shifted(g, done)
                        apart = flat and m % VECTORS == 0
                        if apart:
                            xs, ts = _shifted(zs, start), _shifted(given, start)
                            if wanted:
                                gs = _shifted(_at(q[G], n, 0, first, 0, like), start)
                        elif flat:
                            for c in range(m):
                                _put(xs, c, _read(zs, start + done + c, like))
                                _put(ts, c, _read(given, start + done + c, like))
                        part, bad = _elements(
                            xs, ts, _shifted(used_pos, done), _shifted(used_neg, done), _shifted(ups, done), up,
                            keep, spread, by_label, shrunk, gs, _shifted(losses, done), m
                        )  # fmt: skip
                        if flat and not apart and wanted:
                            to = _shifted(_at(q[G], n, 0, first, 0, like), start)
                            for c in range(m):
                                _put(to, done + c, _get(gs, c, like))
                        total += part
                        done += m
                        if bad:
                            _fetch_add(counters, BAD)
                    if wanted and not flat:
                        _deliver_kept(q[G], q[Z_TYPE], g_places, count, q[G_CLASS], g, kept, whole, width)
                    if q[LOSSES] != 0 and q[OPTIONS] & PER_ROW == 0:
                        _deliver_kept(q[LOSSES], q[Z_TYPE], loss_places, count, 1, losses, kept, whole, width)
                    elif q[LOSSES] != 0:
                        for j in range(count):
                            r, at = first + j, j * width
                            row_loss = row_loss if start > 0 else 0.0
                            for c in range(width):
                                row_loss += _get(losses, at + c, _F64)
                            if start + width == n:
                                of_rows_64 = _pointer(q[LOSSES], _F64)
                                _put(of_rows_64, r, row_loss + _get(of_rows_64, r, _F64))
            sums = _pointer(q[SUMS], _F64)
            _put(sums, block, total + _get(sums, block, _F64))
        for memory in (x, t, g, losses, ups, pos, neg, all_pos, all_neg):
            _free(memory)
        _free(kept)
        _free(places)

    return elements


# -- Compiled ----------------------------------------------------------------------------------------------------------


KERNELS = {
    "index_rows": lambda like: _over_rows(like, _index, _no_factors, _index_row),
    "smoothed_rows": lambda like: _over_rows(like, _index, _column_and_row, _dense_row),
    "distribution_rows": lambda like: _over_rows(like, _distribution, _column_and_row, _dense_row),
    "index_tiles": lambda like: _over_tiles(like, is_index=True, is_sparse=True),
    "smoothed_tiles": lambda like: _over_tiles(like, is_index=True, is_sparse=False),
    "distribution_tiles": lambda like: _over_tiles(like, is_index=False, is_sparse=False),
    "elements": _over_elements,
}


@lru_cache(maxsize=64)
def compiled(name: str, inside: str) -> Any:
    """Return the kernel of a name that computes in this type."""
    kernel = KERNELS[name]({"float32": _F32, "float64": _F64}[inside])
    # Two processes that compile this function for another type at once shall not write to the same file.
    kernel.__qualname__ = f"{name}_{inside}"
    return Kernel(*_code_of(kernel))


@global_compiler_lock
def _code_of(kernel: Any) -> tuple[str, bytes]:
    """Return a kernel's name and object code, of the folder in which Numba keeps what it compiled, or compiled now."""
    options = {"nopython": True, "error_model": "numpy"}
    function: Any = CFunc(kernel, ((types.voidptr,), types.void), locals={}, options=options)
    cache = code = None
    # Without a folder, or with one that is broken or closed to us, each process compiles.
    with suppress(Exception):
        cache = _Cache(kernel)
        code = cache.load_overload(function._sig, registry.cpu_target.target_context)
    if code is None:
        compiled = function._compile_uncached()
        code = _Code.reduce(compiled)
        if cache is not None:
            with suppress(Exception):
                cache.flush()
                cache.save_overload(function._sig, compiled)
    return code


class _Code(CacheImpl):
    """What is kept of a kernel.

    Numba would keep what other functions can be compiled with, too, and load it into its own memory; there, functions
    of one name share the code that came first, and a kernel that was compiled has other last bits than one that was
    kept.
    """

    @staticmethod
    def reduce(compiled: Any) -> tuple[str, bytes]:
        _, _, (code, _) = compiled.library.serialize_using_object_code()
        return compiled.fndesc.llvm_cfunc_wrapper_name, code

    def rebuild(self, context: Any, kept: tuple[str, bytes]) -> tuple[str, bytes]:
        return kept

    def check_cachable(self, compiled: Any) -> bool:
        return True


class _Cache(Cache):
    _impl_class = _Code


class Kernel:
    """A kernel in memory of its own: its ``address``, and ``ctypes``, a function of the address of its arguments."""

    def __init__(self, name: str, code: bytes) -> None:
        target = binding.Target.from_triple(binding.get_process_triple())
        machine = target.create_target_machine(codemodel="jitdefault", jit=True)
        self.engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        self.engine.add_object_file(binding.ObjectFileRef.from_data(code))
        self.engine.finalize_object()
        self.address = self.engine.get_function_address(name)
        self.ctypes = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address)
