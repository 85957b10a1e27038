#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "core/engine_process.h"
#include "core/options.h"

// In place of standard descriptors that are closed: otherwise the first sockets would get their numbers, and their
// peers the log.
static void open_standard_descriptors() {
    int descriptor;
    do descriptor = open("/dev/null", O_RDWR);
    while (descriptor >= 0 && descriptor <= STDERR_FILENO);
    if (descriptor > STDERR_FILENO) close(descriptor);
}

int main(int argc, char** argv) {
    using namespace blas_engine;
    open_standard_descriptors();
    EngineOptions options;
    try {
        switch (parse_options(std::vector<std::string>(argv + 1, argv + argc), options)) {
            case OptionsAction::help:
                std::fputs(help_text().c_str(), stdout);
                return 0;
            case OptionsAction::version:
                std::fputs(version_text().c_str(), stdout);
                return 0;
            case OptionsAction::run:
                break;
        }
    } catch (const OptionsError& error) {
        std::fprintf(stderr, "blas-engine: %s\n", error.what());
        return 2;
    }
    return run_engine(options);
}
