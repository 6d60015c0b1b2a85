// See jpeg_huffman.h. Spec: ITU-T T.81, annex C, F.2.2. Codes that a single image uses are not
// worth entries of two coefficients: these come when they are asked for again.

#include "jpeg_huffman.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace zarrgpu {
namespace {

constexpr int ENTRIES = 1 << JPEG_LOOK;
constexpr int MAX_PAIR_BITS = 5;  // values of entries of two coefficients have a sign
constexpr int MAX_DC_BITS = 11;
constexpr int MAX_BODY_NBYTES = 16 + 256;
constexpr uint32_t LENGTH = 0x3F, FIRST_ADVANCE = 0x7F << 6, FIRST_VALUE = 0x3F << 20;
constexpr uint32_t SECOND_VALUE = 0xFC000000;

struct Kept {
    uint8_t dc[MAX_BODY_NBYTES], ac[MAX_BODY_NBYTES];
    int dc_nbytes = 0, ac_nbytes = 0;
    bool is_joined = false;
    int64_t used = 0;  // the last time
    JpegLooks looks;

    bool is(const JpegCode& dc_code, const JpegCode& ac_code) const {
        return dc_nbytes == dc_code.nbytes && ac_nbytes == ac_code.nbytes &&
               !memcmp(dc, dc_code.body, dc_nbytes) && !memcmp(ac, ac_code.body, ac_nbytes);
    }
};

struct Cache {
    Kept kept[JPEG_KEPT_CODES];
    int64_t turn = 0;
};
thread_local std::unique_ptr<Cache> cache;

// A value of `size` bits, of which those beginning with 0 are negative.
int extended(int bits, int size) {
    return size == 0 || bits >> (size - 1) ? bits : bits - (1 << size) + 1;
}

uint32_t entry_of(int length, int symbol, int value, bool is_dc) {
    if (is_dc) return length | static_cast<uint32_t>(value) << 20;
    const uint32_t six = value & 0x3F;
    const int run = symbol >> 4, advance = symbol & 0xF || run == 15 ? run + 1 : JPEG_BLOCK_ENDS;
    return length | advance << 6 | six << 20 | six << 26;
}

// The entries that begin with one code.
void fill_code(uint32_t* at, int length, int symbol, bool is_dc) {
    const int rest = JPEG_LOOK - length, size = is_dc ? symbol : symbol & 0xF;
    if (size > rest || (!is_dc && size > MAX_PAIR_BITS)) return;
    const int each = 1 << (rest - size);
    for (int bits = 0; bits < 1 << size; bits++, at += each) {
        std::fill_n(at, each, entry_of(length + size, symbol, extended(bits, size), is_dc));
    }
}

bool fill_code_table(const uint8_t* body, bool is_dc, uint32_t* entries, JpegSymbols& all) {
    std::fill_n(entries, ENTRIES, 0);
    memset(&all, 0, sizeof(all));
    uint32_t code = 0;
    int place = 0;
    for (int length = 1; length <= 16; length++, code <<= 1) {
        const int count = body[length - 1];
        all.shifts[length] = place - static_cast<int32_t>(code);
        for (int i = 0; i < count; i++, place++, code++) {
            const int symbol = body[16 + place];
            if (code + 1 >= 1u << length) return false;  // no code is all ones, C.2
            if (is_dc && symbol > MAX_DC_BITS) return false;
            all.symbols[place] = static_cast<uint8_t>(symbol);
            if (length > JPEG_LOOK) continue;
            fill_code(entries + (code << (JPEG_LOOK - length)), length, symbol, is_dc);
        }
        all.limits[length] = code << (16 - length);
    }
    all.limits[17] = 1u << 16;
    return true;
}

// Let entries tell what follows their coefficient, where that is within the bits.
void join(JpegLooks& looks) {
    uint32_t alone[ENTRIES];
    memcpy(alone, looks.ac_entries, sizeof(alone));
    for (uint32_t* entries : {looks.dc_entries, looks.ac_entries}) {
        const bool is_dc = entries == looks.dc_entries;
        for (int i = 0; i < ENTRIES; i++) {
            const uint32_t first = entries[i], length = first & LENGTH;
            const uint32_t next = alone[(i << length) & (ENTRIES - 1)], more = next & LENGTH;
            if (!length || !more || length + more > JPEG_LOOK) continue;
            const int difference = static_cast<int32_t>(first) >> 20;
            if (is_dc ? difference > 31 || difference < -31
                      : (first & FIRST_ADVANCE) == JPEG_BLOCK_ENDS << 6) {
                continue;
            }
            entries[i] = (length + more) | (first & (FIRST_VALUE | FIRST_ADVANCE)) |
                         (next & FIRST_ADVANCE) << 7 | (next & SECOND_VALUE);
        }
    }
}

}  // namespace

const JpegLooks* jpeg_looks(const JpegCode& dc, const JpegCode& ac) {
    if (!cache) cache = std::make_unique<Cache>();
    Kept* oldest = cache->kept;
    cache->turn++;
    for (Kept& kept : cache->kept) {
        if (kept.used < oldest->used) oldest = &kept;
        if (!kept.used || !kept.is(dc, ac)) continue;
        if (!kept.is_joined) join(kept.looks);
        kept.is_joined = true;
        kept.used = cache->turn;
        return &kept.looks;
    }
    Kept& made = *oldest;
    made.used = 0;
    if (!fill_code_table(dc.body, true, made.looks.dc_entries, made.looks.dc) ||
        !fill_code_table(ac.body, false, made.looks.ac_entries, made.looks.ac)) {
        return nullptr;
    }
    memcpy(made.dc, dc.body, dc.nbytes);
    memcpy(made.ac, ac.body, ac.nbytes);
    made.dc_nbytes = dc.nbytes;
    made.ac_nbytes = ac.nbytes;
    made.is_joined = false;
    made.used = cache->turn;
    return &made.looks;
}

}  // namespace zarrgpu
