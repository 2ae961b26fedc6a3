// y = act(x . W^T + bias), weight rows dequantized one by one, f64 sums.
#include <cmath>
#include <vector>

#include "backend/checks.h"
#include "backend/reference/reference_backend.h"
#include "base/check.h"

namespace pensieve::backend::reference {
namespace {

double Dot(const float* a, const float* b, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

}  // namespace

double Activate(double x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kSilu: return x / (1.0 + std::exp(-x));
    case Activation::kGeluTanh: return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf: return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::kRelu: return x > 0.0 || std::isnan(x) ? x : 0.0;
    case Activation::kQuickGelu: return x / (1.0 + std::exp(-1.702 * x));
  }
  PENSIEVE_UNREACHABLE();
}

void ReferenceBackend::MatMul(const MatMulInput& input, std::span<const Product> products) {
  CheckProducts(input, products);
  const MatrixView x = View(input.x);
  std::vector<float> weight_row(static_cast<size_t>(x.cols));
  for (const Product& product : products) {
    const tensor::Weight& weight = static_cast<const ReferenceWeight*>(product.weight.storage)->weight;
    const MatrixView out = View(product.out);
    const float* bias = View(product.bias);
    for (int64_t n = 0; n < out.cols; ++n) {
      tensor::DequantizeRow(weight, n, weight_row.data());
      for (int64_t m = 0; m < x.rows; ++m) {
        double y = Dot(x.row(m), weight_row.data(), x.cols);
        if (bias != nullptr) y += static_cast<double>(bias[n]);
        const auto value = static_cast<float>(Activate(y, product.activation));
        float& target = out.row(m)[n];
        target = product.accumulate ? target + value : value;
      }
    }
  }
}

void ReferenceBackend::GatedMatMul(const MatMulInput& input, const GatedProduct& product) {
  CheckGated(input, product);
  const MatrixView x = View(input.x);
  const MatrixView out = View(product.out);
  const tensor::Weight& gate = static_cast<const ReferenceWeight*>(product.gate.storage)->weight;
  const tensor::Weight& up = static_cast<const ReferenceWeight*>(product.up.storage)->weight;
  std::vector<float> gate_row(static_cast<size_t>(x.cols));
  std::vector<float> up_row(static_cast<size_t>(x.cols));
  for (int64_t n = 0; n < out.cols; ++n) {
    tensor::DequantizeRow(gate, n, gate_row.data());
    tensor::DequantizeRow(up, n, up_row.data());
    for (int64_t m = 0; m < x.rows; ++m) {
      const double gated = Activate(Dot(x.row(m), gate_row.data(), x.cols), product.activation);
      out.row(m)[n] = static_cast<float>(gated * Dot(x.row(m), up_row.data(), x.cols));
    }
  }
}

}  // namespace pensieve::backend::reference
