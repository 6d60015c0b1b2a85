// Undo Blosc1's byte and bit shuffle, one job per Blosc block.
//
// Source: README_CHUNK_FORMAT and shuffle-generic.h of c-blosc 1.21. With n = nbytes / typesize:
//   bytes  target[i * typesize + j] = source[j * n + i]; the last nbytes % typesize bytes are copied.
//   bits   only if n % 8 == 0 (else the whole block is copied): row r = 8 j + k has n / 8 bytes, and
//          its bit i, lowest first, is bit k of byte j of element i; trailing bytes are copied.
//
// Geometry: one warp per tile of `tile_nbytes` bytes of one target (see common.cuh); no shared
// memory. Alignment: none asked; typesizes 1, 2, 4 and 8 take 16-byte stores if the target is a
// multiple of 16 and tile_nbytes of 64. Source and target must not overlap.
// References: unshuffle_bytes and unshuffle_bits in tests/kernel_references.py.
#include "common.cuh"

struct Tile {
    i64 begin, end;  // bytes of the target
};

__device__ inline i32 check(const UnshuffleJob& job) {
    if (job.typesize < 1 || job.typesize > 255) return STATUS_BAD_JOB;
    if (job.nbytes > 0x7fffffff) return STATUS_BAD_JOB;  // Blosc1 counts in int32
    return check_bytes(job.source, job.source_nbytes, job.target, job.target_nbytes, job.nbytes);
}

// --------------------------------------------------------------------------------------- bytes

// 16 target bytes at a time: 16 / TS neighbours from each of TS planes.
template <int TS>
__device__ inline i64 unshuffle_vectors(const UnshuffleJob& job, Tile tile, u32 n, i32 lane) {
    constexpr int COUNT = 16 / TS;
    const i64 end = tile.end & ~i64(15);
    for (i64 at = tile.begin + i64(lane) * 16; at < end; at += 512) {
        u64 planes[TS];
#pragma unroll
        for (int j = 0; j < TS; ++j)
            planes[j] = load_bytes<COUNT>(job.source + u64(j) * n + u64(at) / TS);
        u32 words[4] = {0, 0, 0, 0};
#pragma unroll
        for (int b = 0; b < 16; ++b)
            words[b / 4] |= (u32(planes[b % TS] >> (8 * (b / TS))) & 0xffu) << (8 * (b % 4));
        uint4 v;
        v.x = words[0];
        v.y = words[1];
        v.z = words[2];
        v.w = words[3];
        store(job.target + at, v);
    }
    return end > tile.begin ? end : tile.begin;
}

// The bytes of whole elements in a tile, any typesize and alignment.
__device__ inline void unshuffle_tile(const UnshuffleJob& job, Tile tile, u32 n, i32 lane,
                                      bool vectors) {
    i64 at = tile.begin;
    if (vectors) {
        if (job.typesize == 2) at = unshuffle_vectors<2>(job, tile, n, lane);
        if (job.typesize == 4) at = unshuffle_vectors<4>(job, tile, n, lane);
        if (job.typesize == 8) at = unshuffle_vectors<8>(job, tile, n, lane);
    }
    const u32 typesize = u32(job.typesize);
    for (at += lane; at < tile.end; at += 32) {
        const u32 element = u32(at) / typesize, byte = u32(at) - element * typesize;
        store<u8>(job.target + at, load<u8>(job.source + u64(byte) * n + element));
    }
}

// ---------------------------------------------------------------------------------------- bits

// Transpose an 8 x 8 bit matrix: bit c of byte r becomes bit r of byte c (Hacker's Delight 7-3).
__device__ inline u64 transpose_bits(u64 x) {
    u64 t = (x ^ (x >> 7)) & 0x00aa00aa00aa00aaull;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000cccc0000ccccull;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000f0f0f0f0ull;
    return x ^ t ^ (t << 28);
}

// Byte `byte` of elements 8 group ... 8 group + 7.
__device__ inline u64 eight_elements(u64 source, u32 row_nbytes, u32 byte, u32 group) {
    u64 rows = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k)
        rows |= u64(load<u8>(source + u64(byte * 8 + k) * row_nbytes + group)) << (8 * k);
    return transpose_bits(rows);
}

// Eight elements at a time: 8 TS target bytes.
template <int TS>
__device__ inline i64 unbitshuffle_vectors(const UnshuffleJob& job, Tile tile, u32 n, i32 lane) {
    constexpr int GROUP = 8 * TS;
    const i64 end = tile.end - tile.end % GROUP;
    for (i64 at = tile.begin + i64(lane) * GROUP; at < end; at += 32 * GROUP) {
        u64 columns[TS];
#pragma unroll
        for (int j = 0; j < TS; ++j)
            columns[j] = eight_elements(job.source, n / 8, j, u32(at / GROUP));
        if constexpr (TS == 1) {
            store(job.target + at, columns[0]);
        } else {
#pragma unroll
            for (int part = 0; part < TS / 2; ++part) {
                u32 words[4] = {0, 0, 0, 0};
#pragma unroll
                for (int b = 0; b < 16; ++b) {
                    const int byte = (16 * part + b) % TS, element = (16 * part + b) / TS;
                    words[b / 4] |= (u32(columns[byte] >> (8 * element)) & 0xffu) << (8 * (b % 4));
                }
                uint4 v;
                v.x = words[0];
                v.y = words[1];
                v.z = words[2];
                v.w = words[3];
                store(job.target + at + 16 * part, v);
            }
        }
    }
    return end > tile.begin ? end : tile.begin;
}

__device__ inline void unbitshuffle_tile(const UnshuffleJob& job, Tile tile, u32 n, i32 lane,
                                         bool vectors) {
    i64 at = tile.begin;
    if (vectors) {
        if (job.typesize == 1) at = unbitshuffle_vectors<1>(job, tile, n, lane);
        if (job.typesize == 2) at = unbitshuffle_vectors<2>(job, tile, n, lane);
        if (job.typesize == 4) at = unbitshuffle_vectors<4>(job, tile, n, lane);
        if (job.typesize == 8) at = unbitshuffle_vectors<8>(job, tile, n, lane);
    }
    const u32 typesize = u32(job.typesize);
    for (at += lane; at < tile.end; at += 32) {
        const u32 element = u32(at) / typesize, byte = u32(at) - element * typesize;
        const u64 column = eight_elements(job.source, n / 8, byte, element / 8);
        store<u8>(job.target + at, u8(column >> (8 * (element % 8))));
    }
}

// --------------------------------------------------------------------------------------- launch

template <bool BITS>
__device__ inline void unshuffle_jobs(const UnshuffleJob* jobs, i32 n_jobs, const i64* tile_starts,
                                      i32 tile_nbytes, i32* status) {
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        const UnshuffleJob job = jobs[index];
        const i32 code = check(job);
        if (lane == 0 && tile_of_job == 0) status[index] = code;
        if (code != STATUS_OK) continue;
        const i64 begin = tile_of_job * tile_nbytes;
        if (begin >= job.nbytes) continue;
        const i64 end = begin + tile_nbytes < job.nbytes ? begin + tile_nbytes : job.nbytes;
        // Whole elements are shuffled; the bytes after them are stored as they are.
        const u32 n = u32(job.nbytes) / u32(job.typesize);
        i64 shuffled = i64(n) * job.typesize;
        if (BITS ? n % 8 != 0 : job.typesize == 1) shuffled = 0;
        const bool vectors = (job.target & 15) == 0 && (tile_nbytes & 63) == 0;
        const Tile whole = {begin, end < shuffled ? end : shuffled};
        if (whole.begin < whole.end) {
            if constexpr (BITS) unbitshuffle_tile(job, whole, n, lane, vectors);
            else unshuffle_tile(job, whole, n, lane, vectors);
        }
        const i64 rest = begin > shuffled ? begin : shuffled;
        if (rest < end)
            copy_bytes(job.target + rest, job.source + rest, end - rest, job.source,
                       job.source + job.nbytes, lane);
    }
}

extern "C" __global__ void unshuffle_bytes(const UnshuffleJob* jobs,  // (n_jobs,)
                                           i32 n_jobs,
                                           const i64* tile_starts,    // (n_jobs + 1,)
                                           i32 tile_nbytes,
                                           i32* status)               // (n_jobs,) out
{
    unshuffle_jobs<false>(jobs, n_jobs, tile_starts, tile_nbytes, status);
}

extern "C" __global__ void unshuffle_bits(const UnshuffleJob* jobs,  // (n_jobs,)
                                          i32 n_jobs,
                                          const i64* tile_starts,    // (n_jobs + 1,)
                                          i32 tile_nbytes,
                                          i32* status)               // (n_jobs,) out
{
    unshuffle_jobs<true>(jobs, n_jobs, tile_starts, tile_nbytes, status);
}
