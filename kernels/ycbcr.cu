// From the planes that an image library decodes to interleaved pixels: chroma upsampled, YCbCr to RGB.
//
// Sources: libjpeg-turbo 3.1, jdsample.c ("fancy" upsampling: a triangle filter, whose even and odd results are
// rounded the other way) and jdcolor.c (ITU-R BT.601, full range, fixed point of 16 bits); for JPEG 2000 OpenJPEG's
// color.c (subsampled chroma is repeated) and zarrgpu/codecs/jpeg2k.py. All in integers, or in doubles that are
// rounded once, so that the same planes give the host's pixels bit for bit.
//
// Before the library runs, `mark_planes` writes a pattern into the first plane of each image. Where `ycbcr` finds more
// of it left in a tile than chance explains, or a tile of nothing else, that was not decoded, whatever the library
// said, and the image gets STATUS_CORRUPT: nvJPEG gives one status for a whole batch.
//
// Geometry: one warp per tile of `tile_pixels` pixels (see common.cuh), lanes take neighbouring pixels, a tile's in
// C order; no shared memory. Statuses must be 0 before the launch, as tiles raise them. Alignment: `sample_nbytes`.
// Reference: `planes_to_pixels` in tests/kernel_references.py.
#include "common.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;

// The pattern, by place in the plane: what follows another is not the same, nor an even step away.
__device__ inline u8 mark_of(i64 index) {
    const u32 hash = u32(index) * 2654435761u;
    return u8(hash >> 24 ^ hash >> 11);
}

__device__ inline i32 chroma_width(const ImageJob& job) {
    return (job.width + job.across - 1) / job.across;
}
__device__ inline i32 chroma_height(const ImageJob& job) {
    return (job.height + job.down - 1) / job.down;
}

__device__ inline bool is_chroma(i32 component) { return component == 1 || component == 2; }

// Where component `c` begins: planes follow one another. With c = samples, where the last one ends.
__device__ inline i64 plane_start(const ImageJob& job, i32 c) {
    const i64 full = i64(job.pitch) * job.height;
    const i64 chroma = i64(job.chroma_pitch) * chroma_height(job);
    return c == 0 ? 0 : full + (c < 3 ? (c - 1) * chroma : 2 * chroma + (c == 4 ? full : 0));
}

__device__ inline i32 check(const ImageJob& job, i64 n_tiles, i32 tile_pixels) {
    if (job.width < 1 || job.height < 1 || job.width > 65535 || job.height > 65535)
        return STATUS_BAD_JOB;
    if (tile_pixels < 1 || job.n != i64(job.width) * job.height || job.n > n_tiles * tile_pixels)
        return STATUS_BAD_JOB;
    if (job.samples < 1 || job.samples > 4) return STATUS_BAD_JOB;
    if (job.sample_nbytes != 1 && job.sample_nbytes != 2) return STATUS_BAD_JOB;
    if (job.across < 1 || job.across > 2 || job.down < 1 || job.down > 2) return STATUS_BAD_JOB;
    if (job.color < COLOR_STORED || job.color > COLOR_OPENJPEG_SYCC) return STATUS_BAD_JOB;
    const bool computes = job.color != COLOR_STORED || job.across > 1 || job.down > 1;
    if (computes && job.sample_nbytes != 1) return STATUS_BAD_JOB;
    if (job.color != COLOR_STORED && job.samples != 3) return STATUS_BAD_JOB;
    const u64 size = u64(job.sample_nbytes);
    if (job.pitch < i64(job.width) * job.sample_nbytes ||
        job.chroma_pitch < i64(chroma_width(job)) * job.sample_nbytes)
        return STATUS_BAD_JOB;
    if (job.source % size || job.target % size || job.pitch % size || job.chroma_pitch % size)
        return STATUS_MISALIGNED;
    if (plane_start(job, job.samples) > job.source_nbytes) return STATUS_SOURCE_BOUNDS;
    const i64 nbytes = job.n * job.samples * job.sample_nbytes;
    if (nbytes > job.target_nbytes) return STATUS_TARGET_BOUNDS;
    return overlap(job.source, job.source_nbytes, job.target, nbytes) ? STATUS_BAD_JOB : STATUS_OK;
}

// ---------------------------------------------------------------------------------- upsampling

__device__ inline i32 chroma_at(const ImageJob& job, i32 c, i32 x, i32 y) {
    return load<u8>(job.source + u64(plane_start(job, c) + i64(y) * job.chroma_pitch + x));
}

// Three quarters of row y and a quarter of the row `other` of a plane, times 4.
__device__ inline i32 column_sum(const ImageJob& job, i32 c, i32 x, i32 y, i32 other) {
    return 3 * chroma_at(job, c, x, y) + chroma_at(job, c, x, other);
}

// The neighbour of element `i` on the side of result `at`, or `i` itself at an edge.
__device__ inline i32 neighbour(i32 i, i32 at, i32 n) {
    const i32 other = at & 1 ? i + 1 : i - 1;
    return other < 0 || other >= n ? i : other;
}

__device__ inline i32 fancy_chroma(const ImageJob& job, i32 c, i32 x, i32 y) {
    const i32 width = chroma_width(job);
    const i32 i = job.across == 2 ? x >> 1 : x, j = job.down == 2 ? y >> 1 : y;
    if (job.across == 2 && width <= 2) return chroma_at(job, c, i, j);  // libjpeg repeats these
    const i32 row = job.down == 2 ? neighbour(j, y, chroma_height(job)) : j;
    if (job.across == 1) return (column_sum(job, c, i, j, row) + (y & 1 ? 2 : 1)) >> 2;
    const i32 column = neighbour(i, x, width);
    if (job.down == 1) {
        const i32 near = chroma_at(job, c, i, j);
        return column == i ? near
                           : (3 * near + chroma_at(job, c, column, j) + (x & 1 ? 2 : 1)) >> 2;
    }
    const i32 near = column_sum(job, c, i, j, row);
    const i32 far = column == i ? near : column_sum(job, c, column, j, row);
    return (3 * near + far + (x & 1 ? 7 : 8)) >> 4;
}

// --------------------------------------------------------------------------------------- colour

__device__ inline u8 clamp_u8(i32 value) { return u8(value < 0 ? 0 : value > 255 ? 255 : value); }

// jdcolor.c: chroma less 128 times a constant of 16 bits.
__device__ inline void libjpeg_rgb(i32 y, i32 cb, i32 cr, u8* rgb) {
    constexpr i32 half = 1 << 15;
    rgb[0] = clamp_u8(y + ((91881 * cr + half) >> 16));
    rgb[1] = clamp_u8(y + ((-22554 * cb - 46802 * cr + half) >> 16));
    rgb[2] = clamp_u8(y + ((116130 * cb + half) >> 16));
}

// value * numerator / denominator to the nearest integer; for the factors below no product is halfway.
__device__ inline i32 nearest(i64 numerator, i32 value, i64 denominator) {
    const i64 shifted = numerator * value + denominator / 2;
    return i32(shifted >= 0 ? shifted / denominator : -((denominator - 1 - shifted) / denominator));
}

// As `ycbcr_to_rgb` of zarrgpu/codecs/jpeg2k.py: each product in 1/65536 is rounded first.
__device__ inline void rounded_rgb(i32 y, i32 cb, i32 cr, u8* rgb) {
    constexpr i32 half = 1 << 15;
    rgb[0] = clamp_u8(y + ((nearest(91881472, cr, 1000) + half) >> 16));
    const i32 green = nearest(-2255355904ll, cb, 100000) + nearest(-4680187904ll, cr, 100000);
    rgb[1] = clamp_u8(y + ((green + half) >> 16));
    rgb[2] = clamp_u8(y + ((nearest(116129792, cb, 1000) + half) >> 16));
}

// OpenJPEG's sycc_to_rgb, in doubles that are cut off.
__device__ inline void sycc_rgb(i32 y, i32 cb, i32 cr, u8* rgb) {
    rgb[0] = clamp_u8(y + i32(__dmul_rn(1.402, double(cr))));
    const double green = __dadd_rn(__dmul_rn(0.344, double(cb)), __dmul_rn(0.714, double(cr)));
    rgb[1] = clamp_u8(y - i32(green));
    rgb[2] = clamp_u8(y + i32(__dmul_rn(1.772, double(cb))));
}

// --------------------------------------------------------------------------------------- pixels

__device__ inline i32 component(const ImageJob& job, i32 c, i32 x, i32 y) {
    const bool reduced = is_chroma(c) && (job.across > 1 || job.down > 1);
    if (reduced && job.color == COLOR_OPENJPEG_SYCC)
        return chroma_at(job, c, job.across == 2 ? x >> 1 : x, job.down == 2 ? y >> 1 : y);
    if (reduced) return fancy_chroma(job, c, x, y);
    const i64 pitch = is_chroma(c) ? job.chroma_pitch : job.pitch;
    const u64 row = job.source + u64(plane_start(job, c) + y * pitch);
    return job.sample_nbytes == 2 ? i32(load<u16>(row + u64(x) * 2)) : i32(load<u8>(row + u64(x)));
}

__device__ inline void write_pixel(const ImageJob& job, i64 index, i32 x, i32 y) {
    const u64 target = job.target + u64(index * job.samples * job.sample_nbytes);
    if (job.sample_nbytes == 2) {
        for (i32 c = 0; c < job.samples; ++c)
            store(target + u64(c) * 2, u16(component(job, c, x, y)));
        return;
    }
    u8 pixel[4] = {0, 0, 0, 0};
#pragma unroll
    for (i32 c = 0; c < 4; ++c)
        if (c < job.samples) pixel[c] = u8(component(job, c, x, y));
    const i32 cb = i32(pixel[1]) - 128, cr = i32(pixel[2]) - 128;
    if (job.color == COLOR_LIBJPEG_YCC) libjpeg_rgb(pixel[0], cb, cr, pixel);
    else if (job.color == COLOR_ROUNDED_YCC) rounded_rgb(pixel[0], cb, cr, pixel);
    else if (job.color == COLOR_OPENJPEG_SYCC) sycc_rgb(pixel[0], cb, cr, pixel);
#pragma unroll
    for (i32 c = 0; c < 4; ++c)
        if (c < job.samples) store(target + u64(c), pixel[c]);
}

// Whether so many of n pixels as they were marked are more than chance explains: one of 256 is, whatever the image.
__device__ inline bool is_undecoded(i32 marked, i64 n) { return marked == n || marked > n / 256 + 64; }

// Pixels [begin, end) of the tile that this warp takes; false where there are none.
__device__ inline bool tile_pixels_of(const ImageJob& job, i64 tile_of_job, i32 tile_pixels,
                                      i64& begin, i64& end) {
    begin = tile_of_job * tile_pixels;
    end = begin + tile_pixels < job.n ? begin + tile_pixels : job.n;
    return begin < end;
}

__device__ inline u8 first_byte(const ImageJob& job, i32 x, i32 y) {
    return load<u8>(job.source + u64(i64(y) * job.pitch + i64(x) * job.sample_nbytes));
}

extern "C" __global__ void mark_planes(const ImageJob* jobs,     // (n_jobs,)
                                       i32 n_jobs,
                                       const i64* tile_starts,   // (n_jobs + 1,)
                                       i32 tile_pixels,
                                       i32* status)              // (n_jobs,) in, 0, and out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const ImageJob job = jobs[index];
        const i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_pixels);
        if (code != STATUS_OK) {
            if (lane == 0) atomicMax(status + index, code);
            continue;
        }
        i64 begin, end;
        tile_pixels_of(job, tile - tile_starts[index], tile_pixels, begin, end);
        for (i64 i = begin + lane; i < end; i += 32) {
            const i64 y = i / job.width, x = i - y * job.width;
            const u64 row = job.source + u64(y * job.pitch);
            store(row + u64(x * job.sample_nbytes), mark_of(i));
        }
    }
}

extern "C" __global__ void ycbcr(const ImageJob* jobs,     // (n_jobs,)
                                 i32 n_jobs,
                                 const i64* tile_starts,   // (n_jobs + 1,)
                                 i32 tile_pixels,
                                 i32* status)              // (n_jobs,) in, 0, and out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const ImageJob job = jobs[index];
        const i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_pixels);
        if (code != STATUS_OK) {
            if (lane == 0) atomicMax(status + index, code);
            continue;
        }
        i64 begin, end;
        if (!tile_pixels_of(job, tile - tile_starts[index], tile_pixels, begin, end)) continue;
        i32 marked = 0;
        for (i64 i = begin + lane; i < end; i += 32) {
            const i32 y = i32(i / job.width), x = i32(i - i64(y) * job.width);
            marked += first_byte(job, x, y) == mark_of(i);
            write_pixel(job, i, x, y);
        }
        for (u32 step = 16; step; step >>= 1) marked += __shfl_xor_sync(ALL_LANES, marked, step);
        if (job.marked && lane == 0 && is_undecoded(marked, end - begin))
            atomicMax(status + index, i32(STATUS_CORRUPT));
    }
}
