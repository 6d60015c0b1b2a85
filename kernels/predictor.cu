// Undo TIFF's predictors, one job per chunk: samples that are stored as differences along each row.
//
// Source: TIFF 6.0, section 14 (predictor 2, horizontal differencing) and Adobe's TIFF Technical Note 3 (predictor
// 3, floating point). With 2 each sample is the difference from the one `samples` before it, modulo its range. With
// 3 a row is its samples' highest bytes, then the next ones ...; each byte is the difference from the one `samples`
// before it, also across the planes. The bytes of a sample are then summed up side by side in one word, once the
// sums of whole planes are known: these go before what follows.
//
// Geometry: one warp per tile of `tile_rows` rows (see common.cuh); no shared memory. 32 neighbours are summed up
// by shuffles `samples`, 2 * `samples` ... lanes apart, several loads in flight; of more than 32 samples each lane
// takes its own. Alignment: the target's sample size. Reference: tests/kernel_references.py, predictor.
#include "common.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr int IN_FLIGHT = 4;

template <int N>
struct WordOf {
    typedef u32 type;
};
template <>
struct WordOf<8> {
    typedef u64 type;
};
template <int N>
using Word = typename WordOf<N>::type;

__device__ inline u32 add_bytes(u32 a, u32 b) {
    return ((a & 0x7f7f7f7fu) + (b & 0x7f7f7f7fu)) ^ ((a ^ b) & 0x80808080u);
}
__device__ inline u64 add_bytes(u64 a, u64 b) {
    constexpr u64 LOW = 0x7f7f7f7f7f7f7f7full;
    return ((a & LOW) + (b & LOW)) ^ ((a ^ b) & ~LOW);
}

template <bool PLANES, typename W>
__device__ inline W add(W a, W b) {
    if constexpr (PLANES) return add_bytes(a, b);
    else return a + b;
}

// A row of `n` samples of N bytes.
struct Row {
    u64 source;
    u64 target;
    i64 n;
    bool swap;  // between the file's and the native byte order
};

template <int N>
__device__ inline u64 swapped(u64 value) {
    if constexpr (N == 1) return value;
    else return swap_bytes(value, N);
}

// Differences that make sample i, the highest byte first with planes.
template <int N, bool PLANES>
__device__ inline Word<N> load_sample(const Row& row, i64 i) {
    if constexpr (PLANES) {
        Word<N> word = 0;
#pragma unroll
        for (int plane = 0; plane < N; ++plane) word = (word << 8) | load<u8>(row.source + u64(plane * row.n + i));
        return word;
    } else {
        const u64 bits = load_bytes<N>(row.source + u64(i) * N);
        return Word<N>(row.swap ? swapped<N>(bits) : bits);
    }
}

template <int N>
__device__ inline void store_sample(const Row& row, i64 i, Word<N> word) {
    const u64 bits = row.swap ? swapped<N>(word) : u64(word);
    const u64 address = row.target + u64(i) * N;
    if constexpr (N == 1) store(address, u8(bits));
    else if constexpr (N == 2) store(address, u16(bits));
    else if constexpr (N == 4) store(address, u32(bits));
    else store(address, bits);
}

// Of the sums of whole planes: in each byte the sum of the higher ones.
template <int N, typename W>
__device__ inline W planes_before(W sums) {
    sums = add_bytes(sums, W(sums >> 8));
    if constexpr (N > 2) sums = add_bytes(sums, W(sums >> 16));
    if constexpr (N > 4) sums = add_bytes(sums, W(sums >> 32));
    return sums >> 8;
}

// Each lane's sum of the values of the lanes 0, `samples`, 2 * `samples` ... before it, and its own.
template <bool PLANES, typename W>
__device__ inline W sum_lanes(W value, i32 samples, i32 lane) {
    for (i32 step = samples; step < 32; step <<= 1) {
        const W other = __shfl_up_sync(ALL_LANES, value, u32(step));
        if (lane >= step) value = add<PLANES>(value, other);
    }
    return value;
}

// What comes before the first samples of a row, in the last `samples` lanes.
template <int N, bool PLANES>
__device__ inline Word<N> start_of_row(const Row& row, i32 samples, i32 lane) {
    Word<N> sums = 0;
    if constexpr (PLANES) {
        const i32 lanes = 32 - 32 % samples;  // whole pixels: a lane always has the same sample
        if (lane < lanes)
            for (i64 i = lane; i < row.n; i += lanes) sums = add<true>(sums, load_sample<N, true>(row, i));
        sums = planes_before<N>(sum_lanes<true>(sums, samples, lane));
        sums = __shfl_sync(ALL_LANES, sums, u32((lane + lanes) & 31));
    }
    return sums;
}

template <int N, bool PLANES>
__device__ inline void sum_row(const Row& row, i32 samples, i32 lane) {
    Word<N> last = start_of_row<N, PLANES>(row, samples, lane);
    for (i64 round = 0; round < row.n; round += 32 * IN_FLIGHT) {
        Word<N> values[IN_FLIGHT];
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; ++k) {
            const i64 i = round + 32 * k + lane;
            values[k] = i < row.n ? load_sample<N, PLANES>(row, i) : 0;
        }
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; ++k) {
            if (round + 32 * k >= row.n) break;
            const Word<N> before = __shfl_sync(ALL_LANES, last, u32((lane - samples) & 31));
            if (lane < samples) values[k] = add<PLANES>(values[k], before);
            last = sum_lanes<PLANES>(values[k], samples, lane);
            const i64 i = round + 32 * k + lane;
            if (i < row.n) store_sample<N>(row, i, last);
        }
    }
}

// More samples than lanes.
template <int N, bool PLANES>
__device__ inline void sum_wide_row(const Row& row, i32 samples, i32 lane) {
    for (i64 first = lane; first < samples; first += 32) {
        Word<N> sum = 0;
        if constexpr (PLANES) {
            for (i64 i = first; i < row.n; i += samples) sum = add<true>(sum, load_sample<N, true>(row, i));
            sum = planes_before<N>(sum);
        }
#pragma unroll 1
        for (i64 i = first; i < row.n; i += samples) {
            sum = add<PLANES>(sum, load_sample<N, PLANES>(row, i));
            store_sample<N>(row, i, sum);
        }
    }
}

template <int N, bool PLANES>
__device__ inline void sum_rows(const PredictorJob& job, i64 begin, i64 end, i32 lane) {
    const i64 n = i64(job.width) * job.samples;
    for (i64 r = begin; r < end; ++r) {
        const u64 at = u64(r) * u64(n) * N;
        const Row row = {job.source + at, job.target + at, n, job.swap != 0};
        if (job.samples <= 32) sum_row<N, PLANES>(row, job.samples, lane);
        else sum_wide_row<N, PLANES>(row, job.samples, lane);
    }
}

__device__ inline i32 check(const PredictorJob& job, i64 n_tiles, i32 tile_rows) {
    if (tile_rows < 1 || job.rows < 0 || job.rows > n_tiles * tile_rows) return STATUS_BAD_JOB;
    if (job.width < 1 || job.samples < 1 || (job.predictor != 2 && job.predictor != 3)) return STATUS_BAD_JOB;
    const i32 size = job.itemsize;
    if (size != 1 && size != 2 && size != 4 && size != 8) return STATUS_BAD_JOB;
    if (size == 1 && (job.predictor == 3 || job.swap)) return STATUS_BAD_JOB;
    const i64 n = i64(job.width) * job.samples;
    if (n > (i64(1) << 40)) return STATUS_BAD_JOB;
    if (job.source_nbytes < 0 || job.rows > job.source_nbytes / (n * size)) return STATUS_SOURCE_BOUNDS;
    if (job.target_nbytes < 0 || job.rows > job.target_nbytes / (n * size)) return STATUS_TARGET_BOUNDS;
    const i64 nbytes = job.rows * n * size;
    if (nbytes && overlap(job.source, nbytes, job.target, nbytes)) return STATUS_BAD_JOB;
    return job.target % u64(size) ? STATUS_MISALIGNED : STATUS_OK;
}

extern "C" __global__ void predictor(const PredictorJob* jobs,  // (n_jobs,)
                                     i32 n_jobs,
                                     const i64* tile_starts,    // (n_jobs + 1,)
                                     i32 tile_rows,
                                     i32* status)               // (n_jobs,) out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        const PredictorJob job = jobs[index];
        const i32 code = check(job, tile_starts[index + 1] - tile_starts[index], tile_rows);
        if (lane == 0 && tile_of_job == 0) status[index] = code;
        if (code != STATUS_OK) continue;
        const i64 begin = tile_of_job * tile_rows;
        const i64 end = begin + tile_rows < job.rows ? begin + tile_rows : job.rows;
        const i32 kind = job.itemsize + (job.predictor == 3 ? 8 : 0);
        switch (kind) {
            case 1: sum_rows<1, false>(job, begin, end, lane); break;
            case 2: sum_rows<2, false>(job, begin, end, lane); break;
            case 4: sum_rows<4, false>(job, begin, end, lane); break;
            case 8: sum_rows<8, false>(job, begin, end, lane); break;
            case 10: sum_rows<2, true>(job, begin, end, lane); break;
            case 12: sum_rows<4, true>(job, begin, end, lane); break;
            default: sum_rows<8, true>(job, begin, end, lane); break;
        }
    }
}
