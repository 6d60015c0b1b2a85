// See jpeg2k_wavelet.h. Spec: ITU-T T.800, annexes F (wavelets) and G (component transforms).
//
// The 9-7 transform rounds as OpenJPEG 2.5 does, whose order of operations is kept, as are its
// constants: rows before columns, K and twice its inverse. Results are equal, bit for bit.
// Lifting works on the two halves as they lie, so that neighbours in memory are computed together.

#include "jpeg2k_wavelet.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define INLINE __attribute__((always_inline)) inline

// Compiled for wider registers as well where the loader can choose: results are the same, as no
// operations are fused (-ffp-contract=off).
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

namespace zarrgpu {
namespace {

constexpr float K = 1.230174105f, TWICE_INVERSE_K = 1.625732422f;
constexpr float ALPHA = -1.586134342f, BETA = -0.052980118f;
constexpr float GAMMA = 0.882911075f, DELTA = 0.443506852f;
constexpr int MARGIN = 3;   // of each half: four samples to either side of the joined row
constexpr float LIMIT = 1024.f;  // far beyond what a sample may be
constexpr int COLUMNS = 16;  // that are transformed together

// `to[i] += (from[i + shift - 1] + from[i + shift]) * c`, with `from` mirrored at its ends.
INLINE void lift_row(float* __restrict to, int num_to, const float* __restrict from, int num_from,
                     int shift, float c) {
    const int inner_end = std::min(num_to, num_from - shift);
    int i = 0;
    if (shift == 0 && num_to > 0) {
        to[0] += (from[0] + from[0]) * c;
        i = 1;
    }
    for (; i < inner_end; i++) to[i] += (from[i + shift - 1] + from[i + shift]) * c;
    for (; i < num_to; i++) to[i] += (from[i + shift - 1] + from[i + shift - 1]) * c;
}

// The same of elements that are rows of COLUMNS.
INLINE void lift_columns(float* __restrict to, int num_to, const float* __restrict from,
                         int num_from, int shift, float c) {
    for (int i = 0; i < num_to; i++, to += COLUMNS) {
        const int left = i + shift - 1, right = i + shift;
        const float* a = from + (left < 0 ? right : left) * COLUMNS;
        const float* b = from + (right < num_from ? right : left) * COLUMNS;
        for (int k = 0; k < COLUMNS; k++) to[k] += (a[k] + b[k]) * c;
    }
}

// Lift both halves back, which are scaled already.
INLINE void unlift_row(float* __restrict low, int num_low, float* __restrict high, int num_high) {
    if (num_high == 0) return;
    lift_row(low, num_low, high, num_high, 0, -DELTA);
    lift_row(high, num_high, low, num_low, 1, -GAMMA);
    lift_row(low, num_low, high, num_high, 0, -BETA);
    lift_row(high, num_high, low, num_low, 1, -ALPHA);
}

INLINE void unlift_columns(float* __restrict low, int num_low, float* __restrict high,
                           int num_high) {
    if (num_high == 0) return;
    lift_columns(low, num_low, high, num_high, 0, -DELTA);
    lift_columns(high, num_high, low, num_low, 1, -GAMMA);
    lift_columns(low, num_low, high, num_high, 0, -BETA);
    lift_columns(high, num_high, low, num_low, 1, -ALPHA);
}

// Copy coefficients, scaled as the transform wants them: low-pass or high-pass.
template <int COUNT = 0>
INLINE void copy_scaled(float* __restrict to, const float* __restrict from, int n, bool is_high) {
    const float c = is_high ? TWICE_INVERSE_K : K;
    for (int i = 0; i < (COUNT ? COUNT : n); i++) to[i] = from[i] * c;
}
template <int COUNT = 0>
INLINE void copy_scaled(int32_t* __restrict to, const int32_t* __restrict from, int n, bool) {
    memcpy(to, from, (COUNT ? COUNT : n) * sizeof(int32_t));
}

// The reversible transform, modulo 2^32 where damaged data is out of range.
INLINE int32_t half_sum(int32_t a, int32_t b, uint32_t round, int shift) {
    const uint32_t sum = static_cast<uint32_t>(a) + static_cast<uint32_t>(b) + round;
    return static_cast<int32_t>(sum) >> shift;
}
INLINE int32_t plus(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
INLINE int32_t minus(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}

INLINE void unlift(int32_t* __restrict low, int num_low, int32_t* __restrict high, int num_high,
                   int n) {
    if (num_high == 0) return;
    for (int i = 0; i < num_low; i++) {
        const int32_t* a = high + std::max(i - 1, 0) * n;
        const int32_t* b = high + std::min(i, num_high - 1) * n;
        for (int k = 0; k < n; k++) {
            low[i * n + k] = minus(low[i * n + k], half_sum(a[k], b[k], 2, 2));
        }
    }
    for (int i = 0; i < num_high; i++) {
        const int32_t* a = low + i * n;
        const int32_t* b = low + std::min(i + 1, num_low - 1) * n;
        for (int k = 0; k < n; k++) {
            high[i * n + k] = plus(high[i * n + k], half_sum(a[k], b[k], 0, 1));
        }
    }
}

INLINE void unlift_row(int32_t* low, int num_low, int32_t* high, int num_high) {
    unlift(low, num_low, high, num_high, 1);
}
INLINE void unlift_columns(int32_t* low, int num_low, int32_t* high, int num_high) {
    unlift(low, num_low, high, num_high, COLUMNS);
}

// `to` takes turns between elements of four bytes of `even` and of `odd`, `count` of each.
INLINE void interleave(void* to, const void* even, const void* odd, int count) {
    char* out = static_cast<char*>(to);
    const char *a = static_cast<const char*>(even), *b = static_cast<const char*>(odd);
    int i = 0;
#if defined(__SSE2__)
    for (; i + 4 <= count; i += 4, a += 16, b += 16, out += 32) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a));
        const __m128i y = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi32(x, y));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out) + 1, _mm_unpackhi_epi32(x, y));
    }
#endif
    for (; i < count; i++, a += 4, b += 4, out += 8) {
        memcpy(out, a, 4);
        memcpy(out + 4, b, 4);
    }
}

template <typename T>
INLINE void copy_columns(T* to, const T* from, int n) {
    if (n == COLUMNS) {
        memcpy(to, from, COLUMNS * sizeof(T));
    } else {
        memcpy(to, from, n * sizeof(T));
    }
}

template <typename T>
INLINE void join_bands(T* plane, int stride, int width, int height, Interval rows,
                       Interval columns, T* __restrict room) {
    const int low_width = (width + 1) / 2, low_height = (height + 1) / 2;
    const Interval half = wavelet_needs(rows, height);
    for (int i = 2 * half.first; i < 2 * half.end; i++) {
        const int y = i / 2 + (i & 1 ? low_height : 0);
        if (y >= height) continue;
        T* row = plane + static_cast<int64_t>(y) * stride;
        if (width == 1) continue;  // a single sample is what it was
        copy_scaled(room, row, low_width, false);
        copy_scaled(room + low_width, row + low_width, width - low_width, true);
        unlift_row(room, low_width, room + low_width, width - low_width);
        interleave(row, room, room + low_width, width - low_width);
        if (width & 1) row[width - 1] = room[low_width - 1];
    }
    if (height == 1) return;
    T* high = room + low_height * COLUMNS;
    for (int x = columns.first; x < columns.end; x += COLUMNS) {
        const int n = std::min(COLUMNS, width - x);
        if (n < COLUMNS) memset(room, 0, height * COLUMNS * sizeof(T));
        T* column = plane + x;
        for (int y = 0; y < height; y++) {
            const T* from = column + static_cast<int64_t>(y) * stride;
            if (n == COLUMNS) {
                copy_scaled<COLUMNS>(room + y * COLUMNS, from, n, y >= low_height);
            } else {
                copy_scaled(room + y * COLUMNS, from, n, y >= low_height);
            }
        }
        unlift_columns(room, low_height, high, height - low_height);
        for (int y = rows.first; y < rows.end; y++) {
            const T* from = (y & 1 ? high : room) + (y >> 1) * COLUMNS;
            T* to = column + static_cast<int64_t>(y) * stride;
            copy_columns(to, from, n);
        }
    }
}

INLINE uint8_t byte_of(int32_t value) {
    return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// Nearest integer, ties to even, as `lrintf` has it: by what adding a large number leaves of the
// fraction. What is far out of range becomes an end of the range first, and so does a NaN.
INLINE uint8_t byte_of(float value) {
    constexpr float LARGE = 12582912.f;  // 1.5 * 2^23
    value = value > -LIMIT ? value : -LIMIT;
    value = value < LIMIT ? value : LIMIT;
    const float shifted = value + LARGE;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    return byte_of(bits - 0x4B400000 + 128);
}

INLINE void bytes_of(const float* values, int count, uint8_t* bytes) {
    int i = 0;
#if defined(__SSE2__)
    const auto four = [](const float* at) {
        const __m128 limit = _mm_set1_ps(LIMIT), least = _mm_set1_ps(-LIMIT);
        const __m128 near = _mm_min_ps(_mm_max_ps(_mm_loadu_ps(at), least), limit);
        return _mm_add_epi32(_mm_cvtps_epi32(near), _mm_set1_epi32(128));
    };
    for (; i + 16 <= count; i += 16) {
        const __m128i low = _mm_packs_epi32(four(values + i), four(values + i + 4));
        const __m128i high = _mm_packs_epi32(four(values + i + 8), four(values + i + 12));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), _mm_packus_epi16(low, high));
    }
#endif
    for (; i < count; i++) bytes[i] = byte_of(values[i]);
}

}  // namespace

Interval wavelet_needs(Interval needed, int size) {
    return {std::max(needed.first / 2 - MARGIN, 0),
            std::min(needed.end / 2 + 1 + MARGIN, (size + 1) / 2)};
}

WIDE void join_bands_97(float* plane, int stride, int width, int height, Interval rows,
                   Interval columns, float* room) {
    join_bands(plane, stride, width, height, rows, columns, room);
}

WIDE void join_bands_53(int32_t* plane, int stride, int width, int height, Interval rows,
                   Interval columns, int32_t* room) {
    join_bands(plane, stride, width, height, rows, columns, room);
}

WIDE void pixels_97(const float* const planes[], int samples, bool transformed, int count,
                    uint8_t* dst) {
    constexpr int MOST = 64;
    alignas(16) float values[4][MOST];
    alignas(16) uint8_t bytes[4][MOST];
    for (int first = 0; first < count; first += MOST) {
        const int n = std::min(MOST, count - first);
        if (transformed) {
            const float *ys = planes[0] + first, *us = planes[1] + first, *vs = planes[2] + first;
            for (int i = 0; i < n; i++) {
                values[0][i] = ys[i] + vs[i] * 1.402f;
                values[1][i] = ys[i] - (us[i] * 0.34413f + vs[i] * 0.71414f);
                values[2][i] = ys[i] + us[i] * 1.772f;
            }
        }
        for (int s = 0; s < samples; s++) {
            bytes_of(transformed ? values[s] : planes[s] + first, n, bytes[s]);
        }
        if (samples == 3) {
            for (int i = 0; i < n; i++, dst += 3) {
                dst[0] = bytes[0][i];
                dst[1] = bytes[1][i];
                dst[2] = bytes[2][i];
            }
            continue;
        }
        for (int i = 0; i < n; i++, dst += samples) {
            for (int s = 0; s < samples; s++) dst[s] = bytes[s][i];
        }
    }
}

WIDE void pixels_53(const int32_t* const planes[], int samples, bool transformed, int count,
                    uint8_t* dst) {
    for (int i = 0; i < count; i++, dst += samples) {
        if (transformed) {
            const int32_t y = planes[0][i], u = planes[1][i], v = planes[2][i];
            const int32_t green = minus(y, half_sum(u, v, 0, 2));
            dst[0] = byte_of(plus(plus(v, green), 128));
            dst[1] = byte_of(plus(green, 128));
            dst[2] = byte_of(plus(plus(u, green), 128));
        } else {
            for (int s = 0; s < samples; s++) dst[s] = byte_of(plus(planes[s][i], 128));
        }
    }
}

void ycbcr_to_rgb(uint8_t* pixels, int64_t count) {
    struct Parts {
        int red[256], green_cb[256], green_cr[256], blue[256];
        Parts() {
            const auto part = [](double factor, int i) {
                return static_cast<int>(std::nearbyint(factor * 65536 * (i - 128)));
            };
            for (int i = 0; i < 256; i++) {
                red[i] = (part(1.402, i) + 32768) >> 16;
                green_cb[i] = part(-0.34414, i);
                green_cr[i] = part(-0.71414, i) + 32768;
                blue[i] = (part(1.772, i) + 32768) >> 16;
            }
        }
    };
    static const Parts parts;
    for (int64_t i = 0; i < count; i++, pixels += 3) {
        const int luma = pixels[0], cb = pixels[1], cr = pixels[2];
        pixels[0] = byte_of(luma + parts.red[cr]);
        pixels[1] = byte_of(luma + ((parts.green_cb[cb] + parts.green_cr[cr]) >> 16));
        pixels[2] = byte_of(luma + parts.blue[cb]);
    }
}

}  // namespace zarrgpu
