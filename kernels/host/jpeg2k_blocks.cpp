// See jpeg2k_blocks.h. Spec: ITU-T T.800, annex D (coefficient bits).
//
// Coefficients are coded by stripes of four rows, column by column. Sixteen columns of a stripe are
// a group, of which sets are held as 64 bits, in the order of coding: bit 4 x + y. So a pass goes
// from one coefficient that it codes to the next, without looking at others.
//
// A word of flags tells of a column of a stripe all that contexts ask for:
//   bits 0 to 17   significance of the 3 x 6 coefficients in and around it, three to a row, west
//                  first; so the nine bits from bit 3 y on are the neighbourhood of row y
//   bits 18 + 2 i  whether row i - 1 is negative, from the row above (i = 0) to the one below (5)

#include "jpeg2k_blocks.h"

#include <cstring>

#include "clones.h"
#include "jpeg2k_mq.h"

namespace zarrgpu {
namespace {

// ---- contexts (annex D)

enum {
    SIGN_CONTEXT = 9,
    REFINE_CONTEXT = 14,
    RUN_CONTEXT = 17,
    UNIFORM_CONTEXT = 18,
    NUM_CONTEXTS
};

struct Tables {
    uint8_t zero[4][512];  // table D.1: by band and neighbourhood
    uint8_t sign[256];     // tables D.2 and D.3: context, and in bit 7 what the bit is flipped by
    uint8_t refine[512];   // table D.4, of a coefficient that was not refined before
};

constexpr int zero_context(int band, int h, int v, int d) {
    if (band == HL) {
        const int swapped = h;
        h = v;
        v = swapped;
    }
    if (band == HH) {
        const int hv = h + v;
        if (d >= 3) return 8;
        if (d == 2) return hv ? 7 : 6;
        if (d == 1) return hv >= 2 ? 5 : hv ? 4 : 3;
        return hv >= 2 ? 2 : hv;
    }
    if (h == 2) return 8;
    if (h == 1) return v ? 7 : d ? 6 : 5;
    if (v == 2) return 4;
    if (v == 1) return 3;
    return d >= 2 ? 2 : d;
}

// Bits 1, 3, 5, 7: whether north, west, east, south are significant; 0, 2, 6, 4: whether negative.
constexpr uint8_t sign_context(int bits) {
    const auto sign = [bits](int significant, int negative) {
        return bits >> significant & 1 ? (bits >> negative & 1 ? -1 : 1) : 0;
    };
    const int across = sign(3, 2) + sign(5, 6), down = sign(1, 0) + sign(7, 4);
    int h = across > 0 ? 1 : across < 0 ? -1 : 0, v = down > 0 ? 1 : down < 0 ? -1 : 0;
    const bool flip = h < 0 || (h == 0 && v < 0);
    if (flip) {
        h = -h;
        v = -v;
    }
    const int context = h == 1 ? 12 + v : 9 + v;
    return static_cast<uint8_t>(context | (flip ? 128 : 0));
}

constexpr Tables make_tables() {
    Tables made{};
    for (int around = 0; around < 512; around++) {
        const auto bit = [around](int i) { return around >> i & 1; };
        const int h = bit(3) + bit(5), v = bit(1) + bit(7);
        const int d = bit(0) + bit(2) + bit(6) + bit(8);
        for (int band = 0; band < 4; band++) {
            made.zero[band][around] = static_cast<uint8_t>(zero_context(band, h, v, d));
        }
        made.refine[around] = static_cast<uint8_t>(REFINE_CONTEXT + (h + v + d > 0));
    }
    for (int bits = 0; bits < 256; bits++) made.sign[bits] = sign_context(bits);
    return made;
}
constexpr Tables TABLES = make_tables();

// ---- sets of the coefficients of a group

constexpr uint64_t EVERY_COLUMN = 0x1111111111111111;  // times rows, as bits 0 to 3

// Bits of those around a coefficient of each row that are coded after it, from its own bit on.
constexpr uint64_t FOLLOWING[4] = {0x32, 0x3A, 0x3A, 0x18};

// What is around those of `set` to the west and east as well, in the groups beside it too.
INLINE uint64_t widened(const uint64_t* set) {
    return set[0] | set[0] << 4 | set[0] >> 4 | set[-1] >> 60 | set[1] << 60;
}

// Coefficients that are, or have beside them, one of the set.
INLINE uint64_t grown(const uint64_t* set) {
    const uint64_t own = widened(set);
    const uint64_t above = widened(set - SET_STRIDE), below = widened(set + SET_STRIDE);
    return own | (own << 1 & 14 * EVERY_COLUMN) | (own >> 1 & 7 * EVERY_COLUMN) |
           (above >> 3 & EVERY_COLUMN) | (below << 3 & 8 * EVERY_COLUMN);
}

// Whole columns that have none of the set in or around them.
INLINE uint64_t empty_columns(const uint64_t* set) {
    uint64_t any = widened(set) | (widened(set - SET_STRIDE) >> 3 & EVERY_COLUMN) |
                   (widened(set + SET_STRIDE) & EVERY_COLUMN);
    any |= any >> 2;
    return ~(((any | any >> 1) & EVERY_COLUMN) * 15);
}

// What the passes over a code-block share.
struct Coder {
    Decoder mq;
    Context contexts[NUM_CONTEXTS];
    const uint8_t* zero;
    int stride;  // words of flags from one stripe to the next
};

// One group: its places in the block, and the coefficients that there are.
struct Group {
    uint32_t* flags;
    int32_t* values;
    uint64_t* significant;
    uint64_t* visited;
    uint64_t* refined;
    uint64_t there;
};

template <typename Visit>
INLINE void each_group(Block& block, int width, int height, int stride, Visit visit) {
    for (int y = 0; y < height; y += 4) {
        const int rows = height - y >= 4 ? 15 : (1 << (height - y)) - 1;
        uint32_t* flags = block.flags + (y / 4 + 1) * stride + 1;
        for (int x = 0; x < width; x += GROUP) {
            const int last = width - x < GROUP ? width - x : GROUP;
            const int set = (y / 4 + 1) * SET_STRIDE + 1 + x / GROUP;
            visit(Group{flags + x, block.values + y * width + 4 * x, block.significant + set,
                        block.visited + set, block.refined + set,
                        rows * (EVERY_COLUMN >> (64 - 4 * last))});
        }
    }
}

INLINE uint32_t neighbours(const uint32_t* flags, int p) {
    return flags[p >> 2] >> 3 * (p & 3) & 511;
}

// The first coefficient of a set, and its context as long as nothing around it changes. It is
// looked up while the one before it is decoded, whose outcome the processor foresees badly.
struct Next {
    int p;
    Context* context;
};
INLINE Next first_of(uint64_t set, Coder& coder, const uint32_t* flags) {
    const int p = __builtin_ctzll(set | uint64_t{1} << 63);
    Context* context = coder.contexts + coder.zero[neighbours(flags, p)];
    __asm__ volatile("" : "+r"(context));  // here, not where it is used
    return {p, context};
}

// Decode the sign of coefficient `p`, which is significant from now on, and tell those around it.
INLINE uint32_t become_significant(Decoder& mq, Coder& coder, uint32_t* flags, int p) {
    uint32_t* at = flags + (p >> 2);
    const int y = p & 3;
    const uint32_t west = at[-1], east = at[1], word = *at;
    const uint32_t index = (word >> 3 * y & 0xAA) | (word >> (18 + 2 * y) & 0x11) |
                           (west >> (20 + 2 * y) & 1) << 2 | (east >> (20 + 2 * y) & 1) << 6;
    const uint8_t told = TABLES.sign[index];
    const uint32_t negative = mq.decode(coder.contexts[told & 127]) ^ told >> 7;
    at[-1] = west | 32u << 3 * y;
    at[1] = east | 8u << 3 * y;
    at[0] = word | 16u << 3 * y | negative << (20 + 2 * y);
    // without branches, which would be foreseen badly: often nothing is added here
    const uint32_t first = y == 0, last = y == 3;
    uint32_t* above = at - coder.stride;
    above[-1] |= first << 17;
    above[0] |= first << 16 | (negative & first) << 28;
    above[1] |= first << 15;
    uint32_t* below = at + coder.stride;
    below[-1] |= last << 2;
    below[0] |= last << 1 | (negative & last) << 18;
    below[1] |= last;
    return negative;
}

// Passes keep the decoder apart from its contexts, and all in one function: in registers.
#define PASS CLONES("bmi2")
#define ALL_INLINE __attribute__((always_inline))

// D.3.1: coefficients with a significant one around.
PASS void significance_pass(Coder& coder, Block& block, int width, int height, int plane) {
    Decoder mq = coder.mq;
    const int32_t value = 3 << (plane - 1);
    each_group(block, width, height, coder.stride, [&](Group group) ALL_INLINE {
        uint64_t own = *group.significant;
        uint64_t left = grown(group.significant) & ~own & group.there;
        *group.visited = left;
        if (!left) return;
        Next next = first_of(left, coder, group.flags);
        while (left) {
            const Next now = next;
            left &= left - 1;
            next = first_of(left, coder, group.flags);
            if (!mq.decode(*now.context)) continue;
            const uint32_t negative = become_significant(mq, coder, group.flags, now.p);
            group.values[now.p] = negative ? -value : value;
            own |= uint64_t{1} << now.p;
            const uint64_t more = FOLLOWING[now.p & 3] << now.p & group.there & ~own;
            left |= more;
            *group.visited |= more;
            next = first_of(left, coder, group.flags);
        }
        *group.significant = own;
    });
    coder.mq = mq;
}

// D.3.3: coefficients that were significant before this bit-plane.
PASS void refinement_pass(Coder& coder, Block& block, int width, int height, int plane) {
    Decoder mq = coder.mq;
    const int32_t half = 1 << plane >> 1;
    each_group(block, width, height, coder.stride, [&](Group group) ALL_INLINE {
        const uint64_t refined = *group.refined;
        uint64_t left = *group.significant & ~*group.visited;
        *group.refined |= left;
        for (; left; left &= left - 1) {
            const int p = __builtin_ctzll(left);
            const int number = refined >> p & 1 ? REFINE_CONTEXT + 2
                                                : TABLES.refine[neighbours(group.flags, p) & ~16];
            const uint32_t bit = mq.decode(coder.contexts[number]);
            const int32_t value = group.values[p];
            group.values[p] = value + (bit ^ (value < 0) ? half : -half);
        }
    });
    coder.mq = mq;
}

// Columns from that of coefficient `p` on have nothing around them, and are told in runs. Whether
// one gets a significant coefficient, which is then `p`; otherwise `p` is behind them.
INLINE bool decode_run(Decoder& mq, Coder& coder, uint64_t empty, int& p) {
    const uint64_t others = ~(empty >> p);
    const int run = others ? __builtin_ctzll(others) / 4 : GROUP;
    const int skipped = mq.skip_zeros(coder.contexts[RUN_CONTEXT], run);
    p += 4 * skipped;
    if (skipped == run) return false;
    if (!mq.decode(coder.contexts[RUN_CONTEXT])) {
        p += 4;
        return false;
    }
    const uint32_t high = mq.decode(coder.contexts[UNIFORM_CONTEXT]);
    p += static_cast<int>(high << 1 | mq.decode(coder.contexts[UNIFORM_CONTEXT]));
    return true;
}

// D.3.4: all others.
PASS void cleanup_pass(Coder& coder, Block& block, int width, int height, int plane) {
    Decoder mq = coder.mq;
    const int32_t value = 3 << (plane - 1);
    each_group(block, width, height, coder.stride, [&](Group group) ALL_INLINE {
        uint64_t own = *group.significant;
        uint64_t left = group.there & ~own & ~*group.visited;
        if (!left) return;
        const bool in_runs = group.there & 8;  // only columns of four
        uint64_t empty = in_runs ? empty_columns(group.significant) & group.there : 0;
        Next next = first_of(left, coder, group.flags);
        while (left) {
            int p = next.p;
            if (empty >> p & 1) {
                const bool found = decode_run(mq, coder, empty, p);
                left = p < 4 * GROUP ? left & ~uint64_t{0} << p : 0;
                if (!found) {
                    next = first_of(left, coder, group.flags);
                    continue;
                }
                left &= left - 1;
            } else {
                left &= left - 1;
                Context* context = next.context;
                next = first_of(left, coder, group.flags);
                if (!mq.decode(*context)) continue;
            }
            const uint32_t negative = become_significant(mq, coder, group.flags, p);
            group.values[p] = negative ? -value : value;
            own |= uint64_t{1} << p;
            empty &= ~(uint64_t{0xFF} << (p & ~3));  // this column, and the next
            next = first_of(left, coder, group.flags);
        }
        *group.significant = own;
    });
    coder.mq = mq;
}

}  // namespace

void decode_block(Block& block, int width, int height, Band band, const uint8_t* bytes, int planes,
                  int passes) {
    const int stripes = (height + 3) / 4;
    memset(block.values, 0, sizeof(int32_t) * 4 * stripes * width);
    memset(block.significant, 0, sizeof block.significant);
    memset(block.visited, 0, sizeof block.visited);
    memset(block.refined, 0, sizeof block.refined);
    memset(block.flags, 0, sizeof(uint32_t) * (stripes + 2) * (width + 2));
    Coder coder{Decoder(bytes), {}, TABLES.zero[band], width + 2};
    for (Context& context : coder.contexts) context = context_of(0, 0);
    coder.contexts[0] = context_of(4, 0);  // table D.7
    coder.contexts[RUN_CONTEXT] = context_of(3, 0);
    coder.contexts[UNIFORM_CONTEXT] = context_of(46, 0);
    int kind = 2;  // the first bit-plane has a cleanup pass only
    for (int plane = planes; passes > 0 && plane > 0; passes--) {
        if (kind == 0) significance_pass(coder, block, width, height, plane);
        if (kind == 1) refinement_pass(coder, block, width, height, plane);
        if (kind == 2) cleanup_pass(coder, block, width, height, plane--);
        kind = (kind + 1) % 3;
    }
}

}  // namespace zarrgpu
