// An engine without a model, for measuring frontends: it answers vLLM's EngineCore protocol (0.33) with made-up tokens,
// on a clock or as fast as the frontend takes them, and needs next to no CPU.
//
//   pacer --input ADDR --output ADDR --tokens FILE --stamps FILE
//
// FILE of --tokens: token ids to choose from, one per line. The tokens of a request depend on the number in its id
// ("bench-<n>") only, so every frontend gets the same. FILE of --stamps: shared memory, see stamps.h.
// Commands on stdin, each answered by one line: "step MICROSECONDS" (0 = as fast as possible), "tokens FILE", "script
// FILE" (these tokens in their order, for every request, until the next "tokens"), "quit". Requests for
// log-probabilities get made-up ones.
#include <fcntl.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <zmq.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "stamps.h"

namespace {

constexpr uint64_t kNoNumber = UINT64_MAX;

// Writes msgpack.
struct Packer {
    std::string bytes;

    void byte(int value) { bytes.push_back(static_cast<char>(value)); }
    template <typename T>
    void big_endian(int tag, T value) {
        byte(tag);
        for (int shift = 8 * (static_cast<int>(sizeof(T)) - 1); shift >= 0; shift -= 8) {
            byte(static_cast<int>(static_cast<uint64_t>(value) >> shift & 255));
        }
    }
    void unsigned_integer(uint64_t value) {
        if (value < 128) {
            byte(static_cast<int>(value));
        } else if (value <= 0xffff) {
            big_endian<uint16_t>(0xcd, static_cast<uint16_t>(value));
        } else if (value <= 0xffffffff) {
            big_endian<uint32_t>(0xce, static_cast<uint32_t>(value));
        } else {
            big_endian<uint64_t>(0xcf, value);
        }
    }
    void real(double value) {
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        big_endian<uint64_t>(0xcb, bits);
    }
    void text(const std::string& value) {
        if (value.size() < 32) {
            byte(0xa0 | static_cast<int>(value.size()));
        } else {
            big_endian<uint16_t>(0xda, static_cast<uint16_t>(value.size()));
        }
        bytes += value;
    }
    void nil() { byte(0xc0); }
    void boolean(bool value) { byte(value ? 0xc3 : 0xc2); }
    void array(size_t count) {
        if (count < 16) {
            byte(0x90 | static_cast<int>(count));
        } else {
            big_endian<uint16_t>(0xdc, static_cast<uint16_t>(count));
        }
    }
    void map(size_t pairs) {
        if (pairs < 16) {
            byte(0x80 | static_cast<int>(pairs));
        } else {
            big_endian<uint16_t>(0xde, static_cast<uint16_t>(pairs));
        }
    }
    void pair(const char* key, uint64_t value) { text(key), unsigned_integer(value); }
    // A little-endian ndarray of one row, inside the message.
    template <typename T>
    void row(const char* type, const std::vector<T>& values, bool is_matrix) {
        array(3);
        text(type);
        array(is_matrix ? 2 : 1);
        if (is_matrix) unsigned_integer(1);
        unsigned_integer(values.size());
        size_t size = values.size() * sizeof(T);
        big_endian<uint16_t>(0xc8, static_cast<uint16_t>(size));
        byte(3);
        bytes.append(reinterpret_cast<const char*>(values.data()), size);
    }
};

// Reads msgpack from a trusted frontend; any surprise ends the run, because its figures would mean nothing.
struct Reader {
    const uint8_t* at;
    const uint8_t* end;

    [[noreturn]] static void fail() {
        fprintf(stderr, "pacer: unreadable message\n");
        exit(1);
    }
    uint64_t big_endian(int size) {
        if (end - at < size) fail();
        uint64_t value = 0;
        for (int i = 0; i < size; i++) value = value << 8 | *at++;
        return value;
    }
    uint64_t size_of(int tag, int fix_low, int fix_high, int small) {
        if (tag >= fix_low && tag <= fix_high) return static_cast<uint64_t>(tag - fix_low);
        if (tag < small || tag > small + 2) fail();
        return big_endian(1 << (tag - small));
    }
    size_t array() {
        int tag = static_cast<int>(big_endian(1));
        if ((tag & 0xf0) == 0x90) return static_cast<size_t>(tag & 15);
        return big_endian(tag == 0xdc ? 2 : tag == 0xdd ? 4 : (fail(), 0));
    }
    size_t map() {
        int tag = static_cast<int>(big_endian(1));
        if ((tag & 0xf0) == 0x80) return static_cast<size_t>(tag & 15);
        return big_endian(tag == 0xde ? 2 : tag == 0xdf ? 4 : (fail(), 0));
    }
    std::string text() {
        int tag = static_cast<int>(big_endian(1));
        size_t size = size_of(tag, 0xa0, 0xbf, 0xd9);
        if (static_cast<size_t>(end - at) < size) fail();
        at += size;
        return {reinterpret_cast<const char*>(at) - size, size};
    }
    uint64_t integer() {
        int tag = static_cast<int>(big_endian(1));
        if (tag < 128) return static_cast<uint64_t>(tag);
        if (tag >= 0xcc && tag <= 0xcf) return big_endian(1 << (tag - 0xcc));
        fail();
    }
    void skip() {
        for (size_t left = 1; left > 0; left--) {
            int tag = static_cast<int>(big_endian(1));
            size_t body = 0;
            if ((tag & 0xf0) == 0x90) {
                left += static_cast<size_t>(tag & 15);
            } else if ((tag & 0xf0) == 0x80) {
                left += 2 * static_cast<size_t>(tag & 15);
            } else if ((tag & 0xe0) == 0xa0) {
                body = static_cast<size_t>(tag & 31);
            } else if (tag >= 0xc4 && tag <= 0xc6) {
                body = big_endian(1 << (tag - 0xc4));
            } else if (tag >= 0xc7 && tag <= 0xc9) {
                body = big_endian(1 << (tag - 0xc7)) + 1;
            } else if (tag == 0xca || tag == 0xcb) {
                body = tag == 0xca ? 4 : 8;
            } else if (tag >= 0xcc && tag <= 0xd3) {
                body = static_cast<size_t>(1 << (tag & 3));
            } else if (tag >= 0xd4 && tag <= 0xd8) {
                body = static_cast<size_t>(1 << (tag - 0xd4)) + 1;
            } else if (tag >= 0xd9 && tag <= 0xdb) {
                body = big_endian(1 << (tag - 0xd9));
            } else if (tag == 0xdc || tag == 0xdd) {
                left += big_endian(tag == 0xdc ? 2 : 4);
            } else if (tag == 0xde || tag == 0xdf) {
                left += 2 * big_endian(tag == 0xde ? 2 : 4);
            }
            if (static_cast<size_t>(end - at) < body) fail();
            at += body;
        }
    }
};

struct Request {
    std::string id;
    std::string packed_id;
    uint64_t number = kNoNumber;
    uint64_t random = 0;
    uint64_t prompt_tokens = 0;
    uint64_t max_tokens = 16;
    uint64_t done = 0;
    // Alternatives per token; -1 = none wanted.
    int logprobs = -1;
};

uint64_t next_random(uint64_t& state) {
    // splitmix64
    uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

class Pacer {
  public:
    Pacer(const std::string& input, const std::string& output, const char* tokens, const char* stamps)
        : stamps_(stamps, true) {
        choose_from(tokens);
        timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        context_ = zmq_ctx_new();
        dealer_ = connect(ZMQ_DEALER, input);
        push_ = connect(ZMQ_PUSH, output);
        std::string ready = ready_response();
        zmq_send(dealer_, ready.data(), ready.size(), 0);
    }

    void run() {
        for (bool more = true; more;) {
            zmq_pollitem_t items[] = {
                {dealer_, 0, ZMQ_POLLIN, 0}, {nullptr, timer_, ZMQ_POLLIN, 0}, {nullptr, 0, ZMQ_POLLIN, 0}};
            bool hurries = step_us_ == 0 && !running_.empty();
            if (zmq_poll(items, 3, hurries ? 0 : -1) < 0) throw std::runtime_error("zmq_poll");
            if (items[0].revents) receive();
            uint64_t ticks;
            if (items[1].revents && read(timer_, &ticks, sizeof ticks) > 0) {
                // What is in the pipe already belongs to this step.
                receive();
                step();
            }
            if (items[2].revents) more = command();
            if (hurries) step();
        }
    }

  private:
    void* connect(int type, const std::string& address) {
        void* socket = zmq_socket(context_, type);
        int zero = 0, depth = 16;  // a frontend that cannot follow must hold the engine up, not fill the memory
        zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero);
        zmq_setsockopt(socket, ZMQ_RCVHWM, &zero, sizeof zero);
        if (type == ZMQ_PUSH) zmq_setsockopt(socket, ZMQ_SNDHWM, &depth, sizeof depth);
        if (type == ZMQ_DEALER) zmq_setsockopt(socket, ZMQ_ROUTING_ID, "\0\0", 2);
        if (zmq_connect(socket, address.c_str()) != 0) throw std::runtime_error("cannot connect to " + address);
        return socket;
    }

    void choose_from(const char* path) {
        std::ifstream file(path);
        choices_.clear();
        for (uint32_t id; file >> id;) choices_.push_back(id);
        if (choices_.empty()) throw std::runtime_error("no token ids in the file of --tokens");
    }

    static std::string ready_response() {
        Packer out;
        out.map(22);
        out.pair("max_model_len", 32768), out.pair("num_gpu_blocks", 65536), out.pair("block_size", 16);
        out.text("dp_stats_address"), out.nil();
        out.text("dtype"), out.text("bfloat16");
        out.text("vllm_version"), out.text("0.33.0");
        out.pair("world_size", 1), out.pair("data_parallel_size", 1), out.pair("tensor_parallel_size", 1);
        out.pair("pipeline_parallel_size", 1), out.pair("decode_context_parallel_size", 1),
            out.pair("data_parallel_rank", 0);
        out.pair("max_num_seqs", 1024), out.pair("max_num_batched_tokens", 8192);
        out.text("instance_id"), out.text("pacer");
        out.text("supports_lora"), out.boolean(false);
        out.pair("max_loras", 0), out.pair("kv_cache_size_tokens", 1 << 20);
        out.text("kv_cache_max_concurrency"), out.real(8);
        out.text("kv_events_config"), out.nil();
        out.text("weight_transfer_backend"), out.nil();
        out.text("enable_sleep_mode"), out.boolean(false);
        return out.bytes;
    }

    void receive() {
        for (;;) {
            zmq_msg_t frames[2];
            zmq_msg_init(&frames[0]);
            if (zmq_msg_recv(&frames[0], dealer_, ZMQ_DONTWAIT) < 0) return;
            if (!zmq_msg_more(&frames[0])) Reader::fail();
            zmq_msg_init(&frames[1]);
            zmq_msg_recv(&frames[1], dealer_, 0);
            if (zmq_msg_more(&frames[1])) Reader::fail();
            int type = *static_cast<uint8_t*>(zmq_msg_data(&frames[0]));
            auto* data = static_cast<uint8_t*>(zmq_msg_data(&frames[1]));
            Reader reader{data, data + zmq_msg_size(&frames[1])};
            if (type == 0) add(reader);
            if (type == 1) abort(reader);
            for (auto& frame : frames) zmq_msg_close(&frame);
        }
    }

    void add(Reader& reader) {
        if (reader.array() < 4) Reader::fail();
        Request request;
        request.id = reader.text();
        request.prompt_tokens = reader.array();
        for (uint64_t i = 0; i < request.prompt_tokens; i++) reader.skip();
        reader.skip();  // multimodal features
        for (size_t pairs = reader.map(); pairs > 0; pairs--) {
            std::string key = reader.text();
            if (key == "max_tokens") {
                request.max_tokens = reader.integer();
            } else if (key == "logprobs" && *reader.at < 128) {
                request.logprobs = static_cast<int>(reader.integer());
            } else {
                reader.skip();
            }
        }
        size_t mark = request.id.find("bench-");
        if (mark != std::string::npos) request.number = strtoull(request.id.c_str() + mark + 6, nullptr, 10);
        request.random = request.number;
        Packer id;
        id.text(request.id);
        request.packed_id = id.bytes;
        running_.push_back(std::make_unique<Request>(std::move(request)));
        if (step_us_ > 0 && running_.size() == 1) arm(true);
    }

    void abort(Reader& reader) {
        for (size_t count = reader.array(); count > 0; count--) {
            std::string id = reader.text();
            std::erase_if(running_, [&](const auto& request) { return request->id == id; });
        }
    }

    void arm(bool on) {
        itimerspec spec{};
        if (on) {
            spec.it_interval = spec.it_value = {step_us_ / 1000000, step_us_ % 1000000 * 1000};
        }
        timerfd_settime(timer_, 0, &spec, nullptr);
    }

    // One token for every request, in one message.
    void step() {
        if (running_.empty()) {
            arm(false);
            return;
        }
        uint64_t now = monotonic_ns();
        Packer out;
        std::vector<std::string> finished;
        size_t kept = 0;
        bool last_of_any = false;
        for (auto& request : running_) last_of_any |= request->done + 1 >= request->max_tokens;
        out.array(last_of_any ? 6 : 4);
        out.unsigned_integer(0);
        out.array(running_.size());
        for (auto& request : running_) {
            bool first = request->done == 0, last = request->done + 1 >= request->max_tokens;
            bool shows = request->logprobs >= 0;
            out.array(first ? 12 : last ? 6 : shows ? 3 : 2);
            out.bytes += request->packed_id;
            out.array(1);
            uint64_t random = is_script_ ? request->done : next_random(request->random);
            uint32_t token = choices_[random % choices_.size()];
            out.unsigned_integer(token);
            if (shows) {
                logprobs(out, token, random, request->logprobs);
            } else if (first || last) {
                out.nil();
            }
            if (first || last) {
                out.nil(), out.nil();
                last ? out.unsigned_integer(1) : out.nil();
            }
            if (first) {
                for (int i = 0; i < 5; i++) out.nil();
                out.map(3);
                out.pair("num_prompt_tokens", request->prompt_tokens);
                out.pair("num_computed_tokens", request->prompt_tokens), out.pair("num_cached_tokens", 0);
            }
            if (step_us_ > 0) stamps_.set(request->number, request->done, now);
            request->done++;
            if (last) {
                finished.push_back(std::move(request->id));
            } else {
                running_[kept++].swap(request);
            }
        }
        running_.resize(kept);
        scheduler_stats(out);
        out.real(static_cast<double>(now) * 1e-9);
        if (last_of_any) {
            out.nil();
            out.array(finished.size());
            for (auto& id : finished) out.text(id);
        }
        zmq_send(push_, out.bytes.data(), out.bytes.size(), 0);
    }

    // The token itself and then the most likely ones, which it is one of now and then.
    void logprobs(Packer& out, uint32_t token, uint64_t random, int count) {
        std::vector<int32_t> ids{static_cast<int32_t>(token)};
        std::vector<float> values{-0.25f - static_cast<float>(random % 7)};
        bool is_likely = random % 3 == 0;
        for (int i = 0; i < count; i++) {
            bool is_self = i == 0 && is_likely;
            ids.push_back(
                is_self ? ids[0]
                        : static_cast<int32_t>(choices_[(random + 1 + static_cast<uint64_t>(i)) % choices_.size()]));
            values.push_back(is_self ? values[0] : -0.5f * static_cast<float>(i + 1));
        }
        out.array(4);
        out.row("<i4", ids, true);
        out.row("<f4", values, true);
        out.row("<i8", std::vector<int64_t>{is_likely ? 1 : 9}, false);
        out.nil();
    }

    void scheduler_stats(Packer& out) {
        out.map(14);
        out.pair("num_running_reqs", running_.size()), out.pair("num_waiting_reqs", 0);
        out.pair("num_skipped_waiting_reqs", 0), out.pair("step_counter", ++steps_), out.pair("current_wave", 0);
        out.text("kv_cache_usage"), out.real(0.1);
        out.text("iteration_details"), out.nil();
        out.text("prefix_cache_stats"), out.map(7);
        out.text("reset"), out.boolean(false);
        for (auto* key : {"requests", "queries", "hits", "preempted_requests", "preempted_queries", "preempted_hits"}) {
            out.pair(key, 0);
        }
        out.text("connector_prefix_cache_stats"), out.nil();
        out.text("kv_cache_eviction_events"), out.array(0);
        out.text("spec_decoding_stats"), out.nil();
        out.text("kv_connector_stats"), out.nil();
        out.text("waiting_lora_adapters"), out.map(0);
        out.text("running_lora_adapters"), out.map(0);
    }

    bool command() {
        std::string line;
        if (!std::getline(std::cin, line) || line == "quit") return false;
        if (line.rfind("step ", 0) == 0) {
            step_us_ = atol(line.c_str() + 5);
            arm(step_us_ > 0 && !running_.empty());
        }
        for (const char* name : {"tokens ", "script "}) {
            if (line.rfind(name, 0) != 0) continue;
            choose_from(line.c_str() + 7);
            is_script_ = *name == 's';
        }
        printf("{\"steps\": %llu, \"running\": %zu}\n", static_cast<unsigned long long>(steps_), running_.size());
        fflush(stdout);
        return true;
    }

    Stamps stamps_;
    std::vector<uint32_t> choices_;
    bool is_script_ = false;
    std::vector<std::unique_ptr<Request>> running_;
    void* context_ = nullptr;
    void* dealer_ = nullptr;
    void* push_ = nullptr;
    int timer_ = -1;
    long step_us_ = 0;
    uint64_t steps_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    std::unordered_map<std::string, const char*> options;
    for (int i = 1; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
    for (auto* name : {"--input", "--output", "--tokens", "--stamps"}) {
        if (!options.contains(name)) {
            fprintf(stderr, "usage: pacer --input ADDR --output ADDR --tokens FILE --stamps FILE\n");
            return 2;
        }
    }
    try {
        Pacer(options["--input"], options["--output"], options["--tokens"], options["--stamps"]).run();
    } catch (const std::exception& error) {
        fprintf(stderr, "pacer: %s\n", error.what());
        return 1;
    }
    _exit(0);
}
