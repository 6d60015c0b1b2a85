// See files.h; what counts as absent is what stores/local.py says.

#include "files.h"

#include <cerrno>
#include <climits>
#include <cstdio>
#include <fcntl.h>
#include <new>
#include <sys/stat.h>
#include <unistd.h>

namespace zarrgpu {

uint8_t* Scratch::room(int64_t nbytes) {
    if (nbytes > size_) {
        memory_.reset();
        size_ = 0;
        memory_.reset(new (std::nothrow) uint8_t[nbytes]);
        if (!memory_) return nullptr;
        size_ = nbytes;
    }
    return memory_.get();
}

void Scratch::keep_at_most(int64_t nbytes) {
    if (size_ <= nbytes) return;
    memory_.reset();
    size_ = 0;
}

void OpenFile::close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
    identity_ = nullptr;
}

Found OpenFile::open(const char* root, const char* key, const void* identity) {
    if (identity == identity_) return found_;
    close();
    found_ = Found::OTHER;
    char path[PATH_MAX];
    const int length = snprintf(path, sizeof path, *key ? "%s/%s" : "%s%s", root, key);
    if (length < 0 || length >= PATH_MAX) return found_;
    fd_ = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // without waiting for a pipe's writer
    if (fd_ < 0) {
        if (errno == ENOENT || errno == ENOTDIR || errno == EISDIR) found_ = Found::ABSENT;
        return found_;
    }
    struct stat facts;
    if (fstat(fd_, &facts) != 0) return found_;
    if (S_ISDIR(facts.st_mode)) found_ = Found::ABSENT;
    if (S_ISREG(facts.st_mode)) found_ = Found::FILE;
    size_ = facts.st_size;
    identity_ = identity;
    return found_;
}

bool OpenFile::read(uint8_t* dst, int64_t offset, int64_t nbytes) const {
    if (offset < 0 || nbytes < 0 || offset > size_ - nbytes) return false;
    while (nbytes > 0) {
        const ssize_t got = pread(fd_, dst, nbytes, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        dst += got;
        offset += got;
        nbytes -= got;
    }
    return true;
}

}  // namespace zarrgpu
