// See jpeg2k_packets.h. Spec: ITU-T T.800, annexes A (markers) and B (packets).
//
// Read are codestreams of one tile that begins at the origin, in one tile-part, of components of 8
// bits, of one size or YCbCr of 4:2:2 or 4:2:0, with the same coding for all, one precinct for each
// resolution, and no options of the code-block coder: what scanners write. A header that is anything
// else is not for here.

#include "jpeg2k_packets.h"

#include <algorithm>

#include "big_endian.h"

namespace zarrgpu {
namespace {

constexpr int MAX_SIDE = 1 << 13;
constexpr int MAX_LAYERS = 64;
constexpr int MAX_PASSES = 109;  // OpenJPEG begins a segment of its own then
constexpr int MAX_PLANES = 30;
constexpr int MAX_LENGTH_BITS = 31;
constexpr int64_t MAX_CODE_BLOCKS = 1 << 16;

enum Marker {
    SOC = 0xFF4F,
    SIZ = 0xFF51,
    COD = 0xFF52,
    TLM = 0xFF55,
    PLT = 0xFF58,
    QCD = 0xFF5C,
    COM = 0xFF64,
    SOT = 0xFF90,
    SOD = 0xFF93,
};

bool read_size(const uint8_t* body, int64_t nbytes, const Image& image, Coding& coding) {
    const int64_t width = image.width, height = image.height, samples = image.samples;
    if (samples < 1 || samples > MAX_SAMPLES || nbytes != 36 + 3 * samples) return false;
    if (width > MAX_SIDE || height > MAX_SIDE) return false;
    if (body[0] & 0xC0) return false;  // extensions, such as high-throughput coding
    if (big32(body + 2) != width || big32(body + 6) != height) return false;
    if (big32(body + 10) || big32(body + 14) || big32(body + 26) || big32(body + 30)) return false;
    if (big32(body + 18) < width || big32(body + 22) < height) return false;
    if (big16(body + 34) != samples) return false;
    const uint8_t* components = body + 36;  // depth, columns and rows of each
    const uint8_t* others = components + (samples > 1 ? 3 : 0);
    if (components[1] != 1 || components[2] != 1) return false;
    for (int64_t i = 0; i < samples; i++) {
        if (components[3 * i] != 7) return false;
        if (i && (components[3 * i + 1] != others[1] || components[3 * i + 2] != others[2])) {
            return false;
        }
    }
    if (others[1] < 1 || others[1] > 2 || others[2] < 1 || others[2] > others[1]) return false;
    if (others[1] == 2 && (samples != 3 || !image.color_space)) return false;
    coding.chroma_columns = others[1];
    coding.chroma_rows = others[2];
    coding.width = static_cast<int>(width);
    coding.height = static_cast<int>(height);
    coding.samples = static_cast<int>(samples);
    return true;
}

// Whether each resolution has one precinct, no smaller than a code-block (B.6, B.7).
bool are_single(const uint8_t* precincts, const Coding& coding) {
    for (int r = 0; r <= coding.levels; r++) {
        const int across = precincts[r] & 15, down = precincts[r] >> 4, halved = r ? 1 : 0;
        const int shift = coding.levels - r, round = (1 << shift) - 1;
        if ((coding.width + round) >> shift > 1 << across) return false;
        if ((coding.height + round) >> shift > 1 << down) return false;
        if (coding.block_width > 1 << across >> halved) return false;
        if (coding.block_height > 1 << down >> halved) return false;
    }
    return true;
}

bool read_style(const uint8_t* body, int64_t nbytes, Coding& coding) {
    if (nbytes < 10 || body[0] > 1) return false;  // with markers between packets
    coding.progression = body[1];
    coding.layers = big16(body + 2);
    coding.component_transform = body[4];
    coding.levels = body[5];
    if (body[6] > 8 || body[7] > 8) return false;
    coding.block_width = 4 << body[6];
    coding.block_height = 4 << body[7];
    coding.reversible = body[9];
    const bool good = coding.progression <= 4 && coding.layers >= 1 &&
                      coding.layers <= MAX_LAYERS && body[4] <= 1 &&
                      (!body[4] || (coding.samples == 3 && coding.chroma_columns == 1)) &&
                      coding.levels <= MAX_LEVELS &&
                      coding.block_width <= BLOCK_SIDE && coding.block_height <= BLOCK_SIDE &&
                      !body[8] && body[9] <= 1;
    if (!good || nbytes != 10 + (body[0] ? coding.levels + 1 : 0)) return false;
    return !body[0] || are_single(body + 10, coding);
}

bool read_quantisation(const uint8_t* body, int64_t nbytes, Coding& coding) {
    const int style = body[0] & 31, bands = 3 * coding.levels + 1;
    coding.guard_bits = body[0] >> 5;
    if (coding.reversible != (style == 0) || style > 2) return false;
    const int64_t needs = style == 0 ? bands : style == 1 ? 2 : 2 * bands;
    if (nbytes != 1 + needs) return false;
    for (int i = 0; i < bands; i++) {
        const uint8_t* at = body + 1 + (style == 0 ? i : style == 1 ? 0 : 2 * i);
        coding.exponent[i] = at[0] >> 3;
        coding.mantissa[i] = style ? (at[0] & 7) << 8 | at[1] : 0;
        if (style == 1 && i > 0) {  // E.5: one step for all, by level
            coding.exponent[i] = std::max(coding.exponent[0] - (i - 1) / 3, 0);
        }
    }
    return true;
}

// Whether a list of lengths is whole (A.7.1, A.7.3): OpenJPEG refuses others, and uses neither.
bool is_whole_list(int64_t marker, const uint8_t* body, int64_t nbytes) {
    if (marker == PLT) return nbytes < 2 || body[nbytes - 1] < 0x80;
    if (nbytes < 2) return false;
    const int number = body[1] >> 4 & 3, length = body[1] & 0x40 ? 4 : 2;
    return number < 3 && (nbytes - 2) % (number + length) == 0;
}

// Where the packets begin; 0 for what is not decoded here. `end` is where they end.
int64_t read_headers(const Image& image, const uint8_t* src, int64_t src_nbytes, Coding& coding,
                     int64_t& end) {
    if (src_nbytes < 4 || big16(src) != SOC) return 0;
    bool sized = false, styled = false, quantised = false;
    int64_t at = 2;
    end = 0;  // known from the tile-part's header on
    while (at + 4 <= src_nbytes) {
        const int64_t marker = big16(src + at), size = big16(src + at + 2);
        if (marker == SOD) return end > at + 2 ? at + 2 : 0;
        const uint8_t* body = src + at + 4;
        const int64_t nbytes = size - 2;
        if (nbytes < 1 || at + 2 + size > src_nbytes) return 0;
        if (marker == SIZ && at == 2) {
            sized = read_size(body, nbytes, image, coding);
            if (!sized) return 0;
        } else if (marker == COD && sized && !styled && !end) {
            styled = read_style(body, nbytes, coding);
            if (!styled) return 0;
        } else if (marker == QCD && styled && !quantised && !end) {
            quantised = read_quantisation(body, nbytes, coding);
            if (!quantised) return 0;
        } else if (marker == SOT && quantised && !end) {
            if (nbytes != 8 || big16(body) || body[6] || body[7] > 1) return 0;
            const int64_t part = big32(body + 2);
            if (part < 14 || part > src_nbytes - at) return 0;
            end = at + part;
            if (end + 2 <= src_nbytes && big16(src + end) == SOT) return 0;
        } else if (marker == (end ? PLT : TLM)) {
            if (!is_whole_list(marker, body, nbytes)) return 0;
        } else if (marker != COM) {
            return 0;
        }
        at += 2 + size;
    }
    return 0;
}

// Bits of packet headers: after a byte of ones the next has seven (B.10.1).
class Bits {
   public:
    Bits(const uint8_t* at, const uint8_t* end) : at_(at), end_(end) {}
    int one() {
        if (!left_) next();
        return byte_ >> --left_ & 1;
    }
    int64_t many(int count) {
        int64_t value = 0;
        while (count--) value = value << 1 | one();
        return value;
    }
    // Where the header ends; null if it went on behind the end.
    const uint8_t* finish() {
        if (byte_ == 0xFF) next();
        return over_ ? nullptr : at_;
    }
    bool over() const { return over_; }

   private:
    void next() {
        left_ = byte_ == 0xFF ? 7 : 8;
        over_ |= at_ == end_;
        byte_ = at_ == end_ ? 0 : *at_++;
    }
    const uint8_t* at_;
    const uint8_t* end_;
    int byte_ = 0, left_ = 0;
    bool over_ = false;
};

// Table B.4.
int num_passes(Bits& bits) {
    if (!bits.one()) return 1;
    if (!bits.one()) return 2;
    int64_t more = bits.many(2);
    if (more < 3) return static_cast<int>(3 + more);
    more = bits.many(5);
    if (more < 31) return static_cast<int>(6 + more);
    return static_cast<int>(37 + bits.many(7));
}

int floor_log2(int value) { return 31 - __builtin_clz(static_cast<unsigned>(value)); }

// Bytes that a packet has of one code-block, and its coding passes; -1 for what is not decoded here.
int64_t read_contribution(Bits& bits, SubBand& band, int number, int layer, CodeBlock& block,
                          int& passes) {
    passes = 0;
    if (block.planes) {
        if (!bits.one()) return 0;
    } else {
        if (!band.included.below(bits, number, layer + 1)) return 0;
        int empty = 0;
        while (!band.empty_planes.below(bits, number, empty + 1)) {
            if (++empty >= band.planes || bits.over()) return -1;
        }
        block.planes = band.planes - empty;
        block.length_bits = 3;
        if (block.planes < 1 || block.planes > MAX_PLANES) return -1;
    }
    passes = num_passes(bits);
    while (bits.one()) {
        if (++block.length_bits > MAX_LENGTH_BITS) return -1;
    }
    const int width = block.length_bits + floor_log2(passes);
    if (width > MAX_LENGTH_BITS || block.passes + passes > MAX_PASSES) return -1;
    return bits.many(width);
}

// One packet: a layer of one resolution of one component.
bool read_packet(Packets& packets, int layer, int resolution, int component, const uint8_t*& at,
                 const uint8_t* end) {
    Bits bits(at, end);
    const size_t first_part = packets.parts.size();
    SubBand* bands = packets.bands_of(component, resolution);
    if (bits.one()) {
        for (int b = 0; b < Packets::bands_at(resolution); b++) {
            SubBand& band = bands[b];
            for (int number = 0; number < band.across * band.down; number++) {
                const int place = band.first_block + number;
                CodeBlock& block = packets.blocks[place];
                int passes;
                const int64_t nbytes =
                    read_contribution(bits, band, number, layer, block, passes);
                if (nbytes < 0 || bits.over()) return false;
                if (!passes) continue;
                block.passes += passes;
                block.nbytes += nbytes;
                const int part = static_cast<int>(packets.parts.size());
                packets.parts.push_back({nullptr, nbytes, -1});
                (block.last_part < 0 ? block.first_part
                                     : packets.parts[block.last_part].next) = part;
                block.last_part = part;
            }
        }
    }
    at = bits.finish();
    if (!at) return false;
    for (size_t i = first_part; i < packets.parts.size(); i++) {
        Part& part = packets.parts[i];
        if (part.nbytes > end - at) return false;
        part.bytes = at;
        at += part.nbytes;
    }
    return true;
}

bool lay_out(Packets& packets) {
    const Coding& coding = packets.coding;
    packets.bands.resize(coding.samples * (3 * coding.levels + 1));
    packets.blocks.clear();
    packets.parts.clear();
    for (int component = 0; component < coding.samples; component++) {
        for (int resolution = 0; resolution <= coding.levels; resolution++) {
            const int width = packets.width_at(component, resolution);
            const int height = packets.height_at(component, resolution);
            const int lower = resolution ? resolution - 1 : 0;
            const int low_width = packets.width_at(component, lower);
            const int low_height = packets.height_at(component, lower);
            SubBand* bands = packets.bands_of(component, resolution);
            for (int b = 0; b < Packets::bands_at(resolution); b++) {
                SubBand& band = bands[b];
                const int kind = resolution ? b + 1 : 0;
                const int number = resolution ? 3 * resolution - 2 + b : 0;
                band.kind = static_cast<Band>(kind);
                band.width = kind & 1 ? width - low_width : low_width;
                band.height = kind & 2 ? height - low_height : low_height;
                band.exponent = coding.exponent[number];
                band.mantissa = coding.mantissa[number];
                band.planes = band.exponent + coding.guard_bits - 1;
                const bool none = band.width == 0 || band.height == 0;
                band.across = none ? 0 : (band.width - 1) / coding.block_width + 1;
                band.down = none ? 0 : (band.height - 1) / coding.block_height + 1;
                band.first_block = static_cast<int>(packets.blocks.size());
                if (band.first_block + int64_t{band.across} * band.down > MAX_CODE_BLOCKS) {
                    return false;
                }
                band.included.reset(band.across, band.down);
                band.empty_planes.reset(band.across, band.down);
                for (int i = 0; i < band.across * band.down; i++) {
                    const int x = i % band.across * coding.block_width;
                    const int y = i / band.across * coding.block_height;
                    packets.blocks.push_back({x, y, std::min(coding.block_width, band.width - x),
                                              std::min(coding.block_height, band.height - y), 0, 0,
                                              0, -1, -1, 0});
                }
            }
        }
    }
    return true;
}

}  // namespace

void TagTree::reset(int width, int height) {
    nodes_.clear();
    if (!width || !height) return;
    for (int first = 0;;) {
        const int above = first + width * height;
        const bool root = width == 1 && height == 1;
        for (int i = 0; i < width * height; i++) {
            const int parent = above + i / width / 2 * ((width + 1) / 2) + i % width / 2;
            nodes_.push_back({root ? -1 : parent, INT32_MAX, 0});
        }
        if (root) return;
        first = above;
        width = (width + 1) / 2;
        height = (height + 1) / 2;
    }
}

template <typename Bits>
bool TagTree::below(Bits& bits, int leaf, int limit) {
    int path[32], n = 0;
    for (int node = leaf; node >= 0; node = nodes_[node].parent) path[n++] = node;
    int least = 0;
    while (n--) {
        Node& node = nodes_[path[n]];
        least = std::max(least, node.least);
        while (least < limit && least < node.value) {
            if (bits.one()) {
                node.value = least;
            } else {
                least++;
            }
        }
        node.least = least;
    }
    return nodes_[leaf].value < limit;
}

bool read_packets(const Image& image, const uint8_t* src, int64_t src_nbytes, Packets& packets) {
    Coding& coding = packets.coding;
    int64_t stop;
    const int64_t start = read_headers(image, src, src_nbytes, coding, stop);
    if (!start || !lay_out(packets)) return false;
    const uint8_t* at = src + start;
    const uint8_t* end = src + stop;
    // B.12: with one precinct for each resolution all positions are the first
    enum Axis { LAYER, RESOLUTION, COMPONENT };
    constexpr Axis ORDER[5][3] = {
        {LAYER, RESOLUTION, COMPONENT}, {RESOLUTION, LAYER, COMPONENT},
        {RESOLUTION, COMPONENT, LAYER}, {COMPONENT, RESOLUTION, LAYER},
        {COMPONENT, RESOLUTION, LAYER},
    };
    const int counts[3] = {coding.layers, coding.levels + 1, coding.samples};
    const Axis* order = ORDER[coding.progression];
    int place[3];
    for (place[order[0]] = 0; place[order[0]] < counts[order[0]]; place[order[0]]++) {
        for (place[order[1]] = 0; place[order[1]] < counts[order[1]]; place[order[1]]++) {
            for (place[order[2]] = 0; place[order[2]] < counts[order[2]]; place[order[2]]++) {
                if (!read_packet(packets, place[LAYER], place[RESOLUTION], place[COMPONENT], at,
                                 end)) {
                    return false;
                }
            }
        }
    }
    return true;
}

}  // namespace zarrgpu
