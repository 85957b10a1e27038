// Token ids that read as words, for mock answers that look like text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace blas_engine {

// Ids of a Hugging Face tokenizer.json (the file or its folder) that decode to a space and ASCII letters, ascending;
// special and added tokens are left out. Throws std::runtime_error: unreadable or malformed file, no such tokens, ids
// at or above `vocab_size`.
std::vector<int32_t> read_word_ids(const std::string& path, int vocab_size);

}  // namespace blas_engine
