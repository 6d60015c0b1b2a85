// Weighted sums along one axis of an image, by tables: one half of a separable resampling.
//
// result[o, i, k] = sum over t of weight[i, t] * source[o, first[i] + t, k], in float32, from t = 0 on, product
// and sum rounded separately, taps of weight 0 left out: their source is not read. Results outside of the inner
// box are the fill value. Then x * scale + offset where a job asks for it, and a cast: to integers by
// floor(x + 0.5), bounded to their range.
//
// An image is resampled by two launches: along y to float32, (h, w * C) as (1, h, w * C), then along x, (H, w, C).
// Geometry: one warp per tile of `tile_elements` results (see common.cuh); neighbouring lanes take neighbouring
// elements of the innermost axis. No shared memory. Statuses must be 0 before the launch, as tiles raise them.
// Alignment: the target's element size; 4 for the tables.
// Reference: zarrgpu/resampling.py (tests/test_resample_kernel.py).
#include "elements.cuh"

__device__ inline bool is_resampled(i32 type) {
    return (type >= TYPE_I1 && type <= TYPE_U2) || type == TYPE_F2 || type == TYPE_F4;
}

// Whether 0 <= value <= most; sizes stay below 2^31, so their products of two are exact.
__device__ inline bool within(i64 value, i64 most) { return value >= 0 && value <= most; }

__device__ inline i32 check(const ResampleJob& job, i64 n_tiles, i32 tile_elements) {
    const i64 most = (i64(1) << 31) - 1;
    if (tile_elements < 1 || job.outer < 0 || job.n < 0 || job.m < 0 || job.inner < 0 || job.taps < 0)
        return STATUS_BAD_JOB;
    const bool delivered = is_resampled(job.target_type) || job.target_type == TYPE_F8 ||
                           job.target_type == TYPE_BF16;
    if (!is_resampled(job.source_type) || !delivered) return STATUS_BAD_JOB;
    const i64 plane = i64(job.m) * job.inner, source_plane = i64(job.n) * job.inner;
    if (plane > most || source_plane > most) return STATUS_BAD_JOB;
    if (plane * job.outer > n_tiles * tile_elements) return STATUS_BAD_JOB;
    if (job.scale && (is_integer(job.target_type) || (job.n_channels != 1 && job.n_channels != job.inner)))
        return STATUS_BAD_JOB;
    if (job.outer == 0 || plane == 0) return STATUS_OK;
    const i64 size = type_nbytes(job.target_type);
    i64 end = 1;
    const i64 counts[3] = {job.outer, job.m, job.inner};
    for (int axis = 0; axis < 3; ++axis) {
        if (!within(job.target_strides[axis], most)) return STATUS_BAD_JOB;
        end += job.target_strides[axis] * (counts[axis] - 1);
        if (end > (i64(1) << 60)) return STATUS_TARGET_BOUNDS;
    }
    if (end * size > job.target_nbytes) return STATUS_TARGET_BOUNDS;
    const i64 source_nbytes = source_plane * job.outer * type_nbytes(job.source_type);
    if (source_nbytes > job.source_nbytes) return STATUS_SOURCE_BOUNDS;
    if (i64(job.m) * 4 > job.first_nbytes || i64(job.m) * job.taps > job.weight_nbytes / 4)
        return STATUS_SOURCE_BOUNDS;
    if (job.target % u64(size) || job.first % 4 || job.weight % 4) return STATUS_MISALIGNED;
    return overlap(job.source, source_nbytes, job.target, end * size) ? STATUS_BAD_JOB : STATUS_OK;
}

template <typename T>
__device__ inline float widen(T bits) { return float(bits); }
template <>
__device__ inline float widen<u32>(u32 bits) { return __uint_as_float(bits); }

// A source element: of a signed or unsigned integer, F2 as u64 (no such integer is read), F4 as u32.
template <typename T>
__device__ inline float element(u64 source, i64 index) {
    if constexpr (sizeof(T) == 8) return f16_to_f32(u16(load_bytes<2>(source + u64(index) * 2)));
    else return widen<T>(T(load_bytes<sizeof(T)>(source + u64(index) * sizeof(T))));
}

// One result; false where the table points outside of the source.
template <typename T>
__device__ inline bool weighted_sum(const ResampleJob& job, i64 outer, i64 i, i64 k, float& sum) {
    const i64 first = load<i32>(job.first + u64(i) * 4);
    const u64 weights = job.weight + u64(i * job.taps) * 4;
    sum = 0.0f;
    for (i32 tap = 0; tap < job.taps; ++tap) {
        const float weight = load<float>(weights + u64(tap) * 4);
        if (weight == 0.0f) continue;
        const i64 place = first + tap;
        if (place < 0 || place >= job.n) return false;
        const float value = element<T>(job.source, (outer * job.n + place) * job.inner + k);
        sum = __fadd_rn(sum, __fmul_rn(weight, value));
    }
    return true;
}

__device__ inline bool sum_of(const ResampleJob& job, i64 outer, i64 i, i64 k, float& sum) {
    switch (job.source_type) {
        case TYPE_U1: return weighted_sum<u8>(job, outer, i, k, sum);
        case TYPE_I1: return weighted_sum<i8>(job, outer, i, k, sum);
        case TYPE_U2: return weighted_sum<u16>(job, outer, i, k, sum);
        case TYPE_I2: return weighted_sum<i16>(job, outer, i, k, sum);
        case TYPE_F2: return weighted_sum<u64>(job, outer, i, k, sum);
        default: return weighted_sum<u32>(job, outer, i, k, sum);
    }
}

// floor(value + 0.5) within the type's range; a NaN is 0.
__device__ inline u64 round_to(i32 type, float value) {
    const float low = type == TYPE_I1 ? -128.0f : type == TYPE_I2 ? -32768.0f : 0.0f;
    const float high = type == TYPE_U1 ? 255.0f : type == TYPE_I1 ? 127.0f : type == TYPE_U2 ? 65535.0f : 32767.0f;
    const float raised = __fadd_rn(value, 0.5f);
    if (!(raised >= low)) return u64(i64(raised == raised ? low : 0.0f));
    if (raised >= high) return u64(i64(high));
    const i64 whole = i64(raised);
    return u64(float(whole) > raised ? whole - 1 : whole);
}

__device__ inline void deliver(const ResampleJob& job, i64 at, i64 k, float value) {
    if (job.scale) {
        const u64 channel = job.n_channels == 1 ? 0 : u64(k) * 4;
        value = normalise(value, load<float>(job.scale + channel), load<float>(job.offset + channel));
    }
    u64 bits;
    switch (job.target_type) {
        case TYPE_F2: bits = f32_to_f16(value); break;
        case TYPE_BF16: bits = f32_to_bf16(value); break;
        case TYPE_F4: bits = __float_as_uint(value); break;
        case TYPE_F8: bits = u64(__double_as_longlong(f32_to_f64(value))); break;
        default: bits = round_to(job.target_type, value); break;
    }
    store_element(job.target, at, job.target_type, 0, bits);
}

// One result of the tile; false where the table points outside of the source.
__device__ inline bool resample_element(const ResampleJob& job, i64 index) {
    const i64 plane = i64(job.m) * job.inner;
    const i64 outer = index / plane, in_plane = index % plane;
    const i64 i = in_plane / job.inner, k = in_plane % job.inner;
    float value = job.fill;
    if (outer >= job.outer_inside[0] && outer < job.outer_inside[1] && i >= job.m_inside[0] &&
        i < job.m_inside[1] && !sum_of(job, outer, i, k, value))
        return false;
    deliver(job, outer * job.target_strides[0] + i * job.target_strides[1] + k * job.target_strides[2], k,
            value);
    return true;
}

extern "C" __global__ void resample(const ResampleJob* jobs,  // (n_jobs,)
                                    i32 n_jobs,
                                    const i64* tile_starts,   // (n_jobs + 1,)
                                    i32 tile_elements,
                                    i32* status)              // (n_jobs,) in, 0, and out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        const ResampleJob job = jobs[index];
        const i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_elements);
        if (code != STATUS_OK) {
            if (lane == 0) atomicMax(status + index, code);
            continue;
        }
        const i64 total = i64(job.outer) * job.m * job.inner;
        const i64 begin = tile_of_job * tile_elements;
        const i64 end = begin + tile_elements < total ? begin + tile_elements : total;
        bool read = true;
        for (i64 i = begin + lane; i < end; i += 32) read &= resample_element(job, i);
        if (!read) atomicMax(status + index, i32(STATUS_SOURCE_BOUNDS));
    }
}
