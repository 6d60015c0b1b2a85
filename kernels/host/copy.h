// Copies of boxes between strided arrays: what places a piece of a chunk into the result.

#pragma once

#include <cstdint>

namespace zarrgpu {

// One box: `ndim` axes of `extent` elements of `itemsize` bytes, strides in bytes on both sides.
struct Box {
    int ndim;
    int64_t itemsize;
    int64_t extent[33];
    int64_t src_stride[33];
    int64_t dst_stride[33];
};

// Leave out axes of one element and join those that are one run on both sides.
void simplify(Box& box);

// Copy a simplified box; numbers of `swap_nbytes` bytes are reversed, 0 for none. With `streams`
// long runs are written past the caches: for results that these cannot hold.
void copy_box(const Box& box, const uint8_t* src, uint8_t* dst, int64_t swap_nbytes, bool streams);

// Call `line(src_shift, dst_shift)` for every line along the last axis.
template <typename Line>
void for_lines(const Box& box, Line line) {
    int64_t index[33] = {0};
    int64_t src = 0, dst = 0;
    for (;;) {
        line(src, dst);
        int axis = box.ndim - 2;
        for (; axis >= 0; axis--) {
            src += box.src_stride[axis];
            dst += box.dst_stride[axis];
            if (++index[axis] < box.extent[axis]) break;
            src -= box.extent[axis] * box.src_stride[axis];
            dst -= box.extent[axis] * box.dst_stride[axis];
            index[axis] = 0;
        }
        if (axis < 0) return;
    }
}

// Let other threads see what was streamed.
void end_streams();

// Set every element of a box of the result to one element.
void fill_box(const Box& box, const uint8_t* element, uint8_t* dst);

}  // namespace zarrgpu
