// What an embed request means for one model: token ids to pool, and the vectors a client gets from the pooled ones.
#pragma once

#include <vector>

#include "engine/engine.h"
#include "service/served_model.h"
#include "service/service.h"

namespace pensieve::service {

struct EmbedPlan {
  engine::EmbedRequest request;
  std::vector<TextTokens> tokens;  // of each text, in input order
  int64_t prompt_tokens = 0;       // after truncation
  int64_t dimension = 0;           // of the vectors the client gets
};

// Tokenizes and truncates. An encoder's text keeps its closing special token when it is cut, and so does a decoder's,
// whose last token may be what is pooled; only mean pooling of decoders keeps just the first tokens, which is AkiDB's
// recipe. InvalidArgument for nothing to embed, ids out of range, dimensions that the model lacks, or texts past the
// limit when truncation is not wanted (kPromptTooLong).
Result<EmbedPlan> PlanEmbedding(const ServedModel& model, EmbedRequest request);

// Cuts vectors to the planned dimension; what was cut is brought back to length 1 when `normalize`.
void FinishEmbeddings(const EmbedPlan& plan, std::vector<std::vector<float>>& embeddings);

}  // namespace pensieve::service
