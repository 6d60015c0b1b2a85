// Second half of CRC-32, CRC-32C, Adler-32 and Fletcher-32: combine the parts, compare what is stored.
//
// A lane combines a run of parts in order, then moves its result past all bytes that follow the run; what
// the lanes have then adds up. For a CRC, moving past n bytes is a product with x^(8 n) modulo the
// polynomial; for the two sums, s2 grows by s1 times the values that follow.
// Source: crc32_combine of zlib (multmodp); RFC 1950; H5_checksum_fletcher32 of HDF5.
//
// Geometry: one warp per job; the tile table is the one of checksum_parts, which ran before on the same
// jobs. Alignment: none asked of the stored checksum. A job whose checksum differs gets STATUS_MISMATCH.
// Reference: checksum in tests/kernel_references.py (zlib, google-crc32c, numcodecs).
#include "checksum.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr u32 CRC_ONE = 1u << 31;  // x^0
constexpr u32 CRC_X8 = 1u << 23;   // x^8

// Product modulo the polynomial.
__device__ inline u32 crc_multiply(u32 a, u32 b, u32 polynomial) {
    u32 product = 0;
#pragma unroll 8
    for (int bit = 31; bit >= 0; --bit) {
        product ^= (a >> bit) & 1 ? b : 0;
        b = (b >> 1) ^ (b & 1 ? polynomial : 0);
    }
    return product;
}

// x^(8 nbytes)
__device__ inline u32 crc_power(i64 nbytes, u32 polynomial) {
    u32 power = CRC_ONE, square = CRC_X8;
    for (; nbytes > 0; nbytes >>= 1) {
        if (nbytes & 1) power = crc_multiply(power, square, polynomial);
        square = crc_multiply(square, square, polynomial);
    }
    return power;
}

struct Run {
    i64 first, last;   // parts of this lane
    i64 part_nbytes;
    i64 nbytes;        // of the job
};

__device__ inline i64 part_size(const Run& run, i64 part) {
    const i64 left = run.nbytes - part * run.part_nbytes;
    return left < run.part_nbytes ? left : run.part_nbytes;
}

__device__ inline i64 bytes_after(const Run& run) {
    const i64 end = run.last * run.part_nbytes;
    return end < run.nbytes ? run.nbytes - end : 0;
}

__device__ inline u32 combine_crc(const ChecksumJob& job, const Run& run, i32 lane) {
    const u32 polynomial = crc_polynomial(job.kind);
    const u32 whole = crc_power(run.part_nbytes, polynomial);
    u32 crc = lane == 0 ? 0xffffffffu : 0;
    for (i64 part = run.first; part < run.last; ++part) {
        const i64 size = part_size(run, part);
        const u32 power = size == run.part_nbytes ? whole : crc_power(size, polynomial);
        crc = crc_multiply(crc, power, polynomial) ^ load<u32>(job.parts + u64(part) * 8);
    }
    crc = crc_multiply(crc, crc_power(bytes_after(run), polynomial), polynomial);
    for (u32 step = 16; step > 0; step >>= 1) crc ^= __shfl_xor_sync(ALL_LANES, crc, step);
    return ~crc;
}

__device__ inline u64 add_lanes(u64 value) {
    for (u32 step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

__device__ inline u32 combine_sums(const ChecksumJob& job, const Run& run) {
    const bool adler = job.kind == CHECKSUM_ADLER32;
    const u32 base = adler ? ADLER_BASE : FLETCHER_BASE;
    // Fletcher counts 16-bit words, the last of which may be half of one. `fold` suits both: it never
    // gives 0 for a sum that is not 0.
    const auto values = [&](i64 nbytes) { return u64(adler ? nbytes : (nbytes + 1) / 2); };
    u64 s1 = 0, s2 = 0;
    const auto reduce = [&](u64 sum) { return adler ? sum % base : u64(fold(sum)); };
    for (i64 part = run.first; part < run.last; ++part) {
        const u64 sums = load<u64>(job.parts + u64(part) * 8);
        s2 = reduce(s2 + s1 * values(part_size(run, part)) + (sums >> 32));
        s1 = reduce(s1 + u32(sums));
    }
    s2 = add_lanes(reduce(s2 + s1 * (values(bytes_after(run)) % base)));
    s1 = add_lanes(s1);
    if (adler) return u32((u64(job.nbytes) + s2) % base) << 16 | u32((1 + s1) % base);
    return fold(s2) << 16 | fold(s1);
}

extern "C" __global__ void checksum_verify(const ChecksumJob* jobs,  // (n_jobs,)
                                           i32 n_jobs,
                                           const i64* tile_starts,   // (n_jobs + 1,)
                                           i32 tile_nbytes,
                                           i32* status)              // (n_jobs,) out
{
    const i32 lane = threadIdx.x & 31;
    for (i64 index = warp_index(); index < n_jobs; index += warp_count()) {
        const ChecksumJob job = jobs[index];
        const i64 n_tiles = tile_starts[index + 1] - tile_starts[index];
        i32 code = check_checksum(job, n_tiles, tile_nbytes);
        if (code == STATUS_OK) {
            const i64 part_nbytes = tile_nbytes / 32;
            const i64 n_parts = (job.nbytes + part_nbytes - 1) / part_nbytes;
            const i64 each = (n_parts + 31) / 32;
            const i64 first = lane * each, last = first + each;
            const Run run = {first < n_parts ? first : n_parts, last < n_parts ? last : n_parts,
                             part_nbytes, job.nbytes};
            const u32 found = job.kind <= CHECKSUM_CRC32C ? combine_crc(job, run, lane)
                                                          : combine_sums(job, run);
            if (found != stored_checksum(job)) code = STATUS_MISMATCH;
        }
        if (lane == 0) status[index] = code;
    }
}
