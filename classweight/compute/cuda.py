"""CuPy underneath: two CUDA kernels for index targets, as source. Nothing here needs CuPy or a device."""

from __future__ import annotations

THREADS = 256

SOURCE = r"""
// Compiled with -DLOGIT, the logits' type, -DREAL, the type computed in, and -DLANES, the threads that share a row: 1
// where the class axis is not the last, for then neighbouring rows are neighbours in memory; else up to a warp, or a
// block.
//
// A row's coefficients are a_c = alpha [c = y] + beta shared_c. With k the dominant class and e_c = exp(z_c - z_k),
//     R = sum_{c != k} e_c,   rest = sum_{c != k} a_c,   A = rest + a_k,
//     loss = A log1p(R) + sum_c a_c (z_k - z_c),   gradient = A e_c / (1 + R) - a_c,   at k: rest - A R / (1 + R).

#ifdef __CUDACC__
// Half types are held as their bits, so that no header is needed and each conversion rounds once.
struct Half {
    unsigned short bits;
    __device__ explicit Half(float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
    __device__ explicit Half(double x) { asm("cvt.rn.f16.f64 %0, %1;" : "=h"(bits) : "d"(x)); }
    __device__ operator float() const {
        float x;
        asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
        return x;
    }
};

struct Bfloat {
    unsigned short bits;
    __device__ explicit Bfloat(float x) {
        unsigned int b = __float_as_uint(x);
        bits = x != x ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
    }
    // A float32 rounded to odd keeps in its last bit that something was cut off.
    __device__ explicit Bfloat(double x) : Bfloat(to_odd(x)) {}
    __device__ operator float() const { return __uint_as_float((unsigned int)bits << 16); }
    __device__ static float to_odd(double x) {
        float cut = __double2float_rz(x);
        return cut == x ? cut : __uint_as_float(__float_as_uint(cut) | 1);
    }
};
#endif

// What one pass knows of the classes so far: the dominant one, and the sums over the others. Each new dominant class
// makes an other of the last, and every distance is counted from the new one on.
struct Seen {
    REAL top, own, others, rest, near;
    int k, used;  // whether a coefficient is not 0: those of both signs may add up to 0, too

    __device__ explicit Seen(int classes) : own(0), others(0), rest(0), near(0), k(classes), used(0) {
        top = log((REAL)0);  // NVRTC has no INFINITY
    }

    __device__ void add(REAL x, REAL a, int c, int classes) {
        used |= a != 0;
        REAL distance = x == top ? 0 : x > top ? x - top : top - x;
        REAL e = x < 0 && x - x != 0 ? 0 : exp(-distance);  // 0 of -inf, at whatever distance
        if (x > top) {
            put_behind(rest + own, distance);
            others = (others + (k < classes)) * e;
            rest += own;
            top = x;
            own = a;
            k = c;
        } else {
            put_behind(a, distance);
            others += e;
            rest += a;
        }
    }

    __device__ void merge(Seen x, int classes) {
        if (x.top > top || (x.top == top && x.k < k)) {
            Seen larger = x;
            x = *this;
            *this = larger;
        }
        REAL distance = x.top == top ? 0 : top - x.top;
        put_behind(x.rest + x.own, distance);
        near += x.near;
        others += x.k < classes ? (x.others + 1) * exp(-distance) : x.others;
        rest += x.rest + x.own;
        used |= x.used;
    }

    // A coefficient of 0 weighs nothing, however far the class is.
    __device__ void put_behind(REAL a, REAL distance) {
        if (a != 0) near += a * distance;
    }
};

__device__ Seen all_of_row(Seen x, int classes) {
#if LANES > 1
    for (int step = (LANES < 32 ? LANES : 32) / 2; step > 0; step /= 2) {
        Seen other(classes);
        other.top = __shfl_xor_sync(~0u, x.top, step);
        other.own = __shfl_xor_sync(~0u, x.own, step);
        other.others = __shfl_xor_sync(~0u, x.others, step);
        other.rest = __shfl_xor_sync(~0u, x.rest, step);
        other.near = __shfl_xor_sync(~0u, x.near, step);
        other.k = __shfl_xor_sync(~0u, x.k, step);
        other.used = __shfl_xor_sync(~0u, x.used, step);
        x.merge(other, classes);
    }
#endif
#if LANES > 32
    __shared__ REAL parts[5][LANES / 32];
    __shared__ int ks[LANES / 32], uses[LANES / 32];
    if (threadIdx.x % 32 == 0) {
        int i = threadIdx.x / 32;
        parts[0][i] = x.top, parts[1][i] = x.own, parts[2][i] = x.others, parts[3][i] = x.rest, parts[4][i] = x.near;
        ks[i] = x.k, uses[i] = x.used;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < LANES / 32; ++i) {
            Seen other(classes);
            other.top = parts[0][i], other.own = parts[1][i], other.others = parts[2][i], other.rest = parts[3][i];
            other.near = parts[4][i];
            other.k = ks[i], other.used = uses[i];
            x.merge(other, classes);
        }
    }
#endif
    return x;
}

struct Row {
    long long number, first;
    int lane, y;
    REAL alpha, beta;
    const double* shared;

    __device__ Row(long long inner, int classes) {
        number = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
        first = number / inner * classes * inner + number % inner;
        lane = threadIdx.x % LANES;
    }

    __device__ void read(const long long* index, const double* alphas, const double* betas, const double* shared_row) {
        y = index[number];
        alpha = alphas[number];
        beta = betas ? betas[number] : 0;
        shared = shared_row;
    }

    __device__ bool dead() const { return alpha == 0 && beta == 0; }

    __device__ REAL coefficient(int c) const {
        REAL a = c == y ? alpha : 0;
        return beta == 0 ? a : a + (shared ? beta * (REAL)shared[c] : beta);
    }
};

extern "C" __global__ void statistics(
    const LOGIT* z, const long long* index, const double* alphas, const double* betas, const double* shared_row,
    long long rows, int classes, long long inner, REAL* losses, REAL* others, REAL* rests, int* dominant)
{
    Row row(inner, classes);
    if (row.number >= rows) return;
    row.read(index, alphas, betas, shared_row);
    if (row.dead()) {
        if (row.lane == 0) losses[row.number] = 0;
        return;
    }
    z += row.first;
    Seen seen(classes);
    for (int c = row.lane; c < classes; c += LANES) seen.add((REAL)z[c * inner], row.coefficient(c), c, classes);
    seen = all_of_row(seen, classes);
    if (row.lane != 0) return;
    // 0, but NaN where the largest logit is no finite number: such a row has no softmax.
    REAL other = seen.others + (seen.top - seen.top), weight = seen.rest + seen.own;
    losses[row.number] = seen.used ? weight * log1p(other) + seen.near : 0;
    others[row.number] = other;
    rests[row.number] = seen.rest;
    dominant[row.number] = !seen.used ? -1 : seen.k < classes ? seen.k : 0;
}

extern "C" __global__ void gradient(
    const LOGIT* z, const long long* index, const double* alphas, const double* betas, const double* shared_row,
    long long rows, int classes, long long inner, const REAL* others, const REAL* rests, const int* dominant,
    const double* scales, int scale_step, LOGIT* out)
{
    Row row(inner, classes);
    if (row.number >= rows) return;
    row.read(index, alphas, betas, shared_row);
    z += row.first;
    out += row.first;
    REAL scale = scales[row.number * scale_step], weight = 0, own = 0, rest = 0, other = 0, top = 0;
    int k = -1;
    if (!row.dead() && scale != 0) k = dominant[row.number];
    if (k >= 0) {
        top = (REAL)z[k * inner];
        own = row.coefficient(k);
        rest = rests[row.number];
        other = others[row.number];
        weight = rest + own;
    }
    REAL each = weight / (1 + other);
    for (int c = row.lane; c < classes; c += LANES) {
        REAL slope = 0;
        if (k >= 0) {
            if (c != k) slope = exp((REAL)z[c * inner] - top) * each - row.coefficient(c);
            else slope = own == 0 ? each : rest - other * each;
            slope *= scale;
        }
        out[c * inner] = LOGIT(slope);
    }
}
"""

TYPES = {"float16": "Half", "bfloat16": "Bfloat", "float32": "float", "float64": "double"}


def lanes(classes: int, inner: int) -> int:
    """Return how many threads share a row of so many classes, each so many elements from the next."""
    if inner > 1:
        return 1
    return THREADS if classes > 2048 else min(32, 1 << (max(1, classes // 4) - 1).bit_length())


def options(dtype: str, computed_in: str, lanes: int) -> tuple[str, ...]:
    """Return the compiler's options for logits of a type."""
    return (f"-DLOGIT={TYPES[dtype]}", f"-DREAL={TYPES[computed_in]}", f"-DLANES={lanes}", "--std=c++14")
