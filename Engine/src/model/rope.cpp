#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "model/model.h"

namespace blas_engine {

namespace {

// The parameters of one variant, from whichever spelling the config uses.
class Parameters {
  public:
    Parameters(const Json& config, const std::string& source) : config_(config), source_(source) {
        section_ = config.find("rope_parameters");
        name_ = "rope_parameters";
        if (section_ == nullptr) {
            section_ = config.find("rope_scaling");
            name_ = "rope_scaling";
        }
        if (section_ != nullptr && !section_->is_object()) fail(name_ + " must be an object");
        if (section_ != nullptr) {
            for (const auto& [key, value] : *section_->object()) {
                if (value.is_object()) fail(name_ + " per layer type (" + key + ") is not supported");
            }
        }
    }

    [[noreturn]] void fail(const std::string& what) const { throw ModelError(source_ + ": " + what); }

    std::string type() const {
        for (const char* key : {"rope_type", "type"}) {
            const Json* value = section_ == nullptr ? nullptr : section_->find(key);
            if (value == nullptr) continue;
            if (value->string() == nullptr) fail(name_ + "." + key + " must be a string");
            return *value->string();
        }
        return "default";
    }

    const Json* find(const char* key) const { return section_ == nullptr ? nullptr : section_->find(key); }

    double number(const char* key, double fallback, double low, double high) const {
        const Json* value = find(key);
        if (value == nullptr) value = config_.find(key);
        if (value == nullptr) return fallback;
        return checked(key, value->number(), low, high);
    }

    double required(const char* key, double low, double high) const {
        const Json* value = find(key);
        if (value == nullptr) fail(name_ + " of type " + type() + " needs " + key);
        return checked(key, value->number(), low, high);
    }

    bool flag(const char* key, bool fallback) const {
        const Json* value = find(key);
        if (value == nullptr) return fallback;
        if (value->boolean() == nullptr) fail(name_ + "." + key + " must be true or false");
        return *value->boolean();
    }

  private:
    double checked(const char* key, std::optional<double> value, double low, double high) const {
        if (!value || !(*value >= low && *value <= high)) fail(std::string(key) + " is missing a sensible number");
        return *value;
    }

    const Json& config_;
    const std::string& source_;
    const Json* section_ = nullptr;
    std::string name_;
};

constexpr double max_factor = 1e6;
constexpr double max_length = 1 << 30;

// base^(2i / d) in the precision in which transformers computes it.
std::vector<float> periods(double base, int head_dim) {
    std::vector<float> out(static_cast<size_t>(head_dim / 2));
    for (size_t i = 0; i < out.size(); ++i) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
        out[i] = static_cast<float>(std::pow(base, static_cast<double>(exponent)));
    }
    return out;
}

// Low frequencies divided by the factor, high ones kept, a smooth change between (Llama 3.1).
void scale_llama3(std::vector<float>& frequencies, const Parameters& p, double original) {
    const double factor = p.required("factor", 1, max_factor);
    const double low = p.required("low_freq_factor", 1e-6, max_factor);
    const double high = p.required("high_freq_factor", 1e-6, max_factor);
    if (high <= low) p.fail("high_freq_factor must be larger than low_freq_factor");
    for (float& frequency : frequencies) {
        const double wavelength = 2 * std::numbers::pi / static_cast<double>(frequency);
        const double scaled = static_cast<double>(frequency) / factor;
        if (wavelength < original / high) continue;
        if (wavelength > original / low) {
            frequency = static_cast<float>(scaled);
            continue;
        }
        const double smooth = (original / wavelength - low) / (high - low);
        frequency = static_cast<float>((1 - smooth) * scaled + smooth * static_cast<double>(frequency));
    }
}

// Interpolates low frequencies and extrapolates high ones along a ramp over the dimensions (YaRN).
void scale_yarn(Rope& rope, const Parameters& p, double base, double original, double factor, int head_dim) {
    const auto magnitude = [](double scale, double weight) {
        return scale <= 1 ? 1.0 : 0.1 * weight * std::log(scale) + 1.0;
    };
    const double mscale = p.number("mscale", 0, 0, max_factor), all = p.number("mscale_all_dim", 0, 0, max_factor);
    const double inferred =
        mscale != 0 && all != 0 ? magnitude(factor, mscale) / magnitude(factor, all) : magnitude(factor, 1);
    rope.magnitude = static_cast<float>(p.number("attention_factor", inferred, 0, max_factor));

    double fast = p.number("beta_fast", 32, 0, max_factor), slow = p.number("beta_slow", 1, 0, max_factor);
    if (fast == 0) fast = 32;
    if (slow == 0) slow = 1;
    const auto dimension = [&](double rotations) {
        return head_dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
    };
    double low = dimension(fast), high = dimension(slow);
    if (p.flag("truncate", true)) {
        low = std::floor(low);
        high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(head_dim - 1));
    if (low == high) high += 0.001;
    for (size_t i = 0; i < rope.frequencies.size(); ++i) {
        const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        const double frequency = static_cast<double>(rope.frequencies[i]);
        rope.frequencies[i] = static_cast<float>(frequency / factor * ramp + frequency * (1 - ramp));
    }
}

}  // namespace

Rope read_rope(const Json& config, const std::string& source, int head_dim, int& max_position) {
    const Parameters p(config, source);
    const std::string type = p.type();
    double base = p.number("rope_theta", 10000, 1.0001, 1e30);
    if (p.number("partial_rotary_factor", 1, 0, 1) != 1) p.fail("partial_rotary_factor other than 1 is not supported");
    const double trained = max_position;
    // A value beside rope_parameters counts more than one inside, as in transformers.
    double original = p.number("original_max_position_embeddings", trained, 1, max_length);
    if (const Json* outer = config.find("original_max_position_embeddings")) {
        original = outer->number().value_or(original);
        if (!(original >= 1 && original <= max_length)) p.fail("bad original_max_position_embeddings");
    }
    double longest = trained;
    Rope rope;
    if (type == "dynamic") {
        // Static as in vLLM: the base fits the configured length rather than growing with each sequence.
        const double factor = p.required("factor", 1, max_factor);
        if (head_dim <= 2) p.fail("rope type dynamic needs head_dim > 2");
        const double stretch = factor * trained / original - (factor - 1);
        if (stretch <= 0) p.fail("original_max_position_embeddings does not fit the rope factor");
        base *= std::pow(stretch, head_dim / (head_dim - 2.0));
    }
    for (float period : periods(base, head_dim)) rope.frequencies.push_back(1.0f / period);
    if (type == "linear") {
        const double factor = p.required("factor", 1, max_factor);
        for (float& frequency : rope.frequencies)
            frequency = static_cast<float>(static_cast<double>(frequency) / factor);
        longest *= factor;
    } else if (type == "llama3") {
        scale_llama3(rope.frequencies, p, original);
    } else if (type == "yarn") {
        const double factor =
            p.find("factor") != nullptr ? p.required("factor", 1, max_factor) : std::max(1.0, trained / original);
        // Configs of this type give max_position_embeddings after scaling, so it is not multiplied again.
        scale_yarn(rope, p, base, original, factor, head_dim);
    } else if (type != "default" && type != "dynamic") {
        p.fail("rope type " + type + " is not supported (supported: default, linear, llama3, yarn, dynamic)");
    }
    max_position = static_cast<int>(std::min(longest, max_length));
    return rope;
}

}  // namespace blas_engine
