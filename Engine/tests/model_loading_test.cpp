// Model folders as users have them, and as they should not be: every defect is an error that names what is wrong.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "json/json.h"
#include "model/safetensors.h"
#include "reference_models.h"

namespace blas_engine::testing {
namespace {

namespace fs = std::filesystem;

// A copy of a fixture folder that a test may damage.
class ModelFolder : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = (fs::temp_directory_path() / "blas-engine-model-XXXXXX").string();
        ASSERT_NE(mkdtemp(folder_.data()), nullptr);
        use("llama");
    }
    void TearDown() override { fs::remove_all(folder_); }

    void use(const std::string& fixture) {
        for (const char* file : {"config.json", "model.safetensors"}) {
            fs::copy_file(fixture_folder(fixture) + "/" + file, path(file), fs::copy_options::overwrite_existing);
        }
    }

    std::string path(const std::string& file) const { return folder_ + "/" + file; }
    std::string read(const std::string& file) const { return read_text_file(path(file), size_t{1} << 30); }
    void write(const std::string& file, const std::string& text) const {
        std::ofstream(path(file), std::ios::binary) << text;
    }

    // Replaces the first occurrence of `from`, which must be there.
    void edit(const std::string& file, const std::string& from, const std::string& to) const {
        std::string text = read(file);
        const size_t at = text.find(from);
        ASSERT_NE(at, std::string::npos) << from;
        write(file, text.replace(at, from.size(), to));
    }

    std::unique_ptr<Model> load(const std::string& dtype = "float32") const {
        LoadOptions options;
        options.path = folder_;
        options.dtype = dtype;
        options.threads = 1;
        auto model = Model::load(options);
        model->allocate_kv(16);
        return model;
    }

    // Loading must fail with a message that contains all the words.
    void expect_error(const std::vector<std::string>& words, const std::string& dtype = "float32") const {
        try {
            load(dtype);
            FAIL() << "loaded";
        } catch (const ModelError& error) {
            for (const std::string& word : words) {
                EXPECT_NE(error.message.find(word), std::string::npos) << error.message << " lacks " << word;
            }
        }
    }

    std::vector<float> logits(const std::string& dtype = "float32") const {
        const auto model = load(dtype);
        return Sequence(*model, 0).feed(read_reference("llama").prompts[2].ids);
    }

    // The safetensors header changed by replacing text, lengths kept right.
    void edit_header(const std::string& from, const std::string& to) const {
        const std::string file = read("model.safetensors");
        uint64_t size = 0;
        std::memcpy(&size, file.data(), 8);
        std::string header = file.substr(8, size);
        const size_t at = header.find(from);
        ASSERT_NE(at, std::string::npos) << from;
        header.replace(at, from.size(), to);
        write_tensors("model.safetensors", header, file.substr(8 + size));
    }

    void write_tensors(const std::string& name, const std::string& header, const std::string& data) const {
        const uint64_t size = header.size();
        write(name, std::string(reinterpret_cast<const char*>(&size), 8) + header + data);
    }

    std::string folder_;
};

TEST_F(ModelFolder, MissingPartsAreNamed) {
    fs::remove(path("model.safetensors"));
    expect_error({folder_, "model.safetensors"});
    write("pytorch_model.bin", "x");
    expect_error({"pytorch_model.bin", "not supported"});
    fs::remove(path("config.json"));
    expect_error({"config.json", "No such file"});
    fs::remove_all(folder_);
    expect_error({folder_, "no such model folder"});
}

TEST_F(ModelFolder, BadConfigsAreRefused) {
    const std::string good = read("config.json");
    const auto refused = [&](const std::string& from, const std::string& to, const std::vector<std::string>& words) {
        SCOPED_TRACE(to);
        write("config.json", good);
        edit("config.json", from, to);
        expect_error(words);
    };
    refused("\"LlamaForCausalLM\"", "\"GPT9ForCausalLM\"",
            {"config.json", "GPT9ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
             "MistralForCausalLM"});
    refused("\"vocab_size\": 384", "\"vocab_size\": 0", {"vocab_size"});
    refused("\"vocab_size\": 384", "\"vocab_size\": \"many\"", {"vocab_size"});
    refused("\"vocab_size\": 384", "\"vocab_size\": 385", {"embed_tokens", "[384, 64]", "[385, 64]"});
    refused("\"hidden_size\": 64", "\"hidden_sizes\": 64", {"hidden_size is missing"});
    refused("\"hidden_size\": 64", "\"hidden_size\": 63", {"even"});
    refused("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", {"multiple"});
    refused("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4", {"model.layers.3", "missing"});
    refused("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2", {"model.layers.2", "not part of"});
    refused("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1e9", {"num_hidden_layers"});
    refused("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", {"gelu", "silu"});
    refused("\"attention_bias\": false", "\"attention_bias\": true", {"q_proj.bias", "missing"});
    refused("\"attention_bias\": false", "\"attention_bias\": 1", {"attention_bias"});
    refused("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": \"x\"", {"rms_norm_eps"});
    refused("\"head_dim\": 16", "\"head_dim\": 15", {"head_dim"});
    refused("\"head_dim\": 16", "\"head_dim\": 32", {"q_proj", "[64, 64]", "[128, 64]"});
    refused("\"rope_type\": \"default\"", "\"rope_type\": \"longrope\"", {"longrope", "llama3", "yarn"});
    refused("\"rope_type\": \"default\"", "\"rope_type\": \"linear\"", {"linear", "factor"});
    refused("\"rope_theta\": 10000.0", "\"rope_theta\": -1", {"rope_theta"});
    refused("\"rope_theta\": 10000.0", "\"rope_theta\": NaN", {"rope_theta"});
    refused("\"rope_theta\": 10000.0", "\"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.5",
            {"partial_rotary_factor"});
    refused("\"vocab_size\": 384", "\"vocab_size\": 384, \"quantization_config\": {}", {"quantised"});
    refused("\"eos_token_id\": 1", "\"eos_token_id\": \"end\"", {"eos_token_id"});
    refused("\"vocab_size\": 384", "\"vocab_size\": 384,,", {"config.json", "byte"});
    write("config.json", "[]");
    expect_error({"config.json", "object"});
    write("config.json", std::string(100000, '['));
    expect_error({"config.json", "deep"});
    write("config.json", good);
    expect_error({"float64", "bfloat16"}, "float64");
}

TEST_F(ModelFolder, DamagedSafetensorsAreRefused) {
    const std::string good = read("model.safetensors");
    for (const size_t size : {size_t{0}, size_t{7}, size_t{8}, size_t{500}, good.size() / 2, good.size() - 1}) {
        SCOPED_TRACE(size);
        write("model.safetensors", good.substr(0, size));
        expect_error({"model.safetensors", "truncated"});
    }
    write("model.safetensors", std::string(4096, '\xff'));
    expect_error({"model.safetensors", "header"});
    std::string broken = good;
    broken[8] = 'x';
    write("model.safetensors", broken);
    expect_error({"model.safetensors", "header"});
    const auto refused = [&](const std::string& from, const std::string& to, const std::vector<std::string>& words) {
        SCOPED_TRACE(to);
        write("model.safetensors", good);
        edit_header(from, to);
        expect_error(words);
    };
    const std::string lm_head = R"("lm_head.weight":{"dtype":"F32","shape":[384,64],"data_offsets":[0,98304]})";
    refused(lm_head, R"("lm_head.weight":{"dtype":"F32","shape":[384,65],"data_offsets":[0,98304]})",
            {"lm_head.weight", "does not fit"});
    refused(lm_head, R"("lm_head.weight":{"dtype":"F32","shape":[24576],"data_offsets":[0,98304]})",
            {"lm_head.weight", "[24576]", "[384, 64]"});
    refused(lm_head, R"("lm_head.weight":{"dtype":"I32","shape":[384,64],"data_offsets":[0,98304]})",
            {"lm_head.weight", "I32"});
    refused(lm_head, R"("lm_head.weight":{"dtype":"F32","shape":[-384,64],"data_offsets":[0,98304]})",
            {"lm_head.weight", "shape"});
    refused(lm_head, R"("lm_head.weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,98304]})",
            {"lm_head.weight", "large"});
    refused(lm_head, R"("lm_head.weight":{"dtype":"F32","shape":[384,64],"data_offsets":[98304,0]})",
            {"lm_head.weight", "data_offsets"});
    refused(lm_head, R"("lm_head.weight":{"dtype":"F32","shape":[384,64],"data_offsets":[99998304,99996608]})",
            {"lm_head.weight", "data_offsets"});
    refused(lm_head, R"("lm_head.weight":{"dtype":"F32","shape":[384,64],"data_offsets":[999900000,999998304]})",
            {"lm_head.weight", "truncated"});
    refused(lm_head, R"("lm_head.weight":7)", {"lm_head.weight", "dtype"});
    refused("\"lm_head.weight\"", "\"lm_head.bias\"", {"lm_head.weight", "missing"});
    refused("\"__metadata__\":{\"format\":\"pt\"}",
            R"("lm_head.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})", {"lm_head.bias", "not part of"});
}

TEST_F(ModelFolder, ShardsLoadAndDtypesMeanWhatVllmMeans) {
    const std::vector<float> expected = logits(), rounded = logits("bfloat16");
    // Two shards: one tensor moves to a file of its own.
    const std::string file = read("model.safetensors");
    uint64_t size = 0;
    std::memcpy(&size, file.data(), 8);
    const std::string header = file.substr(8, size), data = file.substr(8 + size);
    const std::string norm = "\"model.norm.weight\":";
    const size_t at = header.find(norm);
    ASSERT_NE(at, std::string::npos);
    size_t begin = 0, end = 0;
    ASSERT_EQ(std::sscanf(header.c_str() + header.find("offsets", at), "offsets\":[%zu,%zu]", &begin, &end), 2);
    std::string rest = header;
    rest.erase(at - 1, rest.find('}', at) + 2 - at);  // it is the last one; with the comma before it
    write_tensors("a.safetensors", rest, data);
    write_tensors("b.safetensors",
                  "{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[64],\"data_offsets\":[0,256]}}",
                  data.substr(begin, end - begin));
    fs::remove(path("model.safetensors"));
    std::string index = "{\"metadata\":{},\"weight_map\":{\"model.norm.weight\":\"b.safetensors\"";
    const Json parsed = Json::parse(rest);
    for (const auto& [name, entry] : *parsed.object()) {
        if (name != "__metadata__") index += ",\"" + name + "\":\"a.safetensors\"";
    }
    write("model.safetensors.index.json", index + "}}");
    EXPECT_EQ(logits(), expected);
    EXPECT_EQ(logits("float16"), rounded);  // stored as bfloat16
    EXPECT_EQ(logits("auto"), rounded);     // as vLLM: float32 checkpoints are stored narrow

    edit("model.safetensors.index.json", "\"b.safetensors\"", "\"c.safetensors\"");
    expect_error({"c.safetensors", "No such file"});
    edit("model.safetensors.index.json", "\"c.safetensors\"", "\"../b.safetensors\"");
    expect_error({"index.json", "model.norm.weight"});
    edit("model.safetensors.index.json", "\"../b.safetensors\"", "\"a.safetensors\"");
    expect_error({"a.safetensors", "model.norm.weight", "missing"});
}

// Converts all tensors of the fixture to a 16-bit type by dropping bits, and loads both forms.
TEST_F(ModelFolder, HalfPrecisionTensorsLoad) {
    const std::string file = read("model.safetensors");
    uint64_t size = 0;
    std::memcpy(&size, file.data(), 8);
    const Json header = Json::parse(std::string_view(file).substr(8, size));
    const std::string data = file.substr(8 + size);
    for (const std::string type : {"BF16", "F16"}) {
        std::string narrow_header = "{", narrow, wide_header = "{", wide;
        for (const auto& [name, entry] : *header.object()) {
            if (name == "__metadata__") continue;
            const Json::Array& offsets = *entry.find("data_offsets")->array();
            const auto begin = static_cast<size_t>(*offsets[0].integer()),
                       end = static_cast<size_t>(*offsets[1].integer());
            std::string shape;
            for (const Json& d : *entry.find("shape")->array()) {
                if (!shape.empty()) shape += ",";
                shape += std::to_string(*d.integer());
            }
            const size_t narrow_begin = narrow.size(), wide_begin = wide.size();
            for (size_t i = begin; i < end; i += 4) {
                uint32_t bits = 0;
                std::memcpy(&bits, data.data() + i, 4);
                uint16_t half = 0;
                if (type == "BF16") {
                    bits &= 0xffff0000u;
                    half = static_cast<uint16_t>(bits >> 16);
                } else {
                    // Values of about 2^-10 and up are normal float16 numbers; smaller ones become zero.
                    const int exponent = static_cast<int>(bits >> 23 & 0xff) - 112;
                    bits = exponent >= 1 ? bits & 0xffffe000u : bits & 0x80000000u;
                    half = static_cast<uint16_t>(bits >> 16 & 0x8000u);
                    if (exponent >= 1) half |= static_cast<uint16_t>(exponent << 10 | (bits >> 13 & 0x3ffu));
                }
                narrow.append(reinterpret_cast<const char*>(&half), 2);
                wide.append(reinterpret_cast<const char*>(&bits), 4);
            }
            const auto describe = [&](const std::string& dtype, size_t first, size_t last) {
                return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
                       std::to_string(first) + "," + std::to_string(last) + "]},";
            };
            narrow_header += describe(type, narrow_begin, narrow.size());
            wide_header += describe("F32", wide_begin, wide.size());
        }
        narrow_header.back() = wide_header.back() = '}';
        write_tensors("model.safetensors", wide_header, wide);
        const std::vector<float> expected = logits();
        write_tensors("model.safetensors", narrow_header, narrow);
        EXPECT_EQ(logits(), expected) << type;
        EXPECT_LE(relative_error(expected, read_reference("llama").prompts[2].logits), 0.05);
    }
}

TEST_F(ModelFolder, OlderSpellingsOfConfigsLoad) {
    const auto both = [&](const std::string& fixture, const std::string& from, const std::string& to) {
        use(fixture);
        std::vector<std::vector<float>> results;
        for (int i = 0; i < 2; ++i) {
            const auto model = load();
            results.push_back(Sequence(*model, 0).feed(read_reference(fixture).prompts[2].ids));
            if (i == 0) {
                std::string text = read("config.json");
                const size_t begin = text.find("\"rope_parameters\"");
                const size_t end = text.find('}', begin) + 1;
                ASSERT_NE(text.substr(begin, end - begin).find(from), std::string::npos);
                write("config.json", text.replace(begin, end - begin, to));
            }
        }
        EXPECT_EQ(results[1], results[0]) << fixture;
    };
    both("llama", "default", "\"rope_theta\": 10000.0, \"rope_scaling\": null");
    both("llama_linear_rope", "linear",
         "\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}");
    both(
        "llama3_rope", "llama3",
        "\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": "
        "1.0, \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 64}");
    both("llama_yarn", "yarn",
         "\"rope_theta\": 10000.0, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
         "\"original_max_position_embeddings\": 64}");
}

TEST_F(ModelFolder, InfoTellsWhatServingNeeds) {
    write("generation_config.json", "{\"eos_token_id\": [1, 5, 9]}");
    const auto model = load();
    EXPECT_EQ(model->info().architecture, "LlamaForCausalLM");
    EXPECT_EQ(model->info().dtype, "float32");
    EXPECT_EQ(model->info().vocab_size, 384);
    EXPECT_EQ(model->info().max_position, 512);
    EXPECT_EQ(model->info().num_layers, 3);
    EXPECT_EQ(model->info().eos_token_ids, (std::vector<int32_t>{1, 5, 9}));
    EXPECT_EQ(model->kv_bytes_per_block(), 3u * 2 * 2 * 16 * 16 * 4);  // layers, K and V, heads, tokens, dim, float
    EXPECT_GE(model->info().weight_bytes, 4u * (2 * 384 * 64 + 3 * (3 * 160 * 64 + 2 * 64 * 64 + 2 * 32 * 64)));
}

TEST_F(ModelFolder, ProgressRisesToOne) {
    std::vector<double> fractions;
    LoadOptions options;
    options.path = folder_;
    options.progress = [&](double fraction, const std::string& what) {
        EXPECT_FALSE(what.empty());
        fractions.push_back(fraction);
    };
    Model::load(options);
    ASSERT_GE(fractions.size(), 2u);
    EXPECT_TRUE(std::is_sorted(fractions.begin(), fractions.end()));
    EXPECT_EQ(fractions.back(), 1.0);
}

TEST_F(ModelFolder, SenselessOptionsAreRefused) {
    LoadOptions options;
    options.path = folder_;
    for (const int block_size : {0, -16, 8, 24, 1 << 20}) {
        options.block_size = block_size;
        EXPECT_THROW(Model::load(options), ModelError) << block_size;
    }
    options.block_size = 16;
    for (const char* name : {"BLAS_ENGINE_ISA", "BLAS_ENGINE_GEMM"}) {
        const ScopedEnvironment environment(name, "sse9");
        EXPECT_THROW(Model::load(options), ModelError) << name;
    }
}

TEST_F(ModelFolder, FlippedHeaderBytesNeverCrash) {
    const std::string good = read("model.safetensors");
    uint64_t size = 0;
    std::memcpy(&size, good.data(), 8);
    for (size_t at = 0; at < 8 + size; at += at < 8 ? 1 : 41) {
        for (const char flip : {'\x01', '\x10', '\x80'}) {
            std::string broken = good;
            broken[at] = static_cast<char>(broken[at] ^ flip);
            write("model.safetensors", broken);
            try {
                load();
            } catch (const ModelError&) {
            }
        }
    }
}

}  // namespace
}  // namespace blas_engine::testing
