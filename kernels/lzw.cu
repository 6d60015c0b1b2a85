// Decompress TIFF's LZW, one job per stream: `source_nbytes` bytes at `source` to `nbytes` at `target`.
//
// Source: TIFF 6.0, section 13, and the older kind of before TIFF 5 (lowest bit first, codes widen one code
// later), which its first two bytes tell. Every check is at least as strict as imagecodecs': what passes here, it
// decodes to the same bytes. More codes than a table of 4096 has room for are refused.
//
// A string is never kept: code 258 + e is the e-th string since the last Clear and the byte after it, and both lie
// next to each other in the target. So the table is where each string starts. The place and width of the k-th code
// since a Clear depend on k alone, so a warp reads 32 codes at once: it adds up their lengths, where one of them
// names another along the chain, and then lets each lane find where the bytes of its own come from.
//
// Geometry: one warp per job, which has one tile; WARPS of a block work. Shared memory: 8 KiB a warp, 9.0 with what
// the lanes tell each other. Alignment: none asked. Reference: tests/kernel_references.py, lzw; imagecodecs.
#include "common.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr int WARPS = 4;
constexpr u32 CLEAR = 256, END = 257;
constexpr i32 FIRST = 258;                // code of the first string since a Clear
constexpr i32 MOST_CODES = 4097 - FIRST;  // since a Clear: the first of them adds no string
constexpr i32 LITERAL = 64;               // parent of a string that is one byte: this and the byte

struct Table {
    u16 offset[3840];  // start of each string since the Clear, from `base`
    u32 base[240];     // start of every 16th
    u32 start[33];     // of the strings of 32 codes, from the first of them; the last is their end
    i32 from[32];      // where such a string's bytes are, likewise; below 0: decoded before
    i32 parent[32];    // which of the strings it begins with; -1: one of before
};

struct Source {
    u64 address;
    u64 bits;
    bool lowest_first;  // in codes
    bool reversed;      // in bytes: FillOrder 2
};

__device__ inline u32 source_byte(const Source& source, u64 at) {
    const u32 value = load<u8>(source.address + at);
    return source.reversed ? __brev(value) >> 24 : value;
}

// The k-th code since a Clear: bits before it, and its width.
__device__ inline u32 code_place(const Source& source, i32 k, u32& width) {
    const i32 wider = k - (source.lowest_first ? 255 : 254);  // 9 bits up to there, then 10, ...
    width = 9u + (wider >= 0) + (wider >= 512) + (wider >= 1536);
    u32 before = 9u * u32(k);
    if (wider > 0) before += u32(wider);
    if (wider > 512) before += u32(wider - 512);
    if (wider > 1536) before += u32(wider - 1536);
    return before;
}

// The k-th code after bit `begin`; END behind the last whole code. Bits of a third byte that lies behind the stream's
// last whole bytes count as 0, as imagecodecs has it.
__device__ inline u32 read_code(const Source& source, u64 begin, i32 k) {
    u32 width;
    const u64 bit = begin + code_place(source, k, width);
    if (bit + width > source.bits) return END;
    const u64 at = bit >> 3;
    const u32 skip = u32(bit & 7), mask = (1u << width) - 1;
    const u32 first = source_byte(source, at), second = source_byte(source, at + 1);
    const u32 third = bit + 24 <= source.bits ? source_byte(source, at + 2) : 0;
    if (source.lowest_first) return ((third << 16 | second << 8 | first) >> skip) & mask;
    return ((first << 16 | second << 8 | third) >> (24 - width - skip)) & mask;
}

__device__ inline u32 string_start(const Table& table, i32 entry) {
    return table.base[entry >> 4] + table.offset[entry];
}

// Not through `load`, which may give what was there before this launch.
__device__ inline u8 load_written(u64 address) { return *reinterpret_cast<const u8*>(address); }

// The bytes of 32 strings, `total` in all, to `target`.
__device__ inline void write_strings(const Table& table, u64 target, u32 total, i32 lane) {
    for (u32 at = u32(lane); at < total; at += 32) {
        i32 string = 0;
#pragma unroll
        for (i32 step = 16; step > 0; step >>= 1)
            if (table.start[string + step] <= at) string += step;
        i32 place = i32(at), parent = table.parent[string];
        while (parent < LITERAL) {
            place += table.from[string] - i32(table.start[string]);
            if (place < 0) break;
            string = parent;  // or the byte after it, the first one of the next
            if (u32(place) >= table.start[string + 1]) ++string;
            parent = table.parent[string];
        }
        const u8 value = parent < LITERAL ? load_written(target + u64(i64(place))) : u8(parent - LITERAL);
        store<u8>(target + at, value);
    }
}

__device__ inline i32 decode(Source source, u64 target, u32 room, Table& table, i32 lane) {
    u64 begin = 0;              // bit after the last Clear
    i32 k = 0;                  // codes since then
    u32 done = 0, segment = 0;  // bytes decoded, and when the last Clear came
    u32 code = read_code(source, begin, lane);
    while (true) {
        const u32 stops = __ballot_sync(ALL_LANES, code == CLEAR || code == END);
        const i32 n = stops ? __ffs(i32(stops)) - 1 : 32;
        const bool mine = lane < n, literal = code < 256;
        const i32 index = k + lane, entry = i32(code) - FIRST;
        const bool valid = index < MOST_CODES && (literal || entry < index);
        if (__any_sync(ALL_LANES, mine && !valid)) return STATUS_CORRUPT;

        const u32 here = done - segment;
        i32 from = 0, parent = -1, link = -1;
        u32 length = mine ? 1 : 0;
        if (mine && !literal) {
            if (entry < k) {
                const u32 start = string_start(table, entry);
                length = (entry + 1 < k ? string_start(table, entry + 1) : here) - start + 1;
                from = i32(start - here);
            } else {
                parent = link = entry - k;
            }
        }
        while (__any_sync(ALL_LANES, link >= 0)) {  // at most 5 times
            const u32 more = __shfl_sync(ALL_LANES, length, u32(link & 31));
            const i32 next = __shfl_sync(ALL_LANES, link, u32(link & 31));
            if (link >= 0) {
                length += more;
                link = next;
            }
        }
        u32 end = length;
        for (i32 step = 1; step < 32; step <<= 1) {
            const u32 other = __shfl_up_sync(ALL_LANES, end, u32(step));
            if (lane >= step) end += other;
        }
        const u32 total = __shfl_sync(ALL_LANES, end, 31);
        if (total > room - done) return STATUS_CORRUPT;

        const u32 start = end - length;
        const u32 half = __shfl_sync(ALL_LANES, start, u32(lane & 16));
        const u32 parent_start = __shfl_sync(ALL_LANES, start, u32(parent & 31));
        if (mine) {
            if ((lane & 15) == 0) table.base[index >> 4] = here + start;
            table.offset[index] = u16(start - half);
        }
        table.start[lane] = start;
        if (lane == 31) table.start[32] = total;
        table.from[lane] = parent < 0 ? from : i32(parent_start);
        table.parent[lane] = literal ? LITERAL + i32(code) : parent;
        __syncwarp();
        const u32 ahead = read_code(source, begin, k + 32 + lane);  // on its way while bytes are copied
        write_strings(table, target + done, total, lane);
        __syncwarp();

        done += total;
        if (n == 32) {
            k += 32;
            code = ahead;
            continue;
        }
        if (__shfl_sync(ALL_LANES, code, u32(n)) == END) return done == room ? STATUS_OK : STATUS_CORRUPT;
        u32 width;
        begin += code_place(source, k + n, width);
        begin += width;
        k = 0;
        segment = done;
        code = read_code(source, begin, lane);
    }
}

__device__ inline i32 run(const StreamJob& job, Table& table, i32 lane) {
    const i32 code = check_stream(job);
    if (code != STATUS_OK) return code;
    if (job.source_nbytes < 2) return STATUS_CORRUPT;
    Source source = {job.source, u64(job.source_nbytes) * 8, false, job.reversed != 0};
    const u32 first = source_byte(source, 0), second = source_byte(source, 1);
    source.lowest_first = first == 0 && (second & 1);  // a Clear
    if (!source.lowest_first && (first != 128 || (second & 128))) return STATUS_CORRUPT;
    return decode(source, job.target, u32(job.nbytes), table, lane);
}

extern "C" __global__ void lzw(const StreamJob* jobs,   // (n_jobs,)
                               i32 n_jobs,
                               const i64* tile_starts,  // (n_jobs + 1,)
                               i32 tile_nbytes,
                               i32* status)             // (n_jobs,) out
{
    (void)tile_starts, (void)tile_nbytes;
    __shared__ Table tables[WARPS];
    const i32 lane = threadIdx.x & 31, warp = i32(threadIdx.x >> 5);
    const i32 warps = blockDim.x >> 5 < WARPS ? i32(blockDim.x >> 5) : WARPS;
    if (warp >= warps) return;
    for (i64 index = i64(blockIdx.x) * warps + warp; index < n_jobs; index += i64(gridDim.x) * warps) {
        const StreamJob job = jobs[index];
        const i32 code = run(job, tables[warp], lane);
        if (lane == 0) status[index] = code;
    }
}
