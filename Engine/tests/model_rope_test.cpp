// Rotary variants against the inverse frequencies that transformers computes for head_dim 32.
#include <gtest/gtest.h>

#include "model/model.h"
#include "model/rope.h"

namespace blas_engine {
namespace {

void check(const char* config, int max_position, int expected_max, float magnitude,
           const std::vector<float>& expected) {
    const Rope rope = read_rope(Json::parse(config), "config.json", 32, max_position);
    EXPECT_EQ(max_position, expected_max);
    EXPECT_FLOAT_EQ(rope.magnitude, magnitude);
    ASSERT_EQ(rope.frequencies.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(rope.frequencies[i] / expected[i], 1.0f, 5e-7f) << i;
}

TEST(Rope, DynamicScalesTheBaseToTheConfiguredLength) {
    check(
        R"({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}})",
        512, 512, 1.0f,
        {1.0f, 0.473954976f, 0.224633351f, 0.1064661f, 0.0504601374f, 0.0239158347f, 0.0113350293f, 0.00537229376f,
         0.00254622544f, 0.00120679627f, 0.000571967161f, 0.000271086697f, 0.00012848289f, 6.08951123e-05f,
         2.88615411e-05f, 1.36790723e-05f});
}

TEST(Rope, YarnTakesItsOptions) {
    check(
        R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 50000.0, "factor": 16.0, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 0.7, "beta_fast": 8, "beta_slow": 2}})",
        512, 512, 1.0696583f,
        {1.0f, 0.349612594f, 0.0969750509f, 0.00821907911f, 0.00417962717f, 0.00212545483f, 0.00108085212f,
         0.000549642893f, 0.000279508502f, 0.000142137738f, 7.22809345e-05f, 3.67568391e-05f, 1.86918605e-05f,
         9.50532285e-06f, 4.83371741e-06f, 2.45807792e-06f});
}

TEST(Rope, YarnWithoutTruncationAndWithItsOwnMagnitude) {
    check(
        R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 50000.0, "factor": 16.0, "original_max_position_embeddings": 64, "attention_factor": 1.5, "truncate": false}})",
        512, 512, 1.5f,
        {1.0f, 0.369625658f, 0.117329434f, 0.0237452164f, 0.00417962717f, 0.00212545483f, 0.00108085212f,
         0.000549642893f, 0.000279508502f, 0.000142137738f, 7.22809345e-05f, 3.67568391e-05f, 1.86918605e-05f,
         9.50532285e-06f, 4.83371741e-06f, 2.45807792e-06f});
}

TEST(Rope, Llama3KeepsHighFrequencies) {
    check(
        R"({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})",
        131072, 131072, 1.0f,
        {1.0f, 0.440366626f, 0.193922758f, 0.0853971019f, 0.0376060307f, 0.0165604409f, 0.00729266508f, 0.00321144611f,
         0.000524846022f, 7.78465546e-05f, 3.42810235e-05f, 1.50962178e-05f, 6.64786967e-06f, 2.92749974e-06f,
         1.28917316e-06f, 5.6770881e-07f});
}

TEST(Rope, LinearAndDefaultTellTheLongestContext) {
    int linear = 2048, plain = 2048, dynamic = 2048;
    read_rope(Json::parse(R"({"rope_scaling": {"type": "linear", "factor": 2.5}})"), "", 32, linear);
    EXPECT_EQ(linear, 5120);
    const Rope rope = read_rope(Json::parse("{}"), "", 32, plain);
    EXPECT_EQ(plain, 2048);
    // Without a trained length of its own, dynamic is the default up to max_position_embeddings, and that is the limit.
    const Rope same = read_rope(Json::parse(R"({"rope_scaling": {"type": "dynamic", "factor": 4}})"), "", 32, dynamic);
    EXPECT_EQ(dynamic, 2048);
    EXPECT_EQ(same.frequencies, rope.frequencies);
}

TEST(Rope, SenselessParametersAreRefused) {
    for (
        const char* config : {
            R"({"rope_parameters": 7})",
            R"({"rope_parameters": {"rope_type": 7}})",
            R"({"rope_parameters": {"rope_type": "mrope"}})",
            R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})",
            R"({"rope_parameters": {"rope_type": "linear", "factor": 0}})",
            R"({"rope_parameters": {"rope_type": "linear", "factor": "x"}})",
            R"({"rope_parameters": {"rope_type": "llama3", "factor": 8}})",
            R"({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}})",
            R"({"rope_parameters": {"rope_type": "yarn", "factor": 4, "truncate": 3}})",
            R"({"rope_parameters": {"rope_type": "dynamic", "factor": 100, "original_max_position_embeddings": 99999}})",
            R"({"rope_theta": 1e400})",
        }) {
        EXPECT_ANY_THROW({
            int max_position = 2048;
            read_rope(Json::parse(config), "config.json", 32, max_position);
        }) << config;
    }
}

}  // namespace
}  // namespace blas_engine
