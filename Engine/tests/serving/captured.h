// Messages captured from real vLLM processes, and a readable form of msgpack to compare them by.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace blas_engine::testing {

using Bytes = std::vector<uint8_t>;

struct Captured {
    std::string name;
    std::string kind;
    std::vector<Bytes> frames;
    std::map<std::string, std::string> facts;  // of the capture's decoded view; only for requests
};

// tests/data/captured_requests.txt: what frontends sent, with facts read from it by another msgpack implementation.
const std::vector<Captured>& captured_requests();
// tests/data/captured_outputs.txt: what vLLM's engine sent.
const Captured& captured_output(const std::string& name_prefix);

// JSON-like text of one msgpack value: map entries sorted, extensions as ext(type, hex).
std::string describe(std::span<const uint8_t> bytes);
// The elements of an array, described.
std::vector<std::string> describe_elements(std::span<const uint8_t> array);
// The raw elements of an array.
std::vector<Bytes> elements(std::span<const uint8_t> array);
// The entries of a map with text keys, described.
std::map<std::string, std::string> describe_map(std::span<const uint8_t> map);

}  // namespace blas_engine::testing
