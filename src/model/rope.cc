#include "model/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace pensieve::model {
namespace {

// Periods P_i = base^(2i/d) = 1 / f_i, in positions a radian. All recipes below are rules on periods, in double; the
// result is rounded to f32 once.
std::vector<double> Periods(double base, int64_t rotated) {
  std::vector<double> periods(static_cast<size_t>(rotated / 2));
  for (size_t i = 0; i < periods.size(); ++i) {
    periods[i] = std::pow(base, 2.0 * static_cast<double>(i) / static_cast<double>(rotated));
  }
  return periods;
}

// Llama 3: long waves are stretched by `factor`, short ones left, those between blended.
void ScaleLlama3(const RopeConfig& config, std::vector<double>& periods) {
  const auto original = static_cast<double>(config.original_context);
  for (double& period : periods) {
    const double wave = 2.0 * std::numbers::pi * period;
    if (wave > original / config.low_freq_factor) {
      period *= config.factor;
    } else if (wave >= original / config.high_freq_factor) {
      const double smooth =
          (original / wave - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor);
      period /= (1.0 - smooth) / config.factor + smooth;
    }
  }
}

// Yarn: pairs that turn often within the original context keep their frequency, slow ones are stretched, with a
// linear ramp between the pairs that make beta_fast and beta_slow turns.
void ScaleYarn(const RopeConfig& config, std::vector<double>& periods) {
  const auto rotated = static_cast<double>(config.rotated);
  const auto pair_of_turns = [&](double turns) {
    const auto original = static_cast<double>(config.original_context);
    return rotated * std::log(original / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(static_cast<double>(config.base)));
  };
  double low = pair_of_turns(config.beta_fast);
  double high = pair_of_turns(config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rotated - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < periods.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    periods[i] = 1.0 / ((1.0 - ramp) / periods[i] + ramp / (config.factor * periods[i]));
  }
}

double LongropeMagnitude(const RopeConfig& config, int64_t model_context) {
  if (config.attention_factor) return *config.attention_factor;
  const double stretch = static_cast<double>(model_context) / static_cast<double>(config.original_context);
  if (stretch <= 1.0) return 1.0;
  return std::sqrt(1.0 + std::log(stretch) / std::log(static_cast<double>(config.original_context)));
}

Status Validate(const RopeConfig& config) {
  if (config.rotated <= 0 || config.rotated % 2 != 0) {
    return InvalidArgument(fmt::format("rotary embeddings need an even number of dimensions, not {}", config.rotated));
  }
  if (!(config.base > 1.0f) || !(config.factor > 0.0)) {
    return InvalidArgument(fmt::format("rotary base {} or factor {} makes no sense", config.base, config.factor));
  }
  const bool needs_original = config.scaling == RopeScaling::kLlama3 || config.scaling == RopeScaling::kYarn ||
                              config.scaling == RopeScaling::kLongrope;
  if (needs_original && config.original_context < 2) {
    return InvalidArgument("rope scaling needs original_max_position_embeddings");
  }
  const bool llama3 = config.scaling == RopeScaling::kLlama3;
  if (llama3 && !(config.low_freq_factor > 0.0 && config.high_freq_factor > config.low_freq_factor)) {
    return InvalidArgument("rope scaling needs 0 < low_freq_factor < high_freq_factor");
  }
  return OkStatus();
}

Status MultiplyPeriods(const std::vector<float>& factors, const char* name, std::vector<double>& periods) {
  if (factors.size() != periods.size()) {
    return InvalidArgument(
        fmt::format("{} has {} entries, not the {} rotated pairs of a head", name, factors.size(), periods.size()));
  }
  for (size_t i = 0; i < periods.size(); ++i) {
    if (!(factors[i] > 0.0f)) return InvalidArgument(fmt::format("{} holds {} at {}", name, factors[i], i));
    periods[i] *= static_cast<double>(factors[i]);
  }
  return OkStatus();
}

}  // namespace

double YarnMagnitude(const RopeConfig& config) {
  if (config.attention_factor) return *config.attention_factor;
  const auto term = [&](double scale) {
    return config.factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(config.factor) + 1.0;
  };
  const double scale = config.mscale.value_or(0.0);  // as in transformers, 0 is as good as nothing
  const double all_dim = config.mscale_all_dim.value_or(0.0);
  if (scale != 0.0 && all_dim != 0.0) return term(scale) / term(all_dim);
  return term(1.0);
}

Result<RopeFrequencies> ComputeRope(const RopeConfig& config, int64_t context_max, int64_t model_context) {
  PENSIEVE_RETURN_IF_ERROR(Validate(config));
  double base = static_cast<double>(config.base);
  if (config.scaling == RopeScaling::kDynamic) {
    const double stretch =
        static_cast<double>(std::max(context_max, model_context)) / static_cast<double>(model_context);
    const auto d = static_cast<double>(config.rotated);
    base *= std::pow(config.factor * stretch - (config.factor - 1.0), d / (d - 2.0));
  }
  std::vector<double> periods = Periods(base, config.rotated);
  RopeFrequencies result;
  switch (config.scaling) {
    case RopeScaling::kNone:
    case RopeScaling::kDynamic: break;
    case RopeScaling::kLinear:
      for (double& period : periods) period *= config.factor;
      break;
    case RopeScaling::kLlama3: ScaleLlama3(config, periods); break;
    case RopeScaling::kYarn:
      ScaleYarn(config, periods);
      result.magnitude = static_cast<float>(YarnMagnitude(config));
      break;
    case RopeScaling::kLongrope: {
      const bool use_long = context_max > config.original_context;
      PENSIEVE_RETURN_IF_ERROR(use_long ? MultiplyPeriods(config.long_factors, "long_factor", periods)
                                        : MultiplyPeriods(config.short_factors, "short_factor", periods));
      result.magnitude = static_cast<float>(LongropeMagnitude(config, model_context));
      break;
    }
  }
  if (!(result.magnitude > 0.0f) || !std::isfinite(result.magnitude)) {
    return InvalidArgument(fmt::format("rope scaling multiplies rotated heads by {}", result.magnitude));
  }
  if (!config.divisors.empty()) PENSIEVE_RETURN_IF_ERROR(MultiplyPeriods(config.divisors, "rope_freqs", periods));
  for (const double period : periods) result.frequencies.push_back(static_cast<float>(1.0 / period));
  return result;
}

}  // namespace pensieve::model
