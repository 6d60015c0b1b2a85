// See jpeg_plain.h. Spec: ITU-T T.81. Rows of MCUs one after another: coefficients of the blocks
// that the area depends on, their samples into planes; then rows of pixels from these.
//
// Entropy-coded data must be read from its beginning, or from that of a restart interval: one that
// is not needed is left out, as libjpeg begins each anew whatever it met before.

#include "jpeg_plain.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "files.h"
#include "jpeg_avx2.h"
#include "jpeg_colour.h"
#include "jpeg_entropy.h"
#include "jpeg_idct.h"
#include "jpeg_stream.h"

namespace zarrgpu {
namespace {

enum ColorSpace : int64_t { TOLD_BY_STREAM = 0, GRAY = 1, RGB = 2, YCBCR = 3 };

constexpr int MARGIN = JPEG_ROW_MARGIN;   // bytes before and behind the samples of a row
constexpr int LEAST_FANCY = 3;            // columns of chroma that libjpeg interpolates
constexpr int64_t MAX_NBYTES = 128 << 20;  // of samples: libjpeg takes a few rows of more at once
constexpr int64_t MOST_LEFT_OUT = 65535;  // blocks whose DC differences libjpeg can always sum up

// What a thread uses again for the next image.
struct Memory {
    JpegData data;
    Scratch planes, coefficients;
};
thread_local std::unique_ptr<Memory> memory;

struct Range {
    int first, end;
};

// One component: its size, what is wanted of it, and where that is.
struct Plane {
    int across, down;  // pixels of a sample
    int width, height;
    JpegWanted wanted;
    int16_t quant[64];  // natural order
    uint8_t* samples;   // of the first wanted block
    int64_t stride;

    const uint8_t* row(int y, int x) const {
        const int64_t near = std::clamp(y, 0, height - 1) - 8 * wanted.first_row;
        return samples + near * stride + x - 8 * wanted.first_column;
    }
};

struct Job {
    const Image* image;
    JpegHeader header;
    Range rows, columns;  // pixels
    Plane planes[MAX_JPEG_SAMPLES];
    int mcus_across, mcus_down;
    Range mcu_rows, mcu_columns;
    uint8_t* coefficients;  // of all components, with the places of their last ones
    int64_t coefficients_nbytes;
    uint8_t* room[MAX_JPEG_SAMPLES];  // for a row of samples each
    int16_t* sums;
};

int ceil_divide(int a, int b) { return (a + b - 1) / b; }

// Whether colours and sampling are of the kinds that are decoded here.
bool is_known(const Image& image, const JpegHeader& header) {
    const int64_t stored = image.color_space, delivered = image.out_color_space;
    const JpegComponent* components = header.components;
    for (int s = 1; s < header.samples; s++) {
        if (components[s].across != 1 || components[s].down != 1) return false;
    }
    if (header.samples == 1) {
        return (stored == GRAY && delivered == GRAY) || stored == TOLD_BY_STREAM;
    }
    const bool subsampled = components[0].across != 1 || components[0].down != 1;
    if (header.samples == 4) return stored == TOLD_BY_STREAM && header.adobe <= 0 && !subsampled;
    return header.samples == 3 && (stored == RGB || stored == YCBCR) && delivered == RGB &&
           components[0].across <= 2 && components[0].down <= 2;
}

// Blocks that samples of the area, and those beside them that are interpolated from, are in.
Range blocks_of(Range pixels, int step, int size) {
    const int around = step > 1;
    return {std::max(pixels.first / step - around, 0) / 8,
            (std::min((pixels.end - 1) / step + around, size - 1)) / 8 + 1};
}

bool lay_out(Job& job) {
    const JpegHeader& header = job.header;
    const bool alone = header.samples == 1;  // MCUs of one block, whatever the sampling
    const int across = alone ? 1 : header.components[0].across;
    const int down = alone ? 1 : header.components[0].down;
    const int width = static_cast<int>(job.image->width);
    const int height = static_cast<int>(job.image->height);
    job.mcus_across = ceil_divide(width, 8 * across);
    job.mcus_down = ceil_divide(height, 8 * down);
    job.mcu_rows = job.mcu_columns = {1 << 30, 0};
    for (int s = 0; s < header.samples; s++) {
        const JpegComponent& component = header.components[s];
        Plane& plane = job.planes[s];
        JpegWanted& wanted = plane.wanted;
        wanted.across = alone ? 1 : component.across;
        wanted.down = alone ? 1 : component.down;
        plane.across = across / wanted.across;
        plane.down = down / wanted.down;
        plane.width = ceil_divide(width, plane.across);
        plane.height = ceil_divide(height, plane.down);
        if (plane.across > 1 && plane.width < LEAST_FANCY) return false;
        const Range columns = blocks_of(job.columns, plane.across, plane.width);
        const Range rows = blocks_of(job.rows, plane.down, plane.height);
        wanted.first_column = columns.first;
        wanted.end_column = columns.end;
        wanted.first_row = rows.first;
        wanted.end_row = rows.end;
        job.mcu_columns = {std::min(job.mcu_columns.first, columns.first / wanted.across),
                           std::max(job.mcu_columns.end, (columns.end - 1) / wanted.across + 1)};
        job.mcu_rows = {std::min(job.mcu_rows.first, rows.first / wanted.down),
                        std::max(job.mcu_rows.end, (rows.end - 1) / wanted.down + 1)};
    }
    return true;
}

bool find_tables(Job& job) {
    for (int s = 0; s < job.header.samples; s++) {
        const JpegComponent& component = job.header.components[s];
        JpegWanted& wanted = job.planes[s].wanted;
        wanted.quant = component.quant;
        for (int k = 0; k < 64; k++) job.planes[s].quant[jpeg_place(k)] = component.quant[k];
        for (int other = 0; other < s; other++) {  // asked for once
            const JpegComponent& same = job.header.components[other];
            if (same.dc.body == component.dc.body && same.ac.body == component.ac.body) {
                wanted.looks = job.planes[other].wanted.looks;
            }
        }
        if (!wanted.looks) wanted.looks = jpeg_looks(component.dc, component.ac);
        if (!wanted.looks) return false;
    }
    return true;
}

bool find_memory(Job& job) {
    int64_t samples_nbytes = 0, blocks = 0;
    for (int s = 0; s < job.header.samples; s++) {
        Plane& plane = job.planes[s];
        JpegWanted& wanted = plane.wanted;
        plane.stride = 8 * wanted.columns() + 2 * MARGIN;
        samples_nbytes += plane.stride * 8 * wanted.rows();
        blocks += wanted.down * wanted.columns();
    }
    if (samples_nbytes > MAX_NBYTES) return false;
    const int64_t row_nbytes = (job.columns.end - job.columns.first + 2 * MARGIN + 31) / 32 * 32;
    job.coefficients_nbytes = blocks * (JPEG_BLOCK_ROOM * 2 + 1);
    uint8_t* samples = memory->planes.room(samples_nbytes + (MAX_JPEG_SAMPLES + 2) * row_nbytes);
    uint8_t* coefficients = memory->coefficients.room(job.coefficients_nbytes);
    if (!samples || !coefficients) return false;
    job.coefficients = coefficients;
    uint8_t* last = coefficients + blocks * JPEG_BLOCK_ROOM * 2;
    for (int s = 0; s < job.header.samples; s++) {
        Plane& plane = job.planes[s];
        JpegWanted& wanted = plane.wanted;
        plane.samples = samples + MARGIN;
        samples += plane.stride * 8 * wanted.rows();
        wanted.coefficients = reinterpret_cast<int16_t*>(coefficients);
        coefficients += wanted.down * wanted.columns() * JPEG_BLOCK_ROOM * 2;
        wanted.last = last;
        last += wanted.down * wanted.columns();
    }
    for (int s = 0; s < MAX_JPEG_SAMPLES; s++) job.room[s] = samples + s * row_nbytes;
    job.sums = reinterpret_cast<int16_t*>(samples + MAX_JPEG_SAMPLES * row_nbytes);
    return true;
}

// Samples of one row of MCUs, from its coefficients.
bool transform_row(Job& job, int row) {
    for (int s = 0; s < job.header.samples; s++) {
        const Plane& plane = job.planes[s];
        const JpegWanted& wanted = plane.wanted;
        for (int i = 0; i < wanted.down; i++) {
            const int y = row * wanted.down + i;
            if (y < wanted.first_row || y >= wanted.end_row) continue;
            const int64_t blocks = static_cast<int64_t>(i) * wanted.columns();
            uint8_t* samples = plane.samples + 8 * (y - wanted.first_row) * plane.stride;
            const JpegBlocks found{wanted.columns(),
                                   wanted.coefficients + blocks * JPEG_BLOCK_ROOM,
                                   wanted.last + blocks,
                                   plane.quant,
                                   samples,
                                   plane.stride};
            if (!inverse_dct(found)) return false;
            if (plane.across == 1) continue;
            // what the filter meets beside the image is the sample at its edge
            const int behind = plane.width - 8 * wanted.first_column;
            for (int line = 0; line < 8; line++, samples += plane.stride) {
                if (wanted.first_column == 0) samples[-1] = samples[0];
                if (8 * wanted.end_column >= plane.width) samples[behind] = samples[behind - 1];
            }
        }
    }
    return true;
}

// All samples that the area depends on.
bool decode_samples(Job& job, const JpegData& data) {
    const int64_t mcus = static_cast<int64_t>(job.mcus_across) * job.mcus_down;
    const int64_t interval = job.header.restarts ? job.header.restarts : mcus;
    const bool leaves_out = interval * JPEG_MCU_BLOCKS <= MOST_LEFT_OUT && interval < mcus;
    JpegWanted wanted[MAX_JPEG_SAMPLES];
    for (int s = 0; s < job.header.samples; s++) wanted[s] = job.planes[s].wanted;
    JpegReader reader = {};
    int64_t mcu = 0;
    if (leaves_out) mcu = int64_t{job.mcu_rows.first} * job.mcus_across / interval * interval;
    for (int row = static_cast<int>(mcu / job.mcus_across); row < job.mcu_rows.end; row++) {
        const bool is_wanted = row >= job.mcu_rows.first, is_last = row + 1 == job.mcu_rows.end;
        const int64_t begin = int64_t{row} * job.mcus_across;
        const int64_t end = begin + (is_last ? job.mcu_columns.end : job.mcus_across);
        if (is_wanted) memset(job.coefficients, 0, job.coefficients_nbytes);
        while (mcu < end) {
            const int64_t left = interval - mcu % interval, run = std::min(left, end - mcu);
            const int first = static_cast<int>(mcu - begin);
            if (left == interval) {
                const uint8_t* bytes = data.bytes.data();
                begin_interval(reader, bytes + data.starts[mcu / interval],
                               bytes + data.starts[mcu / interval + 1]);
            }
            const bool beside = !is_wanted || first >= job.mcu_columns.end ||
                                first + run <= job.mcu_columns.first;
            mcu += run;
            if (leaves_out && run == interval && beside) continue;
            const int last = first + static_cast<int>(run);
            if (!decode_mcus(reader, wanted, job.header.samples, row, first, last)) return false;
            // bytes that are left before a restart are damage
            if (run == left && mcu < mcus && !is_used_up(reader)) return false;
        }
        if (is_wanted && !transform_row(job, row)) return false;
    }
    return true;
}

// The samples of one component for a row of pixels.
const uint8_t* samples_of(const Job& job, int component, int y) {
    const Plane& plane = job.planes[component];
    const int first = job.columns.first / plane.across;
    const int count = (job.columns.end - 1) / plane.across + 1 - first;
    const int near = y / plane.down, far = y % 2 ? near + 1 : near - 1;
    const uint8_t* samples = plane.row(near, first);
    uint8_t* room = job.room[component];
    if (plane.across == 1 && plane.down == 1) return samples;
    if (plane.across == 1) {
        upsample_down(samples, plane.row(far, first), y % 2 == 0, count, room);
    } else if (plane.down == 1) {
        upsample_across(samples, count, room);
    } else {
        upsample_both(samples, plane.row(far, first), count, job.sums, room);
    }
    return room + job.columns.first % plane.across;
}

void write_pixels(const Job& job, uint8_t* dst) {
    const int samples = job.header.samples, count = job.columns.end - job.columns.first;
    const bool converts = job.image->color_space == YCBCR && samples == 3;
    dst += int64_t{job.columns.first} * samples;
    for (int y = job.rows.first; y < job.rows.end; y++, dst += job.image->width * samples) {
        const uint8_t* rows[MAX_JPEG_SAMPLES];
        for (int s = 0; s < samples; s++) rows[s] = samples_of(job, s, y);
        if (converts) {
            join_ycbcr(rows, count, dst);
        } else {
            join_samples(rows, samples, count, dst);
        }
    }
}

bool decode(const Image& image, const uint8_t* src, int64_t src_nbytes, Range rows, Range columns,
            uint8_t* dst) {
    Job job = {};
    job.image = &image;
    job.rows = rows;
    job.columns = columns;
    if (!read_jpeg_header(image, src, src_nbytes, job.header) || !is_known(image, job.header) ||
        !lay_out(job)) {
        return false;
    }
    const int64_t mcus = static_cast<int64_t>(job.mcus_across) * job.mcus_down;
    const int64_t restarts = job.header.restarts;
    const int64_t intervals = restarts ? (mcus + restarts - 1) / restarts : 1;
    if (!memory) memory = std::make_unique<Memory>();
    if (!read_jpeg_data(src, src_nbytes, job.header.scan, intervals, memory->data) ||
        !find_tables(job) || !find_memory(job) || !decode_samples(job, memory->data)) {
        return false;
    }
    write_pixels(job, dst);
    return true;
}

}  // namespace

bool decode_plain_jpeg(const Image& image, const uint8_t* src, int64_t src_nbytes, int64_t first,
                       int64_t count, Columns columns, uint8_t* dst) {
    try {
        return decode(image, src, src_nbytes,
                      {static_cast<int>(first), static_cast<int>(first + count)},
                      {static_cast<int>(columns.first), static_cast<int>(columns.end)}, dst);
    } catch (const std::bad_alloc&) {
        memory.reset();
        return false;
    }
}

bool decodes_plain_jpeg_fast() { return has_avx2(); }

void keep_jpeg_memory(int64_t nbytes) {
    if (!memory) return;
    memory->planes.keep_at_most(nbytes);
    memory->coefficients.keep_at_most(nbytes);
    const JpegData& data = memory->data;
    if (nbytes_of(data.bytes) + nbytes_of(data.starts) > nbytes) memory->data = {};
}

}  // namespace zarrgpu
