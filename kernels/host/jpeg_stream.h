// Marker segments of a plain JPEG stream, and its entropy-coded data without stuffing or markers.

#pragma once

#include <cstdint>
#include <vector>

#include "tables.h"

namespace zarrgpu {

constexpr int MAX_JPEG_SAMPLES = 4;

// A Huffman table as a stream has it: 16 counts, then the symbols.
struct JpegCode {
    const uint8_t* body;  // null where it is not defined
    int nbytes;
};

struct JpegComponent {
    int id;
    int across, down;     // sampling factors
    int quant_number;
    const uint8_t* quant;  // (64,), zigzag order
    JpegCode dc, ac;
};

// One sequential frame of 8 bits with one scan of all its components.
struct JpegHeader {
    int samples;
    JpegComponent components[MAX_JPEG_SAMPLES];
    int restarts;  // MCUs of an interval; 0: there are none
    int adobe;     // transform of the Adobe marker; -1 if there is none
    int64_t scan;  // where entropy-coded data begins
};

// Whether the stream, and the image's tables, are of this kind and this image. Pointers are into
// both.
bool read_jpeg_header(const Image& image, const uint8_t* src, int64_t nbytes, JpegHeader& header);

// Bytes behind an interval that may be read.
constexpr int64_t JPEG_GUARD_NBYTES = 4096;

// Intervals of entropy-coded data one after another: `starts` has one more than there are, and
// JPEG_GUARD_NBYTES follow the last.
struct JpegData {
    std::vector<uint8_t> bytes;
    std::vector<int64_t> starts;
};

// Whether the data ends with the image, in so many intervals that are in order.
bool read_jpeg_data(const uint8_t* src, int64_t nbytes, int64_t scan, int64_t intervals,
                    JpegData& data);

// Whether what follows the end of an image is padding alone (zarrgpu/codecs/jpeg.py).
bool is_jpeg_padding(const uint8_t* at, const uint8_t* end);

}  // namespace zarrgpu
