// Operations on the rows of a matrix: embedding, norms, rotary embedding, elementwise, pooling.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/checks.h"
#include "backend/reference/reference_backend.h"
#include "base/check.h"

namespace pensieve::backend::reference {
namespace {

void RmsNormRow(const float* x, const float* weight, int64_t n, float eps, float* out) {
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(eps));
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>(static_cast<double>(x[i]) * inverse * static_cast<double>(weight[i]));
  }
}

void RotateHead(float* head, float position, const RopeTable& table) {
  const int64_t pairs = table.rotated / 2;
  for (int64_t i = 0; i < pairs; ++i) {
    float& a = head[table.interleaved ? 2 * i : i];
    float& b = head[table.interleaved ? 2 * i + 1 : i + pairs];
    const float angle = position * table.frequencies[i];  // rounded to f32 on purpose, see RopeTable
    const double c = std::cos(static_cast<double>(angle)) * static_cast<double>(table.magnitude);
    const double s = std::sin(static_cast<double>(angle)) * static_cast<double>(table.magnitude);
    const auto x = static_cast<double>(a);
    const auto y = static_cast<double>(b);
    a = static_cast<float>(x * c - y * s);
    b = static_cast<float>(y * c + x * s);
  }
}

}  // namespace

void ReferenceBackend::EmbedRows(const tensor::Weight& table, std::span<const int32_t> ids, float scale, Matrix out,
                                 bool add) {
  PENSIEVE_CHECK(static_cast<int64_t>(ids.size()) == out.rows && tensor::Cols(table) == out.cols);
  std::vector<float> row(static_cast<size_t>(out.cols));
  for (int64_t r = 0; r < out.rows; ++r) {
    tensor::DequantizeRow(table, ids[static_cast<size_t>(r)], row.data());
    for (int64_t c = 0; c < out.cols; ++c) {
      const float value = row[static_cast<size_t>(c)] * scale;
      out.row(r)[c] = add ? out.row(r)[c] + value : value;
    }
  }
}

void ReferenceBackend::RmsNorm(Matrix x, const float* weight, float eps, Matrix out) {
  CheckSameShape(x, out);
  for (int64_t r = 0; r < x.rows; ++r) RmsNormRow(x.row(r), weight, x.cols, eps, out.row(r));
}

void ReferenceBackend::RmsNormHeads(Matrix x, int64_t head_dim, const float* weight, float eps) {
  PENSIEVE_CHECK(head_dim > 0 && x.cols % head_dim == 0);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; c += head_dim) RmsNormRow(x.row(r) + c, weight, head_dim, eps, x.row(r) + c);
  }
}

void ReferenceBackend::LayerNorm(Matrix x, const float* weight, const float* bias, float eps, Matrix out) {
  CheckSameShape(x, out);
  const auto n = static_cast<double>(x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    double sum = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) sum += static_cast<double>(x.row(r)[c]);
    const double mean = sum / n;
    double squares = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) {
      const double d = static_cast<double>(x.row(r)[c]) - mean;
      squares += d * d;
    }
    const double inverse = 1.0 / std::sqrt(squares / n + static_cast<double>(eps));
    for (int64_t c = 0; c < x.cols; ++c) {
      const double normal = (static_cast<double>(x.row(r)[c]) - mean) * inverse;
      const double shift = bias == nullptr ? 0.0 : static_cast<double>(bias[c]);
      out.row(r)[c] = static_cast<float>(normal * static_cast<double>(weight[c]) + shift);
    }
  }
}

void ReferenceBackend::Rope(Matrix x, int64_t head_dim, std::span<const int32_t> positions, const RopeTable& table) {
  PENSIEVE_CHECK(static_cast<int64_t>(positions.size()) == x.rows && head_dim > 0 && x.cols % head_dim == 0);
  PENSIEVE_CHECK(table.rotated % 2 == 0 && table.rotated <= head_dim);
  for (int64_t r = 0; r < x.rows; ++r) {
    const auto position = static_cast<float>(positions[static_cast<size_t>(r)]);
    for (int64_t c = 0; c < x.cols; c += head_dim) RotateHead(x.row(r) + c, position, table);
  }
}

void ReferenceBackend::Add(Matrix x, Matrix out) {
  CheckSameShape(x, out);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) out.row(r)[c] += x.row(r)[c];
  }
}

void ReferenceBackend::Scale(Matrix x, float factor) {
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) x.row(r)[c] *= factor;
  }
}

void ReferenceBackend::Softcap(Matrix x, float cap) {
  const auto limit = static_cast<double>(cap);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) {
      x.row(r)[c] = static_cast<float>(limit * std::tanh(static_cast<double>(x.row(r)[c]) / limit));
    }
  }
}

void ReferenceBackend::GatherRows(Matrix x, std::span<const int32_t> rows, Matrix out) {
  PENSIEVE_CHECK(static_cast<int64_t>(rows.size()) == out.rows && x.cols == out.cols);
  for (int64_t r = 0; r < out.rows; ++r) {
    const int32_t source = rows[static_cast<size_t>(r)];
    PENSIEVE_CHECK(source >= 0 && source < x.rows);
    std::copy_n(x.row(source), x.cols, out.row(r));
  }
}

void ReferenceBackend::Pool(Matrix x, std::span<const SequenceRows> sequences, Pooling pooling, Matrix out) {
  PENSIEVE_CHECK(static_cast<int64_t>(sequences.size()) == out.rows && x.cols == out.cols);
  CheckSequences(sequences, x.rows, 0, 0);
  for (size_t s = 0; s < sequences.size(); ++s) {
    float* target = out.row(static_cast<int64_t>(s));
    std::fill_n(target, out.cols, 0.0f);
    const SequenceRows& rows = sequences[s];
    if (rows.num_rows == 0) continue;
    const int64_t last = rows.first_row + rows.num_rows - 1;
    if (pooling == Pooling::kCls) std::copy_n(x.row(rows.first_row), x.cols, target);
    if (pooling == Pooling::kLast) std::copy_n(x.row(last), x.cols, target);
    if (pooling == Pooling::kMax) {
      std::copy_n(x.row(rows.first_row), x.cols, target);
      for (int64_t r = rows.first_row + 1; r <= last; ++r) {
        for (int64_t c = 0; c < x.cols; ++c) target[c] = std::max(target[c], x.row(r)[c]);
      }
    }
    if (pooling == Pooling::kMean) {
      for (int64_t c = 0; c < x.cols; ++c) {
        double sum = 0.0;
        for (int64_t r = rows.first_row; r <= last; ++r) sum += static_cast<double>(x.row(r)[c]);
        target[c] = static_cast<float>(sum / static_cast<double>(rows.num_rows));
      }
    }
  }
}

void ReferenceBackend::L2Normalize(Matrix x) {
  for (int64_t r = 0; r < x.rows; ++r) {
    double squares = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) squares += static_cast<double>(x.row(r)[c]) * static_cast<double>(x.row(r)[c]);
    const double norm = std::max(std::sqrt(squares), 1e-12);
    for (int64_t c = 0; c < x.cols; ++c) x.row(r)[c] = static_cast<float>(static_cast<double>(x.row(r)[c]) / norm);
  }
}

}  // namespace pensieve::backend::reference
