#include "api/openai/sampling_fields.h"

#include <fmt/format.h>

#include <charconv>

namespace pensieve::api::openai {
namespace {

constexpr size_t kStopSequencesMax = 64;  // OpenAI takes 4; local clients send more
constexpr size_t kStopSequenceBytesMax = 256;
constexpr size_t kLogitBiasMax = 4096;

std::optional<float> Float(FieldReader& fields, std::string_view key, double min, double max) {
  const auto value = fields.Number(key, min, max);
  return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
}

void ReadStop(FieldReader& fields, std::vector<std::string>& stop_sequences) {
  const Json* stop = fields.Any("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    stop_sequences = {stop->get<std::string>()};
  } else if (auto strings = fields.Strings("stop", kStopSequencesMax)) {
    stop_sequences = std::move(*strings);
  }
  for (const std::string& text : stop_sequences) {
    if (text.empty() || text.size() > kStopSequenceBytesMax) {
      fields.Fail("stop", fmt::format("each must have 1 to {} bytes", kStopSequenceBytesMax));
    }
  }
}

void ReadLogitBias(FieldReader& fields, std::vector<std::pair<int32_t, float>>& logit_bias) {
  const Json* biases = fields.Object("logit_bias");
  if (biases == nullptr) return;
  if (biases->size() > kLogitBiasMax)
    return fields.Fail("logit_bias", fmt::format("must have at most {} entries", kLogitBiasMax));
  for (const auto& [key, value] : biases->items()) {
    int32_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    const bool is_id = parsed.ec == std::errc() && parsed.ptr == key.data() + key.size() && id >= 0;
    if (!is_id) return fields.Fail("logit_bias", "keys must be token ids");
    const double bias = value.is_number() ? value.get<double>() : 1e9;
    if (bias < -100 || bias > 100) return fields.Fail("logit_bias", "values must be numbers from -100 to 100");
    logit_bias.emplace_back(id, static_cast<float>(bias));
  }
}

void ReadStream(FieldReader& fields, StreamOptions& stream) {
  stream.stream = fields.Bool("stream").value_or(false);
  if (const Json* options = fields.Object("stream_options")) {
    FieldReader inner(*options, "stream_options");
    stream.include_usage = inner.Bool("include_usage").value_or(false);
    if (!inner.status().ok()) fields.Fail("stream_options.include_usage", "must be true or false");
  }
}

}  // namespace

size_t ReadN(FieldReader& fields) { return static_cast<size_t>(fields.Integer("n", 1, kChoicesMax).value_or(1)); }

std::optional<int64_t> ReadNewTokensMax(FieldReader& fields, std::string_view key) {
  const auto tokens = fields.Integer(key, -1, INT64_MAX);
  return tokens == -1 ? INT64_MAX : tokens;
}

void ReadShared(FieldReader& fields, service::SamplingRequest& sampling, std::vector<std::string>& stop_sequences,
                StreamOptions& stream) {
  ReadStream(fields, stream);
  ReadStop(fields, stop_sequences);
  ReadLogitBias(fields, sampling.logit_bias);
  sampling.temperature = Float(fields, "temperature", 0, 2);
  sampling.top_p = Float(fields, "top_p", 0, 1);
  sampling.min_p = Float(fields, "min_p", 0, 1);
  sampling.presence_penalty = Float(fields, "presence_penalty", -2, 2);
  sampling.frequency_penalty = Float(fields, "frequency_penalty", -2, 2);
  // Two spellings are in use by local servers.
  sampling.repetition_penalty = Float(fields, "repetition_penalty", 0.01, 100);
  if (!sampling.repetition_penalty) sampling.repetition_penalty = Float(fields, "repeat_penalty", 0.01, 100);
  // -1 and 0 both mean "off" there.
  if (const auto top_k = fields.Integer("top_k", -1, INT32_MAX)) {
    sampling.top_k = static_cast<int32_t>(std::max<int64_t>(*top_k, 0));
  }
  if (const auto seed = fields.Integer("seed", INT64_MIN, INT64_MAX)) sampling.seed = static_cast<uint64_t>(*seed);
}

}  // namespace pensieve::api::openai
