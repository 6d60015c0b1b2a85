// A plan carried out on the CPU without Python: fetch a range, decode its chunks, place the pieces.
//
// Each thread that calls `zarrgpu_drain` takes reads until none is left, so that the interpreter's
// lock is given up once for many chunks instead of several times for each. What a thread meets that
// it does not know for certain it leaves NOT_DONE: the general path (zarrgpu/host_engine.py) reads
// it again, and succeeds or says what is wrong. Reference: host_engine.py with `native=False`.

#include <cstring>

#include "checksum.h"
#include "codecs.h"
#include "convert.h"
#include "copy.h"
#include "files.h"
#include "images.h"
#include "jpeg.h"
#include "jpeg2k.h"
#include "jpeg_plain.h"
#include "tables.h"

namespace zarrgpu {
namespace {

constexpr int64_t KEPT_NBYTES = 64 << 20;

thread_local Scratch encoded_scratch, decoded_scratch;

// What ends a call: the result is there for others, and no large memory stays with the thread.
void end_work() {
    end_streams();
    encoded_scratch.keep_at_most(KEPT_NBYTES);
    decoded_scratch.keep_at_most(KEPT_NBYTES);
    keep_jpeg_memory(KEPT_NBYTES);
    keep_jpeg2k_memory(KEPT_NBYTES);
}

// Strides of the result for one piece, and where it begins.
uint8_t* begin_box(const Plan& plan, const Pieces& pieces, int64_t row, int64_t itemsize,
                   Box& box) {
    box.ndim = static_cast<int>(plan.ndim);
    box.itemsize = itemsize;
    int64_t at = pieces.output[row] * plan.out_strides[0];
    const int64_t* strides = plan.out_strides + 1;
    if (plan.turns) {
        const int64_t* turn = plan.turn_strides + plan.turns[pieces.output[row]] * (1 + plan.ndim);
        at += turn[0];
        strides = turn + 1;
    }
    for (int axis = 0; axis < box.ndim; axis++) {
        const int64_t cell = axis * pieces.count + row;
        box.extent[axis] = pieces.extent[cell];
        box.dst_stride[axis] = strides[axis];
        box.src_stride[axis] = 0;
        at += pieces.dst[cell] * strides[axis];
    }
    return plan.out + at;
}

// Go backwards through the chunk along axes that are flipped, so that the result is written forwards.
void face_forward(Box& box, const uint8_t*& src, uint8_t*& dst) {
    for (int axis = 0; axis < box.ndim; axis++) {
        if (box.dst_stride[axis] >= 0) continue;
        src += (box.extent[axis] - 1) * box.src_stride[axis];
        dst += (box.extent[axis] - 1) * box.dst_stride[axis];
        box.src_stride[axis] = -box.src_stride[axis];
        box.dst_stride[axis] = -box.dst_stride[axis];
    }
}

void fill_piece(const Plan& plan, const Pieces& pieces, int64_t row, const Array& array) {
    Box box;
    uint8_t* dst = begin_box(plan, pieces, row, plan.out_itemsize, box);
    const uint8_t* none = nullptr;
    face_forward(box, none, dst);
    for (int axis = 0; axis < box.ndim; axis++) box.src_stride[axis] = box.dst_stride[axis];
    simplify(box);
    fill_box(box, array.fill, dst);
}

// Strides of a decoded chunk, or of its window, in array axes.
void chunk_strides(const Plan& plan, const Array& array, int64_t chunk, int64_t* strides) {
    int64_t stride = array.itemsize;
    for (int64_t i = plan.ndim - 1; i >= 0; i--) {
        const int64_t axis = array.axis_order[i];
        strides[axis] = stride;
        stride *= plan.window_whole ? plan.window_shape[axis * plan.num_chunks + chunk]
                                    : array.chunk_shape[axis];
    }
}

Conversion conversion(const Plan& plan, const Array& array, int64_t piece) {
    const int64_t axis = plan.channel_axis;
    const int64_t channel = axis < 0 ? 0 : plan.pieces.dst[axis * plan.pieces.count + piece];
    return {static_cast<Source>(array.source_type),
            static_cast<Target>(plan.target_type),
            array.swap_nbytes != 0,
            plan.n_channels,
            plan.scale,
            plan.offset,
            static_cast<int>(axis),
            channel,
            plan.streams != 0};
}

void place(const Plan& plan, const Array& array, int64_t chunk, const uint8_t* elements) {
    int64_t strides[MAX_AXES];
    chunk_strides(plan, array, chunk, strides);
    const Pieces& pieces = plan.pieces;
    const int64_t last = plan.chunk_piece_start[chunk + 1];
    for (int64_t row = plan.chunk_piece_start[chunk]; row < last; row++) {
        Box box;
        uint8_t* dst = begin_box(plan, pieces, row, array.itemsize, box);
        const uint8_t* src = elements;
        for (int axis = 0; axis < box.ndim; axis++) {
            src += pieces.src[axis * pieces.count + row] * strides[axis];
            box.src_stride[axis] = strides[axis] * plan.step[axis];
        }
        face_forward(box, src, dst);
        if (plan.target_type != AS_STORED) {
            convert_box(box, conversion(plan, array, row), src, dst);
            continue;
        }
        simplify(box);
        copy_box(box, src, dst, array.swap_nbytes, plan.streams);
    }
}

// Where the one piece of a direct chunk begins: all of it is one run there.
uint8_t* direct_target(const Plan& plan, int64_t chunk) {
    Box box;
    return begin_box(plan, plan.pieces, plan.chunk_piece_start[chunk], 1, box);
}

bool is_part(const Plan& plan, int64_t chunk) {
    return plan.window_whole && !plan.window_whole[chunk];
}

// Where a chunk shall be decoded to, if that is not scratch.
uint8_t* own_target(const Plan& plan, int64_t chunk) {
    if (plan.chunk_memory && plan.chunk_memory[chunk]) return plan.chunk_memory[chunk];
    return plan.chunk_direct[chunk] ? direct_target(plan, chunk) : nullptr;
}

// Columns of an image that its pieces need; all of them where it is kept, or not laid out as such.
Columns columns_of(const Plan& plan, const Array& array, int64_t chunk) {
    const Image& image = *array.image;
    const Columns all{0, image.width};
    const int64_t channels = image.samples > 1 ? 1 : 0;
    const int64_t axis = plan.ndim - 1 - channels;
    if (axis < 1 || own_target(plan, chunk) || array.chunk_shape[axis] != image.width) return all;
    if (is_part(plan, chunk) && plan.window_shape[axis * plan.num_chunks + chunk] != image.width) {
        return all;  // a part of one row
    }
    for (int64_t i = 0; i < plan.ndim; i++) {
        if (array.axis_order[i] != i) return all;
    }
    if (channels && array.chunk_shape[axis + 1] != image.samples) return all;
    const Pieces& pieces = plan.pieces;
    const int64_t last = plan.chunk_piece_start[chunk + 1];
    Columns found{image.width, 0};
    for (int64_t row = plan.chunk_piece_start[chunk]; row < last; row++) {
        const int64_t cell = axis * pieces.count + row, first = pieces.src[cell];
        const int64_t end = first + (pieces.extent[cell] - 1) * plan.step[axis] + 1;
        found.first = first < found.first ? first : found.first;
        found.end = end > found.end ? end : found.end;
    }
    return found.first < found.end ? found : all;
}

// Elements of a chunk, decoded where they shall be; null if they cannot be had here.
const uint8_t* decoded(const Plan& plan, const Array& array, int64_t chunk, const uint8_t* data,
                       int64_t nbytes) {
    if (array.codec == UNKNOWN) return nullptr;
    if (array.has_crc32c) {
        if (!crc32c_holds(data, nbytes)) return nullptr;
        nbytes -= 4;
    }
    const bool part = is_part(plan, chunk);
    const int64_t wanted = part ? plan.window_nbytes[chunk] : array.decoded_nbytes;
    uint8_t* target = own_target(plan, chunk);
    if (array.codec == RAW) {
        if (nbytes != wanted) return nullptr;
        if (!target || target == data) return data;
        memcpy(target, data, nbytes);
        return target;
    }
    if (is_image(array.codec)) {
        const int64_t start = part ? plan.window_start[chunk] : 0;
        const Columns columns = columns_of(plan, array, chunk);
        return decode_image(array, data, nbytes, start, wanted, columns, target, decoded_scratch);
    }
    if (!target) {  // a part of a zstd chunk lies within the whole, of a Blosc chunk alone
        const bool alone = part && array.codec == BLOSC;
        target = decoded_scratch.room(alone ? wanted : array.decoded_nbytes);
    }
    if (!target) return nullptr;
    if (part) {
        return decode_part(array.codec, data, nbytes, array.decoded_nbytes,
                           plan.window_start[chunk], wanted, target);
    }
    return decode(array.codec, data, nbytes, target, wanted) ? target : nullptr;
}

void run_chunk(const Plan& plan, int64_t chunk, const uint8_t* data, int64_t nbytes) {
    const Array& array = plan.arrays[plan.chunk_array[chunk]];
    const bool kept = plan.chunk_memory && plan.chunk_memory[chunk];
    const uint8_t* elements = decoded(plan, array, chunk, data, nbytes);
    if (!elements) return;
    if (kept || !plan.chunk_direct[chunk]) place(plan, array, chunk, elements);
    plan.chunk_status[chunk] = DONE;
}

void run_absent(const Plan& plan, int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; chunk++) {
        const Array& array = plan.arrays[plan.chunk_array[chunk]];
        if (!array.absent_is_fill) continue;
        const int64_t end = plan.chunk_piece_start[chunk + 1];
        for (int64_t row = plan.chunk_piece_start[chunk]; row < end; row++) {
            fill_piece(plan, plan.pieces, row, array);
        }
        plan.chunk_status[chunk] = ABSENT;
    }
}

// Place what is held of a read's chunks; whether any is left to fetch.
bool run_held(const Plan& plan, int64_t first, int64_t last) {
    if (!plan.chunk_memory) return true;
    bool rest = false;
    for (int64_t chunk = first; chunk < last; chunk++) {
        if (!plan.chunk_held[chunk]) {
            rest = true;
            continue;
        }
        place(plan, plan.arrays[plan.chunk_array[chunk]], chunk, plan.chunk_memory[chunk]);
        plan.chunk_status[chunk] = DONE;
    }
    return rest;
}

// The chunks that the bytes of one read bring.
void run_bytes(const Plan& plan, int64_t read, const uint8_t* data, int64_t nbytes) {
    const int64_t last = plan.read_chunk_start[read + 1];
    for (int64_t chunk = plan.read_chunk_start[read]; chunk < last; chunk++) {
        if (plan.chunk_status[chunk] != NOT_DONE) continue;
        int64_t at = 0, size = nbytes;
        if (plan.chunk_nbytes[chunk] >= 0) {
            at = plan.chunk_offset[chunk] - plan.read_offset[read];
            size = plan.chunk_nbytes[chunk];
        }
        if (at < 0 || size < 0 || at > nbytes - size) continue;
        run_chunk(plan, chunk, data + at, size);
    }
}

// Memory for the bytes of a read: of a single uncompressed chunk, where that shall be.
uint8_t* fetch_target(const Plan& plan, int64_t read, int64_t nbytes) {
    const int64_t chunk = plan.read_chunk_start[read];
    const Array& array = plan.arrays[plan.read_array[read]];
    const bool alone = plan.read_chunk_start[read + 1] == chunk + 1;
    if (alone && array.codec == RAW && !array.has_crc32c && nbytes == array.decoded_nbytes &&
        !is_part(plan, chunk)) {
        if (uint8_t* target = own_target(plan, chunk)) return target;
    }
    return encoded_scratch.room(nbytes);
}

void run_file(Plan& plan, int64_t read, OpenFile& file) {
    const int64_t first = plan.read_chunk_start[read], last = plan.read_chunk_start[read + 1];
    if (!run_held(plan, first, last)) return;
    const Array& array = plan.arrays[plan.read_array[read]];
    const char* key = plan.keys + plan.read_key[read];
    const Found found = file.open(array.root, key, key);
    if (found == Found::ABSENT) return run_absent(plan, first, last);
    if (found != Found::FILE) return;
    int64_t offset = plan.read_offset[read], nbytes = plan.read_nbytes[read];
    if (nbytes < 0) {
        offset = 0;
        nbytes = file.size();
        if (nbytes > array.limit_nbytes) return;
    } else if (array.object_nbytes >= 0 && file.size() != array.object_nbytes) {
        return;
    }
    if (offset < 0 || offset > file.size() - nbytes) return;  // before memory is taken
    uint8_t* data = fetch_target(plan, read, nbytes);
    if (!data || !file.read(data, offset, nbytes)) return;
    __atomic_fetch_add(&plan.fetched_nbytes, nbytes, __ATOMIC_RELAXED);
    run_bytes(plan, read, data, nbytes);
}

}  // namespace
}  // namespace zarrgpu

#define EXPORT extern "C" __attribute__((visibility("default")))

// Sizes of the structures, for the test that compares them with Python's.
EXPORT int64_t zarrgpu_sizes(int64_t which) {
    using namespace zarrgpu;
    const int64_t sizes[] = {sizeof(Array),     sizeof(Pieces), sizeof(Plan),
                             sizeof(Libraries), sizeof(Image),  sizeof(JpegLibrary)};
    return which >= 0 && which < 6 ? sizes[which] : -1;
}

EXPORT void zarrgpu_use_libraries(const zarrgpu::Libraries* found) {
    zarrgpu::libraries = *found;
}

// Whether the functions are those of a libjpeg-turbo that is known here.
EXPORT int64_t zarrgpu_use_jpeg_library(const zarrgpu::JpegLibrary* found) {
    return zarrgpu::use_jpeg_library(*found);
}

// Take up to `most` reads of files; the number taken, 0 once none is left. From any thread.
EXPORT int64_t zarrgpu_drain(zarrgpu::Plan* plan, int64_t most) {
    zarrgpu::OpenFile file;
    int64_t taken = 0;
    for (; taken < most; taken++) {
        const int64_t read = __atomic_fetch_add(&plan->next_read, 1, __ATOMIC_RELAXED);
        if (read >= plan->num_reads) break;
        zarrgpu::run_file(*plan, read, file);
    }
    zarrgpu::end_work();
    return taken;
}

// Decode and place what a store brought for one read. From any thread.
EXPORT void zarrgpu_run_bytes(const zarrgpu::Plan* plan, int64_t read, const uint8_t* data,
                              int64_t nbytes) {
    zarrgpu::run_bytes(*plan, read, data, nbytes);
    zarrgpu::end_work();
}

// Place the chunks of one read that are held; 1 if any is left to fetch.
EXPORT int64_t zarrgpu_run_held(const zarrgpu::Plan* plan, int64_t read) {
    const int64_t first = plan->read_chunk_start[read], last = plan->read_chunk_start[read + 1];
    const bool rest = zarrgpu::run_held(*plan, first, last);
    zarrgpu::end_streams();
    return rest;
}

// Place a chunk that was decoded elsewhere. From any thread.
EXPORT void zarrgpu_place(const zarrgpu::Plan* plan, int64_t chunk, const uint8_t* elements) {
    zarrgpu::place(*plan, plan->arrays[plan->chunk_array[chunk]], chunk, elements);
    zarrgpu::end_streams();
    plan->chunk_status[chunk] = zarrgpu::DONE;
}

// CRC-32C of `nbytes` bytes, for the test of both ways to compute it.
EXPORT int64_t zarrgpu_crc32c(const uint8_t* data, int64_t nbytes, int64_t by_tables) {
    return zarrgpu::crc32c(data, nbytes, by_tables);
}

// Whether libjpeg completes the image by guessing (jpeg.h).
EXPORT int64_t zarrgpu_jpeg_warns(const zarrgpu::Image* image, const uint8_t* src,
                                  int64_t src_nbytes, uint8_t* scratch) {
    return zarrgpu::jpeg_warns(*image, src, src_nbytes, scratch);
}

// Rows `first` to `first + count`, and columns of them, of one image; 1 if done by a decoder of
// ours, 2 if by libjpeg.
EXPORT int64_t zarrgpu_decode_image(const zarrgpu::Image* image, int64_t codec, const uint8_t* src,
                                    int64_t src_nbytes, int64_t first, int64_t count,
                                    int64_t first_column, int64_t end_column, uint8_t* dst) {
    using namespace zarrgpu;
    const Columns columns{first_column, end_column};
    int64_t done = 0;
    if (codec == JPEG2K) {
        done = decode_jpeg2k(*image, src, src_nbytes, first, count, columns, dst);
    } else if (decode_plain_jpeg(*image, src, src_nbytes, first, count, columns, dst)) {
        done = 1;
    } else if (decode_jpeg(*image, src, src_nbytes, first, count, dst)) {
        done = 2;
    }
    end_work();
    return done;
}

// Bits of the float16 nearest to a number, for the test of the way without an instruction.
EXPORT int64_t zarrgpu_half_bits(int64_t float_bits) {
    const uint32_t bits = static_cast<uint32_t>(float_bits);
    float value;
    memcpy(&value, &bits, 4);
    return zarrgpu::half_bits(value);
}

// Write the fill value into everything that no stored chunk covers.
EXPORT void zarrgpu_fill(const zarrgpu::Plan* plan) {
    for (int64_t row = 0; row < plan->fills.count; row++) {
        zarrgpu::fill_piece(*plan, plan->fills, row, plan->arrays[plan->fills.owner[row]]);
    }
}
