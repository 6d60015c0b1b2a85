// See jpeg_huffman.h. Spec: ITU-T T.81, annex C, F.2.2. Codes that no more than a few images use
// are not worth entries of two coefficients: these come when a code is asked for again.

#include "jpeg_huffman.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace zarrgpu {
namespace {

constexpr int ENTRIES = 1 << JPEG_LOOK;
constexpr int MAX_PAIR_BITS = 5;   // values of entries of two coefficients have a sign
constexpr int MAX_DC_BITS = 11, MAX_AC_BITS = 15;
constexpr int USES_WITHOUT_PAIRS = 1;

struct Kept {
    uint8_t body[16 + 256];
    int nbytes = 0;
    bool is_dc = false;
    int uses = 0;
    int64_t used = 0;  // at this turn, the last time
    JpegLooks looks;
};

struct Cache {
    Kept kept[JPEG_KEPT_CODES];
    int64_t turn = 0;
};
thread_local std::unique_ptr<Cache> cache;

// A value of `size` bits, of which those beginning with 0 are negative.
int extended(int bits, int size) { return bits >> (size - 1) ? bits : bits - (1 << size) + 1; }

uint32_t ac_entry(int length, int advance, int value) {
    const uint32_t six = value & 0x3F;
    return length | advance << 6 | six << 20 | six << 26;
}

uint32_t dc_entry(int length, int value) { return length | static_cast<uint32_t>(value) << 16; }

// The entries that begin with one code.
void fill_code(uint32_t* at, int length, int symbol, bool is_dc) {
    const int rest = JPEG_LOOK - length, run = symbol >> 4, size = symbol & 0xF;
    if (size > rest || (!is_dc && size > MAX_PAIR_BITS)) return;
    const int advance = size || run == 15 ? run + 1 : JPEG_BLOCK_ENDS;
    const int each = 1 << (rest - size);
    for (int bits = 0; bits < 1 << size; bits++, at += each) {
        const int value = size ? extended(bits, size) : 0;
        std::fill_n(at, each, is_dc ? dc_entry(length + size, value)
                                    : ac_entry(length + size, advance, value));
    }
}

bool fill_looks(const uint8_t* body, bool is_dc, JpegLooks& looks) {
    memset(&looks, 0, sizeof(looks));
    uint32_t code = 0;
    int place = 0;
    for (int length = 1; length <= 16; length++, code <<= 1) {
        const int count = body[length - 1];
        looks.shifts[length] = place - static_cast<int32_t>(code);
        for (int i = 0; i < count; i++, place++, code++) {
            const int symbol = body[16 + place];
            if (code + 1 >= 1u << length) return false;  // no code is all ones, C.2
            if (is_dc ? symbol > MAX_DC_BITS : (symbol & 0xF) > MAX_AC_BITS) return false;
            looks.symbols[place] = static_cast<uint8_t>(symbol);
            if (length > JPEG_LOOK) continue;
            fill_code(looks.entries + (code << (JPEG_LOOK - length)), length, symbol, is_dc);
        }
        looks.limits[length] = code << (16 - length);
    }
    looks.limits[17] = 1u << 16;
    return true;
}

// Join entries of one coefficient with what follows it, where that is within the bits.
void pair_entries(JpegLooks& looks) {
    uint32_t alone[ENTRIES];
    memcpy(alone, looks.entries, sizeof(alone));
    for (int i = 0; i < ENTRIES; i++) {
        const uint32_t first = alone[i], length = first & 0x3F;
        if (!length || (first >> 6 & 0x7F) == JPEG_BLOCK_ENDS) continue;
        const uint32_t second = alone[(i << length) & (ENTRIES - 1)], more = second & 0x3F;
        if (!more || length + more > JPEG_LOOK) continue;
        looks.entries[i] = (first & 0x03F01FC0) | (length + more) | (second & 0x1FC0) << 7 |
                           (second & 0xFC000000);
    }
}

}  // namespace

const JpegLooks* jpeg_looks(const JpegCode& code, bool is_dc) {
    if (!cache) cache = std::make_unique<Cache>();
    Kept* oldest = cache->kept;
    cache->turn++;
    for (Kept& kept : cache->kept) {
        if (kept.used < oldest->used) oldest = &kept;
        if (kept.nbytes != code.nbytes || kept.is_dc != is_dc ||
            memcmp(kept.body, code.body, code.nbytes)) {
            continue;
        }
        if (kept.uses == USES_WITHOUT_PAIRS && !is_dc) pair_entries(kept.looks);
        if (kept.uses <= USES_WITHOUT_PAIRS) kept.uses++;
        kept.used = cache->turn;
        return &kept.looks;
    }
    oldest->nbytes = 0;
    oldest->used = 0;
    if (!fill_looks(code.body, is_dc, oldest->looks)) return nullptr;
    memcpy(oldest->body, code.body, code.nbytes);
    oldest->nbytes = code.nbytes;
    oldest->is_dc = is_dc;
    oldest->uses = 1;
    oldest->used = cache->turn;
    return &oldest->looks;
}

}  // namespace zarrgpu
