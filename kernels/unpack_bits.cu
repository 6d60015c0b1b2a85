// Values of a few bits, packed without gaps, to whole bytes: one job per chunk.
//
// Source: zarr-extensions packbits; numcodecs 0.16 packbits (one bit a bool, highest first). Bit j of value i is bit
// i * packed_bits + j of the stream, counted from the lowest bit of each byte, or from its highest (`big`). Above
// the stored bits a value is 0, or repeats the last one up to `sign_bits`.
// A job whose padding byte does not count the bits that are left over gets STATUS_CORRUPT.
//
// Geometry: one warp per tile of `tile_elements` values (see common.cuh); no shared memory. Alignment: none asked.
// Reference: NumPy's unpackbits, and numcodecs (tests/test_element_kernels.py).
#include "elements.cuh"

__device__ inline i64 packed_nbytes(const UnpackJob& job) {
    return (job.n * job.packed_bits + 7) / 8;
}

__device__ inline i32 check(const UnpackJob& job, i64 n_tiles, i32 tile_elements) {
    if (tile_elements < 1 || job.n < 0 || job.n > n_tiles * tile_elements) return STATUS_BAD_JOB;
    if (job.n > (i64(1) << 40)) return STATUS_BAD_JOB;
    if (job.width < 1 || job.width > 8 || job.packed_bits < 1) return STATUS_BAD_JOB;
    if (job.first_bit < 0 || job.packed_bits > 8 * job.width - job.first_bit) return STATUS_BAD_JOB;
    if (job.sign_bits < 0 || job.sign_bits > 8 * job.width) return STATUS_BAD_JOB;
    if (job.big && job.packed_bits != 1) return STATUS_BAD_JOB;
    if (packed_nbytes(job) > job.source_nbytes) return STATUS_SOURCE_BOUNDS;
    if (job.n * job.width > job.target_nbytes) return STATUS_TARGET_BOUNDS;
    if (job.n && overlap(job.source, packed_nbytes(job), job.target, job.n * job.width))
        return STATUS_BAD_JOB;
    return STATUS_OK;
}

__device__ inline bool padding_fits(const UnpackJob& job) {
    return job.padding == 0 ||
           load<u8>(job.padding) == packed_nbytes(job) * 8 - job.n * job.packed_bits;
}

// Up to 64 bits from bit `at` on.
__device__ inline u64 load_bits(const UnpackJob& job, i64 at) {
    if (job.big) return (load<u8>(job.source + u64(at >> 3)) >> (7 - (at & 7))) & 1;
    u64 value = 0;
    i32 have = 0;
    i32 skip = i32(at & 7);
    for (u64 byte = job.source + u64(at >> 3); have < job.packed_bits; ++byte) {
        value |= u64(load<u8>(byte) >> skip) << have;
        have += 8 - skip;
        skip = 0;
    }
    return job.packed_bits == 64 ? value : value & ((u64(1) << job.packed_bits) - 1);
}

__device__ inline void unpack_value(const UnpackJob& job, i64 index) {
    u64 value = load_bits(job, index * job.packed_bits) << job.first_bit;
    const i32 stored_end = job.first_bit + job.packed_bits;
    if (job.sign_bits > stored_end && (value >> (stored_end - 1)) & 1) {
        const u64 below = job.sign_bits == 64 ? ~u64(0) : (u64(1) << job.sign_bits) - 1;
        value |= below & ~((u64(1) << stored_end) - 1);
    }
    const u64 target = job.target + u64(index) * u64(job.width);
    for (i32 i = 0; i < job.width; ++i)
        store(target + u64(job.swap ? job.width - 1 - i : i), u8(value >> (8 * i)));
}

extern "C" __global__ void unpack_bits(const UnpackJob* jobs,   // (n_jobs,)
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
        const UnpackJob job = jobs[index];
        i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_elements);
        if (code == STATUS_OK && !padding_fits(job)) code = STATUS_CORRUPT;
        if (lane == 0 && tile_of_job == 0) status[index] = code;
        if (code != STATUS_OK) continue;
        const i64 begin = tile_of_job * tile_elements;
        const i64 end = begin + tile_elements < job.n ? begin + tile_elements : job.n;
        for (i64 i = begin + lane; i < end; i += 32) unpack_value(job, i);
    }
}
