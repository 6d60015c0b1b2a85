// A gather piece: its checks, how a warp cuts its part of the box into items, and where these lie.
// gather.cu has the geometry and the words (tile, run, item, slots).
#pragma once

#include "elements.cuh"

// The piece at hand, the same for all threads of a warp. Strides and extents stay in global memory:
// every thread reads the same address, which the cache broadcasts, and registers stay free.
struct Piece {
    const GatherJob* job;
    const GatherLayout* layout;
    u64 source, source_end;  // 0: fill
    u64 scale;               // 0: do not normalise
    u32 volume;              // elements of the box
    u32 source_elements;
    u32 block_elements;      // 0: not shuffled
    i32 first_dim;           // dims before this one are not in use
    i32 source_type, target_type, swap_nbytes;
};

// Where one element of the box lies.
struct Place {
    i64 source, target;  // element indexes
    u32 at, left;        // elements of its innermost row before it, and from it on
    i32 channel;
};

// A thread's share of a tile: `count` elements from `place` on.
struct Item {
    Place place;
    u32 index;    // of the element at `place`, in C order of the box
    u64 target;   // address of the first element
    i32 count;    // 0 ... slots
};

// The part of the box that a warp handles, and how it is cut into items.
struct Tile {
    u32 begin, end;       // elements of the box in C order
    u32 run_nelements;    // length of a run
    i32 slots;            // elements of a full item, a power of two
    u32 first_run, first_item, items_per_run, n_items;
};

__device__ inline u32 extent_of(const Piece& p, i32 d) { return u32(__ldg(p.job->extents + d)); }

// -------------------------------------------------------------------------------------- checks

// Whether all elements of a strided box lie in [0, limit).
__device__ inline bool fits(i64 first, const i64* strides, const i32* extents, i64 limit) {
    constexpr u64 FAR = u64(1) << 58;
    if (first < 0 || first >= limit || limit > i64(FAR)) return false;
    i64 low = first, high = first;
#pragma unroll 1
    for (i32 d = 0; d < MAX_DIMS; ++d) {
        const i64 stride = strides[d];
        const u64 steps = u64(extents[d]) - 1;
        const u64 magnitude = stride < 0 ? 0 - u64(stride) : u64(stride);
        if (steps == 0 || magnitude == 0) continue;
        if (__umul64hi(steps, magnitude) != 0 || steps * magnitude > FAR) return false;
        if (stride < 0) low -= i64(steps * magnitude);
        else high += i64(steps * magnitude);
    }
    return low >= 0 && high < limit;
}

// Whether the target has every value of the source, both of them integers (or the source bool).
__device__ inline bool holds_all(i32 source, i32 target) {
    if (!is_integer(target)) return false;
    if (source == TYPE_BOOL) return true;
    if (!is_integer(source)) return false;
    const i32 from = type_nbytes(source), to = type_nbytes(target);
    if (is_unsigned(source) == is_unsigned(target)) return from <= to;
    return is_unsigned(source) && from < to;
}

__device__ inline i32 check_types(const Piece& p) {
    if (p.source_type < 0 || p.source_type >= N_TYPES) return STATUS_BAD_JOB;
    if (p.target_type < 0 || p.target_type >= N_TYPES) return STATUS_BAD_JOB;
    if (p.source_type != p.target_type || p.scale) {
        if (p.source_type > TYPE_F8) return STATUS_BAD_JOB;
        const bool to_float = (p.target_type >= TYPE_F2 && p.target_type <= TYPE_F8) ||
                              p.target_type == TYPE_BF16;
        if (!to_float && (p.scale || !holds_all(p.source_type, p.target_type))) return STATUS_BAD_JOB;
    }
    if (p.swap_nbytes != 0) {
        if (p.swap_nbytes != 2 && p.swap_nbytes != 4 && p.swap_nbytes != 8) return STATUS_BAD_JOB;
        if (type_nbytes(p.source_type) % p.swap_nbytes != 0) return STATUS_BAD_JOB;
    }
    return STATUS_OK;
}

__device__ inline i32 check_channels(const Piece& p) {
    if (!p.scale) return STATUS_OK;
    const GatherLayout& layout = *p.layout;
    const i32 dim = layout.channel_dim, start = p.job->channel_start;
    if (!layout.offset || dim < -1 || dim >= MAX_DIMS || start < 0) return STATUS_BAD_JOB;
    if ((p.scale | layout.offset) & 3) return STATUS_MISALIGNED;
    const i64 n_channels = dim < 0 ? 1 : extent_of(p, dim);
    return start + n_channels <= layout.n_channels ? STATUS_OK : STATUS_BAD_JOB;
}

// Volume of the box; a box of no elements is fine and does nothing.
__device__ inline i32 check_box(Piece& p) {
    u64 volume = 1;
    bool empty = false;
#pragma unroll 1
    for (i32 d = 0; d < MAX_DIMS; ++d) {
        const i32 extent = p.job->extents[d];
        if (extent < 0 || (d < p.first_dim && extent != 1)) return STATUS_BAD_JOB;
        if (extent == 0) empty = true;
        else volume *= u32(extent);
        if (volume > 0x7fffffff) return STATUS_BAD_JOB;
    }
    p.volume = empty ? 0 : u32(volume);
    return STATUS_OK;
}

__device__ inline i32 check_shuffle(Piece& p) {
    const i32 nbytes = p.job->shuffle_block_nbytes, itemsize = type_nbytes(p.source_type);
    if (nbytes < 0) return STATUS_BAD_JOB;
    if (nbytes == 0 || itemsize == 1) return STATUS_OK;  // Blosc does not shuffle single bytes
    if (nbytes % itemsize != 0) return STATUS_BAD_JOB;
    if (p.job->source_nbytes > 0x7fffffff) return STATUS_BAD_JOB;  // Blosc1 counts in int32
    p.block_elements = u32(nbytes / itemsize);
    p.source_elements = u32(p.job->source_nbytes / itemsize);
    return STATUS_OK;
}

// Fill in the piece and check that everything it will touch is where it may be.
__device__ inline i32 read_piece(const GatherJob* job, const GatherLayout* layouts, i32 n_layouts,
                                 Piece& p) {
    if (job->layout < 0 || job->layout >= n_layouts) return STATUS_BAD_JOB;
    const GatherLayout& layout = layouts[job->layout];
    if (layout.ndim < 1 || layout.ndim > MAX_DIMS) return STATUS_BAD_JOB;
    p.job = job;
    p.layout = &layout;
    p.source = job->source;
    p.source_end = job->source + u64(job->source_nbytes);
    p.scale = layout.scale;
    p.first_dim = MAX_DIMS - layout.ndim;
    p.source_type = layout.source_type;
    p.target_type = layout.target_type;
    p.swap_nbytes = layout.swap_nbytes;
    p.block_elements = p.source_elements = 0;
    i32 code = check_box(p);
    if (code == STATUS_OK) code = check_types(p);
    if (code != STATUS_OK || p.volume == 0) return code;
    code = check_channels(p);
    if (code != STATUS_OK) return code;
    const i32 target_size = type_nbytes(p.target_type);
    if (layout.target & (target_size < 8 ? target_size - 1 : 7)) return STATUS_MISALIGNED;
    if (!fits(job->target_offset, layout.target_strides, job->extents,
              layout.target_nbytes / target_size))
        return STATUS_TARGET_BOUNDS;
    if (p.source == 0) return STATUS_OK;
    if (!fits(job->source_offset, layout.source_strides, job->extents,
              job->source_nbytes / type_nbytes(p.source_type)))
        return STATUS_SOURCE_BOUNDS;
    return check_shuffle(p);
}

// --------------------------------------------------------------------------------------- items

// Items of up to s elements that `length` elements of a run take, the first of them at place `at` of
// s. A run may begin up to s - 1 elements after a boundary: one item more allows for that.
__device__ inline u32 n_items_of(u32 length, u32 at, u32 s) {
    return s == 1 ? length : (length + at + s - 1) / s + 1;
}

// Cut elements [begin, end) of the box into items of up to `slots` elements.
__device__ inline Tile cut_tile(const Piece& p, u32 begin, u32 end, i32 slots) {
    Tile t;
    t.begin = begin;
    t.end = end;
    t.run_nelements = 1;
#pragma unroll 1
    for (i32 d = MAX_DIMS - 1; d >= p.first_dim; --d) {
        const u32 extent = extent_of(p, d);
        if (extent != 1 && __ldg(p.layout->target_strides + d) != i64(t.run_nelements)) break;
        t.run_nelements *= extent;
    }
    t.slots = t.run_nelements == 1 ? 1 : slots;
    t.first_run = begin / t.run_nelements;
    const u32 last_run = (end - 1) / t.run_nelements, n_runs = last_run - t.first_run + 1;
    // Of one run or two, which may be far longer than a tile, only what is in it is cut.
    const u32 from = n_runs > 2 ? 0 : begin - t.first_run * t.run_nelements;
    const u32 to = n_runs > 2 ? t.run_nelements : end - last_run * t.run_nelements;
    const u32 s = u32(t.slots), length = (n_runs == 1 ? to : t.run_nelements) - from;
    t.first_item = from / s;
    t.items_per_run = n_items_of(length, from % s, s);
    if (n_runs == 2 && n_items_of(to, 0, s) > t.items_per_run) t.items_per_run = n_items_of(to, 0, s);
    t.n_items = n_runs * t.items_per_run;
    return t;
}

// Elements that lie side by side in the source, from any multiple of that number on, 1 or more. Where
// values are normalised they are also of one channel, unless channels are the innermost dim: then they
// follow each other around.
__device__ inline u32 source_run(const Piece& p) {
    const i32 channel_dim = p.scale ? __ldg(&p.layout->channel_dim) : -1;
    u32 run = 1;
#pragma unroll 1
    for (i32 d = MAX_DIMS - 1; d >= p.first_dim; --d) {
        const u32 extent = extent_of(p, d);
        if (extent != 1) {
            if (p.source && __ldg(p.layout->source_strides + d) != i64(run)) break;
            if (d == channel_dim && d != MAX_DIMS - 1) break;
        }
        run *= extent;
    }
    return run;
}

// Where element `index` of the box (C order) lies.
__device__ inline Place locate(const Piece& p, u32 index) {
    Place place;
    place.source = __ldg(&p.job->source_offset);
    place.target = __ldg(&p.job->target_offset);
    place.channel = __ldg(&p.job->channel_start);
    place.at = place.left = 0;
    const i32 channel_dim = __ldg(&p.layout->channel_dim);
#pragma unroll 1
    for (i32 d = MAX_DIMS - 1; d >= p.first_dim; --d) {
        const u32 extent = extent_of(p, d);
        const u32 outer = d == p.first_dim ? 0 : index / extent;
        const u32 at = index - outer * extent;
        place.source += i64(at) * __ldg(p.layout->source_strides + d);
        place.target += i64(at) * __ldg(p.layout->target_strides + d);
        if (d == channel_dim) place.channel += i32(at);
        if (d == MAX_DIMS - 1) {
            place.at = at;
            place.left = extent - at;
        }
        index = outer;
    }
    return place;
}

// Step `n` elements within the innermost row, forwards or back.
__device__ inline void step(const Piece& p, Place& place, i32 n) {
    place.source += n * __ldg(p.layout->source_strides + MAX_DIMS - 1);
    place.target += n * __ldg(p.layout->target_strides + MAX_DIMS - 1);
    if (__ldg(&p.layout->channel_dim) == MAX_DIMS - 1) place.channel += n;
    place.at += u32(n);
    place.left -= u32(n);
}

// Step to the next element of the box in C order.
__device__ inline void advance(const Piece& p, Item& item) {
    ++item.index;
    if (item.place.left > 1) step(p, item.place, 1);
    else if (item.index < p.volume) item.place = locate(p, item.index);
}

// Item `number` of a tile; its count may be 0. Not inlined: that halves the registers of the kernel
// (146 to 72 on sm_90) and so doubles the warps in flight.
__device__ __noinline__ Item find_item(const Piece& p, const Tile& t, u32 number) {
    Item item;
    item.count = 0;
    const u32 run = number / t.items_per_run;
    const u32 run_begin = (t.first_run + run) * t.run_nelements;
    const u32 first_item = run == 0 ? t.first_item : 0;
    const u32 nominal = (first_item + number - run * t.items_per_run) * u32(t.slots);
    // Within a run the target is contiguous: any of its elements tells where the run begins.
    const u32 probe = nominal < t.run_nelements ? nominal : t.run_nelements - 1;
    item.place = locate(p, run_begin + probe);
    const u64 size = u64(type_nbytes(p.target_type));
    const u64 base = p.layout->target;
    const u64 run_target = base / size + u64(item.place.target) - probe;
    i64 begin = i64(nominal) - i64(run_target & u64(t.slots - 1));
    i64 end = begin + t.slots;
    const i64 low = run_begin < t.begin ? i64(t.begin) - run_begin : 0;
    const i64 high = i64(t.end) - run_begin;
    if (begin < low) begin = low;
    if (end > t.run_nelements) end = t.run_nelements;
    if (end > high) end = high;
    if (begin >= end) return item;
    item.count = i32(end - begin);
    item.index = run_begin + u32(begin);
    const i32 back = i32(begin - i64(probe));
    if (back < 0 ? u32(-back) <= item.place.at : u32(back) < item.place.left) {
        step(p, item.place, back);
    } else {
        item.place = locate(p, item.index);
    }
    item.target = base + u64(item.place.target) * size;
    return item;
}
