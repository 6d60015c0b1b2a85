// The MQ decoder of JPEG 2000 (ITU-T T.800, annex C), to be inlined: its registers in the
// processor's.
//
// Of the MQ decoder's registers A and C, `slack` is taken away, the least of what may be subtracted
// from both before anything else happens than that the more probable symbol is decoded: then that
// costs one subtraction and one comparison.

#pragma once

#include <cstdint>

#include "clones.h"

namespace zarrgpu {

// Table C.2: probability, next state after the more and the less probable symbol, whether that
// changes places with the other.
struct State {
    uint16_t qe;
    uint8_t more, less, exchange;
};
constexpr int NUM_STATES = 47;
constexpr State STATES[NUM_STATES] = {
    {0x5601, 1, 1, 1},   {0x3401, 2, 6, 0},   {0x1801, 3, 9, 0},   {0x0AC1, 4, 12, 0},
    {0x0521, 5, 29, 0},  {0x0221, 38, 33, 0}, {0x5601, 7, 6, 1},   {0x5401, 8, 14, 0},
    {0x4801, 9, 14, 0},  {0x3801, 10, 14, 0}, {0x3001, 11, 17, 0}, {0x2401, 12, 18, 0},
    {0x1C01, 13, 20, 0}, {0x1601, 29, 21, 0}, {0x5601, 15, 14, 1}, {0x5401, 16, 14, 0},
    {0x5101, 17, 15, 0}, {0x4801, 18, 16, 0}, {0x3801, 19, 17, 0}, {0x3401, 20, 18, 0},
    {0x3001, 21, 19, 0}, {0x2801, 22, 19, 0}, {0x2401, 23, 20, 0}, {0x2201, 24, 21, 0},
    {0x1C01, 25, 22, 0}, {0x1801, 26, 23, 0}, {0x1601, 27, 24, 0}, {0x1401, 28, 25, 0},
    {0x1201, 29, 26, 0}, {0x1101, 30, 27, 0}, {0x0AC1, 31, 28, 0}, {0x09C1, 32, 29, 0},
    {0x08A1, 33, 30, 0}, {0x0521, 34, 31, 0}, {0x0441, 35, 32, 0}, {0x02A1, 36, 33, 0},
    {0x0221, 37, 34, 0}, {0x0141, 38, 35, 0}, {0x0111, 39, 36, 0}, {0x0085, 40, 37, 0},
    {0x0049, 41, 38, 0}, {0x0025, 42, 39, 0}, {0x0015, 43, 40, 0}, {0x0009, 44, 41, 0},
    {0x0005, 45, 42, 0}, {0x0001, 45, 43, 0}, {0x5601, 46, 46, 0},
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

    // How many of `most` times zero follows as the more probable symbol at no more cost than that.
    INLINE int skip_zeros(const Context& context, int most) {
        if (context.which & 1) return 0;
        const uint32_t times =
            static_cast<uint32_t>(slack_ >> AHEAD) / static_cast<uint32_t>(context.qe >> AHEAD);
        const int taken = times < static_cast<uint32_t>(most) ? static_cast<int>(times) : most;
        slack_ -= taken * context.qe;
        return taken;
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

}  // namespace zarrgpu
