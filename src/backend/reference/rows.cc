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

void RotateHead(float* head, float position, const ReferenceRope::Table& table) {
  const int64_t pairs = table.rotated / 2;
  for (int64_t i = 0; i < pairs; ++i) {
    float& a = head[table.interleaved ? 2 * i : i];
    float& b = head[table.interleaved ? 2 * i + 1 : i + pairs];
    const float angle =
        position * table.frequencies[static_cast<size_t>(i)];  // rounded to f32 on purpose, see RopeTable
    const double c = std::cos(static_cast<double>(angle)) * static_cast<double>(table.magnitude);
    const double s = std::sin(static_cast<double>(angle)) * static_cast<double>(table.magnitude);
    const auto x = static_cast<double>(a);
    const auto y = static_cast<double>(b);
    a = static_cast<float>(x * c - y * s);
    b = static_cast<float>(y * c + x * s);
  }
}

}  // namespace

void ReferenceBackend::EmbedRows(const Weight& table, EmbedBy by, float scale, Matrix out, bool add) {
  CheckEmbed(step(), table, by, out);
  const MatrixView target = View(out);
  std::vector<float> row(static_cast<size_t>(out.cols));
  for (int64_t r = 0; r < out.rows; ++r) {
    tensor::DequantizeRow(static_cast<const ReferenceWeight*>(table.storage)->weight, EmbeddingRow(by, r), row.data());
    for (int64_t c = 0; c < out.cols; ++c) {
      const float value = row[static_cast<size_t>(c)] * scale;
      target.row(r)[c] = add ? target.row(r)[c] + value : value;
    }
  }
}

void ReferenceBackend::RmsNorm(Matrix x, Vector weight, float eps, Matrix out) {
  CheckSameShape(x, out);
  for (int64_t r = 0; r < x.rows; ++r) RmsNormRow(View(x).row(r), View(weight), x.cols, eps, View(out).row(r));
}

void ReferenceBackend::RmsNormHeads(Matrix x, int64_t head_dim, Vector weight, float eps) {
  PENSIEVE_CHECK(head_dim > 0 && x.cols % head_dim == 0);
  for (int64_t r = 0; r < x.rows; ++r) {
    float* row = View(x).row(r);
    for (int64_t c = 0; c < x.cols; c += head_dim) RmsNormRow(row + c, View(weight), head_dim, eps, row + c);
  }
}

void ReferenceBackend::LayerNorm(Matrix x, Vector weight, Vector bias, float eps, Matrix out) {
  CheckSameShape(x, out);
  const auto n = static_cast<double>(x.cols);
  const float* scales = View(weight);
  const float* shifts = View(bias);
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = View(x).row(r);
    double sum = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) sum += static_cast<double>(row[c]);
    const double mean = sum / n;
    double squares = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) {
      const double d = static_cast<double>(row[c]) - mean;
      squares += d * d;
    }
    const double inverse = 1.0 / std::sqrt(squares / n + static_cast<double>(eps));
    for (int64_t c = 0; c < x.cols; ++c) {
      const double normal = (static_cast<double>(row[c]) - mean) * inverse;
      const double shift = shifts == nullptr ? 0.0 : static_cast<double>(shifts[c]);
      View(out).row(r)[c] = static_cast<float>(normal * static_cast<double>(scales[c]) + shift);
    }
  }
}

void ReferenceBackend::Rotate(Matrix x, int64_t head_dim, const Rope& rope) {
  const auto& own = *static_cast<const ReferenceRope*>(rope.storage);
  CheckRotate(step(), x, head_dim);
  PENSIEVE_CHECK(own.usual.rotated <= head_dim && own.for_long.rotated <= head_dim);
  for (const SequenceRows& sequence : step().sequences) {
    for (int64_t r = sequence.first_row; r < sequence.first_row + sequence.num_rows; ++r) {
      const auto position = static_cast<float>(step().positions[static_cast<size_t>(r)]);
      for (int64_t c = 0; c < x.cols; c += head_dim) {
        RotateHead(View(x).row(r) + c, position, sequence.long_rope ? own.for_long : own.usual);
      }
    }
  }
}

void ReferenceBackend::ScaleQueries(Matrix x) {
  PENSIEVE_CHECK(x.rows == static_cast<int64_t>(step().query_factors.size()));
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) View(x).row(r)[c] *= step().query_factors[static_cast<size_t>(r)];
  }
}

void ReferenceBackend::Add(Matrix x, Matrix out) {
  CheckSameShape(x, out);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) View(out).row(r)[c] += View(x).row(r)[c];
  }
}

void ReferenceBackend::Softcap(Matrix x, float cap) {
  const auto limit = static_cast<double>(cap);
  for (int64_t r = 0; r < x.rows; ++r) {
    float* row = View(x).row(r);
    for (int64_t c = 0; c < x.cols; ++c) {
      row[c] = static_cast<float>(limit * std::tanh(static_cast<double>(row[c]) / limit));
    }
  }
}

void ReferenceBackend::GatherOutputs(Matrix x, Matrix out) {
  CheckGather(step(), x, out);
  for (int64_t r = 0; r < out.rows; ++r) {
    std::copy_n(View(x).row(step().output_rows[static_cast<size_t>(r)]), x.cols, View(out).row(r));
  }
}

void ReferenceBackend::Pool(Matrix matrix, Pooling pooling, Matrix out) {
  CheckPool(step(), matrix, out);
  const MatrixView x = View(matrix);
  for (size_t s = 0; s < step().sequences.size(); ++s) {
    float* target = View(out).row(static_cast<int64_t>(s));
    std::fill_n(target, out.cols, 0.0f);
    const SequenceRows& rows = step().sequences[s];
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
    float* row = View(x).row(r);
    double squares = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) squares += static_cast<double>(row[c]) * static_cast<double>(row[c]);
    const double norm = std::max(std::sqrt(squares), 1e-12);
    for (int64_t c = 0; c < x.cols; ++c) row[c] = static_cast<float>(static_cast<double>(row[c]) / norm);
  }
}

}  // namespace pensieve::backend::reference
