#include "core/options.h"

#include <gtest/gtest.h>

#include "core/kv_sizing.h"

namespace blas_engine {
namespace {

EngineOptions parse(std::vector<std::string> arguments) {
    EngineOptions options;
    arguments.insert(arguments.begin(), {"--model", "mock", "--handshake-address", "tcp://127.0.0.1:1"});
    EXPECT_EQ(parse_options(arguments, options), OptionsAction::run);
    return options;
}

std::string error_of(const std::vector<std::string>& arguments) {
    EngineOptions options;
    try {
        parse_options(arguments, options);
    } catch (const OptionsError& error) {
        return error.what();
    }
    return "";
}

TEST(Options, ReadsVllmsSpellings) {
    EngineOptions options = parse({"--max-model-len=4K", "--max_num_seqs", "7", "--kv-cache-memory-bytes", "1.5g",
                                   "--protocol-version", "v0.33.1", "--scheduling-policy", "priority",
                                   "--no-enable-prefix-caching", "--local", "--seed", "-3", "--engine-index", "258"});
    EXPECT_EQ(options.max_model_len, 4096);
    EXPECT_EQ(options.max_num_seqs, 7);
    EXPECT_EQ(options.kv_cache_bytes, 1500000000);
    EXPECT_EQ(options.protocol, ProtocolFamily::v0_33);
    EXPECT_TRUE(options.priority_scheduling);
    EXPECT_FALSE(options.prefix_caching);
    EXPECT_TRUE(options.local);
    EXPECT_FALSE(options.headless);
    EXPECT_EQ(options.engine_index, 258);
    EXPECT_TRUE(parse({}).headless);
    EXPECT_FALSE(parse({"--no-headless"}).headless);
    EXPECT_EQ(parse({"--mock-fault", "die-after-tokens=3", "--mock-fault", "error-request=2"}).mock.faults.size(), 2u);
}

TEST(Options, NamesTheNearestKnownOption) {
    EXPECT_NE(error_of({"--max-modle-len", "5"}).find("did you mean --max-model-len?"), std::string::npos);
    EXPECT_NE(error_of({"--thread=5"}).find("did you mean --threads?"), std::string::npos);
}

TEST(Options, RefusesBadValues) {
    const std::vector<std::string> joined = {"--model", "mock", "--handshake-address", "tcp://h:1"};
    for (const std::vector<std::string>& bad :
         std::vector<std::vector<std::string>>{{"--threads", "x"},
                                               {"--threads", "-1"},
                                               {"--threads"},
                                               {"--max-num-seqs", "0"},
                                               {"--max-model-len", "1e9"},
                                               {"--block-size", "99999999999999999999"},
                                               {"--engine-index", "70000"},
                                               {"--dtype", "int4"},
                                               {"--protocol-version", "0.31"},
                                               {"--protocol-version", "0.33.x"},
                                               {"--scheduling-policy", "random"},
                                               {"--shutdown-timeout", "-1"},
                                               {"--log-level", "loud"},
                                               {"--mock-fault", "explode"},
                                               {"--mock-fault", "die-after-tokens=0"},
                                               {"--mock-fault", "stall-after-tokens=5"},
                                               {"--mock-fault", "die-after-requests=5:1"},
                                               {"--mock-ttft-ms", "normal:5"},
                                               {"--mock-pace", "fast"},
                                               {"--local=yes"},
                                               {"--handshake-address", "inproc://x"},
                                               {"--mock-vocab-size", "8", "--mock-first-token", "8"},
                                               {"stray"}}) {
        std::vector<std::string> arguments = joined;
        arguments.insert(arguments.end(), bad.begin(), bad.end());
        EXPECT_NE(error_of(arguments), "") << bad[0];
    }
    EXPECT_NE(error_of({"--model", "mock"}).find("--handshake-address"), std::string::npos);
    EXPECT_NE(error_of({"--handshake-address", "tcp://h:1"}).find("--model"), std::string::npos);
}

TEST(Options, HelpExplainsEveryOption) {
    std::string help = help_text();
    for (const char* name : {"--model", "--max-model-len", "--kv-cache-memory", "--mock-fault", "--death-fd"}) {
        EXPECT_NE(help.find(name), std::string::npos);
    }
}

TEST(KvSizing, FitsTheCacheToMemoryAndTheContextToTheCache) {
    KvRequest request;
    request.bytes_per_block = 1 << 20;
    request.block_size = 16;
    request.model_max_len = 4096;
    request.max_num_seqs = 4;
    request.available_bytes = int64_t{64} << 30;
    request.memory_bytes = int64_t{64} << 30;
    EXPECT_EQ(size_kv_cache(request).num_blocks, 4 * 256);  // no more than is useful
    EXPECT_EQ(size_kv_cache(request).max_model_len, 4096);
    request.available_bytes = 250 << 20;  // 100 blocks of it
    EXPECT_EQ(size_kv_cache(request).num_blocks, 100);
    EXPECT_EQ(size_kv_cache(request).max_model_len, 1600);
    request.wanted_bytes = 10 << 20;
    EXPECT_EQ(size_kv_cache(request).num_blocks, 10);
    request.wanted_blocks = 3;
    EXPECT_EQ(size_kv_cache(request).num_blocks, 3);
    request.wanted_max_len = 49;  // one more than three blocks hold
    EXPECT_THROW(size_kv_cache(request), KvSizingError);
    request.wanted_max_len = 5000;
    EXPECT_THROW(size_kv_cache(request), KvSizingError);
    request.wanted_max_len = 0;
    request.wanted_blocks = 65536;  // all of the memory
    EXPECT_EQ(size_kv_cache(request).num_blocks, 65536);
    request.wanted_blocks = 65537;
    EXPECT_THROW(size_kv_cache(request), KvSizingError);
}

}  // namespace
}  // namespace blas_engine
