// Weight matrices as MLX multiplies them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/mlx/arrays.h"
#include "tensor/weight.h"

namespace pensieve::backend::mlx {

// A matrix [rows, cols], or a stack of them [experts, rows, cols].
struct Operand {
  // Dense: f32, [.., rows, cols]. Quantized: the codes as 32-bit words.
  mx::array values;
  // Both there: MLX's affine form. Scales alone: mxfp4. None: dense.
  std::optional<mx::array> scales = std::nullopt;
  std::optional<mx::array> biases = std::nullopt;
  int bits = 0;
  int group = 0;

  bool is_dense() const { return !scales.has_value(); }
  std::string mode() const { return biases ? "affine" : "mxfp4"; }
};

struct MlxWeight final : WeightStorage {
  explicit MlxWeight(Operand made) : operand(std::move(made)) {}
  Operand operand;
};

// Copies weights of the same shape into MLX's memory, stacked when there are several. Forms that MLX has no products for
// (groups of 16) and stacks of unlike forms become f32. Rows: first, first + step, ... of each.
struct RowsTaken {
  int64_t first = 0;
  int64_t step = 1;
};
Operand CopyWeights(std::span<const tensor::Weight> weights, bool stacked, RowsTaken taken = {});

// Gives back the pages of a file that hold the weight, which has been copied.
void ReleasePages(const tensor::Weight& weight);

// x [M, cols] . w^T
mx::array Multiply(const mx::array& x, const Operand& w);
// Rows `rows` of a table as f32.
mx::array TakeRows(const Operand& table, const mx::array& rows);
// x [M, 1 or k, 1, cols] times the matrices `chosen` [M, k] of a stack: [M, k, 1, rows].
mx::array MultiplyChosen(const mx::array& x, const Operand& stack, const mx::array& chosen);

mx::array Activate(const mx::array& x, Activation activation);

}  // namespace pensieve::backend::mlx
