// Numbers of JPEG and JPEG 2000 headers.

#pragma once

#include <cstdint>

namespace zarrgpu {

inline int big16(const uint8_t* at) { return at[0] << 8 | at[1]; }
inline int64_t big32(const uint8_t* at) { return int64_t{big16(at)} << 16 | big16(at + 2); }

}  // namespace zarrgpu
