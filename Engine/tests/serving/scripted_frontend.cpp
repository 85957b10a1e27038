#include "scripted_frontend.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <stdexcept>

#include "wire/msgpack_writer.h"

namespace blas_engine::testing {
namespace {

constexpr int timeout_ms = 20000;

Bytes pack(const std::function<void(MsgpackWriter&)>& body) {
    Bytes out;
    MsgpackWriter writer(out);
    body(writer);
    return out;
}

Outputs decode_outputs(const std::vector<Bytes>& frames) {
    Outputs outputs;
    outputs.frames = frames.size();
    if (frames.size() == 1 && std::string(frames[0].begin(), frames[0].end()) == "ENGINE_CORE_DEAD") {
        outputs.dead = true;
        return outputs;
    }
    std::vector<Bytes> envelope = elements(frames.at(0));
    for (const Bytes& element : envelope) outputs.envelope.push_back(describe(element));
    for (const Bytes& request : elements(envelope.at(1))) outputs.requests.push_back(describe_elements(request));
    if (envelope.size() > 2 && outputs.envelope[2] != "nil") outputs.stats = describe_map(envelope[2]);
    // Frontends give up on an engine that sends a message about nothing.
    bool empty = outputs.requests.empty() && outputs.stats.empty() && envelope.size() <= 4;
    EXPECT_FALSE(empty);
    return outputs;
}

}  // namespace

Bytes pack_int(int64_t value) {
    return pack([&](MsgpackWriter& w) { w.integer(value); });
}
Bytes pack_bool(bool value) {
    return pack([&](MsgpackWriter& w) { w.boolean(value); });
}
Bytes pack_string(const std::string& text) {
    return pack([&](MsgpackWriter& w) { w.string(text); });
}
Bytes pack_array(const std::vector<Bytes>& elements) {
    return pack([&](MsgpackWriter& w) {
        w.array(elements.size());
        for (const Bytes& element : elements) w.bytes(element);
    });
}
Bytes pack_ints(const std::vector<int32_t>& values) {
    return pack([&](MsgpackWriter& w) {
        w.array(values.size());
        for (int32_t value : values) w.integer(value);
    });
}

EngineProcess::EngineProcess(std::vector<std::string> arguments, bool death_pipe) {
    std::string log_name = std::filesystem::temp_directory_path() / "blas-engine-log-XXXXXX";
    log_fd_ = mkstemp(log_name.data());
    unlink(log_name.c_str());
    int pipe_fds[2] = {-1, -1};
    if (death_pipe) {
        if (pipe(pipe_fds) != 0) throw std::runtime_error("pipe");
        fcntl(pipe_fds[1], F_SETFD, FD_CLOEXEC);
        death_fd_ = pipe_fds[1];
        arguments.push_back("--death-fd=" + std::to_string(pipe_fds[0]));
    }
    std::vector<char*> argv;
    static char program[] = BLAS_ENGINE_BINARY;
    argv.push_back(program);
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
        dup2(log_fd_, STDERR_FILENO);
        dup2(log_fd_, STDOUT_FILENO);
        execv(argv[0], argv.data());
        _exit(127);
    }
    if (death_pipe) close(pipe_fds[0]);
    exit_fd_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
}

EngineProcess::~EngineProcess() {
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    if (::testing::Test::HasFailure() || std::uncaught_exceptions() > 0)
        fprintf(stderr, "engine log:\n%s", log().c_str());
    close_death_pipe();
    close(exit_fd_);
    close(log_fd_);
}

void EngineProcess::signal(int number) const { kill(pid_, number); }

void EngineProcess::close_death_pipe() {
    if (death_fd_ >= 0) close(death_fd_);
    death_fd_ = -1;
}

int EngineProcess::wait() {
    pollfd item{exit_fd_, POLLIN, 0};
    if (poll(&item, 1, timeout_ms) <= 0) {
        ADD_FAILURE() << "the engine does not end";
        return -1;
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string EngineProcess::log() const {
    std::string text;
    char buffer[4096];
    off_t offset = 0;
    for (ssize_t got; (got = pread(log_fd_, buffer, sizeof buffer, offset)) > 0; offset += got) {
        text.append(buffer, static_cast<size_t>(got));
    }
    return text;
}

std::string Outputs::stat(const std::string& key) const {
    auto found = stats.find(key);
    return found == stats.end() ? "" : found->second;
}

ScriptedFrontend::ScriptedFrontend(int num_clients, bool coordinator) {
    directory_ = std::filesystem::temp_directory_path() / "blas-engine-test-XXXXXX";
    if (!mkdtemp(directory_.data())) throw std::runtime_error("mkdtemp");
    auto bound = [&](int type, const std::string& suffix) {
        auto socket = std::make_unique<ZmqSocket>(context_, type);
        socket->set(ZMQ_LINGER, 0);
        socket->bind("ipc://" + directory_ + "/" + suffix);
        return socket;
    };
    handshake_ = bound(ZMQ_ROUTER, "handshake");
    inputs_.resize(static_cast<size_t>(num_clients));
    outputs_.resize(static_cast<size_t>(num_clients));
    kept_.resize(static_cast<size_t>(num_clients));
    for (int i = 0; i < num_clients; ++i) bind_client(i);
    if (coordinator) {
        coordinator_input_ = bound(ZMQ_XPUB, "coordinator-in");
        coordinator_output_ = bound(ZMQ_PULL, "coordinator-out");
    }
}

ScriptedFrontend::~ScriptedFrontend() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
}

void ScriptedFrontend::bind_client(int client) {
    auto index = static_cast<size_t>(client);
    inputs_[index] = std::make_unique<ZmqSocket>(context_, ZMQ_ROUTER);
    inputs_[index]->set(ZMQ_LINGER, 0);
    inputs_[index]->bind("ipc://" + directory_ + "/in-" + std::to_string(client));
    outputs_[index] = std::make_unique<ZmqSocket>(context_, ZMQ_PULL);
    outputs_[index]->set(ZMQ_LINGER, 0);
    outputs_[index]->set(ZMQ_RCVHWM, 0);
    outputs_[index]->bind("ipc://" + directory_ + "/out-" + std::to_string(client));
}

int ScriptedFrontend::add_client() {
    inputs_.emplace_back();
    outputs_.emplace_back();
    kept_.emplace_back();
    bind_client(static_cast<int>(inputs_.size()) - 1);
    return static_cast<int>(inputs_.size()) - 1;
}

void ScriptedFrontend::send_control(const Bytes& payload) { handshake_->send(std::vector<Bytes>{identity, payload}); }

std::map<std::string, std::string> ScriptedFrontend::receive_control() {
    return describe_map(receive(*handshake_, "control event").at(1));
}

void ScriptedFrontend::restart_client(int client) {
    auto index = static_cast<size_t>(client);
    inputs_[index].reset();
    outputs_[index].reset();
    kept_[index].clear();
    bind_client(client);
}

std::vector<std::string> ScriptedFrontend::arguments(std::vector<std::string> more) const {
    std::vector<std::string> all = {"--model",          "mock", "--max-model-len", "4096", "--handshake-address",
                                    handshake_address()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

std::vector<Bytes> ScriptedFrontend::receive(ZmqSocket& socket, const char* what) {
    ZmqSocket::Message message;
    if (!socket.wait_readable(timeout_ms) || !socket.receive(message, 64, size_t{1} << 30)) {
        throw std::runtime_error(std::string("no ") + what);
    }
    message.frames.resize(message.num_frames);
    return message.frames;
}

Bytes ScriptedFrontend::receive_hello() {
    std::vector<Bytes> frames = receive(*handshake_, "HELLO");
    identity = frames.at(0);
    return frames.at(1);
}

void ScriptedFrontend::send_init() {
    auto address = [&](const std::string& suffix) { return "ipc://" + directory_ + "/" + suffix; };
    Bytes init = pack([&](MsgpackWriter& w) {
        w.map(2);
        w.string("addresses");
        w.map(5);
        for (const char* direction : {"in", "out"}) {
            w.string(std::string(direction) + "puts");
            w.array(inputs_.size());
            for (size_t i = 0; i < inputs_.size(); ++i) {
                w.string(address(std::string(direction) + "-" + std::to_string(i)));
            }
        }
        for (const char* direction : {"in", "out"}) {
            w.string("coordinator_" + std::string(direction) + "put");
            if (coordinator_input_) {
                w.string(address("coordinator-" + std::string(direction)));
            } else {
                w.nil();
            }
        }
        w.string("frontend_stats_publish_address");
        w.nil();
        w.string("parallel_config");
        w.bytes(parallel_config);
    });
    handshake_->send(std::vector<Bytes>{identity, init});
}

Bytes ScriptedFrontend::receive_registration(int client) {
    std::vector<Bytes> frames = receive(*inputs_[static_cast<size_t>(client)], "registration");
    EXPECT_EQ(frames.at(0), identity);
    EXPECT_EQ(frames.size(), 2u);
    return frames.at(1);
}

Bytes ScriptedFrontend::receive_ready() { return receive(*handshake_, "READY").at(1); }

void ScriptedFrontend::accept_engine() {
    receive_hello();
    send_init();
    for (size_t i = 0; i < inputs_.size(); ++i) receive_registration(static_cast<int>(i));
    receive_ready();
}

void ScriptedFrontend::send_frames(const std::vector<Bytes>& frames, int client) {
    std::vector<Bytes> all = {identity};
    all.insert(all.end(), frames.begin(), frames.end());
    inputs_[static_cast<size_t>(client)]->send(all);
}

void ScriptedFrontend::send(uint8_t type, const Bytes& payload, int client) { send_frames({{type}, payload}, client); }

void ScriptedFrontend::add(const std::string& id, int max_tokens, std::map<std::string, Bytes> sampling, int client,
                           std::vector<int32_t> prompt) {
    send(0, pack([&](MsgpackWriter& w) {
             w.array(12);
             w.string(id);
             w.bytes(pack_ints(prompt));
             w.nil();
             w.map(sampling.size() + 2);
             w.string("temperature");
             w.number(0);
             w.string("max_tokens");
             w.integer(max_tokens);
             for (const auto& [key, value] : sampling) {
                 w.string(key);
                 w.bytes(value);
             }
             w.nil();
             w.number(1.7e9);
             for (int i = 6; i < 11; ++i) w.nil();
             w.integer(client);
         }),
         client);
}

void ScriptedFrontend::abort(const std::vector<std::string>& ids, int client) {
    std::vector<Bytes> packed;
    for (const std::string& id : ids) packed.push_back(pack_string(id));
    send(1, pack_array(packed), client);
}

void ScriptedFrontend::send_call(uint8_t call_id, const std::string& method, const Bytes& arguments, int client) {
    send(3, pack_array({pack_int(client), pack_int(call_id), pack_string(method), arguments}), client);
}

std::vector<std::string> ScriptedFrontend::call(const std::string& method, const Bytes& arguments, int client) {
    uint8_t call_id = next_call_id_++;
    send_call(call_id, method, arguments, client);
    for (;;) {
        std::vector<Bytes> frames = receive(*outputs_[static_cast<size_t>(client)], "utility answer");
        std::vector<Bytes> envelope = elements(frames.at(0));
        if (envelope.size() > 4 && describe(envelope[4]) != "nil") {
            std::vector<std::string> answer = describe_elements(envelope[4]);
            EXPECT_EQ(answer.at(0), std::to_string(call_id));
            EXPECT_EQ(describe(envelope[1]), "[]");
            EXPECT_EQ(describe(envelope[2]), "nil");
            return answer;
        }
        kept_[static_cast<size_t>(client)].push_back(decode_outputs(frames));
    }
}

Outputs ScriptedFrontend::next(int client) {
    auto& kept = kept_[static_cast<size_t>(client)];
    if (!kept.empty()) {
        Outputs outputs = kept.front();
        kept.erase(kept.begin());
        return outputs;
    }
    return decode_outputs(receive(*outputs_[static_cast<size_t>(client)], "output"));
}

std::vector<int> ScriptedFrontend::collect(const std::string& id, std::string* finish, int client) {
    std::vector<int> tokens;
    for (;;) {
        Outputs outputs = next(client);
        if (outputs.dead) throw std::runtime_error("the engine died");
        for (const auto& request : outputs.requests) {
            if (request[0] != "\"" + id + "\"") continue;
            for (size_t at = 1; at < request[1].size() - 1; at = request[1].find_first_of(",]", at) + 1) {
                tokens.push_back(std::stoi(request[1].substr(at)));
            }
            if (request.size() > 5 && request[5] != "nil") {
                if (finish) *finish = request[5];
                return tokens;
            }
        }
    }
}

bool ScriptedFrontend::quiet(int client) {
    auto index = static_cast<size_t>(client);
    return kept_[index].empty() && !outputs_[index]->wait_readable(0);
}

}  // namespace blas_engine::testing
