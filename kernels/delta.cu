// Running sums of integers, one job per chunk: target[i] = source[0] + ... + source[i], wrapping around in the
// target's type.
//
// Source: numcodecs 0.16, delta (np.cumsum). Sums modulo 2^64 are exact in any order and keep their low bits, so
// that tiles can be summed up on their own: delta_sums first, then delta_apply with the same jobs.
//
// Geometry: one warp per tile of `tile_elements` elements (see common.cuh); no shared memory. delta_apply adds up
// the sums of all tiles before its own: n_tiles / 32 loads a lane. Alignment: the target's element size.
// Reference: numpy.cumsum (tests/test_element_kernels.py).
#include "elements.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr int PER_LANE = 4;

__device__ inline i32 check(const DeltaJob& job, i64 n_tiles, i32 tile_elements) {
    if (tile_elements < 1 || job.n > n_tiles * tile_elements) return STATUS_BAD_JOB;
    if (!is_integer(job.source_type) || !is_integer(job.target_type)) return STATUS_BAD_JOB;
    if (n_tiles * 8 > job.sums_nbytes) return STATUS_TARGET_BOUNDS;
    if (job.sums & 7) return STATUS_MISALIGNED;
    return check_elements(job.source, job.source_nbytes, job.source_type, job.source_swap,
                          job.target, job.target_nbytes, job.target_type, job.target_swap, job.n);
}

__device__ inline u64 load_value(const DeltaJob& job, i64 index) {
    return extend(job.source_type, load_element(job.source, index, job.source_type, job.source_swap));
}

__device__ inline u64 add_lanes(u64 value) {
    for (u32 step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

// Sum of the lanes before this one.
__device__ inline u64 sum_before(u64 value, i32 lane) {
    u64 sum = value;
    for (i32 step = 1; step < 32; step <<= 1) {
        const u64 other = __shfl_up_sync(ALL_LANES, sum, step);
        if (lane >= step) sum += other;
    }
    return sum - value;
}

__device__ inline void sum_tile(const DeltaJob& job, i64 tile, i64 begin, i64 end, i32 lane) {
    u64 sum = 0;
    for (i64 i = begin + lane; i < end; i += 32) sum += load_value(job, i);
    sum = add_lanes(sum);
    if (lane == 0) store(job.sums + u64(tile) * 8, sum);
}

__device__ inline void apply_tile(const DeltaJob& job, i64 tile, i64 begin, i64 end, i32 lane) {
    u64 before = 0;
    for (i64 t = lane; t < tile; t += 32) before += load<u64>(job.sums + u64(t) * 8);
    before = add_lanes(before);
    for (i64 round = begin; round < end; round += 32 * PER_LANE) {
        const i64 first = round + lane * PER_LANE;
        u64 values[PER_LANE], sum = 0;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
            sum += first + i < end ? load_value(job, first + i) : 0;
            values[i] = sum;
        }
        const u64 base = before + sum_before(sum, lane);
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i)
            if (first + i < end)
                store_element(job.target, first + i, job.target_type, job.target_swap, base + values[i]);
        before = __shfl_sync(ALL_LANES, base + sum, 31);
    }
}

template <bool APPLY>
__device__ inline void delta_jobs(const DeltaJob* jobs, i32 n_jobs, const i64* tile_starts,
                                  i32 tile_elements, i32* status) {
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        const DeltaJob job = jobs[index];
        const i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_elements);
        if (lane == 0 && tile_of_job == 0) status[index] = code;
        if (code != STATUS_OK) continue;
        const i64 begin = tile_of_job * tile_elements;
        const i64 end = begin + tile_elements < job.n ? begin + tile_elements : job.n;
        if constexpr (APPLY) apply_tile(job, tile_of_job, begin, end, lane);
        else sum_tile(job, tile_of_job, begin, end, lane);
    }
}

extern "C" __global__ void delta_sums(const DeltaJob* jobs,    // (n_jobs,)
                                      i32 n_jobs,
                                      const i64* tile_starts,  // (n_jobs + 1,)
                                      i32 tile_elements,
                                      i32* status)             // (n_jobs,) out
{
    delta_jobs<false>(jobs, n_jobs, tile_starts, tile_elements, status);
}

extern "C" __global__ void delta_apply(const DeltaJob* jobs,    // (n_jobs,)
                                       i32 n_jobs,
                                       const i64* tile_starts,  // (n_jobs + 1,)
                                       i32 tile_elements,
                                       i32* status)             // (n_jobs,) out
{
    delta_jobs<true>(jobs, n_jobs, tile_starts, tile_elements, status);
}
