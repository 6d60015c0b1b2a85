// Inverse wavelet transforms of JPEG 2000, and from components to pixels: of floats the
// irreversible ones (9-7), of integers the reversible ones (5-3).

#pragma once

#include <cstdint>

namespace zarrgpu {

// Samples `first` to `end` along one axis.
struct Interval {
    int first;
    int end;
};

template <typename T>
struct Plane {
    T* samples;
    int stride;  // samples from one row to the next
    T* row(int y) const { return samples + static_cast<int64_t>(y) * stride; }
};

// One level: join four sub-bands to `width` x `height` samples. `low` is the one that is low-pass
// in both directions; `details` holds the others, each in its corner. Of the result only what is
// asked for is right, if what `wavelet_needs` says of the sub-bands is. `room` holds `width`
// samples.
void join_bands(Plane<float> low, Plane<float> details, Plane<float> joined, int width, int height,
                Interval rows, Interval columns, float* room);
void join_bands(Plane<int32_t> low, Plane<int32_t> details, Plane<int32_t> joined, int width,
                int height, Interval rows, Interval columns, int32_t* room);

// Samples of each half, low- and high-pass alike, that `needed` of `size` samples depend on.
Interval wavelet_needs(Interval needed, int size);

// `count` samples of three planes undergo the inverse component transform, or none, and become
// bytes of pixels: moved by half the range, rounded, clamped.
void to_pixels(const float* const planes[], int samples, bool transformed, int count, uint8_t* dst);
void to_pixels(const int32_t* const planes[], int samples, bool transformed, int count,
               uint8_t* dst);

// Turn `count` pixels of full-range BT.601 YCbCr into RGB, as zarrgpu/codecs/jpeg2k.py does.
void ycbcr_to_rgb(uint8_t* pixels, int64_t count);

// The same of `count` pixels of which two share a sample of `cb` and `cr`, as OpenJPEG's programs
// and imagecodecs do it: `odd`, where the first pixel is the second that uses the first samples.
void subsampled_to_rgb(const uint8_t* luma, const uint8_t* cb, const uint8_t* cr, int odd,
                       int count, uint8_t* dst);

}  // namespace zarrgpu
