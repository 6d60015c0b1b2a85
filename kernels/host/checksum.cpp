// See checksum.h. RFC 3720, appendix B.4: reflected polynomial 0x82F63B78.

#include "checksum.h"

#include <array>
#include <cstring>

namespace zarrgpu {
namespace {

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
    Tables tables{};
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
        tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int t = 1; t < 8; t++) {
            const uint32_t crc = tables[t - 1][i];
            tables[t][i] = (crc >> 8) ^ tables[0][crc & 0xFF];
        }
    }
    return tables;
}

constexpr Tables TABLES = make_tables();

// Eight bytes at a time ("slicing by 8").
uint32_t run_tables(uint32_t crc, const uint8_t* data, int64_t nbytes) {
    for (; nbytes >= 8; data += 8, nbytes -= 8) {
        uint32_t next = 0;
        for (int i = 0; i < 4; i++) next ^= TABLES[7 - i][(data[i] ^ (crc >> 8 * i)) & 0xFF];
        for (int i = 4; i < 8; i++) next ^= TABLES[7 - i][data[i]];
        crc = next;
    }
    for (; nbytes > 0; data++, nbytes--) crc = (crc >> 8) ^ TABLES[0][(crc ^ *data) & 0xFF];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t run_instruction(uint32_t crc, const uint8_t* data,
                                                          int64_t nbytes) {
    uint64_t wide = crc;
    for (; nbytes >= 8; data += 8, nbytes -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = static_cast<uint32_t>(wide);
    for (; nbytes > 0; data++, nbytes--) crc = __builtin_ia32_crc32qi(crc, *data);
    return crc;
}
#endif

}  // namespace

uint32_t crc32c(const uint8_t* data, int64_t nbytes, [[maybe_unused]] bool by_tables) {
#if defined(__x86_64__)
    static const bool has_instruction = __builtin_cpu_supports("sse4.2");
    if (has_instruction && !by_tables) return ~run_instruction(~0u, data, nbytes);
#endif
    return ~run_tables(~0u, data, nbytes);
}

}  // namespace zarrgpu
