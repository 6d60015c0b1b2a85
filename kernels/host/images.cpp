// See images.h.

#include "images.h"

#include "jpeg.h"
#include "jpeg2k.h"
#include "jpeg_plain.h"

namespace zarrgpu {
namespace {

bool decode_any_jpeg(const Image& image, const uint8_t* src, int64_t src_nbytes, int64_t first,
                     int64_t count, Columns columns, uint8_t* dst) {
    return (decodes_plain_jpeg_fast() &&
            decode_plain_jpeg(image, src, src_nbytes, first, count, columns, dst)) ||
           decode_jpeg(image, src, src_nbytes, first, count, dst);
}

}  // namespace

bool is_image(int64_t codec) { return codec == JPEG || codec == JPEG2K; }

const uint8_t* decode_image(const Array& array, const uint8_t* src, int64_t src_nbytes,
                            int64_t start, int64_t nbytes, Columns columns, uint8_t* target,
                            Scratch& scratch) {
    const Image& image = *array.image;
    const int64_t row_nbytes = image.width * image.samples;
    if (image.height * row_nbytes != array.decoded_nbytes || nbytes < 1) return nullptr;
    const int64_t first = start / row_nbytes;
    const int64_t count = (start + nbytes - 1) / row_nbytes + 1 - first;
    uint8_t* room = target ? target : scratch.room(count * row_nbytes);
    if (!room || (target && count * row_nbytes != nbytes)) return nullptr;
    const bool done =
        array.codec == JPEG
            ? decode_any_jpeg(image, src, src_nbytes, first, count, columns, room)
            : decode_jpeg2k(image, src, src_nbytes, first, count, columns, room);
    return done ? room + (start - first * row_nbytes) : nullptr;
}

}  // namespace zarrgpu
