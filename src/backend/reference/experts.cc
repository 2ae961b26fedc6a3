// Mixture of experts, one row after the other: route, run the chosen networks in f64, add them up by index.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backend/checks.h"
#include "backend/reference/reference_backend.h"
#include "base/check.h"

namespace pensieve::backend::reference {
namespace {

struct Choice {
  size_t expert;
  double weight;
};

// NaN counts as the largest: what comes out must show it.
double Rank(float logit) {
  return std::isnan(logit) ? std::numeric_limits<double>::infinity() : static_cast<double>(logit);
}

std::vector<Choice> Route(const float* logits, const ExpertLayer& layer) {
  std::vector<size_t> order(layer.experts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return Rank(logits[a]) > Rank(logits[b]); });
  const auto top_k = static_cast<size_t>(layer.top_k);
  const size_t weighed = layer.routing == Routing::kSoftmax ? order.size() : top_k;
  const auto largest = static_cast<double>(logits[order.front()]);
  double sum = 0.0;
  for (size_t i = 0; i < weighed; ++i) sum += std::exp(static_cast<double>(logits[order[i]]) - largest);
  std::vector<Choice> choices;
  for (size_t i = 0; i < top_k; ++i) {
    const auto logit = static_cast<double>(logits[order[i]]);
    const bool sigmoid = layer.routing == Routing::kSigmoid;
    choices.push_back({order[i], sigmoid ? 1.0 / (1.0 + std::exp(-logit)) : std::exp(logit - largest) / sum});
  }
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) { return a.expert < b.expert; });
  return choices;
}

// Row `row` of a weight times x, plus its bias.
double RowTimes(const tensor::Weight& weight, const float* bias, int64_t row, const std::vector<double>& x) {
  std::vector<float> values(x.size());
  tensor::DequantizeRow(weight, row, values.data());
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(values[i]) * x[i];
  return bias == nullptr ? sum : sum + static_cast<double>(bias[row]);
}

double Gate(double gate, double up, const ExpertLayer& layer) {
  const auto limit = static_cast<double>(layer.limit);
  if (limit > 0.0) {
    gate = gate > limit ? limit : gate;
    up = (up > limit ? limit : up < -limit ? -limit : up) + 1.0;
  }
  return Activate(gate, layer.activation) * up;
}

void AddExpert(const Expert& expert, const ExpertLayer& layer, const std::vector<double>& x, double weight,
               std::vector<double>& sum) {
  std::vector<double> inner(static_cast<size_t>(tensor::Cols(expert.down)));
  for (size_t i = 0; i < inner.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const double gate = RowTimes(expert.gate, expert.gate_bias, layer.interleaved ? 2 * row : row, x);
    const double up = layer.interleaved ? RowTimes(expert.gate, expert.gate_bias, 2 * row + 1, x)
                                        : RowTimes(expert.up, expert.up_bias, row, x);
    inner[i] = Gate(gate, up, layer);
  }
  for (size_t i = 0; i < sum.size(); ++i) {
    sum[i] += weight * RowTimes(expert.down, expert.down_bias, static_cast<int64_t>(i), inner);
  }
}

}  // namespace

void ReferenceBackend::Experts(const MatMulInput& input, Matrix logits, const ExpertLayer& layer, Matrix out) {
  CheckExperts(input, logits, layer, out);
  for (int64_t r = 0; r < out.rows; ++r) {
    const std::vector<double> x(input.x.row(r), input.x.row(r) + input.x.cols);
    std::vector<double> sum(x.size(), 0.0);
    for (const Choice& choice : Route(logits.row(r), layer)) {
      AddExpert(layer.experts[choice.expert], layer, x, choice.weight, sum);
    }
    for (int64_t c = 0; c < out.cols; ++c) {
      out.row(r)[c] = static_cast<float>(static_cast<double>(out.row(r)[c]) + sum[static_cast<size_t>(c)]);
    }
  }
}

}  // namespace pensieve::backend::reference
