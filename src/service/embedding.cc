#include "service/embedding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "service/prompt.h"

namespace pensieve::service {
namespace {

backend::Pooling ToPooling(PoolingChoice choice, const model::ModelConfig& config) {
  switch (choice) {
    case PoolingChoice::kModelDefault: return config.pooling;
    case PoolingChoice::kMean: return backend::Pooling::kMean;
    case PoolingChoice::kCls: return backend::Pooling::kCls;
    case PoolingChoice::kLast: return backend::Pooling::kLast;
    case PoolingChoice::kMax: return backend::Pooling::kMax;
    case PoolingChoice::kMeanForDecoders: return config.is_encoder ? config.pooling : backend::Pooling::kMean;
  }
  PENSIEVE_UNREACHABLE();
}

int64_t TokensMax(const ServedModel& model, const EmbedRequest& request) {
  const int64_t of_model = model.description().embed_context_max;
  return request.tokens_max > 0 ? std::min(of_model, request.tokens_max) : of_model;
}

// A text without any token (an empty one, for a tokenizer that adds no special tokens) becomes one special token.
Status FillEmpty(const ServedModel& model, std::vector<int32_t>& ids) {
  const auto& special = model.tokenizer().special();
  for (const auto* token : {&special.eos, &special.bos, &special.cls, &special.pad, &special.unk}) {
    if (!token->has_value()) continue;
    ids.push_back((*token)->id);
    return OkStatus();
  }
  return InvalidArgument("an empty text has no tokens for this model");
}

struct Cut {
  int64_t tokens_max = 0;
  bool truncate = true;
  bool keep_last_special = true;
};

Status Fit(const ServedModel& model, const Cut& cut, std::vector<int32_t>& ids) {
  if (ids.empty()) PENSIEVE_RETURN_IF_ERROR(FillEmpty(model, ids));
  const auto limit = static_cast<size_t>(cut.tokens_max);
  if (ids.size() <= limit) return OkStatus();
  if (!cut.truncate) return CheckPromptLen(static_cast<int64_t>(ids.size()), cut.tokens_max);
  const int32_t last = ids.back();
  ids.resize(limit);
  if (cut.keep_last_special && model.tokenizer().IsSpecial(last)) ids.back() = last;
  return OkStatus();
}

// Names the input unless it is the only one.
Status InputError(const Status& error, size_t index, size_t count) {
  return count == 1 ? error : error.WithContext(fmt::format("input.{}", index));
}

Status CheckIds(const ServedModel& model, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= model.config().vocab_size) {
      return InvalidArgument(
          fmt::format("token id {} is not in the vocabulary of {} tokens", id, model.config().vocab_size));
    }
  }
  return ids.empty() ? InvalidArgument("a list of token ids must not be empty") : OkStatus();
}

}  // namespace

Result<EmbedPlan> PlanEmbedding(const ServedModel& model, EmbedRequest request) {
  if (request.texts.empty() == request.token_ids.empty())
    return InvalidArgument("input: texts or token ids are required");
  const model::ModelConfig& config = model.config();
  if (request.dimensions > config.embedding_size()) {
    return InvalidArgument(fmt::format("dimensions: the model has {} of them", config.embedding_size()));
  }
  EmbedPlan plan;
  plan.dimension = request.dimensions > 0 ? request.dimensions : config.embedding_size();
  plan.request.id = std::move(request.id);
  plan.request.pooling = ToPooling(request.pooling, config);
  plan.request.normalize = request.normalize.value_or(config.normalize);
  const bool first_tokens_only = request.pooling == PoolingChoice::kMeanForDecoders && !config.is_encoder;
  const Cut cut{
      .tokens_max = TokensMax(model, request), .truncate = request.truncate, .keep_last_special = !first_tokens_only};
  plan.request.sequences = std::move(request.token_ids);
  for (const auto& ids : plan.request.sequences) PENSIEVE_RETURN_IF_ERROR(CheckIds(model, ids));
  const int32_t closing_id = first_tokens_only ? -1 : config.closing_id;
  // Who cuts earlier than the model would (AkiDB's recipe) is not told how long a text was; all others are.
  const bool first_part_is_enough = cut.truncate && request.tokens_max > 0;
  for (const std::string& text : request.texts) {
    const Status fits = cut.truncate ? OkStatus() : CheckTextLen(model.tokenizer(), text, cut.tokens_max);
    if (!fits.ok()) return InputError(fits, plan.request.sequences.size(), request.texts.size());
    auto& ids = plan.request.sequences.emplace_back(
        first_part_is_enough ? model.tokenizer().EncodeAtMost(text, cut.tokens_max) : model.tokenizer().Encode(text));
    if (closing_id >= 0 && (ids.empty() || ids.back() != closing_id)) ids.push_back(closing_id);
  }
  for (size_t i = 0; i < plan.request.sequences.size(); ++i) {
    auto& ids = plan.request.sequences[i];
    const auto seen = static_cast<int64_t>(ids.size());
    const Status fit = Fit(model, cut, ids);
    if (!fit.ok()) return InputError(fit, i, plan.request.sequences.size());
    const auto used = static_cast<int64_t>(ids.size());
    plan.tokens.push_back({.seen = std::max(seen, used), .used = used});
    plan.prompt_tokens += used;
  }
  return plan;
}

void FinishEmbeddings(const EmbedPlan& plan, std::vector<std::vector<float>>& embeddings) {
  const auto dimension = static_cast<size_t>(plan.dimension);
  for (auto& row : embeddings) {
    if (row.size() <= dimension) continue;
    row.resize(dimension);
    if (!plan.request.normalize) continue;
    double squares = 0;
    for (const float value : row) squares += static_cast<double>(value) * value;
    const double norm = std::max(std::sqrt(squares), 1e-12);
    for (float& value : row) value = static_cast<float>(value / norm);
  }
}

}  // namespace pensieve::service
