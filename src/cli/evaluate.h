// Running a loaded network over a fixed text and looking at every position's distribution.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/loader.h"

namespace pensieve::cli {

struct EvaluateOptions {
  int64_t window = 0;      // tokens a pass starts over after; each window is a sequence of its own
  bool as_decode = false;  // positions are computed as decode steps instead of prefill
  backend::KvDType kv_dtype = backend::KvDType::kF16;
};

// Called for each position that predicts a next token: its index in `ids` and the logits, valid during the call.
using OnLogits = std::function<void(size_t position, std::span<const float> logits)>;

// ids must lie in the vocabulary (InvalidArgument otherwise). Positions come in order.
Status ForEachPosition(model::LoadedModel& model, std::span<const int32_t> ids, const EvaluateOptions& options,
                       const OnLogits& on_logits);

}  // namespace pensieve::cli
