#include "backend/cpu/rows.h"

#include <algorithm>
#include <cmath>

#include "backend/checks.h"
#include "base/check.h"

namespace pensieve::backend::cpu {

CpuRope::CpuRope(const RopeTable& usual, const RopeTable& for_long) {
  const auto copy = [](const RopeTable& table) {
    CheckRopeTable(table);
    return Table{
        {table.frequencies.begin(), table.frequencies.end()}, table.rotated, table.interleaved, table.magnitude};
  };
  usual_ = copy(usual);
  for_long_ = copy(for_long);
  pairs_ = std::max(usual_.rotated, for_long_.rotated) / 2;
}

void RowOps::EmbedRow(const CpuWeight& table, int64_t table_row, float scale, float* out, bool add, int worker) {
  const int64_t cols = table.cols();
  float* row = scratch_[static_cast<size_t>(worker)].row.Need<float>(cols);
  tensor::DequantizeRow(table.weight, table_row, row);
  compute_.kernels.scale(row, cols, scale);
  if (add) {
    compute_.kernels.add(row, cols, out);
  } else {
    std::copy_n(row, cols, out);
  }
}

void RowOps::RmsNorm(MatrixView x, const float* weight, float eps, MatrixView out) {
  compute_.ForRows(x.rows, x.cols,
                   [&](int64_t r, int) { compute_.kernels.rms_norm(x.row(r), weight, eps, x.cols, out.row(r)); });
}

void RowOps::RmsNormHeads(MatrixView x, int64_t head_dim, const float* weight, float eps) {
  compute_.ForRows(x.rows, x.cols, [&](int64_t r, int) {
    for (int64_t c = 0; c < x.cols; c += head_dim) {
      compute_.kernels.rms_norm(x.row(r) + c, weight, eps, head_dim, x.row(r) + c);
    }
  });
}

void RowOps::LayerNorm(MatrixView x, const float* weight, const float* bias, float eps, MatrixView out) {
  compute_.ForRows(x.rows, x.cols, [&](int64_t r, int) {
    compute_.kernels.layer_norm(x.row(r), weight, bias, eps, x.cols, out.row(r));
  });
}

namespace {

// fn(first_row, num_rows, is_long) for every run of sequences that use the same table.
template <typename Fn>
void ForRuns(std::span<const SequenceRows> sequences, Fn fn) {
  for (size_t s = 0; s < sequences.size();) {
    const size_t begin = s;
    while (s < sequences.size() && sequences[s].long_rope == sequences[begin].long_rope) ++s;
    const int64_t first = sequences[begin].first_row;
    fn(first, sequences[s - 1].first_row + sequences[s - 1].num_rows - first, sequences[begin].long_rope);
  }
}

}  // namespace

// The f32 angle is exact input to f64 sine and cosine, whose library reduces the range properly.
void RowOps::MakeAngles(const CpuRope& rope, const StepInputs& step) {
  const auto size = static_cast<size_t>(step.rows * rope.pairs_);
  rope.cosines_.resize(size);
  rope.sines_.resize(size);
  ForRuns(step.sequences, [&](int64_t first, int64_t count, bool is_long) {
    const CpuRope::Table& table = rope.TableOf(is_long);
    const auto magnitude = static_cast<double>(table.magnitude);
    compute_.ForRows(count, rope.pairs_ * 16, [&](int64_t r, int) {
      const auto position = static_cast<float>(step.positions[static_cast<size_t>(first + r)]);
      for (size_t i = 0; i < table.frequencies.size(); ++i) {
        const auto angle = static_cast<double>(position * table.frequencies[i]);
        const size_t at = static_cast<size_t>((first + r) * rope.pairs_) + i;
        rope.cosines_[at] = static_cast<float>(std::cos(angle) * magnitude);
        rope.sines_[at] = static_cast<float>(std::sin(angle) * magnitude);
      }
    });
  });
  rope.step_ = step_;
}

void RowOps::Rotate(MatrixView x, int64_t head_dim, const CpuRope& rope, const StepInputs& step) {
  PENSIEVE_CHECK(2 * rope.pairs_ <= head_dim);
  if (x.rows == 0 || rope.pairs_ == 0) return;
  if (rope.step_ != step_) MakeAngles(rope, step);
  ForRuns(step.sequences, [&](int64_t first, int64_t count, bool is_long) {
    const CpuRope::Table& table = rope.TableOf(is_long);
    compute_.ForRows(count, x.cols, [&](int64_t r, int) {
      float* row = x.row(first + r);
      const int64_t angles = (first + r) * rope.pairs_;
      for (int64_t c = 0; c < x.cols; c += head_dim) {
        compute_.kernels.rope(row + c, table.rotated, table.interleaved, rope.cosines_.data() + angles,
                              rope.sines_.data() + angles);
      }
    });
  });
}

void RowOps::ScaleRows(MatrixView x, std::span<const float> factors) {
  compute_.ForRows(x.rows, x.cols, [&](int64_t r, int) {
    const float factor = factors[static_cast<size_t>(r)];
    if (factor != 1.0f) compute_.kernels.scale(x.row(r), x.cols, factor);
  });
}

void RowOps::Add(MatrixView x, MatrixView out) {
  compute_.ForRows(x.rows, x.cols, [&](int64_t r, int) { compute_.kernels.add(x.row(r), x.cols, out.row(r)); });
}

void RowOps::Softcap(MatrixView x, float cap) {
  compute_.ForRows(x.rows, x.cols, [&](int64_t r, int) { compute_.kernels.softcap(x.row(r), x.cols, cap); });
}

void RowOps::Gather(MatrixView x, std::span<const int32_t> rows, MatrixView out) {
  compute_.ForRows(out.rows, out.cols,
                   [&](int64_t r, int) { std::copy_n(x.row(rows[static_cast<size_t>(r)]), x.cols, out.row(r)); });
}

void RowOps::Pool(MatrixView x, std::span<const SequenceRows> sequences, Pooling pooling, MatrixView out) {
  compute_.ForRows(out.rows, x.cols * 16, [&](int64_t s, int) {
    const SequenceRows& rows = sequences[static_cast<size_t>(s)];
    float* target = out.row(s);
    if (rows.num_rows == 0) {
      std::fill_n(target, out.cols, 0.0f);
      return;
    }
    const int64_t last = rows.first_row + rows.num_rows - 1;
    std::copy_n(x.row(pooling == Pooling::kLast ? last : rows.first_row), x.cols, target);
    if (pooling != Pooling::kMean && pooling != Pooling::kMax) return;
    const auto combine = pooling == Pooling::kMean ? compute_.kernels.add : compute_.kernels.max;
    for (int64_t r = rows.first_row + 1; r <= last; ++r) combine(x.row(r), x.cols, target);
    if (pooling == Pooling::kMean) compute_.kernels.scale(target, x.cols, 1.0f / static_cast<float>(rows.num_rows));
  });
}

void RowOps::L2Normalize(MatrixView x) {
  compute_.ForRows(x.rows, x.cols, [&](int64_t r, int) { compute_.kernels.l2_normalize(x.row(r), x.cols); });
}

void RowOps::Draw(MatrixView logits, std::span<const int32_t> rows, std::span<const DrawParams> params,
                  std::vector<int32_t>& tokens) {
  tokens.assign(rows.size(), kNoToken);
  compute_.pool.Run(static_cast<int64_t>(rows.size()), [&](int64_t i, int worker) {
    const auto at = static_cast<size_t>(i);
    const std::span<float> row(logits.row(rows[at]), static_cast<size_t>(logits.cols));
    if (!IsDrawable(row, params[at])) return;
    MakeComparable(row);
    tokens[at] = scratch_[static_cast<size_t>(worker)].drawer.Draw(row, params[at]);
  });
}

}  // namespace pensieve::backend::cpu
