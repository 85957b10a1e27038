#include "json/json.h"

#include <charconv>
#include <cmath>
#include <limits>

namespace blas_engine {

class JsonParser {
  public:
    explicit JsonParser(std::string_view text) : text_(text) {}

    Json document() {
        Json value = parse_value(0);
        skip_space();
        if (at_ != text_.size()) fail("unexpected text after the document");
        return value;
    }

  private:
    static constexpr int max_depth = 64;

    [[noreturn]] void fail(const char* what) const {
        throw JsonError(std::string(what) + " at byte " + std::to_string(at_));
    }

    void skip_space() {
        while (at_ < text_.size() &&
               (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
            ++at_;
    }

    bool take(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    Json parse_value(int depth) {
        if (depth > max_depth) fail("nested too deeply");
        skip_space();
        Json out;
        if (at_ == text_.size()) fail("unexpected end");
        switch (text_[at_]) {
            case '{':
                out.value_ = parse_object(depth);
                return out;
            case '[':
                out.value_ = parse_array(depth);
                return out;
            case '"':
                out.value_ = parse_string();
                return out;
            default:
                break;
        }
        if (take("null")) return out;
        if (take("true")) {
            out.value_ = true;
        } else if (take("false")) {
            out.value_ = false;
        } else if (take("NaN")) {
            out.value_ = std::numeric_limits<double>::quiet_NaN();
        } else if (take("Infinity")) {
            out.value_ = std::numeric_limits<double>::infinity();
        } else if (take("-Infinity")) {
            out.value_ = -std::numeric_limits<double>::infinity();
        } else {
            parse_number(out);
        }
        return out;
    }

    Json::Object parse_object(int depth) {
        Json::Object members;
        ++at_;
        skip_space();
        if (take("}")) return members;
        for (;;) {
            skip_space();
            if (at_ == text_.size() || text_[at_] != '"') fail("expected a key");
            std::string key = parse_string();
            skip_space();
            if (!take(":")) fail("expected ':'");
            members.emplace_back(std::move(key), parse_value(depth + 1));
            skip_space();
            if (take("}")) return members;
            if (!take(",")) fail("expected ',' or '}'");
        }
    }

    Json::Array parse_array(int depth) {
        Json::Array items;
        ++at_;
        skip_space();
        if (take("]")) return items;
        for (;;) {
            items.push_back(parse_value(depth + 1));
            skip_space();
            if (take("]")) return items;
            if (!take(",")) fail("expected ',' or ']'");
        }
    }

    uint32_t parse_hex() {
        uint32_t code = 0;
        if (text_.size() - at_ < 4) fail("bad \\u escape");
        const char* begin = text_.data() + at_;
        if (std::from_chars(begin, begin + 4, code, 16).ptr != begin + 4) fail("bad \\u escape");
        at_ += 4;
        return code;
    }

    void append_utf8(std::string& out, uint32_t code) {
        const auto byte = [&](uint32_t value) { out.push_back(static_cast<char>(value)); };
        if (code < 0x80) {
            byte(code);
        } else if (code < 0x800) {
            byte(0xc0 | code >> 6);
            byte(0x80 | (code & 0x3f));
        } else if (code < 0x10000) {
            byte(0xe0 | code >> 12);
            byte(0x80 | (code >> 6 & 0x3f));
            byte(0x80 | (code & 0x3f));
        } else {
            byte(0xf0 | code >> 18);
            byte(0x80 | (code >> 12 & 0x3f));
            byte(0x80 | (code >> 6 & 0x3f));
            byte(0x80 | (code & 0x3f));
        }
    }

    void parse_escape(std::string& out) {
        if (at_ == text_.size()) fail("unterminated string");
        switch (const char c = text_[at_++]) {
            case '"':
            case '\\':
            case '/':
                out.push_back(c);
                return;
            case 'b':
                out.push_back('\b');
                return;
            case 'f':
                out.push_back('\f');
                return;
            case 'n':
                out.push_back('\n');
                return;
            case 'r':
                out.push_back('\r');
                return;
            case 't':
                out.push_back('\t');
                return;
            case 'u':
                break;
            default:
                fail("unknown escape");
        }
        uint32_t code = parse_hex();
        if (code >= 0xd800 && code < 0xdc00 && take("\\u")) {
            const uint32_t low = parse_hex();
            if (low < 0xdc00 || low > 0xdfff) fail("unpaired surrogate");
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        } else if (code >= 0xd800 && code <= 0xdfff) {
            fail("unpaired surrogate");
        }
        append_utf8(out, code);
    }

    std::string parse_string() {
        std::string out;
        ++at_;
        for (;;) {
            if (at_ == text_.size()) fail("unterminated string");
            const char c = text_[at_++];
            if (c == '"') return out;
            if (c == '\\') {
                parse_escape(out);
            } else if (static_cast<unsigned char>(c) < 0x20) {
                fail("control character in a string");
            } else {
                out.push_back(c);
            }
        }
    }

    void parse_number(Json& out) {
        const char* begin = text_.data() + at_;
        const char* end = text_.data() + text_.size();
        const char* stop = begin;
        while (stop != end && (*stop == '-' || *stop == '+' || *stop == '.' || *stop == 'e' || *stop == 'E' ||
                               (*stop >= '0' && *stop <= '9')))
            ++stop;
        int64_t whole = 0;
        double real = 0;
        if (stop == begin) fail("unexpected character");
        if (auto r = std::from_chars(begin, stop, whole); r.ec == std::errc() && r.ptr == stop) {
            out.value_ = whole;
        } else if (auto d = std::from_chars(begin, stop, real); d.ec == std::errc() && d.ptr == stop) {
            out.value_ = real;
        } else {
            fail("bad number");
        }
        at_ += static_cast<size_t>(stop - begin);
    }

    std::string_view text_;
    size_t at_ = 0;
};

Json Json::parse(std::string_view text) { return JsonParser(text).document(); }

std::optional<double> Json::number() const {
    if (const auto* whole = std::get_if<int64_t>(&value_)) return static_cast<double>(*whole);
    if (const auto* real = std::get_if<double>(&value_)) return *real;
    return std::nullopt;
}

std::optional<int64_t> Json::integer() const {
    if (const auto* whole = std::get_if<int64_t>(&value_)) return *whole;
    if (const auto* real = std::get_if<double>(&value_)) {
        if (std::trunc(*real) == *real && std::abs(*real) < 0x1p53) return static_cast<int64_t>(*real);
    }
    return std::nullopt;
}

const Json* Json::find(std::string_view key) const {
    const auto* members = object();
    if (members == nullptr) return nullptr;
    for (auto member = members->rbegin(); member != members->rend(); ++member) {
        if (member->first == key) return member->second.is_null() ? nullptr : &member->second;
    }
    return nullptr;
}

}  // namespace blas_engine
