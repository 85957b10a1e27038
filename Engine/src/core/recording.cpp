#include "core/recording.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "core/executor.h"
#include "sampling/random.h"

namespace blas_engine {
namespace {

constexpr std::string_view magic = "blas-engine-recording";
constexpr size_t flush_bytes = size_t{256} << 10;
constexpr int64_t longest_microseconds = int64_t{1} << 50;

void append_number(std::string& out, int64_t number) {
    char digits[24];
    auto [end, error] = std::to_chars(digits, digits + sizeof digits, number);
    out.push_back(' ');
    out.append(digits, end);
}

// Words of a line, separated by spaces.
class Words {
  public:
    explicit Words(std::string_view line) : rest_(line) {}

    bool empty() const { return rest_.empty(); }
    std::string_view next() {
        const size_t space = std::min(rest_.find(' '), rest_.size());
        const std::string_view word = rest_.substr(0, space);
        rest_.remove_prefix(std::min(space + 1, rest_.size()));
        return word;
    }
    uint64_t number(uint64_t low, uint64_t high, int base = 10) {
        const std::string_view word = next();
        uint64_t value = 0;
        auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
        if (error != std::errc() || end != word.data() + word.size() || value < low || value > high) {
            throw std::runtime_error("'" + std::string(word.substr(0, 40)) + "' is not a number in its bounds");
        }
        return value;
    }

  private:
    std::string_view rest_;
};

void read_header(Words words, Recording& recording) {
    if (words.next() != magic) throw std::runtime_error("this is no recording of blas-engine");
    words.number(1, 1);
    recording.vocab_size = static_cast<int>(words.number(2, 1 << 24));
    recording.max_position = static_cast<int>(words.number(2, 1 << 28));
    recording.dtype = words.next();
    if (recording.dtype.empty()) throw std::runtime_error("the dtype is missing");
}

void read_step(Words& words, const Recording& recording, Recording::Answer& answer) {
    const double seconds = static_cast<double>(words.number(0, longest_microseconds)) * 1e-6;
    if (!answer.times.empty() && seconds < answer.times.back()) throw std::runtime_error("times run backwards");
    if (words.empty()) throw std::runtime_error("a step without tokens");
    while (!words.empty()) {
        answer.tokens.push_back(static_cast<int32_t>(words.number(0, static_cast<uint64_t>(recording.vocab_size - 1))));
    }
    answer.times.push_back(seconds);
    answer.ends.push_back(static_cast<uint32_t>(answer.tokens.size()));
}

}  // namespace

uint64_t prompt_key(std::span<const int32_t> prompt) {
    uint64_t key = mix64(prompt.size());
    for (const int32_t id : prompt) key = mix64(key ^ static_cast<uint32_t>(id));
    return key;
}

Recorder::Recorder(const std::string& path, const ExecutorInfo& info) {
    if (path.empty()) return;
    descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (descriptor_ < 0) throw std::runtime_error("--record: cannot create " + path + ": " + std::strerror(errno));
    buffer_.append(magic).append(" 1");
    append_number(buffer_, info.vocab_size);
    append_number(buffer_, info.max_position);
    buffer_.append(" ").append(info.dtype).append("\n");
    flush();
}

Recorder::~Recorder() {
    flush();
    if (descriptor_ >= 0) close(descriptor_);
}

void Recorder::admitted(const Request& request) {
    if (descriptor_ < 0) return;
    char key[24];
    auto [end, error] = std::to_chars(key, key + sizeof key, prompt_key(request.prompt()), 16);
    buffer_.append("request");
    append_number(buffer_, static_cast<int64_t>(request.sequence_number));
    buffer_.append(" ").append(key, end);
    append_number(buffer_, request.prompt_length);
    buffer_.append("\n");
    if (buffer_.size() >= flush_bytes) flush();
}

double came_in_at(const Request& request) {
    return request.received_at > 0 ? request.received_at : request.admitted_at;
}

void Recorder::sent(std::span<const Request* const> requests, double seconds) {
    if (descriptor_ < 0) return;
    for (const Request* request : requests) {
        if (request->new_tokens.empty()) continue;
        buffer_.append("step");
        append_number(buffer_, static_cast<int64_t>(request->sequence_number));
        append_number(buffer_, std::max<int64_t>(0, std::llround((seconds - came_in_at(*request)) * 1e6)));
        for (const int32_t id : request->new_tokens) append_number(buffer_, id);
        buffer_.append("\n");
    }
    if (buffer_.size() >= flush_bytes) flush();
}

void Recorder::flush() {
    for (size_t done = 0; descriptor_ >= 0 && done < buffer_.size();) {
        const ssize_t written = write(descriptor_, buffer_.data() + done, buffer_.size() - done);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) break;
        done += static_cast<size_t>(written);
    }
    buffer_.clear();
}

Recording Recording::read(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("--mock-replay: cannot open " + path);
    Recording recording;
    std::unordered_map<uint64_t, size_t> index;
    std::string line;
    size_t number = 0;
    try {
        while (std::getline(file, line)) {
            if (++number == 1) {
                read_header(Words(line), recording);
                continue;
            }
            Words words(line);
            const std::string_view kind = words.next();
            const uint64_t request = words.number(0, UINT64_MAX);
            if (kind == "request") {
                if (!index.emplace(request, recording.answers.size()).second) {
                    throw std::runtime_error("request " + std::to_string(request) + " begins twice");
                }
                recording.answers.emplace_back().prompt_key = words.number(0, UINT64_MAX, 16);
                words.number(0, 1 << 28);
                if (!words.empty()) throw std::runtime_error("too many words");
            } else if (kind == "step") {
                const auto found = index.find(request);
                if (found == index.end()) throw std::runtime_error("a step of an unknown request");
                read_step(words, recording, recording.answers[found->second]);
            } else {
                throw std::runtime_error("unknown record '" + std::string(kind.substr(0, 40)) + "'");
            }
        }
        std::erase_if(recording.answers, [](const Answer& answer) { return answer.times.empty(); });
        if (recording.answers.empty()) throw std::runtime_error("it holds no answers");
    } catch (const std::runtime_error& error) {
        throw std::runtime_error("--mock-replay: " + path + ", line " + std::to_string(number) + ": " + error.what());
    }
    return recording;
}

}  // namespace blas_engine
