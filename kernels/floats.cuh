// Conversions between float formats, and normalisation.
#pragma once
#include "common.cuh"

// Conversions round to nearest, ties to even, keep subnormals, and treat NaNs as NumPy does on
// x86-64 (CUDA's own would replace every NaN by one pattern). References: numpy/core half.cpp.

__device__ inline u16 f32_to_f16(float value) {
    const u32 bits = __float_as_uint(value);
    const u32 sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {  // NaN: keep the payload's high bits, never become infinity
        const u32 nan = 0x7c00u + ((magnitude & 0x7fffffu) >> 13);
        return u16(sign | (nan == 0x7c00u ? 0x7c01u : nan));
    }
#ifdef __CUDA_ARCH__
    u16 nearest;  // one instruction; it differs from what follows for NaNs alone
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(nearest) : "f"(value));
    return nearest;
#else
    if (magnitude >= 0x47800000u) return u16(sign | 0x7c00u);
    u32 half, rest, middle;
    if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24
        if (magnitude < 0x33000000u) return u16(sign);
        const u32 shift = 126u - (magnitude >> 23);
        const u32 mantissa = (magnitude & 0x7fffffu) | 0x800000u;
        half = mantissa >> shift;
        rest = mantissa & ((1u << shift) - 1u);
        middle = 1u << (shift - 1u);
    } else {
        half = (magnitude - 0x38000000u) >> 13;
        rest = magnitude & 0x1fffu;
        middle = 0x1000u;
    }
    if (rest > middle || (rest == middle && (half & 1u))) ++half;
    return u16(sign | half);
#endif
}

// NaNs lose their payload, as ml_dtypes' do.
__device__ inline u16 f32_to_bf16(float value) {
    const u32 bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return u16(((bits >> 16) & 0x8000u) | 0x7fc0u);
    return u16((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ inline u16 f64_to_f16(double value) {
    const u64 bits = u64(__double_as_longlong(value));
    const u32 sign = u32(bits >> 48) & 0x8000u;
    const u64 magnitude = bits & 0x7fffffffffffffffull;
    if (magnitude > 0x7ff0000000000000ull) {
        const u32 nan = 0x7c00u + u32((magnitude & 0xfffffffffffffull) >> 42);
        return u16(sign | (nan == 0x7c00u ? 0x7c01u : nan));
    }
    if (magnitude >= 0x40f0000000000000ull) return u16(sign | 0x7c00u);
    u64 half, rest, middle;
    if (magnitude < 0x3f10000000000000ull) {
        if (magnitude < 0x3e60000000000000ull) return u16(sign);
        const u32 shift = 1051u - u32(magnitude >> 52);
        const u64 mantissa = (magnitude & 0xfffffffffffffull) | 0x10000000000000ull;
        half = mantissa >> shift;
        rest = mantissa & ((1ull << shift) - 1ull);
        middle = 1ull << (shift - 1u);
    } else {
        half = (magnitude - 0x3f00000000000000ull) >> 42;
        rest = magnitude & 0x3ffffffffffull;
        middle = 0x20000000000ull;
    }
    if (rest > middle || (rest == middle && (half & 1u))) ++half;
    return u16(sign | u32(half));
}

__device__ inline float f16_to_f32(u16 half) {
    const u32 sign = u32(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u)
        return __uint_as_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    if (magnitude >= 0x0400u) return __uint_as_float(sign | ((magnitude << 13) + 0x38000000u));
    const float value = __fmul_rn(float(magnitude), 5.9604644775390625e-8f);  // 2^-24, exact
    return __uint_as_float(sign | __float_as_uint(value));
}

__device__ inline float f64_to_f32(double value) {
    if (value == value) return float(value);
    const u64 bits = u64(__double_as_longlong(value));
    const u32 payload = u32((bits & 0xfffffffffffffull) >> 29);
    return __uint_as_float((u32(bits >> 32) & 0x80000000u) | 0x7fc00000u | payload);
}

__device__ inline double f32_to_f64(float value) {
    if (value == value) return double(value);
    const u32 bits = __float_as_uint(value);
    const u64 payload = u64(bits & 0x7fffffu) << 29;
    const u64 sign = u64(bits & 0x80000000u) << 32;
    return __longlong_as_double(i64(sign | 0x7ff8000000000000ull | payload));
}

__device__ inline double f16_to_f64(u16 half) {
    if ((half & 0x7fffu) <= 0x7c00u) return double(f16_to_f32(half));
    const u64 sign = u64(half & 0x8000u) << 48;
    return __longlong_as_double(i64(sign | 0x7ff0000000000000ull | (u64(half & 0x3ffu) << 42)));
}

// float32(x) * scale + offset, each step rounded: never a fused multiply-add, which NumPy has not.
__device__ inline float normalise(float x, float scale, float offset) {
    const float y = __fadd_rn(__fmul_rn(x, scale), offset);
    if (y == y) return y;
    if (x != x) return __uint_as_float(__float_as_uint(x) | 0x00400000u);
    if (scale != scale) return __uint_as_float(__float_as_uint(scale) | 0x00400000u);
    if (offset != offset) return __uint_as_float(__float_as_uint(offset) | 0x00400000u);
    return __uint_as_float(0xffc00000u);  // infinity * 0, infinity - infinity: as x86-64 has it
}
