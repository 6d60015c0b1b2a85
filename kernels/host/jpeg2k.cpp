// See jpeg2k.h. Spec: ITU-T T.800. Code-blocks that the wanted pixels do not depend on are not
// decoded: damage in them is not noticed, as none inside a code-block is: there is no checksum.

#include "jpeg2k.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "files.h"
#include "jpeg2k_blocks.h"
#include "jpeg2k_packets.h"
#include "jpeg2k_wavelet.h"

namespace zarrgpu {
namespace {

// What a thread uses again for the next image.
struct Memory {
    Packets packets;
    Block block;
    std::vector<uint8_t> bytes;  // of one code-block
    Scratch planes;
};
thread_local std::unique_ptr<Memory> memory;

struct Area {
    Interval columns, rows;
};

bool meets(Interval interval, int first, int size) {
    return first < interval.end && first + size > interval.first;
}

// Coefficients as they are transformed: times half a quantisation step, or halved.
struct Dequantise {
    float step;
    float operator()(int32_t value) const { return static_cast<float>(value) * step; }
};
struct Halve {
    int32_t operator()(int32_t value) const { return value / 2; }
};

template <typename T, typename Convert>
void write_block(const Block& block, int width, int height, T* to, int stride, Convert convert) {
    for (int y = 0; y < height; y++) {
        const int32_t* from = block.values + (y / 4) * width * 4 + y % 4;
        T* row = to + static_cast<int64_t>(y) * stride;
        for (int x = 0; x < width; x++) row[x] = convert(from[4 * x]);
    }
}

template <typename T, typename Convert>
void decode_band(Memory& own, const SubBand& band, Area needs, T* to, int stride, Convert convert) {
    for (int i = 0; i < band.across * band.down; i++) {
        const CodeBlock& code = own.packets.blocks[band.first_block + i];
        T* corner = to + static_cast<int64_t>(code.y) * stride + code.x;
        if (!code.passes || !meets(needs.columns, code.x, code.width) ||
            !meets(needs.rows, code.y, code.height)) {
            for (int y = 0; y < code.height; y++) {
                memset(corner + static_cast<int64_t>(y) * stride, 0, code.width * sizeof(T));
            }
            continue;
        }
        own.bytes.clear();
        for (int part = code.first_part; part >= 0; part = own.packets.parts[part].next) {
            const Part& piece = own.packets.parts[part];
            own.bytes.insert(own.bytes.end(), piece.bytes, piece.bytes + piece.nbytes);
        }
        own.bytes.insert(own.bytes.end(), BLOCK_GUARD_NBYTES, 0xFF);
        decode_block(own.block, code.width, code.height, band.kind, own.bytes.data(), code.planes,
                     code.passes);
        write_block(own.block, code.width, code.height, corner, stride, convert);
    }
}

void convert_band(Memory& own, const SubBand& band, Area needs, float* to, int stride) {
    // E-3 with the gains of the sub-bands in the wavelet's constants, as OpenJPEG has it
    const double step = (1.0 + band.mantissa / 2048.0) * std::pow(2.0, 8 - band.exponent);
    decode_band(own, band, needs, to, stride, Dequantise{0.5f * static_cast<float>(step)});
}
void convert_band(Memory& own, const SubBand& band, Area needs, int32_t* to, int stride) {
    decode_band(own, band, needs, to, stride, Halve{});
}

// Memory for one component, but for its samples: coefficients, samples of the level before, a row.
template <typename T>
struct Rooms {
    Plane<T> details, other;
    T* row;
};

// Bands are joined from the lowest resolution on, into `plane` and the other one in turn.
template <typename T>
void decode_component(Memory& own, int component, Area area, Plane<T> plane, Rooms<T> rooms) {
    Packets& packets = own.packets;
    const int levels = packets.coding.levels;
    Area wanted[MAX_LEVELS + 1], needs[MAX_LEVELS + 1];  // by resolution: samples; of sub-bands
    wanted[levels] = area;
    for (int r = levels; r > 0; r--) {
        needs[r] = {wavelet_needs(wanted[r].columns, packets.width_at(component, r)),
                    wavelet_needs(wanted[r].rows, packets.height_at(component, r))};
        wanted[r - 1] = needs[r];
    }
    needs[0] = wanted[0];
    Plane<T> low = levels % 2 ? rooms.other : plane;
    convert_band(own, *packets.bands_of(component, 0), needs[0], low.samples, low.stride);
    for (int r = 1; r <= levels; r++) {
        const SubBand* bands = packets.bands_of(component, r);
        for (int b = 0; b < Packets::bands_at(r); b++) {
            T* to = rooms.details.row(bands[b].kind & 2 ? packets.height_at(component, r - 1) : 0);
            if (bands[b].kind & 1) to += packets.width_at(component, r - 1);
            convert_band(own, bands[b], needs[r], to, rooms.details.stride);
        }
        const Plane<T> joined = (levels - r) % 2 ? rooms.other : plane;
        join_bands(low, rooms.details, joined, packets.width_at(component, r),
                   packets.height_at(component, r), wanted[r].rows, wanted[r].columns, rooms.row);
        low = joined;
    }
}

template <typename T>
void write_pixels(const Plane<T> planes[], const Coding& coding, Area area, bool is_ycbcr,
                  uint8_t* dst) {
    const int first = area.columns.first, count = area.columns.end - first;
    for (int y = area.rows.first; y < area.rows.end; y++) {
        const T* at[MAX_SAMPLES];
        for (int s = 0; s < coding.samples; s++) at[s] = planes[s].row(y) + first;
        uint8_t* pixels = dst + int64_t{first} * coding.samples;
        to_pixels(at, coding.samples, coding.component_transform, count, pixels);
        if (is_ycbcr) ycbcr_to_rgb(pixels, count);
        dst += int64_t{coding.width} * coding.samples;
    }
}

// The same of YCbCr whose chroma is shared by two columns.
template <typename T>
void write_subsampled(const Plane<T> planes[], const Coding& coding, Area area, uint8_t* dst) {
    constexpr int MOST = 256;
    uint8_t bytes[3][MOST];
    for (int y = area.rows.first; y < area.rows.end; y++, dst += int64_t{coding.width} * 3) {
        for (int x = area.columns.first, end; x < area.columns.end; x = end) {
            end = std::min(area.columns.end, (x | (MOST - 1)) + 1);
            for (int s = 0; s < 3; s++) {
                const int first = s ? x / 2 : x, last = s ? (end - 1) / 2 : end - 1;
                const T* at = planes[s].row(s ? y / coding.chroma_rows : y) + first;
                to_pixels(&at, 1, false, last + 1 - first, bytes[s]);
            }
            subsampled_to_rgb(bytes[0], bytes[1], bytes[2], x % 2, end - x, dst + int64_t{3} * x);
        }
    }
}

Interval shared(Interval pixels, int by) { return {pixels.first / by, (pixels.end - 1) / by + 1}; }

template <typename T>
bool decode_as(Memory& own, Area area, bool is_ycbcr, uint8_t* dst) {
    const Coding& coding = own.packets.coding;
    const int64_t area_size = int64_t{coding.width} * coding.height;
    const int64_t other_size = coding.width * ((int64_t{coding.height} + 1) / 2);
    const int64_t all_size = (coding.samples + 1) * area_size + other_size + coding.width;
    constexpr uintptr_t LINE = 64;  // of the cache: vectors across two cost twice
    uint8_t* raw = own.planes.room(all_size * sizeof(T) + LINE - 1);
    if (!raw) return false;
    T* next = reinterpret_cast<T*>(raw + (-reinterpret_cast<uintptr_t>(raw) & (LINE - 1)));
    const Area chroma{shared(area.columns, coding.chroma_columns),
                      shared(area.rows, coding.chroma_rows)};
    Plane<T> planes[MAX_SAMPLES];
    for (int s = 0; s < coding.samples; s++, next += area_size) planes[s] = {next, coding.width};
    const Rooms<T> rooms{
        {next, coding.width}, {next + area_size, coding.width}, next + area_size + other_size};
    for (int s = 0; s < coding.samples; s++) {
        decode_component(own, s, s ? chroma : area, planes[s], rooms);
    }
    if (coding.chroma_columns > 1) {
        write_subsampled(planes, coding, area, dst);
    } else {
        write_pixels(planes, coding, area, is_ycbcr, dst);
    }
    return true;
}

bool decode(const Image& image, const uint8_t* src, int64_t src_nbytes, Area area, uint8_t* dst) {
    if (!memory) memory = std::make_unique<Memory>();
    if (!read_packets(image, src, src_nbytes, memory->packets)) return false;
    const bool is_ycbcr = image.color_space && image.samples == 3;
    return memory->packets.coding.reversible ? decode_as<int32_t>(*memory, area, is_ycbcr, dst)
                                             : decode_as<float>(*memory, area, is_ycbcr, dst);
}

}  // namespace

bool decode_jpeg2k(const Image& image, const uint8_t* src, int64_t src_nbytes, int64_t first,
                   int64_t count, Columns columns, uint8_t* dst) {
    const Area area{{static_cast<int>(columns.first), static_cast<int>(columns.end)},
                    {static_cast<int>(first), static_cast<int>(first + count)}};
    try {
        return decode(image, src, src_nbytes, area, dst);
    } catch (const std::bad_alloc&) {
        memory.reset();
        return false;
    }
}

void keep_jpeg2k_memory(int64_t nbytes) {
    if (!memory) return;
    memory->planes.keep_at_most(nbytes);
    const Packets& packets = memory->packets;
    const int64_t rest =
        nbytes_of(packets.blocks) + nbytes_of(packets.parts) + nbytes_of(memory->bytes);
    if (rest > nbytes) memory.reset();
}

}  // namespace zarrgpu
