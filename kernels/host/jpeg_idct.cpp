// See jpeg_idct.h. Source of the algorithm: Loeffler, Ligtenberg and Moschytz 1989, with the
// constants and roundings of libjpeg's jidctint.c: 13 bits, columns first, which keep 2 bits more.
// Each output is one exact sum of products before it is rounded, so any order gives the same.
//
// libjpeg's versions differ where 16 bits overflow, or a sample is more than 512 off its centre.
// Blocks are looked at for that on the way, but those that are small enough for certain.

#include "jpeg_idct.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "jpeg_avx2.h"
#include "jpeg_entropy.h"

namespace zarrgpu {
namespace {

constexpr int BITS = 13, KEPT_BITS = 2;
constexpr int FIRST_SHIFT = BITS - KEPT_BITS, SECOND_SHIFT = BITS + KEPT_BITS + 3;
constexpr int MAX_INPUT = 8191, MAX_BETWEEN = 16383, MAX_OUTPUT = 511;
constexpr int MAX_QUIET = 4000;   // |DC| + 2 sum |AC|: an eighth of it bounds a sample
constexpr int LAST_OF_QUARTER = 9;  // places up to it are of the first four rows and columns

// Even and odd part: what a coefficient adds to sums, in 1 / 2^13.
constexpr int16_t E2[2] = {10703, 4433}, E6[2] = {4433, -10704};
constexpr int16_t O1[4] = {11363, 9633, 6437, 2260}, O3[4] = {9633, -2259, -11362, -6436};
constexpr int16_t O5[4] = {6437, -11362, 2261, 9633}, O7[4] = {2260, -6436, 9633, -11363};

// Transform the columns of (8, 8) in place, without the shift.
void transform_columns(int32_t* block, int shift) {
    const int32_t half = 1 << (shift - 1);
    for (int x = 0; x < 8; x++) {
        int32_t* at = block + x;
        const int32_t low = (at[0] + at[32]) * (1 << BITS) + half;
        const int32_t high = (at[0] - at[32]) * (1 << BITS) + half;
        const int32_t a = at[16] * E2[0] + at[48] * E6[0], b = at[16] * E2[1] + at[48] * E6[1];
        const int32_t even[4] = {low + a, high + b, high - b, low - a};
        int32_t odd[4];
        for (int i = 0; i < 4; i++) {
            odd[i] = at[8] * O1[i] + at[24] * O3[i] + at[40] * O5[i] + at[56] * O7[i];
        }
        for (int i = 0; i < 4; i++) {
            at[8 * i] = (even[i] + odd[i]) >> shift;
            at[56 - 8 * i] = (even[i] - odd[i]) >> shift;
        }
    }
}

void transpose(int32_t* block) {
    for (int y = 0; y < 8; y++) {
        for (int x = 0; x < y; x++) std::swap(block[8 * y + x], block[8 * x + y]);
    }
}

bool is_within(const int32_t* block, int32_t most) {
    int32_t largest = 0;
    for (int i = 0; i < 64; i++) largest = std::max(largest, std::abs(block[i]));
    return largest <= most;
}

bool careful(const int16_t* coefficients, const int16_t* quant, uint8_t* samples, int64_t stride) {
    int32_t block[64];
    for (int i = 0; i < 64; i++) block[i] = coefficients[i] * quant[i];
    if (!is_within(block, MAX_INPUT)) return false;
    transform_columns(block, FIRST_SHIFT);
    if (!is_within(block, MAX_BETWEEN)) return false;
    transpose(block);
    transform_columns(block, SECOND_SHIFT);
    if (!is_within(block, MAX_OUTPUT)) return false;
    transpose(block);
    for (int y = 0; y < 8; y++, samples += stride) {
        for (int x = 0; x < 8; x++) {
            samples[x] = static_cast<uint8_t>(std::clamp(block[8 * y + x] + 128, 0, 255));
        }
    }
    return true;
}

// A block of its DC coefficient alone.
bool flat(int value, uint8_t* samples, int64_t stride) {
    const int sample = (value + 4) >> 3;
    if (std::abs(value) > MAX_QUIET) return false;
    const uint64_t eight = std::clamp(sample + 128, 0, 255) * 0x0101010101010101u;
    for (int y = 0; y < 8; y++, samples += stride) memcpy(samples, &eight, 8);
    return true;
}

bool one_by_one(const JpegBlocks& blocks) {
    for (int i = 0; i < blocks.count; i++) {
        const int16_t* at = blocks.coefficients + i * JPEG_BLOCK_ROOM;
        uint8_t* to = blocks.samples + 8 * i;
        const bool done = blocks.last[i] ? careful(at, blocks.quant, to, blocks.stride)
                                         : flat(at[0] * blocks.quant[0], to, blocks.stride);
        if (!done) return false;
    }
    return true;
}

#ifdef HAS_AVX2_CODE

// Two blocks, one in each half of the registers: eight columns of one row, or eight rows of one
// column. They need not be neighbours: those that are flat are left out.
struct Eight {
    __m256i at[8];
};

INLINE_AVX2 __m256i pair_of(int16_t first, int16_t second) {
    return _mm256_set1_epi32(static_cast<uint16_t>(first) |
                             static_cast<uint32_t>(static_cast<uint16_t>(second)) << 16);
}

// One of the four pairs of outputs.
template <int SHIFT, bool QUARTER>
INLINE_AVX2 void join(int i, const __m256i even[2], const __m256i one_seven[2],
                      const __m256i three_five[2], Eight& out) {
    constexpr int HALVES = QUARTER && SHIFT == FIRST_SHIFT ? 1 : 2;
    __m256i odd[2];
    for (int half = 0; half < HALVES; half++) {
        if (QUARTER) {  // one_seven has rows 1 and 3
            odd[half] = _mm256_madd_epi16(one_seven[half], pair_of(O1[i], O3[i]));
        } else {
            odd[half] = _mm256_add_epi32(
                _mm256_madd_epi16(one_seven[half], pair_of(O1[i], O7[i])),
                _mm256_madd_epi16(three_five[half], pair_of(O3[i], O5[i])));
        }
    }
    __m256i sums[2], differences[2];
    for (int half = 0; half < HALVES; half++) {
        sums[half] = _mm256_srai_epi32(_mm256_add_epi32(even[half], odd[half]), SHIFT);
        differences[half] = _mm256_srai_epi32(_mm256_sub_epi32(even[half], odd[half]), SHIFT);
    }
    out.at[i] = _mm256_packs_epi32(sums[0], sums[HALVES - 1]);
    out.at[7 - i] = _mm256_packs_epi32(differences[0], differences[HALVES - 1]);
}

// With QUARTER the last four inputs are zero, and of the columns the last four.
template <int SHIFT, bool QUARTER>
INLINE_AVX2 void transform(Eight& block) {
    constexpr int HALVES = QUARTER && SHIFT == FIRST_SHIFT ? 1 : 2;
    const __m256i half = _mm256_set1_epi32(1 << (SHIFT - 1)), zero = _mm256_setzero_si256();
    const __m256i* at = block.at;
    __m256i zero_four[2], two_six[2], one_seven[2], three_five[2];
    const __m256i fourth = QUARTER ? zero : at[4], sixth = QUARTER ? zero : at[6];
    const __m256i seventh = QUARTER ? at[3] : at[7], fifth = QUARTER ? zero : at[5];
    zero_four[0] = _mm256_unpacklo_epi16(at[0], fourth);
    zero_four[1] = _mm256_unpackhi_epi16(at[0], fourth);
    two_six[0] = _mm256_unpacklo_epi16(at[2], sixth);
    two_six[1] = _mm256_unpackhi_epi16(at[2], sixth);
    one_seven[0] = _mm256_unpacklo_epi16(at[1], seventh);
    one_seven[1] = _mm256_unpackhi_epi16(at[1], seventh);
    three_five[0] = _mm256_unpacklo_epi16(at[3], fifth);
    three_five[1] = _mm256_unpackhi_epi16(at[3], fifth);
    __m256i even[4][2];
    for (int i = 0; i < HALVES; i++) {
        const __m256i low = _mm256_add_epi32(
            _mm256_madd_epi16(zero_four[i], pair_of(1 << BITS, 1 << BITS)), half);
        const __m256i high =
            QUARTER ? low
                    : _mm256_add_epi32(
                          _mm256_madd_epi16(zero_four[i], pair_of(1 << BITS, -(1 << BITS))), half);
        const __m256i a = _mm256_madd_epi16(two_six[i], pair_of(E2[0], E6[0]));
        const __m256i b = _mm256_madd_epi16(two_six[i], pair_of(E2[1], E6[1]));
        even[0][i] = _mm256_add_epi32(low, a);
        even[1][i] = _mm256_add_epi32(high, b);
        even[2][i] = _mm256_sub_epi32(high, b);
        even[3][i] = _mm256_sub_epi32(low, a);
    }
    join<SHIFT, QUARTER>(0, even[0], one_seven, three_five, block);
    join<SHIFT, QUARTER>(1, even[1], one_seven, three_five, block);
    join<SHIFT, QUARTER>(2, even[2], one_seven, three_five, block);
    join<SHIFT, QUARTER>(3, even[3], one_seven, three_five, block);
}

// With QUARTER the last four outputs are left as they are.
template <bool QUARTER>
INLINE_AVX2 void transpose(Eight& block) {
    __m256i* at = block.at;
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) {  // rows 2i and 2i + 1: pairs of columns 0 to 3, 4 to 7
        a[i] = _mm256_unpacklo_epi16(at[2 * i], at[2 * i + 1]);
        a[4 + i] = _mm256_unpackhi_epi16(at[2 * i], at[2 * i + 1]);
    }
    for (int i = 0; i < (QUARTER ? 2 : 4); i++) {  // fours of rows; a[2i], a[2i + 1]
        b[2 * i] = _mm256_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < (QUARTER ? 2 : 4); i++) {  // columns 2i and 2i + 1
        const int first = i % 2 + i / 2 * 4;
        at[2 * i] = _mm256_unpacklo_epi64(b[first], b[first + 2]);
        at[2 * i + 1] = _mm256_unpackhi_epi64(b[first], b[first + 2]);
    }
}

// Eight columns of samples become rows of them.
INLINE_AVX2 void store_samples(const Eight& block, uint8_t* first, uint8_t* second,
                               int64_t stride) {
    const __m256i* at = block.at;
    const __m256i centre = _mm256_set1_epi8(-128);
    __m256i bytes[4];
    for (int i = 0; i < 4; i++) {  // columns i and i + 4
        bytes[i] = _mm256_xor_si256(_mm256_packs_epi16(at[i], at[i + 4]), centre);
    }
    const __m256i low[2] = {_mm256_unpacklo_epi8(bytes[0], bytes[1]),
                            _mm256_unpacklo_epi8(bytes[2], bytes[3])};  // columns 0 to 3
    const __m256i high[2] = {_mm256_unpackhi_epi8(bytes[0], bytes[1]),
                             _mm256_unpackhi_epi8(bytes[2], bytes[3])};  // columns 4 to 7
    for (int half = 0; half < 2; half++) {
        const __m256i a = half ? _mm256_unpackhi_epi16(low[0], low[1])
                               : _mm256_unpacklo_epi16(low[0], low[1]);
        const __m256i b = half ? _mm256_unpackhi_epi16(high[0], high[1])
                               : _mm256_unpacklo_epi16(high[0], high[1]);
        for (int pair = 0; pair < 2; pair++) {
            const __m256i rows = pair ? _mm256_unpackhi_epi32(a, b) : _mm256_unpacklo_epi32(a, b);
            const __m128i one = _mm256_castsi256_si128(rows);
            const __m128i other = _mm256_extracti128_si256(rows, 1);
            _mm_storel_epi64(reinterpret_cast<__m128i*>(first), one);
            _mm_storeh_pd(reinterpret_cast<double*>(first + stride), _mm_castsi128_pd(one));
            _mm_storel_epi64(reinterpret_cast<__m128i*>(second), other);
            _mm_storeh_pd(reinterpret_cast<double*>(second + stride), _mm_castsi128_pd(other));
            first += 2 * stride;
            second += 2 * stride;
        }
    }
}

INLINE_AVX2 bool is_within(const Eight& block, int rows, int16_t most) {
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < rows; i++) {
        largest = _mm256_max_epu16(largest, _mm256_abs_epi16(block.at[i]));
    }
    const __m256i more = _mm256_subs_epu16(largest, _mm256_set1_epi16(most));
    return _mm256_testz_si256(more, more);
}

// Whether a block is too large for certainty: |DC| + 2 sum |AC| of each.
template <int ROWS>
INLINE_AVX2 bool is_loud(const Eight& block) {
    const __m256i dc = _mm256_abs_epi16(block.at[0]);
    __m256i sum = dc;
    for (int i = 1; i < ROWS; i++) sum = _mm256_adds_epi16(sum, _mm256_abs_epi16(block.at[i]));
    const __m256i its_place = _mm256_set_epi32(0, 0, 0, 0xFFFF, 0, 0, 0, 0xFFFF);
    __m256i four = _mm256_madd_epi16(sum, _mm256_set1_epi16(2));
    four = _mm256_sub_epi32(four, _mm256_and_si256(dc, its_place));
    four = _mm256_add_epi32(four, _mm256_shuffle_epi32(four, 0x4E));
    four = _mm256_add_epi32(four, _mm256_shuffle_epi32(four, 0xB1));
    const __m256i loud = _mm256_cmpgt_epi32(four, _mm256_set1_epi32(MAX_QUIET));
    return !_mm256_testz_si256(loud, loud);
}

// Two blocks; false if they are larger than what all implementations do alike.
template <bool QUARTER>
INLINE_AVX2 bool transform_pair(const JpegBlocks& blocks, int one, int other) {
    constexpr int ROWS = QUARTER ? 4 : 8;
    const int16_t* coefficients = blocks.coefficients;
    const auto first = reinterpret_cast<const __m128i*>(coefficients + one * JPEG_BLOCK_ROOM);
    const auto second = reinterpret_cast<const __m128i*>(coefficients + other * JPEG_BLOCK_ROOM);
    const auto quant = reinterpret_cast<const __m128i*>(blocks.quant);
    Eight block;
    for (int i = 0; i < ROWS; i++) {
        const __m256i both = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128(first + i)), _mm_loadu_si128(second + i), 1);
        const __m256i steps = _mm256_broadcastsi128_si256(_mm_loadu_si128(quant + i));
        block.at[i] = _mm256_mullo_epi16(both, steps);
    }
    const bool loud = is_loud<ROWS>(block);
    if (loud && !is_within(block, ROWS, MAX_INPUT)) return false;
    transform<FIRST_SHIFT, QUARTER>(block);
    if (loud && !is_within(block, 8, MAX_BETWEEN)) return false;
    transpose<QUARTER>(block);
    transform<SECOND_SHIFT, QUARTER>(block);
    if (loud && !is_within(block, 8, MAX_OUTPUT)) return false;
    store_samples(block, blocks.samples + 8 * one, blocks.samples + 8 * other, blocks.stride);
    return true;
}

AVX2 bool two_by_two(const JpegBlocks& blocks) {
    constexpr int NONE = -1;
    int small = NONE, large = NONE;  // that wait for another of their kind
    for (int i = 0; i < blocks.count; i++) {
        bool done = true;
        if (blocks.last[i] == 0) {
            done = flat(blocks.coefficients[i * JPEG_BLOCK_ROOM] * blocks.quant[0],
                        blocks.samples + 8 * i, blocks.stride);
        } else if (blocks.last[i] > LAST_OF_QUARTER) {
            if (large != NONE) done = transform_pair<false>(blocks, large, i);
            large = large == NONE ? i : NONE;
        } else {
            if (small != NONE) done = transform_pair<true>(blocks, small, i);
            small = small == NONE ? i : NONE;
        }
        if (!done) return false;
    }
    if (large != NONE) return transform_pair<false>(blocks, large, small == NONE ? large : small);
    return small == NONE || transform_pair<true>(blocks, small, small);
}

#endif

}  // namespace

bool inverse_dct(const JpegBlocks& blocks) {
#ifdef HAS_AVX2_CODE
    if (has_avx2()) return two_by_two(blocks);
#endif
    return one_by_one(blocks);
}

}  // namespace zarrgpu
