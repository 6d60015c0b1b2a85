// Huffman tables of JPEG as they are decoded with: what the next bits are, in one look.

#pragma once

#include <cstdint>

#include "jpeg_stream.h"

namespace zarrgpu {

// An entry tells what JPEG_LOOK bits begin with.
//
// Bits 0-5 are how many bits it is: all that the next look waits for.
// Of AC two coefficients follow: 6-12 and 13-19 by how much the place advances to each, 20-25 and
// 26-31 their values. Alone, one is told twice, with no advance. JPEG_BLOCK_ENDS is an advance that
// ends the block. Of DC the difference follows in 16-31.
// 0: the code or its value is longer, or there is none.
constexpr int JPEG_LOOK = 12;
constexpr int JPEG_BLOCK_ENDS = 96;

struct JpegLooks {
    uint32_t entries[1 << JPEG_LOOK];
    uint32_t limits[18];  // by length: codes of 16 bits from here on are longer
    int32_t shifts[17];   // by length: from a code to the place of its symbol
    uint8_t symbols[256];
};

// Tables of a stream's code, which a thread keeps; null if it is none that libjpeg takes. Valid
// until as many others were asked for.
constexpr int JPEG_KEPT_CODES = 16;
const JpegLooks* jpeg_looks(const JpegCode& code, bool is_dc);

}  // namespace zarrgpu
