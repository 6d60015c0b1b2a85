// Decompress TIFF's PackBits, one job per stream: `source_nbytes` bytes at `source` to `nbytes` at `target`.
//
// Source: TIFF 6.0, section 9. A byte h below 128 is followed by h + 1 literals; one above by a byte that stands
// 257 - h times; 128 means nothing. Every check is at least as strict as imagecodecs': a 0 at the very end is
// padding, all else that is cut off is refused. (Zarr's packbits is another thing: unpack_bits.cu.)
//
// Geometry: one warp per job, which has one tile; no shared memory. All lanes follow the stream and share the bytes
// of each run. Alignment: none asked. Reference: tests/kernel_references.py, packbits_runs; imagecodecs.
#include "common.cuh"

__device__ inline u32 source_byte(const StreamJob& job, u32 at) {
    const u32 value = load<u8>(job.source + at);
    return job.reversed ? __brev(value) >> 24 : value;
}

__device__ inline bool decode(const StreamJob& job, i32 lane) {
    const u32 size = u32(job.source_nbytes), room = u32(job.nbytes);
    u32 at = 0, done = 0;
    while (at < size) {
        const u32 head = source_byte(job, at++);
        if (head == 128) continue;
        const bool repeated = head > 128;
        const u32 n = repeated ? 257 - head : head + 1, read = repeated ? 1 : n;
        if (head == 0 && at == size) break;
        if (read > size - at || n > room - done) return false;
        for (u32 i = u32(lane); i < n; i += 32)
            store<u8>(job.target + done + i, u8(source_byte(job, repeated ? at : at + i)));
        at += read;
        done += n;
    }
    return done == room;
}

extern "C" __global__ void packbits_runs(const StreamJob* jobs,   // (n_jobs,)
                                         i32 n_jobs,
                                         const i64* tile_starts,  // (n_jobs + 1,)
                                         i32 tile_nbytes,
                                         i32* status)             // (n_jobs,) out
{
    (void)tile_starts, (void)tile_nbytes;
    const i32 lane = threadIdx.x & 31;
    for (i64 index = warp_index(); index < n_jobs; index += warp_count()) {
        const StreamJob job = jobs[index];
        i32 code = check_stream(job);
        if (code == STATUS_OK && !decode(job, lane)) code = STATUS_CORRUPT;
        if (lane == 0) status[index] = code;
    }
}
