#include "wire/wave_channel.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <cerrno>
#include <cstring>

#include "core/log.h"

namespace blas_engine {
namespace {

constexpr uint8_t kind_busy = 0, kind_idle = 1, kind_completed = 2;
constexpr size_t frame_bytes = 9;
constexpr int linger_ms = 1000;

}  // namespace

WaveChannel::WaveChannel(ZmqContext& context, const ParallelConfig& config, int rank, InputQueue& queue,
                         const cpu_set_t& cpus)
    : rank_(rank),
      size_(config.size),
      queue_(queue),
      socket_(context, rank == 0 ? ZMQ_ROUTER : ZMQ_DEALER),
      wakeup_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (wakeup_ < 0) throw ZmqError(std::string("eventfd: ") + std::strerror(errno));
    socket_.set(ZMQ_LINGER, linger_ms);
    const bool v6 = config.master_ip.find(':') != std::string::npos;
    const std::string address =
        "tcp://" + (v6 ? "[" + config.master_ip + "]" : config.master_ip) + ":" + std::to_string(config.master_port);
    if (rank == 0) {
        socket_.set(ZMQ_IPV6, v6 ? 1 : 0);
        socket_.bind(address);
    } else {
        socket_.set_identity(engine_identity(rank));
        socket_.connect(address);
    }
    thread_ = std::thread([this, cpus] {
        pthread_setname_np(pthread_self(), "engine-waves");
        if (CPU_COUNT(&cpus) > 0) pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
        try {
            run();
        } catch (const std::exception& error) {
            queue_.push(TransportFailed{std::string("wave channel: ") + error.what()});
        }
    });
}

WaveChannel::~WaveChannel() {
    {
        std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    eventfd_write(wakeup_, 1);
    thread_.join();
    close(wakeup_);
}

void WaveChannel::send(const WaveReport& report) { enqueue(report.idle ? kind_idle : kind_busy, report.wave); }

void WaveChannel::send(const WaveCompleted& completed) { enqueue(kind_completed, completed.wave); }

void WaveChannel::enqueue(uint8_t kind, int64_t wave) {
    Frame frame{kind};
    for (int i = 0; i < 8; ++i) frame.push_back(static_cast<uint8_t>(static_cast<uint64_t>(wave) >> (8 * i)));
    {
        std::lock_guard lock(mutex_);
        queued_.push_back(std::move(frame));
    }
    eventfd_write(wakeup_, 1);
}

void WaveChannel::run() {
    for (;;) {
        zmq_pollitem_t items[] = {{nullptr, wakeup_, ZMQ_POLLIN, 0}, {socket_.get(), 0, ZMQ_POLLIN, 0}};
        if (zmq_poll(items, 2, -1) < 0) {
            if (zmq_errno() == EINTR) continue;
            throw ZmqError(std::string("zmq_poll: ") + zmq_strerror(zmq_errno()));
        }
        if (items[0].revents != 0) {
            eventfd_t ignored;
            eventfd_read(wakeup_, &ignored);
            send_queued();
            std::lock_guard lock(mutex_);
            if (stopping_) return;
        }
        if (items[1].revents != 0) receive();
    }
}

void WaveChannel::send_queued() {
    std::vector<Frame> frames;
    {
        std::lock_guard lock(mutex_);
        frames.swap(queued_);
    }
    for (const Frame& frame : frames) {
        if (rank_ != 0) socket_.send(frame);
        for (int rank = 1; rank_ == 0 && rank < size_; ++rank) {
            socket_.send(std::vector<Frame>{engine_identity(rank), frame});
        }
    }
}

void WaveChannel::receive() {
    ZmqSocket::Message message;
    while (socket_.receive(message, 2, 64)) {
        const size_t last = rank_ == 0 ? 1 : 0;  // behind the sender's identity
        const bool whole = !message.oversized && message.num_frames == last + 1;
        const Frame* frame = whole && message.frames[last].size() == frame_bytes ? &message.frames[last] : nullptr;
        uint64_t wave = 0;
        for (size_t i = 0; frame != nullptr && i < 8; ++i) wave |= uint64_t{(*frame)[i + 1]} << (8 * i);
        const uint8_t kind = frame != nullptr ? (*frame)[0] : 0xff;
        if (rank_ == 0 && kind <= kind_idle && message.frames[0].size() == 2) {
            const int rank = message.frames[0][0] | message.frames[0][1] << 8;
            queue_.push(WaveReport{rank, static_cast<int64_t>(wave), kind == kind_idle});
        } else if (rank_ != 0 && kind == kind_completed && wave < uint64_t{1} << 62) {
            queue_.push(WaveCompleted{static_cast<int64_t>(wave)});
        } else {
            log(LogLevel::warning, "dropped a message between ranks that is none");
        }
    }
}

}  // namespace blas_engine
