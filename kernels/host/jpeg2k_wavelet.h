// Inverse wavelet transforms of JPEG 2000, and from components to pixels.

#pragma once

#include <cstdint>

namespace zarrgpu {

// Samples `first` to `end` along one axis.
struct Interval {
    int first;
    int end;
};

// One level: join the four sub-bands that lie in the corners of the first `width` x `height` of a
// plane, of `stride` elements to the row, low-pass first. What is needed of the result is right if
// what `wavelet_needs` says of the sub-bands is. `room` holds `width + 16 * height` elements.
void join_bands_97(float* plane, int stride, int width, int height, Interval rows,
                   Interval columns, float* room);
void join_bands_53(int32_t* plane, int stride, int width, int height, Interval rows,
                   Interval columns, int32_t* room);

// Samples of each half, low- and high-pass alike, that `needed` of `size` samples depend on.
Interval wavelet_needs(Interval needed, int size);

// `count` samples of three planes undergo the inverse component transform, or none, and become bytes
// of pixels: moved by half the range, rounded, clamped.
void pixels_97(const float* const planes[], int samples, bool transformed, int count, uint8_t* dst);
void pixels_53(const int32_t* const planes[], int samples, bool transformed, int count,
               uint8_t* dst);

// Turn `count` pixels of full-range BT.601 YCbCr into RGB, as zarrgpu/codecs/jpeg2k.py does.
void ycbcr_to_rgb(uint8_t* pixels, int64_t count);

}  // namespace zarrgpu
