// Decoders of chunks other than images, by libraries that Python packages brought: no library is linked.

#pragma once

#include <cstddef>
#include <cstdint>

namespace zarrgpu {

// ZSTD_outBuffer and ZSTD_inBuffer.
struct ZstdOut {
    void* dst;
    size_t size;
    size_t pos;
};
struct ZstdIn {
    const void* src;
    size_t size;
    size_t pos;
};

// Functions of libzstd, c-blosc, liblz4 and libdeflate; null where a library was not found.
// Mirrored by zarrgpu/devices/native.py.
struct Libraries {
    void* (*zstd_create)();
    size_t (*zstd_free)(void* context);
    size_t (*zstd_decompress)(void* context, void* dst, size_t dst_nbytes, const void* src,
                              size_t src_nbytes);
    size_t (*zstd_decompress_stream)(void* context, ZstdOut* out, ZstdIn* in);
    size_t (*zstd_set_parameter)(void* context, int parameter, int value);
    size_t (*zstd_reset)(void* context, int what);
    int (*blosc_decompress)(const void* src, void* dst, size_t dst_nbytes, int threads);
    int (*blosc_getitem)(const void* src, int start, int count, void* dst);
    int (*lz4_decompress)(const char* src, char* dst, int src_nbytes, int dst_nbytes);
    void* (*deflate_create)();
    void (*deflate_free)(void* context);
    int (*zlib_decompress)(void* context, const void* src, size_t src_nbytes, void* dst,
                           size_t dst_nbytes, size_t* src_used, size_t* dst_used);
    int (*gzip_decompress)(void* context, const void* src, size_t src_nbytes, void* dst,
                           size_t dst_nbytes, size_t* src_used, size_t* dst_used);
};

extern Libraries libraries;

// Whether `src` was decoded to exactly `nbytes` bytes; on false `dst` is undefined.
bool decode(int64_t codec, const uint8_t* src, int64_t src_nbytes, uint8_t* dst, int64_t nbytes);

// Bytes `start` to `start + nbytes` of a Blosc or zstd chunk of `decoded_nbytes`, decoded without
// more of it than that takes. They lie somewhere in `room`, of `decoded_nbytes` (of a Blosc chunk,
// of `nbytes`); null if they cannot be had.
const uint8_t* decode_part(int64_t codec, const uint8_t* src, int64_t src_nbytes,
                           int64_t decoded_nbytes, int64_t start, int64_t nbytes, uint8_t* room);

// Whether the last four bytes are the CRC-32C of those before (RFC 3720, little endian).
bool crc32c_holds(const uint8_t* data, int64_t nbytes);

}  // namespace zarrgpu
