// Running sums of floats, one job per chunk, each rounded before the next is added: float addition has an order,
// and numpy.cumsum adds from first to last in the target's type.
//
// Source: numcodecs 0.16, delta (np.cumsum). float16 is added through float32, as NumPy has it. Where a NaN is added
// to a different one, which of the two is kept depends on the machine: the job gets STATUS_INEXACT.
//
// Geometry: one warp per job, which has one tile; no shared memory. The lanes load and store 32 elements at a time,
// and all of them add all 32 in order: a job takes as long as its elements, and many jobs run side by side.
// Alignment: the target's element size. `sums` is not used.
// Reference: numpy.cumsum (tests/test_element_kernels.py).
#include "elements.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;

__device__ inline i32 check(const DeltaJob& job) {
    if (!is_float(job.source_type) || !is_float(job.target_type)) return STATUS_BAD_JOB;
    if (job.source_type > job.target_type) return STATUS_BAD_JOB;  // F2 < F4 < F8
    return check_elements(job.source, job.source_nbytes, job.source_type, job.source_swap,
                          job.target, job.target_nbytes, job.target_type, job.target_swap, job.n);
}

__device__ inline u64 load_wide(const DeltaJob& job, i64 index) {
    const u64 bits = load_element(job.source, index, job.source_type, job.source_swap);
    if (job.source_type == job.target_type) return bits;
    if (job.target_type == TYPE_F4) return __float_as_uint(as_f32(job.source_type, bits));
    return u64(__double_as_longlong(as_f64(job.source_type, bits)));
}

__device__ inline float as_float(u64 bits) { return __uint_as_float(u32(bits)); }
__device__ inline double as_double(u64 bits) { return __longlong_as_double(i64(bits)); }

__device__ inline bool is_nan(i32 type, u64 bits) {
    if (type == TYPE_F2) return (bits & 0x7fff) > 0x7c00;
    if (type == TYPE_F4) return (bits & 0x7fffffff) > 0x7f800000;
    return (bits & 0x7fffffffffffffffull) > 0x7ff0000000000000ull;
}

// Two NaNs that are not the same once they are quiet.
__device__ inline bool ambiguous(i32 type, u64 a, u64 b) {
    const u64 quiet_bit = type == TYPE_F2 ? 0x200 : type == TYPE_F4 ? 0x400000 : u64(1) << 51;
    return is_nan(type, a) && is_nan(type, b) && ((a ^ b) & ~quiet_bit) != 0;
}

__device__ inline u64 add(i32 type, u64 a, u64 b) {
    if (type == TYPE_F8)
        return u64(__double_as_longlong(
            fix_nan(__dadd_rn(as_double(a), as_double(b)), as_double(a), as_double(b))));
    const float x = type == TYPE_F2 ? f16_to_f32(u16(a)) : as_float(a);
    const float y = type == TYPE_F2 ? f16_to_f32(u16(b)) : as_float(b);
    const float sum = fix_nan(__fadd_rn(x, y), x, y);
    return type == TYPE_F2 ? u64(f32_to_f16(sum)) : u64(__float_as_uint(sum));
}

// False where a NaN meets a different one.
__device__ inline bool sum_up(const DeltaJob& job, i32 lane) {
    const i32 type = job.target_type;
    u64 sum = 0;
    bool exact = true;
    for (i64 round = 0; round < job.n; round += 32) {
        const i64 index = round + lane;
        const i32 count = job.n - round < 32 ? i32(job.n - round) : 32;
        const u64 value = index < job.n ? load_wide(job, index) : 0;
        u64 mine = 0;
        for (i32 k = 0; k < count; ++k) {
            const u64 next = __shfl_sync(ALL_LANES, value, k);
            if (round + k == 0) {
                sum = next;
            } else {
                exact &= !ambiguous(type, sum, next);
                sum = add(type, sum, next);
            }
            if (lane == k) mine = sum;
        }
        if (index < job.n) store_element(job.target, index, type, job.target_swap, mine);
    }
    return exact;
}

extern "C" __global__ void delta_floats(const DeltaJob* jobs,    // (n_jobs,)
                                        i32 n_jobs,
                                        const i64* tile_starts,  // (n_jobs + 1,)
                                        i32 tile_elements,
                                        i32* status)             // (n_jobs,) out
{
    (void)tile_starts, (void)tile_elements;
    const i32 lane = threadIdx.x & 31;
    for (i64 index = warp_index(); index < n_jobs; index += warp_count()) {
        const DeltaJob job = jobs[index];
        i32 code = check(job);
        if (code == STATUS_OK && !sum_up(job, lane)) code = STATUS_INEXACT;
        if (lane == 0) status[index] = code;
    }
}
