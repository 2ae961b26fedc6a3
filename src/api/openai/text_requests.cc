// Completions and embeddings: requests that bring text or token ids instead of a conversation.
#include <fmt/format.h>

#include "api/openai/requests.h"
#include "api/openai/sampling_fields.h"

namespace pensieve::api::openai {
namespace {

constexpr size_t kInputsMax = 2048;
constexpr int64_t kCompletionTokens = 16;  // OpenAI's default
constexpr size_t kTokensPerInputMax = size_t{1} << 20;

// One list of token ids. Whether they are in the vocabulary is the service's to say.
Result<std::vector<int32_t>> ToIds(const Json& list, const std::string& path) {
  if (list.empty()) return InvalidArgument(path + ": must not be empty");
  if (list.size() > kTokensPerInputMax) return InvalidArgument(path + ": has too many tokens");
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const Json& entry : list) {
    if (!entry.is_number_integer() || entry < 0 || entry > INT32_MAX) {
      return InvalidArgument(path + ": token ids must be integers from 0");
    }
    ids.push_back(entry.get<int32_t>());
  }
  return ids;
}

struct TextInput {
  std::string text;
  std::vector<int32_t> ids;  // instead of the text, when not empty
};

// string | int[] | a list of both
Result<std::vector<TextInput>> ReadInputs(FieldReader& fields, const char* key) {
  fields.Require(key);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  const Json& input = *fields.Any(key);
  std::vector<TextInput> inputs;
  if (input.is_string()) {
    inputs.push_back({.text = input.get<std::string>(), .ids = {}});
    return inputs;
  }
  if (!input.is_array()) return InvalidArgument(fmt::format("{}: must be a string or an array", key));
  if (input.empty()) return InvalidArgument(fmt::format("{}: must not be empty", key));
  if (input.front().is_number()) {
    PENSIEVE_TRY(std::vector<int32_t> ids, ToIds(input, key));
    inputs.push_back({.text = "", .ids = std::move(ids)});
    return inputs;
  }
  if (input.size() > kInputsMax)
    return InvalidArgument(fmt::format("{}: must have at most {} entries", key, kInputsMax));
  for (size_t i = 0; i < input.size(); ++i) {
    const Json& entry = input[i];
    if (!entry.is_string() && !entry.is_array())
      return InvalidArgument(fmt::format("{}.{}: must be a string or a list of token ids", key, i));
    inputs.emplace_back();
    if (entry.is_string()) {
      inputs.back().text = entry.get<std::string>();
    } else {
      PENSIEVE_TRY(inputs.back().ids, ToIds(entry, JoinPath(key, i)));
    }
  }
  return inputs;
}

Result<service::PoolingChoice> ToPooling(const std::optional<std::string>& name) {
  if (!name) return service::PoolingChoice::kModelDefault;
  if (*name == "mean") return service::PoolingChoice::kMean;
  if (*name == "cls") return service::PoolingChoice::kCls;
  if (*name == "last") return service::PoolingChoice::kLast;
  if (*name == "max") return service::PoolingChoice::kMax;
  return InvalidArgument("pooling: must be one of mean, cls, last, max");
}

}  // namespace

Result<TextCompletionRequest> FromCompletion(const Json& body, const std::string& request_id) {
  TextCompletionRequest request;
  service::CompletionRequest completion;
  completion.id = request_id;
  FieldReader fields(body, "");
  completion.model = fields.RequiredString("model");
  ReadShared(fields, completion.sampling, completion.stop_sequences, request.stream);
  if (const auto count = fields.Integer("logprobs", 0, 20)) {
    completion.sampling.logprobs = true;
    completion.sampling.top_logprobs = static_cast<int32_t>(*count);
  }
  completion.new_tokens_max = ReadNewTokensMax(fields, "max_tokens").value_or(kCompletionTokens);
  completion.echo = fields.Bool("echo").value_or(false);
  completion.suffix = fields.String("suffix").value_or("");
  if (completion.echo && completion.sampling.logprobs) fields.Fail("echo", "does not go with logprobs");
  request.n = ReadN(fields);
  const auto n = static_cast<int64_t>(request.n);
  if (fields.Integer("best_of", 1, 128).value_or(n) != n) fields.Fail("best_of", "only as many as `n` are supported");
  PENSIEVE_TRY(std::vector<TextInput> prompts, ReadInputs(fields, "prompt"));
  if (prompts.size() * request.n > kChoicesMax)
    return InvalidArgument(fmt::format("prompt: prompts times `n` must be at most {}", kChoicesMax));
  for (TextInput& prompt : prompts) {
    request.completions.push_back(completion);
    request.completions.back().prompt = std::move(prompt.text);
    request.completions.back().prompt_ids = std::move(prompt.ids);
  }
  return request;
}

Result<EmbeddingsRequest> FromEmbeddings(const Json& body, const std::string& request_id) {
  EmbeddingsRequest request;
  service::EmbedRequest& embed = request.embed;
  embed.id = request_id;
  FieldReader fields(body, "");
  embed.model = fields.RequiredString("model");
  embed.dimensions = fields.Integer("dimensions", 1, 1 << 20).value_or(0);
  embed.truncate = fields.Bool("truncate").value_or(true);
  const std::string format = fields.String("encoding_format").value_or("float");
  if (format != "float" && format != "base64") fields.Fail("encoding_format", "must be \"float\" or \"base64\"");
  request.base64 = format == "base64";
  const std::optional<std::string> pooling = fields.String("pooling");
  PENSIEVE_TRY(std::vector<TextInput> inputs, ReadInputs(fields, "input"));
  PENSIEVE_TRY(embed.pooling, ToPooling(pooling));
  const bool is_text = inputs.front().ids.empty();
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].ids.empty() != is_text)
      return InvalidArgument(
          fmt::format("input.{}: must be {}", i, is_text ? "a string like the first" : "a list of token ids"));
    if (is_text) embed.texts.push_back(std::move(inputs[i].text));
    else embed.token_ids.push_back(std::move(inputs[i].ids));
  }
  return request;
}

}  // namespace pensieve::api::openai
