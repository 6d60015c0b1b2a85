// What the host executor is told: a plan's own columns, no copy, and what it answers.
//
// Mirrored field by field by zarrgpu/devices/native.py; a test holds the two together. Every field
// takes 8 bytes. Sizes, offsets and strides are in bytes unless a comment says otherwise.

#pragma once

#include <cstdint>

namespace zarrgpu {

static_assert(sizeof(void*) == 8, "tables are those of 64-bit processors");

constexpr int MAX_AXES = 32;

// How the chunks of an array are encoded.
enum Codec : int64_t {
    UNKNOWN = -1,
    RAW = 0,
    ZSTD = 1,
    BLOSC = 2,
    LZ4 = 3,
    ZLIB = 4,
    GZIP = 5,
    JPEG = 6,
    JPEG2K = 7,
};

// What became of a chunk.
enum Status : int32_t {
    NOT_DONE = 0,  // left to the general path, which succeeds or says what is wrong
    DONE = 1,
    ABSENT = 2,    // its object is not stored: its pieces are the fill value by now
};

// The image that each chunk of JPEG or JPEG 2000 is (zarrgpu/codecs/jpeg.py, jpeg2k.py).
struct Image {
    int64_t height;
    int64_t width;
    int64_t samples;
    int64_t color_space;      // stored: J_COLOR_SPACE of jpeglib.h; 0: what libjpeg takes it for
    int64_t out_color_space;  // as delivered
    int64_t tables_nbytes;
    const uint8_t* tables;    // abbreviated JPEG stream that all chunks share
};

struct Array {
    int64_t codec;
    int64_t has_crc32c;      // a CRC-32C trailer follows the encoded bytes
    int64_t itemsize;        // of a stored element
    int64_t source_type;     // `Source` in convert.h, where elements are converted
    int64_t swap_nbytes;     // size of the numbers whose bytes are reversed, 0 if none are
    int64_t decoded_nbytes;  // of a chunk
    int64_t limit_nbytes;    // an object of one chunk that is larger is corrupt
    int64_t object_nbytes;   // size that an object must have to be read in part; -1: any
    int64_t absent_is_fill;  // whether an object may be missing
    const char* root;        // folder, or the file itself where keys are empty
    const int64_t* chunk_shape;  // (ndim,), elements
    const int64_t* axis_order;   // (ndim,), slowest axis of a stored chunk first
    const uint8_t* fill;         // one element as delivered
    const Image* image;          // null for other codecs
};

struct Pieces {
    int64_t count;          // P
    const int32_t* owner;   // (P,), row of the chunk table; of fills, the array
    const int32_t* output;  // (P,)
    const int64_t* src;     // (ndim, P), elements
    const int64_t* dst;     // (ndim, P), elements
    const int64_t* extent;  // (ndim, P), elements
};

struct Plan {
    int64_t ndim;
    const Array* arrays;
    // reads, R rows
    int64_t num_reads;
    const int32_t* read_array;
    const int64_t* read_offset;
    const int64_t* read_nbytes;       // negative: the whole object
    const int64_t* read_chunk_start;  // (R + 1,)
    const int64_t* read_key;          // place in `keys`; equal for reads of one object
    const char* keys;                 // each ends with a zero
    // chunks, C rows
    const int32_t* chunk_array;
    const int64_t* chunk_offset;
    const int64_t* chunk_nbytes;
    const uint8_t* chunk_direct;
    const int64_t* chunk_piece_start;  // (C + 1,)
    const uint8_t* window_whole;       // (C,), or null: every chunk is read whole
    const int64_t* window_start;
    const int64_t* window_nbytes;
    const int64_t* window_shape;  // (ndim, C), elements
    int64_t num_chunks;
    uint8_t* const* chunk_memory;  // (C,), or null: where a chunk shall be kept; null for scratch
    const uint8_t* chunk_held;     // (C,): what is kept is there already
    int32_t* chunk_status;         // (C,), written
    // result, shape (N, *count), axes in array order
    Pieces pieces;
    Pieces fills;
    uint8_t* out;
    const int64_t* out_strides;  // (1 + ndim,)
    const uint8_t* turns;        // (N,), or null: which symmetry each box is delivered in
    const int64_t* turn_strides;  // (8, 1 + ndim): where a box begins, its strides, by symmetry
    const int64_t* step;         // (ndim,), elements
    int64_t out_itemsize;
    int64_t target_type;         // `Target` in convert.h
    int64_t n_channels;          // of scale and offset; 0 for none
    const float* scale;          // (n_channels,)
    const float* offset;         // (n_channels,)
    int64_t channel_axis;        // -1 for none
    int64_t streams;             // the result is too large for the caches
    int64_t next_read;           // taken by threads, atomically
    int64_t fetched_nbytes;      // added to, atomically
};

}  // namespace zarrgpu
