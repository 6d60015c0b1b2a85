// Samples of 1 to 16 bits from packed rows, one job per chunk; also bytes with their bits in reverse.
//
// Source: TIFF 6.0, BitsPerSample and FillOrder. Samples lie one after another, highest bit first, and each row
// begins with a new byte. Up to 8 bits become a byte, more a native u16. `reversed` takes the lowest bit of each
// byte first: with 8 bits a sample that is all of FillOrder 2.
//
// Geometry: one warp per tile of `tile_elements` samples (see common.cuh), neighbours by neighbouring lanes; no
// shared memory. Alignment: the target's sample size. Reference: tests/kernel_references.py, unpack_samples.
#include "common.cuh"

__device__ inline i32 check(const SamplesJob& job, i64 n_tiles, i32 tile_elements) {
    constexpr i64 MOST = 0x7fffffff;
    if (tile_elements < 1 || job.n < 0 || job.n > MOST || job.n > n_tiles * tile_elements) return STATUS_BAD_JOB;
    if (job.bits < 1 || job.bits > 16 || job.row_samples < 1 || job.n % job.row_samples) return STATUS_BAD_JOB;
    const i64 row_nbytes = (i64(job.row_samples) * job.bits + 7) / 8;
    const i64 nbytes = job.n / job.row_samples * row_nbytes, target_nbytes = job.bits > 8 ? 2 * job.n : job.n;
    if (nbytes > job.source_nbytes) return STATUS_SOURCE_BOUNDS;
    if (target_nbytes > job.target_nbytes) return STATUS_TARGET_BOUNDS;
    if (job.n && overlap(job.source, nbytes, job.target, target_nbytes)) return STATUS_BAD_JOB;
    return job.bits > 8 && job.target % 2 ? STATUS_MISALIGNED : STATUS_OK;
}

__device__ inline u32 source_byte(const SamplesJob& job, u64 at) {
    const u32 value = load<u8>(job.source + at);
    return job.reversed ? __brev(value) >> 24 : value;
}

__device__ inline u32 sample(const SamplesJob& job, u64 row_nbytes, u32 index) {
    const u32 row = index / u32(job.row_samples), column = index - row * u32(job.row_samples);
    const u64 bit = u64(column) * u32(job.bits), at = row * row_nbytes + (bit >> 3);
    const u32 end = u32(bit & 7) + u32(job.bits);  // in the bytes from `at`: at most 23
    u32 value = source_byte(job, at) << 16;
    if (end > 8) value |= source_byte(job, at + 1) << 8;
    if (end > 16) value |= source_byte(job, at + 2);
    return (value >> (24 - end)) & ((1u << job.bits) - 1);
}

extern "C" __global__ void unpack_samples(const SamplesJob* jobs,  // (n_jobs,)
                                          i32 n_jobs,
                                          const i64* tile_starts,  // (n_jobs + 1,)
                                          i32 tile_elements,
                                          i32* status)             // (n_jobs,) out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        const SamplesJob job = jobs[index];
        const i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_elements);
        if (lane == 0 && tile_of_job == 0) status[index] = code;
        if (code != STATUS_OK) continue;
        const u64 row_nbytes = (u64(u32(job.row_samples)) * u32(job.bits) + 7) / 8;
        const i64 begin = tile_of_job * tile_elements;
        const i64 end = begin + tile_elements < job.n ? begin + tile_elements : job.n;
        for (i64 i = begin + lane; i < end; i += 32) {
            const u32 value = sample(job, row_nbytes, u32(i));
            if (job.bits > 8) store(job.target + u64(i) * 2, u16(value));
            else store(job.target + u64(i), u8(value));
        }
    }
}
