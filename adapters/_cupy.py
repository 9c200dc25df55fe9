"""CuPy underneath: two CUDA kernels for index targets, as source. Nothing here needs CuPy or a device."""

from __future__ import annotations

THREADS = 256

SOURCE = r"""
// Compiled with -DLOGIT, the logits' type, -DREAL, the type computed in, and -DLANES, the threads that share a row: 1
// where the class axis is not the last, for then neighbouring rows are neighbours in memory; else a warp or a block.
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

struct Top {
    REAL value;
    int index;
};

// As argmax does: a NaN is larger than any number, and of equals the first wins.
__device__ bool goes_before(Top a, Top b) {
    bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan;
    return a.value > b.value || ((a_nan || a.value == b.value) && a.index < b.index);
}

__device__ Top top_of_row(Top x) {
#if LANES > 1
    for (int step = 16; step > 0; step /= 2) {
        Top other = {__shfl_xor_sync(~0u, x.value, step), __shfl_xor_sync(~0u, x.index, step)};
        if (goes_before(other, x)) x = other;
    }
#endif
#if LANES > 32
    __shared__ Top parts[LANES / 32];
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    for (int i = 0; i < LANES / 32; ++i)
        if (goes_before(parts[i], x)) x = parts[i];
#endif
    return x;
}

__device__ REAL sum_of_row(REAL x) {
#if LANES > 1
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
#endif
#if LANES > 32
    __shared__ REAL parts[LANES / 32];
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < LANES / 32; ++i) x += parts[i];
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
    Top top = {log((REAL)0), classes};  // NVRTC has no INFINITY
    for (int c = row.lane; c < classes; c += LANES) {
        Top here = {(REAL)z[c * inner], c};
        if (goes_before(here, top)) top = here;
    }
    top = top_of_row(top);
    REAL other = 0, rest = 0, near = 0;
    for (int c = row.lane; c < classes; c += LANES) {
        if (c == top.index) continue;
        REAL excess = top.value - (REAL)z[c * inner], a = row.coefficient(c);
        other += exp(-excess);
        rest += a;
        if (a != 0) near += a * excess;
    }
    // 0, but NaN where the largest logit is no finite number: such a row has no softmax.
    REAL own = top.value - top.value;
    other = sum_of_row(other) + own;
    rest = sum_of_row(rest);
    near = sum_of_row(near);
    if (row.lane != 0) return;
    REAL weight = rest + row.coefficient(top.index);
    losses[row.number] = weight == 0 ? 0 : weight * log1p(other) + near;
    others[row.number] = other;
    rests[row.number] = rest;
    dominant[row.number] = top.index;
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
    int k = 0;
    if (!row.dead() && scale != 0) {
        k = dominant[row.number];
        top = (REAL)z[k * inner];
        own = row.coefficient(k);
        rest = rests[row.number];
        other = others[row.number];
        weight = rest + own;
    }
    REAL each = weight / (1 + other);
    for (int c = row.lane; c < classes; c += LANES) {
        REAL slope = 0;
        if (weight != 0) {
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
    return 1 if inner > 1 else 32 if classes <= 2048 else THREADS


def options(dtype: str, computed_in: str, lanes: int) -> tuple[str, ...]:
    """Return the compiler's options for logits of a type."""
    return (f"-DLOGIT={TYPES[dtype]}", f"-DREAL={TYPES[computed_in]}", f"-DLANES={lanes}", "--std=c++14")
