// See jpeg_stream.h. Spec: ITU-T T.81, annex B. Whatever libjpeg would tell an error, a warning or
// something else of is not plain here, and left to it.

#include "jpeg_stream.h"

#include <cstring>

#include "big_endian.h"

namespace zarrgpu {
namespace {

constexpr int64_t MAX_PADDING_NBYTES = 3;
constexpr int TABLES = 4;

struct Tables {
    const uint8_t* quant[TABLES];
    JpegCode dc[TABLES], ac[TABLES];
};

bool read_quantisation(const uint8_t* at, const uint8_t* end, Tables& tables) {
    for (; at < end; at += 65) {  // of 8 bits each
        if (at[0] >= TABLES || end - at < 65) return false;
        tables.quant[at[0]] = at + 1;
    }
    return true;
}

bool read_codes(const uint8_t* at, const uint8_t* end, Tables& tables) {
    while (at < end) {
        const int number = at[0] & 0xF;
        if (at[0] > 0x1F || number >= TABLES || end - at < 17) return false;
        int nbytes = 16;
        for (int i = 1; i <= 16; i++) nbytes += at[i];
        if (nbytes > 16 + 256 || nbytes > end - at - 1) return false;
        (at[0] & 0x10 ? tables.ac : tables.dc)[number] = {at + 1, nbytes};
        at += 1 + nbytes;
    }
    return true;
}

bool read_frame(const Image& image, const uint8_t* body, int64_t nbytes, JpegHeader& header) {
    if (header.samples || nbytes < 6 || body[0] != 8 || body[5] != image.samples) return false;
    if (big16(body + 1) != image.height || big16(body + 3) != image.width) {
        return false;
    }
    header.samples = body[5];
    if (header.samples > MAX_JPEG_SAMPLES || nbytes != 6 + 3 * header.samples) return false;
    for (int s = 0; s < header.samples; s++) {
        const uint8_t* at = body + 6 + 3 * s;
        JpegComponent& component = header.components[s];
        component.id = at[0];
        component.across = at[1] >> 4;
        component.down = at[1] & 0xF;
        if (component.across < 1 || component.across > 4 || component.down < 1 ||
            component.down > 4 || at[2] >= TABLES) {
            return false;
        }
        component.quant_number = at[2];
        for (int other = 0; other < s; other++) {
            if (header.components[other].id == component.id) return false;
        }
    }
    return true;
}

bool read_scan(const uint8_t* body, int64_t nbytes, const Tables& tables, JpegHeader& header) {
    const int samples = header.samples;
    if (!samples || nbytes != 4 + 2 * samples || body[0] != samples) return false;
    for (int s = 0; s < samples; s++) {
        const uint8_t* at = body + 1 + 2 * s;
        JpegComponent& component = header.components[s];
        const int dc = at[1] >> 4, ac = at[1] & 0xF;
        if (at[0] != component.id || dc >= TABLES || ac >= TABLES) return false;
        component.dc = tables.dc[dc];
        component.ac = tables.ac[ac];
        component.quant = tables.quant[component.quant_number];
        if (!component.dc.body || !component.ac.body || !component.quant) return false;
    }
    const uint8_t* spectrum = body + 1 + 2 * samples;  // all of it, at once
    return spectrum[0] == 0 && spectrum[1] == 63 && spectrum[2] == 0;
}

// What a walk over segments ends at.
enum class Ends { SCAN, IMAGE, BADLY };

// Take the segments from a start of image up to a scan, or the end of the image.
Ends read_segments(const Image& image, const uint8_t* src, int64_t nbytes, Tables& tables,
                   JpegHeader& header, int64_t& end) {
    if (nbytes < 4 || src[0] != 0xFF || src[1] != 0xD8) return Ends::BADLY;
    header.restarts = 0;
    header.adobe = -1;
    for (int64_t at = 2; at + 2 <= nbytes; at = end) {
        const uint8_t marker = src[at + 1];
        if (src[at] != 0xFF) break;
        if (marker == 0xD9) return Ends::IMAGE;
        if (at + 4 > nbytes) break;
        const uint8_t* body = src + at + 4;
        end = at + 2 + big16(src + at + 2);
        const int64_t size = end - at - 4;
        if (size < 0 || end > nbytes) break;
        bool good = true;
        if (marker == 0xC0 || marker == 0xC1) {
            good = read_frame(image, body, size, header);
        } else if (marker == 0xDA) {
            return read_scan(body, size, tables, header) ? Ends::SCAN : Ends::BADLY;
        } else if (marker == 0xC4) {
            good = read_codes(body, body + size, tables);
        } else if (marker == 0xDB) {
            good = read_quantisation(body, body + size, tables);
        } else if (marker == 0xDD) {
            good = size == 2;
            if (good) header.restarts = big16(body);
        } else if (marker == 0xEE) {
            if (size >= 12 && !memcmp(body, "Adobe", 5)) header.adobe = body[11];
        } else {
            good = marker == 0xFE || (marker >= 0xE0 && marker <= 0xEF);
        }
        if (!good) break;
    }
    return Ends::BADLY;
}

}  // namespace

bool read_jpeg_header(const Image& image, const uint8_t* src, int64_t nbytes, JpegHeader& header) {
    Tables tables = {};
    header.samples = 0;
    if (image.tables_nbytes) {
        int64_t end;
        const Ends ends =
            read_segments(image, image.tables, image.tables_nbytes, tables, header, end);
        if (ends != Ends::IMAGE || header.samples) return false;
    }
    return read_segments(image, src, nbytes, tables, header, header.scan) == Ends::SCAN;
}

bool is_jpeg_padding(const uint8_t* at, const uint8_t* end) {
    if (end - at <= MAX_PADDING_NBYTES) return true;
    while (at < end && (*at == 0 || *at == 0xFF)) at++;
    return at == end;
}

bool read_jpeg_data(const uint8_t* src, int64_t nbytes, int64_t scan, int64_t intervals,
                    JpegData& data) {
    const uint8_t *at = src + scan, *const end = src + nbytes;
    data.starts.assign(1, 0);
    if (static_cast<int64_t>(data.bytes.size()) < nbytes + JPEG_GUARD_NBYTES) {
        data.bytes.resize(nbytes + JPEG_GUARD_NBYTES);
    }
    uint8_t* to = data.bytes.data();
    for (;;) {
        const uint8_t* mark = static_cast<const uint8_t*>(memchr(at, 0xFF, end - at));
        if (!mark || mark + 2 > end) return false;
        const int64_t stuffed = mark[1] == 0;  // 0xFF is data
        memcpy(to, at, mark - at + stuffed);
        to += mark - at + stuffed;
        at = mark + 2;
        if (stuffed) continue;
        const int64_t ended = static_cast<int64_t>(data.starts.size());
        data.starts.push_back(to - data.bytes.data());
        if (mark[1] == 0xD9) {
            memset(to, 0, JPEG_GUARD_NBYTES);
            return ended == intervals && is_jpeg_padding(at, end);
        }
        if (ended >= intervals || mark[1] != 0xD0 + (ended - 1) % 8) return false;
    }
}

}  // namespace zarrgpu
