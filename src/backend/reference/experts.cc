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

// A copy of the layer with its biases.
struct ReferenceExperts final : ExpertStorage {
  struct Network {
    tensor::Weight gate, up, down;
    std::vector<float> gate_bias, up_bias, down_bias;
  };
  std::vector<Network> networks;
  Routing routing;
  int64_t top_k;
  Activation activation;
  bool alternating;
  float limit;
};

struct Choice {
  size_t expert;
  double weight;
};

// NaN counts as the largest: what comes out must show it.
double Rank(float logit) {
  return std::isnan(logit) ? std::numeric_limits<double>::infinity() : static_cast<double>(logit);
}

std::vector<Choice> Route(const float* logits, const ReferenceExperts& layer) {
  std::vector<size_t> order(layer.networks.size());
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
double RowTimes(const tensor::Weight& weight, const std::vector<float>& bias, int64_t row,
                const std::vector<double>& x) {
  std::vector<float> values(x.size());
  tensor::DequantizeRow(weight, row, values.data());
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(values[i]) * x[i];
  return bias.empty() ? sum : sum + static_cast<double>(bias[static_cast<size_t>(row)]);
}

double Gate(double gate, double up, const ReferenceExperts& layer) {
  const auto limit = static_cast<double>(layer.limit);
  if (limit > 0.0) {
    gate = gate > limit ? limit : gate;
    up = (up > limit ? limit : up < -limit ? -limit : up) + 1.0;
  }
  return Activate(gate, layer.activation) * up;
}

void AddExpert(const ReferenceExperts::Network& expert, const ReferenceExperts& layer, const std::vector<double>& x,
               double weight, std::vector<double>& sum) {
  std::vector<double> inner(static_cast<size_t>(tensor::Cols(expert.down)));
  for (size_t i = 0; i < inner.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const double gate = RowTimes(expert.gate, expert.gate_bias, layer.alternating ? 2 * row : row, x);
    const double up = layer.alternating ? RowTimes(expert.gate, expert.gate_bias, 2 * row + 1, x)
                                        : RowTimes(expert.up, expert.up_bias, row, x);
    inner[i] = Gate(gate, up, layer);
  }
  for (size_t i = 0; i < sum.size(); ++i) {
    sum[i] += weight * RowTimes(expert.down, expert.down_bias, static_cast<int64_t>(i), inner);
  }
}

}  // namespace

Result<ExpertSet> ReferenceBackend::ImportExperts(const ExpertLayer& layer) {
  CheckExpertLayer(layer);
  auto own = std::make_unique<ReferenceExperts>();
  int64_t bytes = 0;
  const auto copy = [](std::span<const float> bias) { return std::vector<float>(bias.begin(), bias.end()); };
  for (const Expert& expert : layer.experts) {
    own->networks.push_back(
        {expert.gate, expert.up, expert.down, copy(expert.gate_bias), copy(expert.up_bias), copy(expert.down_bias)});
    bytes += ExpertBytes(expert, layer.alternating);
  }
  own->routing = layer.routing;
  own->top_k = layer.top_k;
  own->activation = layer.activation;
  own->alternating = layer.alternating;
  own->limit = layer.limit;
  experts_.push_back(std::move(own));
  return ExpertSet{experts_.back().get(), static_cast<int64_t>(layer.experts.size()), bytes};
}

void ReferenceBackend::Experts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) {
  CheckExperts(input, logits, experts, out);
  const auto& layer = *static_cast<const ReferenceExperts*>(experts.storage);
  const MatrixView x = View(input.x);
  const MatrixView target = View(out);
  for (int64_t r = 0; r < out.rows; ++r) {
    const std::vector<double> row(x.row(r), x.row(r) + x.cols);
    std::vector<double> sum(row.size(), 0.0);
    for (const Choice& choice : Route(View(logits).row(r), layer)) {
      AddExpert(layer.networks[choice.expert], layer, row, choice.weight, sum);
    }
    for (int64_t c = 0; c < out.cols; ++c) {
      target.row(r)[c] = static_cast<float>(static_cast<double>(target.row(r)[c]) + sum[static_cast<size_t>(c)]);
    }
  }
}

}  // namespace pensieve::backend::reference
