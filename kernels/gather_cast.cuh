// How the gather casts and normalises. Full items whose elements are read at once are converted and
// stored at once; others, at the ends of runs mostly, element by element.
#pragma once

#include "gather_items.cuh"

constexpr int CAST_SLOTS = 8;
constexpr int WIDE_SLOTS = 4;

// ---------------------------------------------------------------------------- through float32

__device__ inline void store_words(u64 target, const u32* w) {
    uint4 v;
    v.x = w[0];
    v.y = w[1];
    v.z = w[2];
    v.w = w[3];
    store(target, v);
}

// Store an item of CAST_SLOTS elements; the target is a multiple of 16.
__device__ inline void store_cast(i32 type, u64 target, const float* v) {
    if (type == TYPE_F4) {
        u32 w[CAST_SLOTS];
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; ++i) w[i] = __float_as_uint(v[i]);
        store_words(target, w);
        store_words(target + 16, w + 4);
    } else if (type == TYPE_F8) {
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; i += 2) {
            const u64 a = u64(__double_as_longlong(f32_to_f64(v[i])));
            const u64 b = u64(__double_as_longlong(f32_to_f64(v[i + 1])));
            const u32 w[4] = {u32(a), u32(a >> 32), u32(b), u32(b >> 32)};
            store_words(target + u64(i) * 8, w);
        }
    } else {
        u32 w[CAST_SLOTS / 2];
#pragma unroll
        for (int i = 0; i < CAST_SLOTS / 2; ++i)
            w[i] = type == TYPE_F2 ? f32_to_f16(v[2 * i]) | u32(f32_to_f16(v[2 * i + 1])) << 16
                                   : f32_to_bf16(v[2 * i]) | u32(f32_to_bf16(v[2 * i + 1])) << 16;
        store_words(target, w);
    }
}

__device__ inline void store_one(i32 type, u64 target, float v) {
    switch (type) {
        case TYPE_F4: store(target, __float_as_uint(v)); return;
        case TYPE_F8: store(target, u64(__double_as_longlong(f32_to_f64(v)))); return;
        case TYPE_F2: store(target, f32_to_f16(v)); return;
        default: store(target, f32_to_bf16(v)); return;
    }
}

// Values of CAST_SLOTS packed elements.
template <int SIZE>
__device__ inline void as_floats(i32 type, const u32* w, float* v) {
    if constexpr (SIZE == 1) {
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; ++i) {
            const u8 bits = u8(w[i / 4] >> (8 * (i % 4)));
            v[i] = type == TYPE_U1 ? float(bits) : type == TYPE_I1 ? float(i8(bits)) : float(bits != 0);
        }
    } else if constexpr (SIZE == 2) {
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; ++i) {
            const u16 bits = u16(w[i / 2] >> (16 * (i % 2)));
            v[i] = type == TYPE_U2   ? float(bits)
                   : type == TYPE_I2 ? float(i16(bits))
                                     : f16_to_f32(bits);
        }
    } else {
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; ++i)
            v[i] = type == TYPE_F4   ? __uint_as_float(w[i])
                   : type == TYPE_I4 ? float(i32(w[i]))
                                     : float(w[i]);
    }
}

__device__ inline float normalise_as(const Piece& p, i32 channel, float v) {
    const u64 at = u64(channel) * 4;
    return normalise(v, load<float>(p.scale + at), load<float>(p.layout->offset + at));
}

// Elements that load_item read are of one channel, or of channels that follow each other around.
__device__ inline void normalise_item(const Piece& p, const Place& place, float* v) {
    if (__ldg(&p.layout->channel_dim) != MAX_DIMS - 1) {
        const u64 at = u64(place.channel) * 4;
        const float scale = load<float>(p.scale + at), offset = load<float>(p.layout->offset + at);
#pragma unroll
        for (int i = 0; i < CAST_SLOTS; ++i) v[i] = normalise(v[i], scale, offset);
        return;
    }
    const i32 n = i32(place.at + place.left), start = place.channel - i32(place.at);
    i32 at = i32(place.at);
#pragma unroll
    for (int i = 0; i < CAST_SLOTS; ++i) {
        v[i] = normalise_as(p, start + at, v[i]);
        at = at + 1 == n ? 0 : at + 1;
    }
}

// Any item, element by element; SIZE 0 is any size.
template <int SIZE>
__device__ inline void cast_elements(const Piece& p, Item item, Block& block) {
    const u64 size = u64(type_nbytes(p.target_type));
#pragma unroll 1
    for (i32 i = 0; i < item.count; ++i) {
        float v = as_f32(p.source_type, load_bits<SIZE>(p, item.place.source, block));
        if (p.scale) v = normalise_as(p, item.place.channel, v);
        store_one(p.target_type, item.target + u64(i) * size, v);
        advance(p, item);
    }
}

// Casts that go through float32, which is all of them but those of cast_wide_tile.
template <int SIZE>
__device__ inline void cast_tile(const Piece& p, u32 begin, u32 end, i32 lane) {
    const Tile t = cut_tile(p, begin, end, CAST_SLOTS);
    const u32 run = source_run(p);
    Block block = {0, 0, 0};
#pragma unroll 1
    for (u32 number = u32(lane); number < t.n_items; number += 32) {
        const Item item = find_item(p, t, number);
        u32 w[CAST_SLOTS * SIZE / 4];
        if (item.count == CAST_SLOTS && (item.target & 15) == 0 &&
            load_item<SIZE, CAST_SLOTS>(p, item, run, block, w)) {
            float v[CAST_SLOTS];
            as_floats<SIZE>(p.source_type, w, v);
            if (p.scale) normalise_item(p, item.place, v);
            store_cast(p.target_type, item.target, v);
        } else {
            cast_elements<SIZE>(p, item, block);
        }
    }
}

// The same for elements of 8 bytes, one at a time, so that neighbouring threads store neighbours.
__device__ inline void cast_long_tile(const Piece& p, u32 begin, u32 end, i32 lane) {
    const Tile t = cut_tile(p, begin, end, 1);
    Block block = {0, 0, 0};
#pragma unroll 1
    for (u32 number = u32(lane); number < t.n_items; number += 32)
        cast_elements<8>(p, find_item(p, t, number), block);
}

// ------------------------------------------------------------------------------ without float32

__device__ inline bool is_wide(const Piece& p) {
    if (p.scale) return false;
    return is_integer(p.target_type) || p.target_type == TYPE_F8 ||
           (p.source_type == TYPE_F8 && p.target_type == TYPE_F2);
}

// Bits of an element in the target's type: integers with more bits, f8, or f2 of f8.
__device__ inline u64 widened(i32 source_type, i32 target_type, u64 bits) {
    if (target_type == TYPE_F8) return u64(__double_as_longlong(as_f64(source_type, bits)));
    if (target_type == TYPE_F2) return f64_to_f16(__longlong_as_double(i64(bits)));
    if (source_type == TYPE_BOOL) return bits != 0;
    return extend(source_type, source_type == TYPE_U1   ? u8(bits)
                               : source_type == TYPE_U2 ? u16(bits)
                               : source_type == TYPE_U4 ? u32(bits)
                                                        : bits);
}

// `count` elements of 1 ... 8 bytes, in one or two stores of 16 bytes where they fill them.
__device__ inline void store_wide(u64 target, i32 size, const u64* v, i32 count) {
    if (count == WIDE_SLOTS && size == 8 && (target & 15) == 0) {
        const u32 low[4] = {u32(v[0]), u32(v[0] >> 32), u32(v[1]), u32(v[1] >> 32)};
        const u32 high[4] = {u32(v[2]), u32(v[2] >> 32), u32(v[3]), u32(v[3] >> 32)};
        store_words(target, low);
        store_words(target + 16, high);
    } else if (count == WIDE_SLOTS && size == 4 && (target & 15) == 0) {
        const u32 w[4] = {u32(v[0]), u32(v[1]), u32(v[2]), u32(v[3])};
        store_words(target, w);
    } else if (count == WIDE_SLOTS && size == 2 && (target & 7) == 0) {
        store(target, (v[0] & 0xffff) | (v[1] & 0xffff) << 16 | (v[2] & 0xffff) << 32 | v[3] << 48);
    } else {
#pragma unroll
        for (int i = 0; i < WIDE_SLOTS; ++i) {
            if (i >= count) continue;
            if (size == 8) store(target + u64(i) * 8, v[i]);
            else if (size == 4) store(target + u64(i) * 4, u32(v[i]));
            else if (size == 2) store(target + u64(i) * 2, u16(v[i]));
            else store(target + u64(i), u8(v[i]));
        }
    }
}

// Casts that would lose bits in float32: to integers, to f8, and from f8 to f2, without a scale.
__device__ inline void cast_wide_tile(const Piece& p, u32 begin, u32 end, i32 lane) {
    const Tile t = cut_tile(p, begin, end, WIDE_SLOTS);
    Block block = {0, 0, 0};
#pragma unroll 1
    for (u32 number = u32(lane); number < t.n_items; number += 32) {
        Item item = find_item(p, t, number);
        u64 v[WIDE_SLOTS] = {0, 0, 0, 0};
#pragma unroll
        for (i32 i = 0; i < WIDE_SLOTS; ++i) {
            if (i >= item.count) continue;
            v[i] = widened(p.source_type, p.target_type, load_bits<0>(p, item.place.source, block));
            advance(p, item);
        }
        store_wide(item.target, type_nbytes(p.target_type), v, item.count);
    }
}
