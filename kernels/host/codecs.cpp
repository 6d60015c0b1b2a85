// See codecs.h. What these accept, the decoders of zarrgpu/codecs/ accept, with the same bytes: a
// test mutates streams and compares. What these refuse is decoded again there.

#include "codecs.h"

#include <climits>
#include <cstring>
#include <memory>

#include "checksum.h"
#include "tables.h"

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

// Where the blocks of a frame begin (RFC 8878, 3.1.1); 0 unless it is one of `nbytes` that neither
// needs a dictionary nor ends in a checksum, which a part of it could not be held against.
int64_t zstd_blocks_at(const uint8_t* src, int64_t src_nbytes, int64_t nbytes) {
    if (src_nbytes < 18 || little32(src) != 0xFD2FB528) return 0;
    const uint8_t descriptor = src[4];
    const bool single_segment = descriptor & 0x20;
    if (descriptor & 0x07) return 0;
    const int64_t at = 5 + !single_segment;
    const int size_code = descriptor >> 6;
    const int size_nbytes = size_code ? 1 << size_code : single_segment;
    uint64_t content = 0;
    for (int i = 0; i < size_nbytes; i++) content |= static_cast<uint64_t>(src[at + i]) << 8 * i;
    if (size_code == 1) content += 256;
    return content == static_cast<uint64_t>(nbytes) ? at + size_nbytes : 0;
}

// Decode block by block until the first `wanted` bytes are there.
bool decode_zstd_prefix(const uint8_t* src, int64_t src_nbytes, uint8_t* dst, int64_t nbytes,
                        int64_t wanted) {
    constexpr int STABLE_OUT_BUFFER = 1001, SESSION_ONLY = 1;
    constexpr size_t MANY = static_cast<size_t>(-200);  // above it are libzstd's errors
    if (!libraries.zstd_decompress_stream || !zstd_context()) return false;
    int64_t at = zstd_blocks_at(src, src_nbytes, nbytes);
    if (!at) return false;
    // decode into dst, not into a buffer of libzstd's
    if (libraries.zstd_set_parameter(zstd_context(), STABLE_OUT_BUFFER, 1) > MANY) return false;
    ZstdOut out{dst, static_cast<size_t>(nbytes), 0};
    ZstdIn in{src, 0, 0};
    bool last = false, good = true;
    while (good && !last && out.pos < static_cast<size_t>(wanted)) {
        if (at + 3 > src_nbytes) {
            good = false;
            break;
        }
        const uint32_t block = src[at] | src[at + 1] << 8 | src[at + 2] << 16;
        last = block & 1;
        at += 3 + ((block >> 1 & 3) == 1 ? 1 : block >> 3);
        good = at <= src_nbytes;
        in.size = at;
        while (good && in.pos < in.size) {
            const size_t before = in.pos;
            good = libraries.zstd_decompress_stream(zstd_context(), &out, &in) <= MANY &&
                   in.pos > before;
        }
    }
    libraries.zstd_reset(zstd_context(), SESSION_ONLY);
    return good && out.pos >= static_cast<size_t>(wanted);
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

bool decode_blosc_part(const uint8_t* src, int64_t src_nbytes, int64_t decoded_nbytes,
                       int64_t start, uint8_t* dst, int64_t nbytes) {
    if (!libraries.blosc_getitem || !blosc_header_holds(src, src_nbytes, decoded_nbytes)) {
        return false;
    }
    const int64_t typesize = src[3];
    if (start % typesize || nbytes % typesize) return false;
    return libraries.blosc_getitem(src, start / typesize, nbytes / typesize, dst) == nbytes;
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
        case ZSTD: return decode_zstd(src, src_nbytes, dst, nbytes);
        case BLOSC: return decode_blosc(src, src_nbytes, dst, nbytes);
        case LZ4: return decode_lz4(src, src_nbytes, dst, nbytes);
        case ZLIB: return decode_deflate(libraries.zlib_decompress, src, src_nbytes, dst, nbytes);
        case GZIP: return decode_deflate(libraries.gzip_decompress, src, src_nbytes, dst, nbytes);
        default: return false;
    }
}

const uint8_t* decode_part(int64_t codec, const uint8_t* src, int64_t src_nbytes,
                           int64_t decoded_nbytes, int64_t start, int64_t nbytes, uint8_t* room) {
    if (codec == BLOSC) {
        return decode_blosc_part(src, src_nbytes, decoded_nbytes, start, room, nbytes) ? room
                                                                                       : nullptr;
    }
    if (codec != ZSTD) return nullptr;
    const bool done =
        decode_zstd_prefix(src, src_nbytes, room, decoded_nbytes, start + nbytes) ||
        decode_zstd(src, src_nbytes, room, decoded_nbytes);
    return done ? room + start : nullptr;
}

bool crc32c_holds(const uint8_t* data, int64_t nbytes) {
    return nbytes >= 4 && crc32c(data, nbytes - 4) == little32(data + nbytes - 4);
}

}  // namespace zarrgpu
