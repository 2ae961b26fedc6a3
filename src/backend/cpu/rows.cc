// Operations on rows, each row by one worker.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/checks.h"
#include "backend/cpu/cpu_backend.h"
#include "base/check.h"

namespace pensieve::backend::cpu {

void CpuBackend::EmbedRows(const tensor::Weight& table, std::span<const int32_t> ids, float scale, Matrix out,
                           bool add) {
  PENSIEVE_CHECK(static_cast<int64_t>(ids.size()) == out.rows && tensor::Cols(table) == out.cols);
  ForRows(out.rows, out.cols * 8, [&](int64_t r, int worker) {
    float* row = scratch_[static_cast<size_t>(worker)].row.Need<float>(out.cols);
    tensor::DequantizeRow(table, ids[static_cast<size_t>(r)], row);
    kernels_.scale(row, out.cols, scale);
    if (add) {
      kernels_.add(row, out.cols, out.row(r));
    } else {
      std::copy_n(row, out.cols, out.row(r));
    }
  });
}

void CpuBackend::RmsNorm(Matrix x, const float* weight, float eps, Matrix out) {
  CheckSameShape(x, out);
  ForRows(x.rows, x.cols, [&](int64_t r, int) { kernels_.rms_norm(x.row(r), weight, eps, x.cols, out.row(r)); });
}

void CpuBackend::RmsNormHeads(Matrix x, int64_t head_dim, const float* weight, float eps) {
  PENSIEVE_CHECK(head_dim > 0 && x.cols % head_dim == 0);
  ForRows(x.rows, x.cols, [&](int64_t r, int) {
    for (int64_t c = 0; c < x.cols; c += head_dim) {
      kernels_.rms_norm(x.row(r) + c, weight, eps, head_dim, x.row(r) + c);
    }
  });
}

void CpuBackend::LayerNorm(Matrix x, const float* weight, const float* bias, float eps, Matrix out) {
  CheckSameShape(x, out);
  ForRows(x.rows, x.cols,
          [&](int64_t r, int) { kernels_.layer_norm(x.row(r), weight, bias, eps, x.cols, out.row(r)); });
}

const CpuBackend::RopeAngles& CpuBackend::AnglesFor(std::span<const int32_t> positions, const RopeTable& table) {
  const auto pairs = static_cast<size_t>(table.rotated / 2);
  const std::span<const float> frequencies(table.frequencies, pairs);
  for (const RopeAngles& known : angles_) {
    if (known.magnitude == table.magnitude && std::ranges::equal(known.positions, positions) &&
        std::ranges::equal(known.frequencies, frequencies)) {
      return known;
    }
  }
  RopeAngles& fresh = angles_[oldest_angles_];
  oldest_angles_ = (oldest_angles_ + 1) % angles_.size();
  fresh.positions.assign(positions.begin(), positions.end());
  fresh.frequencies.assign(frequencies.begin(), frequencies.end());
  fresh.magnitude = table.magnitude;
  fresh.cosines.resize(positions.size() * pairs);
  fresh.sines.resize(positions.size() * pairs);
  // The f32 angle is exact input to f64 sine and cosine, whose library reduces the range properly.
  ForRows(static_cast<int64_t>(positions.size()), static_cast<int64_t>(pairs) * 16, [&](int64_t r, int) {
    const auto position = static_cast<float>(positions[static_cast<size_t>(r)]);
    for (size_t i = 0; i < pairs; ++i) {
      const auto angle = static_cast<double>(position * frequencies[i]);
      const auto magnitude = static_cast<double>(table.magnitude);
      fresh.cosines[static_cast<size_t>(r) * pairs + i] = static_cast<float>(std::cos(angle) * magnitude);
      fresh.sines[static_cast<size_t>(r) * pairs + i] = static_cast<float>(std::sin(angle) * magnitude);
    }
  });
  return fresh;
}

void CpuBackend::Rope(Matrix x, int64_t head_dim, std::span<const int32_t> positions, const RopeTable& table) {
  PENSIEVE_CHECK(static_cast<int64_t>(positions.size()) == x.rows && head_dim > 0 && x.cols % head_dim == 0);
  PENSIEVE_CHECK(table.rotated % 2 == 0 && table.rotated <= head_dim);
  if (x.rows == 0 || table.rotated == 0) return;
  const RopeAngles& angles = AnglesFor(positions, table);
  const int64_t pairs = table.rotated / 2;
  ForRows(x.rows, x.cols, [&](int64_t r, int) {
    for (int64_t c = 0; c < x.cols; c += head_dim) {
      kernels_.rope(x.row(r) + c, table.rotated, table.interleaved, angles.cosines.data() + r * pairs,
                    angles.sines.data() + r * pairs);
    }
  });
}

void CpuBackend::Add(Matrix x, Matrix out) {
  CheckSameShape(x, out);
  ForRows(x.rows, x.cols, [&](int64_t r, int) { kernels_.add(x.row(r), x.cols, out.row(r)); });
}

void CpuBackend::Scale(Matrix x, float factor) {
  ForRows(x.rows, x.cols, [&](int64_t r, int) { kernels_.scale(x.row(r), x.cols, factor); });
}

void CpuBackend::Softcap(Matrix x, float cap) {
  ForRows(x.rows, x.cols, [&](int64_t r, int) { kernels_.softcap(x.row(r), x.cols, cap); });
}

void CpuBackend::GatherRows(Matrix x, std::span<const int32_t> rows, Matrix out) {
  PENSIEVE_CHECK(static_cast<int64_t>(rows.size()) == out.rows && x.cols == out.cols);
  for (const int32_t row : rows) PENSIEVE_CHECK(row >= 0 && row < x.rows);
  ForRows(out.rows, out.cols,
          [&](int64_t r, int) { std::copy_n(x.row(rows[static_cast<size_t>(r)]), x.cols, out.row(r)); });
}

void CpuBackend::Pool(Matrix x, std::span<const SequenceRows> sequences, Pooling pooling, Matrix out) {
  PENSIEVE_CHECK(static_cast<int64_t>(sequences.size()) == out.rows && x.cols == out.cols);
  CheckSequences(sequences, x.rows, 0, 0);
  ForRows(out.rows, x.cols * 16, [&](int64_t s, int) {
    const SequenceRows& rows = sequences[static_cast<size_t>(s)];
    float* target = out.row(s);
    if (rows.num_rows == 0) {
      std::fill_n(target, out.cols, 0.0f);
      return;
    }
    const int64_t last = rows.first_row + rows.num_rows - 1;
    std::copy_n(x.row(pooling == Pooling::kLast ? last : rows.first_row), x.cols, target);
    if (pooling != Pooling::kMean && pooling != Pooling::kMax) return;
    const auto combine = pooling == Pooling::kMean ? kernels_.add : kernels_.max;
    for (int64_t r = rows.first_row + 1; r <= last; ++r) combine(x.row(r), x.cols, target);
    if (pooling == Pooling::kMean) kernels_.scale(target, x.cols, 1.0f / static_cast<float>(rows.num_rows));
  });
}

void CpuBackend::L2Normalize(Matrix x) {
  ForRows(x.rows, x.cols, [&](int64_t r, int) { kernels_.l2_normalize(x.row(r), x.cols); });
}

}  // namespace pensieve::backend::cpu
