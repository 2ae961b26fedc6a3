// Runs a loaded model in tests: sequences with their own KV blocks, whole or in chunks, alone or together.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/mapped_file.h"
#include "model/loader.h"

namespace pensieve::model {

using Logits = std::vector<std::vector<float>>;

inline std::string TestData(const std::string& name) {
  return std::string(PENSIEVE_SOURCE_DIR) + "/tests/data/models/" + name;
}

inline Json ReadGolden(const std::string& name) {
  const auto text = ReadFile(TestData(name), 16 << 20);
  EXPECT_TRUE(text.has_value()) << text.error().message();
  return text ? *ParseJson(*text) : Json();
}

// One sequence and its place in the cache. Blocks are handed out backwards so that tables are no identity.
struct TestSequence {
  std::vector<int32_t> blocks;
  int64_t cached_len = 0;
  bool long_rope = false;
};

class Runner {
 public:
  explicit Runner(LoadedModel& model, int64_t num_blocks = 64, backend::KvDType dtype = backend::KvDType::kF32)
      : model_(model), next_block_(static_cast<int32_t>(num_blocks)) {
    if (model.config.is_encoder) return;
    auto cache = model.backend->NewKvCache({.layers = model.config.layers,
                                            .kv_heads = model.config.kv_heads,
                                            .head_dim = model.config.head_dim,
                                            .block_len = kBlockLen,
                                            .num_blocks = num_blocks,
                                            .dtype = dtype});
    EXPECT_TRUE(cache.has_value());
    cache_ = *std::move(cache);
  }

  TestSequence NewSequence(int64_t tokens_max) {
    TestSequence sequence;
    sequence.long_rope = model_.network->UsesLongRope(tokens_max);
    for (int64_t i = 0; i < (tokens_max + kBlockLen - 1) / kBlockLen; ++i) sequence.blocks.push_back(--next_block_);
    EXPECT_GE(next_block_, 0);
    return sequence;
  }

  struct Piece {
    TestSequence* sequence;
    std::vector<int32_t> tokens;
  };

  // One forward pass over all pieces; logits of every row, in their order. Precise are the first positions and, with
  // `all_precise`, all rows, as those that a model has said.
  Logits Step(const std::vector<Piece>& pieces, bool all_precise = false) {
    std::vector<int32_t> tokens, positions, outputs;
    std::vector<size_t> places;  // of each row of the batch, among the rows as they are given
    std::vector<backend::SequenceRows> rows;
    int64_t precise_rows = 0;
    for (const bool precise : {true, false}) {
      size_t first_place = 0;
      for (const Piece& piece : pieces) {
        const auto count = static_cast<int64_t>(piece.tokens.size());
        const int64_t cached = piece.sequence->cached_len;
        const int64_t turn = all_precise ? count : std::clamp<int64_t>(kPrecisePositions - cached, 0, count);
        const int64_t first = precise ? 0 : turn;
        const int64_t end = precise ? turn : count;
        if (first < end) {
          rows.push_back({static_cast<int64_t>(tokens.size()), end - first, cached + first, piece.sequence->blocks,
                          piece.sequence->long_rope});
        }
        for (int64_t i = first; i < end; ++i) {
          outputs.push_back(static_cast<int32_t>(tokens.size()));
          positions.push_back(static_cast<int32_t>(cached + i));
          tokens.push_back(piece.tokens[static_cast<size_t>(i)]);
          places.push_back(first_place + static_cast<size_t>(i));
        }
        first_place += piece.tokens.size();
      }
      if (precise) precise_rows = static_cast<int64_t>(tokens.size());
    }
    for (const Piece& piece : pieces) piece.sequence->cached_len += static_cast<int64_t>(piece.tokens.size());
    Batch batch = BatchOf(tokens, positions, rows);
    batch.precise_rows = precise_rows;
    batch.output_rows = outputs;
    Logits computed = ToHost(model_.network->Forward(batch, *cache_));
    Logits given(computed.size());
    for (size_t i = 0; i < computed.size(); ++i) given[places[i]] = std::move(computed[i]);
    return given;
  }

  // Logits of a text whose first token stands at `first_position`, as if it were planned to reach the context's end.
  Logits PrefillAt(const std::vector<int32_t>& tokens, int32_t first_position) {
    const TestSequence sequence = NewSequence(static_cast<int64_t>(tokens.size()));
    std::vector<int32_t> positions(tokens.size()), outputs(tokens.size());
    std::iota(positions.begin(), positions.end(), first_position);
    std::iota(outputs.begin(), outputs.end(), 0);
    const std::vector<backend::SequenceRows> rows = {{0, static_cast<int64_t>(tokens.size()), 0, sequence.blocks,
                                                      model_.network->UsesLongRope(model_.config.context_max)}};
    Batch batch = BatchOf(tokens, positions, rows);
    batch.output_rows = outputs;
    return ToHost(model_.network->Forward(batch, *cache_));
  }

  // The whole text as one sequence, in chunks of at most `chunk` tokens.
  Logits Prefill(const std::vector<int32_t>& tokens, size_t chunk) {
    TestSequence sequence = NewSequence(static_cast<int64_t>(tokens.size()));
    Logits all;
    for (size_t first = 0; first < tokens.size(); first += chunk) {
      const size_t last = std::min(first + chunk, tokens.size());
      for (auto& row :
           Step({{&sequence, {tokens.begin() + static_cast<long>(first), tokens.begin() + static_cast<long>(last)}}})) {
        all.push_back(std::move(row));
      }
    }
    return all;
  }

  std::vector<int32_t> Greedy(const std::vector<int32_t>& prompt, size_t count) {
    TestSequence sequence = NewSequence(static_cast<int64_t>(prompt.size() + count));
    std::vector<int32_t> tokens;
    std::vector<float> last = Step({{&sequence, prompt}}).back();
    while (tokens.size() < count) {
      tokens.push_back(static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
      last = Step({{&sequence, {tokens.back()}}}, /*all_precise=*/true).back();
    }
    return tokens;
  }

  // Final hidden states of all rows of a decoder.
  Logits Hidden(const std::vector<int32_t>& tokens) {
    const TestSequence sequence = NewSequence(static_cast<int64_t>(tokens.size()));
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<backend::SequenceRows> rows = {{0, static_cast<int64_t>(tokens.size()), 0, sequence.blocks}};
    return ToHost(model_.network->Hidden(BatchOf(tokens, positions, rows), cache_.get()));
  }

  // One vector a text, pooled and normalized as the model says; all texts in one batch.
  Logits Embed(const std::vector<std::vector<int32_t>>& texts) {
    std::vector<int32_t> tokens, positions;
    std::vector<backend::SequenceRows> rows;
    for (const auto& text : texts) {
      rows.push_back({static_cast<int64_t>(tokens.size()), static_cast<int64_t>(text.size()), 0, {}});
      for (size_t i = 0; i < text.size(); ++i) positions.push_back(static_cast<int32_t>(i));
      tokens.insert(tokens.end(), text.begin(), text.end());
    }
    const backend::Matrix hidden = model_.network->Hidden(BatchOf(tokens, positions, rows), nullptr);
    const auto pooled = model_.backend->NewMatrix(static_cast<int64_t>(texts.size()), model_.config.hidden_size);
    EXPECT_TRUE(pooled.has_value());
    model_.backend->Pool(hidden, model_.config.pooling, *pooled);
    const backend::Matrix vectors = model_.network->ProjectPooled(*pooled);
    if (model_.config.normalize) model_.backend->L2Normalize(vectors);
    return ToHost(vectors);
  }

 private:
  static constexpr int64_t kBlockLen = 16;

  static Batch BatchOf(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
                       const std::vector<backend::SequenceRows>& rows) {
    return {.rows = static_cast<int64_t>(tokens.size()), .ids = tokens, .positions = positions, .sequences = rows};
  }

  Logits ToHost(backend::Matrix matrix) {
    model_.backend->Submit();
    EXPECT_TRUE(model_.backend->EndStep().ok());
    Logits out(static_cast<size_t>(matrix.rows), std::vector<float>(static_cast<size_t>(matrix.cols)));
    for (int64_t r = 0; r < matrix.rows; ++r) {
      EXPECT_TRUE(model_.backend->CopyToHost(matrix.Rows(r, 1), out[static_cast<size_t>(r)]).ok());
    }
    return out;
  }

  LoadedModel& model_;
  int32_t next_block_;
  std::unique_ptr<backend::KvCache> cache_;
};

inline std::vector<double> LogSoftmax(const std::vector<float>& logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  std::vector<double> out;
  for (const float x : logits) out.push_back(static_cast<double>(x) - top - std::log(sum));
  return out;
}

inline double Cosine(const std::vector<float>& a, const std::vector<double>& b) {
  double dot = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    dot += a[i] * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += b[i] * b[i];
  }
  return dot / std::sqrt(aa * bb);
}

}  // namespace pensieve::model
