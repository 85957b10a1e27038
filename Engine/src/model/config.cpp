#include "model/config.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "json/json.h"
#include "model/model.h"
#include "model/rope.h"
#include "model/safetensors.h"

namespace blas_engine {

namespace {

constexpr size_t max_config_bytes = size_t{16} << 20;

enum class Window {
    none,
    all_layers,    // Mistral: every layer, if sliding_window is set
    upper_layers,  // Qwen: with use_sliding_window, layers from max_window_layers on, or as layer_types says
};

// What distinguishes the supported families. A new family with the same skeleton is a new row.
struct Family {
    const char* name;
    bool qkv_bias;            // always there, whatever the config says
    bool attention_bias_key;  // config key attention_bias: all four projections
    bool mlp_bias_key;        // config key mlp_bias
    bool qk_norm;
    Window window;
    int default_kv_heads;  // transformers' default if the key is missing; 0 = as many as heads
    int default_max_position;
};

constexpr Family families[] = {
    {"LlamaForCausalLM", false, true, true, false, Window::none, 0, 2048},
    {"MistralForCausalLM", false, false, false, false, Window::all_layers, 8, 131072},
    {"Qwen2ForCausalLM", true, false, false, false, Window::upper_layers, 32, 32768},
    {"Qwen3ForCausalLM", false, true, false, true, Window::upper_layers, 32, 32768},
};

class Reader {
  public:
    Reader(const Json& json, const std::string& source) : json_(json), source_(source) {}

    [[noreturn]] void fail(const std::string& what) const { throw ModelError(source_ + ": " + what); }

    int integer(const char* key, std::optional<int> fallback, int low, int high) const {
        const Json* value = json_.find(key);
        if (value == nullptr) {
            if (!fallback) fail(std::string(key) + " is missing");
            return *fallback;
        }
        const auto number = value->integer();
        if (!number || *number < low || *number > high) {
            fail(std::string(key) + " must be a whole number from " + std::to_string(low) + " to " +
                 std::to_string(high));
        }
        return static_cast<int>(*number);
    }

    bool flag(const char* key, bool fallback) const {
        const Json* value = json_.find(key);
        if (value == nullptr) return fallback;
        if (value->boolean() == nullptr) fail(std::string(key) + " must be true or false");
        return *value->boolean();
    }

    std::string text(const char* key, const char* fallback) const {
        const Json* value = json_.find(key);
        if (value == nullptr) return fallback;
        if (value->string() == nullptr) fail(std::string(key) + " must be a string");
        return *value->string();
    }

    const Json* find(const char* key) const { return json_.find(key); }

  private:
    const Json& json_;
    const std::string& source_;
};

const Family& find_family(const Reader& reader) {
    std::string supported, given;
    for (const Family& family : families) supported += (supported.empty() ? "" : ", ") + std::string(family.name);
    const Json* names = reader.find("architectures");
    if (names == nullptr || names->array() == nullptr || names->array()->empty()) {
        reader.fail("no architectures (supported: " + supported + ")");
    }
    for (const Json& name : *names->array()) {
        if (name.string() == nullptr) reader.fail("architectures must be a list of names");
        for (const Family& family : families) {
            if (*name.string() == family.name) return family;
        }
        given += (given.empty() ? "" : ", ") + *name.string();
    }
    reader.fail("architecture " + given + " is not supported (supported: " + supported + ")");
}

std::vector<int> read_windows(const Reader& reader, const Family& family, int layers) {
    std::vector<int> windows(static_cast<size_t>(layers), 0);
    const int window = reader.integer("sliding_window", 0, 0, 1 << 30);
    const bool used = family.window == Window::all_layers ||
                      (family.window == Window::upper_layers && reader.flag("use_sliding_window", false));
    const Json* types = reader.find("layer_types");
    if (types != nullptr) {
        if (types->array() == nullptr || types->array()->size() != windows.size()) {
            reader.fail("layer_types must have one entry per layer");
        }
        for (size_t i = 0; i < windows.size(); ++i) {
            const std::string* type = (*types->array())[i].string();
            if (type != nullptr && *type == "full_attention") continue;
            if (type == nullptr || *type != "sliding_attention") {
                reader.fail("layer_types: only full_attention and sliding_attention are supported");
            }
            if (!used || window == 0) reader.fail("layer_types has sliding_attention but no sliding window is in use");
            windows[i] = window;
        }
        return windows;
    }
    if (!used || window == 0) return windows;
    const int first = family.window == Window::all_layers ? 0 : reader.integer("max_window_layers", 28, 0, 1 << 20);
    for (int i = first; i < layers; ++i) windows[static_cast<size_t>(i)] = window;
    return windows;
}

void refuse_unsupported(const Reader& reader) {
    if (reader.find("quantization_config") != nullptr || reader.find("compression_config") != nullptr) {
        reader.fail("quantised checkpoints are not supported (only bfloat16, float16 and float32 weights)");
    }
    const std::string activation = reader.text("hidden_act", "silu");
    if (activation != "silu" && activation != "swish") {
        reader.fail("hidden_act " + activation + " is not supported (supported: silu)");
    }
}

void read_eos(const Reader& reader, std::vector<int32_t>& ids) {
    const Json* value = reader.find("eos_token_id");
    if (value == nullptr) return;
    const auto add = [&](const Json& item) {
        const auto id = item.integer();
        if (!id || *id < 0 || *id > INT32_MAX) reader.fail("eos_token_id must be a token id or a list of them");
        const auto token = static_cast<int32_t>(*id);
        if (std::find(ids.begin(), ids.end(), token) == ids.end()) ids.push_back(token);
    };
    if (value->array() == nullptr) return add(*value);
    for (const Json& item : *value->array()) add(item);
}

Json parse_file(const std::string& path) {
    try {
        Json json = Json::parse(read_text_file(path, max_config_bytes));
        if (!json.is_object()) throw ModelError(path + ": not a JSON object");
        return json;
    } catch (const JsonError& error) {
        throw ModelError(path + ": " + error.what());
    }
}

}  // namespace

ModelConfig read_config(const std::string& folder) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    if (!fs::is_directory(folder, ignored)) throw ModelError(folder + ": no such model folder");
    const std::string path = folder + "/config.json";
    const Json json = parse_file(path);
    const Reader reader(json, path);
    const Family& family = find_family(reader);
    refuse_unsupported(reader);

    ModelConfig config;
    config.architecture = family.name;
    config.vocab_size = reader.integer("vocab_size", std::nullopt, 1, 1 << 24);
    config.hidden = reader.integer("hidden_size", std::nullopt, 1, 1 << 17);
    config.intermediate = reader.integer("intermediate_size", std::nullopt, 1, 1 << 20);
    config.layers = reader.integer("num_hidden_layers", std::nullopt, 1, 1024);
    config.heads = reader.integer("num_attention_heads", std::nullopt, 1, 1024);
    const int kv_heads = family.default_kv_heads > 0 ? family.default_kv_heads : config.heads;
    config.kv_heads = reader.integer("num_key_value_heads", kv_heads, 1, 1024);
    if (config.heads % config.kv_heads != 0) {
        reader.fail("num_attention_heads (" + std::to_string(config.heads) +
                    ") must be a multiple of num_key_value_heads (" + std::to_string(config.kv_heads) + ")");
    }
    // transformers' Qwen3 has 128 here by default; the others divide.
    const int divided = config.hidden / config.heads;
    const bool fixed = family.qk_norm;
    if (!fixed && reader.find("head_dim") == nullptr && config.hidden % config.heads != 0) {
        reader.fail("hidden_size is no multiple of num_attention_heads and head_dim is missing");
    }
    config.head_dim = reader.integer("head_dim", fixed ? 128 : std::max(1, divided), 2, 1024);
    if (config.head_dim % 2 != 0) reader.fail("head_dim must be even");
    const Json* epsilon = reader.find("rms_norm_eps");
    const double value = epsilon == nullptr ? 1e-6 : epsilon->number().value_or(-1);
    if (!(value >= 0 && value < 1)) reader.fail("rms_norm_eps must be a small number");
    config.norm_epsilon = static_cast<float>(value);
    if (config.hidden % 2 != 0 || config.intermediate % 2 != 0) {
        reader.fail("hidden_size and intermediate_size must be even");
    }
    config.tied_embeddings = reader.flag("tie_word_embeddings", false);
    const bool attention_bias = reader.flag("attention_bias", false);
    if (attention_bias && !family.attention_bias_key)
        reader.fail("attention_bias is not supported for this architecture");
    config.qkv_bias = family.qkv_bias || attention_bias;
    config.output_bias = attention_bias;
    config.mlp_bias = reader.flag("mlp_bias", false);
    if (config.mlp_bias && !family.mlp_bias_key) reader.fail("mlp_bias is not supported for this architecture");
    config.qk_norm = family.qk_norm;
    config.windows = read_windows(reader, family, config.layers);
    config.max_position = reader.integer("max_position_embeddings", family.default_max_position, 1, 1 << 28);
    config.rope = read_rope(json, path, config.head_dim, config.max_position);
    // transformers 5 writes dtype, older versions torch_dtype.
    config.checkpoint_dtype = reader.text("dtype", reader.text("torch_dtype", "").c_str());

    read_eos(reader, config.eos_token_ids);
    const std::string generation = folder + "/generation_config.json";
    if (fs::exists(generation, ignored)) {
        const Json extra = parse_file(generation);
        read_eos(Reader(extra, generation), config.eos_token_ids);
    }
    return config;
}

Storage choose_storage(const std::string& dtype, const ModelConfig&) {
    if (dtype == "float32" || dtype == "float") return Storage::f32;
    if (dtype == "auto" || dtype == "bfloat16" || dtype == "float16" || dtype == "half") return Storage::bf16;
    throw ModelError("dtype " + dtype + " is not supported (supported: auto, bfloat16, float16, half, float32, float)");
}

Storage choose_results(Storage storage, const ModelConfig& config) {
    return storage == Storage::bf16 && config.checkpoint_dtype == "bfloat16" ? Storage::bf16_in_f32 : Storage::f32;
}

}  // namespace blas_engine
