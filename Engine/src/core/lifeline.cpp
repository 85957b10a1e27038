#include "core/lifeline.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "core/log.h"

namespace blas_engine {
namespace {

std::atomic<int> signal_pipe_write_end{-1};

// A handler and not a signalfd: BLAS libraries start threads before main, which a mask set here would not cover.
void forward_signal(int signal) {
    int saved_errno = errno;
    auto byte = static_cast<unsigned char>(signal);
    [[maybe_unused]] ssize_t written = write(signal_pipe_write_end, &byte, 1);
    errno = saved_errno;
}

}  // namespace

Lifeline::Lifeline(int death_fd, InputQueue& queue) : death_fd_(death_fd), queue_(queue) {
    stop_event_ = eventfd(0, EFD_CLOEXEC);
    if (stop_event_ < 0 || pipe2(signal_pipe_, O_CLOEXEC | O_NONBLOCK) != 0) {
        throw std::runtime_error(std::string("no descriptors for signals: ") + std::strerror(errno));
    }
    signal_pipe_write_end = signal_pipe_[1];
    struct sigaction action {};
    action.sa_handler = forward_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
    signal(SIGPIPE, SIG_IGN);
    thread_ = std::thread([this] {
        pthread_setname_np(pthread_self(), "engine-lifeline");
        run();
    });
}

Lifeline::~Lifeline() {
    const uint64_t one = 1;
    [[maybe_unused]] ssize_t written = write(stop_event_, &one, sizeof one);
    thread_.join();
    close(stop_event_);
    // The pipe stays: a late signal may still be on its way to it, and the process ends with its Lifeline.
}

void Lifeline::run() {
    int signals_seen = 0;
    // poll ignores negative descriptors, so a missing death pipe needs no special case.
    pollfd fds[] = {{stop_event_, POLLIN, 0}, {signal_pipe_[0], POLLIN, 0}, {death_fd_, POLLIN, 0}};
    for (;;) {
        if (poll(fds, 3, -1) < 0) {
            if (errno == EINTR) continue;
            return;
        }
        if (fds[0].revents) return;
        if (fds[2].revents) {
            char byte;
            ssize_t got = read(death_fd_, &byte, 1);
            if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) {
                log(LogLevel::error, "the supervisor is gone, exiting");
                _exit(1);
            }
        }
        if (fds[1].revents) {
            unsigned char signal;
            if (read(signal_pipe_[0], &signal, 1) != 1) continue;
            if (!serving_) {
                log(LogLevel::info, "signal %d before serving, exiting", signal);
                _exit(0);
            }
            if (++signals_seen > 1) {
                log(LogLevel::warning, "second signal, exiting at once");
                _exit(128 + signal);
            }
            queue_.push(ShutdownRequested{signal});
        }
    }
}

}  // namespace blas_engine
