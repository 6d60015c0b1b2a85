// JPEG 2000 codestreams of one tile, as whole-slide files hold them: decoded as far as is needed.

#pragma once

#include <cstdint>

#include "images.h"
#include "tables.h"

namespace zarrgpu {

// Decode rows `first` to `first + count` of a codestream into `dst`, (count, width, samples), the
// given columns at least. False, with `dst` undefined, for whatever is not plain: then
// zarrgpu/codecs/jpeg2k.py, that is OpenJPEG, decides. Where it is decoded, its pixels are OpenJPEG's.
bool decode_jpeg2k(const Image& image, const uint8_t* src, int64_t src_nbytes, int64_t first,
                   int64_t count, Columns columns, uint8_t* dst);

// Give memory of the calling thread back, beyond `nbytes`.
void keep_jpeg2k_memory(int64_t nbytes);

}  // namespace zarrgpu
