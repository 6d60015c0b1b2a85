// Huffman codes of JPEG as they are decoded with: what the next bits are, in one look.

#pragma once

#include <cstdint>

#include "jpeg_stream.h"

namespace zarrgpu {

// An entry tells what JPEG_LOOK bits begin with: up to two coefficients of a block.
// Bits 0-5 are how many bits these take: all that the next look waits for; 0 where they, or the
// code, are longer, or there is no such code.
// Of AC, 6-12 and 13-19 are by how much the place advances to each, 20-25 and 26-31 their values.
// One alone is told twice, with no advance. JPEG_BLOCK_ENDS is an advance that ends the block.
// Of DC, 13-31 tell the first AC coefficient likewise and 20-25 the difference of the DC before
// it; with no advance the difference is 20-31.
constexpr int JPEG_LOOK = 12;
constexpr int JPEG_BLOCK_ENDS = 96;

// A code, symbol by symbol.
struct JpegSymbols {
    uint32_t limits[18];  // by length: codes of 16 bits from here on are longer
    int32_t shifts[17];   // by length: from a code to the place of its symbol
    uint8_t symbols[256];
};

// Both codes of a component.
struct JpegLooks {
    uint32_t dc_entries[1 << JPEG_LOOK], ac_entries[1 << JPEG_LOOK];
    JpegSymbols dc, ac;
};

// What a thread keeps of codes; null if libjpeg does not take them. Valid until JPEG_KEPT_CODES
// others were asked for.
constexpr int JPEG_KEPT_CODES = 12;
const JpegLooks* jpeg_looks(const JpegCode& dc, const JpegCode& ac);

}  // namespace zarrgpu
