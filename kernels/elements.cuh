// Elements as values: what kernels that compute with them share.
#pragma once
#include "floats.cuh"

__device__ inline float as_f32(i32 type, u64 bits) {
    switch (type) {
        case TYPE_BOOL: return bits ? 1.0f : 0.0f;
        case TYPE_I1: return float(i8(bits));
        case TYPE_U1: return float(u8(bits));
        case TYPE_I2: return float(i16(bits));
        case TYPE_U2: return float(u16(bits));
        case TYPE_I4: return float(i32(bits));
        case TYPE_U4: return float(u32(bits));
        case TYPE_I8: return float(i64(bits));
        case TYPE_U8: return float(bits);
        case TYPE_F2: return f16_to_f32(u16(bits));
        case TYPE_F4: return __uint_as_float(u32(bits));
        default: return f64_to_f32(__longlong_as_double(i64(bits)));
    }
}

__device__ inline double as_f64(i32 type, u64 bits) {
    switch (type) {
        case TYPE_BOOL: return bits ? 1.0 : 0.0;
        case TYPE_I1: return double(i8(bits));
        case TYPE_U1: return double(u8(bits));
        case TYPE_I2: return double(i16(bits));
        case TYPE_U2: return double(u16(bits));
        case TYPE_I4: return double(i32(bits));
        case TYPE_U4: return double(u32(bits));
        case TYPE_I8: return double(i64(bits));
        case TYPE_U8: return double(bits);
        case TYPE_F2: return f16_to_f64(u16(bits));
        case TYPE_F4: return f32_to_f64(__uint_as_float(u32(bits)));
        default: return __longlong_as_double(i64(bits));
    }
}

// Bits of element `index` in native order, in the low bytes.
__device__ inline u64 load_element(u64 source, i64 index, i32 type, i32 swap) {
    u64 bits;
    switch (type_nbytes(type)) {
        case 1: return load<u8>(source + u64(index));
        case 2: bits = load_bytes<2>(source + u64(index) * 2); break;
        case 4: bits = load_bytes<4>(source + u64(index) * 4); break;
        default: bits = load_bytes<8>(source + u64(index) * 8); break;
    }
    if (!swap) return bits;
    bits = swap_bytes(bits, swap);
    return swap == 8 ? bits : bits & ((u64(1) << (8 * swap)) - 1);
}

// The target is a multiple of the element size.
__device__ inline void store_element(u64 target, i64 index, i32 type, i32 swap, u64 bits) {
    if (swap) bits = swap_bytes(bits, swap);
    switch (type_nbytes(type)) {
        case 1: store(target + u64(index), u8(bits)); return;
        case 2: store(target + u64(index) * 2, u16(bits)); return;
        case 4: store(target + u64(index) * 4, u32(bits)); return;
        default: store(target + u64(index) * 8, bits); return;
    }
}

__device__ inline bool is_signed(i32 type) {
    return type == TYPE_I1 || type == TYPE_I2 || type == TYPE_I4 || type == TYPE_I8;
}
__device__ inline bool is_unsigned(i32 type) {
    return type == TYPE_U1 || type == TYPE_U2 || type == TYPE_U4 || type == TYPE_U8;
}
__device__ inline bool is_integer(i32 type) { return is_signed(type) || is_unsigned(type); }
__device__ inline bool is_float(i32 type) { return type >= TYPE_F2 && type <= TYPE_F8; }

// An integer's value in two's complement of 64 bits.
__device__ inline u64 extend(i32 type, u64 bits) {
    switch (type) {
        case TYPE_I1: return u64(i64(i8(bits)));
        case TYPE_I2: return u64(i64(i16(bits)));
        case TYPE_I4: return u64(i64(i32(bits)));
        default: return bits;
    }
}

// The checks of a job that makes n elements of one type from n of another.
__device__ inline i32 check_elements(u64 source, i64 source_nbytes, i32 source_type, i32 source_swap,
                                     u64 target, i64 target_nbytes, i32 target_type, i32 target_swap,
                                     i64 n) {
    if (n < 0 || n > (i64(1) << 40)) return STATUS_BAD_JOB;
    if (source_type < 0 || source_type > TYPE_F8 || target_type < 0 || target_type > TYPE_F8)
        return STATUS_BAD_JOB;
    const i32 source_size = type_nbytes(source_type), target_size = type_nbytes(target_type);
    if (source_swap && (source_swap != source_size || source_size == 1)) return STATUS_BAD_JOB;
    if (target_swap && (target_swap != target_size || target_size == 1)) return STATUS_BAD_JOB;
    if (n * source_size > source_nbytes) return STATUS_SOURCE_BOUNDS;
    if (n * target_size > target_nbytes) return STATUS_TARGET_BOUNDS;
    if (n && overlap(source, n * source_size, target, n * target_size)) return STATUS_BAD_JOB;
    return target % u64(target_size) ? STATUS_MISALIGNED : STATUS_OK;
}

// A NaN that an operation makes or passes on has the bits that x86-64 gives it.

__device__ inline float fix_nan(float result, float a, float b) {
    if (result == result) return result;
    if (a != a) return __uint_as_float(__float_as_uint(a) | 0x00400000u);
    if (b != b) return __uint_as_float(__float_as_uint(b) | 0x00400000u);
    return __uint_as_float(0xffc00000u);
}

__device__ inline u64 quiet(double value) {
    return u64(__double_as_longlong(value)) | 0x0008000000000000ull;
}

__device__ inline double fix_nan(double result, double a, double b) {
    if (result == result) return result;
    if (a != a) return __longlong_as_double(i64(quiet(a)));
    if (b != b) return __longlong_as_double(i64(quiet(b)));
    return __longlong_as_double(i64(0xfff8000000000000ull));
}
