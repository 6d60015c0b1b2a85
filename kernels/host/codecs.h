// Decoders of whole chunks, by libraries that Python packages brought: no library is linked.

#pragma once

#include <cstddef>
#include <cstdint>

namespace zarrgpu {

// Functions of libzstd, c-blosc, liblz4 and libdeflate; null where a library was not found.
// Mirrored by zarrgpu/devices/native.py.
struct Libraries {
    void* (*zstd_create)();
    size_t (*zstd_free)(void* context);
    size_t (*zstd_decompress)(void* context, void* dst, size_t dst_nbytes, const void* src,
                              size_t src_nbytes);
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

// The same for bytes `start` to `start + nbytes` of a Blosc chunk of `decoded_nbytes`.
bool decode_blosc_part(const uint8_t* src, int64_t src_nbytes, int64_t decoded_nbytes,
                       int64_t start, uint8_t* dst, int64_t nbytes);

// Whether the last four bytes are the CRC-32C of those before (RFC 3720, little endian).
bool crc32c_holds(const uint8_t* data, int64_t nbytes);

}  // namespace zarrgpu
