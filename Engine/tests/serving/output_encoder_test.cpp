// Our outputs against those that vLLM's engine sent for the same events, element by element.
#include "wire/output_encoder.h"

#include <gtest/gtest.h>

#include <cstring>

#include "captured.h"
#include "wire/handshake.h"
#include "wire/msgpack_reader.h"

namespace blas_engine {
namespace {

using testing::Bytes;
using testing::captured_output;
using testing::describe;
using testing::describe_elements;
using testing::elements;

// The first request of a captured message, as elements.
std::vector<std::string> captured_request(const std::string& name) {
    return describe_elements(elements(elements(captured_output(name).frames[0])[1])[0]);
}

OutputMessage encode(const Request& request, OutputLayout layout = output_layout(ProtocolFamily::v0_32)) {
    OutputMessage message;
    const Request* requests[] = {&request};
    StepOutputs outputs;
    outputs.requests = requests;
    outputs.timestamp = 1.5;
    outputs.weight_version = "default";
    OutputEncoder(layout, 0).encode(outputs, message);
    return message;
}

std::vector<std::string> encoded_request(const OutputMessage& message) {
    return describe_elements(elements(elements(message.frames[0])[1])[0]);
}

// Ours may end early; what is cut off must be absent in the original, too.
void expect_same(const std::vector<std::string>& ours, const std::vector<std::string>& captured) {
    ASSERT_LE(ours.size(), captured.size());
    for (size_t i = 0; i < captured.size(); ++i) {
        if (i < ours.size()) {
            bool zero_nans = i == 13 && captured[i] == "0" && ours[i] == "nil";
            if (!zero_nans) {
                EXPECT_EQ(ours[i], captured[i]) << "position " << i;
            }
        } else {
            EXPECT_TRUE(captured[i] == "nil" || captured[i] == "0") << "position " << i << ": " << captured[i];
        }
    }
    EXPECT_NE(ours.back(), "nil");
}

std::vector<RequestEvent> first_events(double queued, double scheduled) {
    return {{RequestEventType::queued, queued}, {RequestEventType::scheduled, scheduled}};
}

Request request_named(const std::string& id, std::vector<int32_t> new_tokens) {
    Request request;
    request.id = id;
    request.new_tokens = std::move(new_tokens);
    request.prefill_stats_sent = true;
    return request;
}

template <class T>
std::vector<T> from_bytes(const Bytes& bytes) {
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
}

Bytes extension_body(const Bytes& element) {
    MsgpackReader reader(element);
    auto extension = reader.extension();
    return {extension.data.begin(), extension.data.end()};
}

TEST(OutputEncoder, FirstTokenCarriesEventsAndPrefillStats) {
    Request request = request_named("greedy-1", {843});
    request.events = first_events(2239.060638296, 2239.060659478);
    request.prefill_stats_sent = false;
    request.prefill_stats = {7, 7, 0, 0};
    expect_same(encoded_request(encode(request)), captured_request("006"));
}

TEST(OutputEncoder, LaterTokensAreTwoElements) {
    Request request = request_named("greedy-1", {7416});
    auto ours = encoded_request(encode(request));
    EXPECT_EQ(ours.size(), 2u);
    expect_same(ours, captured_request("007"));
}

TEST(OutputEncoder, FinishAndStopReasons) {
    Request length = request_named("greedy-1", {1149});
    length.finish_reason = FinishReason::length;
    expect_same(encoded_request(encode(length)), captured_request("008"));

    Request repetition = request_named("rep", {400});
    repetition.finish_reason = FinishReason::repetition;
    expect_same(encoded_request(encode(repetition)), captured_request("088"));

    Request stop = request_named("stoptok", {400});
    stop.finish_reason = FinishReason::stop;
    stop.stop_token = 400;
    stop.prefill_stats_sent = false;
    stop.prefill_stats = {7, 7, 0, 0};
    stop.events = first_events(2246.604185155, 2246.604216782);
    auto captured = captured_request("053");
    EXPECT_EQ(captured[6], "400");
    expect_same(encoded_request(encode(stop)), captured);

    Request error = request_named("so-bad", {});
    error.finish_reason = FinishReason::error;
    error.events = {{RequestEventType::queued, 2251.022166053}};
    expect_same(encoded_request(encode(error)), captured_request("146"));
}

TEST(OutputEncoder, CachedPrefixAndTraceHeaders) {
    Request cached = request_named("pc-2", {1496});
    cached.finish_reason = FinishReason::length;
    cached.prefill_stats_sent = false;
    cached.prefill_stats = {300, 44, 256, 0};
    auto captured = captured_request("094");
    auto ours = encoded_request(encode(cached));
    EXPECT_EQ(ours[11], captured[11]);

    Request traced = request_named("tail", {843});
    traced.trace_headers = elements(elements(elements(captured_output("100").frames[0])[1])[0])[10];
    EXPECT_EQ(encoded_request(encode(traced))[10], captured_request("100")[10]);
}

TEST(OutputEncoder, LogprobsAreNumpyArrays) {
    auto captured = elements(elements(elements(captured_output("025").frames[0])[1])[0]);
    auto arrays = elements(captured[2]);
    Request request = request_named("lp-1", {843});
    request.new_logprobs.resize(1, 3);
    request.new_logprobs.token_ids = from_bytes<int32_t>(extension_body(elements(arrays[0])[2]));
    request.new_logprobs.logprobs = from_bytes<float>(extension_body(elements(arrays[1])[2]));
    request.new_logprobs.ranks = from_bytes<int64_t>(extension_body(elements(arrays[2])[2]));
    EXPECT_EQ(encoded_request(encode(request))[2], describe(captured[2]));
}

TEST(OutputEncoder, PromptLogprobsAreTensors) {
    auto captured = elements(elements(elements(captured_output("035").frames[0])[1])[0]);
    auto arrays = elements(captured[3]);
    Request request = request_named("plp-1", {843});
    request.prompt_logprobs_done = true;
    LogprobRows& rows = request.prompt_logprobs;
    rows.resize(6, 2);
    rows.token_ids = from_bytes<int32_t>(extension_body(elements(arrays[0])[2]));
    rows.logprobs = from_bytes<float>(extension_body(elements(arrays[1])[2]));
    auto ranks = from_bytes<int32_t>(extension_body(elements(arrays[2])[2]));
    rows.ranks.assign(ranks.begin(), ranks.end());
    EXPECT_EQ(encoded_request(encode(request))[3], describe(captured[3]));
    // Frontends up to 0.28 take four elements, not five.
    auto old = encode(request, output_layout(ProtocolFamily::v0_28));
    EXPECT_EQ(elements(elements(elements(elements(old.frames[0])[1])[0])[3]).size(), 4u);
}

TEST(OutputEncoder, LargeArraysBecomeFrames) {
    const auto& capture = captured_output("040");
    auto captured = elements(elements(elements(capture.frames[0])[1])[0]);
    Request request = request_named("plp-aux", {6739});
    request.prompt_logprobs_done = true;
    LogprobRows& rows = request.prompt_logprobs;
    rows.resize(39, 6);
    rows.token_ids = from_bytes<int32_t>(capture.frames[1]);
    rows.logprobs = from_bytes<float>(capture.frames[2]);
    auto ranks = from_bytes<int32_t>(extension_body(elements(elements(captured[3])[2])[2]));
    rows.ranks.assign(ranks.begin(), ranks.end());
    OutputMessage message = encode(request);
    ASSERT_EQ(message.frames.size(), 3u);
    EXPECT_EQ(message.frames[1], capture.frames[1]);
    EXPECT_EQ(message.frames[2], capture.frames[2]);
    EXPECT_EQ(encoded_request(message)[3], describe(captured[3]));
}

TEST(OutputEncoder, StatsHaveEveryKeyOfTheOriginal) {
    OutputMessage message;
    StepOutputs outputs;
    SchedulerStats stats;
    stats.num_running = 1;
    stats.kv_cache_usage = 0.00024420024420024333;
    stats.prefix_cache.requests = 1;
    stats.prefix_cache.queries = 7;
    outputs.stats = &stats;
    OutputEncoder(output_layout(ProtocolFamily::v0_32), 0).encode(outputs, message);
    auto ours = testing::describe_map(elements(message.frames[0])[2]);
    auto captured = testing::describe_map(elements(captured_output("006").frames[0])[2]);
    EXPECT_EQ(ours, captured);
}

TEST(OutputEncoder, EnvelopeIsNeverLongerThanTheFrontendReads) {
    Request request = request_named("r", {1});
    request.error = RequestError{"code", "text", true};
    request.finish_reason = FinishReason::error;
    request.num_nans_in_logits = 3;
    request.trace_headers = {0x80};
    const std::pair<ProtocolFamily, std::pair<size_t, size_t>> limits[] = {
        {ProtocolFamily::v0_22, {8, 13}}, {ProtocolFamily::v0_25, {8, 13}}, {ProtocolFamily::v0_28, {8, 16}},
        {ProtocolFamily::v0_30, {8, 17}}, {ProtocolFamily::v0_32, {9, 18}}, {ProtocolFamily::v0_33, {9, 19}}};
    for (const auto& [family, sizes] : limits) {
        OutputMessage message = encode(request, output_layout(family));
        EXPECT_LE(elements(message.frames[0]).size(), sizes.first);
        EXPECT_LE(encoded_request(message).size(), sizes.second);
    }
    EXPECT_LE(elements(encode(request, safe_output_layout()).frames[0]).size(), 8u);
    EXPECT_LE(encoded_request(encode(request, safe_output_layout())).size(), 16u);
}

TEST(OutputEncoder, FamiliesPlaceTheSameFieldDifferently) {
    Request request = request_named("r", {1});
    request.prefill_stats_sent = false;
    request.trace_headers = {0x80};
    request.num_nans_in_logits = 4;
    request.error = RequestError{"validation_error", "text", true};
    auto old = encoded_request(encode(request, output_layout(ProtocolFamily::v0_25)));
    EXPECT_EQ(old[9], "{}");
    EXPECT_EQ(old[12], "4");
    EXPECT_EQ(old[10].find("num_cache_creation_tokens"), std::string::npos);
    auto recent = encoded_request(encode(request, output_layout(ProtocolFamily::v0_28)));
    EXPECT_EQ(recent[10], "{}");
    EXPECT_EQ(recent[13], "4");
    EXPECT_NE(recent[11].find("num_cache_creation_tokens"), std::string::npos);
    auto newest = encoded_request(encode(request, output_layout(ProtocolFamily::v0_33)));
    ASSERT_EQ(newest.size(), 19u);
    EXPECT_EQ(newest[18], R"({"code":"validation_error","message":"text","retryable":true})");
}

TEST(OutputEncoder, UtilityAnswersMatchTheOriginals) {
    auto encode_utility = [](UtilityResult result) {
        OutputMessage message;
        StepOutputs outputs;
        outputs.utility = &result;
        outputs.weight_version = "default";
        OutputEncoder(output_layout(ProtocolFamily::v0_32), 0).encode(outputs, message);
        return describe_elements(message.frames[0]);
    };
    auto expect_utility = [&](const std::string& name, UtilityResult result) {
        auto ours = encode_utility(std::move(result));
        auto captured = describe_elements(captured_output(name).frames[0]);
        ASSERT_EQ(ours.size(), 5u);
        EXPECT_EQ(ours[1], "[]");
        EXPECT_EQ(ours[2], "nil");
        EXPECT_EQ(ours[4], captured[4]);
    };
    expect_utility("162", {{1}, {}, {0x91, 0xa8, 'g', 'e', 'n', 'e', 'r', 'a', 't', 'e'}});
    expect_utility("164", {{2}, {}, {0xc2}});
    expect_utility("168", {{4}, {}, {}});
    expect_utility("189", {{13},
                           "Call to no_such_method method failed: 'EngineCoreProc' object has no attribute "
                           "'no_such_method'",
                           {}});
}

TEST(OutputEncoder, AbortOnShutdownNamesFinishedRequests) {
    Request request = request_named("term-1", {});
    request.finish_reason = FinishReason::abort;
    const Request* requests[] = {&request};
    const std::string finished[] = {"term-1"};
    StepOutputs outputs;
    outputs.requests = requests;
    outputs.finished = finished;
    OutputMessage message;
    OutputEncoder(safe_output_layout(), 0).encode(outputs, message);
    auto ours = describe_elements(message.frames[0]);
    auto captured = describe_elements(captured_output("229").frames[0]);
    ASSERT_EQ(ours.size(), 6u);
    EXPECT_EQ(ours[2], captured[2]);
    EXPECT_EQ(ours[4], captured[4]);
    EXPECT_EQ(ours[5], captured[5]);
    expect_same(encoded_request(message), captured_request("229"));
}

TEST(ReadyResponse, HasEveryKeyOfTheOriginal) {
    ReadyResponse ready;
    ready.max_model_len = 2048;
    ready.num_blocks = 4096;
    ready.block_size = 128;
    ready.dtype = "bfloat16";
    ready.vllm_version = "0.32.0";
    ready.max_num_seqs = 128;
    ready.max_num_batched_tokens = 2048;
    ready.instance_id = "1795220158344557796";
    auto ours = testing::describe_map(encode_ready_response(ready));
    auto captured = testing::describe_map(captured_output("004").frames[0]);
    captured["enable_sleep_mode"] = "true";  // ours always can
    for (const auto& [key, value] : captured) EXPECT_EQ(ours[key], value) << key;
}

TEST(Handshake, ReadsACapturedInit) {
    EngineAddresses addresses = decode_init(captured_output("002").frames[0]);
    ASSERT_EQ(addresses.inputs.size(), 1u);
    EXPECT_TRUE(addresses.inputs[0].starts_with("tcp://127.0.0.1:"));
    EXPECT_TRUE(addresses.outputs[0].starts_with("tcp://127.0.0.1:"));
    EXPECT_TRUE(addresses.coordinator_input.empty());
    EXPECT_THROW(decode_init(Bytes{0x80}), MsgpackError);
    EXPECT_THROW(decode_init(Bytes{0x90}), MsgpackError);
    EXPECT_EQ(engine_identity(0x0102), (Bytes{0x02, 0x01}));
}

}  // namespace
}  // namespace blas_engine
