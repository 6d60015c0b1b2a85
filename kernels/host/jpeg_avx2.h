// Whether code of the JPEG decoder for AVX2 is compiled, and runs.
//
// The thread sanitizer's build does without, so that what all machines have is tested as well.

#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_THREAD__)
#include <immintrin.h>
#define HAS_AVX2_CODE 1
#define AVX2 __attribute__((target("avx2")))
#define INLINE_AVX2 __attribute__((target("avx2"), always_inline)) inline
#endif

namespace zarrgpu {

inline bool has_avx2() {
#ifdef HAS_AVX2_CODE
    static const bool found = __builtin_cpu_supports("avx2");
    return found;
#else
    return false;
#endif
}

}  // namespace zarrgpu
