// Thin ownership and error handling over the libzmq C API.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace blas_engine {

struct ZmqError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class ZmqContext {
  public:
    ZmqContext();
    ~ZmqContext();
    ZmqContext(const ZmqContext&) = delete;
    ZmqContext& operator=(const ZmqContext&) = delete;
    void* get() const { return context_; }

  private:
    void* context_;
};

// Used by one thread at a time, as libzmq demands.
class ZmqSocket {
  public:
    ZmqSocket(ZmqContext& context, int type);
    ~ZmqSocket();
    ZmqSocket(ZmqSocket&& other) noexcept : socket_(other.socket_) { other.socket_ = nullptr; }
    ZmqSocket& operator=(ZmqSocket&&) = delete;

    void set(int option, int value);
    void set(int option, int64_t value);
    void set_identity(std::span<const uint8_t> identity);
    void bind(const std::string& address);
    // Turns on IPv6 for IPv6 literals; errors name the address.
    void connect(const std::string& address);

    void send(std::span<const uint8_t> frame, bool more = false);
    void send(const std::vector<std::vector<uint8_t>>& frames);
    // Receives one whole message without waiting; false if there is none. Frames reuse their capacity. Messages beyond
    // the limits are read to their end but come back cut to their beginning, with `oversized` set.
    struct Message {
        std::vector<std::vector<uint8_t>> frames;
        size_t num_frames = 0;
        bool oversized = false;
    };
    bool receive(Message& message, size_t max_frames, size_t max_bytes);
    // Waits for input; false after `timeout_ms`.
    bool wait_readable(int timeout_ms);

    void* get() const { return socket_; }

  private:
    void* socket_;
};

}  // namespace blas_engine
