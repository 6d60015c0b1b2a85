// First half of CRC-32, CRC-32C, Adler-32 and Fletcher-32 of byte ranges: a sum for each part.
//
// Sources: RFC 1952 and RFC 3720 (CRC, here of the part alone: start 0, no final inversion), RFC 1950
// (Adler), H5_checksum_fletcher32 of HDF5 (big-endian 16-bit words, an odd last byte is a high one).
// A part's sums are packed as u64: the CRC, or s1 | s2 << 32 with s1 the sum of the values and s2 the
// sum of all its running values.
//
// Geometry: one warp per tile, one part of tile_nbytes / 32 bytes a lane (see checksum.cuh); no shared
// memory. Neighbouring lanes read apart from each other, 16 bytes at a time: the second half of each
// sector comes from the L1 cache. Alignment: none asked of the source; parts 8.
// Reference: checksum in tests/kernel_references.py (zlib, google-crc32c, numcodecs).
#include "checksum.cuh"

// Effect of a byte on a CRC that has k more bytes to go, for both polynomials and k = 0 ... 3.
struct CrcTables {
    u32 values[2][4][256];
};

__device__ constexpr CrcTables make_crc_tables() {
    CrcTables tables = {};
    for (int kind = 0; kind < 2; ++kind) {
        const u32 polynomial = kind == 0 ? CRC32_POLYNOMIAL : CRC32C_POLYNOMIAL;
        for (u32 byte = 0; byte < 256; ++byte) {
            u32 crc = byte;
            for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? polynomial : 0);
            tables.values[kind][0][byte] = crc;
        }
        for (int k = 1; k < 4; ++k)
            for (u32 byte = 0; byte < 256; ++byte) {
                const u32 crc = tables.values[kind][k - 1][byte];
                tables.values[kind][k][byte] = (crc >> 8) ^ tables.values[kind][0][crc & 0xff];
            }
    }
    return tables;
}

__device__ constexpr CrcTables CRC_TABLES = make_crc_tables();

struct Range {
    u64 begin, end;  // addresses of the part
    u64 low, high;   // readable
};

// Calls `word` with each four bytes of a part and `byte` with each of the rest.
template <typename Word, typename Byte>
__device__ inline void for_each(const Range& part, Word word, Byte byte) {
    u64 at = part.begin;
    for (; at + 16 <= part.end; at += 16) {
        const uint4 v = load16(at, part.low, part.high);
        word(v.x);
        word(v.y);
        word(v.z);
        word(v.w);
    }
    for (; at < part.end; ++at) byte(load<u8>(at));
}

__device__ inline u64 crc_part(const Range& part, i32 kind) {
    const u32(&table)[4][256] = CRC_TABLES.values[kind];
    u32 crc = 0;
    for_each(
        part,
        [&](u32 word) {
            crc ^= word;
            crc = __ldg(&table[3][crc & 0xff]) ^ __ldg(&table[2][(crc >> 8) & 0xff]) ^
                  __ldg(&table[1][(crc >> 16) & 0xff]) ^ __ldg(&table[0][crc >> 24]);
        },
        [&](u8 byte) { crc = (crc >> 8) ^ __ldg(&table[0][(crc ^ byte) & 0xff]); });
    return crc;
}

__device__ inline u64 adler_part(const Range& part) {
    u32 s1 = 0, s2 = 0;
    const auto byte = [&](u32 value) { s2 += s1 += value; };
    for_each(
        part,
        [&](u32 word) {
            byte(word & 0xff);
            byte((word >> 8) & 0xff);
            byte((word >> 16) & 0xff);
            byte(word >> 24);
        },
        byte);
    return u64(s1 % ADLER_BASE) | u64(s2 % ADLER_BASE) << 32;
}

__device__ inline u64 fletcher_part(const Range& part) {
    u32 s1 = 0, s2 = 0;
    bool high = true;  // parts have an even start
    for_each(
        part,
        [&](u32 word) {
            const u32 swapped = swap_word(word, 2);
            s2 += s1 += swapped & 0xffff;
            s2 += s1 += swapped >> 16;
        },
        [&](u32 value) {
            if (high) s2 += s1 += value << 8;
            else s1 += value, s2 += value;
            high = !high;
        });
    return u64(fold(s1)) | u64(fold(s2)) << 32;
}

__device__ inline u64 sum_part(const Range& part, i32 kind) {
    if (kind == CHECKSUM_ADLER32) return adler_part(part);
    if (kind == CHECKSUM_FLETCHER32) return fletcher_part(part);
    return crc_part(part, kind);
}

extern "C" __global__ void checksum_parts(const ChecksumJob* jobs,  // (n_jobs,)
                                          i32 n_jobs,
                                          const i64* tile_starts,   // (n_jobs + 1,)
                                          i32 tile_nbytes,
                                          i32* status)              // (n_jobs,) out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        const ChecksumJob job = jobs[index];
        const i64 tiles_of_job = tile_starts[index + 1] - tile_starts[index];
        const i32 code = check_checksum(job, tiles_of_job, tile_nbytes);
        if (lane == 0 && tile_of_job == 0) status[index] = code;
        if (code != STATUS_OK) continue;
        const i64 number = tile_of_job * 32 + lane, part_nbytes = tile_nbytes / 32;
        const i64 begin = number * part_nbytes, end = begin + part_nbytes;
        const Range part = {job.source + u64(begin < job.nbytes ? begin : job.nbytes),
                            job.source + u64(end < job.nbytes ? end : job.nbytes), job.source,
                            job.source + u64(job.nbytes)};
        store(job.parts + u64(number) * 8, sum_part(part, job.kind));
    }
}
