#include "engine/embed_pooler.h"

#include <algorithm>

namespace pensieve::engine {
namespace {

backend::Pooling PoolingOf(const Sequence& sequence) { return sequence.request->embed.pooling; }
bool Normalizes(const Sequence& sequence) { return sequence.request->embed.normalize; }

}  // namespace

Result<EmbedPooler> EmbedPooler::Create(backend::Backend& backend, model::Model& network, int64_t sequences_max) {
  PENSIEVE_TRY(const backend::Matrix pooled, backend.NewMatrix(sequences_max, network.config().hidden_size));
  return EmbedPooler(backend, network, pooled);
}

EmbedPooler::EmbedPooler(backend::Backend& backend, model::Model& network, backend::Matrix pooled)
    : backend_(&backend), network_(&network), pooled_(pooled), host_row_(static_cast<size_t>(pooled.cols)) {}

Status EmbedPooler::PoolWhole(backend::Matrix hidden, std::span<Sequence* const> members) {
  const auto count = static_cast<int64_t>(members.size());
  PENSIEVE_CHECK(count <= pooled_.rows);
  // One pass per kind of pooling that is there, seldom more than one in all.
  for (const auto pooling :
       {backend::Pooling::kMean, backend::Pooling::kCls, backend::Pooling::kLast, backend::Pooling::kMax}) {
    for (const bool normalize : {false, true}) {
      const auto wants = [&](const Sequence* s) { return PoolingOf(*s) == pooling && Normalizes(*s) == normalize; };
      if (std::none_of(members.begin(), members.end(), wants)) continue;
      backend_->Pool(hidden, pooling, pooled_.Rows(0, count));
      const backend::Matrix vectors = ToVectors(count, normalize);
      for (int64_t i = 0; i < count; ++i) {
        const Sequence* member = members[static_cast<size_t>(i)];
        if (wants(member)) PENSIEVE_RETURN_IF_ERROR(CopyOut(*member, vectors, i));
      }
    }
  }
  return OkStatus();
}

Status EmbedPooler::PoolChunk(backend::Matrix hidden, Sequence& sequence, const backend::SequenceRows& rows) {
  const backend::Pooling pooling = PoolingOf(sequence);
  const bool is_first = rows.cached_len == 0;
  const bool is_last = rows.cached_len + rows.num_rows == sequence.len();
  std::vector<float>& pooled = sequence.pooled;
  for (int64_t r = 0; r < rows.num_rows; ++r) {
    const bool wanted = pooling == backend::Pooling::kCls    ? is_first && r == 0
                        : pooling == backend::Pooling::kLast ? is_last && r == rows.num_rows - 1
                                                             : true;
    if (!wanted) continue;
    PENSIEVE_RETURN_IF_ERROR(backend_->CopyToHost(hidden.Rows(rows.first_row + r, 1), host_row_));
    if (pooled.empty()) {
      pooled = host_row_;
    } else if (pooling == backend::Pooling::kMean) {
      for (size_t d = 0; d < pooled.size(); ++d) pooled[d] += host_row_[d];
    } else {
      for (size_t d = 0; d < pooled.size(); ++d) pooled[d] = std::max(pooled[d], host_row_[d]);
    }
  }
  if (!is_last) return OkStatus();
  if (pooling == backend::Pooling::kMean) {
    for (float& value : pooled) value /= static_cast<float>(sequence.len());
  }
  PENSIEVE_RETURN_IF_ERROR(backend_->CopyToDevice(pooled, pooled_.Rows(0, 1)));
  return CopyOut(sequence, ToVectors(1, Normalizes(sequence)), 0);
}

backend::Matrix EmbedPooler::ToVectors(int64_t rows, bool normalize) {
  const backend::Matrix vectors = network_->ProjectPooled(pooled_.Rows(0, rows));
  if (normalize) backend_->L2Normalize(vectors);
  return vectors;
}

Status EmbedPooler::CopyOut(const Sequence& sequence, backend::Matrix vectors, int64_t row) {
  std::vector<float>& out = sequence.request->embeddings[sequence.input_idx];
  out.resize(static_cast<size_t>(vectors.cols));
  return backend_->CopyToHost(vectors.Rows(row, 1), out);
}

}  // namespace pensieve::engine
