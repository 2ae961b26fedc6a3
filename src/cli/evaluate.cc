#include "cli/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/finite.h"

namespace pensieve::cli {
namespace {

// Rows of one pass: small, because all of them want logits and a row of logits is as wide as the vocabulary.
constexpr int64_t kRows = 32;
constexpr int64_t kBlockLen = 32;

// One window of the text as a sequence with its own KV blocks.
class WindowRunner {
 public:
  WindowRunner(model::LoadedModel& model, const EvaluateOptions& options, backend::KvCache& cache)
      : model_(model), options_(options), cache_(cache), blocks_(static_cast<size_t>(cache.shape().num_blocks)) {
    std::iota(blocks_.begin(), blocks_.end(), 0);
    host_.resize(static_cast<size_t>(model.config.vocab_size));
  }

  Status Run(std::span<const int32_t> window, size_t first_position, const OnLogits& on_logits) {
    const auto length = static_cast<int64_t>(window.size());
    long_rope_ = model_.network->UsesLongRope(length);
    for (int64_t at = 0; at + 1 < length;) {
      int64_t rows = std::min({kRows, model_.network->rows_max(), length - 1 - at});
      if (at < model::kPrecisePositions) rows = std::min(rows, model::kPrecisePositions - at);  // one precision a pass
      const auto part = window.subspan(static_cast<size_t>(at), static_cast<size_t>(rows));
      PENSIEVE_RETURN_IF_ERROR(RunRows(part, at, first_position, on_logits));
      at += rows;
    }
    return OkStatus();
  }

 private:
  Status RunRows(std::span<const int32_t> tokens, int64_t cached_len, size_t first_position,
                 const OnLogits& on_logits) {
    const auto rows = static_cast<int64_t>(tokens.size());
    positions_.resize(tokens.size());
    std::iota(positions_.begin(), positions_.end(), static_cast<int32_t>(cached_len));
    output_rows_.resize(tokens.size());
    std::iota(output_rows_.begin(), output_rows_.end(), 0);
    const backend::SequenceRows sequence{
        .first_row = 0, .num_rows = rows, .cached_len = cached_len, .block_table = blocks_, .long_rope = long_rope_};
    const bool precise = options_.as_decode || cached_len < model::kPrecisePositions;
    const model::Batch batch{.rows = rows,
                             .ids = tokens,
                             .positions = positions_,
                             .sequences = {&sequence, 1},
                             .precise_rows = precise ? rows : 0,
                             .output_rows = output_rows_};
    const auto logits = model_.network->Forward(batch, cache_);
    model_.backend->Submit();
    PENSIEVE_RETURN_IF_ERROR(model_.backend->EndStep());
    for (int64_t row = 0; row < rows; ++row) {
      PENSIEVE_RETURN_IF_ERROR(model_.backend->CopyToHost(logits.Rows(row, 1), host_));
      on_logits(first_position + static_cast<size_t>(cached_len + row), host_);
    }
    return OkStatus();
  }

  model::LoadedModel& model_;
  const EvaluateOptions& options_;
  backend::KvCache& cache_;
  std::vector<int32_t> blocks_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> output_rows_;
  bool long_rope_ = false;
  std::vector<float> host_;
};

}  // namespace

Status ForEachPosition(model::LoadedModel& model, std::span<const int32_t> ids, const EvaluateOptions& options,
                       const OnLogits& on_logits) {
  if (!model.config.can_generate())
    return InvalidArgument(fmt::format("{}: it embeds and predicts no next token", model.path));
  for (const int32_t id : ids) {
    if (id < 0 || id >= model.config.vocab_size) {
      return InvalidArgument(fmt::format("token id {} is outside the vocabulary of {}", id, model.config.vocab_size));
    }
  }
  const int64_t window = std::min<int64_t>(options.window, static_cast<int64_t>(ids.size()));
  if (window < 2) return InvalidArgument("the text is shorter than two tokens");
  const backend::KvShape shape{.layers = model.config.layers,
                               .kv_heads = model.config.kv_heads,
                               .head_dim = model.config.head_dim,
                               .block_len = kBlockLen,
                               .num_blocks = (window + kBlockLen - 1) / kBlockLen,
                               .dtype = options.kv_dtype};
  PENSIEVE_TRY(const auto cache, model.backend->NewKvCache(shape));
  WindowRunner runner(model, options, *cache);
  bool finite = true;
  const OnLogits checked = [&](size_t position, std::span<const float> logits) {
    finite = finite && AllFinite(logits);
    on_logits(position, logits);
  };
  for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(window)) {
    const auto part = ids.subspan(at, std::min(static_cast<size_t>(window), ids.size() - at));
    PENSIEVE_RETURN_IF_ERROR(runner.Run(part, at, checked));
  }
  return finite ? OkStatus() : Internal(fmt::format("{}: the model computed NaN or infinity", model.path));
}

}  // namespace pensieve::cli
