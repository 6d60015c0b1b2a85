// See convert.h. A line is converted in parts that stay in the first cache: to float32, then to the
// target type, then to where it goes. Compiled without contraction, so that a product and a sum are
// two roundings, as in NumPy and in the CUDA gather.

#include "convert.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace zarrgpu {
namespace {

constexpr int64_t PART = 256;  // elements

// Scale and offset of the elements of a line.
struct Line {
    const float* scale;
    const float* offset;
    int64_t period;  // of elements after which they repeat; 0: the first serves all
};

template <typename T>
T load(const uint8_t* at, bool swaps) {
    T value;
    if (swaps && sizeof(T) == 2) {
        uint16_t bits;
        memcpy(&bits, at, 2);
        bits = __builtin_bswap16(bits);
        memcpy(&value, &bits, sizeof(T) == 2 ? 2 : 1);
    } else if (swaps && sizeof(T) == 4) {
        uint32_t bits;
        memcpy(&bits, at, 4);
        bits = __builtin_bswap32(bits);
        memcpy(&value, &bits, sizeof(T) == 4 ? 4 : 1);
    } else {
        memcpy(&value, at, sizeof(T));
    }
    return value;
}

template <typename T, typename To>
void load_part(const uint8_t* src, int64_t stride, bool swaps, int64_t count, To* to) {
    if (stride == sizeof(T) && !swaps) {  // apart, so that it is vectorised
        for (int64_t i = 0; i < count; i++) to[i] = load<T>(src + i * sizeof(T), false);
    } else {
        for (int64_t i = 0; i < count; i++) to[i] = load<T>(src + i * stride, swaps);
    }
}

template <typename To>
void load_part(const Conversion& how, const uint8_t* src, int64_t stride, int64_t count, To* to) {
    switch (how.source) {
        case U8: return load_part<uint8_t>(src, stride, how.swaps, count, to);
        case I8: return load_part<int8_t>(src, stride, how.swaps, count, to);
        case U16: return load_part<uint16_t>(src, stride, how.swaps, count, to);
        case I16: return load_part<int16_t>(src, stride, how.swaps, count, to);
        case I32: return load_part<int32_t>(src, stride, how.swaps, count, to);
        case U32: return load_part<uint32_t>(src, stride, how.swaps, count, to);
        case F32: return load_part<float>(src, stride, how.swaps, count, to);
    }
}

int64_t target_nbytes(Target target) {
    switch (target) {
        case TO_F16: case TO_BF16: case TO_INT16: return 2;
        case TO_INT64: return 8;
        default: return 4;
    }
}

void normalise_part(const Line& line, int64_t first, int64_t count, float* values) {
    if (!line.period) {
        const float scale = line.scale[0], offset = line.offset[0];
        for (int64_t i = 0; i < count; i++) values[i] = values[i] * scale + offset;
        return;
    }
    const int64_t phase = first % line.period;
    const float *scale = line.scale + phase, *offset = line.offset + phase;
    for (int64_t i = 0; i < count; i++) values[i] = values[i] * scale[i] + offset[i];
}

#if defined(__x86_64__)
// Asked for by number: clang's `__builtin_cpu_supports` does not know the name before version 18.
bool supports_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

__attribute__((target("avx,f16c"))) void halve_by_instruction(const float* values, int64_t count,
                                                              uint16_t* to) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m128i bits = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), 0);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), bits);
    }
    for (; i < count; i++) to[i] = _cvtss_sh(values[i], 0);
}
#endif

void halve(const float* values, int64_t count, uint16_t* to) {
#if defined(__x86_64__)
    static const bool has_instruction =
        __builtin_cpu_supports("avx") && supports_f16c();
    if (has_instruction) return halve_by_instruction(values, count, to);
#endif
    for (int64_t i = 0; i < count; i++) to[i] = half_bits(values[i]);
}

void store_part(const uint8_t* values, int64_t itemsize, int64_t count, uint8_t* dst,
                int64_t stride, bool streams) {
    Box box{1, itemsize, {count}, {itemsize}, {stride}};
    copy_box(box, values, dst, 0, streams);
}

void convert_line(const Conversion& how, const Line& line, const uint8_t* src, int64_t src_stride,
                  uint8_t* dst, int64_t dst_stride, int64_t count) {
    alignas(64) float values[PART];
    alignas(64) uint16_t halves[PART];
    const int64_t nbytes = target_nbytes(how.target);
    for (int64_t first = 0; first < count; first += PART) {
        const int64_t n = std::min(PART, count - first);
        load_part(how, src + first * src_stride, src_stride, n, values);
        if (line.scale) normalise_part(line, first, n, values);
        const uint8_t* made = nbytes == 2 ? reinterpret_cast<const uint8_t*>(halves)
                                          : reinterpret_cast<const uint8_t*>(values);
        if (how.target == TO_F16) halve(values, n, halves);
        if (how.target == TO_BF16) {
            for (int64_t i = 0; i < n; i++) halves[i] = bfloat16_bits(values[i]);
        }
        store_part(made, nbytes, n, dst + first * dst_stride, dst_stride, how.streams);
    }
}

// Integers with more bits; of a float nothing is asked here.
template <typename To>
void widen_line(const Conversion& how, const uint8_t* src, int64_t src_stride, uint8_t* dst,
                int64_t dst_stride, int64_t count) {
    alignas(64) To values[PART];
    for (int64_t first = 0; first < count; first += PART) {
        const int64_t n = std::min(PART, count - first);
        load_part(how, src + first * src_stride, src_stride, n, values);
        store_part(reinterpret_cast<const uint8_t*>(values), sizeof(To), n,
                   dst + first * dst_stride, dst_stride, how.streams);
    }
}

// Scales of a line that runs along `n` channels again and again, from `channel` on: one round of
// them, and as many more as a part can reach beyond it.
class Pattern {
   public:
    // A line without scales where there is no memory.
    Line line(const Conversion& how, int64_t n) {
        const float *scale = how.scale + how.channel, *offset = how.offset + how.channel;
        const size_t nbytes = n * sizeof(float);
        const int64_t count = n + PART;
        if (n != n_ || memcmp(scales_.get(), scale, nbytes) != 0 ||
            memcmp(scales_.get() + count, offset, nbytes) != 0) {
            n_ = 0;
            scales_.reset(new (std::nothrow) float[2 * count]);
            if (!scales_) return {nullptr, nullptr, 0};
            for (int64_t i = 0; i < count; i++) {
                scales_[i] = scale[i % n];
                scales_[count + i] = offset[i % n];
            }
            n_ = n;
        }
        return {scales_.get(), scales_.get() + count, n};
    }

   private:
    std::unique_ptr<float[]> scales_;
    int64_t n_ = 0;
};

// Convert lines along the last axis of a box without a channel axis.
void convert_lines(const Box& box, const Conversion& how, const Line& line, const uint8_t* src,
                   uint8_t* dst) {
    const int last = box.ndim - 1;
    const int64_t from = box.src_stride[last], to = box.dst_stride[last], n = box.extent[last];
    for_lines(box, [&](int64_t src_shift, int64_t dst_shift) {
        const uint8_t* src_line = src + src_shift;
        uint8_t* dst_line = dst + dst_shift;
        switch (how.target) {
            case TO_INT16: return widen_line<int16_t>(how, src_line, from, dst_line, to, n);
            case TO_INT32: return widen_line<int32_t>(how, src_line, from, dst_line, to, n);
            case TO_INT64: return widen_line<int64_t>(how, src_line, from, dst_line, to, n);
            default: return convert_line(how, line, src_line, from, dst_line, to, n);
        }
    });
}

// Take an axis out of a box.
Box without_axis(const Box& box, int axis) {
    Box rest = box;
    rest.ndim--;
    for (int i = axis; i < rest.ndim; i++) {
        rest.extent[i] = box.extent[i + 1];
        rest.src_stride[i] = box.src_stride[i + 1];
        rest.dst_stride[i] = box.dst_stride[i + 1];
    }
    return rest;
}

// Channels that lie side by side on both sides: pixels are lines of repeating scales.
bool convert_pixels(const Box& box, const Conversion& how, const uint8_t* src, uint8_t* dst) {
    const int axis = how.channel_axis;
    const int64_t n = box.extent[axis];
    Box pixels = without_axis(box, axis);
    pixels.itemsize = n * box.dst_stride[axis];
    simplify(pixels);
    const int last = pixels.ndim - 1;
    const int64_t nbytes = target_nbytes(how.target);
    if (box.dst_stride[axis] != nbytes || pixels.dst_stride[last] != n * nbytes ||
        pixels.src_stride[last] != n * box.src_stride[axis]) {
        return false;
    }
    thread_local Pattern pattern;
    const int64_t count = n * pixels.extent[last];
    const Line line = pattern.line(how, n);
    if (!line.scale) return false;
    for_lines(pixels, [&](int64_t src_shift, int64_t dst_shift) {
        convert_line(how, line, src + src_shift, box.src_stride[axis], dst + dst_shift, nbytes,
                     count);
    });
    return true;
}

}  // namespace

void convert_box(const Box& box, const Conversion& how, const uint8_t* src, uint8_t* dst) {
    if (how.n_channels <= 1 || how.channel_axis < 0) {
        Box simple = box;
        simplify(simple);
        const Line line{how.n_channels ? how.scale : nullptr, how.offset, 0};
        return convert_lines(simple, how, line, src, dst);
    }
    if (convert_pixels(box, how, src, dst)) return;
    const int axis = how.channel_axis;
    Box plane = without_axis(box, axis);
    simplify(plane);
    for (int64_t i = 0; i < box.extent[axis]; i++) {
        const Line line{how.scale + how.channel + i, how.offset + how.channel + i, 0};
        convert_lines(plane, how, line, src + i * box.src_stride[axis],
                      dst + i * box.dst_stride[axis]);
    }
}

uint16_t half_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t sign = bits >> 16 & 0x8000;
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000) return sign | 0x7E00 | (bits >> 13 & 0x1FF);  // NaN, made quiet
    if (bits >= 0x477FF000) return sign | 0x7C00;                        // rounds to infinity
    if (bits < 0x38800000) {                                             // below normal numbers
        if (bits < 0x33000000) return sign;
        const int shift = 126 - (bits >> 23);
        const uint32_t mantissa = (bits & 0x7FFFFF) | 0x800000;
        const uint32_t rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
        uint32_t result = mantissa >> shift;
        result += rest > half || (rest == half && (result & 1));
        return sign | result;
    }
    bits += 0xFFF + (bits >> 13 & 1);
    return sign | (bits - 0x38000000) >> 13;
}

uint16_t bfloat16_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint32_t nan = (bits >> 16 & 0x8000) | 0x7FC0;
    const uint32_t nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7FFFFFFF) > 0x7F800000 ? nan : nearest;
}

}  // namespace zarrgpu
