// See codecs.h. What these accept, the decoders of zarrgpu/codecs/ accept, with the same bytes: a
// test mutates streams and compares. What these refuse is decoded again there.

#include "codecs.h"

#include <climits>
#include <cstring>
#include <memory>

#include "checksum.h"

namespace zarrgpu {

Libraries libraries = {};

namespace {

constexpr int64_t BLOSC_HEADER_NBYTES = 16;

// A library's context, which stays with its thread: making one costs more than decoding a small
// chunk with it.
template <typename Free>
struct Context {
    void* it;
    Free release;
    ~Context() {
        if (it && release) release(it);
    }
};

void* zstd_context() {
    thread_local Context<size_t (*)(void*)> context{libraries.zstd_create(), libraries.zstd_free};
    return context.it;
}

void* deflate_context() {
    thread_local Context<void (*)(void*)> context{libraries.deflate_create(),
                                                  libraries.deflate_free};
    return context.it;
}

uint32_t little32(const uint8_t* at) {
    uint32_t value;
    memcpy(&value, at, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    return value;
}

bool decode_zstd(const uint8_t* src, int64_t src_nbytes, uint8_t* dst, int64_t nbytes) {
    if (!libraries.zstd_decompress || !zstd_context()) return false;
    // an error is a size beyond any chunk's
    return libraries.zstd_decompress(zstd_context(), dst, nbytes, src, src_nbytes) ==
           static_cast<size_t>(nbytes);
}

// As BloscHeader.parse: c-blosc trusts sizes that it is not told.
bool blosc_header_holds(const uint8_t* src, int64_t src_nbytes, int64_t nbytes) {
    if (src_nbytes < BLOSC_HEADER_NBYTES || nbytes < 1 || nbytes > INT_MAX) return false;
    const int64_t blocksize = little32(src + 8);
    return src[0] == 2 && src[3] != 0 && little32(src + 4) == nbytes &&
           little32(src + 12) == src_nbytes && 0 < blocksize && blocksize <= nbytes;
}

bool decode_blosc(const uint8_t* src, int64_t src_nbytes, uint8_t* dst, int64_t nbytes) {
    return libraries.blosc_decompress && blosc_header_holds(src, src_nbytes, nbytes) &&
           libraries.blosc_decompress(src, dst, nbytes, 1) == nbytes;
}

bool decode_lz4(const uint8_t* src, int64_t src_nbytes, uint8_t* dst, int64_t nbytes) {
    if (!libraries.lz4_decompress || src_nbytes <= 4 || src_nbytes > INT_MAX) return false;
    if (nbytes > INT_MAX || little32(src) != nbytes) return false;
    const char* block = reinterpret_cast<const char*>(src + 4);
    return libraries.lz4_decompress(block, reinterpret_cast<char*>(dst), src_nbytes - 4, nbytes) ==
           nbytes;
}

// One stream that takes all bytes: libdeflate looks at the first gzip member only.
template <typename Decompress>
bool decode_deflate(Decompress decompress, const uint8_t* src, int64_t src_nbytes, uint8_t* dst,
                    int64_t nbytes) {
    if (!decompress || !deflate_context()) return false;
    size_t used = 0, made = 0;
    return decompress(deflate_context(), src, src_nbytes, dst, nbytes, &used, &made) == 0 &&
           used == static_cast<size_t>(src_nbytes) && made == static_cast<size_t>(nbytes);
}

}  // namespace

bool decode(int64_t codec, const uint8_t* src, int64_t src_nbytes, uint8_t* dst, int64_t nbytes) {
    switch (codec) {
        case 1: return decode_zstd(src, src_nbytes, dst, nbytes);
        case 2: return decode_blosc(src, src_nbytes, dst, nbytes);
        case 3: return decode_lz4(src, src_nbytes, dst, nbytes);
        case 4: return decode_deflate(libraries.zlib_decompress, src, src_nbytes, dst, nbytes);
        case 5: return decode_deflate(libraries.gzip_decompress, src, src_nbytes, dst, nbytes);
        default: return false;
    }
}

bool decode_blosc_part(const uint8_t* src, int64_t src_nbytes, int64_t decoded_nbytes,
                       int64_t start, uint8_t* dst, int64_t nbytes) {
    if (!libraries.blosc_getitem || !blosc_header_holds(src, src_nbytes, decoded_nbytes)) {
        return false;
    }
    const int64_t typesize = src[3];
    if (start % typesize || nbytes % typesize) return false;
    return libraries.blosc_getitem(src, start / typesize, nbytes / typesize, dst) == nbytes;
}

bool crc32c_holds(const uint8_t* data, int64_t nbytes) {
    return nbytes >= 4 && crc32c(data, nbytes - 4) == little32(data + nbytes - 4);
}

}  // namespace zarrgpu
