#include "core/engine_process.h"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "core/clock.h"
#include "core/engine_core.h"
#include "core/executor.h"
#include "core/input_queue.h"
#include "core/kv_sizing.h"
#include "core/lifeline.h"
#include "core/load_progress.h"
#include "core/log.h"
#include "mock/mock_executor.h"
#include "mock/replay_executor.h"
#include "mock/words.h"
#include "wire/handshake.h"
#include "wire/transport.h"

#ifdef BLAS_ENGINE_HAS_MODELS
#include "core/model_executor.h"
#endif

namespace blas_engine {
namespace {

// Logits of one prompt-logprobs chunk stay within this many floats (64 MiB).
constexpr int64_t max_prompt_logits = int64_t{16} << 20;

#ifdef BLAS_ENGINE_HAS_MODELS
std::unique_ptr<Executor> load_model(const EngineOptions& options, const LoadProgress& told) {
    LoadOptions load;
    load.path = options.model;
    load.dtype = options.dtype;
    load.threads = options.threads;
    load.block_size = options.block_size;
    double last_fraction = 0;
    double last_time = monotonic_seconds();
    load.progress = [&](double fraction, const std::string& what) {
        told.note(std::min(fraction, 0.99), what);
        double now = monotonic_seconds();
        bool news = fraction - last_fraction >= 0.25 || now - last_time >= 2 || fraction >= 1;
        if (!news) return;
        last_fraction = fraction;
        last_time = now;
        log(LogLevel::info, "loading %s: %3.0f %% (%s)", options.model.c_str(), fraction * 100, what.c_str());
    };
    std::unique_ptr<Model> model = Model::load(load);
    return std::make_unique<ModelExecutor>(std::move(model), options.model);
}
#else
std::unique_ptr<Executor> load_model(const EngineOptions&, const LoadProgress&) {
    throw std::runtime_error("this build of blas-engine has no models, only --model mock");
}
#endif

std::unique_ptr<Executor> make_mock(MockOptions options) {
    if (!options.replay_path.empty()) {
        return std::make_unique<ReplayExecutor>(Recording::read(options.replay_path), std::move(options.faults));
    }
    if (!options.words_path.empty()) options.word_ids = read_word_ids(options.words_path, options.vocab_size);
    return std::make_unique<MockExecutor>(std::move(options));
}

int64_t kv_bytes_wanted(const EngineOptions& options) {
    if (options.kv_cache_bytes > 0) return options.kv_cache_bytes;
    const char* gib = std::getenv("VLLM_CPU_KVCACHE_SPACE");
    double value = gib ? std::strtod(gib, nullptr) : 0;
    return value > 0 && value < 1e6 ? static_cast<int64_t>(value * (int64_t{1} << 30)) : 0;
}

KvSizing choose_kv(const EngineOptions& options, const Executor& executor) {
    KvRequest request;
    request.bytes_per_block = static_cast<int64_t>(executor.kv_bytes_per_block());
    request.block_size = options.block_size;
    request.model_max_len = executor.info().max_position;
    request.wanted_max_len = options.max_model_len;
    request.max_num_seqs = options.max_num_seqs;
    request.wanted_bytes = kv_bytes_wanted(options);
    request.wanted_blocks = options.num_gpu_blocks_override;
    const MemoryLimits memory = memory_limits();
    request.available_bytes = memory.available_bytes;
    request.memory_bytes = memory.total_bytes;
    KvSizing sizing = size_kv_cache(request);
    if (options.max_model_len == 0 && sizing.max_model_len < executor.info().max_position) {
        log(LogLevel::warning, "max_model_len is %d instead of the model's %d: more does not fit into the KV cache",
            sizing.max_model_len, executor.info().max_position);
    }
    return sizing;
}

EngineCoreConfig core_config(const EngineOptions& options, const Executor& executor, const KvSizing& kv) {
    EngineCoreConfig config;
    config.scheduler.max_num_seqs = options.max_num_seqs;
    config.scheduler.max_num_batched_tokens = options.max_num_batched_tokens;
    config.scheduler.max_model_len = kv.max_model_len;
    config.scheduler.block_size = options.block_size;
    config.scheduler.num_blocks = kv.num_blocks;
    config.scheduler.prefix_caching = options.prefix_caching;
    config.scheduler.priority_policy = options.priority_scheduling;
    config.scheduler.record_events = options.log_stats;
    config.scheduler.max_prompt_logprob_rows = static_cast<int>(std::max<int64_t>(
        1, std::min<int64_t>(max_prompt_logits / executor.info().vocab_size, options.max_num_batched_tokens)));
    config.engine_index = options.engine_index;
    config.layout = options.protocol ? output_layout(*options.protocol) : safe_output_layout();
    config.log_stats = options.log_stats;
    config.iteration_details = options.iteration_details;
    config.shutdown_timeout_seconds = options.shutdown_timeout_seconds;
    config.seed = options.seed;
    config.stamps_path = options.stamps_path;
    config.record_path = options.record_path;
    return config;
}

std::string make_instance_id() {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return std::to_string(int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec);
}

TransportOptions transport_options(const EngineCoreConfig& config, const Executor& executor, EngineAddresses addresses,
                                   const cpu_set_t& cpus, bool control, double load_seconds) {
    TransportOptions transport;
    transport.addresses = std::move(addresses);
    transport.engine_index = config.engine_index;
    transport.limits = {executor.info().vocab_size, config.scheduler.max_model_len};
    transport.cpus = cpus;
    transport.control = control;
    transport.layout = config.layout;
    ReadyResponse ready;
    ready.max_model_len = config.scheduler.max_model_len;
    ready.num_blocks = config.scheduler.num_blocks;
    ready.block_size = config.scheduler.block_size;
    ready.dtype = executor.info().dtype;
    ready.vllm_version = config.layout.vllm_version;
    ready.data_parallel_size = config.lockstep_ranks;
    ready.data_parallel_rank = config.engine_index;
    ready.max_num_seqs = config.scheduler.max_num_seqs;
    ready.max_num_batched_tokens = config.scheduler.max_num_batched_tokens;
    ready.instance_id = make_instance_id();
    ready.load_seconds = load_seconds;
    transport.instance_id = ready.instance_id;
    transport.ready_response = encode_ready_response(ready);
    return transport;
}

void serve(const EngineOptions& options, ZmqContext& context, InputQueue& queue, Lifeline& lifeline,
           const cpu_set_t& cpus) {
    Handshake handshake(context, {options.handshake_address, options.engine_index, options.local, options.headless});
    log(LogLevel::info, "engine %d waits for a frontend at %s", options.engine_index,
        options.handshake_address.c_str());
    const LoadProgress progress(options.progress_fd, options.engine_index);
    progress.note(0, "waiting for the frontend");
    EngineAddresses addresses = handshake.wait_for_init();

    progress.note(0, "reading the model");
    double start = monotonic_seconds();
    std::unique_ptr<Executor> executor;
    if (options.model == "mock") {
        executor = make_mock(options.mock);
    } else {
        executor = load_model(options, progress);
    }
    progress.note(0.99, "allocating the KV cache");
    KvSizing kv = choose_kv(options, *executor);
    executor->allocate_kv(kv.num_blocks);

    EngineCoreConfig config = core_config(options, *executor, kv);
    std::unique_ptr<WaveChannel> waves;
    if (addresses.lockstep()) {
        config.lockstep_ranks = addresses.parallel.size;
        config.starts_waves = !options.protocol || *options.protocol == ProtocolFamily::v0_33;
        waves = std::make_unique<WaveChannel>(context, addresses.parallel, options.engine_index, queue, cpus);
        log(LogLevel::info, "rank %d of %d in lockstep", options.engine_index, config.lockstep_ranks);
    }
    TransportOptions transport =
        transport_options(config, *executor, std::move(addresses), cpus, options.control, monotonic_seconds() - start);
    OutputThread output(context, transport, queue);
    output.start();
    std::string instance_id = options.control ? transport.instance_id : "";
    Pulse pulse;
    InputThread input(context, std::move(transport), queue, output, pulse);
    lifeline.serving();

    const ExecutorInfo& info = executor->info();
    log(LogLevel::info,
        "ready in %.2f s: model %s (%s), dtype %s, %d threads, KV cache %lld tokens (%d blocks of %d, %.0f MiB), "
        "max_model_len %d, protocol %.*s",
        monotonic_seconds() - start, info.model.c_str(), info.architecture.c_str(), info.dtype.c_str(), info.threads,
        static_cast<long long>(kv.num_blocks) * options.block_size, kv.num_blocks, options.block_size,
        static_cast<double>(executor->kv_bytes_per_block()) * kv.num_blocks / (1 << 20), kv.max_model_len,
        static_cast<int>(config.layout.vllm_version.size()), config.layout.vllm_version.data());

    if (options.control) input.watch_control(handshake.socket(), options.handshake_address);
    progress.note(1, "ready");
    handshake.send_ready(instance_id);
    input.start(options.control ? handshake.take_socket() : nullptr);

    try {
        EngineCore core(config, *executor, queue, output, pulse, waves.get());
        core.run();
    } catch (...) {
        output.send_engine_dead();
        output.stop();
        throw;
    }
    input.stop();
    output.stop();
    log(LogLevel::info, "engine %d has shut down", options.engine_index);
}

}  // namespace

int run_engine(const EngineOptions& options) {
    set_log_level(options.log_level);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    sched_getaffinity(0, sizeof cpus, &cpus);
    try {
        InputQueue queue;
        Lifeline lifeline(options.death_fd, queue);
        ZmqContext context;
        serve(options, context, queue, lifeline, cpus);
        return 0;
    } catch (const std::exception& error) {
        log(LogLevel::error, "%s", error.what());
        return 1;
    }
}

}  // namespace blas_engine
