#include "core/utility_calls.h"

#include "core/clock.h"
#include "core/log.h"

namespace blas_engine {
namespace {

// The text of a Python exception as a frontend would see it from vLLM's engine.
struct CallFailed : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace

class UtilityCalls::Arguments {
  public:
    explicit Arguments(std::span<const uint8_t> array) : reader_(array), left_(reader_.array_size()) {}

    std::string string(const char* fallback) { return next() ? std::string(reader_.string()) : std::string(fallback); }
    bool boolean(bool fallback) { return next() ? reader_.boolean() : fallback; }
    int64_t integer(int64_t fallback) { return next() ? reader_.integer() : fallback; }
    // A list of strings; false if it is nil.
    bool strings(std::vector<std::string>& list) {
        if (!next()) return false;
        size_t count = reader_.array_size();
        for (size_t i = 0; i < count; ++i) list.emplace_back(reader_.string());
        return true;
    }

  private:
    // Moves to the next argument; false if there is none or it is nil.
    bool next() {
        if (left_ == 0) return false;
        --left_;
        return !reader_.try_nil();
    }

    MsgpackReader reader_;
    size_t left_;
};

const UtilityCalls::Entry UtilityCalls::methods_[] = {
    {"get_supported_tasks", &UtilityCalls::get_supported_tasks},
    // Caches of encoders and multimodal inputs, which this engine does not have, are always empty.
    {"reset_mm_cache", &UtilityCalls::no_op},
    {"reset_encoder_cache", &UtilityCalls::no_op},
    {"execute_dummy_batch", &UtilityCalls::no_op},
    {"reset_prefix_cache", &UtilityCalls::reset_prefix_cache},
    {"sleep", &UtilityCalls::sleep},
    {"wake_up", &UtilityCalls::wake_up},
    {"is_sleeping", &UtilityCalls::is_sleeping},
    {"release_kv_cache_memory", &UtilityCalls::release_kv_cache_memory},
    {"pause_scheduler", &UtilityCalls::pause_scheduler},
    {"pause_generation", &UtilityCalls::pause_generation},
    {"resume_scheduler", &UtilityCalls::resume_scheduler},
    {"is_scheduler_paused", &UtilityCalls::is_scheduler_paused},
    {"set_weight_version", &UtilityCalls::set_weight_version},
    {"get_weight_version", &UtilityCalls::get_weight_version},
    {"collective_rpc", &UtilityCalls::collective_rpc},
    {"get_kv_cache_group_metadata", &UtilityCalls::get_kv_cache_group_metadata},
    {"add_lora", &UtilityCalls::without_lora},
    {"remove_lora", &UtilityCalls::without_lora},
    {"list_loras", &UtilityCalls::without_lora},
    {"pin_lora", &UtilityCalls::without_lora},
    {"profile", &UtilityCalls::without_profiler},
    {"save_sharded_state", &UtilityCalls::unsupported},
    {"compute_weight_checksums", &UtilityCalls::unsupported},
    {"reinitialize_distributed", &UtilityCalls::unsupported},
    {"commit_prepared_elastic_ep", &UtilityCalls::unsupported},
    {"handle_fault", &UtilityCalls::unsupported},
};

void UtilityCalls::call(const UtilityMessage& message) {
    client_index_ = message.client_index;
    result_.call_id = message.call_id;
    std::string prefix = "Call to " + message.method + " method failed: ";
    Method method = nullptr;
    for (const Entry& entry : methods_) {
        if (entry.name == message.method) method = entry.method;
    }
    // It came with 0.33; before, vLLM's engine does not know it.
    if (message.method == "pause_generation" && !core_.config_.layout.pause_generation) method = nullptr;

    if (core_.shutting_down_) {
        result_.failure = "Server shutting down";
    } else if (!method) {
        result_.failure = prefix + "'EngineCoreProc' object has no attribute '" + message.method + "'";
    } else {
        try {
            Arguments arguments(message.arguments);
            (this->*method)(arguments);
        } catch (const MsgpackError& error) {
            result_.failure = prefix + "bad arguments: " + error.what();
        } catch (const CallFailed& error) {
            result_.failure = prefix + error.what();
        }
    }
    if (result_.failure) log(LogLevel::warning, "%s", result_.failure->c_str());
    if (!deferred_) core_.reply(client_index_, result_);
    // The next call may already depend on a sleep that this one asked for.
    core_.settle_pause();
}

MsgpackWriter UtilityCalls::result() {
    result_.value.clear();
    return MsgpackWriter(result_.value);
}

void UtilityCalls::no_op(Arguments&) {}

void UtilityCalls::get_supported_tasks(Arguments&) {
    MsgpackWriter writer = result();
    writer.array(1);
    writer.string("generate");
}

void UtilityCalls::reset_prefix_cache(Arguments& arguments) {
    bool reset_running = arguments.boolean(false);
    if (reset_running) core_.scheduler_.preempt_all(monotonic_seconds());
    bool done = core_.scheduler_.reset_prefix_cache();
    if (!done) log(LogLevel::warning, "the prefix cache is not reset: its blocks are in use");
    result().boolean(done);
}

bool UtilityCalls::asleep() const { return core_.weights_asleep_ || core_.kv_asleep_ || core_.scheduling_asleep_; }

void UtilityCalls::pause(const std::string& mode, bool clear_cache, bool sleep) {
    if (mode == "wait") {
        core_.scheduler_.pause(PauseState::finish_current);
    } else if (mode == "abort" || mode == "keep") {
        if (mode == "abort") core_.abort_all();
        core_.scheduler_.pause(PauseState::frozen);
    } else {
        throw CallFailed("Invalid pause mode: " + mode);
    }
    if (mode == "keep" && !sleep) {
        // Kept requests stay where they are; only blocks nobody uses could be cleared, and then vLLM clears none.
        if (clear_cache) core_.scheduler_.reset_prefix_cache();
        return;
    }
    deferred_ = true;
    core_.deferred_.push_back({client_index_, result_, clear_cache, sleep});
}

void UtilityCalls::sleep(Arguments& arguments) {
    int64_t level = arguments.integer(1);
    std::string mode = arguments.string("abort");
    if (level < 0 || level > 2) throw CallFailed("Invalid sleep level: " + std::to_string(level));
    pause(mode, level > 0, level > 0);
    core_.scheduling_asleep_ = true;
}

void UtilityCalls::wake_up(Arguments& arguments) {
    std::vector<std::string> tags;
    bool everything = !arguments.strings(tags);
    bool weights = everything, kv_cache = everything, scheduling = everything;
    for (const std::string& tag : tags) {
        if (tag == "weights") {
            weights = true;
        } else if (tag == "kv_cache") {
            kv_cache = true;
        } else if (tag == "scheduling") {
            scheduling = true;
        } else {
            throw CallFailed("Unknown wake up tag: " + tag);
        }
    }
    core_.cancel_pause();
    if (weights && core_.weights_asleep_) {
        core_.executor_.reload_weights();
        core_.weights_asleep_ = false;
    }
    if (kv_cache) core_.kv_asleep_ = false;
    bool awake = !core_.weights_asleep_ && !core_.kv_asleep_;
    // Memory that has come back piece by piece wakes the scheduler with its last piece.
    if (awake && (scheduling || weights || kv_cache) && core_.scheduling_asleep_) {
        core_.scheduling_asleep_ = false;
        core_.scheduler_.resume();
    }
    if (core_.config_.layout.wake_up_answers) result().boolean(!asleep());
}

void UtilityCalls::is_sleeping(Arguments&) { result().boolean(asleep()); }

void UtilityCalls::release_kv_cache_memory(Arguments&) {
    // The cache is allocated and released together with the weights.
    throw CallFailed("releasing the KV cache alone is not supported by this engine; use sleep");
}

void UtilityCalls::pause_scheduler(Arguments& arguments) {
    std::string mode = arguments.string("abort");
    bool clear_cache = arguments.boolean(true);
    pause(mode, clear_cache, false);
}

void UtilityCalls::pause_generation(Arguments& arguments) {
    std::string mode = arguments.string("abort");
    bool clear_cache = arguments.boolean(true);
    pause(mode, clear_cache, false);
    // A refusal needs a text; frontends that are told none would answer with HTTP 500. Their requests wait.
    core_.reject_while_paused_ = mode != "keep" && core_.config_.layout.request_error;
}

void UtilityCalls::resume_scheduler(Arguments&) {
    if (asleep()) throw CallFailed("the engine is sleeping; call wake_up");
    core_.reject_while_paused_ = false;
    core_.scheduler_.resume();
    core_.cancel_pause();
}

void UtilityCalls::is_scheduler_paused(Arguments&) {
    result().boolean(core_.scheduler_.pause_state() != PauseState::running);
}

void UtilityCalls::set_weight_version(Arguments& arguments) {
    std::string version = arguments.string("");
    if (version.empty() || !is_valid_utf8(version)) throw CallFailed("the weight version must be a non-empty text");
    core_.weight_version_ = version;
}

void UtilityCalls::get_weight_version(Arguments&) { result().string(core_.weight_version_); }

void UtilityCalls::collective_rpc(Arguments& arguments) {
    std::string method = arguments.string("");
    // Every answer is a list with one entry per worker; this engine is its own only worker.
    if (method == "check_health") {
        MsgpackWriter writer = result();
        writer.array(1);
        writer.nil();
    } else if (method == "get_cache_block_size_bytes") {
        MsgpackWriter writer = result();
        writer.array(1);
        writer.unsigned_integer(core_.executor_.kv_bytes_per_block());
    } else {
        throw CallFailed("Worker failed with error ''BlasWorker' object has no attribute '" + method + "''");
    }
}

void UtilityCalls::get_kv_cache_group_metadata(Arguments&) {
    MsgpackWriter writer = result();
    writer.array(1);
    writer.map(4);
    writer.string("group_idx");
    writer.integer(0);
    writer.string("kind");
    writer.string("full_attention");
    writer.string("block_size");
    writer.integer(core_.config_.scheduler.block_size);
    writer.string("sliding_window");
    writer.nil();
}

void UtilityCalls::without_lora(Arguments&) {
    throw CallFailed("Worker failed with error 'LoRA is not supported by this engine.'");
}

void UtilityCalls::without_profiler(Arguments&) {
    throw CallFailed("Worker failed with error 'Profiling is not supported by this engine.'");
}

void UtilityCalls::unsupported(Arguments&) { throw CallFailed("not supported by this engine"); }

}  // namespace blas_engine
