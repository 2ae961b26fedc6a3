// Products of activations and weights, and the experts that rows choose.
#include <algorithm>
#include <limits>

#include "backend/checks.h"
#include "backend/mlx/mlx_backend.h"

namespace pensieve::backend::mlx {
namespace {

const Operand& OperandOf(const Weight& weight) { return static_cast<const MlxWeight*>(weight.storage)->operand; }

// The experts that each row chooses, [rows, top_k] in order of their index.
mx::array Choose(const mx::array& logits, int64_t top_k) {
  // argsort is stable and puts NaN last: negated, and NaN as the largest, equal logits stay in order of their index.
  const mx::array keys =
      mx::where(mx::isnan(logits), mx::array(-std::numeric_limits<float>::infinity()), mx::negative(logits));
  const mx::array order = mx::astype(mx::argsort(keys, 1), mx::int32);
  return mx::sort(mx::slice(order, {0, 0}, {logits.shape(0), Int(top_k)}), 1);
}

// The weights of the chosen, [rows, top_k].
mx::array Weigh(const mx::array& logits, const mx::array& chosen, Routing routing) {
  const mx::array own = mx::take_along_axis(logits, chosen, 1);
  switch (routing) {
    case Routing::kSigmoid: return mx::sigmoid(own);
    case Routing::kSoftmaxOfChosen: return mx::softmax(own, 1, /*precise=*/true);
    case Routing::kSoftmax: return mx::take_along_axis(mx::softmax(logits, 1, /*precise=*/true), chosen, 1);
  }
  PENSIEVE_UNREACHABLE();
}

mx::array Clip(const mx::array& x, float low, float high) {
  return mx::minimum(mx::maximum(x, mx::array(low)), mx::array(high));
}

}  // namespace

void MlxBackend::PutProduct(const mx::array& x, const Product& product) {
  mx::array y = Multiply(x, OperandOf(product.weight));
  if (product.bias) y = mx::add(y, Get(product.bias, product.out.cols));
  y = Activate(y, product.activation);
  if (product.accumulate) y = mx::add(Get(product.out), y);
  Put(product.out, std::move(y));
}

void MlxBackend::MatMul(const MatMulInput& input, std::span<const Product> products) {
  CheckProducts(input, products);
  if (input.x.rows == 0) return;
  Issue("a product with MLX", [&] {
    const mx::array x = Get(input.x);
    for (const Product& product : products) PutProduct(x, product);
  });
}

void MlxBackend::GatedMatMul(const MatMulInput& input, const GatedProduct& product) {
  CheckGated(input, product);
  if (input.x.rows == 0) return;
  Issue("a gated product with MLX", [&] {
    const mx::array x = Get(input.x);
    const mx::array gate = Activate(Multiply(x, OperandOf(product.gate)), product.activation);
    Put(product.out, mx::multiply(gate, Multiply(x, OperandOf(product.up))));
  });
}

void MlxBackend::Experts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) {
  CheckExperts(input, logits, experts, out);
  if (input.x.rows == 0) return;
  const auto& layer = *static_cast<const MlxExperts*>(experts.storage);
  Issue("experts with MLX", [&] {
    const mx::array scores = Get(logits);
    const mx::array chosen = Choose(scores, layer.top_k);
    const mx::array weights = Weigh(scores, chosen, layer.routing);
    const auto multiply = [&](const mx::array& x, const Operand& stack, const std::optional<mx::array>& bias) {
      const mx::array y = MultiplyChosen(x, stack, chosen);
      return bias ? mx::add(y, mx::take(*bias, chosen, 0)) : y;
    };
    const mx::array x = mx::expand_dims(Get(input.x), {1, 2});  // [rows, 1, 1, cols]
    mx::array gate = multiply(x, layer.gate, layer.gate_bias);
    mx::array up = multiply(x, layer.up, layer.up_bias);
    if (layer.limit > 0.0f) {
      gate = mx::minimum(gate, mx::array(layer.limit));
      up = mx::add(Clip(up, -layer.limit, layer.limit), mx::array(1.0f));
    }
    const mx::array inner = mx::multiply(Activate(gate, layer.activation), up);
    const mx::array each = mx::squeeze(multiply(inner, layer.down, layer.down_bias), 2);  // [rows, top_k, cols]
    const mx::array weighed = mx::multiply(each, mx::expand_dims(weights, 2));
    Put(out, mx::add(Get(out), mx::sum(weighed, 1)));
  });
}

}  // namespace pensieve::backend::mlx
