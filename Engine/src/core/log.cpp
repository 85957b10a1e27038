#include "core/log.h"

#include <strings.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>

namespace blas_engine {
namespace {

std::atomic<LogLevel> threshold{LogLevel::info};

const char* level_name(LogLevel level) {
    switch (level) {
        case LogLevel::debug:
            return "DEBUG";
        case LogLevel::info:
            return "INFO";
        case LogLevel::warning:
            return "WARNING";
        case LogLevel::error:
            return "ERROR";
    }
    return "?";
}

}  // namespace

void set_log_level(LogLevel level) { threshold = level; }

std::optional<LogLevel> parse_log_level(std::string_view text) {
    constexpr struct {
        std::string_view name;
        LogLevel level;
    } names[] = {{"debug", LogLevel::debug},     {"trace", LogLevel::debug},  {"info", LogLevel::info},
                 {"warning", LogLevel::warning}, {"warn", LogLevel::warning}, {"error", LogLevel::error},
                 {"critical", LogLevel::error}};
    for (const auto& entry : names) {
        if (entry.name.size() == text.size() && strncasecmp(entry.name.data(), text.data(), text.size()) == 0) {
            return entry.level;
        }
    }
    return std::nullopt;
}

void log(LogLevel level, const char* format, ...) {
    if (level < threshold) return;
    char line[2048];
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    tm local;
    localtime_r(&now.tv_sec, &local);
    int prefix =
        std::snprintf(line, sizeof line, "(EngineCore pid=%d) %s %02d-%02d %02d:%02d:%02d ", getpid(),
                      level_name(level), local.tm_mon + 1, local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec);
    va_list arguments;
    va_start(arguments, format);
    // One byte stays free for the newline.
    int text = std::vsnprintf(line + prefix, sizeof line - 1 - static_cast<size_t>(prefix), format, arguments);
    va_end(arguments);
    size_t size = std::min(static_cast<size_t>(prefix + std::max(text, 0)), sizeof line - 2);
    std::replace_if(
        line, line + size, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }, ' ');
    line[size++] = '\n';
    // A single write keeps lines of different threads and processes whole.
    [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line, size);
}

}  // namespace blas_engine
