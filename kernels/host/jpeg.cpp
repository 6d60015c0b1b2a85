// See jpeg.h. Spec: ITU-T T.81. Structures: jpeglib.h of libjpeg-turbo 2.1 to 3.1 with the ABI of
// libjpeg 8 (its README: "libjpeg v7 and v8 features"), which a library states when it is asked to
// fill one: it refuses another version, or another size.
//
// libjpeg tells errors by a call that must not return, so functions here that it can leave by
// `longjmp` own nothing. A warning is an error: what follows is not what was encoded, and only
// zarrgpu/codecs/jpeg.py may accept it.
//
// Rows behind the last that is wanted are not decoded, and of rows before the first only the
// entropy code is. So that no damage there can matter which the whole decode would tell, a stream
// must be one scan without any marker up to its end, but restarts: entropy-coded data itself is
// never an error, and has no checksum.

#include "jpeg.h"

#include <csetjmp>
#include <cstring>

#include "big_endian.h"
#include "jpeg_stream.h"

namespace zarrgpu {
namespace {

constexpr int LIBJPEG_VERSION = 80;

JpegLibrary library = {};

// jpeg_decompress_struct: what is used of it, and its size.
struct Info {
    void* errors;
    void* memory;
    void* progress;
    void* client_data;
    int is_decompressor;
    int global_state;
    void* source;
    uint32_t image_width;
    uint32_t image_height;
    int num_components;
    int jpeg_color_space;
    int out_color_space;
    uint32_t scale[2];
    double output_gamma;
    int buffered_image;
    int raw_data_out;
    int dct_method;
    int do_fancy_upsampling;
    int do_block_smoothing;
    int quantize[7];
    uint32_t output_width;
    uint32_t output_height;
    int out_color_components;
    int output_components;
    int rec_outbuf_height;
    int actual_number_of_colors;
    void* colormap;
    uint32_t output_scanline;
    alignas(8) uint8_t rest[480];
};
static_assert(sizeof(void*) != 8 || sizeof(Info) == 656, "jpeg_decompress_struct of libjpeg 8");
static_assert(sizeof(void*) != 8 || offsetof(Info, output_scanline) == 168, "libjpeg 8");

// jpeg_error_mgr: what is used of it, and room for all.
struct Errors {
    void (*error_exit)(Info*);
    void (*emit_message)(Info*, int level);
    void (*output_message)(Info*);
    uint8_t rest[232];
};

// How a decompression ended: it was left for an error, or for a warning of entropy-coded data.
enum End { ENDED = 0, FAILED = 1, WARNED = 2 };

// One decompression: nothing that a destructor would have to give back.
struct Work {
    End end;
    bool in_data;
    Errors errors;
    Info info;
    jmp_buf escape;
    const Image* image;
    const uint8_t* src;
    int64_t src_nbytes;
    int64_t first;
    int64_t count;
    uint8_t* dst;
};

[[noreturn]] void leave(Info* info, End end) {
    longjmp(static_cast<Work*>(info->client_data)->escape, end);
}

[[noreturn]] void fail(Info* info) { leave(info, FAILED); }

void on_message(Info* info, int level) {
    if (level < 0) leave(info, static_cast<Work*>(info->client_data)->in_data ? WARNED : FAILED);
}

void on_output(Info*) {}

void create(Work& work) { library.create(&work.info, LIBJPEG_VERSION, sizeof(Info)); }

void decode(Work& work) {
    create(work);
    Info& info = work.info;
    const Image& image = *work.image;
    if (image.tables_nbytes) {
        library.mem_src(&info, image.tables, image.tables_nbytes);
        library.read_header(&info, 0);
    }
    library.mem_src(&info, work.src, work.src_nbytes);
    library.read_header(&info, 1);
    // the colours that the tags state, never those that libjpeg takes them for
    if (image.color_space) info.jpeg_color_space = static_cast<int>(image.color_space);
    if (image.out_color_space) info.out_color_space = static_cast<int>(image.out_color_space);
    work.in_data = true;
    library.start(&info);
    const int64_t row_nbytes = image.width * image.samples;
    if (info.output_width != image.width || info.output_height != image.height ||
        info.output_components != image.samples) {
        fail(&info);
    }
    if (work.first) library.skip_rows(&info, static_cast<uint32_t>(work.first));
    if (info.output_scanline != work.first) fail(&info);
    const int64_t end = work.first + work.count;
    while (info.output_scanline < end) {
        constexpr int64_t MOST = 16;
        uint8_t* rows[MOST];
        const int64_t at = info.output_scanline - work.first;
        const int64_t most = work.count - at < MOST ? work.count - at : MOST;
        for (int64_t i = 0; i < most; i++) rows[i] = work.dst + (at + i) * row_nbytes;
        if (!library.read_rows(&info, rows, static_cast<uint32_t>(most))) fail(&info);
    }
}

// How `step` came to its end; the library's memory is given back either way.
End run(Work& work, void (*step)(Work&)) {
    memset(&work.info, 0, sizeof(Info));
    library.std_error(&work.errors);
    work.errors.error_exit = fail;
    work.errors.emit_message = on_message;
    work.errors.output_message = on_output;
    work.info.errors = &work.errors;
    work.info.client_data = &work;
    work.in_data = false;
    switch (setjmp(work.escape)) {
        case ENDED:
            step(work);
            work.end = ENDED;
            break;
        case WARNED: work.end = WARNED; break;
        default: work.end = FAILED;
    }
    // a library that refuses the structure has not begun; otherwise this cannot fail
    if (work.info.memory) library.destroy(&work.info);
    return work.end;
}

End run_on(const Image& image, const uint8_t* src, int64_t src_nbytes, int64_t first, int64_t count,
           uint8_t* dst) {
    Work work;
    work.image = &image;
    work.src = src;
    work.src_nbytes = src_nbytes;
    work.first = first;
    work.count = count;
    work.dst = dst;
    return run(work, decode);
}

// Where entropy-coded data begins; 0 unless the stream is plain, and of this image.
int64_t scan_at(const Image& image, const uint8_t* src, int64_t nbytes) {
    if (nbytes < 4 || src[0] != 0xFF || src[1] != 0xD8) return 0;
    bool framed = false;
    for (int64_t at = 2; at + 4 <= nbytes;) {
        const uint8_t marker = src[at + 1];
        const int64_t size = big16(src + at + 2), end = at + 2 + size;
        if (src[at] != 0xFF || size < 2 || end > nbytes) return 0;
        const uint8_t* body = src + at + 4;
        if (marker == 0xC0 || marker == 0xC1) {
            if (framed || size < 8 || body[0] != 8 || body[5] != image.samples) return 0;
            if (big16(body + 1) != image.height || big16(body + 3) != image.width) return 0;
            framed = true;
        } else if (marker == 0xDA) {  // all components in one scan
            return framed && size > 2 && body[0] == image.samples ? end : 0;
        } else if (marker != 0xC4 && marker != 0xDB && marker != 0xDD && marker != 0xFE &&
                   (marker < 0xE0 || marker > 0xEF)) {
            return 0;
        }
        at = end;
    }
    return 0;
}

// Whether the scan reaches the end of the image, and nothing but padding is behind it.
bool ends_well(const uint8_t* src, int64_t at, int64_t nbytes) {
    const uint8_t* const end = src + nbytes;
    const uint8_t* mark = src + at;
    for (;; mark += 2) {
        mark = static_cast<const uint8_t*>(memchr(mark, 0xFF, end - mark));
        if (!mark || mark + 2 > end) return false;
        if (mark[1] == 0xD9) break;
        const bool restart = (mark[1] & 0xF8) == 0xD0;
        if (mark[1] != 0 && !restart) return false;
    }
    return is_jpeg_padding(mark + 2, end);
}

}  // namespace

bool use_jpeg_library(const JpegLibrary& found) {
    library = found;
    if (!found.std_error || !found.create || !found.destroy || !found.mem_src ||
        !found.read_header || !found.start || !found.read_rows || !found.skip_rows) {
        return false;
    }
    Work work;
    return run(work, create) == ENDED;
}

bool decode_jpeg(const Image& image, const uint8_t* src, int64_t src_nbytes, int64_t first,
                 int64_t count, uint8_t* dst) {
    const int64_t scan = library.create ? scan_at(image, src, src_nbytes) : 0;
    if (!scan || !ends_well(src, scan, src_nbytes)) return false;
    return run_on(image, src, src_nbytes, first, count, dst) == ENDED;
}

bool jpeg_warns(const Image& image, const uint8_t* src, int64_t src_nbytes, uint8_t* scratch) {
    return library.create && run_on(image, src, src_nbytes, 0, image.height, scratch) == WARNED;
}

}  // namespace zarrgpu
