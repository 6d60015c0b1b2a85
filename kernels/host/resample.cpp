// Resampling of one image by filter tables: sums down the columns into a row, then along that row.
//
// zarrgpu/resampling.py says what each result is; the order of every sum is the same here, and it is
// compiled without fused multiply-adds, so results are equal bit for bit.

#include "resample.h"

#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

namespace zarrgpu {
namespace {

// floor(value + 0.5) within the range of the type; floats as they are.
template <typename T>
T rounded(float value) {
    if constexpr (std::is_same_v<T, float>) {
        return value;
    } else {
        const float raised = value + 0.5f;
        if (!(raised > float(std::numeric_limits<T>::min()))) return std::numeric_limits<T>::min();
        if (raised >= float(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
        const int32_t whole = int32_t(raised);
        return T(float(whole) > raised ? whole - 1 : whole);
    }
}

// One row: weighted sum of rows of the source, `n` elements each.
template <typename T>
void sum_rows(const T* source, int64_t n, const float* weight, int64_t taps, float* total) {
    for (int64_t j = 0; j < n; j++) total[j] = 0.0f;
    for (int64_t tap = 0; tap < taps; tap++) {
        const float w = weight[tap];
        if (w == 0.0f) continue;
        const T* row = source + tap * n;
        for (int64_t j = 0; j < n; j++) total[j] += w * static_cast<float>(row[j]);
    }
}

// One result pixel of C channels (of `channels` where C is 0), from a row of sums.
template <int C>
void sum_along(const float* row, int64_t channels, const float* weight, int64_t taps, float* total) {
    const int64_t n = C ? C : channels;
    for (int64_t k = 0; k < n; k++) total[k] = 0.0f;
    for (int64_t tap = 0; tap < taps; tap++) {
        const float w = weight[tap];
        if (w == 0.0f) continue;
        for (int64_t k = 0; k < n; k++) total[k] += w * row[tap * n + k];
    }
}

template <typename S, typename T, int C>
void run(const Resampling& job) {
    const S* source = reinterpret_cast<const S*>(job.source);
    const int64_t channels = C ? C : job.channels, n = job.width * channels;
    std::vector<float> row(n), pixel(channels);
    float fill;
    std::memcpy(&fill, &job.fill, sizeof fill);
    for (int64_t y = 0; y < job.rows; y++) {
        uint8_t* target = reinterpret_cast<uint8_t*>(job.target) + y * job.target_strides[0];
        const bool inside = y >= job.top && y < job.bottom;
        if (inside) {
            const float* weight = job.row_weight + y * job.row_taps;
            sum_rows(source + job.row_first[y] * n, n, weight, job.row_taps, row.data());
        }
        for (int64_t x = 0; x < job.columns; x++, target += job.target_strides[1]) {
            if (inside && x >= job.left && x < job.right) {
                sum_along<C>(row.data() + job.column_first[x] * channels, channels,
                             job.column_weight + x * job.column_taps, job.column_taps, pixel.data());
            } else {
                for (int64_t k = 0; k < channels; k++) pixel[k] = fill;
            }
            for (int64_t k = 0; k < channels; k++) {
                const T value = rounded<T>(pixel[k]);  // memcpy: results need not be aligned
                std::memcpy(target + k * job.target_strides[2], &value, sizeof value);
            }
        }
    }
}

template <typename S, typename T>
void run_channels(const Resampling& job) {
    switch (job.channels) {
        case 1: return run<S, T, 1>(job);
        case 3: return run<S, T, 3>(job);
        case 4: return run<S, T, 4>(job);
        default: return run<S, T, 0>(job);
    }
}

template <typename S>
void run_type(const Resampling& job) {
    if (job.to_float) return run_channels<S, float>(job);
    return run_channels<S, S>(job);
}

}  // namespace
}  // namespace zarrgpu

// Resample one image; the caller has checked that every table stays within it.
extern "C" __attribute__((visibility("default"))) void zarrgpu_resample(
    const zarrgpu::Resampling* job) {
    switch (job->source_type) {
        case 1: return zarrgpu::run_type<int8_t>(*job);
        case 2: return zarrgpu::run_type<uint8_t>(*job);
        case 3: return zarrgpu::run_type<int16_t>(*job);
        case 4: return zarrgpu::run_type<uint16_t>(*job);
        case 10: return zarrgpu::run_type<float>(*job);
        default: return;
    }
}
