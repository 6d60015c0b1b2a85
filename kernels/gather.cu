// Place every piece of every patch of a batch: decoded chunks in, the output batch out.
//
// A piece is a box of one decoded chunk (or of the fill value) and the box of the output where it
// goes; both are strided, so the same kernel transposes, flips, subsamples and turns NHWC into NCHW.
// On the way it undoes Blosc's byte shuffle, swaps bytes, casts and normalises, in that order:
//
//   copy   source_type == target_type and no scale: bits are moved, of any element size 1 ... 16
//   cast   bool, integers and floats to f2, f4, f8 or bfloat16, rounded as NumPy's astype does (and
//          ml_dtypes'); bool and integers to integers that hold all their values
//   scale  float32(x) * scale[channel] + offset[channel], two roundings, then cast to a float
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
#include "gather_cast.cuh"

// ---------------------------------------------------------------------------------------- copy

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
    constexpr int SLOTS = 16 / SIZE;
    const Tile t = cut_tile(p, begin, end, SLOTS);
    const u32 run = source_run(p);
    Block block = {0, 0, 0};
#pragma unroll 1
    for (u32 number = u32(lane); number < t.n_items; number += 32) {
        const Item item = find_item(p, t, number);
        u32 w[4];
        if (item.count == SLOTS && (item.target & 15) == 0 &&
            load_item<SIZE, SLOTS>(p, item, run, block, w))
            store_words(item.target, w);
        else copy_item<SIZE>(p, item, block);
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
    if (is_wide(p)) cast_wide_tile(p, begin, end, lane);
    else if (size == 1) cast_tile<1>(p, begin, end, lane);
    else if (size == 2) cast_tile<2>(p, begin, end, lane);
    else if (size == 4) cast_tile<4>(p, begin, end, lane);
    else cast_long_tile(p, begin, end, lane);
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
