// The headers of a JPEG 2000 codestream, and which bytes belong to which code-block.

#pragma once

#include <cstdint>
#include <vector>

#include "jpeg2k_blocks.h"
#include "tables.h"

namespace zarrgpu {

constexpr int MAX_LEVELS = 10;
constexpr int MAX_SAMPLES = 4;

// What the main header says (T.800, annex A).
struct Coding {
    int width, height, samples;
    int chroma_columns, chroma_rows;  // pixels that share a sample of any component but the first
    int progression, layers, levels;
    int block_width, block_height;
    bool component_transform;
    bool reversible;
    int guard_bits;
    int exponent[3 * MAX_LEVELS + 1];  // of the quantisation step, by sub-band
    int mantissa[3 * MAX_LEVELS + 1];
};

// Bytes that one packet has of a code-block.
struct Part {
    const uint8_t* bytes;
    int64_t nbytes;
    int next;  // place of the next packet's; -1 for none
};

struct CodeBlock {
    int x, y;  // in its sub-band
    int width, height;
    int planes;  // bit-planes that are not empty; 0 before it is first included
    int passes;
    int length_bits;  // `Lblock`
    int first_part, last_part;
    int64_t nbytes;
};

// A tag tree (B.10.2).
class TagTree {
 public:
    void reset(int width, int height);
    // Read bits until it is known whether a leaf's value is below `limit`.
    template <typename Bits>
    bool below(Bits& bits, int leaf, int limit);

 private:
    struct Node {
        int parent, value, least;
    };
    std::vector<Node> nodes_;
};

struct SubBand {
    Band kind;
    int width, height;
    int across, down;  // code-blocks
    int exponent, mantissa;
    int planes;  // `Mb`
    int first_block;
    TagTree included, empty_planes;
};

// A parsed tile, and memory that is used again for the next.
struct Packets {
    Coding coding;
    std::vector<SubBand> bands;  // by component, resolution and kind
    std::vector<CodeBlock> blocks;
    std::vector<Part> parts;

    // Bands of one resolution: one of the lowest, three of the others.
    static int bands_at(int resolution) { return resolution ? 3 : 1; }
    SubBand* bands_of(int component, int resolution) {
        const int before = resolution ? 3 * resolution - 2 : 0;
        return &bands[component * (3 * coding.levels + 1) + before];
    }
    int width_at(int component, int resolution) const {
        const int shared = component ? coding.chroma_columns : 1;
        return shrunk((coding.width + shared - 1) / shared, resolution);
    }
    int height_at(int component, int resolution) const {
        const int shared = component ? coding.chroma_rows : 1;
        return shrunk((coding.height + shared - 1) / shared, resolution);
    }

 private:
    int shrunk(int size, int resolution) const {
        const int level = coding.levels - resolution;
        return (size + (1 << level) - 1) >> level;
    }
};

// Whether a codestream is one that is decoded here, of this image, and all its packets are there.
bool read_packets(const Image& image, const uint8_t* src, int64_t src_nbytes, Packets& packets);

}  // namespace zarrgpu
