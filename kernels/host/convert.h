// Copies of boxes whose elements are cast and normalised on their way.

#pragma once

#include <cstdint>

#include "copy.h"

namespace zarrgpu {

// Types of stored elements, and of delivered ones; mirrored by zarrgpu/devices/native.py.
enum Source : int64_t { U8 = 0, I8 = 1, U16 = 2, I16 = 3, F32 = 4, I32 = 5, U32 = 6 };
enum Target : int64_t {
    AS_STORED = 0,
    TO_F32 = 1,
    TO_F16 = 2,
    TO_BF16 = 3,
    TO_INT16 = 4,  // these of integers that fit, of either sign
    TO_INT32 = 5,
    TO_INT64 = 6,
};

// What becomes of an element x of channel c: float32(x) * scale[c] + offset[c], each step rounded,
// then rounded to the target type; or an integer with more bits.
struct Conversion {
    Source source;
    Target target;
    bool swaps;           // stored bytes are reversed
    int64_t n_channels;   // 0: elements are cast only; 1: one scale for all
    const float* scale;   // (n_channels,)
    const float* offset;  // (n_channels,)
    int channel_axis;     // of the box, -1 for none
    int64_t channel;      // of the box's first element
    bool streams;         // see copy_box
};

// Convert a box, not simplified.
void convert_box(const Box& box, const Conversion& conversion, const uint8_t* src, uint8_t* dst);

// Bits of the float16 nearest to a number, ties to even; for processors without an instruction.
uint16_t half_bits(float value);

// Bits of the bfloat16 nearest to a number, ties to even; NaNs lose their payload.
uint16_t bfloat16_bits(float value);

}  // namespace zarrgpu
