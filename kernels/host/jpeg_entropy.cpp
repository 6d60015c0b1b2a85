// See jpeg_entropy.h. Spec: ITU-T T.81, F.2.2. A look at the next bits tells up to two coefficients
// (jpeg_huffman.h). They are stored without a question, those behind the end of a block in its
// room.
//
// At least 56 bits are held before each look, and no coefficient takes more than 31. What is read
// behind an interval is the next one, or the guard: it is not used, but must not fault.

#include "jpeg_entropy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "clones.h"

#define LIKELY(condition) __builtin_expect(!!(condition), 1)

namespace zarrgpu {
namespace {

constexpr int MAX_COEFFICIENT = 8191;  // dequantised; of images, a quarter of it
constexpr int MAX_DC = 32767;          // quantised, as libjpeg stores it
constexpr int AHEAD_NBYTES = 8;        // that are held
constexpr int BAD = 255;               // a place: nothing that is known

// Natural order; from 64 on in the room behind.
struct Order {
    uint8_t at[192];
};
constexpr Order natural_order() {
    Order order = {};
    int x = 0, y = 0;
    for (int k = 0; k < 64; k++) {
        order.at[k] = static_cast<uint8_t>(8 * y + x);
        if ((x + y) % 2 == 0) {  // upwards
            if (x == 7) y++;
            else if (y == 0) x++;
            else { x++; y--; }
        } else {
            if (y == 7) x++;
            else if (x == 0) y++;
            else { x--; y++; }
        }
    }
    for (int k = 64; k < 192; k++) order.at[k] = 64;
    return order;
}
constexpr Order ORDER = natural_order();

// The part of a reader that changes with every look.
struct Bits {
    const uint8_t* at;
    uint64_t bits;
    int count;
};

INLINE void refill(Bits& in) {
    uint64_t next;
    memcpy(&next, in.at, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    next = __builtin_bswap64(next);
#endif
    in.bits |= next >> in.count;
    in.at += (63 - in.count) >> 3;
    in.count |= 56;
}

INLINE void drop(Bits& in, int count) {
    in.bits <<= count;
    in.count -= count;
}

// Give `count` bits back, that were the last to be dropped.
INLINE void give_back(Bits& in, int count) {
    const int behind = in.count + count, bytes = (behind + 7) / 8;
    in = {in.at - bytes, 0, 0};
    refill(in);
    drop(in, bytes * 8 - behind);
    refill(in);
}

// The next symbol by its code alone; negative for no code.
INLINE int symbol_of(Bits& in, const JpegSymbols& code) {
    const uint32_t next = static_cast<uint32_t>(in.bits >> 48);
    int length = 1;
    while (next >= code.limits[length]) length++;
    if (length > 16) return -1;
    drop(in, length);
    return code.symbols[(static_cast<int>(next >> (16 - length)) + code.shifts[length]) & 0xFF];
}

INLINE int value_of(Bits& in, int size) {
    if (size == 0) return 0;
    const int bits = static_cast<int>(in.bits >> (64 - size));
    drop(in, size);
    return bits >> (size - 1) ? bits : bits - (1 << size) + 1;
}

struct Step {
    Bits in;
    int place;
};

// One coefficient behind `place` by its code alone: where it is, JPEG_BLOCK_ENDS later for the end,
// BAD for what no encoder writes.
template <bool STORE>
__attribute__((noinline)) Step careful_step(Bits in, const JpegSymbols& ac, int place,
                                            int16_t* block, const uint8_t* quant) {
    refill(in);
    const int symbol = symbol_of(in, ac);
    if (symbol < 0) return {in, BAD};
    const int run = symbol >> 4, size = symbol & 0xF;
    const int value = value_of(in, size);
    refill(in);
    if (size == 0 && run < 15) return {in, place + JPEG_BLOCK_ENDS};
    place += run + 1;
    if (place > 63) return {in, BAD};
    if (STORE) {
        if (std::abs(value) * quant[place] > MAX_COEFFICIENT) return {in, BAD};
        block[ORDER.at[place]] = static_cast<int16_t>(value);
    }
    return {in, place};
}

// The DC coefficient's difference, and the first AC coefficient where a look tells it; false for
// no code.
template <bool STORE>
INLINE bool begin_block(Bits& in, const JpegLooks& looks, int16_t* block, int& difference,
                        int& place) {
    const uint32_t entry = looks.dc_entries[in.bits >> (64 - JPEG_LOOK)];
    if (LIKELY(entry & 0x3F)) {
        drop(in, entry & 0x3F);
        place = entry >> 13 & 0x7F;
        difference = place ? static_cast<int32_t>(entry << 6) >> 26  //
                           : static_cast<int32_t>(entry) >> 20;
        if (STORE) block[ORDER.at[place]] = static_cast<int16_t>(static_cast<int32_t>(entry) >> 26);
        return true;
    }
    const int size = symbol_of(in, looks.dc);
    if (size < 0) return false;
    difference = value_of(in, size);
    place = 0;
    refill(in);
    return true;
}

// Take what one look tells; whether the block ends, or is none.
template <bool STORE>
INLINE bool look(Bits& in, const JpegLooks& looks, int16_t* block, const uint8_t* quant,
                 int& place) {
    const uint32_t entry = looks.ac_entries[in.bits >> (64 - JPEG_LOOK)];
    const int begin = place;
    if (LIKELY(entry & 0x3F)) {
        drop(in, entry & 0x3F);
        const int first = place + (entry >> 6 & 0x7F);
        place = first + (entry >> 13 & 0x7F);
        if (STORE) {
            block[ORDER.at[first]] = static_cast<int16_t>(static_cast<int32_t>(entry << 6) >> 26);
            block[ORDER.at[place]] = static_cast<int16_t>(static_cast<int32_t>(entry) >> 26);
        }
        if (LIKELY(place < 63)) return false;
        if (LIKELY(static_cast<unsigned>(place - JPEG_BLOCK_ENDS) < 63 || place == 63)) return true;
        // the first of the two ends the block, or there are too many
        give_back(in, entry & 0x3F);
        place = begin;
    }
    const Step step = careful_step<STORE>(in, looks.ac, place, block, quant);
    in = step.in;
    place = step.place;
    return place >= 63;
}

// The AC coefficients of a block behind `place`: where it ended, or BAD.
template <bool STORE>
INLINE int ac_coefficients(Bits& in, const JpegLooks& looks, int16_t* block, const uint8_t* quant,
                           int place) {
    for (;;) {  // three looks, and that of the DC coefficient, within the bits that are held
        if (look<STORE>(in, looks, block, quant, place)) break;
        if (look<STORE>(in, looks, block, quant, place)) break;
        if (look<STORE>(in, looks, block, quant, place)) break;
        refill(in);
    }
    return place;
}

// One block, stored or not.
template <bool STORE>
INLINE bool decode_block(Bits& in, const JpegWanted& wanted, int32_t& predicted, int16_t* block,
                         uint8_t* last) {
    refill(in);
    int difference, place;
    if (!begin_block<STORE>(in, *wanted.looks, block, difference, place)) return false;
    predicted += difference;
    if (std::abs(predicted) > MAX_DC) return false;
    if (STORE) {
        if (std::abs(predicted) * wanted.quant[0] > MAX_COEFFICIENT) return false;
        block[0] = static_cast<int16_t>(predicted);
    }
    if (place < 63) place = ac_coefficients<STORE>(in, *wanted.looks, block, wanted.quant, place);
    if (place == BAD) return false;
    if (place >= JPEG_BLOCK_ENDS) place -= JPEG_BLOCK_ENDS;
    if (STORE) *last = static_cast<uint8_t>(place);
    return true;
}

}  // namespace

int jpeg_place(int place) { return ORDER.at[place]; }

void begin_interval(JpegReader& reader, const uint8_t* data, const uint8_t* end) {
    reader = {};
    reader.at = data;
    reader.end = end;
}

bool is_used_up(const JpegReader& reader) { return reader.at - reader.count / 8 == reader.end; }

// Shifts by a number in a register are slow without BMI2.
CLONES("bmi2")
bool decode_mcus(JpegReader& reader, const JpegWanted* wanted, int samples, int row, int first,
                      int end) {
    struct Block {
        const JpegWanted* wanted;
        int32_t* predicted;
        int column;             // of the next MCU
        int16_t* coefficients;  // of the first wanted column; null for a row that is not wanted
        uint8_t* last;
    };
    Block blocks[JPEG_MCU_BLOCKS];
    int count = 0;
    for (int s = 0; s < samples; s++) {
        const JpegWanted& own = wanted[s];
        for (int i = 0; i < own.across * own.down && count < JPEG_MCU_BLOCKS; i++) {
            const int y = row * own.down + i / own.across, at = i / own.across * own.columns();
            const bool is_wanted = y >= own.first_row && y < own.end_row;
            blocks[count++] = {&own, &reader.predicted[s], first * own.across + i % own.across,
                               is_wanted ? own.coefficients + at * JPEG_BLOCK_ROOM : nullptr,
                               own.last + at};
        }
    }
    Bits in = {reader.at, reader.bits, reader.count};
    for (int mcu = first; mcu < end; mcu++) {
        for (int i = 0; i < count; i++) {
            Block& block = blocks[i];
            const JpegWanted& own = *block.wanted;
            const int column = block.column - own.first_column;
            block.column += own.across;
            const bool stored = block.coefficients && column >= 0 &&
                                column < own.columns();
            int16_t* to = stored ? block.coefficients + column * JPEG_BLOCK_ROOM : nullptr;
            const bool good =
                stored ? decode_block<true>(in, own, *block.predicted, to, block.last + column)
                       : decode_block<false>(in, own, *block.predicted, nullptr, nullptr);
            if (!good) return false;
        }
        if (in.at > reader.end + AHEAD_NBYTES) return false;
    }
    reader.at = in.at;
    reader.bits = in.bits;
    reader.count = in.count;
    return in.at - in.count / 8 <= reader.end;
}

}  // namespace zarrgpu
