// One line per event on stderr: `(EngineCore pid=P) LEVEL MM-DD HH:MM:SS text`.
#pragma once

#include <optional>
#include <string_view>

namespace blas_engine {

enum class LogLevel { debug, info, warning, error };

void set_log_level(LogLevel level);
// Case-insensitive; also knows the names Python and the shell use ("warn", "critical").
std::optional<LogLevel> parse_log_level(std::string_view text);

// printf-style; control characters in the text are replaced, so untrusted input cannot forge lines. Thread-safe.
void log(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace blas_engine
