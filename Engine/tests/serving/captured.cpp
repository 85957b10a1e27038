#include "captured.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "wire/msgpack_reader.h"

namespace blas_engine::testing {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::stringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
    return parts;
}

Bytes from_hex(const std::string& hex) {
    Bytes bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    return bytes;
}

std::string to_hex(std::span<const uint8_t> bytes) {
    std::string text;
    char digits[3];
    for (uint8_t byte : bytes) {
        std::snprintf(digits, sizeof digits, "%02x", byte);
        text += digits;
    }
    return text;
}

std::vector<Captured> read_file(const std::string& name, size_t frame_columns) {
    std::ifstream file(std::string(ENGINE_TEST_DATA) + "/" + name);
    if (!file) throw std::runtime_error("cannot read " + name);
    std::vector<Captured> all;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with('#')) continue;
        std::vector<std::string> columns = split(line, '\t');
        Captured captured{columns.at(0), columns.at(1), {}, {}};
        size_t end = frame_columns ? 2 + frame_columns : columns.size();
        for (size_t i = 2; i < end; ++i) captured.frames.push_back(from_hex(columns.at(i)));
        if (end < columns.size()) {
            for (const std::string& fact : split(columns[end], ';')) {
                size_t equals = fact.find('=');
                captured.facts[fact.substr(0, equals)] = fact.substr(equals + 1);
            }
        }
        all.push_back(std::move(captured));
    }
    return all;
}

std::string describe_next(MsgpackReader& reader) {
    switch (reader.peek()) {
        case MsgpackReader::Kind::nil:
            reader.skip();
            return "nil";
        case MsgpackReader::Kind::boolean:
            return reader.boolean() ? "true" : "false";
        case MsgpackReader::Kind::integer: {
            // 64-bit call ids do not fit a signed integer.
            MsgpackReader copy = reader;
            if (copy.skip()[0] == 0xcf) return std::to_string(reader.unsigned_integer());
            return std::to_string(reader.integer());
        }
        case MsgpackReader::Kind::floating: {
            char text[40];
            std::snprintf(text, sizeof text, "%.17g.", reader.number());
            return text;
        }
        case MsgpackReader::Kind::string:
            return "\"" + std::string(reader.string()) + "\"";
        case MsgpackReader::Kind::binary:
            return "bin(" + to_hex(reader.skip()) + ")";
        case MsgpackReader::Kind::extension: {
            auto extension = reader.extension();
            return "ext(" + std::to_string(extension.type) + "," + to_hex(extension.data) + ")";
        }
        case MsgpackReader::Kind::array: {
            std::string text = "[";
            size_t count = reader.array_size();
            for (size_t i = 0; i < count; ++i) text += (i ? "," : "") + describe_next(reader);
            return text + "]";
        }
        case MsgpackReader::Kind::map: {
            std::vector<std::string> entries;
            size_t count = reader.map_size();
            for (size_t i = 0; i < count; ++i) {
                std::string key = describe_next(reader);
                entries.push_back(key + ":" + describe_next(reader));
            }
            std::sort(entries.begin(), entries.end());
            std::string text = "{";
            for (size_t i = 0; i < count; ++i) text += (i ? "," : "") + entries[i];
            return text + "}";
        }
    }
    throw std::logic_error("unreachable");
}

}  // namespace

const std::vector<Captured>& captured_requests() {
    static const std::vector<Captured> all = read_file("captured_requests.txt", 2);
    return all;
}

const Captured& captured_output(const std::string& name_prefix) {
    static const std::vector<Captured> all = read_file("captured_outputs.txt", 0);
    auto found = std::find_if(all.begin(), all.end(), [&](const auto& c) { return c.name.starts_with(name_prefix); });
    if (found == all.end()) throw std::runtime_error("no captured output " + name_prefix);
    return *found;
}

std::string describe(std::span<const uint8_t> bytes) {
    MsgpackReader reader(bytes);
    std::string text = describe_next(reader);
    if (!reader.at_end()) throw std::runtime_error("bytes after the value");
    return text;
}

std::vector<Bytes> elements(std::span<const uint8_t> array) {
    MsgpackReader reader(array);
    std::vector<Bytes> all(reader.array_size());
    for (Bytes& element : all) {
        auto raw = reader.skip();
        element.assign(raw.begin(), raw.end());
    }
    if (!reader.at_end()) throw std::runtime_error("bytes after the array");
    return all;
}

std::vector<std::string> describe_elements(std::span<const uint8_t> array) {
    std::vector<std::string> all;
    for (const Bytes& element : elements(array)) all.push_back(describe(element));
    return all;
}

std::map<std::string, std::string> describe_map(std::span<const uint8_t> map) {
    MsgpackReader reader(map);
    std::map<std::string, std::string> all;
    size_t count = reader.map_size();
    for (size_t i = 0; i < count; ++i) {
        std::string key(reader.string());
        all[key] = describe(reader.skip());
    }
    return all;
}

}  // namespace blas_engine::testing
