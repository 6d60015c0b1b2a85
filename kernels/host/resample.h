// What `zarrgpu_resample` is told: RESAMPLING in zarrgpu/devices/native.py, field by field.

#pragma once

#include <cstdint>

namespace zarrgpu {

struct Resampling {
    const uint8_t* source;  // (height, width, channels), native byte order
    int64_t source_type;    // ElementType: I1, U1, I2, U2 or F4
    int64_t width;
    int64_t channels;
    const int32_t* row_first;  // (rows,)
    const float* row_weight;   // (rows, row_taps)
    int64_t rows;
    int64_t row_taps;
    const int32_t* column_first;  // (columns,)
    const float* column_weight;   // (columns, column_taps)
    int64_t columns;
    int64_t column_taps;
    int64_t top;  // results inside of the image, from, to; the others are the fill value
    int64_t bottom;
    int64_t left;
    int64_t right;
    uint8_t* target;
    int64_t target_strides[3];  // bytes, of rows, columns and channels
    int64_t to_float;           // whether results are float32; else of the source's type
    int64_t fill;               // float32, its bits
};

}  // namespace zarrgpu
