// A reader for the small JSON documents of a model folder: config.json, safetensors headers and indexes.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace blas_engine {

struct JsonError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// An immutable JSON value. Object members keep their order; of duplicate keys the last one counts, as in Python.
class Json {
  public:
    using Array = std::vector<Json>;
    using Object = std::vector<std::pair<std::string, Json>>;

    // Throws JsonError with the byte offset: malformed text, nesting deeper than 64, trailing bytes.
    // Accepts NaN and Infinity, which Python's json writes.
    static Json parse(std::string_view text);

    bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
    bool is_object() const { return std::holds_alternative<Object>(value_); }
    const bool* boolean() const { return std::get_if<bool>(&value_); }
    const std::string* string() const { return std::get_if<std::string>(&value_); }
    const Array* array() const { return std::get_if<Array>(&value_); }
    const Object* object() const { return std::get_if<Object>(&value_); }
    std::optional<double> number() const;
    std::optional<int64_t> integer() const;  // also a whole floating point number, such as 1e6

    // Member of an object; null if this is no object, there is no such member, or its value is null.
    const Json* find(std::string_view key) const;

  private:
    friend class JsonParser;
    std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

}  // namespace blas_engine
