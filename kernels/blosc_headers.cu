// Find the headers that say how encoded chunks are to be decoded, in chunks that the host has not
// seen: GPUDirect Storage brought them. What is found is copied out as *records*, so that the host
// can plan the decoding from a few bytes of each chunk.
//
// Sources: README_CHUNK_FORMAT.rst of c-blosc 1.21 (blosc_headers); RFC 8878, 3.1.1 (zstd_headers).
// A record is HEADER_RECORD_NBYTES bytes: the place in the chunk, then the HEADER_NBYTES bytes
// there, zeros where the chunk ends before. A job's target starts with one record of room whose
// first word counts the records that follow; it must be 0 before. Their order is that of chance.
//
// blosc_headers: the container's header, the starts of its blocks, and of each stream (one per
// block, or one for each byte of an element) its size and first bytes; zstd streams also as
// zstd_headers. Blocks may lie in any order, as writers with threads leave them.
// zstd_headers: the frame's header, the header of each of its blocks, and those of the two sections
// of compressed blocks with the sizes of their streams and their last byte.
//
// A chunk that breaks off or contradicts itself gets STATUS_CORRUPT, one with more records than
// room STATUS_TARGET_BOUNDS; its records are then not to be used.
//
// Geometry: one warp per job, which has one tile; the lanes take a block of a container each. No
// shared memory. Alignment: the target must be a multiple of 8.
// Reference: blosc_headers and zstd_headers in tests/kernel_references.py.
#include "common.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr i64 MOST_NBYTES = 0x7fffffff;  // Blosc1 counts in int32

constexpr i64 BLOSC_HEADER_NBYTES = 16;
constexpr i32 BLOSC_MEMCPYED = 2, BLOSC_DONT_SPLIT = 16, BLOSC_ZSTD = 4;
constexpr i32 BLOSC_MAX_SPLITS = 16, BLOSC_MIN_SPLIT_ELEMENTS = 128;

constexpr i64 ZSTD_MIN_NBYTES = 6, ZSTD_BLOCK_MOST = 128 << 10, ZSTD_CHECKSUM_NBYTES = 4;
constexpr i64 ZSTD_LITERALS_MOST = 6;  // header of a literals section, first byte of its tree
constexpr i32 ZSTD_CHECKSUM = 4, ZSTD_LITERALS_RLE = 1, ZSTD_LITERALS_CODED = 2;

__device__ inline i32 read_i32(const HeaderJob& job, i64 at) {
    return i32(load_bytes<4>(job.source + u64(at)));
}

// Copy out the bytes from `at` on; false if there is no room left. The count goes past the room by
// one for each lane at most, as a lane that found none stops.
__device__ inline bool add_record(const HeaderJob& job, i64 at) {
    const i32 index = atomicAdd(reinterpret_cast<i32*>(job.target), 1);
    const i64 place = (i64(index) + 1) * HEADER_RECORD_NBYTES;
    if (place + HEADER_RECORD_NBYTES > job.target_nbytes) return false;
    const u64 target = job.target + u64(place);
    store<i64>(target, at);
#pragma unroll
    for (i32 word = 0; word < HEADER_NBYTES / 8; ++word) {
        u64 value = 0;
#pragma unroll
        for (i32 i = 0; i < 8; ++i) {
            const i64 from = at + word * 8 + i;
            if (from < job.source_nbytes) value |= u64(load<u8>(job.source + u64(from))) << (8 * i);
        }
        store<u64>(target + 8 + u64(word) * 8, value);
    }
    return true;
}

// What has a record of a frame: the bytes from `from` up to `to`.
struct Seen {
    i64 from, to;
};

__device__ inline bool add_unseen(const HeaderJob& job, i64 at, i64 nbytes, Seen& seen) {
    if (at >= seen.from && at + nbytes <= seen.to) return true;
    seen = {at, at + HEADER_NBYTES};
    return add_record(job, at);
}

// The headers of the literals and of the sequences of a compressed block, and its last byte, where
// the bit stream of the sequences begins. `seen` has the block's first bytes.
__device__ inline bool add_sections(const HeaderJob& job, i64 at, i64 nbytes, Seen& seen) {
    if (nbytes < ZSTD_LITERALS_MOST) return add_unseen(job, at, nbytes, seen);
    const u64 word = load_bytes<4>(job.source + u64(at)) |
                     u64(load<u8>(job.source + u64(at + 4))) << 32;
    const i32 kind = i32(word & 3), format = i32(word >> 2) & 3;
    const bool plain = kind <= ZSTD_LITERALS_RLE;
    const i32 plain_header = format == 1 ? 2 : format == 3 ? 3 : 1;
    const i32 header = plain ? plain_header : format < 2 ? 3 : format + 2;
    const i32 bits = format < 2 ? 10 : format == 2 ? 14 : 18;
    const u64 plain_nbytes =
        header == 1 ? (word >> 3) & 31 : (word >> 4) & ((1ull << (8 * header - 4)) - 1);
    const u64 coded_nbytes = (word >> (4 + bits)) & ((1ull << bits) - 1);
    const i64 stored = kind == 0 ? i64(plain_nbytes) : plain ? 1 : i64(coded_nbytes);
    const i64 sequences = header + stored;
    if (sequences + 1 > nbytes) return true;  // no block: the host sees it too
    if (!plain && format > 0) {  // four streams: a table after the tree gives their sizes
        const i32 first = load<u8>(job.source + u64(at + header));
        const i64 weights = first < 128 ? first : (first - 126) >> 1;
        const i64 tree = kind == ZSTD_LITERALS_CODED ? 1 + weights : 0;
        const Seen before = seen;
        if (!add_unseen(job, at + header + tree, 6, seen)) return false;
        if (sequences < seen.from) seen = before;
    }
    if (!add_unseen(job, at + sequences, 4, seen)) return false;
    return add_unseen(job, at + nbytes - 1, 1, seen);
}

// The block headers of the frame in [at, end), whose first bytes have a record.
__device__ inline i32 walk_frame(const HeaderJob& job, i64 at, i64 end, Seen seen,
                                 i64 decoded_nbytes) {
    if (end - at < ZSTD_MIN_NBYTES) return STATUS_CORRUPT;
    const i32 descriptor = load<u8>(job.source + u64(at + 4));
    const i32 single = (descriptor >> 5) & 1, size_code = descriptor >> 6;
    const i32 size_nbytes = size_code == 0 ? single : 1 << size_code;
    const i64 header_nbytes = 6 - single + size_nbytes;
    if (!add_unseen(job, at, header_nbytes, seen)) return STATUS_TARGET_BOUNDS;
    if (descriptor & ZSTD_CHECKSUM) end -= ZSTD_CHECKSUM_NBYTES;
    at += header_nbytes;
    const i64 most_blocks = decoded_nbytes / (16 << 10) + 1024;  // as the host follows
    for (i64 block = 0; block < most_blocks; ++block) {
        if (at + 3 > end) return STATUS_CORRUPT;
        const u64 low = load<u8>(job.source + u64(at)), middle = load<u8>(job.source + u64(at + 1));
        const i64 header = i64(low | middle << 8 | u64(load<u8>(job.source + u64(at + 2))) << 16);
        const i64 kind = (header >> 1) & 3, size = header >> 3, stored = kind == 1 ? 1 : size;
        const i64 first = stored < ZSTD_LITERALS_MOST ? stored : ZSTD_LITERALS_MOST;
        if (!add_unseen(job, at, 3 + first, seen)) return STATUS_TARGET_BOUNDS;
        at += 3;
        if (kind == 3 || size > ZSTD_BLOCK_MOST || at + stored > end) return STATUS_CORRUPT;
        if (kind == 2 && !add_sections(job, at, stored, seen)) return STATUS_TARGET_BOUNDS;
        at += stored;
        if (header & 1) return at == end ? STATUS_OK : STATUS_CORRUPT;
    }
    return STATUS_CORRUPT;
}

// The streams of one block of a container.
__device__ inline i32 walk_block(const HeaderJob& job, i64 block, i64 blocksize, i32 flags,
                                 i32 typesize) {
    const i64 rest = job.nbytes - block * blocksize;
    const i64 block_nbytes = rest < blocksize ? rest : blocksize;
    const bool split = !(flags & BLOSC_DONT_SPLIT) && typesize <= BLOSC_MAX_SPLITS &&
                       block_nbytes / typesize >= BLOSC_MIN_SPLIT_ELEMENTS &&
                       block_nbytes == blocksize;
    const i32 n_splits = split ? typesize : 1;
    const i64 decoded = block_nbytes / n_splits;
    i64 at = read_i32(job, BLOSC_HEADER_NBYTES + 4 * block);
    if (at < BLOSC_HEADER_NBYTES || decoded * n_splits != block_nbytes) return STATUS_CORRUPT;
    for (i32 k = 0; k < n_splits; ++k) {
        if (at + 4 > job.source_nbytes) return STATUS_CORRUPT;
        const i64 size = read_i32(job, at), end = at + 4 + size;
        if (size <= 0 || size > decoded || end > job.source_nbytes) return STATUS_CORRUPT;
        if (!add_record(job, at)) return STATUS_TARGET_BOUNDS;
        if (size < decoded && flags >> 5 == BLOSC_ZSTD) {
            const i32 code = walk_frame(job, at + 4, end, {at, at + HEADER_NBYTES}, decoded);
            if (code != STATUS_OK) return code;
        }
        at = end;
    }
    return STATUS_OK;
}

__device__ inline i32 walk_container(const HeaderJob& job, i32 lane) {
    if (job.source_nbytes < BLOSC_HEADER_NBYTES) return STATUS_CORRUPT;
    const i32 flags = load<u8>(job.source + 2), typesize = load<u8>(job.source + 3);
    const i64 blocksize = read_i32(job, 8);
    if (lane == 0 && !add_record(job, 0)) return STATUS_TARGET_BOUNDS;
    if (flags & BLOSC_MEMCPYED) return STATUS_OK;
    if (typesize == 0 || read_i32(job, 4) != job.nbytes || read_i32(job, 12) != job.source_nbytes)
        return STATUS_CORRUPT;
    if (blocksize <= 0 || blocksize > job.nbytes) return STATUS_CORRUPT;
    const i64 n_blocks = (job.nbytes + blocksize - 1) / blocksize;
    const i64 starts_end = BLOSC_HEADER_NBYTES + 4 * n_blocks;
    if (starts_end > job.source_nbytes) return STATUS_CORRUPT;
    for (i64 at = i64(lane + 1) * HEADER_NBYTES; at < starts_end; at += 32 * HEADER_NBYTES)
        if (!add_record(job, at)) return STATUS_TARGET_BOUNDS;
    for (i64 block = lane; block < n_blocks; block += 32) {
        const i32 code = walk_block(job, block, blocksize, flags, typesize);
        if (code != STATUS_OK) return code;
    }
    return STATUS_OK;
}

__device__ inline i32 check(const HeaderJob& job) {
    if (job.source_nbytes < 0 || job.source_nbytes > MOST_NBYTES) return STATUS_BAD_JOB;
    if (job.nbytes < 0 || job.nbytes > MOST_NBYTES) return STATUS_BAD_JOB;
    if (overlap(job.source, job.source_nbytes, job.target, job.target_nbytes))
        return STATUS_BAD_JOB;
    if (job.target & 7) return STATUS_MISALIGNED;
    return job.target_nbytes < HEADER_RECORD_NBYTES ? STATUS_TARGET_BOUNDS : STATUS_OK;
}

extern "C" __global__ void blosc_headers(const HeaderJob* jobs,   // (n_jobs,)
                                         i32 n_jobs,
                                         const i64* tile_starts,  // (n_jobs + 1,)
                                         i32 tile_nbytes,
                                         i32* status)             // (n_jobs,) out
{
    (void)tile_starts, (void)tile_nbytes;
    const i32 lane = threadIdx.x & 31;
    for (i64 index = warp_index(); index < n_jobs; index += warp_count()) {
        const HeaderJob job = jobs[index];
        i32 code = check(job);
        if (code == STATUS_OK) code = walk_container(job, lane);
        const bool corrupt = __any_sync(ALL_LANES, code == STATUS_CORRUPT);
        const bool full = __any_sync(ALL_LANES, code == STATUS_TARGET_BOUNDS);
        if (corrupt || full) code = corrupt ? STATUS_CORRUPT : STATUS_TARGET_BOUNDS;
        if (lane == 0) status[index] = code;
    }
}

extern "C" __global__ void zstd_headers(const HeaderJob* jobs,   // (n_jobs,)
                                        i32 n_jobs,
                                        const i64* tile_starts,  // (n_jobs + 1,)
                                        i32 tile_nbytes,
                                        i32* status)             // (n_jobs,) out
{
    (void)tile_starts, (void)tile_nbytes;
    if (threadIdx.x & 31) return;  // a frame is a chain: one lane follows it
    for (i64 index = warp_index(); index < n_jobs; index += warp_count()) {
        const HeaderJob job = jobs[index];
        i32 code = check(job);
        if (code == STATUS_OK && !add_record(job, 0)) code = STATUS_TARGET_BOUNDS;
        if (code == STATUS_OK)
            code = walk_frame(job, 0, job.source_nbytes, {0, HEADER_NBYTES}, job.nbytes);
        status[index] = code;
    }
}
