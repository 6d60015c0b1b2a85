// Upsampling of plain JPEG's chroma and conversion of colours: those of libjpeg, bit for bit.

#pragma once

#include <cstdint>

namespace zarrgpu {

// Bytes that may be read behind what is read, and written behind what is written.
constexpr int JPEG_ROW_MARGIN = 64;

// To twice the columns ("fancy", libjpeg's triangle filter): `to` has 2 `count`. `from[-1]` and
// `from[count]` are read.
void upsample_across(const uint8_t* from, int count, uint8_t* to);

// Rows of twice the number: this one from the one that is `nearer` and the one that is `farther`.
void upsample_down(const uint8_t* nearer, const uint8_t* farther, bool is_upper, int count,
                   uint8_t* to);

// Both; `nearer` and `farther` are read from -1 to `count`, `sums` has room for `count` + 2.
void upsample_both(const uint8_t* nearer, const uint8_t* farther, int count, int16_t* sums,
                   uint8_t* to);

// (count, samples) from rows of each.
void join_samples(const uint8_t* const rows[], int samples, int count, uint8_t* to);

// (count, 3), RGB, of luma and chroma.
void join_ycbcr(const uint8_t* const rows[], int count, uint8_t* to);

}  // namespace zarrgpu
