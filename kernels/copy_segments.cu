// Batched memcpy: job i copies `nbytes` bytes from `source` to `target`.
//
// For what is stored uncompressed: raw chunks, Blosc splits that did not compress, memcpyed Blosc.
//
// Geometry: one warp per tile of `tile_nbytes` bytes of one job (see common.cuh); no shared memory.
// Alignment: none asked; stores are 16 bytes wide from the target's first 16-byte boundary on, loads
// 16 or 4 bytes wide. Source and target must not overlap.
// Reference: copy_segments in tests/kernel_references.py.
#include "common.cuh"

extern "C" __global__ void copy_segments(const CopyJob* jobs,     // (n_jobs,)
                                         i32 n_jobs,
                                         const i64* tile_starts,  // (n_jobs + 1,)
                                         i32 tile_nbytes,
                                         i32* status)             // (n_jobs,) out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        const CopyJob job = jobs[index];
        const i32 code =
            check_bytes(job.source, job.source_nbytes, job.target, job.target_nbytes, job.nbytes);
        if (lane == 0 && tile_of_job == 0) status[index] = code;
        if (code != STATUS_OK) continue;
        const i64 begin = tile_of_job * tile_nbytes;
        if (begin >= job.nbytes) continue;
        const i64 left = job.nbytes - begin;
        copy_bytes(job.target + begin, job.source + begin, left < tile_nbytes ? left : tile_nbytes,
                   job.source, job.source + job.nbytes, lane);
    }
}
