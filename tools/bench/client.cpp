// A load client that costs as little as possible per streamed token: one thread, epoll, no JSON parser. Loopback only.
//
//   client --port P --path PATH --concurrency N (--requests N | --seconds S) [--ramp-us N] [--stamps FILE] [--close]
//          BODY…
//
// BODY files are complete JSON bodies, used in turn; each request carries "X-Request-Id: bench-<n>". Closed loop: every
// connection sends its next request when its answer is complete; with --close each request has a connection of its own.
// Prints one JSON object; times in milliseconds. "digest" covers the texts of the first answer of every connection, in
// the order of the requests: they are the same in every run.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stamps.h"

namespace {

constexpr uint64_t kSilenceLimit = 60'000'000'000;

struct Settings {
    int port = 0;
    std::string path;
    size_t concurrency = 1;
    uint64_t requests = UINT64_MAX;
    uint64_t nanoseconds = UINT64_MAX;
    uint64_t ramp_us = 0;
    bool close = false;
    std::optional<Stamps> stamps;
    std::vector<std::string> bodies;
};

struct Samples {
    std::vector<float> values;
    void add(uint64_t ns) { values.push_back(static_cast<float>(static_cast<double>(ns) * 1e-6)); }
    double quantile(double share) {
        if (values.empty()) return 0;
        auto at = values.begin() + static_cast<long>(share * static_cast<double>(values.size() - 1));
        std::nth_element(values.begin(), at, values.end());
        return *at;
    }
};

struct Totals {
    uint64_t done = 0, failed = 0, tokens = 0, chunks = 0, bytes = 0, reads = 0;
    Samples first, gap, path, whole;
    std::vector<std::pair<uint64_t, uint64_t>> digests;
    std::string error;
};

struct Connection {
    int descriptor = -1;
    std::string unsent, unread;
    bool in_body = false, is_stream = false;
    uint64_t number = 0, sent_at = 0, first_at = 0, last_at = 0, chunks = 0, digest = 0, tokens = 0;
    uint64_t content_length = 0;
};

uint64_t digest(uint64_t state, std::string_view bytes) {
    for (unsigned char byte : bytes) state = (state ^ byte) * 0x100000001b3ULL;
    return state;
}

uint64_t number_after(std::string_view text, std::string_view key) {
    size_t at = text.find(key);
    return at == std::string_view::npos ? 0 : strtoull(text.data() + at + key.size(), nullptr, 10);
}

// The raw inside of the JSON string behind `key`. Frontends escape alike what the measured texts contain.
std::string_view string_after(std::string_view text, std::string_view key) {
    size_t at = text.find(key);
    if (at == std::string_view::npos) return {};
    size_t start = at + key.size();
    for (size_t end = start; end < text.size(); end++) {
        if (text[end] == '\\') {
            end++;
        } else if (text[end] == '"') {
            return text.substr(start, end - start);
        }
    }
    return {};
}

std::string_view answer_text(std::string_view json) {
    for (auto key : {"\"content\":\"", "\"text\":\"", "\"reasoning\":\"", "\"arguments\":\""}) {
        auto text = string_after(json, key);
        if (!text.empty()) return text;
    }
    return {};
}

class Client {
  public:
    explicit Client(Settings settings) : settings_(std::move(settings)), connections_(settings_.concurrency) {
        poll_ = epoll_create1(EPOLL_CLOEXEC);
        begin_ = monotonic_ns();
    }

    void run() {
        std::vector<epoll_event> events(1024);
        uint64_t progress = monotonic_ns();
        start_due();
        while (active_ > 0 || started_ < connections_.size()) {
            int count = epoll_wait(poll_, events.data(), static_cast<int>(events.size()),
                                   started_ < connections_.size() ? 1 : 1000);
            uint64_t now = monotonic_ns();
            if (count > 0) progress = now;
            if (now - progress > kSilenceLimit) {
                totals_.error = "no byte for a minute";
                totals_.failed += active_;
                return;
            }
            for (int i = 0; i < count; i++)
                handle(*static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr),
                       events[static_cast<size_t>(i)].events);
            start_due();
        }
    }

    void report() {
        rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        auto seconds = [](timeval time) {
            return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
        };
        std::sort(totals_.digests.begin(), totals_.digests.end());
        uint64_t all = 0xcbf29ce484222325ULL;
        for (auto& [number, value] : totals_.digests)
            all = digest(all, {reinterpret_cast<char*>(&value), sizeof value});
        printf(
            "{\"done\": %lu, \"failed\": %lu, \"seconds\": %.6f, \"tokens\": %lu, \"chunks\": %lu, \"bytes\": %lu, "
            "\"reads\": %lu, \"cpu_s\": %.4f, \"digest\": \"%016lx\", \"error\": \"%s\"",
            totals_.done, totals_.failed, static_cast<double>(end_ - begin_) * 1e-9, totals_.tokens, totals_.chunks,
            totals_.bytes, totals_.reads, seconds(usage.ru_utime) + seconds(usage.ru_stime), all,
            totals_.error.c_str());
        for (auto [name, samples] : {std::pair{"ttft", &totals_.first},
                                     {"itl", &totals_.gap},
                                     {"path", &totals_.path},
                                     {"e2e", &totals_.whole}}) {
            printf(", \"%s_p50\": %.4f, \"%s_p99\": %.4f", name, samples->quantile(0.5), name, samples->quantile(0.99));
        }
        printf("}\n");
    }

    bool all_done() const { return totals_.failed == 0; }

  private:
    bool may_send() const { return next_ < settings_.requests && monotonic_ns() - begin_ < settings_.nanoseconds; }

    void start_due() {
        size_t due =
            settings_.ramp_us == 0 ? connections_.size() : (monotonic_ns() - begin_) / 1000 / settings_.ramp_us + 1;
        while (started_ < std::min(due, connections_.size())) {
            if (!may_send()) {
                started_ = connections_.size();
                return;
            }
            active_++;
            send_next(connections_[started_++]);
        }
    }

    void open(Connection& connection) {
        connection.descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<uint16_t>(settings_.port));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (connect(connection.descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
            throw std::runtime_error("cannot connect");
        int one = 1;
        setsockopt(connection.descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(connection.descriptor, F_SETFL, O_NONBLOCK);
        epoll_event event{EPOLLIN, {.ptr = &connection}};
        epoll_ctl(poll_, EPOLL_CTL_ADD, connection.descriptor, &event);
    }

    void send_next(Connection& connection) {
        int descriptor = connection.descriptor;
        connection = Connection{};
        connection.descriptor = descriptor;
        connection.number = next_++;
        const std::string& body = settings_.bodies[connection.number % settings_.bodies.size()];
        connection.unsent = "POST " + settings_.path +
                            " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Request-Id: bench-" +
                            std::to_string(connection.number) + (settings_.close ? "\r\nConnection: close" : "") +
                            "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
        connection.sent_at = monotonic_ns();
        if (connection.descriptor < 0) open(connection);
        write_rest(connection);
    }

    void write_rest(Connection& connection) {
        ssize_t count = send(connection.descriptor, connection.unsent.data(), connection.unsent.size(), MSG_NOSIGNAL);
        if (count > 0) connection.unsent.erase(0, static_cast<size_t>(count));
        epoll_event event{connection.unsent.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT, {.ptr = &connection}};
        if (!connection.unsent.empty() || count < 0) epoll_ctl(poll_, EPOLL_CTL_MOD, connection.descriptor, &event);
    }

    void handle(Connection& connection, uint32_t events) {
        if (connection.descriptor < 0) return;
        if (events & EPOLLOUT) {
            write_rest(connection);
            if (connection.unsent.empty()) {
                epoll_event event{EPOLLIN, {.ptr = &connection}};
                epoll_ctl(poll_, EPOLL_CTL_MOD, connection.descriptor, &event);
            }
        }
        if ((events & ~static_cast<uint32_t>(EPOLLOUT)) == 0) return;
        ssize_t count = recv(connection.descriptor, buffer_.data(), buffer_.size(), 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (count <= 0) return finish(connection, false, "the server closed the connection");
        totals_.reads++;
        totals_.bytes += static_cast<uint64_t>(count);
        std::string_view bytes(buffer_.data(), static_cast<size_t>(count));
        if (!connection.unread.empty()) {
            connection.unread.append(bytes);
            std::string joined = std::move(connection.unread);
            connection.unread.clear();
            consume(connection, joined);
        } else {
            consume(connection, bytes);
        }
    }

    // Chunk sizes are not needed: events are found by their first and last bytes, and a stream ends with its last
    // chunk.
    void consume(Connection& connection, std::string_view bytes) {
        uint64_t now = monotonic_ns();
        if (!connection.in_body) {
            size_t end = bytes.find("\r\n\r\n");
            if (end == std::string_view::npos) {
                connection.unread = bytes;
                return;
            }
            auto head = bytes.substr(0, end + 2);
            if (head.substr(9, 3) != "200") return finish(connection, false, head.substr(0, head.find('\r')));
            connection.is_stream = head.find("text/event-stream") != std::string_view::npos;
            std::string lower(head);
            std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return tolower(c); });
            connection.content_length = number_after(lower, "content-length:");
            connection.in_body = true;
            bytes.remove_prefix(end + 4);
        }
        if (!connection.is_stream) {
            if (bytes.size() < connection.content_length || connection.content_length == 0) {
                connection.unread = bytes;
                if (connection.content_length == 0) finish(connection, false, "an answer without a length");
                return;
            }
            connection.digest = digest(connection.digest, answer_text(bytes));
            connection.tokens = number_after(bytes, "\"completion_tokens\":");
            totals_.first.add(now - connection.sent_at);
            return finish(connection, connection.tokens > 0, "no token");
        }
        for (;;) {
            size_t start = bytes.find("data: ");
            size_t end = start == std::string_view::npos ? start : bytes.find("\n\n", start);
            if (end == std::string_view::npos) break;
            event(connection, bytes.substr(start + 6, end - start - 6), now);
            bytes.remove_prefix(end + 2);
        }
        if (bytes.find("\r\n0\r\n\r\n") != std::string_view::npos || bytes.substr(0, 5) == "0\r\n\r\n") {
            return finish(connection, connection.tokens > 0, "a stream without usage");
        }
        connection.unread = bytes;
    }

    void event(Connection& connection, std::string_view json, uint64_t now) {
        auto text = answer_text(json);
        if (!text.empty()) {
            connection.digest = digest(connection.digest, text);
            if (connection.chunks == 0) {
                totals_.first.add(now - connection.sent_at);
            } else if (totals_.gap.values.size() < 4'000'000) {
                totals_.gap.add(now - connection.last_at);
            }
            if (settings_.stamps) {
                uint64_t stamp = settings_.stamps->get(connection.number, connection.chunks);
                if (stamp != 0 && stamp <= now) totals_.path.add(now - stamp);
            }
            connection.last_at = now;
            connection.chunks++;
        }
        if (json.find("\"usage\":{") != std::string_view::npos)
            connection.tokens = number_after(json, "\"completion_tokens\":");
    }

    void finish(Connection& connection, bool good, std::string_view problem) {
        end_ = monotonic_ns();
        if (good) {
            totals_.done++;
            totals_.tokens += connection.tokens;
            totals_.chunks += connection.chunks;
            totals_.whole.add(end_ - connection.sent_at);
            if (connection.number < settings_.concurrency)
                totals_.digests.emplace_back(connection.number, connection.digest);
        } else {
            totals_.failed++;
            if (totals_.error.empty()) totals_.error = problem;
        }
        if (!good || settings_.close) {
            close(connection.descriptor);
            connection.descriptor = -1;
        }
        if (may_send()) return send_next(connection);
        active_--;
        if (connection.descriptor >= 0) close(connection.descriptor);
        connection.descriptor = -1;
    }

    Settings settings_;
    std::vector<Connection> connections_;
    std::vector<char> buffer_ = std::vector<char>(256 * 1024);
    Totals totals_;
    int poll_ = -1;
    size_t started_ = 0, active_ = 0;
    uint64_t next_ = 0, begin_ = 0, end_ = 0;
};

Settings parse(int argc, char** argv) {
    Settings settings;
    for (int i = 1; i < argc; i++) {
        std::string name = argv[i];
        if (name.rfind("--", 0) != 0) {
            std::ifstream file(name, std::ios::binary);
            settings.bodies.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
            if (settings.bodies.back().empty()) throw std::runtime_error("cannot read " + name);
            continue;
        }
        if (name == "--close") {
            settings.close = true;
            continue;
        }
        if (i + 1 == argc) throw std::runtime_error(name + " needs a value");
        const char* value = argv[++i];
        if (name == "--port") {
            settings.port = atoi(value);
        } else if (name == "--path") {
            settings.path = value;
        } else if (name == "--concurrency") {
            settings.concurrency = strtoull(value, nullptr, 10);
        } else if (name == "--requests") {
            settings.requests = strtoull(value, nullptr, 10);
        } else if (name == "--seconds") {
            settings.nanoseconds = static_cast<uint64_t>(atof(value) * 1e9);
        } else if (name == "--ramp-us") {
            settings.ramp_us = strtoull(value, nullptr, 10);
        } else if (name == "--stamps") {
            settings.stamps.emplace(value, false);
        } else {
            throw std::runtime_error("unknown option " + name);
        }
    }
    if (settings.bodies.empty() || settings.port == 0) throw std::runtime_error("needs --port and a body");
    return settings;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        Client client(parse(argc, argv));
        client.run();
        client.report();
        return client.all_done() ? 0 : 1;
    } catch (const std::exception& error) {
        fprintf(stderr, "client: %s\n", error.what());
        return 2;
    }
}
