// Baseline and extended JPEG of one scan, by the libjpeg-turbo that imagecodecs brings.

#pragma once

#include <cstddef>
#include <cstdint>

#include "tables.h"

namespace zarrgpu {

// Functions of libjpeg-turbo, which its jpeglib.h declares; null where it was not found. Mirrored by
// zarrgpu/devices/native.py. Pointers to its structures are those of jpeg.cpp.
struct JpegLibrary {
    void* (*std_error)(void* errors);
    void (*create)(void* info, int version, size_t info_nbytes);
    void (*destroy)(void* info);
    void (*mem_src)(void* info, const uint8_t* src, unsigned long src_nbytes);
    int (*read_header)(void* info, int require_image);
    int (*start)(void* info);
    uint32_t (*read_rows)(void* info, uint8_t** rows, uint32_t most);
    uint32_t (*skip_rows)(void* info, uint32_t count);
};

// Take the functions; whether they are those of a library whose structures are known here.
bool use_jpeg_library(const JpegLibrary& found);

// Decode rows `first` to `first + count` of a stream into `dst`, (count, width, samples). False,
// with `dst` undefined, for whatever is not plain: zarrgpu/codecs/jpeg.py decides then.
bool decode_jpeg(const Image& image, const uint8_t* src, int64_t src_nbytes, int64_t first,
                 int64_t count, uint8_t* dst);

// Whether libjpeg warns of the entropy-coded data of a stream of any kind, whose header was looked
// at: then it completes the image with what was not encoded. False where it can not be asked, or
// refuses the stream. `scratch` is as large as the image.
bool jpeg_warns(const Image& image, const uint8_t* src, int64_t src_nbytes, uint8_t* scratch);

}  // namespace zarrgpu
