// The part of nvJPEG's C interface that zarrgpu calls, on the host: baseline JPEG to planes.
//
// What the real library does is done where it does it: headers are parsed in the call, decoding waits in the stream
// (`queue`, set by the driver), one status tells of a whole batch, and an image whose data are wrong is left as it is
// from there on without a word. The inverse DCT is the accurate integer one of ITU-T T.81's reference group ("islow",
// Loeffler, Ligtenberg and Moschytz 1989, in fixed point of 13 bits), so that planes are libjpeg's bit for bit.
//
// A test compiles this file with -DREAL_HEADER against nvjpeg.h of the wheel: the declarations must agree.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#ifdef REAL_HEADER
#include "nvjpeg.h"
#else
typedef int nvjpegStatus_t;
typedef int nvjpegBackend_t;
typedef int nvjpegOutputFormat_t;
typedef int libraryPropertyType;
typedef struct CUstream_st* cudaStream_t;
typedef struct nvjpegHandle* nvjpegHandle_t;
typedef struct nvjpegJpegState* nvjpegJpegState_t;
typedef struct nvjpegDevAllocator nvjpegDevAllocator_t;
typedef struct nvjpegPinnedAllocator nvjpegPinnedAllocator_t;
typedef struct {
    unsigned char* channel[4];
    size_t pitch[4];
} nvjpegImage_t;
#define NVJPEGAPI
#endif

namespace {

constexpr int BAD_JPEG = 3, NOT_SUPPORTED = 4, ARCH_MISMATCH = 7, INVALID = 2;
constexpr int HARDWARE = 3, GPU_HYBRID = 2;

struct Huffman {
    bool defined = false;
    int first_code[18], first_index[18], count[18];
    uint8_t symbols[256];
};

struct Tables {
    bool quantized[4] = {};
    uint16_t quantization[4][64];
    Huffman huffman[2][4];
};

struct Component {
    int id, across, down, quantization, dc, ac;
};

struct Image {
    Tables tables;
    int width = 0, height = 0, samples = 0, restart = 0;
    Component components[4];
    const uint8_t* data = nullptr;
    const uint8_t* end = nullptr;
};

constexpr uint8_t ZIGZAG[64] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

bool read_huffman(const uint8_t* at, const uint8_t* end, Tables& tables) {
    while (at < end) {
        if (end - at < 17 || at[0] >> 4 > 1 || (at[0] & 15) > 3) return false;
        Huffman& table = tables.huffman[at[0] >> 4][at[0] & 15];
        int code = 0, index = 0;
        for (int bits = 1; bits <= 16; ++bits) {
            table.first_code[bits] = code;
            table.first_index[bits] = index;
            table.count[bits] = at[bits];
            index += at[bits];
            code = (code + at[bits]) << 1;
        }
        if (index > 256 || end - at < 17 + index) return false;
        std::memcpy(table.symbols, at + 17, size_t(index));
        table.defined = true;
        at += 17 + index;
    }
    return true;
}

bool read_quantization(const uint8_t* at, const uint8_t* end, Tables& tables) {
    while (at < end) {
        const int wide = at[0] >> 4, number = at[0] & 15;
        if (wide > 1 || number > 3 || end - at < 1 + 64 * (1 + wide)) return false;
        for (int i = 0; i < 64; ++i)
            tables.quantization[number][ZIGZAG[i]] =
                uint16_t(wide ? at[1 + 2 * i] << 8 | at[2 + 2 * i] : at[1 + i]);
        tables.quantized[number] = true;
        at += 1 + 64 * (1 + wide);
    }
    return true;
}

bool read_frame(const uint8_t* at, const uint8_t* end, Image& image) {
    if (end - at < 6 || at[0] != 8 || at[5] < 1 || at[5] > 4 || end - at != 6 + 3 * at[5]) return false;
    image.height = at[1] << 8 | at[2];
    image.width = at[3] << 8 | at[4];
    image.samples = at[5];
    for (int c = 0; c < image.samples; ++c) {
        const uint8_t* p = at + 6 + 3 * c;
        image.components[c] = {p[0], p[1] >> 4, p[1] & 15, p[2] & 3, 0, 0};
        if (!(p[1] >> 4) || !(p[1] & 15) || p[1] >> 4 > 4 || (p[1] & 15) > 4) return false;
    }
    return image.height && image.width;
}

bool read_scan(const uint8_t* at, const uint8_t* end, Image& image) {
    if (end - at != 4 + 2 * image.samples || at[0] != image.samples) return false;
    for (int c = 0; c < image.samples; ++c) {
        image.components[c].dc = at[2 + 2 * c] >> 4 & 3;
        image.components[c].ac = at[2 + 2 * c] & 3;
    }
    return true;
}

// Marker segments up to the scan, or to the end of a stream of tables.
int parse(const uint8_t* data, size_t length, Image& image) {
    if (length < 4 || data[0] != 0xFF || data[1] != 0xD8) return BAD_JPEG;
    size_t at = 2;
    while (at + 4 <= length && data[at] == 0xFF) {
        const int marker = data[at + 1];
        const size_t size = size_t(data[at + 2] << 8 | data[at + 3]);
        const uint8_t *body = data + at + 4, *end = data + at + 2 + size;
        if (size < 2 || at + 2 + size > length) return BAD_JPEG;
        bool fine = true;
        if (marker == 0xC4) fine = read_huffman(body, end, image.tables);
        else if (marker == 0xDB) fine = read_quantization(body, end, image.tables);
        else if (marker == 0xC0) fine = read_frame(body, end, image);
        else if (marker > 0xC0 && marker < 0xD0 && marker != 0xC8) return NOT_SUPPORTED;
        else if (marker == 0xDD) image.restart = body[0] << 8 | body[1];
        else if (marker == 0xDA) {
            if (!image.samples || !read_scan(body, end, image)) return BAD_JPEG;
            image.data = end;
            image.end = data + length;
            for (int c = 0; c < image.samples; ++c) {
                const Component& p = image.components[c];
                if (!image.tables.quantized[p.quantization] || !image.tables.huffman[0][p.dc].defined ||
                    !image.tables.huffman[1][p.ac].defined)
                    return BAD_JPEG;
            }
            return 0;
        }
        if (!fine) return BAD_JPEG;
        at += 2 + size;
    }
    return BAD_JPEG;
}

// ------------------------------------------------------------------------------- entropy decoding

struct Bits {
    const uint8_t* at;
    const uint8_t* end;
    uint32_t value = 0;
    int have = 0;
    bool failed = false;

    int next() {
        if (have == 0) {
            if (at >= end || (at[0] == 0xFF && (at + 1 >= end || at[1] != 0))) {
                failed = true;
                return 0;
            }
            value = *at;
            at += *at == 0xFF ? 2 : 1;
            have = 8;
        }
        return int(value >> --have) & 1;
    }
    int take(int n) {
        int v = 0;
        while (n-- > 0) v = v << 1 | next();
        return v;
    }
    int extended(int n) {
        const int v = take(n);
        return n && v < 1 << (n - 1) ? v - (1 << n) + 1 : v;
    }
    int symbol(const Huffman& table) {
        int code = 0;
        for (int bits = 1; bits <= 16 && !failed; ++bits) {
            code = code << 1 | next();
            if (code - table.first_code[bits] < table.count[bits])
                return table.symbols[table.first_index[bits] + code - table.first_code[bits]];
        }
        failed = true;
        return 0;
    }
    void restart() {
        have = 0;
        if (end - at < 2 || at[0] != 0xFF || at[1] < 0xD0 || at[1] > 0xD7) failed = true;
        else at += 2;
    }
};

void read_block(Bits& bits, const Image& image, const Component& part, int& last_dc, int* block) {
    const uint16_t* scale = image.tables.quantization[part.quantization];
    std::memset(block, 0, 64 * sizeof *block);
    last_dc += bits.extended(bits.symbol(image.tables.huffman[0][part.dc]) & 15);
    block[0] = last_dc * scale[0];
    for (int i = 1; i < 64 && !bits.failed; ++i) {
        const int symbol = bits.symbol(image.tables.huffman[1][part.ac]);
        if (symbol == 0) break;
        i += symbol >> 4;
        if (i > 63) bits.failed = true;
        else block[ZIGZAG[i]] = bits.extended(symbol & 15) * scale[ZIGZAG[i]];
    }
}

// ------------------------------------------------------------------------------------ inverse DCT

constexpr long F0_298 = 2446, F0_390 = 3196, F0_541 = 4433, F0_765 = 6270, F0_899 = 7373,
               F1_175 = 9633, F1_501 = 12299, F1_847 = 15137, F1_961 = 16069, F2_053 = 16819,
               F2_562 = 20995, F3_072 = 25172;

void transform(const long* in, int step, long* out, int shift) {
    const long half = 1L << (shift - 1);
    const long z1 = (in[2 * step] + in[6 * step]) * F0_541;
    const long even2 = z1 - in[6 * step] * F1_847, even3 = z1 + in[2 * step] * F0_765;
    const long even0 = (in[0] + in[4 * step]) << 13, even1 = (in[0] - in[4 * step]) << 13;
    const long sums[4] = {even0 + even3, even1 + even2, even1 - even2, even0 - even3};
    long odd[4] = {in[7 * step], in[5 * step], in[3 * step], in[step]};
    const long z5 = (odd[0] + odd[2] + odd[1] + odd[3]) * F1_175;
    const long a = -(odd[0] + odd[3]) * F0_899, b = -(odd[1] + odd[2]) * F2_562;
    const long c = z5 - (odd[0] + odd[2]) * F1_961, d = z5 - (odd[1] + odd[3]) * F0_390;
    odd[0] = odd[0] * F0_298 + a + c;
    odd[1] = odd[1] * F2_053 + b + d;
    odd[2] = odd[2] * F3_072 + b + c;
    odd[3] = odd[3] * F1_501 + a + d;
    for (int i = 0; i < 4; ++i) {
        out[i * step] = (sums[i] + odd[3 - i] + half) >> shift;
        out[(7 - i) * step] = (sums[i] - odd[3 - i] + half) >> shift;
    }
}

void inverse_dct(const int* block, uint8_t* samples) {
    long work[64], out[64];
    for (int i = 0; i < 64; ++i) work[i] = block[i];
    for (int x = 0; x < 8; ++x) transform(work + x, 8, out + x, 13 - 2);
    for (int y = 0; y < 8; ++y) transform(out + 8 * y, 1, work + 8 * y, 13 + 2 + 3);
    for (int i = 0; i < 64; ++i) {
        const long value = work[i] + 128;
        samples[i] = uint8_t(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

// ---------------------------------------------------------------------------------------- images

struct Plane {
    uint8_t* target;
    size_t pitch;
    int width, height;
};

void write_block(const Plane& plane, int x, int y, const uint8_t* samples) {
    for (int row = 0; row < 8 && y + row < plane.height; ++row)
        for (int column = 0; column < 8 && x + column < plane.width; ++column)
            plane.target[size_t(y + row) * plane.pitch + size_t(x + column)] = samples[8 * row + column];
}

void decode(const Image& image, const nvjpegImage_t& target) {
    int across = 1, down = 1, block[64];
    for (int c = 0; c < image.samples; ++c) {
        if (image.components[c].across > across) across = image.components[c].across;
        if (image.components[c].down > down) down = image.components[c].down;
    }
    Plane planes[4];
    for (int c = 0; c < image.samples; ++c) {
        const Component& part = image.components[c];
        planes[c] = {target.channel[c], target.pitch[c], (image.width * part.across + across - 1) / across,
                     (image.height * part.down + down - 1) / down};
    }
    const bool alone = image.samples == 1;  // A.2.2: one component is not interleaved
    const int unit_w = alone ? 8 : 8 * across, unit_h = alone ? 8 : 8 * down;
    const int columns = (image.width + unit_w - 1) / unit_w, rows = (image.height + unit_h - 1) / unit_h;
    Bits bits{image.data, image.end};
    int last_dc[4] = {};
    uint8_t samples[64];
    for (int unit = 0; unit < columns * rows; ++unit) {
        if (image.restart && unit && unit % image.restart == 0) {
            bits.restart();
            std::memset(last_dc, 0, sizeof last_dc);
        }
        for (int c = 0; c < image.samples; ++c) {
            const Component& part = image.components[c];
            const int nx = alone ? 1 : part.across, ny = alone ? 1 : part.down;
            for (int i = 0; i < nx * ny; ++i) {
                read_block(bits, image, part, last_dc[c], block);
                if (bits.failed) return;
                inverse_dct(block, samples);
                write_block(planes[c], (unit % columns * nx + i % nx) * 8,
                            (unit / columns * ny + i / nx) * 8, samples);
            }
        }
    }
}

struct State {
    Tables tables;
    int batch = 0;
};

struct Handle {
    int backend;
};

struct Job {
    std::vector<Image> images;
    std::vector<nvjpegImage_t> targets;
};

void (*queue)(cudaStream_t, void*) = nullptr;
bool has_engine = true, skips = false;
int calls[2] = {};

}  // namespace

extern "C" {

// What the tests set and ask.
void emulate_queue(void (*function)(cudaStream_t, void*)) { queue = function; }
void emulate_engine(int there, int skips_images) {
    has_engine = there != 0;
    skips = skips_images != 0;
}
int emulate_calls(int hardware) { return calls[hardware]; }
void emulate_run(void* pointer) {
    std::unique_ptr<Job> job(static_cast<Job*>(pointer));
    for (size_t i = 0; i < job->images.size(); ++i)
        if (!(skips && i == 1)) decode(job->images[i], job->targets[i]);
}

nvjpegStatus_t NVJPEGAPI nvjpegGetProperty(libraryPropertyType type, int* value) {
    *value = type == 0 ? 13 : 3;
    return nvjpegStatus_t(0);
}

nvjpegStatus_t NVJPEGAPI nvjpegCreateEx(nvjpegBackend_t backend, nvjpegDevAllocator_t*,
                                        nvjpegPinnedAllocator_t*, unsigned int flags,
                                        nvjpegHandle_t* handle) {
    if (flags || (backend != HARDWARE && backend != GPU_HYBRID)) return nvjpegStatus_t(INVALID);
    if (backend == HARDWARE && !has_engine) return nvjpegStatus_t(ARCH_MISMATCH);
    *handle = reinterpret_cast<nvjpegHandle_t>(new Handle{int(backend)});
    return nvjpegStatus_t(0);
}

nvjpegStatus_t NVJPEGAPI nvjpegDestroy(nvjpegHandle_t handle) {
    delete reinterpret_cast<Handle*>(handle);
    return nvjpegStatus_t(0);
}

nvjpegStatus_t NVJPEGAPI nvjpegJpegStateCreate(nvjpegHandle_t, nvjpegJpegState_t* state) {
    *state = reinterpret_cast<nvjpegJpegState_t>(new State);
    return nvjpegStatus_t(0);
}

nvjpegStatus_t NVJPEGAPI nvjpegJpegStateDestroy(nvjpegJpegState_t state) {
    delete reinterpret_cast<State*>(state);
    return nvjpegStatus_t(0);
}

nvjpegStatus_t NVJPEGAPI nvjpegDecodeBatchedParseJpegTables(nvjpegHandle_t, nvjpegJpegState_t state,
                                                            const unsigned char* data,
                                                            const size_t length) {
    State& own = *reinterpret_cast<State*>(state);
    own.tables = Tables();
    if (!data) return nvjpegStatus_t(INVALID);  // nvjpeg.h does not say what nothing means
    if (length < 4 || data[length - 2] != 0xFF || data[length - 1] != 0xD9) return nvjpegStatus_t(BAD_JPEG);
    std::vector<uint8_t> padded(data, data + length - 2);
    padded.insert(padded.end(), {0xFF, 0xFE, 0, 2});  // an empty comment, so that the walk ends well
    Image image;
    parse(padded.data(), padded.size(), image);
    own.tables = image.tables;
    return nvjpegStatus_t(0);
}

nvjpegStatus_t NVJPEGAPI nvjpegDecodeBatchedInitialize(nvjpegHandle_t, nvjpegJpegState_t state,
                                                       int batch_size, int threads,
                                                       nvjpegOutputFormat_t format) {
    if (batch_size < 1 || threads < 1 || format != 0) return nvjpegStatus_t(INVALID);
    reinterpret_cast<State*>(state)->batch = batch_size;
    return nvjpegStatus_t(0);
}

nvjpegStatus_t NVJPEGAPI nvjpegDecodeBatched(nvjpegHandle_t handle, nvjpegJpegState_t state,
                                             const unsigned char* const* data, const size_t* lengths,
                                             nvjpegImage_t* destinations, cudaStream_t stream) {
    State& own = *reinterpret_cast<State*>(state);
    const bool hardware = reinterpret_cast<Handle*>(handle)->backend == HARDWARE;
    ++calls[hardware];
    auto job = std::make_unique<Job>();
    if (own.batch < 1) return nvjpegStatus_t(INVALID);
    for (int i = 0; i < own.batch; ++i) {
        Image image;
        image.tables = own.tables;
        if (const int status = parse(data[i], lengths[i], image)) return nvjpegStatus_t(status);
        if (hardware && image.samples == 4) return nvjpegStatus_t(NOT_SUPPORTED);
        for (int c = 0; c < image.samples; ++c)
            if (!destinations[i].channel[c]) return nvjpegStatus_t(INVALID);
        job->images.push_back(image);
        job->targets.push_back(destinations[i]);
    }
    queue(stream, job.release());
    return nvjpegStatus_t(0);
}

}  // extern "C"
