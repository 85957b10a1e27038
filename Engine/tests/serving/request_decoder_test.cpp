#include "wire/request_decoder.h"

#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "captured.h"
#include "core/request_validation.h"
#include "wire/msgpack_writer.h"

namespace blas_engine {
namespace {

using testing::Bytes;
using testing::Captured;

DecodedMessage decode(const std::vector<Bytes>& frames, int client_index = 0, int num_clients = 1) {
    std::vector<std::span<const uint8_t>> views(frames.begin(), frames.end());
    return decode_message(views, client_index, num_clients);
}

template <class T>
std::string join(const std::vector<T>& values, const char* separator = ",") {
    std::ostringstream text;
    for (size_t i = 0; i < values.size(); ++i) text << (i ? separator : "") << values[i];
    return text.str();
}

std::string number_or_none(const std::optional<int64_t>& value) { return value ? std::to_string(*value) : "none"; }

void expect_number(const Captured& captured, const char* key, double value) {
    EXPECT_DOUBLE_EQ(std::stod(captured.facts.at(key)), value) << key;
}

void check_add(const Captured& captured, const Request& request) {
    const auto& facts = captured.facts;
    const SamplingParams& p = request.params;
    EXPECT_EQ(request.id, facts.at("id"));
    EXPECT_EQ(join(request.tokens), facts.at("prompt"));
    EXPECT_EQ(request.prompt_length, request.num_tokens());
    EXPECT_EQ(request.cache_salt, facts.at("salt"));
    EXPECT_EQ(std::to_string(request.client_index), facts.at("client_index"));
    EXPECT_EQ(std::to_string(request.priority), facts.at("priority"));
    EXPECT_EQ(request.abort_immediately, facts.at("abort_immediately") == "1");
    expect_number(captured, "arrival", request.arrival_time);
    expect_number(captured, "temperature", p.temperature);
    expect_number(captured, "top_p", p.top_p);
    expect_number(captured, "min_p", p.min_p);
    expect_number(captured, "repetition_penalty", p.repetition_penalty);
    expect_number(captured, "presence_penalty", p.presence_penalty);
    expect_number(captured, "frequency_penalty", p.frequency_penalty);
    EXPECT_EQ(std::to_string(p.top_k), facts.at("top_k"));
    EXPECT_EQ(std::to_string(p.min_tokens), facts.at("min_tokens"));
    EXPECT_EQ(number_or_none(p.seed), facts.at("seed"));
    EXPECT_EQ(number_or_none(p.max_tokens), facts.at("max_tokens"));
    EXPECT_EQ(number_or_none(p.logprobs), facts.at("logprobs"));
    EXPECT_EQ(number_or_none(p.prompt_logprobs), facts.at("prompt_logprobs"));
    EXPECT_EQ(number_or_none(p.eos_token_id), facts.at("_eos_token_id"));
    EXPECT_EQ(join(p.stop_token_ids), facts.at("stop_token_ids"));
    EXPECT_EQ(join(p.all_stop_token_ids), facts.at("_all_stop_token_ids"));
    EXPECT_EQ(join(p.allowed_token_ids), facts.at("allowed_token_ids"));
    std::vector<std::string> words;
    for (const auto& word : p.bad_words) words.push_back(join(word));
    EXPECT_EQ(join(words, "|"), facts.at("bad_words"));
    std::ostringstream bias;
    for (const auto& [id, value] : p.logit_bias) {
        bias << (bias.tellp() > 0 ? "," : "") << id << ":" << value << (value == static_cast<int>(value) ? ".0" : "");
    }
    EXPECT_EQ(bias.str(), facts.at("logit_bias"));
    EXPECT_EQ(p.unsupported.starts_with("structured_outputs"), facts.at("structured") == "1");
}

TEST(RequestDecoder, ReadsEveryCapturedMessage) {
    int adds = 0, aborts = 0, utilities = 0;
    for (const Captured& captured : testing::captured_requests()) {
        SCOPED_TRACE(captured.name);
        DecodedMessage decoded = decode(captured.frames);
        if (captured.kind == "ADD") {
            ASSERT_TRUE(std::holds_alternative<AddMessage>(decoded));
            check_add(captured, *std::get<AddMessage>(decoded).request);
            ++adds;
        } else if (captured.kind == "ABORT") {
            ASSERT_TRUE(std::holds_alternative<AbortMessage>(decoded));
            EXPECT_EQ(join(std::get<AbortMessage>(decoded).ids), captured.facts.at("ids"));
            ++aborts;
        } else {
            ASSERT_TRUE(std::holds_alternative<UtilityMessage>(decoded));
            const auto& utility = std::get<UtilityMessage>(decoded);
            EXPECT_EQ(utility.method, captured.facts.at("method"));
            EXPECT_EQ(testing::describe(utility.call_id), captured.facts.at("call_id"));
            ++utilities;
        }
    }
    EXPECT_GE(adds, 100);
    EXPECT_GE(aborts, 3);
    EXPECT_GE(utilities, 40);
}

// An ADD of nine elements, the last of which is data_parallel_rank.
Bytes small_add(const std::function<void(MsgpackWriter&)>& prompt, const std::function<void(MsgpackWriter&)>& sampling,
                size_t count = 9) {
    Bytes out;
    MsgpackWriter writer(out);
    writer.array(count);
    writer.string("r");
    prompt(writer);
    writer.nil();
    sampling(writer);
    for (size_t i = 4; i < count; ++i) {
        if (i == 5) {
            writer.number(1.5);
        } else {
            writer.nil();
        }
    }
    return out;
}

void tokens(MsgpackWriter& writer) {
    writer.array(2);
    writer.integer(5);
    writer.integer(6);
}

TEST(RequestDecoder, NamesTheRequestOfAMalformedAdd) {
    auto no_sampling = [](MsgpackWriter& w) { w.map(0); };
    auto reject = [](const Bytes& payload) {
        DecodedMessage decoded = decode({{0}, payload}, 1, 2);
        EXPECT_TRUE(std::holds_alternative<RejectedAdd>(decoded));
        auto rejected = std::get<RejectedAdd>(decoded);
        EXPECT_EQ(rejected.id, "r");
        EXPECT_EQ(rejected.client_index, 1);
        EXPECT_EQ(rejected.error.code, "validation_error");
        EXPECT_FALSE(rejected.error.retryable);
        return rejected.error.message;
    };
    EXPECT_EQ(reject(small_add(tokens, no_sampling, 8)),
              "Malformed request: EngineCoreRequest has 8 elements, 9 are required.");
    reject(small_add([](MsgpackWriter& w) { w.string("text"); }, no_sampling));
    reject(small_add(tokens, [](MsgpackWriter& w) {
        w.map(1);
        w.string("top_k");
        w.number(40.0);  // a float for an int field
    }));
    Bytes cut = small_add(tokens, no_sampling);
    cut.pop_back();
    reject(cut);
    Bytes longer = small_add(tokens, no_sampling);
    longer.push_back(0xc0);
    reject(longer);
}

TEST(RequestDecoder, DropsWhatHasNoId) {
    for (const std::vector<Bytes>& frames :
         std::vector<std::vector<Bytes>>{{},
                                         {{0}},
                                         {{0}, {}},
                                         {{0}, {0x90}},
                                         {{0}, {0x91, 0x05}},
                                         {{0}, {0x91, 0xa1, 0xff}},
                                         {{0}, {0xc0}},
                                         {{9}, {0x90}},
                                         {{4}, {0xc0}},
                                         {{0, 0}, {0x90}},
                                         {{1}, {0x91, 0x01}},
                                         {{3}, {0x92, 0x00, 0x01}},
                                         {{3}, {0x94, 0x00, 0xa1, 'x', 0xa1, 'm', 0x90}}}) {
        EXPECT_TRUE(std::holds_alternative<DroppedMessage>(decode(frames)));
    }
}

TEST(RequestDecoder, AcceptsElementsOfLaterReleases) {
    Bytes out;
    MsgpackWriter writer(out);
    writer.array(30);
    writer.string("r");
    tokens(writer);
    writer.nil();
    writer.map(2);
    writer.string("a_parameter_of_the_future");
    writer.array(1);
    writer.map(0);
    writer.string("max_tokens");
    writer.nil();
    writer.nil();
    writer.integer(7);  // an int for a float field
    for (size_t i = 6; i < 30; ++i) {
        if (i == 11) {
            writer.integer(1);
        } else if (i == 12 || i == 13) {
            writer.integer(-4);
        } else if (i == 15 || i == 19) {
            writer.boolean(false);
        } else {
            writer.nil();
        }
    }
    DecodedMessage decoded = decode({{0}, out}, 0, 2);
    ASSERT_TRUE(std::holds_alternative<AddMessage>(decoded));
    const Request& request = *std::get<AddMessage>(decoded).request;
    EXPECT_EQ(request.client_index, 1);
    EXPECT_EQ(request.priority, -4);
    EXPECT_FALSE(request.params.max_tokens);
    // A client that does not exist is answered where it came from.
    decoded = decode({{0}, out}, 0, 1);
    EXPECT_EQ(std::get<AddMessage>(decoded).request->client_index, 0);
}

TEST(RequestDecoder, KeepsIdsOutsideTheVocabularyRecognizable) {
    Bytes payload = small_add(
        [](MsgpackWriter& w) {
            w.array(3);
            w.integer(-5);
            w.unsigned_integer(UINT64_MAX);
            w.integer(int64_t{1} << 33);
        },
        [](MsgpackWriter& w) { w.map(0); });
    DecodedMessage decoded = decode({{0}, payload});
    ASSERT_TRUE(std::holds_alternative<AddMessage>(decoded));
    Request& request = *std::get<AddMessage>(decoded).request;
    EXPECT_EQ(request.tokens, (std::vector<int32_t>{-1, -1, -1}));
    auto error = validate_request(request, {8192, 2048});
    ASSERT_TRUE(error);
    EXPECT_NE(error->find("outside the vocabulary"), std::string::npos);
}

// Whatever the bytes, decoding ends in one of the five outcomes, and what passes validation is safe to run.
TEST(RequestDecoder, SurvivesSeededMutations) {
    std::mt19937 random(20261121);
    const auto& captured = testing::captured_requests();
    int accepted = 0, rejected = 0, dropped = 0;
    for (int round = 0; round < 60000; ++round) {
        std::vector<Bytes> frames = captured[random() % captured.size()].frames;
        Bytes& payload = frames[1];
        for (unsigned edits = 1 + random() % 4; edits > 0 && !payload.empty(); --edits) {
            size_t at = random() % payload.size();
            switch (random() % 5) {
                case 0:
                    payload[at] = static_cast<uint8_t>(random());
                    break;
                case 1:
                    payload[at] ^= static_cast<uint8_t>(1u << random() % 8);
                    break;
                case 2:
                    payload.erase(payload.begin() + static_cast<ptrdiff_t>(at));
                    break;
                case 3:
                    payload.insert(payload.begin() + static_cast<ptrdiff_t>(at), static_cast<uint8_t>(random()));
                    break;
                case 4:
                    payload.resize(at);
                    break;
            }
        }
        DecodedMessage decoded = decode(frames, 0, 1);
        if (auto* add = std::get_if<AddMessage>(&decoded)) {
            Request& request = *add->request;
            EXPECT_EQ(request.client_index, 0);
            if (validate_request(request, {8192, 2048})) {
                ++rejected;
                continue;
            }
            ++accepted;
            EXPECT_GT(request.prompt_length, 0);
            for (int32_t id : request.tokens) ASSERT_TRUE(id >= 0 && id < 8192);
            for (const auto& word : request.params.bad_words) ASSERT_FALSE(word.empty());
        } else if (std::holds_alternative<RejectedAdd>(decoded)) {
            ++rejected;
        } else {
            ++dropped;
        }
    }
    EXPECT_GT(accepted, 1000);
    EXPECT_GT(rejected, 1000);
    EXPECT_GT(dropped, 100);
}

}  // namespace
}  // namespace blas_engine
