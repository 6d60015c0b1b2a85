// Inverse DCT of plain JPEG: the one of libjpeg's JDCT_ISLOW, bit for bit.

#pragma once

#include <cstdint>

namespace zarrgpu {

// Blocks of one component in a row of them, and where their samples go.
struct JpegBlocks {
    int count;
    const int16_t* coefficients;  // (count, JPEG_BLOCK_ROOM), 64 in natural order
    const uint8_t* last;          // (count,): behind this place all is zero, in zigzag order
    const int16_t* quant;         // (64,), natural order
    uint8_t* samples;             // (8, stride): 8 columns a block
    int64_t stride;
};

// False where implementations of libjpeg differ, far from what an image can be.
bool inverse_dct(const JpegBlocks& blocks);

}  // namespace zarrgpu
