#include "mock/words.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>

#include "json/json.h"

namespace blas_engine {
namespace {

constexpr uintmax_t max_bytes = uintmax_t{256} << 20;

// Byte-level vocabularies write the space before a word as U+0120, SentencePiece ones as U+2581.
bool is_word(std::string_view token) {
    for (std::string_view space : {"\xc4\xa0", "\xe2\x96\x81"}) {
        if (!token.starts_with(space)) continue;
        token.remove_prefix(space.size());
        return token.size() >= 2 && std::all_of(token.begin(), token.end(), [](char c) {
                   return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
               });
    }
    return false;
}

std::string read_file(const std::filesystem::path& path) {
    std::error_code error;
    const uintmax_t size = std::filesystem::file_size(path, error);
    if (error || size > max_bytes) throw std::runtime_error("cannot read it, or it is larger than 256 MiB");
    std::ifstream file(path, std::ios::binary);
    std::string text(static_cast<size_t>(size), '\0');
    if (!file.read(text.data(), static_cast<std::streamsize>(size))) throw std::runtime_error("cannot read it");
    return text;
}

std::vector<int32_t> find_words(const Json& tokenizer, int vocab_size) {
    const Json* model = tokenizer.find("model");
    const Json* vocab = model != nullptr ? model->find("vocab") : nullptr;
    if (vocab == nullptr) throw std::runtime_error("it has no model.vocab");
    std::set<int64_t> added;
    if (const Json* list = tokenizer.find("added_tokens"); list != nullptr && list->array() != nullptr) {
        for (const Json& token : *list->array()) {
            const Json* id = token.find("id");
            if (id != nullptr && id->integer()) added.insert(*id->integer());
        }
    }
    std::vector<int32_t> ids;
    const auto consider = [&](std::string_view token, std::optional<int64_t> id) {
        if (!id || !is_word(token) || added.contains(*id)) return;
        if (*id < 0 || *id >= vocab_size) {
            throw std::runtime_error("its token " + std::to_string(*id) + " is not below --mock-vocab-size " +
                                     std::to_string(vocab_size));
        }
        ids.push_back(static_cast<int32_t>(*id));
    };
    if (vocab->object() != nullptr) {  // BPE: token to id
        for (const auto& [token, id] : *vocab->object()) consider(token, id.integer());
    } else if (vocab->array() != nullptr) {  // Unigram: [token, score] in the order of ids
        int64_t id = 0;
        for (const Json& entry : *vocab->array()) {
            const Json::Array* pair = entry.array();
            if (pair != nullptr && !pair->empty() && (*pair)[0].string() != nullptr) consider(*(*pair)[0].string(), id);
            ++id;
        }
    }
    if (ids.empty()) throw std::runtime_error("it has no tokens that are words");
    std::sort(ids.begin(), ids.end());
    return ids;
}

}  // namespace

std::vector<int32_t> read_word_ids(const std::string& path, int vocab_size) {
    std::filesystem::path file = path;
    std::error_code ignored;
    if (std::filesystem::is_directory(file, ignored)) file /= "tokenizer.json";
    try {
        return find_words(Json::parse(read_file(file)), vocab_size);
    } catch (const std::exception& error) {
        throw std::runtime_error("--mock-words " + file.string() + ": " + error.what());
    }
}

}  // namespace blas_engine
