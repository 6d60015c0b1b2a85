// What the two halves of the parallel checksums share: how a job is cut, and CRC arithmetic.
//
// A tile of `tile_nbytes` bytes is 32 parts, one a lane. Each part is summed up on its own
// (checksum_parts); parts combine because all four checksums are linear (checksum_verify).
#pragma once
#include "common.cuh"

constexpr i32 MAX_PART_NBYTES = 512;  // 32-bit sums of Adler and Fletcher do not overflow
constexpr u32 ADLER_BASE = 65521, FLETCHER_BASE = 65535;

// Polynomials with the lowest power in the highest bit.
constexpr u32 CRC32_POLYNOMIAL = 0xedb88320u, CRC32C_POLYNOMIAL = 0x82f63b78u;

__device__ inline u32 crc_polynomial(i32 kind) {
    return kind == CHECKSUM_CRC32 ? CRC32_POLYNOMIAL : CRC32C_POLYNOMIAL;
}

__device__ inline i32 check_checksum(const ChecksumJob& job, i64 n_tiles, i32 tile_nbytes) {
    if (job.nbytes < 0 || job.kind < CHECKSUM_CRC32 || job.kind > CHECKSUM_FLETCHER32)
        return STATUS_BAD_JOB;
    if (tile_nbytes < 64 || tile_nbytes % 64 || tile_nbytes > 32 * MAX_PART_NBYTES)
        return STATUS_BAD_JOB;
    if (job.nbytes > n_tiles * tile_nbytes) return STATUS_BAD_JOB;
    if (job.nbytes > job.source_nbytes) return STATUS_SOURCE_BOUNDS;
    if (n_tiles * 256 > job.parts_nbytes) return STATUS_TARGET_BOUNDS;
    if (job.parts & 7) return STATUS_MISALIGNED;
    return STATUS_OK;
}

// A sum's representative of 1 ... base; 0 only for a sum that is 0. Fletcher's folded sums are so.
__device__ inline u32 fold(u64 sum) { return sum ? u32((sum - 1) % FLETCHER_BASE) + 1 : 0; }

// The stored checksum as a number.
__device__ inline u32 stored_checksum(const ChecksumJob& job) {
    const u32 value = u32(load_bytes<4>(job.stored));
    return job.big_endian ? swap_word(value, 4) : value;
}
