// Decompress BloscLZ streams, one job per stream: `source_nbytes` bytes at `source` to `nbytes` at `target`.
//
// Source: blosclz_decompress of c-blosc 1.21. The top bits of the first byte mean nothing. A control byte c
// below 32 is followed by c + 1 literals. Any other is a match of (c >> 5) + 2 bytes, plus extension bytes
// while these are 255 if c >> 5 is 7, at distance 1 + ((c & 31) << 8) + next byte; where that is 31 and 255,
// at distance 8192 + the next two bytes, high one first. A stream ends with literals.
// Every check is at least as strict as c-blosc's: what passes here, it decodes to the same bytes.
//
// Geometry: one warp per job, which has one tile; no shared memory. All lanes follow the stream, which keeps
// them together without talking to each other; they share the copies. Alignment: none asked.
// A match reads what other lanes wrote: a barrier makes it visible, where the last one has not yet.
// Reference: c-blosc, through numcodecs (tests/test_blosclz_kernel.py).
#include "common.cuh"

constexpr u32 MAX_DISTANCE = 8191;

struct Stream {
    u64 source;
    u32 at, size;     // of the source
    u64 target;
    u32 done, room;   // of the target
    u32 visible;      // bytes of the target that all lanes see
};

__device__ inline u32 next_byte(Stream& s) { return load<u8>(s.source + s.at++); }

__device__ inline bool copy_literals(Stream& s, u32 n, i32 lane) {
    if (n > s.room - s.done || n > s.size - s.at) return false;
    for (u32 i = u32(lane); i < n; i += 32)
        store<u8>(s.target + s.done + i, load<u8>(s.source + s.at + i));
    s.at += n;
    s.done += n;
    return true;
}

// Not through `load`, which may give what was there before this launch.
__device__ inline u8 load_written(u64 address) { return *reinterpret_cast<const u8*>(address); }

__device__ inline bool copy_match(Stream& s, u32 control, i32 lane) {
    u32 length = (control >> 5) + 2, distance = (control & 31) << 8, code = 255;
    if (control >> 5 == 7) {
        while (code == 255) {
            if (s.at + 1 >= s.size) return false;
            code = next_byte(s);
            length += code;
            if (length > s.room) return false;
        }
    }
    if (s.at + 1 >= s.size) return false;
    code = next_byte(s);
    distance += code;
    if (code == 255 && distance == MAX_DISTANCE) {
        if (s.at + 1 >= s.size) return false;
        distance = next_byte(s) << 8;
        distance += next_byte(s) + MAX_DISTANCE;
    }
    distance += 1;
    if (length > s.room - s.done || distance > s.done) return false;
    const u32 from = s.done - distance, distinct = length < distance ? length : distance;
    if (from + distinct > s.visible) {
        __syncwarp();
        s.visible = s.done;
    }
    for (u32 i = u32(lane); i < length; i += 32)
        store<u8>(s.target + s.done + i, load_written(s.target + from + i % distance));
    s.done += length;
    return true;
}

__device__ inline bool decode(Stream& s, i32 lane) {
    if (s.size == 0) return false;
    u32 control = next_byte(s) & 31;
    while (true) {
        const bool fine = control < 32 ? copy_literals(s, control + 1, lane)
                                       : copy_match(s, control, lane);
        if (!fine) return false;
        if (s.at >= s.size) return control < 32 && s.done == s.room;
        control = next_byte(s);
    }
}

__device__ inline i32 check(const CopyJob& job) {
    constexpr i64 MOST = 0x7fffffff;  // Blosc1 counts in int32
    if (job.nbytes < 0 || job.source_nbytes < 0) return STATUS_BAD_JOB;
    if (job.nbytes > MOST || job.source_nbytes > MOST) return STATUS_BAD_JOB;
    if (job.nbytes > job.target_nbytes) return STATUS_TARGET_BOUNDS;
    if (overlap(job.source, job.source_nbytes, job.target, job.nbytes)) return STATUS_BAD_JOB;
    return STATUS_OK;
}

extern "C" __global__ void blosclz(const CopyJob* jobs,     // (n_jobs,)
                                   i32 n_jobs,
                                   const i64* tile_starts,  // (n_jobs + 1,)
                                   i32 tile_nbytes,
                                   i32* status)             // (n_jobs,) out
{
    (void)tile_starts, (void)tile_nbytes;
    const i32 lane = threadIdx.x & 31;
    for (i64 index = warp_index(); index < n_jobs; index += warp_count()) {
        const CopyJob job = jobs[index];
        i32 code = check(job);
        if (code == STATUS_OK) {
            Stream stream = {job.source, 0, u32(job.source_nbytes), job.target, 0, u32(job.nbytes), 0};
            if (!decode(stream, lane)) code = STATUS_CORRUPT;
        }
        if (lane == 0) status[index] = code;
    }
}
