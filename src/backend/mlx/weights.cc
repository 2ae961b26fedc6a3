#include "backend/mlx/weights.h"

#include <cmath>
#include <cstring>
#include <variant>

#include "base/check.h"
#include "base/mapped_range.h"

namespace pensieve::backend::mlx {
namespace {

mx::Shape ShapeOf(bool stacked, size_t count, int64_t rows, int64_t cols) {
  if (!stacked) return {Int(rows), Int(cols)};
  return {Int(static_cast<int64_t>(count)), Int(rows), Int(cols)};
}

int64_t RowsOf(const tensor::Weight& weight, RowsTaken taken) {
  return (tensor::Rows(weight) - taken.first + taken.step - 1) / taken.step;
}

// One plane of every weight, row by row: planes(weight) is its first byte.
template <typename Plane>
mx::array CopyPlane(std::span<const tensor::Weight> weights, RowsTaken taken, int64_t row_bytes, mx::Shape shape,
                    mx::Dtype dtype, Plane plane) {
  const int64_t rows = RowsOf(weights.front(), taken);
  const size_t total = weights.size() * static_cast<size_t>(rows * row_bytes);
  mx::array result(mx::allocator::malloc(std::max<size_t>(total, 1)), std::move(shape), dtype);
  PENSIEVE_CHECK(result.nbytes() == total);
  auto* target = result.data<uint8_t>();
  for (const tensor::Weight& weight : weights) {
    const auto* source = static_cast<const uint8_t*>(plane(weight));
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(target, source + (taken.first + r * taken.step) * row_bytes, static_cast<size_t>(row_bytes));
      target += row_bytes;
    }
  }
  return result;
}

Operand CopyDense(std::span<const tensor::Weight> weights, bool stacked, RowsTaken taken) {
  const int64_t rows = RowsOf(weights.front(), taken);
  const int64_t cols = tensor::Cols(weights.front());
  const mx::Shape shape = ShapeOf(stacked, weights.size(), rows, cols);
  const size_t total = weights.size() * static_cast<size_t>(rows * cols) * sizeof(float);
  mx::array values(mx::allocator::malloc(std::max<size_t>(total, 1)), shape, mx::float32);
  auto* target = values.data<float>();
  for (const tensor::Weight& weight : weights) {
    for (int64_t r = 0; r < rows; ++r, target += cols) {
      tensor::DequantizeRow(weight, taken.first + r * taken.step, target);
    }
  }
  return {.values = values};
}

mx::Dtype TypeOf(tensor::DType dtype) {
  if (dtype == tensor::DType::kF32) return mx::float32;
  return dtype == tensor::DType::kF16 ? mx::float16 : mx::bfloat16;
}

// f32, as the activations are: MLX would convert scales of another type at every call.
mx::array CopyScales(std::span<const tensor::Weight> weights, bool stacked, RowsTaken taken, bool biases) {
  const auto& form = std::get<tensor::AffineWeight>(weights.front());
  const mx::Shape shape = ShapeOf(stacked, weights.size(), RowsOf(weights.front(), taken), form.groups());
  const auto row_bytes = form.groups() * static_cast<int64_t>(tensor::DTypeBytes(form.scale_dtype));
  const mx::array copied =
      CopyPlane(weights, taken, row_bytes, shape, TypeOf(form.scale_dtype), [&](const tensor::Weight& w) {
        const auto& affine = std::get<tensor::AffineWeight>(w);
        return biases ? affine.biases : affine.scales;
      });
  return mx::astype(copied, mx::float32);
}

Operand CopyAffine(std::span<const tensor::Weight> weights, bool stacked, RowsTaken taken) {
  const auto& form = std::get<tensor::AffineWeight>(weights.front());
  const mx::Shape shape = ShapeOf(stacked, weights.size(), RowsOf(weights.front(), taken), form.row_bytes() / 4);
  Operand result = {.values = CopyPlane(weights, taken, form.row_bytes(), shape, mx::uint32,
                                        [](const tensor::Weight& w) {
                                          return static_cast<const void*>(std::get<tensor::AffineWeight>(w).codes);
                                        }),
                    .bits = form.bits,
                    .group = form.group};
  result.scales = CopyScales(weights, stacked, taken, /*biases=*/false);
  // MLX's form always has biases; w = scale * (q - zero).
  const auto zero = static_cast<float>(1 << (form.bits - 1));
  result.biases = form.biases != nullptr ? CopyScales(weights, stacked, taken, /*biases=*/true)
                                         : mx::multiply(*result.scales, mx::array(-zero));
  return result;
}

Operand CopyMxfp4(std::span<const tensor::Weight> weights, bool stacked, RowsTaken taken) {
  const int64_t rows = RowsOf(weights.front(), taken);
  const int64_t cols = tensor::Cols(weights.front());
  Operand result = {
      .values = CopyPlane(
          weights, taken, cols / 2, ShapeOf(stacked, weights.size(), rows, cols / 8), mx::uint32,
          [](const tensor::Weight& w) { return static_cast<const void*>(std::get<tensor::Mxfp4Weight>(w).codes); }),
      .bits = 4,
      .group = 32};
  result.scales = CopyPlane(
      weights, taken, cols / 32, ShapeOf(stacked, weights.size(), rows, cols / 32), mx::uint8,
      [](const tensor::Weight& w) { return static_cast<const void*>(std::get<tensor::Mxfp4Weight>(w).scales); });
  return result;
}

bool SameForm(const tensor::Weight& a, const tensor::Weight& b) {
  if (a.index() != b.index()) return false;
  const auto* x = std::get_if<tensor::AffineWeight>(&a);
  if (x == nullptr) return true;
  const auto& y = std::get<tensor::AffineWeight>(b);
  return x->bits == y.bits && x->group == y.group && x->scale_dtype == y.scale_dtype &&
         (x->biases == nullptr) == (y.biases == nullptr);
}

}  // namespace

Operand CopyWeights(std::span<const tensor::Weight> weights, bool stacked, RowsTaken taken) {
  PENSIEVE_CHECK(!weights.empty() && (stacked || weights.size() == 1));
  const tensor::Weight& first = weights.front();
  for (const tensor::Weight& weight : weights) {
    PENSIEVE_CHECK(tensor::Rows(weight) == tensor::Rows(first) && tensor::Cols(weight) == tensor::Cols(first));
  }
  const bool alike = std::all_of(weights.begin(), weights.end(),
                                 [&](const tensor::Weight& weight) { return SameForm(first, weight); });
  const auto* affine = std::get_if<tensor::AffineWeight>(&first);
  if (alike && affine != nullptr && affine->group >= 32) return CopyAffine(weights, stacked, taken);
  if (alike && std::holds_alternative<tensor::Mxfp4Weight>(first)) return CopyMxfp4(weights, stacked, taken);
  return CopyDense(weights, stacked, taken);
}

void ReleasePages(const tensor::Weight& weight) {
  const auto release = [](const void* data, int64_t bytes) {
    if (data != nullptr) AdviseMappedDone({static_cast<const std::byte*>(data), static_cast<size_t>(bytes)});
  };
  if (const auto* dense = std::get_if<tensor::DenseWeight>(&weight)) {
    release(dense->data, dense->rows * dense->cols * static_cast<int64_t>(tensor::DTypeBytes(dense->dtype)));
  } else if (const auto* affine = std::get_if<tensor::AffineWeight>(&weight)) {
    const auto scale_bytes = affine->rows * affine->groups() * static_cast<int64_t>(DTypeBytes(affine->scale_dtype));
    release(affine->codes, affine->rows * affine->row_bytes());
    release(affine->scales, scale_bytes);
    release(affine->biases, scale_bytes);
  } else {
    const auto& fp4 = std::get<tensor::Mxfp4Weight>(weight);
    release(fp4.codes, fp4.rows * fp4.cols / 2);
    release(fp4.scales, fp4.rows * fp4.cols / 32);
  }
}

mx::array Multiply(const mx::array& x, const Operand& w) {
  if (w.is_dense()) return mx::matmul(x, mx::swapaxes(w.values, -1, -2));
  return mx::quantized_matmul(x, w.values, *w.scales, w.biases, /*transpose=*/true, w.group, w.bits, w.mode());
}

mx::array TakeRows(const Operand& table, const mx::array& rows) {
  const mx::array values = mx::take(table.values, rows, 0);
  if (table.is_dense()) return values;
  std::optional<mx::array> biases;
  if (table.biases) biases = mx::take(*table.biases, rows, 0);
  return mx::dequantize(values, mx::take(*table.scales, rows, 0), biases, table.group, table.bits, table.mode(),
                        std::nullopt, mx::float32);
}

mx::array MultiplyChosen(const mx::array& x, const Operand& stack, const mx::array& chosen) {
  if (stack.is_dense()) return mx::gather_mm(x, mx::swapaxes(stack.values, -1, -2), std::nullopt, chosen);
  return mx::gather_qmm(x, stack.values, *stack.scales, stack.biases, std::nullopt, chosen, /*transpose=*/true,
                        stack.group, stack.bits, stack.mode());
}

mx::array Activate(const mx::array& x, Activation activation) {
  const auto number = [](double value) { return mx::array(static_cast<float>(value)); };
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kSilu: return mx::multiply(x, mx::sigmoid(x));
    case Activation::kQuickGelu: return mx::multiply(x, mx::sigmoid(mx::multiply(x, number(1.702))));
    case Activation::kRelu: return mx::maximum(x, number(0.0));
    case Activation::kGeluErf: {
      const mx::array share = mx::add(number(1.0), mx::erf(mx::multiply(x, number(std::sqrt(0.5)))));
      return mx::multiply(mx::multiply(x, number(0.5)), share);
    }
    case Activation::kGeluTanh: {
      // 0.5 * (1 + tanh(y)) = sigmoid(2 y), which loses nothing where tanh nears -1.
      const mx::array cubic = mx::multiply(mx::multiply(mx::multiply(x, x), x), number(0.044715));
      const mx::array inner = mx::multiply(mx::add(x, cubic), number(2.0 * std::sqrt(2.0 / M_PI)));
      return mx::multiply(x, mx::sigmoid(inner));
    }
  }
  PENSIEVE_UNREACHABLE();
}

}  // namespace pensieve::backend::mlx
