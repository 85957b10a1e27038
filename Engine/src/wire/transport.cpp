#include "wire/transport.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cstring>

#include "core/clock.h"
#include "core/log.h"
#include "core/request_validation.h"
#include "wire/msgpack_reader.h"
#include "wire/msgpack_writer.h"

namespace blas_engine {
namespace {

// A request is far smaller; beyond the soft limits it is refused, beyond the hard one the connection is dropped before
// the bytes are taken into memory.
constexpr size_t max_message_bytes = size_t{64} << 20;
constexpr size_t max_message_frames = 1024;
constexpr int64_t hard_message_bytes = int64_t{512} << 20;
constexpr int output_linger_ms = 4000;
constexpr int redial_ms = 1000;
constexpr int longest_redial_ms = 60'000;
constexpr size_t max_spare_messages = 64;
constexpr std::string_view engine_dead = "ENGINE_CORE_DEAD";

void enter_thread(const char* name, const cpu_set_t& cpus) {
    pthread_setname_np(pthread_self(), name);
    if (CPU_COUNT(&cpus) > 0) pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
}

}  // namespace

InputThread::InputThread(ZmqContext& context, TransportOptions options, InputQueue& queue, OutputThread& output,
                         const Pulse& pulse)
    : context_(context),
      options_(std::move(options)),
      queue_(queue),
      output_(output),
      pulse_(pulse),
      encoder_(options_.layout, options_.engine_index),
      stop_event_(eventfd(0, EFD_CLOEXEC)) {
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
    clients_.resize(static_cast<size_t>(output_.num_clients()));
    for (size_t i = 0; i < options_.addresses.inputs.size(); ++i) {
        // A supervisor that knows this frontend under a later index leaves the others empty.
        if (options_.addresses.inputs[i].empty()) continue;
        open_client(static_cast<int>(i), options_.addresses.inputs[i], options_.addresses.outputs[i]);
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

void InputThread::open_client(int client_index, const std::string& address, const std::string& output_address) {
    ZmqSocket socket(context_, ZMQ_DEALER);
    socket.set_identity(engine_identity(options_.engine_index));
    socket.set(ZMQ_SNDHWM, 0);
    socket.set(ZMQ_RCVHWM, 0);
    socket.set(ZMQ_LINGER, 0);
    socket.set(ZMQ_MAXMSGSIZE, hard_message_bytes);
    ZmqSocket monitor = watch(socket);
    socket.connect(address);
    socket.send(options_.ready_response);
    clients_[static_cast<size_t>(client_index)] =
        std::make_unique<Client>(std::move(socket), std::move(monitor), output_address, address.starts_with("ipc://"));
}

// Where the socket's connections and their ends are told from now on.
ZmqSocket InputThread::watch(ZmqSocket& socket) {
    std::string address = "inproc://input-monitor-" + std::to_string(monitors_opened_++);
    if (zmq_socket_monitor(socket.get(), address.c_str(), ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED) !=
        0) {
        throw ZmqError(std::string("zmq_socket_monitor: ") + zmq_strerror(zmq_errno()));
    }
    ZmqSocket monitor(context_, ZMQ_PAIR);
    monitor.set(ZMQ_LINGER, 0);
    monitor.connect(address);
    return monitor;
}

InputThread::~InputThread() {
    stop();
    close(stop_event_);
}

void InputThread::watch_control(ZmqSocket& control, const std::string& address) {
    control_monitor_ = std::make_unique<ZmqSocket>(watch(control));
    control_address_ = address;
}

void InputThread::start(std::unique_ptr<ZmqSocket> control) {
    control_ = std::move(control);
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
    for (bool stopped = false; !stopped;) poll_once(stopped);
}

// Waits and handles what has come. The set of sockets may be another one each time.
void InputThread::poll_once(bool& stopped) {
    std::vector<zmq_pollitem_t> items;
    items.push_back({nullptr, stop_event_, ZMQ_POLLIN, 0});
    for (auto& client : clients_) {
        if (!client) continue;
        items.push_back({client->monitor.get(), 0, ZMQ_POLLIN, 0});
        items.push_back({client->socket.get(), 0, ZMQ_POLLIN, 0});
    }
    if (coordinator_) items.push_back({coordinator_->get(), 0, ZMQ_POLLIN, 0});
    if (control_) items.push_back({control_monitor_->get(), 0, ZMQ_POLLIN, 0});
    if (control_) items.push_back({control_->get(), 0, ZMQ_POLLIN, 0});
    if (zmq_poll(items.data(), static_cast<int>(items.size()), -1) < 0) {
        if (zmq_errno() == EINTR) return;
        throw ZmqError(std::string("zmq_poll: ") + zmq_strerror(zmq_errno()));
    }
    stopped = items[0].revents != 0;
    if (stopped) {
        // What is not sent yet holds up the end of the process, unless its reader is known to be gone.
        for (size_t i = 0; i < clients_.size(); ++i) {
            if (clients_[i]) handle_monitor(static_cast<int>(i));
        }
        return;
    }
    const zmq_pollitem_t* item = &items[1];
    for (size_t i = 0; i < clients_.size(); ++i) {
        if (!clients_[i]) continue;
        // A lost frontend first, so that its requests are gone before its successor's arrive.
        if ((item++)->revents) handle_monitor(static_cast<int>(i));
        if ((item++)->revents) receive_all(static_cast<int>(i));
    }
    if (coordinator_ && (item++)->revents) drain_coordinator();
    if (control_ && (item++)->revents) handle_control_monitor();
    // Last: it changes who the clients are.
    if (control_ && item->revents) handle_control();
}

// vLLM's launcher closes the handshake port when all engines are ready. It is not dialled ten times a second for ever.
void InputThread::handle_control_monitor() {
    ZmqSocket::Message event;
    while (control_monitor_->receive(event, 2, 4096)) {
        uint16_t kind = 0;
        if (event.num_frames > 0 && event.frames[0].size() >= 6)
            std::memcpy(&kind, event.frames[0].data(), sizeof kind);
        if (kind != ZMQ_EVENT_DISCONNECTED || redials_slowly_) continue;
        redials_slowly_ = true;
        log(LogLevel::info, "%s is closed: it is dialled again after %d s, then ever more seldom",
            control_address_.c_str(), redial_ms / 1000);
        control_->set(ZMQ_RECONNECT_IVL, redial_ms);
        control_->set(ZMQ_RECONNECT_IVL_MAX, longest_redial_ms);
        // The options are for new connections.
        zmq_disconnect(control_->get(), control_address_.c_str());
        control_->connect(control_address_);
    }
}

void InputThread::handle_control() {
    ZmqSocket::Message message;
    while (control_->receive(message, 1, 65536)) {
        commanded_ = true;
        ControlCommand command;
        std::string error;
        try {
            if (message.oversized) throw MsgpackError("too long");
            command = decode_control(message.frames[0]);
            error = carry_out(command);
        } catch (const std::exception& problem) {
            error = problem.what();
        }
        if (error.empty()) continue;
        log(LogLevel::warning, "refused a command of the supervisor: %s", error.c_str());
        report("CONTROL_ERROR", command.client_index, error);
    }
}

// Returns what is wrong with the command.
std::string InputThread::carry_out(const ControlCommand& command) {
    int index = command.client_index;
    auto& client = clients_[static_cast<size_t>(index)];
    if (command.kind == ControlCommand::Kind::connect_frontend) {
        if (client) return "frontend " + std::to_string(index) + " is already there";
        // Outputs first: an answer may follow the first request at once.
        output_.open_client(index, command.output);
        try {
            open_client(index, command.input, command.output);
        } catch (...) {
            output_.close_client(index);
            throw;
        }
        log(LogLevel::info, "frontend %d is to join at %s", index, command.input.c_str());
        return "";
    }
    if (!client) return "there is no frontend " + std::to_string(index);
    client.reset();
    queue_.push(FrontendLost{index});
    output_.close_client(index);
    log(LogLevel::info, "frontend %d has left", index);
    report("FRONTEND_CLOSED", index);
    return "";
}

void InputThread::report(std::string_view status, int client_index, std::string_view error) {
    // A supervisor of vLLM takes what it does not expect for a broken engine, so who gives no commands hears nothing.
    if (control_ && commanded_) control_->send(encode_control_event(status, client_index, error));
}

void InputThread::receive_all(int client_index) {
    ZmqSocket& socket = clients_[static_cast<size_t>(client_index)]->socket;
    // Bounded, so that one busy frontend cannot starve the others.
    for (int i = 0; i < 256 && socket.receive(message_, max_message_frames, max_message_bytes); ++i) {
        handle_message(message_, client_index);
    }
}

void InputThread::handle_message(const ZmqSocket::Message& message, int client_index) {
    views_.clear();
    for (size_t i = 0; i < message.num_frames; ++i) views_.emplace_back(message.frames[i]);
    // A frontend that joined later may think that it is the only one: there the socket tells who it is.
    int trusted_indices = options_.control ? 0 : static_cast<int>(clients_.size());
    DecodedMessage decoded = decode_message(views_, client_index, trusted_indices);
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
        request.received_at = monotonic_seconds();
        for (auto frame : views_) request.received_bytes += frame.size();
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
        if (utility->method == "heartbeat") {
            answer_heartbeat(std::move(*utility));
        } else {
            queue_.push(std::move(*utility));
        }
    } else {
        log(LogLevel::warning, "dropped a message of frontend %d: %s", client_index,
            std::get<DroppedMessage>(decoded).reason.c_str());
    }
}

// [turns, seconds in the present turn, CPU seconds of the process]: alive, and whether it gets on, for a frontend that
// wants to tell a long step from a process that hangs.
void InputThread::answer_heartbeat(UtilityMessage call) {
    timespec cpu{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    double now = monotonic_seconds();
    double busy_since = pulse_.busy_since.load(std::memory_order_relaxed);
    UtilityResult result;
    result.call_id = std::move(call.call_id);
    MsgpackWriter writer(result.value);
    writer.array(3);
    writer.integer(pulse_.turns.load(std::memory_order_relaxed));
    writer.number(busy_since > 0 ? std::max(0.0, now - busy_since) : 0);
    writer.number(static_cast<double>(cpu.tv_sec) + static_cast<double>(cpu.tv_nsec) * 1e-9);
    auto message = output_.acquire();
    message->client_index = call.client_index;
    StepOutputs outputs;
    outputs.utility = &result;
    outputs.timestamp = now;
    encoder_.encode(outputs, *message);
    output_.send(std::move(message));
}

// libzmq reconnects by itself when a frontend is restarted on the same listener. The new one has to be told who is
// there, and will never ask about the old one's requests. Over TCP a reconnect may be a mere network fault, in which
// case a frontend of vLLM would not expect a second registration, so this is for local sockets only.
void InputThread::handle_monitor(int client_index) {
    Client& client = *clients_[static_cast<size_t>(client_index)];
    ZmqSocket::Message event;
    while (client.monitor.receive(event, 2, 4096)) {
        if (event.num_frames < 1 || event.frames[0].size() < 6) continue;
        uint16_t kind;
        std::memcpy(&kind, event.frames[0].data(), sizeof kind);
        if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            if (client.connected_before && client.local) {
                log(LogLevel::info, "frontend %d is back, registering again", client_index);
                output_.open_client(client_index, client.output_address);
                client.socket.send(options_.ready_response);
            }
            client.connected_before = true;
            report("FRONTEND_REGISTERED", client_index);
        } else if (kind == ZMQ_EVENT_DISCONNECTED && client.connected_before && client.local) {
            log(LogLevel::info, "frontend %d went away", client_index);
            queue_.push(FrontendLost{client_index});
            // What its requests have brought forth meanwhile is not for its successor.
            output_.close_client(client_index);
            report("FRONTEND_LOST", client_index);
        }
    }
}

void InputThread::drain_coordinator() {
    // Anything else is READY again: another engine subscribed late.
    while (coordinator_->receive(message_, 2, 4096)) {
        views_.assign(message_.frames.begin(),
                      message_.frames.begin() + static_cast<std::ptrdiff_t>(message_.num_frames));
        if (message_.oversized) continue;
        if (auto start = decode_wave_start(views_)) queue_.push(*start);
    }
}

OutputThread::OutputThread(ZmqContext& context, const TransportOptions& options, InputQueue& queue)
    : context_(context),
      queue_(queue),
      num_clients_(options.control ? max_controlled_clients : static_cast<int>(options.addresses.outputs.size())),
      has_coordinator_(!options.addresses.coordinator_output.empty()),
      cpus_(options.cpus) {
    if (options.addresses.outputs.size() > static_cast<size_t>(num_clients_)) {
        throw ZmqError("INIT names more than " + std::to_string(num_clients_) + " frontends");
    }
    sockets_.resize(static_cast<size_t>(num_clients_));
    for (size_t i = options.addresses.outputs.size(); i-- > 0;) {
        if (options.addresses.outputs[i].empty()) continue;
        sockets_[i] = connect(options.addresses.outputs[i]);
        first_client_.store(static_cast<int>(i));
    }
    if (has_coordinator_) coordinator_ = connect(options.addresses.coordinator_output);
}

std::unique_ptr<ZmqSocket> OutputThread::connect(const std::string& address) {
    auto socket = std::make_unique<ZmqSocket>(context_, ZMQ_PUSH);
    socket->set(ZMQ_SNDHWM, 0);
    socket->set(ZMQ_LINGER, output_linger_ms);
    socket->connect(address);
    return socket;
}

void OutputThread::open_client(int client_index, const std::string& address) {
    change({client_index, connect(address)});
}

void OutputThread::close_client(int client_index) { change({client_index, nullptr}); }

void OutputThread::change(Change change) {
    {
        std::lock_guard lock(mutex_);
        changes_.push_back(std::move(change));
    }
    wakeup_.notify_one();
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
    std::vector<Change> changes;
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            wakeup_.wait(lock, [&] { return stopping_ || !queued_.empty() || !changes_.empty(); });
            if (queued_.empty() && changes_.empty()) return;
            batch.swap(queued_);
            changes.swap(changes_);
        }
        for (Change& change : changes) {
            // What nobody will read any more must not hold up the end of the process.
            auto& socket = sockets_[static_cast<size_t>(change.client_index)];
            if (socket && !change.socket) socket->set(ZMQ_LINGER, 0);
            socket = std::move(change.socket);
        }
        if (!changes.empty()) {
            auto first =
                std::find_if(sockets_.begin(), sockets_.end(), [](const auto& socket) { return socket != nullptr; });
            first_client_.store(first == sockets_.end() ? 0 : static_cast<int>(first - sockets_.begin()));
            changes.clear();
        }
        for (auto& message : batch) {
            auto& socket = message->client_index == coordinator_client
                               ? coordinator_
                               : sockets_[static_cast<size_t>(message->client_index)];
            // Nobody is there to hear it: the frontend has just left.
            if (socket) socket->send(message->frames);
        }
        std::lock_guard lock(mutex_);
        for (auto& message : batch) {
            if (spare_.size() < max_spare_messages) spare_.push_back(std::move(message));
        }
        batch.clear();
    }
}

}  // namespace blas_engine
