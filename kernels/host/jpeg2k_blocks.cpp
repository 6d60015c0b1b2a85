// See jpeg2k_blocks.h. Spec: ITU-T T.800, annexes C (MQ decoder) and D (coefficient bits).
//
// A word of flags tells of a column of four coefficients, a stripe's, all that contexts ask for:
//   bits 0 to 17   significance of the 3 x 6 coefficients in and around it, three to a row, west
//                  first; so the nine bits from bit 3 i on are the neighbourhood of row i
//   bits 18 + 3 i  row i was coded in the significance pass of this bit-plane
//   bits 19 + 3 i  row i was refined before
//   bits 20 + 3 i  row i is negative
//   bits 30, 31    the coefficients above and below are negative
// So rows that a pass codes are bits of a mask, found without looking at each row.
//
// Of the MQ decoder's registers A and C, `slack` is taken away, the least of what may be subtracted
// from both before anything else happens than that the more probable symbol is decoded: then that
// costs one subtraction and one comparison.

#include "jpeg2k_blocks.h"

#include <cstring>

// What is inlined keeps the decoder's registers in the processor's.
#define INLINE __attribute__((always_inline)) inline

namespace zarrgpu {
namespace {

// ---- MQ decoder (annex C)

// Table C.2: probability, next state after the more and the less probable symbol, whether that
// changes places with the other.
struct State {
    uint16_t qe;
    uint8_t more, less, exchange;
};
constexpr int NUM_STATES = 47;
constexpr State STATES[NUM_STATES] = {
    {0x5601, 1, 1, 1},    {0x3401, 2, 6, 0},    {0x1801, 3, 9, 0},    {0x0AC1, 4, 12, 0},
    {0x0521, 5, 29, 0},   {0x0221, 38, 33, 0},  {0x5601, 7, 6, 1},    {0x5401, 8, 14, 0},
    {0x4801, 9, 14, 0},   {0x3801, 10, 14, 0},  {0x3001, 11, 17, 0},  {0x2401, 12, 18, 0},
    {0x1C01, 13, 20, 0},  {0x1601, 29, 21, 0},  {0x5601, 15, 14, 1},  {0x5401, 16, 14, 0},
    {0x5101, 17, 15, 0},  {0x4801, 18, 16, 0},  {0x3801, 19, 17, 0},  {0x3401, 20, 18, 0},
    {0x3001, 21, 19, 0},  {0x2801, 22, 19, 0},  {0x2401, 23, 20, 0},  {0x2201, 24, 21, 0},
    {0x1C01, 25, 22, 0},  {0x1801, 26, 23, 0},  {0x1601, 27, 24, 0},  {0x1401, 28, 25, 0},
    {0x1201, 29, 26, 0},  {0x1101, 30, 27, 0},  {0x0AC1, 31, 28, 0},  {0x09C1, 32, 29, 0},
    {0x08A1, 33, 30, 0},  {0x0521, 34, 31, 0},  {0x0441, 35, 32, 0},  {0x02A1, 36, 33, 0},
    {0x0221, 37, 34, 0},  {0x0141, 38, 35, 0},  {0x0111, 39, 36, 0},  {0x0085, 40, 37, 0},
    {0x0049, 41, 38, 0},  {0x0025, 42, 39, 0},  {0x0015, 43, 40, 0},  {0x0009, 44, 41, 0},
    {0x0005, 45, 42, 0},  {0x0001, 45, 43, 0},  {0x5601, 46, 46, 0},
};

// Bits of a register below the sixteen that are compared: room for bytes ahead of their turn.
constexpr int AHEAD = 40;

// A context: its probability, in place, and the more probable symbol in bit 0 of `which`, which is
// twice the number of the state.
struct Context {
    int64_t qe;
    uint32_t which;
};

struct Contexts {
    Context after[2 * 2 * NUM_STATES];  // by `which`, and whether the symbol was the less probable
};

constexpr Context context_of(int state, int symbol) {
    return {static_cast<int64_t>(STATES[state].qe) << AHEAD,
            static_cast<uint32_t>(2 * state + symbol)};
}

constexpr Contexts make_contexts() {
    Contexts made{};
    for (int state = 0; state < NUM_STATES; state++) {
        for (int symbol = 0; symbol < 2; symbol++) {
            Context* after = made.after + 2 * (2 * state + symbol);
            after[0] = context_of(STATES[state].more, symbol);
            after[1] = context_of(STATES[state].less, symbol ^ STATES[state].exchange);
        }
    }
    return made;
}
constexpr Contexts NEXT = make_contexts();

enum { SIGN_CONTEXT = 9, REFINE_CONTEXT = 14, RUN_CONTEXT = 17, UNIFORM_CONTEXT = 18, NUM_CONTEXTS };

class Decoder {
   public:
    // Figure C.20.
    explicit Decoder(const uint8_t* bytes)
        : at_(bytes), a_(LEAST), c_(static_cast<int64_t>(*bytes) << AHEAD) {
        fill();
        c_ <<= 7;
        bits_ -= 7;
        take_slack();
    }

    INLINE uint32_t decode(Context& context) {
        slack_ -= context.qe;
        if (__builtin_expect(slack_ >= 0, 1)) return context.which & 1;
        return decode_slowly(context);
    }

   private:
    static constexpr int64_t LEAST = static_cast<int64_t>(0x8000) << AHEAD;
    // Bits of C that there are: damaged bytes can make it larger than A, and then it overflows.
    static constexpr uint64_t KNOWN = (uint64_t{1} << (16 + AHEAD)) - 1;

    INLINE void take_slack() {
        const int64_t over = a_ - LEAST;
        slack_ = c_ < over ? c_ : over;
        a_ -= slack_;
        c_ -= slack_;
    }

    // Bytes behind the sixteen bits of C, as many as there is room for (figure C.19). One that
    // carries into those before it waits until they are used: damaged bytes are told by that too.
    INLINE void fill() {
        while (bits_ <= AHEAD - 16) {
            if (*at_ == 0xFF) {
                if (at_[1] > 0x8F) {
                    bits_ += 8;
                    c_ += static_cast<int64_t>(0xFF) << (AHEAD - bits_);
                } else {
                    if (at_[1] > 0x7F && bits_) return;
                    bits_ += 7;
                    c_ += static_cast<int64_t>(*++at_) << (AHEAD - bits_);
                }
            } else {
                bits_ += 8;
                c_ += static_cast<int64_t>(*++at_) << (AHEAD - bits_);
            }
        }
    }

    INLINE void make_room(int shift) {
        a_ <<= shift;
        c_ = static_cast<int64_t>(static_cast<uint64_t>(c_) << shift & KNOWN);
        bits_ -= shift;
    }

    // Figures C.15 to C.18, from where A and C may have become too small.
    INLINE uint32_t decode_slowly(Context& context) {
        const int64_t qe = context.qe;
        const uint32_t which = context.which;
        a_ += slack_;
        c_ += slack_;
        const bool lower = c_ < 0;  // in the part of the interval that is the less probable's
        const uint32_t less = lower ^ (a_ < qe);  // which may be the larger part
        context = NEXT.after[2 * which + less];
        c_ += lower ? qe : 0;
        a_ = lower ? qe : a_;
        int shift = __builtin_clzll(static_cast<uint64_t>(a_)) - (63 - 15 - AHEAD);
        if (__builtin_expect(bits_ < shift, 0)) {
            fill();
            for (; bits_ < shift; fill()) {
                shift -= bits_;
                make_room(bits_);
            }
        }
        make_room(shift);
        take_slack();
        return (which & 1) ^ less;
    }

    const uint8_t* at_;
    int64_t a_, c_, slack_;
    int bits_ = 0;  // of C that are known behind the first sixteen
};

// ---- contexts (annex D)

struct Tables {
    uint8_t zero[4][512];   // table D.1: by band and neighbourhood
    uint8_t sign[256];      // tables D.2 and D.3: context, and in bit 7 what the bit is flipped by
    uint8_t refine[512];    // table D.4, of a coefficient that was not refined before
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

// Bits 0 to 3: whether west, east, north and south are significant; 4 to 7: whether negative.
constexpr uint8_t sign_context(int bits) {
    int sum[2] = {0, 0};
    for (int i = 0; i < 4; i++) {
        if (bits >> i & 1) sum[i / 2] += bits >> (4 + i) & 1 ? -1 : 1;
    }
    int h = sum[0] > 0 ? 1 : sum[0] < 0 ? -1 : 0, v = sum[1] > 0 ? 1 : sum[1] < 0 ? -1 : 0;
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

constexpr uint32_t ROWS = 01111;  // bit 3 i of row i
constexpr int CODED = 18, REFINED = 19, NEGATIVE = 20;
constexpr uint32_t ABOVE_NEGATIVE = 1u << 30, BELOW_NEGATIVE = 1u << 31;

// Rows that are significant, and those that are or have a significant one around, as ROWS.
uint32_t significant(uint32_t word) { return word >> 4 & ROWS; }
uint32_t with_neighbours(uint32_t word) {
    const uint32_t row = word | word >> 1 | word >> 2;
    return (row | row >> 3 | row >> 6) & ROWS;
}

struct Coder {
    Decoder mq;
    Context contexts[NUM_CONTEXTS];
    const uint8_t* zero;
    int stride;  // words from one stripe to the next
};

// Decode the sign of row `row3 / 3`, which is significant from now on, and tell those around it.
INLINE uint32_t become_significant(Coder& coder, uint32_t* at, uint32_t word, int row3) {
    const uint32_t around = word >> row3;
    const uint32_t west = at[-1] >> (NEGATIVE + row3) & 1, east = at[1] >> (NEGATIVE + row3) & 1;
    const uint32_t north =
        row3 ? word >> (NEGATIVE + row3 - 3) & 1 : (word & ABOVE_NEGATIVE) != 0;
    const uint32_t south =
        row3 < 9 ? word >> (NEGATIVE + row3 + 3) & 1 : (word & BELOW_NEGATIVE) != 0;
    const uint32_t index = (around >> 3 & 1) | (around >> 5 & 1) << 1 | (around >> 1 & 1) << 2 |
                           (around >> 7 & 1) << 3 | west << 4 | east << 5 | north << 6 |
                           south << 7;
    const uint8_t told = TABLES.sign[index];
    const uint32_t negative = coder.mq.decode(coder.contexts[told & 127]) ^ told >> 7;
    at[-1] |= 1u << (row3 + 5);
    at[1] |= 1u << (row3 + 3);
    if (row3 == 0) {
        uint32_t* above = at - coder.stride;
        above[-1] |= 1u << 17;
        above[0] |= 1u << 16 | (negative ? BELOW_NEGATIVE : 0);
        above[1] |= 1u << 15;
    } else if (row3 == 9) {
        uint32_t* below = at + coder.stride;
        below[-1] |= 1u << 2;
        below[0] |= 1u << 1 | (negative ? ABOVE_NEGATIVE : 0);
        below[1] |= 1u << 0;
    }
    return word | 1u << (row3 + 4) | negative << (NEGATIVE + row3);
}

int32_t signed_value(uint32_t word, int row3, int32_t value) {
    return word >> (NEGATIVE + row3) & 1 ? -value : value;
}

int row_of(int row3) { return row3 * 11 >> 5; }  // a third of 0, 3, 6 or 9

// D.3.1: coefficients with a significant one around.
__attribute__((noinline)) void significance_pass(Coder& state, Block& block, int width, int height, int plane) {
    Coder coder = state;
    const int32_t value = 3 << (plane - 1);
    int32_t* values = block.values;
    uint32_t* at = block.flags + coder.stride + 1;
    for (int y = 0; y < height; y += 4, at += 2) {
        const uint32_t rows = height - y >= 4 ? ROWS : ROWS & ((1u << 3 * (height - y)) - 1);
        for (int x = 0; x < width; x++, at++, values += 4) {
            uint32_t word = *at;
            if (!word) continue;
            uint32_t mask = with_neighbours(word) & ~significant(word) & rows, coded = 0;
            if (!mask) continue;
            do {
                const int row3 = __builtin_ctz(mask);
                coded |= mask & -mask;
                mask &= mask - 1;
                if (coder.mq.decode(coder.contexts[coder.zero[word >> row3 & 511]])) {
                    word = become_significant(coder, at, word, row3);
                    values[row_of(row3)] = signed_value(word, row3, value);
                    mask |= ~significant(word) & rows & (8u << row3);  // has a neighbour now
                }
            } while (mask);
            *at = word | coded << CODED;
        }
    }
    state = coder;
}

// D.3.3: coefficients that were significant before this bit-plane.
__attribute__((noinline)) void refinement_pass(Coder& state, Block& block, int width, int height, int plane) {
    Coder coder = state;
    const int32_t half = 1 << plane >> 1;
    int32_t* values = block.values;
    uint32_t* at = block.flags + coder.stride + 1;
    for (int y = 0; y < height; y += 4, at += 2) {
        for (int x = 0; x < width; x++, at++, values += 4) {
            uint32_t word = *at;
            uint32_t mask = significant(word) & ~(word >> CODED);
            if (!mask) continue;
            do {
                const int row3 = __builtin_ctz(mask);
                mask &= mask - 1;
                const int number = word >> (REFINED + row3) & 1
                                       ? REFINE_CONTEXT + 2
                                       : TABLES.refine[word >> row3 & 511 & ~16];
                const uint32_t bit = coder.mq.decode(coder.contexts[number]);
                const uint32_t negative = word >> (NEGATIVE + row3) & 1;
                values[row_of(row3)] += bit ^ negative ? half : -half;
                word |= 1u << (REFINED + row3);
            } while (mask);
            *at = word;
        }
    }
    state = coder;
}

// D.3.4: all others; columns without anything around are told in runs.
__attribute__((noinline)) void cleanup_pass(Coder& state, Block& block, int width, int height, int plane) {
    Coder coder = state;
    const int32_t value = 3 << (plane - 1);
    int32_t* values = block.values;
    uint32_t* at = block.flags + coder.stride + 1;
    for (int y = 0; y < height; y += 4, at += 2) {
        const uint32_t rows = height - y >= 4 ? ROWS : ROWS & ((1u << 3 * (height - y)) - 1);
        for (int x = 0; x < width; x++, at++, values += 4) {
            uint32_t word = *at;
            uint32_t mask = rows;
            if (word || rows != ROWS) {
                mask &= ~significant(word) & ~(word >> CODED);
            } else {
                if (!coder.mq.decode(coder.contexts[RUN_CONTEXT])) continue;
                int row = coder.mq.decode(coder.contexts[UNIFORM_CONTEXT]) << 1;
                row |= coder.mq.decode(coder.contexts[UNIFORM_CONTEXT]);
                word = become_significant(coder, at, word, 3 * row);
                values[row] = signed_value(word, 3 * row, value);
                mask &= ~((2u << 3 * row) - 1);
            }
            while (mask) {
                const int row3 = __builtin_ctz(mask);
                mask &= mask - 1;
                if (coder.mq.decode(coder.contexts[coder.zero[word >> row3 & 511]])) {
                    word = become_significant(coder, at, word, row3);
                    values[row_of(row3)] = signed_value(word, row3, value);
                }
            }
            *at = word & ~(ROWS << CODED);
        }
    }
    state = coder;
}

}  // namespace

void decode_block(Block& block, int width, int height, Band band, const uint8_t* bytes, int planes,
                  int passes) {
    const int stripes = (height + 3) / 4;
    memset(block.values, 0, sizeof(int32_t) * 4 * stripes * width);
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
