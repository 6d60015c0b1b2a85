// XXH64 with seed 0 of byte ranges, compared with the low 32 bits that are stored: the content checksum
// of zstd frames.
//
// Sources: RFC 8878, 3.1.1; doc/xxhash_spec.md of xxHash. The four accumulators are a chain each, which
// no scheme cuts: a job takes as long as its bytes, and many jobs run side by side.
//
// Geometry: one warp per job, which has one tile; lanes 0 ... 3 keep an accumulator each, so that a step of
// theirs reads one sector; lane 0 ends it. No shared memory. Alignment: none asked. A job whose checksum
// differs gets STATUS_MISMATCH.
// Reference: checksum in tests/kernel_references.py (xxh64 by the specification).
#include "checksum.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr u64 PRIME1 = 0x9e3779b185ebca87ull, PRIME2 = 0xc2b2ae3d27d4eb4full;
constexpr u64 PRIME3 = 0x165667b19e3779f9ull, PRIME4 = 0x85ebca77c2b2ae63ull;
constexpr u64 PRIME5 = 0x27d4eb2f165667c5ull;

__device__ inline u64 rotate(u64 value, int bits) { return value << bits | value >> (64 - bits); }

__device__ inline u64 step(u64 accumulator, u64 input) {
    return rotate(accumulator + input * PRIME2, 31) * PRIME1;
}

__device__ inline u64 merge(u64 hash, u64 accumulator) {
    return (hash ^ step(0, accumulator)) * PRIME1 + PRIME4;
}

// The accumulator of one lane over all stripes of 32 bytes.
__device__ inline u64 accumulate(u64 source, i64 n_stripes, i32 lane) {
    u64 accumulator = lane == 0 ? PRIME1 + PRIME2 : lane == 1 ? PRIME2 : lane == 2 ? 0 : 0 - PRIME1;
    source += u64(lane) * 8;
    i64 stripe = 0;
    for (; stripe + 8 <= n_stripes; stripe += 8) {  // eight loads in flight
        u64 inputs[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) inputs[i] = load_bytes<8>(source + u64(stripe + i) * 32);
#pragma unroll
        for (int i = 0; i < 8; ++i) accumulator = step(accumulator, inputs[i]);
    }
    for (; stripe < n_stripes; ++stripe)
        accumulator = step(accumulator, load_bytes<8>(source + u64(stripe) * 32));
    return accumulator;
}

__device__ inline u64 finish(u64 hash, u64 at, u64 end) {
    for (; at + 8 <= end; at += 8)
        hash = rotate(hash ^ step(0, load_bytes<8>(at)), 27) * PRIME1 + PRIME4;
    if (at + 4 <= end) {
        hash = rotate(hash ^ load_bytes<4>(at) * PRIME1, 23) * PRIME2 + PRIME3;
        at += 4;
    }
    for (; at < end; ++at) hash = rotate(hash ^ u64(load<u8>(at)) * PRIME5, 11) * PRIME1;
    hash = (hash ^ hash >> 33) * PRIME2;
    hash = (hash ^ hash >> 29) * PRIME3;
    return hash ^ hash >> 32;
}

__device__ inline i32 check(const ChecksumJob& job) {
    if (job.nbytes < 0 || job.kind != CHECKSUM_XXH64) return STATUS_BAD_JOB;
    return job.nbytes > job.source_nbytes ? STATUS_SOURCE_BOUNDS : STATUS_OK;
}

extern "C" __global__ void checksum_xxh64(const ChecksumJob* jobs,  // (n_jobs,)
                                          i32 n_jobs,
                                          const i64* tile_starts,   // (n_jobs + 1,)
                                          i32 tile_nbytes,
                                          i32* status)              // (n_jobs,) out
{
    (void)tile_starts, (void)tile_nbytes;
    const i32 lane = threadIdx.x & 31;
    for (i64 index = warp_index(); index < n_jobs; index += warp_count()) {
        const ChecksumJob job = jobs[index];
        i32 code = check(job);
        if (code == STATUS_OK) {
            const i64 n_stripes = job.nbytes / 32;
            const u64 mine = n_stripes && lane < 4 ? accumulate(job.source, n_stripes, lane) : 0;
            u64 all[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) all[i] = __shfl_sync(ALL_LANES, mine, i);
            u64 hash = PRIME5;
            if (n_stripes) {
                hash = rotate(all[0], 1) + rotate(all[1], 7) + rotate(all[2], 12) + rotate(all[3], 18);
#pragma unroll
                for (int i = 0; i < 4; ++i) hash = merge(hash, all[i]);
            }
            if (lane == 0) {
                hash = finish(hash + u64(job.nbytes), job.source + u64(n_stripes) * 32,
                              job.source + u64(job.nbytes));
                if (u32(hash) != stored_checksum(job)) code = STATUS_MISMATCH;
            }
        }
        if (lane == 0) status[index] = code;
    }
}
