// Reading ranges of files into memory that a thread uses again.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace zarrgpu {

// Memory that grows and is used again: no page faults, and in cache.
class Scratch {
   public:
    // Null where there is no memory.
    uint8_t* room(int64_t nbytes);
    // Give memory of more than `nbytes` back: threads live as long as the process.
    void keep_at_most(int64_t nbytes);

   private:
    std::unique_ptr<uint8_t[]> memory_;
    int64_t size_ = 0;
};

// What a vector holds of memory, used or not.
template <typename T>
int64_t nbytes_of(const std::vector<T>& values) {
    return static_cast<int64_t>(values.capacity() * sizeof(T));
}

enum class Found { FILE, ABSENT, OTHER };

// The file that was asked for last, kept open for the next read.
class OpenFile {
   public:
    ~OpenFile() { close(); }
    // Open `root/key`; `identity` tells whether it is the file that is open.
    Found open(const char* root, const char* key, const void* identity);
    int64_t size() const { return size_; }
    // Whether all bytes were read.
    bool read(uint8_t* dst, int64_t offset, int64_t nbytes) const;

   private:
    void close();
    int fd_ = -1;
    int64_t size_ = 0;
    Found found_ = Found::OTHER;
    const void* identity_ = nullptr;
};

}  // namespace zarrgpu
