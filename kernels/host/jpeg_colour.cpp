// See jpeg_colour.h. Source: libjpeg's jdsample.c and jdcolor.c, whose roundings are kept.

#include "jpeg_colour.h"

#include <algorithm>
#include <cstring>

#include "jpeg_avx2.h"

namespace zarrgpu {
namespace {

// Parts of 2^16, of a sample less 128; what is left of whole ones is 16 bits.
constexpr int RED_CR = 91881, GREEN_CB = -22554, GREEN_CR = -46802, BLUE_CB = 116130;

uint8_t sample_of(int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

void join_ycbcr_plain(const uint8_t* const rows[], int count, uint8_t* to) {
    const uint8_t *lumas = rows[0], *cbs = rows[1], *crs = rows[2];
    constexpr int HALF = 1 << 15;
    for (int i = 0; i < count; i++) {
        const int luma = lumas[i], cb = cbs[i] - 128, cr = crs[i] - 128;
        to[3 * i] = sample_of(luma + ((RED_CR * cr + HALF) >> 16));
        to[3 * i + 1] = sample_of(luma + ((GREEN_CB * cb + GREEN_CR * cr + HALF) >> 16));
        to[3 * i + 2] = sample_of(luma + ((BLUE_CB * cb + HALF) >> 16));
    }
}

void join_three_plain(const uint8_t* const rows[], int count, uint8_t* to) {
    for (int i = 0; i < count; i++) {
        to[3 * i] = rows[0][i];
        to[3 * i + 1] = rows[1][i];
        to[3 * i + 2] = rows[2][i];
    }
}

#ifdef HAS_AVX2_CODE

constexpr int STEP = 32;

INLINE_AVX2 __m256i load(const uint8_t* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

// Where bytes of one of three colours go in 16 bytes of three; -128 for none.
struct Places {
    alignas(32) int8_t at[3][3][32];  // by part of 16 bytes, colour
};
constexpr Places places() {
    Places found = {};
    for (int part = 0; part < 3; part++) {
        for (int i = 0; i < 16; i++) {
            const int byte = 16 * part + i;
            for (int colour = 0; colour < 3; colour++) {
                const int8_t from = byte % 3 == colour ? static_cast<int8_t>(byte / 3) : -128;
                found.at[part][colour][i] = found.at[part][colour][16 + i] = from;
            }
        }
    }
    return found;
}
constexpr Places PLACES = places();

INLINE_AVX2 void store_three(__m256i red, __m256i green, __m256i blue, uint8_t* to) {
    const __m256i colours[3] = {red, green, blue};
    for (int part = 0; part < 3; part++) {
        __m256i joined = _mm256_setzero_si256();
        for (int c = 0; c < 3; c++) {
            const __m256i place =
                _mm256_load_si256(reinterpret_cast<const __m256i*>(PLACES.at[part][c]));
            joined = _mm256_or_si256(joined, _mm256_shuffle_epi8(colours[c], place));
        }
        __m128i* low = reinterpret_cast<__m128i*>(to + 16 * part);
        _mm_storeu_si128(low, _mm256_castsi256_si128(joined));
        _mm_storeu_si128(low + 3, _mm256_extracti128_si256(joined, 1));
    }
}

// 16 pixels: luma and chroma less 128 in words.
struct Words {
    __m256i red, green, blue;
};

// (words * part + 2^15) >> 16
INLINE_AVX2 __m256i times(__m256i words, int part) {
    const __m256i twice =
        _mm256_mulhi_epi16(_mm256_add_epi16(words, words), _mm256_set1_epi16(part));
    return _mm256_srai_epi16(_mm256_add_epi16(twice, _mm256_set1_epi16(1)), 1);
}

INLINE_AVX2 Words words_of(__m256i luma, __m256i cb, __m256i cr) {
    const __m256i red_rest = times(cr, RED_CR - 65536), blue_rest = times(cb, BLUE_CB - 131072);
    const __m256i parts = _mm256_set1_epi32((GREEN_CB & 0xFFFF) | (GREEN_CR + 65536) << 16);
    const __m256i rounding = _mm256_set1_epi32(1 << 15);
    const __m256i low = _mm256_srai_epi32(
        _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpacklo_epi16(cb, cr), parts), rounding), 16);
    const __m256i high = _mm256_srai_epi32(
        _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpackhi_epi16(cb, cr), parts), rounding), 16);
    const __m256i green_rest = _mm256_packs_epi32(low, high);
    return {_mm256_add_epi16(luma, _mm256_add_epi16(cr, red_rest)),
            _mm256_add_epi16(luma, _mm256_sub_epi16(green_rest, cr)),
            _mm256_add_epi16(luma, _mm256_add_epi16(_mm256_add_epi16(cb, cb), blue_rest))};
}

AVX2 void join_ycbcr_avx2(const uint8_t* const rows[], int count, uint8_t* to) {
    const __m256i zero = _mm256_setzero_si256(), centre = _mm256_set1_epi16(128);
    for (int i = 0; i < count; i += STEP) {
        i = std::min(i, count - STEP);  // the last ones again
        const __m256i luma = load(rows[0] + i), cb = load(rows[1] + i), cr = load(rows[2] + i);
        const Words low = words_of(_mm256_unpacklo_epi8(luma, zero),
                                   _mm256_sub_epi16(_mm256_unpacklo_epi8(cb, zero), centre),
                                   _mm256_sub_epi16(_mm256_unpacklo_epi8(cr, zero), centre));
        const Words high = words_of(_mm256_unpackhi_epi8(luma, zero),
                                    _mm256_sub_epi16(_mm256_unpackhi_epi8(cb, zero), centre),
                                    _mm256_sub_epi16(_mm256_unpackhi_epi8(cr, zero), centre));
        store_three(_mm256_packus_epi16(low.red, high.red),
                    _mm256_packus_epi16(low.green, high.green),
                    _mm256_packus_epi16(low.blue, high.blue), to + 3 * i);
    }
}

AVX2 void join_three_avx2(const uint8_t* const rows[], int count, uint8_t* to) {
    for (int i = 0; i < count; i += STEP) {
        i = std::min(i, count - STEP);
        store_three(load(rows[0] + i), load(rows[1] + i), load(rows[2] + i), to + 3 * i);
    }
}

// Each pair of bytes, three times the first and the second: (3 a + b + rounding) >> 2.
INLINE_AVX2 __m256i mixed(__m256i pairs, int rounding) {
    const __m256i sums = _mm256_maddubs_epi16(pairs, _mm256_set1_epi16(1 << 8 | 3));
    return _mm256_srli_epi16(_mm256_add_epi16(sums, _mm256_set1_epi16(rounding)), 2);
}

// 32 samples at a time become 64, and are more than `count`.
AVX2 void upsample_across_avx2(const uint8_t* from, int count, uint8_t* to) {
    for (int i = 0; i < count; i += STEP) {
        const __m256i at = load(from + i), left = load(from + i - 1), right = load(from + i + 1);
        __m256i both[2];  // words of the two of each
        both[0] = _mm256_or_si256(
            mixed(_mm256_unpacklo_epi8(at, left), 1),
            _mm256_slli_epi16(mixed(_mm256_unpacklo_epi8(at, right), 2), 8));
        both[1] = _mm256_or_si256(
            mixed(_mm256_unpackhi_epi8(at, left), 1),
            _mm256_slli_epi16(mixed(_mm256_unpackhi_epi8(at, right), 2), 8));
        __m256i* out = reinterpret_cast<__m256i*>(to + 2 * i);
        _mm256_storeu_si256(out, _mm256_permute2x128_si256(both[0], both[1], 0x20));
        _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(both[0], both[1], 0x31));
    }
}

INLINE_AVX2 __m256i load_words(const uint8_t* at) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

INLINE_AVX2 __m256i load_words(const int16_t* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

INLINE_AVX2 __m256i thrice(__m256i words) {
    return _mm256_add_epi16(words, _mm256_add_epi16(words, words));
}

AVX2 void upsample_both_avx2(const uint8_t* nearer, const uint8_t* farther, int count,
                             int16_t* sums, uint8_t* to) {
    constexpr int WORDS = STEP / 2;
    for (int i = 0; i < count + 2; i += WORDS) {
        const __m256i sum = _mm256_add_epi16(thrice(load_words(nearer + i - 1)),
                                             load_words(farther + i - 1));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + i), sum);
    }
    for (int i = 0; i < count; i += WORDS) {
        const __m256i at = thrice(load_words(sums + i + 1));
        const __m256i left = _mm256_add_epi16(load_words(sums + i), _mm256_set1_epi16(8));
        const __m256i right = _mm256_add_epi16(load_words(sums + i + 2), _mm256_set1_epi16(7));
        const __m256i first = _mm256_srli_epi16(_mm256_add_epi16(at, left), 4);
        const __m256i second = _mm256_srli_epi16(_mm256_add_epi16(at, right), 4);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * i),
                            _mm256_or_si256(first, _mm256_slli_epi16(second, 8)));
    }
}

#endif

}  // namespace

void upsample_across(const uint8_t* from, int count, uint8_t* to) {
#ifdef HAS_AVX2_CODE
    if (has_avx2()) return upsample_across_avx2(from, count, to);
#endif
    for (int i = 0; i < count; i++) {
        const int three = 3 * from[i];
        to[2 * i] = static_cast<uint8_t>((three + from[i - 1] + 1) >> 2);
        to[2 * i + 1] = static_cast<uint8_t>((three + from[i + 1] + 2) >> 2);
    }
}

void upsample_down(const uint8_t* nearer, const uint8_t* farther, bool is_upper, int count,
                   uint8_t* to) {
    const int rounding = is_upper ? 1 : 2;
    for (int i = 0; i < count; i++) {
        to[i] = static_cast<uint8_t>((3 * nearer[i] + farther[i] + rounding) >> 2);
    }
}

void upsample_both(const uint8_t* nearer, const uint8_t* farther, int count, int16_t* sums,
                   uint8_t* to) {
#ifdef HAS_AVX2_CODE
    if (has_avx2()) return upsample_both_avx2(nearer, farther, count, sums, to);
#endif
    for (int i = 0; i < count + 2; i++) {
        sums[i] = static_cast<int16_t>(3 * nearer[i - 1] + farther[i - 1]);
    }
    for (int i = 0; i < count; i++) {
        const int three = 3 * sums[i + 1];
        to[2 * i] = static_cast<uint8_t>((three + sums[i] + 8) >> 4);
        to[2 * i + 1] = static_cast<uint8_t>((three + sums[i + 2] + 7) >> 4);
    }
}

void join_samples(const uint8_t* const rows[], int samples, int count, uint8_t* to) {
    if (samples == 1) {
        memcpy(to, rows[0], count);
    } else if (samples == 3) {
#ifdef HAS_AVX2_CODE
        if (count >= STEP && has_avx2()) return join_three_avx2(rows, count, to);
#endif
        join_three_plain(rows, count, to);
    } else {
        for (int i = 0; i < count; i++) {
            for (int s = 0; s < samples; s++) to[i * samples + s] = rows[s][i];
        }
    }
}

void join_ycbcr(const uint8_t* const rows[], int count, uint8_t* to) {
#ifdef HAS_AVX2_CODE
    if (count >= STEP && has_avx2()) return join_ycbcr_avx2(rows, count, to);
#endif
    join_ycbcr_plain(rows, count, to);
}

}  // namespace zarrgpu
