// How the elements of an item are read: all of them at once where their sources lie side by side, in
// the planes of a shuffled block, or evenly spaced in a row; else one by one. Loads come before what is
// done with them, so that all of an item's are in flight together.
#pragma once

#include "gather_piece.cuh"

// Block of a shuffled source that a thread read last; consecutive elements mostly share it.
struct Block {
    u64 address;
    u32 begin, n;
};

// Make `block` the one that holds an element.
__device__ inline void find_block(const Piece& p, u32 element, i32 size, Block& block) {
    if (element - block.begin < block.n) return;
    block.begin = element / p.block_elements * p.block_elements;
    const u32 left = p.source_elements - block.begin;
    block.n = left < p.block_elements ? left : p.block_elements;
    block.address = p.source + u64(block.begin) * u64(size);
}

// ---------------------------------------------------------------------------------- one by one

// N bytes of an element of SIZE bytes, from byte FIRST on, in native order (SIZE is 16 only for
// opaque elements, which come in two halves).
template <int SIZE, int FIRST, int N>
__device__ inline u64 load_part(const Piece& p, i64 element, Block& block) {
    u64 value = 0;
    if (p.source == 0) {
#pragma unroll 1
        for (int j = 0; j < N; ++j) value |= u64(__ldg(p.layout->fill + FIRST + j)) << (8 * j);
        return value;
    }
    if (p.block_elements == 0) {
        value = load_bytes<N>(p.source + u64(element) * SIZE + FIRST);
    } else {
        find_block(p, u32(element), SIZE, block);
        const u64 address = block.address + (u32(element) - block.begin);
#pragma unroll
        for (int j = 0; j < N; ++j)
            value |= u64(load<u8>(address + u64(FIRST + j) * block.n)) << (8 * j);
    }
    return p.swap_nbytes ? swap_bytes(value, p.swap_nbytes) : value;
}

// A whole element of up to 8 bytes; SIZE 0 is any size, told at run time.
template <int SIZE>
__device__ inline u64 load_bits(const Piece& p, i64 element, Block& block) {
    if constexpr (SIZE != 0) return load_part<SIZE, 0, SIZE>(p, element, block);
    switch (type_nbytes(p.source_type)) {
        case 1: return load_part<1, 0, 1>(p, element, block);
        case 2: return load_part<2, 0, 2>(p, element, block);
        case 4: return load_part<4, 0, 4>(p, element, block);
        default: return load_part<8, 0, 8>(p, element, block);
    }
}

// --------------------------------------------------------------------------------- all at once

// N words from any alignment. The caller has checked that they lie in [low, high); a misaligned load
// reads whole words, up to 3 bytes on either side, and only where these lie in there too.
template <int N>
__device__ inline void load_words(u64 address, u64 low, u64 high, u32* w) {
    const u64 word = address & ~u64(3);
    const u32 shift = u32(address & 3) * 8;
    if (N % 4 == 0 && (address & 15) == 0) {
#pragma unroll
        for (int i = 0; i < N / 4; ++i) {
            const uint4 v = load<uint4>(address + u64(i) * 16);
            w[4 * i] = v.x;
            w[4 * i + 1] = v.y;
            w[4 * i + 2] = v.z;
            w[4 * i + 3] = v.w;
        }
    } else if (N == 2 && (address & 7) == 0) {
        const u64 v = load<u64>(address);
        w[0] = u32(v);
        w[N - 1] = u32(v >> 32);
    } else if (shift == 0) {
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = load<u32>(word + u64(i) * 4);
    } else if (word >= low && word + 4 * N + 4 <= high) {
        const u32 more = load<u32>(word + 4 * N);
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = load<u32>(word + u64(i) * 4);
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = __funnelshift_r(w[i], i + 1 < N ? w[i + 1] : more, shift);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = u32(load_bytes<4>(address + u64(i) * 4));
    }
}

// N elements of 2 or 4 bytes from `address` on in the first plane of a shuffled block.
template <int SIZE, int N>
__device__ inline void load_planes(const Piece& p, u64 address, u32 distance, u32* w) {
    u32 planes[SIZE][N / 4];
#pragma unroll
    for (int j = 0; j < SIZE; ++j)
        load_words<N / 4>(address + u64(j) * distance, p.source, p.source_end, planes[j]);
#pragma unroll
    for (int i = 0; i < N / 4; ++i) {
        if constexpr (SIZE == 2) {
            w[2 * i] = __byte_perm(planes[0][i], planes[1][i], 0x5140);
            w[2 * i + 1] = __byte_perm(planes[0][i], planes[1][i], 0x7362);
        } else {
            const u32 a = __byte_perm(planes[0][i], planes[1][i], 0x5140);
            const u32 b = __byte_perm(planes[0][i], planes[1][i], 0x7362);
            const u32 c = __byte_perm(planes[2][i], planes[3][i], 0x5140);
            const u32 d = __byte_perm(planes[2][i], planes[3][i], 0x7362);
            w[4 * i] = __byte_perm(a, c, 0x5410);
            w[4 * i + 1] = __byte_perm(a, c, 0x7632);
            w[4 * i + 2] = __byte_perm(b, d, 0x5410);
            w[4 * i + 3] = __byte_perm(b, d, 0x7632);
        }
    }
}

// N elements of 1 ... 8 bytes, `stride` bytes from one to the next, each aligned to its size.
template <int SIZE, int N>
__device__ inline void load_spaced(u64 address, i64 stride, u32* w) {
    if constexpr (SIZE == 8) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const u64 v = load<u64>(address + u64(i * stride));
            w[2 * i] = u32(v);
            w[2 * i + 1] = u32(v >> 32);
        }
    } else {
        constexpr int PER_WORD = 4 / SIZE;
        u32 bits[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const u64 at = address + u64(i * stride);
            if constexpr (SIZE == 1) bits[i] = load<u8>(at);
            if constexpr (SIZE == 2) bits[i] = load<u16>(at);
            if constexpr (SIZE == 4) bits[i] = load<u32>(at);
        }
#pragma unroll
        for (int i = 0; i < N / PER_WORD; ++i) {
            w[i] = bits[PER_WORD * i];
#pragma unroll
            for (int j = 1; j < PER_WORD; ++j) w[i] |= bits[PER_WORD * i + j] << (8 * SIZE * j % 32);
        }
    }
}

// N elements of the fill value.
template <int SIZE, int N>
__device__ inline void load_fill(const Piece& p, u32* w) {
    constexpr int WORDS = SIZE * N / 4;
#pragma unroll
    for (int i = 0; i < WORDS; ++i) {
        w[i] = 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) w[i] |= u32(__ldg(p.layout->fill + (4 * i + j) % SIZE)) << (8 * j);
    }
}

// The N elements of a full item in native order, packed into words; false where they have to be read
// one by one. `run` is the piece's source_run.
template <int SIZE, int N>
__device__ inline bool load_item(const Piece& p, const Item& item, u32 run, Block& block, u32* w) {
    constexpr int WORDS = SIZE * N / 4;
    const bool side_by_side = run - item.index % run >= N;
    if (p.source == 0) {
        if (!side_by_side) return false;
        load_fill<SIZE, N>(p, w);
        return true;
    }
    const u64 address = p.source + u64(item.place.source) * SIZE;
    if (p.block_elements == 0) {
        const i64 stride = __ldg(p.layout->source_strides + MAX_DIMS - 1);
        if (side_by_side) {
            load_words<WORDS>(address, p.source, p.source_end, w);
        } else if (SIZE <= 8 && item.place.left >= N && (p.source & (SIZE - 1)) == 0) {
            load_spaced<SIZE <= 8 ? SIZE : 8, N>(address, stride * SIZE, w);
        } else {
            return false;
        }
    } else {
        if ((SIZE != 2 && SIZE != 4) || !side_by_side) return false;
        const u32 element = u32(item.place.source);
        find_block(p, element, SIZE, block);
        if (block.begin + block.n - element < N) return false;
        load_planes<SIZE == 2 ? 2 : 4, SIZE == 2 || SIZE == 4 ? N : 4>(
            p, block.address + (element - block.begin), block.n, w);
    }
    if (p.swap_nbytes == 0) return true;
    if (p.swap_nbytes == 8) {
#pragma unroll
        for (int i = 0; i + 1 < WORDS; i += 2) {
            const u64 v = swap_bytes(u64(w[i]) | u64(w[i + 1]) << 32, 8);
            w[i] = u32(v);
            w[i + 1] = u32(v >> 32);
        }
    } else {
#pragma unroll
        for (int i = 0; i < WORDS; ++i) w[i] = swap_word(w[i], p.swap_nbytes);
    }
    return true;
}
