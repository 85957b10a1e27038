#include "wire/zmq_socket.h"

#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

namespace blas_engine {
namespace {

// Enough of a frame that is too large to see whose it is.
constexpr size_t oversized_prefix = 4096;

[[noreturn]] void fail(const std::string& what) { throw ZmqError(what + ": " + zmq_strerror(zmq_errno())); }

}  // namespace

ZmqContext::ZmqContext() : context_(zmq_ctx_new()) {
    if (!context_) fail("zmq_ctx_new");
}

ZmqContext::~ZmqContext() { zmq_ctx_term(context_); }

ZmqSocket::ZmqSocket(ZmqContext& context, int type) : socket_(zmq_socket(context.get(), type)) {
    if (!socket_) fail("zmq_socket");
}

ZmqSocket::~ZmqSocket() {
    if (socket_) zmq_close(socket_);
}

void ZmqSocket::set(int option, int value) {
    if (zmq_setsockopt(socket_, option, &value, sizeof value) != 0) fail("zmq_setsockopt");
}

void ZmqSocket::set(int option, int64_t value) {
    if (zmq_setsockopt(socket_, option, &value, sizeof value) != 0) fail("zmq_setsockopt");
}

void ZmqSocket::set_identity(std::span<const uint8_t> identity) {
    if (zmq_setsockopt(socket_, ZMQ_ROUTING_ID, identity.data(), identity.size()) != 0) fail("setting the identity");
}

void ZmqSocket::bind(const std::string& address) {
    if (zmq_bind(socket_, address.c_str()) != 0) fail("cannot bind " + address);
}

void ZmqSocket::connect(const std::string& address) {
    if (address.starts_with("tcp://[")) set(ZMQ_IPV6, 1);
    if (zmq_connect(socket_, address.c_str()) != 0) fail("cannot connect to " + address);
}

void ZmqSocket::send(std::span<const uint8_t> frame, bool more) {
    while (zmq_send(socket_, frame.data(), frame.size(), more ? ZMQ_SNDMORE : 0) < 0) {
        if (zmq_errno() != EINTR) fail("zmq_send");
    }
}

void ZmqSocket::send(const std::vector<std::vector<uint8_t>>& frames) {
    for (size_t i = 0; i < frames.size(); ++i) send(frames[i], i + 1 < frames.size());
}

bool ZmqSocket::receive(Message& message, size_t max_frames, size_t max_bytes) {
    message.num_frames = 0;
    message.oversized = false;
    size_t bytes = 0;
    for (bool more = true; more;) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        // The parts of a message arrive together: only the first one can be missing.
        int size = zmq_msg_recv(&part, socket_, ZMQ_DONTWAIT);
        if (size < 0) {
            int error = zmq_errno();
            zmq_msg_close(&part);
            if (error == EINTR) continue;
            if (error == EAGAIN && message.num_frames == 0) return false;
            fail("zmq_msg_recv");
        }
        bytes += static_cast<size_t>(size);
        auto kept = static_cast<size_t>(size);
        if (bytes > max_bytes) {
            message.oversized = true;
            kept = std::min(kept, oversized_prefix);
        }
        if (message.num_frames >= max_frames) {
            message.oversized = true;
        } else {
            if (message.frames.size() <= message.num_frames) message.frames.emplace_back();
            const auto* data = static_cast<const uint8_t*>(zmq_msg_data(&part));
            message.frames[message.num_frames++].assign(data, data + kept);
        }
        more = zmq_msg_more(&part) != 0;
        zmq_msg_close(&part);
    }
    return true;
}

bool ZmqSocket::wait_readable(int timeout_ms) {
    zmq_pollitem_t item{socket_, 0, ZMQ_POLLIN, 0};
    auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    for (;;) {
        int ready = zmq_poll(&item, 1, timeout_ms);
        if (ready >= 0) return ready > 0;
        if (zmq_errno() != EINTR) fail("zmq_poll");
        if (timeout_ms > 0) {
            auto left =
                std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
            timeout_ms = static_cast<int>(std::max<int64_t>(left.count(), 0));
        }
    }
}

}  // namespace blas_engine
