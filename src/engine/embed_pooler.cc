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

void EmbedPooler::PoolWhole(backend::Matrix hidden, std::span<Sequence* const> members,
                            std::span<const backend::SequenceRows> rows) {
  PENSIEVE_CHECK(static_cast<int64_t>(members.size()) <= pooled_.rows);
  // One call per kind of pooling that is there, seldom more than one in all.
  for (const auto pooling :
       {backend::Pooling::kMean, backend::Pooling::kCls, backend::Pooling::kLast, backend::Pooling::kMax}) {
    for (const bool normalize : {false, true}) {
      group_.clear();
      group_rows_.clear();
      for (size_t i = 0; i < members.size(); ++i) {
        if (PoolingOf(*members[i]) != pooling || Normalizes(*members[i]) != normalize) continue;
        group_.push_back(members[i]);
        group_rows_.push_back(rows[i]);
      }
      if (!group_.empty()) PoolGroup(hidden, group_, normalize);
    }
  }
}

void EmbedPooler::PoolGroup(backend::Matrix hidden, std::span<Sequence* const> group, bool normalize) {
  const backend::Matrix out = pooled_.Rows(0, static_cast<int64_t>(group.size()));
  backend_->Pool(hidden, group_rows_, PoolingOf(*group.front()), out);
  const backend::Matrix vectors = ToVectors(out.rows, normalize);
  for (size_t i = 0; i < group.size(); ++i) CopyOut(*group[i], vectors, static_cast<int64_t>(i));
}

void EmbedPooler::PoolChunk(backend::Matrix hidden, Sequence& sequence, const backend::SequenceRows& rows) {
  const backend::Pooling pooling = PoolingOf(sequence);
  const bool is_first = rows.cached_len == 0;
  const bool is_last = rows.cached_len + rows.num_rows == sequence.len();
  std::vector<float>& pooled = sequence.pooled;
  for (int64_t r = 0; r < rows.num_rows; ++r) {
    const bool wanted = pooling == backend::Pooling::kCls    ? is_first && r == 0
                        : pooling == backend::Pooling::kLast ? is_last && r == rows.num_rows - 1
                                                             : true;
    if (!wanted) continue;
    backend_->CopyToHost(hidden.row(rows.first_row + r), host_row_);
    if (pooled.empty()) {
      pooled = host_row_;
    } else if (pooling == backend::Pooling::kMean) {
      for (size_t d = 0; d < pooled.size(); ++d) pooled[d] += host_row_[d];
    } else {
      for (size_t d = 0; d < pooled.size(); ++d) pooled[d] = std::max(pooled[d], host_row_[d]);
    }
  }
  if (!is_last) return;
  if (pooling == backend::Pooling::kMean) {
    for (float& value : pooled) value /= static_cast<float>(sequence.len());
  }
  backend_->CopyToDevice(pooled, pooled_.row(0));
  CopyOut(sequence, ToVectors(1, Normalizes(sequence)), 0);
}

backend::Matrix EmbedPooler::ToVectors(int64_t rows, bool normalize) {
  const backend::Matrix vectors = network_->ProjectPooled(pooled_.Rows(0, rows));
  if (normalize) backend_->L2Normalize(vectors);
  return vectors;
}

void EmbedPooler::CopyOut(const Sequence& sequence, backend::Matrix vectors, int64_t row) {
  std::vector<float>& out = sequence.request->embeddings[sequence.input_idx];
  out.resize(static_cast<size_t>(vectors.cols));
  backend_->CopyToHost(vectors.row(row), out);
}

}  // namespace pensieve::engine
