// Casts of elements as NumPy's astype does them, with x / divisor + addend before where a job asks for it.
//
// Source: numcodecs 0.16 (astype, quantize, fixedscaleoffset), zarr-extensions (scale_offset of floats). The
// scaling is computed in the source's type if that is a float, else in float64: a division and an addition, each
// rounded once (never fused), float16 through float32 as NumPy has it.
// Where NumPy's result depends on the machine, a job gets STATUS_INEXACT: a float that its integer type cannot
// hold, a bool that is neither 0 nor 1. The content of its target means nothing then.
//
// Geometry: one warp per tile of `tile_elements` elements (see common.cuh); no shared memory. Statuses must be
// 0 before the launch, as tiles raise them. Alignment: the target's element size.
// Reference: NumPy (tests/test_element_kernels.py).
#include "elements.cuh"

__device__ inline i32 check(const ConvertJob& job, i64 n_tiles, i32 tile_elements) {
    if (tile_elements < 1 || job.n > n_tiles * tile_elements) return STATUS_BAD_JOB;
    return check_elements(job.source, job.source_nbytes, job.source_type, job.source_swap,
                          job.target, job.target_nbytes, job.target_type, job.target_swap, job.n);
}

// ------------------------------------------------------------------------------------- scaling

__device__ inline float scale_f32(float x, float divisor, float addend) {
    const float quotient = fix_nan(__fdiv_rn(x, divisor), x, divisor);
    return fix_nan(__fadd_rn(quotient, addend), quotient, addend);
}

__device__ inline u16 scale_f16(u16 x, float divisor, float addend) {
    const float wide = f16_to_f32(x);
    const float quotient = f16_to_f32(f32_to_f16(fix_nan(__fdiv_rn(wide, divisor), wide, divisor)));
    return f32_to_f16(fix_nan(__fadd_rn(quotient, addend), quotient, addend));
}

__device__ inline double scale_f64(double x, double divisor, double addend) {
    const double quotient = fix_nan(__ddiv_rn(x, divisor), x, divisor);
    return fix_nan(__dadd_rn(quotient, addend), quotient, addend);
}

// Replaces type and bits of an element by those of the scaled one.
__device__ inline void scale_element(const ConvertJob& job, i32& type, u64& bits) {
    if (type == TYPE_F2) {
        bits = scale_f16(u16(bits), float(job.divisor), float(job.addend));
    } else if (type == TYPE_F4) {
        const float scaled =
            scale_f32(__uint_as_float(u32(bits)), float(job.divisor), float(job.addend));
        bits = __float_as_uint(scaled);
    } else {
        bits = u64(__double_as_longlong(scale_f64(as_f64(type, bits), job.divisor, job.addend)));
        type = TYPE_F8;
    }
}

// --------------------------------------------------------------------------------------- casts

// A float as an integer, towards zero; false where the type does not hold it.
__device__ inline bool truncate(double value, i32 type, u64& bits) {
    const i32 width = 8 * type_nbytes(type);
    const double end = __longlong_as_double(i64(u64(1023 + width - is_signed(type)) << 52));  // 2^n
    const bool fits = is_signed(type) ? (width == 64 ? value >= -end : value > -end - 1.0) && value < end
                                      : value > -1.0 && value < end;
    if (!fits) return false;
    bits = is_signed(type) ? u64(i64(value)) : value < 0.0 ? 0 : u64(value);
    return true;
}

__device__ inline bool cast(i32 from, i32 to, u64& bits) {
    if (from == to) return true;
    if (to == TYPE_F8) {
        bits = u64(__double_as_longlong(as_f64(from, bits)));
    } else if (to == TYPE_F4) {
        bits = __float_as_uint(as_f32(from, bits));
    } else if (to == TYPE_F2) {
        bits = from == TYPE_F8 ? f64_to_f16(__longlong_as_double(i64(bits)))
                               : f32_to_f16(as_f32(from, bits));
    } else if (to == TYPE_BOOL) {
        bits = is_float(from) ? as_f64(from, bits) != 0.0 : bits != 0;
    } else if (is_float(from)) {
        return truncate(as_f64(from, bits), to, bits);
    } else {
        bits = extend(from, bits);
    }
    return true;
}

// One element; false where no cast agrees on it.
__device__ inline bool convert_element(const ConvertJob& job, i64 index) {
    i32 type = job.source_type;
    u64 bits = load_element(job.source, index, type, job.source_swap);
    if (type == TYPE_BOOL && bits > 1) return false;
    if (job.scaled) scale_element(job, type, bits);
    if (!cast(type, job.target_type, bits)) return false;
    store_element(job.target, index, job.target_type, job.target_swap, bits);
    return true;
}

extern "C" __global__ void convert(const ConvertJob* jobs,  // (n_jobs,)
                                   i32 n_jobs,
                                   const i64* tile_starts,  // (n_jobs + 1,)
                                   i32 tile_elements,
                                   i32* status)             // (n_jobs,) in, 0, and out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        const ConvertJob job = jobs[index];
        const i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_elements);
        if (code != STATUS_OK) {
            if (lane == 0) atomicMax(status + index, code);
            continue;
        }
        const i64 begin = tile_of_job * tile_elements;
        const i64 end = begin + tile_elements < job.n ? begin + tile_elements : job.n;
        bool exact = true;
        for (i64 i = begin + lane; i < end; i += 32) exact &= convert_element(job, i);
        if (!exact) atomicMax(status + index, i32(STATUS_INEXACT));
    }
}
