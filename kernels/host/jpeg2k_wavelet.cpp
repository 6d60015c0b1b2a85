// See jpeg2k_wavelet.h. Spec: ITU-T T.800, annexes F (wavelets) and G (component transforms).
//
// The 9-7 transform rounds as OpenJPEG 2.5 does, whose order of operations is kept, as are its
// constants: rows before columns, K and twice its inverse. Results are equal, bit for bit.
// A row of each half is transformed along its length, and then lifts those before it, which are in
// cache still: so memory is read once and written once.

#include "jpeg2k_wavelet.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "clones.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// Results are the same in registers of any width, as no operations are fused (-ffp-contract=off).
#define WIDE CLONES("avx512f", "avx2")

namespace zarrgpu {
namespace {

constexpr float K = 1.230174105f, TWICE_INVERSE_K = 1.625732422f;
constexpr float ALPHA = -1.586134342f, BETA = -0.052980118f;
constexpr float GAMMA = 0.882911075f, DELTA = 0.443506852f;
constexpr int MARGIN = 3;        // of each half: four samples to either side of the joined row
constexpr float LIMIT = 1024.f;  // far beyond what a sample may be

// Modulo 2^32 where damaged data is out of range.
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

// The steps that lift a low-pass sample back, then a high-pass one, by the two beside it, as many
// times as PAIRS says; and what both are multiplied with before.
struct Irreversible {
    using Sample = float;
    static constexpr int PAIRS = 2;
    static INLINE float low(int pair, float at, float a, float b) {
        return at + (a + b) * (pair ? -BETA : -DELTA);
    }
    static INLINE float high(int pair, float at, float a, float b) {
        return at + (a + b) * (pair ? -ALPHA : -GAMMA);
    }
    static INLINE float scaled_low(float at) { return at * K; }
    static INLINE float scaled_high(float at) { return at * TWICE_INVERSE_K; }
};
struct Reversible {
    using Sample = int32_t;
    static constexpr int PAIRS = 1;
    static INLINE int32_t low(int, int32_t at, int32_t a, int32_t b) {
        return minus(at, half_sum(a, b, 2, 2));
    }
    static INLINE int32_t high(int, int32_t at, int32_t a, int32_t b) {
        return plus(at, half_sum(a, b, 0, 1));
    }
    static INLINE int32_t scaled_low(int32_t at) { return at; }
    static INLINE int32_t scaled_high(int32_t at) { return at; }
};

// ---- along a row, whose halves lie one behind the other

template <typename W, typename T>
INLINE void unlift_row(T* __restrict low, int num_low, T* __restrict high, int num_high) {
    const int inner = std::min(num_low, num_high), inner_high = std::min(num_high, num_low - 1);
    for (int pair = 0; pair < W::PAIRS; pair++) {
        low[0] = W::low(pair, low[0], high[0], high[0]);
        for (int i = 1; i < inner; i++) low[i] = W::low(pair, low[i], high[i - 1], high[i]);
        for (int i = inner; i < num_low; i++) {
            low[i] = W::low(pair, low[i], high[i - 1], high[i - 1]);
        }
        for (int i = 0; i < inner_high; i++) high[i] = W::high(pair, high[i], low[i], low[i + 1]);
        for (int i = inner_high; i < num_high; i++) {
            high[i] = W::high(pair, high[i], low[i], low[i]);
        }
    }
}

// `to` takes turns between elements of `even` and of `odd`, `count` of each.
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

template <typename W, typename T>
INLINE void join_row(const T* __restrict low, const T* __restrict high, int width, T* __restrict to,
                     T* __restrict room) {
    const int num_low = (width + 1) / 2, num_high = width - num_low;
    if (num_high == 0) {  // a single sample is what it was
        to[0] = low[0];
        return;
    }
    T* rest = room + num_low;
    for (int i = 0; i < num_low; i++) room[i] = W::scaled_low(low[i]);
    for (int i = 0; i < num_high; i++) rest[i] = W::scaled_high(high[i]);
    unlift_row<W>(room, num_low, rest, num_high);
    interleave(to, room, rest, num_high);
    if (width & 1) to[width - 1] = room[num_low - 1];
}

// ---- along columns: rows of the result are lifted as they come, while they are in cache

template <typename W, typename T>
struct Rows {
    Plane<T> joined;
    Interval columns;
    int first, low_end, high_end;  // of the rows of each half that there are

    INLINE T* low(int i) const { return joined.row(2 * i); }
    INLINE T* high(int i) const { return joined.row(2 * i + 1); }

    INLINE void lift_low(int pair, int i) const {
        T* to = low(i);
        const T* a = high(std::max(i - 1, first));
        const T* b = high(std::min(i, high_end - 1));
        for (int k = columns.first; k < columns.end; k++) to[k] = W::low(pair, to[k], a[k], b[k]);
    }
    INLINE void lift_high(int pair, int i) const {
        T* to = high(i);
        const T* a = low(i);
        const T* b = low(std::min(i + 1, low_end - 1));
        for (int k = columns.first; k < columns.end; k++) to[k] = W::high(pair, to[k], a[k], b[k]);
    }
    // Low-pass row `i`, and the high-pass row before it, which waited for that.
    INLINE void lift(int pair, int i) const {
        if (i >= first && i < low_end) lift_low(pair, i);
        if (i > first && i <= high_end) lift_high(pair, i - 1);
    }
};

template <typename W, typename T>
INLINE void join(Plane<T> low, Plane<T> details, Plane<T> joined, int width, int height,
                 Interval rows, Interval columns, T* __restrict room) {
    const int low_width = (width + 1) / 2, low_height = (height + 1) / 2;
    const Interval half = wavelet_needs(rows, height);
    const Rows<W, T> lines{joined, columns, half.first, half.end,
                           std::min(half.end, height - low_height)};
    for (int i = half.first; i < half.end + W::PAIRS; i++) {
        if (i < lines.low_end) {
            join_row<W>(low.row(i), details.row(i) + low_width, width, lines.low(i), room);
            T* row = lines.low(i);
            if (height > 1) {
                for (int k = columns.first; k < columns.end; k++) row[k] = W::scaled_low(row[k]);
            }
        }
        if (i < lines.high_end) {
            const T* from = details.row(low_height + i);
            T* row = lines.high(i);
            join_row<W>(from, from + low_width, width, row, room);
            for (int k = columns.first; k < columns.end; k++) row[k] = W::scaled_high(row[k]);
        }
        if (height == 1) continue;
        for (int pair = 0; pair < W::PAIRS; pair++) lines.lift(pair, i - pair);
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

WIDE void join_bands(Plane<float> low, Plane<float> details, Plane<float> joined, int width,
                     int height, Interval rows, Interval columns, float* room) {
    join<Irreversible>(low, details, joined, width, height, rows, columns, room);
}

WIDE void join_bands(Plane<int32_t> low, Plane<int32_t> details, Plane<int32_t> joined, int width,
                     int height, Interval rows, Interval columns, int32_t* room) {
    join<Reversible>(low, details, joined, width, height, rows, columns, room);
}

WIDE void to_pixels(const float* const planes[], int samples, bool transformed, int count,
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

WIDE void to_pixels(const int32_t* const planes[], int samples, bool transformed, int count,
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

void subsampled_to_rgb(const uint8_t* luma, const uint8_t* cb, const uint8_t* cr, int odd,
                       int count, uint8_t* dst) {
    for (int i = odd; i < count + odd; i++, dst += 3) {
        const int u = cb[i / 2] - 128, v = cr[i / 2] - 128, y = luma[i - odd];
        dst[0] = byte_of(y + static_cast<int>(1.402 * v));
        dst[1] = byte_of(y - static_cast<int>(0.344 * u + 0.714 * v));
        dst[2] = byte_of(y + static_cast<int>(1.772 * u));
    }
}

}  // namespace zarrgpu
