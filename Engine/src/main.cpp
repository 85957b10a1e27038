#include <cstdio>
#include <string>
#include <vector>

#include "core/engine_process.h"
#include "core/options.h"

int main(int argc, char** argv) {
    using namespace blas_engine;
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
