// Chunks that are images, decoded as far as their pieces need them.

#pragma once

#include <cstdint>

#include "files.h"
#include "tables.h"

namespace zarrgpu {

struct Columns {
    int64_t first;
    int64_t end;
};

bool is_image(int64_t codec);

// Bytes `start` to `start + nbytes` of a decoded image: at `target`, or in `scratch` where that is
// null; null if they cannot be had here. Only the given columns of each row need be right.
const uint8_t* decode_image(const Array& array, const uint8_t* src, int64_t src_nbytes,
                            int64_t start, int64_t nbytes, Columns columns, uint8_t* target,
                            Scratch& scratch);

}  // namespace zarrgpu
