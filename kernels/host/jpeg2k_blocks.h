// Code-blocks of JPEG 2000: arithmetic decoding of coefficients, bit-plane by bit-plane.

#pragma once

#include <cstdint>

namespace zarrgpu {

constexpr int BLOCK_SIDE = 64;         // widest and highest code-block decoded here
constexpr int BLOCK_GUARD_NBYTES = 2;  // behind the bytes of a code-block, 0xFF each

constexpr int GROUP = 16;                           // columns of which a set has 64 bits
constexpr int SET_STRIDE = BLOCK_SIDE / GROUP + 2;  // sets from one stripe to the next

// Orientation of a sub-band: which of the two directions its high-pass filter ran along.
enum Band { LL = 0, HL = 1, LH = 2, HH = 3 };

// Room for one code-block, used again for the next.
struct Block {
    // Twice the coefficients, the lower half bit-plane set (T.800, E.1.1: r = 1/2), by columns of
    // stripes: row `y`, column `x` at ((y / 4) * width + x) * 4 + y % 4.
    alignas(64) int32_t values[BLOCK_SIDE * BLOCK_SIDE];
    uint32_t flags[(BLOCK_SIDE / 4 + 2) * (BLOCK_SIDE + 2)];
    // sets of coefficients, by stripe and group of columns, with nothing around them
    uint64_t significant[SET_STRIDE * (BLOCK_SIDE / 4 + 2)];
    uint64_t visited[SET_STRIDE * (BLOCK_SIDE / 4 + 2)];  // in the significance pass
    uint64_t refined[SET_STRIDE * (BLOCK_SIDE / 4 + 2)];
};

// Decode `passes` coding passes of a code-block of `width` x `height`, at most BLOCK_SIDE each,
// whose highest bit-plane that is not empty is number `planes` (1 to 30) from the lowest.
// BLOCK_GUARD_NBYTES bytes of 0xFF follow the bytes. Any bytes decode to something.
void decode_block(Block& block, int width, int height, Band band, const uint8_t* bytes, int planes,
                  int passes);

}  // namespace zarrgpu
