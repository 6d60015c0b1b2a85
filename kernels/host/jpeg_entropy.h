// Entropy decoding of plain JPEG: coefficients of the blocks that are wanted, of the others none.

#pragma once

#include <cstdint>

#include "jpeg_huffman.h"

namespace zarrgpu {

constexpr int JPEG_BLOCK_ROOM = 80;  // coefficients of a block, and a place for what is beyond
constexpr int JPEG_MCU_BLOCKS = 10;

// The blocks of one component that are wanted, and where those of one row of MCUs go.
struct JpegWanted {
    int first_column, end_column;
    int first_row, end_row;
    int across, down;       // blocks of an MCU
    int16_t* coefficients;  // (down, columns, JPEG_BLOCK_ROOM): 64 in natural order; zero before
    uint8_t* last;          // (down, columns): behind this place all is zero, in zigzag order
    const JpegLooks* looks;
    const uint8_t* quant;  // (64,), zigzag order

    int columns() const { return end_column - first_column; }
    int rows() const { return end_row - first_row; }
};

// Where in natural order a place in zigzag order is.
int jpeg_place(int place);

// Where the decoding of an interval is.
struct JpegReader {
    const uint8_t* at;   // next byte to take
    const uint8_t* end;  // of the interval
    uint64_t bits;       // from the highest
    int count;           // of them, at least
    int32_t predicted[MAX_JPEG_SAMPLES];
};

void begin_interval(JpegReader& reader, const uint8_t* data, const uint8_t* end);

// Whether all bytes of the interval were taken.
bool is_used_up(const JpegReader& reader);

// Decode MCUs `first` to `end` of row `row`. False for data that no encoder writes, or that ends
// early: what becomes of it is libjpeg's to say.
bool decode_mcus(JpegReader& reader, const JpegWanted* wanted, int samples, int row, int first,
                 int end);

}  // namespace zarrgpu
