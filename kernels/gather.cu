// Place every piece of every patch of a batch: decoded chunks in, the output batch out.
//
// A piece is a box of one decoded chunk (or of the fill value) and the box of the output where it
// goes; both are strided, so the same kernel transposes, flips, subsamples and turns NHWC into NCHW.
// On the way it undoes Blosc's byte shuffle, swaps bytes, casts and normalises, in that order:
//
//   copy   source_type == target_type and no scale: bits are moved, of any element size 1 ... 16
//   cast   bool, integers and floats to f2, f4 or f8, rounded as NumPy's astype does
//   scale  float32(x) * scale[channel] + offset[channel], two roundings, then cast to the target
//
// Geometry: one warp per tile of `tile_elements` elements of one piece, in C order of its box (see
// common.cuh); no shared memory. Within a tile a thread takes an *item*: up to `slots` neighbours of
// a *run*, the trailing dims along which the target is contiguous; items start at multiples of
// `slots` elements in memory, so that full ones are one or two 16-byte stores, and neighbouring
// threads have neighbouring items. Where the target is not contiguous an item is one element.
// Alignment: target a multiple of min(element size, 8); sources any. Pieces of a launch must not
// overlap in the target.
// Fused unshuffle: element e of a source of `shuffle_block_nbytes` blocks lies in block b = e / B, with
// B elements a block (the last one shorter); byte j of element k of a block of n is at j * n + k.
// Reference: gather in tests/kernel_references.py.
#include "elements.cuh"
#include "gather_piece.cuh"

// ------------------------------------------------------------------------------------ elements

// Block of a shuffled source that a thread read last; consecutive elements mostly share it.
struct Block {
    u64 address;
    u32 begin, n;
};

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
        if (u32(element) - block.begin >= block.n) {
            const u32 b = u32(element) / p.block_elements;
            block.begin = b * p.block_elements;
            const u32 left = p.source_elements - block.begin;
            block.n = left < p.block_elements ? left : p.block_elements;
            block.address = p.source + u64(block.begin) * SIZE;
        }
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

// ---------------------------------------------------------------------------------------- copy

// An item whose source is 16 contiguous bytes.
template <int SIZE>
__device__ inline bool is_vector(const Piece& p, const Item& item) {
    constexpr int SLOTS = 16 / SIZE;
    return item.count == SLOTS && p.source != 0 && p.block_elements == 0 &&
           (item.target & 15) == 0 && item.place.left >= SLOTS &&
           (SLOTS == 1 || __ldg(p.layout->source_strides + MAX_DIMS - 1) == 1);
}

template <int SIZE>
__device__ inline uint4 load_vector(const Piece& p, const Item& item) {
    const uint4 v = load16(p.source + u64(item.place.source) * SIZE, p.source, p.source_end);
    return p.swap_nbytes ? swap_bytes(v, p.swap_nbytes) : v;
}

// Any other item, element by element, still with one store where it is full.
template <int SIZE>
__device__ inline void copy_item(const Piece& p, Item item, Block& block) {
    constexpr int N = SIZE < 8 ? SIZE : 8;  // opaque elements of 16 bytes come in two halves
    constexpr int PARTS = SIZE / N;
    u64 low = 0, high = 0;
#pragma unroll 2
    for (i32 i = 0; i < item.count; ++i) {
        u64 bits = load_part<SIZE, 0, N>(p, item.place.source, block);
        if constexpr (N < 8) bits &= (u64(1) << (8 * N)) - 1;
        if (i * N < 8) low |= bits << (8 * N * i % 64);
        else high |= bits << (8 * N * i % 64);
        if constexpr (PARTS == 2) high = load_part<SIZE, 8, N>(p, item.place.source, block);
        advance(p, item);
    }
    if (item.count * SIZE == 16 && (item.target & 15) == 0) {
        uint4 v;
        v.x = u32(low);
        v.y = u32(low >> 32);
        v.z = u32(high);
        v.w = u32(high >> 32);
        store(item.target, v);
        return;
    }
#pragma unroll 1
    for (i32 i = 0; i < item.count * PARTS; ++i) {
        const u64 bits = (i * N < 8 ? low : high) >> (8 * N * i % 64);
        const u64 address = item.target + u64(i) * N;
        if constexpr (N == 1) store(address, u8(bits));
        if constexpr (N == 2) store(address, u16(bits));
        if constexpr (N == 4) store(address, u32(bits));
        if constexpr (N == 8) store(address, bits);
    }
}

template <int SIZE>
__device__ inline void copy_tile(const Piece& p, u32 begin, u32 end, i32 lane) {
    const Tile t = cut_tile(p, begin, end, 16 / SIZE);
    Block block = {0, 0, 0};
#pragma unroll 1
    for (u32 number = u32(lane); number < t.n_items; number += 32) {
        const Item item = find_item(p, t, number);
        if (is_vector<SIZE>(p, item)) store(item.target, load_vector<SIZE>(p, item));
        else copy_item<SIZE>(p, item, block);
    }
}

// ---------------------------------------------------------------------------------------- cast

constexpr int CAST_SLOTS = 4;

__device__ inline void store_doubles(u64 target, const u64* v, i32 count) {
    if (count == CAST_SLOTS && (target & 15) == 0) {
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; i += 2) {
            uint4 w;
            w.x = u32(v[i]);
            w.y = u32(v[i] >> 32);
            w.z = u32(v[i + 1]);
            w.w = u32(v[i + 1] >> 32);
            store(target + u64(i) * 8, w);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < CAST_SLOTS; ++i)
        if (i < count) store(target + u64(i) * 8, v[i]);
}

__device__ inline void store_floats(u64 target, const float* v, i32 count) {
    if (count == CAST_SLOTS && (target & 15) == 0) {
        uint4 w;
        w.x = __float_as_uint(v[0]);
        w.y = __float_as_uint(v[1]);
        w.z = __float_as_uint(v[2]);
        w.w = __float_as_uint(v[3]);
        store(target, w);
        return;
    }
#pragma unroll
    for (int i = 0; i < CAST_SLOTS; ++i)
        if (i < count) store(target + u64(i) * 4, __float_as_uint(v[i]));
}

__device__ inline void store_halves(u64 target, const u16* v, i32 count) {
    if (count == CAST_SLOTS && (target & 7) == 0) {
        const u64 low = u64(v[0]) | u64(v[1]) << 16, high = u64(v[2]) | u64(v[3]) << 16;
        store(target, low | high << 32);
        return;
    }
#pragma unroll
    for (int i = 0; i < CAST_SLOTS; ++i)
        if (i < count) store(target + u64(i) * 2, v[i]);
}

__device__ inline void store_cast(i32 type, u64 target, const float* v, i32 count) {
    if (type == TYPE_F4) {
        store_floats(target, v, count);
    } else if (type == TYPE_F2) {
        u16 halves[CAST_SLOTS];
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; ++i) halves[i] = f32_to_f16(v[i]);
        store_halves(target, halves, count);
    } else {
        u64 doubles[CAST_SLOTS];
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; ++i)
            doubles[i] = u64(__double_as_longlong(f32_to_f64(v[i])));
        store_doubles(target, doubles, count);
    }
}

// Casts that go through float32, which is all of them but those of cast_wide_tile.
template <int SIZE>
__device__ inline void cast_tile(const Piece& p, u32 begin, u32 end, i32 lane) {
    const Tile t = cut_tile(p, begin, end, CAST_SLOTS);
    Block block = {0, 0, 0};
#pragma unroll 1
    for (u32 number = u32(lane); number < t.n_items; number += 32) {
        Item item = find_item(p, t, number);
        u64 bits[CAST_SLOTS] = {0, 0, 0, 0};
        i32 channels[CAST_SLOTS] = {0, 0, 0, 0};
#pragma unroll
        for (i32 i = 0; i < CAST_SLOTS; ++i) {
            if (i >= item.count) continue;
            bits[i] = load_bits<SIZE>(p, item.place.source, block);
            channels[i] = item.place.channel;
            advance(p, item);
        }
        float v[CAST_SLOTS];
#pragma unroll
        for (i32 i = 0; i < CAST_SLOTS; ++i) {
            v[i] = as_f32(p.source_type, bits[i]);
            if (!p.scale || i >= item.count) continue;
            const u64 at = u64(channels[i]) * 4;
            v[i] = normalise(v[i], load<float>(p.scale + at), load<float>(p.layout->offset + at));
        }
        store_cast(p.target_type, item.target, v, item.count);
    }
}

// Casts that would lose bits in float32: to f8, and from f8 to f2, without a scale.
__device__ inline void cast_wide_tile(const Piece& p, u32 begin, u32 end, i32 lane) {
    const Tile t = cut_tile(p, begin, end, CAST_SLOTS);
    Block block = {0, 0, 0};
#pragma unroll 1
    for (u32 number = u32(lane); number < t.n_items; number += 32) {
        Item item = find_item(p, t, number);
        u64 doubles[CAST_SLOTS] = {0, 0, 0, 0};
#pragma unroll
        for (i32 i = 0; i < CAST_SLOTS; ++i) {
            if (i >= item.count) continue;
            const u64 bits = load_bits<0>(p, item.place.source, block);
            doubles[i] = u64(__double_as_longlong(as_f64(p.source_type, bits)));
            advance(p, item);
        }
        if (p.target_type == TYPE_F8) {
            store_doubles(item.target, doubles, item.count);
            continue;
        }
        u16 halves[CAST_SLOTS];
#pragma unroll
        for (i32 i = 0; i < CAST_SLOTS; ++i)
            halves[i] = f64_to_f16(__longlong_as_double(i64(doubles[i])));
        store_halves(item.target, halves, item.count);
    }
}

// --------------------------------------------------------------------------------------- launch

__device__ inline void gather_tile(const Piece& p, u32 begin, u32 end, i32 lane) {
    const i32 size = type_nbytes(p.source_type);
    if (p.source_type == p.target_type && !p.scale) {
        switch (size) {
            case 1: copy_tile<1>(p, begin, end, lane); return;
            case 2: copy_tile<2>(p, begin, end, lane); return;
            case 4: copy_tile<4>(p, begin, end, lane); return;
            case 8: copy_tile<8>(p, begin, end, lane); return;
            default: copy_tile<16>(p, begin, end, lane); return;
        }
    }
    const bool wide = p.target_type == TYPE_F8 ||
                      (p.source_type == TYPE_F8 && p.target_type == TYPE_F2);
    if (wide && !p.scale) cast_wide_tile(p, begin, end, lane);
    else if (size == 1) cast_tile<1>(p, begin, end, lane);  // images: worth their own code
    else if (size == 2) cast_tile<2>(p, begin, end, lane);
    else cast_tile<0>(p, begin, end, lane);
}

extern "C" __global__ void gather(const GatherJob* jobs,        // (n_jobs,)
                                  i32 n_jobs,
                                  const i64* tile_starts,       // (n_jobs + 1,)
                                  i32 tile_elements,
                                  const GatherLayout* layouts,  // (n_layouts,)
                                  i32 n_layouts,
                                  i32* status)                  // (n_jobs,) out
{
    const i32 lane = threadIdx.x & 31;
    const i64 n_tiles = tile_starts[n_jobs];
    for (i64 tile = warp_index(); tile < n_tiles; tile += warp_count()) {
        const i32 index = find_job(tile_starts, n_jobs, tile);
        const i64 tile_of_job = tile - tile_starts[index];
        Piece piece;
        const i32 code = read_piece(jobs + index, layouts, n_layouts, piece);
        if (lane == 0 && tile_of_job == 0) status[index] = code;
        if (code != STATUS_OK) continue;
        const i64 begin = tile_of_job * tile_elements;
        if (begin >= piece.volume) continue;
        const i64 left = i64(piece.volume) - begin;
        const u32 from = u32(begin), to = u32(begin + (left < tile_elements ? left : tile_elements));
        gather_tile(piece, from, to, lane);
    }
}
