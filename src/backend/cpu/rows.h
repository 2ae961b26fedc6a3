// Operations on rows, each row by one worker: embeddings, norms, rotations, element by element, pooling, drawing.
// Engine-thread-only.
#pragma once

#include <array>
#include <deque>
#include <span>
#include <vector>

#include "backend/cpu/compute.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/weight.h"
#include "backend/draw.h"
#include "backend/matrix_view.h"

namespace pensieve::backend::cpu {

// Two tables, of which each sequence uses one, and their angles of the present step.
class CpuRope final : public RopeStorage {
 public:
  CpuRope(const RopeTable& usual, const RopeTable& for_long);

 private:
  friend class RowOps;
  struct Table {
    std::vector<float> frequencies;
    int64_t rotated = 0;
    bool interleaved = false;
    float magnitude = 1.0f;
  };
  const Table& TableOf(bool is_long) const { return is_long ? for_long_ : usual_; }

  Table usual_, for_long_;
  int64_t pairs_ = 0;  // of the longer table
  // [rows, pairs_], made when the first layer of a step asks.
  mutable int64_t step_ = -1;
  mutable std::vector<float> cosines_;
  mutable std::vector<float> sines_;
};

class RowOps {
 public:
  explicit RowOps(const Compute& compute) : compute_(compute), scratch_(static_cast<size_t>(compute.pool.threads())) {}

  void BeginStep() { ++step_; }

  // out[r] (+)= scale * table[row_of(r)].
  template <typename Fn>
  void Embed(const CpuWeight& table, float scale, MatrixView out, bool add, Fn row_of) {
    compute_.ForRows(out.rows, out.cols * 8,
                     [&](int64_t r, int worker) { EmbedRow(table, row_of(r), scale, out.row(r), add, worker); });
  }
  void RmsNorm(MatrixView x, const float* weight, float eps, MatrixView out);
  void RmsNormHeads(MatrixView x, int64_t head_dim, const float* weight, float eps);
  void LayerNorm(MatrixView x, const float* weight, const float* bias, float eps, MatrixView out);
  void Rotate(MatrixView x, int64_t head_dim, const CpuRope& rope, const StepInputs& step);
  void ScaleRows(MatrixView x, std::span<const float> factors);
  void Add(MatrixView x, MatrixView out);
  void Softcap(MatrixView x, float cap);
  void Gather(MatrixView x, std::span<const int32_t> rows, MatrixView out);
  void Pool(MatrixView x, std::span<const SequenceRows> sequences, Pooling pooling, MatrixView out);
  void L2Normalize(MatrixView x);
  void Draw(MatrixView logits, std::span<const int32_t> rows, std::span<const DrawParams> params,
            std::vector<int32_t>& tokens);

 private:
  struct WorkerScratch {
    Scratch row;
    TokenDrawer drawer;
  };

  void EmbedRow(const CpuWeight& table, int64_t table_row, float scale, float* out, bool add, int worker);
  void MakeAngles(const CpuRope& rope, const StepInputs& step);

  const Compute compute_;
  int64_t step_ = 0;
  std::vector<WorkerScratch> scratch_;  // one a worker
};

}  // namespace pensieve::backend::cpu
