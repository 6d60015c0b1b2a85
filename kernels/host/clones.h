// How functions are compiled. CLONES: for several kinds of processors, of which the loader takes
// the one that suits: CLONES("avx2") is the plain one, and one with AVX2. INLINE: within those that
// call.

#pragma once

#include <cstdint>  // tells which library of C this is

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__)
#define CLONES(...) __attribute__((target_clones(__VA_ARGS__, "default")))
#else
#define CLONES(...)
#endif

#define INLINE __attribute__((always_inline)) inline
