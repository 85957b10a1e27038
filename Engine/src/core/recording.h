// Recordings of what an engine answered and when (--record), to be played back without the model (--mock-replay).
//
// A text file, one record per line, words separated by single spaces:
//   blas-engine-recording 1 VOCAB_SIZE MAX_POSITION DTYPE
//   request N PROMPT_KEY PROMPT_TOKENS    N: number of the request in this file; PROMPT_KEY: prompt_key() in
//   hexadecimal step N MICROSECONDS ID [ID ...]       tokens of one step, and its time since the request came in
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace blas_engine {

struct Request;
struct ExecutorInfo;

// CLOCK_MONOTONIC seconds at which a request came off the socket (or was admitted, if there was no socket): waiting for
// the step that was being computed is part of what a client saw.
double came_in_at(const Request& request);

// Depends on every token and their order.
uint64_t prompt_key(std::span<const int32_t> prompt);

// Writing fails silently after the file was opened: a full disk must not end an engine.
class Recorder {
  public:
    // Does nothing without a path. Throws std::runtime_error if the file cannot be created.
    Recorder(const std::string& path, const ExecutorInfo& info);
    ~Recorder();
    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    void admitted(const Request& request);
    // `seconds`: CLOCK_MONOTONIC when the step's message was handed over.
    void sent(std::span<const Request* const> requests, double seconds);
    void flush();

  private:
    int descriptor_ = -1;
    std::string buffer_;
};

struct Recording {
    struct Answer {
        uint64_t prompt_key = 0;
        std::vector<double> times;   // seconds since the request came in, of each step, ascending
        std::vector<uint32_t> ends;  // number of tokens after each step
        std::vector<int32_t> tokens;
    };
    int vocab_size = 0;
    int max_position = 0;
    std::string dtype;
    std::vector<Answer> answers;  // in the order of requests; never empty, each has a step

    // Throws std::runtime_error with file and line: unreadable, malformed, out of bounds, or nothing recorded.
    static Recording read(const std::string& path);
};

}  // namespace blas_engine
