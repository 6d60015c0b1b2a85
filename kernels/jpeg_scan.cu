// Whether entropy-coded JPEG data holds nothing but itself: no marker inside of it but restarts.
//
// Spec: ITU-T T.81, B.1.1.5 (a byte 0xFF is followed by a stuffed zero), B.1.1.2, E.1.4. What breaks this rule is
// cut off, overwritten, or of several scans: STATUS_CORRUPT, and the host decides. An end-of-image marker follows
// the data, which the host has looked up; the byte after the last one is its first, and may be read.
//
// Geometry: one warp per tile of `tile_nbytes` bytes (see common.cuh), lanes take words of 4 bytes; no shared
// memory. Statuses must be 0 before the launch, as tiles raise them. Alignment: none asked.
// Reference: `scan_is_plain` in tests/kernel_references.py.
#include "common.cuh"

__device__ inline i32 check(const ScanJob& job, i64 n_tiles, i32 tile_nbytes) {
    if (tile_nbytes < 4 || tile_nbytes % 4 || job.nbytes < 0) return STATUS_BAD_JOB;
    if (job.nbytes > n_tiles * tile_nbytes) return STATUS_BAD_JOB;
    return job.nbytes >= job.source_nbytes ? STATUS_SOURCE_BOUNDS : STATUS_OK;
}

__device__ inline bool has_ff(u32 word) {
    return (word & (word << 1) & (word << 2) & (word << 3) & (word << 4) & (word << 5) &
            (word << 6) & (word << 7) & 0x80808080u) != 0;
}

__device__ inline bool is_plain(const ScanJob& job, i64 at) {
    if (load<u8>(job.source + u64(at)) != 0xFF) return true;
    const u8 next = load<u8>(job.source + u64(at) + 1);
    return next == 0 || (job.restarts && next >= 0xD0 && next <= 0xD7);
}

extern "C" __global__ void jpeg_scan(const ScanJob* jobs,      // (n_jobs,)
                                     i32 n_jobs,
                                     const i64* tile_starts,   // (n_jobs + 1,)
                                     i32 tile_nbytes,
                                     i32* status)              // (n_jobs,) in, 0, and out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const ScanJob job = jobs[index];
        const i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_nbytes);
        if (code != STATUS_OK) {
            if (lane == 0) atomicMax(status + index, code);
            continue;
        }
        const i64 begin = (tile - tile_starts[index]) * tile_nbytes;
        const i64 end = begin + tile_nbytes < job.nbytes ? begin + tile_nbytes : job.nbytes;
        bool plain = true;
        for (i64 at = begin + lane * 4; at < end; at += 128) {
            const bool whole = at + 4 <= end;
            if (whole && !has_ff(u32(load_bytes<4>(job.source + u64(at))))) continue;
            for (i64 byte = at; byte < end && byte < at + 4; ++byte) plain &= is_plain(job, byte);
        }
        if (!plain) atomicMax(status + index, i32(STATUS_CORRUPT));
    }
}
