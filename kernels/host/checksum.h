// CRC-32C (Castagnoli), by the processor's instruction where it has one.

#pragma once

#include <cstdint>

namespace zarrgpu {

// `by_tables` does without the instruction.
uint32_t crc32c(const uint8_t* data, int64_t nbytes, bool by_tables = false);

}  // namespace zarrgpu
