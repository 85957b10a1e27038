#include "core/lifeline.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "core/log.h"

namespace blas_engine {

Lifeline::Lifeline(int death_fd, InputQueue& queue) : death_fd_(death_fd), queue_(queue) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signal(SIGPIPE, SIG_IGN);
    signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
    stop_event_ = eventfd(0, EFD_CLOEXEC);
    if (signal_fd_ < 0 || stop_event_ < 0) throw std::runtime_error(std::string("signalfd: ") + std::strerror(errno));
    thread_ = std::thread([this] {
        pthread_setname_np(pthread_self(), "engine-lifeline");
        run();
    });
}

Lifeline::~Lifeline() {
    const uint64_t one = 1;
    [[maybe_unused]] ssize_t written = write(stop_event_, &one, sizeof one);
    thread_.join();
    close(signal_fd_);
    close(stop_event_);
}

void Lifeline::run() {
    int signals_seen = 0;
    // poll ignores negative descriptors, so a missing death pipe needs no special case.
    pollfd fds[] = {{stop_event_, POLLIN, 0}, {signal_fd_, POLLIN, 0}, {death_fd_, POLLIN, 0}};
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
            signalfd_siginfo info;
            if (read(signal_fd_, &info, sizeof info) != sizeof info) continue;
            auto signal = static_cast<int>(info.ssi_signo);
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
