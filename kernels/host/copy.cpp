// See copy.h. The innermost axis is the one along which the result is contiguous, if there is one.

#include "copy.h"

#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace zarrgpu {
namespace {

uint16_t reversed(uint16_t x) { return __builtin_bswap16(x); }
uint32_t reversed(uint32_t x) { return __builtin_bswap32(x); }
uint64_t reversed(uint64_t x) { return __builtin_bswap64(x); }

template <typename T>
void swap_run(const uint8_t* src, uint8_t* dst, int64_t nbytes) {
    for (int64_t at = 0; at < nbytes; at += sizeof(T)) {  // memcpy: chunks need not be aligned
        T x;
        memcpy(&x, src + at, sizeof(T));
        x = reversed(x);
        memcpy(dst + at, &x, sizeof(T));
    }
}

constexpr int64_t LINE_NBYTES = 64;  // of the cache
constexpr int64_t LEAST_STREAMED_NBYTES = 256;

// Whether it pays to write a run past the caches: where most of its lines are whole.
bool is_streamed(const uint8_t* dst, int64_t nbytes) {
    const bool on_line = reinterpret_cast<uintptr_t>(dst) % LINE_NBYTES == 0;
    return nbytes >= (on_line ? LINE_NBYTES : LEAST_STREAMED_NBYTES);
}

// An ordinary store first reads the line that it writes to; these do not.
void stream_run(const uint8_t* src, uint8_t* dst, int64_t nbytes) {
#if defined(__SSE2__)
    const int64_t head = -reinterpret_cast<uintptr_t>(dst) % LINE_NBYTES;
    memcpy(dst, src, head);
    src += head;
    dst += head;
    nbytes -= head;
    for (; nbytes >= LINE_NBYTES; src += LINE_NBYTES, dst += LINE_NBYTES, nbytes -= LINE_NBYTES) {
        __m128i line[4];
        for (int i = 0; i < 4; i++) {
            line[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src) + i);
        }
        for (int i = 0; i < 4; i++) _mm_stream_si128(reinterpret_cast<__m128i*>(dst) + i, line[i]);
    }
#endif
    memcpy(dst, src, nbytes);
}

void move_run(const uint8_t* src, uint8_t* dst, int64_t nbytes, int64_t swap_nbytes) {
    switch (swap_nbytes) {
        case 2: return swap_run<uint16_t>(src, dst, nbytes);
        case 4: return swap_run<uint32_t>(src, dst, nbytes);
        case 8: return swap_run<uint64_t>(src, dst, nbytes);
        default: memcpy(dst, src, nbytes);
    }
}

template <typename T>
void copy_elements(const uint8_t* src, int64_t src_stride, uint8_t* dst, int64_t dst_stride,
                   int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        T x;
        memcpy(&x, src + i * src_stride, sizeof(T));
        memcpy(dst + i * dst_stride, &x, sizeof(T));
    }
}

void copy_line(const Box& box, const uint8_t* src, uint8_t* dst, int64_t swap_nbytes,
               bool streams) {
    const int last = box.ndim - 1;
    const int64_t src_stride = box.src_stride[last], dst_stride = box.dst_stride[last];
    const int64_t count = box.extent[last], itemsize = box.itemsize;
    if (src_stride == itemsize && dst_stride == itemsize) {
        const int64_t nbytes = count * itemsize;
        if (streams && swap_nbytes == 0 && is_streamed(dst, nbytes)) {
            return stream_run(src, dst, nbytes);
        }
        return move_run(src, dst, nbytes, swap_nbytes);
    }
    if (swap_nbytes == 0) {
        switch (itemsize) {
            case 1: return copy_elements<uint8_t>(src, src_stride, dst, dst_stride, count);
            case 2: return copy_elements<uint16_t>(src, src_stride, dst, dst_stride, count);
            case 4: return copy_elements<uint32_t>(src, src_stride, dst, dst_stride, count);
            case 8: return copy_elements<uint64_t>(src, src_stride, dst, dst_stride, count);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        move_run(src + i * src_stride, dst + i * dst_stride, itemsize, swap_nbytes);
    }
}

constexpr int LINES_AHEAD = 2;
constexpr int64_t MOST_FETCHED_NBYTES = 4096;  // longer runs the processor foresees by itself

// Asks for what is copied soon: lines of a box lie apart in memory, where no processor foresees the
// next. Nothing is read or written, so that places behind the box do no harm.
class Ahead {
   public:
    Ahead(const Box& box, const uint8_t* src, uint8_t* dst) : src_(src), dst_(dst) {
        const int last = box.ndim - 1;
        const bool is_run =
            box.src_stride[last] == box.itemsize && box.dst_stride[last] == box.itemsize;
        const int64_t nbytes = box.extent[last] * box.itemsize;
        if (last < 1 || !is_run || nbytes > MOST_FETCHED_NBYTES) return;
        nbytes_ = nbytes;
        src_shift_ = LINES_AHEAD * box.src_stride[last - 1];
        dst_shift_ = LINES_AHEAD * box.dst_stride[last - 1];
    }

    void fetch(int64_t src_shift, int64_t dst_shift) const {
        if (!nbytes_) return;
        const uintptr_t src = reinterpret_cast<uintptr_t>(src_) + src_shift + src_shift_;
        const uintptr_t dst = reinterpret_cast<uintptr_t>(dst_) + dst_shift + dst_shift_;
        // its first line too where that is whole, and written past the caches: found to be faster
        __builtin_prefetch(reinterpret_cast<void*>(dst), 1);
        __builtin_prefetch(reinterpret_cast<void*>(dst + nbytes_ - 1), 1);
        for (int64_t at = 0; at < nbytes_; at += LINE_NBYTES) {
            __builtin_prefetch(reinterpret_cast<const void*>(src + at));
        }
    }

   private:
    const uint8_t* src_;
    uint8_t* dst_;
    int64_t nbytes_ = 0, src_shift_ = 0, dst_shift_ = 0;
};

}  // namespace

void simplify(Box& box) {
    int n = 0;
    for (int axis = 0; axis < box.ndim; axis++) {
        if (box.extent[axis] == 1) continue;
        box.extent[n] = box.extent[axis];
        box.src_stride[n] = box.src_stride[axis];
        box.dst_stride[n] = box.dst_stride[axis];
        n++;
    }
    // by the result's strides, largest first: writes are in order whatever the layout
    for (int i = 1; i < n; i++) {
        for (int j = i; j > 0 && box.dst_stride[j] > box.dst_stride[j - 1]; j--) {
            std::swap(box.extent[j], box.extent[j - 1]);
            std::swap(box.src_stride[j], box.src_stride[j - 1]);
            std::swap(box.dst_stride[j], box.dst_stride[j - 1]);
        }
    }
    int kept = 0;
    for (int axis = 1; axis < n; axis++) {
        const int64_t count = box.extent[axis];
        if (box.src_stride[kept] == box.src_stride[axis] * count &&
            box.dst_stride[kept] == box.dst_stride[axis] * count) {
            box.extent[kept] *= count;
        } else {
            kept++;
            box.extent[kept] = count;
        }
        box.src_stride[kept] = box.src_stride[axis];
        box.dst_stride[kept] = box.dst_stride[axis];
    }
    box.ndim = n ? kept + 1 : 1;
    if (n == 0) {
        box.extent[0] = 1;
        box.src_stride[0] = box.dst_stride[0] = box.itemsize;
    }
}

void copy_box(const Box& box, const uint8_t* src, uint8_t* dst, int64_t swap_nbytes,
              bool streams) {
    const Ahead ahead(box, src, dst);
    for_lines(box, [&](int64_t src_shift, int64_t dst_shift) {
        if (streams) ahead.fetch(src_shift, dst_shift);
        copy_line(box, src + src_shift, dst + dst_shift, swap_nbytes, streams);
    });
}

void end_streams() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

void fill_box(const Box& box, const uint8_t* element, uint8_t* dst) {
    const int last = box.ndim - 1;
    const int64_t stride = box.dst_stride[last], count = box.extent[last];
    bool same_bytes = stride == box.itemsize;
    for (int64_t i = 1; i < box.itemsize; i++) same_bytes &= element[i] == element[0];
    for_lines(box, [&](int64_t, int64_t shift) {
        if (same_bytes) {
            memset(dst + shift, element[0], count * box.itemsize);
            return;
        }
        for (int64_t i = 0; i < count; i++) {
            memcpy(dst + shift + i * stride, element, box.itemsize);
        }
    });
}

}  // namespace zarrgpu
