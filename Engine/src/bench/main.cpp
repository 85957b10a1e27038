// blas-engine-bench: what a model's steps reach of the machine's limits.
//
// Memory bandwidth of a shared machine switches between states within minutes, so every round measures a plain read of
// memory right before and after each decode measurement, and decode is told as a share of that.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/isa.h"
#include "model/config.h"
#include "model/model.h"

namespace {

using namespace blas_engine;

constexpr size_t probe_bytes = size_t{512} << 20;
constexpr int prompt_tokens = 16;
constexpr int decode_steps = 16;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t n = values.size();
    return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// The widest loads of the CPU at hand: narrower ones do not reach the memory limit.
#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t
read_all(const uint64_t* words, size_t count) {
    uint64_t lanes[32] = {};
    for (size_t i = 0; i < count; i += 32) {
        for (size_t lane = 0; lane < 32; ++lane) lanes[lane] += words[i + lane];
    }
    return std::accumulate(lanes, lanes + 32, uint64_t{0});
}

// GB/s of all threads of the model's pool reading.
class Probe {
  public:
    explicit Probe(Model& model) : model_(model), memory_(probe_bytes) { std::memset(memory_.as(), 1, probe_bytes); }

    double run() {
        constexpr int parts = 64;
        const auto* words = memory_.as<const uint64_t>();
        const size_t count = probe_bytes / sizeof(uint64_t) / parts;
        std::vector<uint64_t> sums(parts);
        const double start = now();
        model_.parallel_for(parts, [&](int part) {
            sums[static_cast<size_t>(part)] = read_all(words + static_cast<size_t>(part) * count, count);
        });
        const double seconds = now() - start;
        if (std::accumulate(sums.begin(), sums.end(), uint64_t{0}) == 0) std::abort();  // keeps the loop alive
        return static_cast<double>(probe_bytes) / seconds / 1e9;
    }

  private:
    Model& model_;
    Buffer memory_;
};

struct Driver {
    Model& model;
    int block_size;
    int blocks_per_sequence;
    std::vector<std::vector<int32_t>> tables;
    std::vector<float> logits;

    Driver(Model& model, int sequences, int longest, int block_size)
        : model(model), block_size(block_size), blocks_per_sequence((longest + block_size - 1) / block_size) {
        for (int s = 0; s < sequences; ++s) {
            tables.emplace_back(static_cast<size_t>(blocks_per_sequence));
            std::iota(tables.back().begin(), tables.back().end(), s * blocks_per_sequence);
        }
        logits.resize(static_cast<size_t>(sequences) * static_cast<size_t>(model.info().vocab_size));
    }

    // Seconds for one step of `sequences` sequences with `tokens` tokens each.
    double step(int sequences, int tokens, int computed) {
        std::vector<int32_t> ids(static_cast<size_t>(tokens));
        for (int i = 0; i < tokens; ++i) ids[static_cast<size_t>(i)] = (i * 37 + 11) % model.info().vocab_size;
        std::vector<SequenceInput> batch(static_cast<size_t>(sequences));
        for (size_t s = 0; s < batch.size(); ++s) {
            batch[s].tokens = ids;
            batch[s].computed = computed;
            batch[s].block_table = tables[s];
        }
        const double start = now();
        model.forward(batch, logits.data());
        return now() - start;
    }

    double decode(int sequences) {
        step(sequences, prompt_tokens, 0);
        std::vector<double> times;
        for (int i = 0; i < decode_steps; ++i) times.push_back(step(sequences, 1, prompt_tokens + i));
        return median(times);
    }
};

struct Options {
    std::string model, dtype = "auto";
    int threads = 0, rounds = 5;
};

[[noreturn]] void usage() {
    std::fprintf(stderr,
                 "usage: blas-engine-bench MODEL_DIR [--dtype D] [--threads N] [--rounds N]\n"
                 "BLAS_ENGINE_ISA chooses the kernels.\n");
    std::exit(2);
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const bool flag = word.rfind("--", 0) == 0;
        if (flag && i + 1 == argc) usage();
        if (word == "--dtype") {
            options.dtype = argv[++i];
        } else if (word == "--threads") {
            options.threads = std::atoi(argv[++i]);
        } else if (word == "--rounds") {
            options.rounds = std::max(1, std::atoi(argv[++i]));
        } else if (flag || !options.model.empty()) {
            usage();
        } else {
            options.model = word;
        }
    }
    if (options.model.empty()) usage();
    return options;
}

void run(const Options& options) {
    LoadOptions load;
    load.path = options.model;
    load.dtype = options.dtype;
    load.threads = options.threads;
    const double start = now();
    const auto model = Model::load(load);
    const double load_seconds = now() - start;
    const ModelConfig config = read_config(options.model);
    const double element = model->info().dtype == "float32" ? 4 : 2;
    const double table = config.tied_embeddings ? 0 : element * config.vocab_size * config.hidden;
    const double bytes = static_cast<double>(model->info().weight_bytes) - table;  // read by every step
    const double layers = bytes / element - 1.0 * config.vocab_size * config.hidden;
    std::printf("%s %s, %.1f MiB of weights, %d threads, %s, loaded in %.2f s\n", model->info().architecture.c_str(),
                model->info().dtype.c_str(), static_cast<double>(model->info().weight_bytes) / (1 << 20),
                model->threads(), isa_name(choose_isa()), load_seconds);

    const std::vector<int> batches = {1, 4, 16, 64}, prompts = {512, 2048};
    const int longest = std::min(2048, model->info().max_position);
    model->allocate_kv(std::max(longest / 16 + 1, 64 * 4));
    Probe probe(*model);
    Driver single(*model, 1, longest, 16), many(*model, 64, prompt_tokens + decode_steps, 16);
    std::vector<std::vector<double>> decode(batches.size()), share(batches.size()), prefill(prompts.size());
    std::vector<double> probes;
    probe.run();
    for (int round = 0; round < options.rounds; ++round) {
        for (size_t i = 0; i < batches.size(); ++i) {
            const double before = probe.run();
            const double seconds = many.decode(batches[i]);
            const double after = probe.run();
            probes.insert(probes.end(), {before, after});
            decode[i].push_back(seconds);
            share[i].push_back(bytes / seconds / 1e9 / ((before + after) / 2));
        }
        for (size_t i = 0; i < prompts.size(); ++i) {
            if (prompts[i] <= longest) prefill[i].push_back(single.step(1, prompts[i], 0));
        }
    }
    std::printf("probe: %.1f GB/s (%.1f to %.1f)\n", median(probes), *std::min_element(probes.begin(), probes.end()),
                *std::max_element(probes.begin(), probes.end()));
    for (size_t i = 0; i < batches.size(); ++i) {
        const double seconds = median(decode[i]);
        std::printf(
            "decode  batch %-4d %9.1f tok/s  %8.2f ms/step  %5.1f GB/s of weights, %3.0f %% of the probe beside it\n",
            batches[i], batches[i] / seconds, seconds * 1e3, bytes / seconds / 1e9, 100 * median(share[i]));
    }
    for (size_t i = 0; i < prompts.size(); ++i) {
        if (prefill[i].empty()) continue;
        const double seconds = median(prefill[i]);
        std::printf("prefill %-10d %9.1f tok/s  %8.2f ms       %5.0f GFLOP/s in the layers' matrices\n", prompts[i],
                    prompts[i] / seconds, seconds * 1e3, 2 * layers * prompts[i] / seconds / 1e9);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse(argc, argv);
    try {
        run(options);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "blas-engine-bench: %s\n", error.what());
        return 1;
    }
}
