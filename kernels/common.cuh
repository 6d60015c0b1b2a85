// What all kernels share: fixed-width types, job tables, status codes, tiles, loads, byte order.
//
// NVRTC has no <cstdint>, and the emulator of the tests compiles this file with the host compiler,
// so nothing is included here. Every struct below is mirrored by a NumPy dtype of the same name in
// zarrgpu/devices/tables.py; tests/test_kernels.py holds the two together.
//
// One shape for every kernel: a table of jobs, a table of tile starts, a status per job. A job is
// cut into tiles of equal size; one *warp* takes one tile at a time, so 100,000 small jobs and a few
// large ones both fill the device. `tile_starts` has n_jobs + 1 entries, the running sum of the tiles
// of each job; every job has at least one tile, also an empty one, and the warp that takes a job's
// first tile writes its status. Launch with any grid and a block that is a multiple of 32.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;

enum JobStatus {
    STATUS_OK = 0,
    STATUS_BAD_JOB = 1,        // the job contradicts itself or asks for what no kernel does
    STATUS_SOURCE_BOUNDS = 2,  // would read outside of the source
    STATUS_TARGET_BOUNDS = 3,  // would write outside of the target
    STATUS_MISALIGNED = 4,     // an address is not a multiple of its element size
    STATUS_MISMATCH = 5,       // the data do not have the checksum that is stored
    STATUS_CORRUPT = 6,        // the encoded stream contradicts itself or its size
    STATUS_INEXACT = 7,        // a value has no counterpart in the target type that all agree on
};

// ---------------------------------------------------------------------------------- job tables

constexpr int MAX_DIMS = 6;

struct CopyJob {        // also an encoded stream of source_nbytes bytes (blosclz)
    u64 source;         // address
    i64 source_nbytes;  // readable there
    u64 target;         // address
    i64 target_nbytes;  // writable there
    i64 nbytes;         // to copy
};

struct UnshuffleJob {   // one Blosc block
    u64 source;         // address of the shuffled bytes
    i64 source_nbytes;  // readable there
    u64 target;         // address; must not overlap the source
    i64 target_nbytes;  // writable there
    i64 nbytes;         // size of the block
    i32 typesize;       // 1 ... 255
    i32 reserved;
};

struct ChecksumJob {    // bytes, and the checksum that is stored of them
    u64 source;         // address
    i64 source_nbytes;  // readable there
    i64 nbytes;         // to checksum
    u64 stored;         // address of the 4 bytes of the checksum
    u64 parts;          // address of u64[32 * tiles], scratch; not used by XXH64
    i64 parts_nbytes;   // writable there
    i32 kind;           // ChecksumKind
    i32 big_endian;     // whether the stored checksum is
};

constexpr i64 HEADER_NBYTES = 24;         // bytes that a record of a header holds
constexpr i64 HEADER_RECORD_NBYTES = 32;  // and with their place

struct HeaderJob {      // an encoded chunk whose headers are wanted
    u64 source;         // address
    i64 source_nbytes;  // readable there
    i64 nbytes;         // it decodes to
    u64 target;         // address of the count and the records; must not overlap the source
    i64 target_nbytes;  // writable there
};

enum ChecksumKind {
    CHECKSUM_CRC32 = 0,       // IEEE 802.3: zlib, gzip
    CHECKSUM_CRC32C = 1,      // Castagnoli
    CHECKSUM_ADLER32 = 2,     // RFC 1950
    CHECKSUM_FLETCHER32 = 3,  // as HDF5 and numcodecs compute it
    CHECKSUM_XXH64 = 4,       // low half of XXH64 with seed 0: zstd's content checksum
};

struct DeltaJob {       // differences of neighbours, over n numbers
    u64 source;         // address
    i64 source_nbytes;  // readable there
    u64 target;         // address, a multiple of its element size; must not overlap the source
    i64 target_nbytes;  // writable there
    i64 n;              // elements
    u64 sums;           // address of u64[tiles], scratch; 0 for floats
    i64 sums_nbytes;    // writable there
    i32 source_type;    // ElementType, an integer or a float
    i32 target_type;    // ElementType, likewise
    i32 source_swap;    // reverse the bytes of each element: its size; 0: native
    i32 target_swap;    // likewise
};

struct ConvertJob {     // elements of one type from as many of another
    u64 source;         // address
    i64 source_nbytes;  // readable there
    u64 target;         // address, a multiple of its element size; must not overlap the source
    i64 target_nbytes;  // writable there
    i64 n;              // elements
    double divisor;     // values of the type that is computed in: the source's if it is a float,
    double addend;      // else float64
    i32 source_type;    // ElementType, BOOL ... F8
    i32 target_type;    // ElementType, BOOL ... F8
    i32 source_swap;    // reverse the bytes of each element: its size; 0: native
    i32 target_swap;    // likewise
    i32 scaled;         // whether to compute x / divisor + addend first
    i32 reserved;
};

struct UnpackJob {      // values of a few bits, packed without gaps
    u64 source;         // address of the first value
    i64 source_nbytes;  // readable there
    u64 target;         // address; must not overlap the source
    i64 target_nbytes;  // writable there
    i64 n;              // values
    u64 padding;        // address of the byte that counts the bits after the last value; 0: none
    i32 width;          // bytes of a decoded value, 1 ... 8
    i32 packed_bits;    // of a stored value
    i32 first_bit;      // of the decoded value that the first stored one is
    i32 sign_bits;      // up to which the last stored bit is repeated; 0: not
    i32 big;            // whether the first value is in a byte's highest bit; packed_bits is 1 then
    i32 swap;           // whether to reverse the bytes of each decoded value
};

struct StreamJob {      // an encoded stream (TIFF's LZW and PackBits)
    u64 source;         // address
    i64 source_nbytes;  // of the stream
    u64 target;         // address; must not overlap the source
    i64 target_nbytes;  // writable there
    i64 nbytes;         // that it decodes to
    i32 reversed;       // whether the bits of each byte of it are in reverse
    i32 reserved;
};

struct PredictorJob {   // rows of samples that are stored as differences
    u64 source;         // address
    i64 source_nbytes;  // readable there
    u64 target;         // address, a multiple of itemsize; must not overlap the source
    i64 target_nbytes;  // writable there
    i64 rows;
    i32 width;          // pixels of a row
    i32 samples;        // of a pixel
    i32 itemsize;       // bytes of a sample: 1, 2, 4 or 8
    i32 predictor;      // 2: horizontal differencing; 3: floating point
    i32 swap;           // whether samples are in the other byte order: those stored with 2, those made with both
    i32 reserved;
};

struct SamplesJob {     // samples of a few bits, packed into rows of whole bytes
    u64 source;         // address
    i64 source_nbytes;  // readable there
    u64 target;         // address, a multiple of 2 if bits > 8; must not overlap the source
    i64 target_nbytes;  // writable there
    i64 n;              // samples, whole rows
    i32 row_samples;    // of a row
    i32 bits;           // of a sample, 1 ... 16
    i32 reversed;       // whether the bits of each byte are in reverse
    i32 reserved;
};

struct ResampleJob {    // the middle axis of an image (outer, n, inner) to (outer, m, inner)
    u64 source;         // address of the image, C-contiguous, native byte order
    i64 source_nbytes;  // readable there
    u64 target;         // address, a multiple of its element size; must not overlap the source
    i64 target_nbytes;  // writable there
    i64 target_strides[3];  // elements, of outer, m and inner; not negative
    u64 first;          // address of i32[m]: lowest source element of each result
    i64 first_nbytes;   // readable there
    u64 weight;         // address of float32[m * taps]
    i64 weight_nbytes;  // readable there
    u64 scale;          // address of float32[n_channels]; 0: do not normalise
    u64 offset;         // address of float32[n_channels]
    i32 outer;
    i32 n;
    i32 m;
    i32 inner;
    i32 taps;
    i32 n_channels;     // 1, or inner
    i32 outer_inside[2];  // results from, to; the others are the fill value
    i32 m_inside[2];    // likewise
    float fill;
    i32 source_type;    // ElementType, U1, I1, U2, I2, F2 or F4
    i32 target_type;    // ElementType, one of these, F8 or BF16
    i32 reserved;
};

struct ScanJob {        // entropy-coded JPEG data
    u64 source;         // address
    i64 source_nbytes;  // readable there: at least one more than
    i64 nbytes;         // of data, an end-of-image marker after them
    i32 restarts;       // whether restart markers may be among them
    i32 reserved;
};

struct ImageJob {       // planes of an image, one after the other, to interleaved pixels
    u64 source;         // address of the first plane, a multiple of sample_nbytes
    i64 source_nbytes;  // of all planes; readable, and for mark_planes writable, there
    u64 target;         // address, likewise; must not overlap the planes
    i64 target_nbytes;  // writable there
    i64 n;              // pixels: width * height
    i32 width;
    i32 height;
    i32 samples;        // planes, 1 ... 4
    i32 sample_nbytes;  // 1 or 2
    i32 pitch;          // bytes from row to row of the first plane and the fourth
    i32 chroma_pitch;   // of the second and the third
    i32 across;         // pixels that a sample of these is for, 1 or 2
    i32 down;           // likewise
    i32 color;          // ImageColor
    i32 marked;         // whether the first plane was marked before it was decoded
};

enum ImageColor {
    COLOR_STORED = 0,         // samples stay as they are
    COLOR_LIBJPEG_YCC = 1,    // YCbCr to RGB as libjpeg computes it
    COLOR_ROUNDED_YCC = 2,    // as codecs/jpeg2k.py does
    COLOR_OPENJPEG_SYCC = 3,  // as OpenJPEG does where chroma is subsampled
};

struct GatherJob {             // one piece: a box of one decoded chunk
    u64 source;                // address of the decoded chunk; 0: the piece is the fill value
    i64 source_nbytes;         // readable there
    i64 source_offset;         // elements, of the box's first element
    i64 target_offset;         // elements, of the box's first element
    i32 layout;                // index into the layouts
    i32 channel_start;         // channel of the box's first element
    i32 shuffle_block_nbytes;  // Blosc block size if the source is still byte-shuffled, else 0
    i32 reserved;
    i32 extents[MAX_DIMS];     // elements, innermost last; leading dims that are not used are 1
};

struct GatherLayout {            // what the pieces of one array and one output share
    u64 target;                  // address of the output
    i64 target_nbytes;           // writable there
    i64 source_strides[MAX_DIMS];  // elements, innermost last, any sign
    i64 target_strides[MAX_DIMS];  // elements, innermost last, any sign
    u8 fill[16];                 // one source element, native byte order
    u64 scale;                   // address of float32[n_channels]; 0: do not normalise
    u64 offset;                  // address of float32[n_channels]
    i32 n_channels;
    i32 channel_dim;             // which of the MAX_DIMS is the channel, or -1
    i32 ndim;                    // how many trailing dims are in use, 1 ... MAX_DIMS
    i32 source_type;             // ElementType
    i32 target_type;             // ElementType
    i32 swap_nbytes;             // reverse the bytes of each 2, 4 or 8 of the source; 0: native
};

enum ElementType {
    TYPE_BOOL = 0,
    TYPE_I1 = 1,
    TYPE_U1 = 2,
    TYPE_I2 = 3,
    TYPE_U2 = 4,
    TYPE_I4 = 5,
    TYPE_U4 = 6,
    TYPE_I8 = 7,
    TYPE_U8 = 8,
    TYPE_F2 = 9,
    TYPE_F4 = 10,
    TYPE_F8 = 11,
    TYPE_RAW1 = 12,  // opaque elements: copied, never cast
    TYPE_RAW2 = 13,
    TYPE_RAW4 = 14,
    TYPE_RAW8 = 15,
    TYPE_RAW16 = 16,
    TYPE_BF16 = 17,  // bfloat16: delivered by the gather, never read
    N_TYPES = 18,
};

// Bytes of one element.
__device__ inline i32 type_nbytes(i32 type) {
    switch (type) {
        case TYPE_BOOL: case TYPE_I1: case TYPE_U1: case TYPE_RAW1: return 1;
        case TYPE_I2: case TYPE_U2: case TYPE_F2: case TYPE_RAW2: case TYPE_BF16: return 2;
        case TYPE_I4: case TYPE_U4: case TYPE_F4: case TYPE_RAW4: return 4;
        case TYPE_RAW16: return 16;
        default: return 8;
    }
}

// --------------------------------------------------------------------------------------- tiles

// Number of this warp among all warps of the launch, and how many there are.
__device__ inline i64 warp_index() {
    return i64(blockIdx.x) * (blockDim.x >> 5) + (threadIdx.x >> 5);
}
__device__ inline i64 warp_count() { return i64(gridDim.x) * (blockDim.x >> 5); }

// The job that owns `tile`: the last one whose first tile is not after it.
__device__ inline i32 find_job(const i64* tile_starts, i32 n_jobs, i64 tile) {
    i32 low = 0, high = n_jobs;
    while (high - low > 1) {
        const i32 middle = low + (high - low) / 2;
        if (__ldg(tile_starts + middle) <= tile) low = middle;
        else high = middle;
    }
    return low;
}

// Whether two byte ranges have a byte in common.
__device__ inline bool overlap(u64 a, i64 a_nbytes, u64 b, i64 b_nbytes) {
    return a < b + u64(b_nbytes) && b < a + u64(a_nbytes);
}

// The checks that a job of bytes in, bytes out needs before any access.
__device__ inline i32 check_bytes(u64 source, i64 source_nbytes, u64 target, i64 target_nbytes,
                                  i64 nbytes) {
    if (nbytes < 0) return STATUS_BAD_JOB;
    if (nbytes > source_nbytes) return STATUS_SOURCE_BOUNDS;
    if (nbytes > target_nbytes) return STATUS_TARGET_BOUNDS;
    if (nbytes && overlap(source, nbytes, target, nbytes)) return STATUS_BAD_JOB;
    return STATUS_OK;
}

// The checks of a job that decodes a stream of any size.
__device__ inline i32 check_stream(const StreamJob& job) {
    constexpr i64 MOST = 0x7fffffff;
    if (job.nbytes < 0 || job.source_nbytes < 0) return STATUS_BAD_JOB;
    if (job.nbytes > MOST || job.source_nbytes > MOST) return STATUS_BAD_JOB;
    if (job.nbytes > job.target_nbytes) return STATUS_TARGET_BOUNDS;
    if (overlap(job.source, job.source_nbytes, job.target, job.nbytes)) return STATUS_BAD_JOB;
    return STATUS_OK;
}

// --------------------------------------------------------------------------------------- loads
// Sources are read through __ldg: no kernel reads what it writes.

template <typename T>
__device__ inline T load(u64 address) {
    return __ldg(reinterpret_cast<const T*>(address));
}

template <typename T>
__device__ inline void store(u64 address, T value) {
    *reinterpret_cast<T*>(address) = value;
}

// N bytes (1, 2, 4, 8) as a little-endian integer, from any alignment.
template <int N>
__device__ inline u64 load_bytes(u64 address) {
    if constexpr (N == 1) return load<u8>(address);
    if ((address & (N - 1)) == 0) {
        if constexpr (N == 2) return load<u16>(address);
        if constexpr (N == 4) return load<u32>(address);
        if constexpr (N == 8) return load<u64>(address);
    }
    u64 value = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) value |= u64(load<u8>(address + i)) << (8 * i);
    return value;
}

// 16 bytes from any alignment. The caller has checked that they lie in [low, high); a misaligned
// load reads whole words, up to 3 bytes on either side, and only where these lie in there too.
__device__ inline uint4 load16(u64 address, u64 low, u64 high) {
    if ((address & 15) == 0) return load<uint4>(address);
    const u64 word = address & ~u64(3);
    const u32 shift = u32(address & 3) * 8;
    uint4 v;
    if (shift == 0) {
        v.x = load<u32>(word);
        v.y = load<u32>(word + 4);
        v.z = load<u32>(word + 8);
        v.w = load<u32>(word + 12);
    } else if (word >= low && word + 20 <= high) {
        const u32 a = load<u32>(word), b = load<u32>(word + 4), c = load<u32>(word + 8);
        const u32 d = load<u32>(word + 12), e = load<u32>(word + 16);
        v.x = __funnelshift_r(a, b, shift);
        v.y = __funnelshift_r(b, c, shift);
        v.z = __funnelshift_r(c, d, shift);
        v.w = __funnelshift_r(d, e, shift);
    } else {
        v.x = u32(load_bytes<4>(address));
        v.y = u32(load_bytes<4>(address + 4));
        v.z = u32(load_bytes<4>(address + 8));
        v.w = u32(load_bytes<4>(address + 12));
    }
    return v;
}

// One warp copies bytes: 16-byte stores where the target allows, two loads in flight per thread.
// The source may be read in [low, high).
__device__ inline void copy_bytes(u64 target, u64 source, i64 nbytes, u64 low, u64 high, i32 lane) {
    i64 head = i64((16 - (target & 15)) & 15);
    if (head > nbytes) head = nbytes;
    const i64 body_end = head + ((nbytes - head) & ~i64(15));
    for (i64 at = lane; at < head; at += 32) store<u8>(target + at, load<u8>(source + at));
    i64 at = head + i64(lane) * 16;
    for (; at + 512 < body_end; at += 1024) {
        const uint4 first = load16(source + at, low, high);
        const uint4 second = load16(source + at + 512, low, high);
        store(target + at, first);
        store(target + at + 512, second);
    }
    if (at < body_end) store(target + at, load16(source + at, low, high));
    for (i64 end = body_end + lane; end < nbytes; end += 32)
        store<u8>(target + end, load<u8>(source + end));
}

// ----------------------------------------------------------------------------------- byte order

__device__ inline u32 swap_word(u32 value, i32 unit) {
    return unit == 2 ? __byte_perm(value, 0, 0x2301) : __byte_perm(value, 0, 0x0123);
}

// Reverse the bytes of each `unit` (2, 4 or 8) of 8 bytes; shorter values are in the low bytes.
__device__ inline u64 swap_bytes(u64 value, i32 unit) {
    const u32 low = swap_word(u32(value), unit), high = swap_word(u32(value >> 32), unit);
    return unit == 8 ? (u64(low) << 32) | high : (u64(high) << 32) | low;
}

__device__ inline uint4 swap_bytes(uint4 v, i32 unit) {
    uint4 r;
    r.x = swap_word(v.x, unit);
    r.y = swap_word(v.y, unit);
    r.z = swap_word(v.z, unit);
    r.w = swap_word(v.w, unit);
    if (unit != 8) return r;
    uint4 s;
    s.x = r.y;
    s.y = r.x;
    s.z = r.w;
    s.w = r.z;
    return s;
}
