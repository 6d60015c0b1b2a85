// A decoder of our own for the JPEG that slides have: of tiles, what the wanted area takes.

#pragma once

#include <cstdint>

#include "images.h"
#include "tables.h"

namespace zarrgpu {

// Decode rows `first` to `first + count` of a sequential stream of one scan into `dst`, (count,
// width, samples), of which only the columns are written. Pixels are those of libjpeg-turbo. False,
// with `dst` undefined, for whatever is not plain: libjpeg decides then.
bool decode_plain_jpeg(const Image& image, const uint8_t* src, int64_t src_nbytes, int64_t first,
                       int64_t count, Columns columns, uint8_t* dst);

// Whether that is faster here than libjpeg, whose code is written for each machine.
bool decodes_plain_jpeg_fast();

// Give memory of more than `nbytes` back.
void keep_jpeg_memory(int64_t nbytes);

}  // namespace zarrgpu
