#include "reference_models.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "json/json.h"
#include "kernels/isa.h"
#include "model/safetensors.h"

namespace blas_engine::testing {

namespace {

std::vector<float> decode_floats(const std::string& base64) {
    std::vector<unsigned char> bytes;
    uint32_t bits = 0;
    int count = 0;
    for (const char c : base64) {
        const char* alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char* at = std::strchr(alphabet, c);
        if (c == '=' || at == nullptr) break;
        bits = bits << 6 | static_cast<uint32_t>(at - alphabet);
        if (++count % 4 != 1) bytes.push_back(static_cast<unsigned char>(bits >> (6 - 2 * ((count - 1) % 4))));
    }
    std::vector<float> out(bytes.size() / 4);
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size() * 4);
    return out;
}

template <typename T>
std::vector<T> numbers(const Json& json) {
    std::vector<T> out;
    for (const Json& item : *json.array()) out.push_back(static_cast<T>(item.number().value()));
    return out;
}

}  // namespace

const std::vector<std::string>& reference_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> out;
        for (const auto& entry : std::filesystem::directory_iterator(ENGINE_TEST_DATA_DIR)) {
            if (entry.path().extension() == ".json") out.push_back(entry.path().stem());
        }
        std::sort(out.begin(), out.end());
        return out;
    }();
    return names;
}

Reference read_reference(const std::string& name) {
    const Json json = Json::parse(read_text_file(std::string(ENGINE_TEST_DATA_DIR) + "/" + name + ".json", 1 << 20));
    Reference out{name, *json.find("architecture")->string(), {}};
    for (const auto& [prompt, value] : *json.find("prompts")->object()) {
        out.prompts.push_back({prompt, numbers<int32_t>(*value.find("ids")), numbers<int32_t>(*value.find("greedy")),
                               numbers<float>(*value.find("margins")), decode_floats(*value.find("logits")->string()),
                               decode_floats(*value.find("prompt_logprobs")->string())});
    }
    return out;
}

std::string fixture_folder(const std::string& name) {
    const std::string folder = std::string(ENGINE_FIXTURES_DIR) + "/" + name;
    if (!std::filesystem::exists(folder)) {
        throw std::runtime_error(folder + " is missing: build the target engine_fixtures (needs python3 with numpy)");
    }
    return folder;
}

ScopedEnvironment::ScopedEnvironment(std::string name, const std::string& value) : name_(std::move(name)) {
    const char* old = std::getenv(name_.c_str());
    had_ = old != nullptr;
    if (had_) old_ = old;
    setenv(name_.c_str(), value.c_str(), 1);
}

ScopedEnvironment::~ScopedEnvironment() { had_ ? setenv(name_.c_str(), old_.c_str(), 1) : unsetenv(name_.c_str()); }

std::vector<std::string> runnable_isas() {
    std::vector<std::string> out;
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
        if (isa_supported(isa)) out.push_back(isa_name(isa));
    }
    return out;
}

std::unique_ptr<Model> load_fixture(const std::string& name, const std::string& dtype, int blocks, int block_size,
                                    int threads) {
    LoadOptions options;
    options.path = fixture_folder(name);
    options.dtype = dtype;
    options.threads = threads;
    options.block_size = block_size;
    auto model = Model::load(options);
    model->allocate_kv(blocks);
    return model;
}

Sequence::Sequence(Model& model, int first_block, int block_count, int) : model_(model) {
    for (int i = block_count - 1; i >= 0; --i) blocks_.push_back(first_block + i);
}

SequenceInput Sequence::next(const std::vector<int32_t>& tokens, int logits_rows) {
    tokens_ = tokens;
    SequenceInput input;
    input.tokens = tokens_;
    input.computed = computed_;
    input.block_table = blocks_;
    input.logits_rows = logits_rows;
    computed_ += static_cast<int>(tokens.size());
    return input;
}

std::vector<float> Sequence::feed(const std::vector<int32_t>& tokens, size_t chunk) {
    std::vector<float> logits(static_cast<size_t>(model_.info().vocab_size));
    for (size_t done = 0; done < tokens.size();) {
        const size_t part = std::min(chunk, tokens.size() - done);
        const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(done);
        const bool last = done + part == tokens.size();
        const SequenceInput input = next({begin, begin + static_cast<std::ptrdiff_t>(part)}, last ? 1 : 0);
        model_.forward({&input, 1}, logits.data());
        done += part;
    }
    return logits;
}

std::vector<int32_t> Sequence::greedy(std::vector<float> logits, size_t steps) {
    std::vector<int32_t> out;
    for (size_t step = 0; step < steps; ++step) {
        out.push_back(argmax(logits.data(), logits.size()));
        if (step + 1 < steps) logits = feed({out.back()});
    }
    return out;
}

int32_t argmax(const float* logits, size_t n) {
    return static_cast<int32_t>(std::max_element(logits, logits + n) - logits);
}

double relative_error(const std::vector<float>& actual, const std::vector<float>& expected) {
    double difference = 0, largest = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        const double d = std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
        if (!(d <= difference)) difference = d;  // also for NaN
        largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    }
    return difference / largest;
}

}  // namespace blas_engine::testing
