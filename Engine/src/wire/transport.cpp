#include "wire/transport.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <cstring>

#include "core/log.h"
#include "core/request_validation.h"

namespace blas_engine {
namespace {

// A request is far smaller; beyond the soft limits it is refused, beyond the hard one the connection is dropped before
// the bytes are taken into memory.
constexpr size_t max_message_bytes = size_t{64} << 20;
constexpr size_t max_message_frames = 1024;
constexpr int64_t hard_message_bytes = int64_t{512} << 20;
constexpr int output_linger_ms = 4000;
constexpr size_t max_spare_messages = 64;
constexpr std::string_view engine_dead = "ENGINE_CORE_DEAD";

void enter_thread(const char* name, const cpu_set_t& cpus) {
    pthread_setname_np(pthread_self(), name);
    if (CPU_COUNT(&cpus) > 0) pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
}

}  // namespace

InputThread::InputThread(ZmqContext& context, TransportOptions options, InputQueue& queue)
    : context_(context), options_(std::move(options)), queue_(queue), stop_event_(eventfd(0, EFD_CLOEXEC)) {
    if (stop_event_ < 0) throw ZmqError(std::string("eventfd: ") + std::strerror(errno));
    auto identity = engine_identity(options_.engine_index);
    if (!options_.addresses.coordinator_input.empty()) {
        coordinator_ = std::make_unique<ZmqSocket>(context, ZMQ_XSUB);
        coordinator_->set_identity(identity);
        coordinator_->set(ZMQ_LINGER, 0);
        coordinator_->connect(options_.addresses.coordinator_input);
        const uint8_t subscribe_all[] = {1};
        coordinator_->send(subscribe_all);
    }
    for (size_t i = 0; i < options_.addresses.inputs.size(); ++i) {
        ZmqSocket socket(context, ZMQ_DEALER);
        socket.set_identity(identity);
        socket.set(ZMQ_SNDHWM, 0);
        socket.set(ZMQ_RCVHWM, 0);
        socket.set(ZMQ_LINGER, 0);
        socket.set(ZMQ_MAXMSGSIZE, hard_message_bytes);
        std::string monitor_address = "inproc://input-monitor-" + std::to_string(i);
        if (zmq_socket_monitor(socket.get(), monitor_address.c_str(),
                               ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED) != 0) {
            throw ZmqError(std::string("zmq_socket_monitor: ") + zmq_strerror(zmq_errno()));
        }
        ZmqSocket monitor(context, ZMQ_PAIR);
        monitor.set(ZMQ_LINGER, 0);
        monitor.connect(monitor_address);
        socket.connect(options_.addresses.inputs[i]);
        socket.send(options_.ready_response);
        clients_.push_back({std::move(socket), std::move(monitor)});
    }
    if (coordinator_) {
        // The coordinator says READY once all engines have subscribed.
        ZmqSocket::Message message;
        do {
            coordinator_->wait_readable(-1);
        } while (!coordinator_->receive(message, 1, 16) || message.num_frames != 1 ||
                 std::string_view(reinterpret_cast<const char*>(message.frames[0].data()), message.frames[0].size()) !=
                     "READY");
    }
}

InputThread::~InputThread() {
    stop();
    close(stop_event_);
}

void InputThread::start() {
    thread_ = std::thread([this] {
        enter_thread("engine-input", options_.cpus);
        try {
            run();
        } catch (const std::exception& error) {
            queue_.push(TransportFailed{std::string("input thread: ") + error.what()});
        }
    });
}

void InputThread::stop() {
    if (!thread_.joinable()) return;
    const uint64_t one = 1;
    [[maybe_unused]] ssize_t written = write(stop_event_, &one, sizeof one);
    thread_.join();
}

void InputThread::run() {
    std::vector<zmq_pollitem_t> items;
    items.push_back({nullptr, stop_event_, ZMQ_POLLIN, 0});
    for (Client& client : clients_) {
        items.push_back({client.monitor.get(), 0, ZMQ_POLLIN, 0});
        items.push_back({client.socket.get(), 0, ZMQ_POLLIN, 0});
    }
    if (coordinator_) items.push_back({coordinator_->get(), 0, ZMQ_POLLIN, 0});
    for (;;) {
        if (zmq_poll(items.data(), static_cast<int>(items.size()), -1) < 0) {
            if (zmq_errno() == EINTR) continue;
            throw ZmqError(std::string("zmq_poll: ") + zmq_strerror(zmq_errno()));
        }
        if (items[0].revents) return;
        for (size_t i = 0; i < clients_.size(); ++i) {
            // A lost frontend first, so that its requests are gone before its successor's arrive.
            if (items[1 + 2 * i].revents) handle_monitor(static_cast<int>(i));
            if (items[2 + 2 * i].revents) receive_all(static_cast<int>(i));
        }
        if (coordinator_ && items.back().revents) drain_coordinator();
    }
}

void InputThread::receive_all(int client_index) {
    ZmqSocket& socket = clients_[static_cast<size_t>(client_index)].socket;
    // Bounded, so that one busy frontend cannot starve the others.
    for (int i = 0; i < 256 && socket.receive(message_, max_message_frames, max_message_bytes); ++i) {
        handle_message(message_, client_index);
    }
}

void InputThread::handle_message(const ZmqSocket::Message& message, int client_index) {
    views_.clear();
    for (size_t i = 0; i < message.num_frames; ++i) views_.emplace_back(message.frames[i]);
    DecodedMessage decoded = decode_message(views_, client_index, static_cast<int>(clients_.size()));
    if (message.oversized) {
        log(LogLevel::warning, "refused a message of frontend %d beyond %zu MiB or %zu frames", client_index,
            max_message_bytes >> 20, max_message_frames);
        // Cut as it is, an ADD can at most be recognized.
        if (auto* rejected = std::get_if<RejectedAdd>(&decoded)) {
            rejected->error = validation_error("The request is too large for the engine.");
            queue_.push(std::move(*rejected));
        }
        return;
    }
    if (auto* add = std::get_if<AddMessage>(&decoded)) {
        Request& request = *add->request;
        if (auto error = validate_request(request, options_.limits)) {
            queue_.push(RejectedAdd{request.id, request.client_index, validation_error(std::move(*error))});
        } else {
            queue_.push(std::move(*add));
        }
    } else if (auto* rejected = std::get_if<RejectedAdd>(&decoded)) {
        queue_.push(std::move(*rejected));
    } else if (auto* abort = std::get_if<AbortMessage>(&decoded)) {
        queue_.push(std::move(*abort));
    } else if (auto* utility = std::get_if<UtilityMessage>(&decoded)) {
        queue_.push(std::move(*utility));
    } else {
        log(LogLevel::warning, "dropped a message of frontend %d: %s", client_index,
            std::get<DroppedMessage>(decoded).reason.c_str());
    }
}

// libzmq reconnects by itself when a frontend is restarted on the same listener. The new one has to be told who is
// there, and will never ask about the old one's requests. Over TCP a reconnect may be a mere network fault, in which
// case a frontend of vLLM would not expect a second registration, so this is for local sockets only.
void InputThread::handle_monitor(int client_index) {
    Client& client = clients_[static_cast<size_t>(client_index)];
    bool local = options_.addresses.inputs[static_cast<size_t>(client_index)].starts_with("ipc://");
    ZmqSocket::Message event;
    while (client.monitor.receive(event, 2, 4096)) {
        if (event.num_frames < 1 || event.frames[0].size() < 6) continue;
        uint16_t kind;
        std::memcpy(&kind, event.frames[0].data(), sizeof kind);
        if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            if (client.connected_before && local) {
                log(LogLevel::info, "frontend %d is back, registering again", client_index);
                client.socket.send(options_.ready_response);
            }
            client.connected_before = true;
        } else if (kind == ZMQ_EVENT_DISCONNECTED && client.connected_before && local) {
            log(LogLevel::info, "frontend %d went away", client_index);
            queue_.push(FrontendLost{client_index});
        }
    }
}

void InputThread::drain_coordinator() {
    // READY again (another engine subscribed late) and START_DP_WAVE: engines of a dense model have no waves.
    ZmqSocket::Message message;
    while (coordinator_->receive(message, 2, 4096)) {
    }
}

OutputThread::OutputThread(ZmqContext& context, const TransportOptions& options, InputQueue& queue)
    : queue_(queue),
      num_clients_(static_cast<int>(options.addresses.outputs.size())),
      has_coordinator_(!options.addresses.coordinator_output.empty()),
      cpus_(options.cpus) {
    auto open = [&](const std::string& address) {
        ZmqSocket socket(context, ZMQ_PUSH);
        socket.set(ZMQ_SNDHWM, 0);
        socket.set(ZMQ_LINGER, output_linger_ms);
        socket.connect(address);
        return socket;
    };
    for (const std::string& address : options.addresses.outputs) sockets_.push_back(open(address));
    if (has_coordinator_) coordinator_ = std::make_unique<ZmqSocket>(open(options.addresses.coordinator_output));
}

OutputThread::~OutputThread() { stop(); }

void OutputThread::start() {
    thread_ = std::thread([this] {
        enter_thread("engine-output", cpus_);
        try {
            run();
        } catch (const std::exception& error) {
            queue_.push(TransportFailed{std::string("output thread: ") + error.what()});
        }
        sockets_.clear();
        coordinator_.reset();
    });
}

void OutputThread::stop() {
    if (!thread_.joinable()) return;
    {
        std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wakeup_.notify_one();
    thread_.join();
}

std::unique_ptr<OutputMessage> OutputThread::acquire() {
    std::lock_guard lock(mutex_);
    if (spare_.empty()) return std::make_unique<OutputMessage>();
    auto message = std::move(spare_.back());
    spare_.pop_back();
    return message;
}

void OutputThread::send(std::unique_ptr<OutputMessage> message) {
    {
        std::lock_guard lock(mutex_);
        queued_.push_back(std::move(message));
    }
    wakeup_.notify_one();
}

void OutputThread::send_engine_dead() {
    for (int i = 0; i < num_clients_; ++i) {
        auto message = acquire();
        message->client_index = i;
        message->frames.assign(1, {engine_dead.begin(), engine_dead.end()});
        send(std::move(message));
    }
}

void OutputThread::run() {
    std::deque<std::unique_ptr<OutputMessage>> batch;
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            wakeup_.wait(lock, [&] { return stopping_ || !queued_.empty(); });
            if (queued_.empty()) return;
            batch.swap(queued_);
        }
        for (auto& message : batch) {
            ZmqSocket& socket = message->client_index == coordinator_client
                                    ? *coordinator_
                                    : sockets_[static_cast<size_t>(message->client_index)];
            socket.send(message->frames);
        }
        std::lock_guard lock(mutex_);
        for (auto& message : batch) {
            if (spare_.size() < max_spare_messages) spare_.push_back(std::move(message));
        }
        batch.clear();
    }
}

}  // namespace blas_engine
