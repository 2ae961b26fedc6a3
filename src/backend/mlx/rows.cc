// Operations on the rows of a matrix: embedding, norms, rotary embedding, elementwise, pooling.
#include <algorithm>
#include <cmath>

#include "backend/checks.h"
#include "backend/mlx/mlx_backend.h"
#include "base/check.h"

namespace pensieve::backend::mlx {

mx::array MlxBackend::EmbeddingRows(EmbedBy by) {
  if (by == EmbedBy::kFirst) return mx::zeros({Int(step_.rows)}, mx::int32);
  std::optional<mx::array>& own = by == EmbedBy::kId ? arrays_.ids : arrays_.positions;
  if (!own) own = FromInts(by == EmbedBy::kId ? step_.ids : step_.positions);
  return *own;
}

void MlxBackend::EmbedRows(const Weight& table, EmbedBy by, float scale, Matrix out, bool add) {
  CheckEmbed(step_, table, by, out);
  if (out.rows == 0) return;
  Issue("an embedding with MLX", [&] {
    mx::array rows = TakeRows(static_cast<const MlxWeight*>(table.storage)->operand, EmbeddingRows(by));
    if (scale != 1.0f) rows = mx::multiply(rows, mx::array(scale));
    Put(out, add ? mx::add(Get(out), rows) : rows);
  });
}

void MlxBackend::RmsNorm(Matrix x, Vector weight, float eps, Matrix out) {
  CheckSameShape(x, out);
  if (x.rows == 0) return;
  Issue("a norm with MLX", [&] { Put(out, mx::fast::rms_norm(Get(x), Get(weight, x.cols), eps)); });
}

void MlxBackend::RmsNormHeads(Matrix x, int64_t head_dim, Vector weight, float eps) {
  PENSIEVE_CHECK(head_dim > 0 && x.cols % head_dim == 0);
  if (x.rows == 0) return;
  Issue("a norm with MLX", [&] {
    const mx::array heads = mx::reshape(Get(x), {Int(x.rows), Int(x.cols / head_dim), Int(head_dim)});
    const mx::array normed = mx::fast::rms_norm(heads, Get(weight, head_dim), eps);
    Put(x, mx::reshape(normed, {Int(x.rows), Int(x.cols)}));
  });
}

void MlxBackend::LayerNorm(Matrix x, Vector weight, Vector bias, float eps, Matrix out) {
  CheckSameShape(x, out);
  if (x.rows == 0) return;
  Issue("a norm with MLX", [&] {
    std::optional<mx::array> shift;
    if (bias) shift = Get(bias, x.cols);
    Put(out, mx::fast::layer_norm(Get(x), Get(weight, x.cols), shift, eps));
  });
}

// Cosines and sines of the step's rows, [rows, 1, pairs], each times the table's magnitude. Computed on the host: MLX's
// own rotary kernels neither round angles as RopeTable has it nor reduce large ones accurately. Layers share them.
const std::pair<mx::array, mx::array>& MlxBackend::Angles(const MlxRope& rope, bool is_long) {
  const auto found = arrays_.rotations.find({&rope, is_long});
  if (found != arrays_.rotations.end()) return found->second;
  const MlxRope::Table& table = is_long ? rope.for_long : rope.usual;
  const int64_t pairs = table.rotated / 2;
  std::vector<float> cosines, sines;
  cosines.reserve(static_cast<size_t>(step_.rows * pairs));
  sines.reserve(static_cast<size_t>(step_.rows * pairs));
  for (const int32_t position : step_.positions) {
    for (const float frequency : table.frequencies) {
      const auto angle = static_cast<double>(static_cast<float>(position) * frequency);
      cosines.push_back(static_cast<float>(std::cos(angle) * static_cast<double>(table.magnitude)));
      sines.push_back(static_cast<float>(std::sin(angle) * static_cast<double>(table.magnitude)));
    }
  }
  const mx::Shape shape = {Int(step_.rows), 1, Int(pairs)};
  const auto made = std::pair(FromFloats(cosines, shape), FromFloats(sines, shape));
  return arrays_.rotations.emplace(std::tuple(&rope, is_long), made).first->second;
}

mx::array MlxBackend::RotatedBy(const mx::array& x, const MlxRope& rope, bool is_long) {
  const MlxRope::Table& table = is_long ? rope.for_long : rope.usual;
  if (table.rotated == 0) return x;
  const int rows = x.shape(0);
  const int heads = x.shape(1);
  const int dim = x.shape(2);
  const int rotated = Int(table.rotated);
  const int pairs = rotated / 2;
  const auto& [cosines, sines] = Angles(rope, is_long);
  const auto part = [&](int first, int end, int step) {
    return mx::slice(x, {0, 0, first}, {rows, heads, end}, {1, 1, step});
  };
  const mx::array a = table.interleaved ? part(0, rotated, 2) : part(0, pairs, 1);
  const mx::array b = table.interleaved ? part(1, rotated, 2) : part(pairs, rotated, 1);
  const mx::array first = mx::subtract(mx::multiply(a, cosines), mx::multiply(b, sines));
  const mx::array second = mx::add(mx::multiply(b, cosines), mx::multiply(a, sines));
  std::vector<mx::array> parts;
  if (table.interleaved) {
    parts = {mx::reshape(mx::stack({first, second}, 3), {rows, heads, rotated})};
  } else {
    parts = {first, second};
  }
  if (rotated < dim) parts.push_back(part(rotated, dim, 1));
  return parts.size() == 1 ? parts.front() : mx::concatenate(std::move(parts), 2);
}

void MlxBackend::Rotate(Matrix x, int64_t head_dim, const Rope& rope) {
  CheckRotate(step_, x, head_dim);
  const auto& own = *static_cast<const MlxRope*>(rope.storage);
  PENSIEVE_CHECK(own.usual.rotated <= head_dim && own.for_long.rotated <= head_dim);
  if (x.rows == 0) return;
  Issue("rotating with MLX", [&] {
    const auto is_long = [](const SequenceRows& sequence) { return sequence.long_rope && sequence.num_rows > 0; };
    const bool some = std::any_of(step_.sequences.begin(), step_.sequences.end(), is_long);
    const bool all = some && std::all_of(step_.sequences.begin(), step_.sequences.end(), is_long);
    const mx::array heads = mx::reshape(Get(x), {Int(x.rows), Int(x.cols / head_dim), Int(head_dim)});
    mx::array rotated = RotatedBy(heads, own, all);
    if (some && !all) {
      if (!arrays_.is_long) {
        std::vector<int32_t> rows(static_cast<size_t>(step_.rows), 0);
        for (const SequenceRows& sequence : step_.sequences) {
          std::fill_n(rows.begin() + sequence.first_row, sequence.num_rows, sequence.long_rope ? 1 : 0);
        }
        arrays_.is_long = mx::reshape(mx::astype(FromInts(rows), mx::bool_), {Int(step_.rows), 1, 1});
      }
      rotated = mx::where(*arrays_.is_long, RotatedBy(heads, own, true), rotated);
    }
    Put(x, mx::reshape(rotated, {Int(x.rows), Int(x.cols)}));
  });
}

void MlxBackend::ScaleQueries(Matrix x) {
  PENSIEVE_CHECK(x.rows == static_cast<int64_t>(step_.query_factors.size()));
  if (x.rows == 0) return;
  Issue("scaling queries with MLX", [&] {
    if (!arrays_.query_factors) arrays_.query_factors = FromFloats(step_.query_factors, {Int(x.rows), 1});
    Put(x, mx::multiply(Get(x), *arrays_.query_factors));
  });
}

void MlxBackend::Add(Matrix x, Matrix out) {
  CheckSameShape(x, out);
  if (x.rows == 0) return;
  Issue("a sum with MLX", [&] { Put(out, mx::add(Get(out), Get(x))); });
}

void MlxBackend::Softcap(Matrix x, float cap) {
  if (x.rows == 0) return;
  Issue("a softcap with MLX", [&] {
    const mx::array limit(cap);
    Put(x, mx::multiply(limit, mx::tanh(mx::divide(Get(x), limit))));
  });
}

void MlxBackend::GatherOutputs(Matrix x, Matrix out) {
  CheckGather(step_, x, out);
  if (out.rows == 0) return;
  Issue("gathering rows with MLX", [&] {
    if (!arrays_.output_rows) arrays_.output_rows = FromInts(step_.output_rows);
    Put(out, mx::take(Get(x), *arrays_.output_rows, 0));
  });
}

namespace {

mx::array PoolRows(const mx::array& rows, Pooling pooling) {
  const int count = rows.shape(0);
  const int cols = rows.shape(1);
  switch (pooling) {
    case Pooling::kCls: return mx::slice(rows, {0, 0}, {1, cols});
    case Pooling::kLast: return mx::slice(rows, {count - 1, 0}, {count, cols});
    case Pooling::kMax: return mx::max(rows, 0, /*keepdims=*/true);
    case Pooling::kMean: return mx::divide(mx::sum(rows, 0, /*keepdims=*/true), mx::array(static_cast<float>(count)));
  }
  PENSIEVE_UNREACHABLE();
}

}  // namespace

void MlxBackend::Pool(Matrix x, Pooling pooling, Matrix out) {
  CheckPool(step_, x, out);
  if (out.rows == 0) return;
  Issue("pooling with MLX", [&] {
    const mx::array all = x.rows == 0 ? mx::zeros({1, Int(x.cols)}) : Get(x);
    std::vector<mx::array> pooled;
    for (const SequenceRows& sequence : step_.sequences) {
      if (sequence.num_rows == 0) {
        pooled.push_back(mx::zeros({1, Int(x.cols)}, mx::float32));
        continue;
      }
      const mx::array rows =
          mx::slice(all, {Int(sequence.first_row), 0}, {Int(sequence.first_row + sequence.num_rows), Int(x.cols)});
      pooled.push_back(PoolRows(rows, pooling));
    }
    Put(out, mx::concatenate(std::move(pooled), 0));
  });
}

void MlxBackend::L2Normalize(Matrix x) {
  if (x.rows == 0) return;
  Issue("normalizing with MLX", [&] {
    const mx::array rows = Get(x);
    const mx::array norm = mx::sqrt(mx::sum(mx::square(rows), 1, /*keepdims=*/true));
    Put(x, mx::divide(rows, mx::maximum(norm, mx::array(1e-12f))));
  });
}

}  // namespace pensieve::backend::mlx
