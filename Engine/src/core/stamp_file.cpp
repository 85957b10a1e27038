#include "core/stamp_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "core/request.h"

namespace blas_engine {
namespace {

constexpr size_t flush_bytes = size_t{256} << 10;
constexpr uint32_t kind_received = 0;
constexpr uint32_t kind_sent = 1;
constexpr uint32_t kind_received_bytes = 2;
constexpr uint32_t kind_sent_bytes = 3;

struct Record {
    int64_t nanoseconds;
    uint64_t seed;
    uint32_t kind;
    uint32_t count;  // tokens or bytes
};
static_assert(sizeof(Record) == 24);

}  // namespace

StampFile::StampFile(const std::string& path) {
    if (path.empty()) return;
    descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (descriptor_ < 0) throw std::runtime_error("--stamps: cannot create " + path + ": " + std::strerror(errno));
    buffer_.reserve(flush_bytes * 2);
}

StampFile::~StampFile() {
    flush();
    if (descriptor_ >= 0) close(descriptor_);
}

void StampFile::received(const Request& request) {
    if (!is_open()) return;
    append(request.received_at, request, kind_received, static_cast<size_t>(request.prompt_length));
    append(request.received_at, request, kind_received_bytes, request.received_bytes);
}

void StampFile::sent(std::span<const Request* const> requests, double seconds, size_t bytes) {
    if (!is_open()) return;
    for (const Request* request : requests) {
        append(seconds, *request, kind_sent, request->new_tokens.size());
    }
    // A message is for many requests: it is noted with the first of them that can be told apart.
    auto named = std::find_if(requests.begin(), requests.end(), [](auto* r) { return r->params.seed.has_value(); });
    if (named != requests.end()) append(seconds, **named, kind_sent_bytes, bytes);
    if (buffer_.size() >= flush_bytes) flush();
}

void StampFile::append(double seconds, const Request& request, uint32_t kind, size_t count) {
    // Requests without a seed cannot be told apart by it.
    if (!request.params.seed) return;
    Record record{static_cast<int64_t>(seconds * 1e9), static_cast<uint64_t>(*request.params.seed), kind,
                  static_cast<uint32_t>(std::min<size_t>(count, UINT32_MAX))};
    size_t at = buffer_.size();
    buffer_.resize(at + sizeof record);
    std::memcpy(buffer_.data() + at, &record, sizeof record);
}

void StampFile::flush() {
    size_t done = 0;
    while (done < buffer_.size()) {
        ssize_t count = write(descriptor_, buffer_.data() + done, buffer_.size() - done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) break;
        done += static_cast<size_t>(count);
    }
    buffer_.clear();
}

}  // namespace blas_engine
