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
  std::vector<float> weight_row(static_cast<size_t>(input.x.cols));
  for (const Product& product : products) {
    for (int64_t n = 0; n < product.out.cols; ++n) {
      tensor::DequantizeRow(*product.weight, n, weight_row.data());
      for (int64_t m = 0; m < input.x.rows; ++m) {
        double y = Dot(input.x.row(m), weight_row.data(), input.x.cols);
        if (product.bias != nullptr) y += static_cast<double>(product.bias[n]);
        const auto value = static_cast<float>(Activate(y, product.activation));
        float& out = product.out.row(m)[n];
        out = product.accumulate ? out + value : value;
      }
    }
  }
}

void ReferenceBackend::GatedMatMul(const MatMulInput& input, const tensor::Weight& gate, const tensor::Weight& up,
                                   Activation activation, Matrix out) {
  CheckGated(input, gate, up, out);
  const int64_t k = input.x.cols;
  std::vector<float> gate_row(static_cast<size_t>(k));
  std::vector<float> up_row(static_cast<size_t>(k));
  for (int64_t n = 0; n < out.cols; ++n) {
    tensor::DequantizeRow(gate, n, gate_row.data());
    tensor::DequantizeRow(up, n, up_row.data());
    for (int64_t m = 0; m < input.x.rows; ++m) {
      const float* x = input.x.row(m);
      out.row(m)[n] = static_cast<float>(Activate(Dot(x, gate_row.data(), k), activation) * Dot(x, up_row.data(), k));
    }
  }
}

}  // namespace pensieve::backend::reference
