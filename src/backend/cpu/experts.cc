// Mixture of experts: rows are sorted by the experts they chose, then every expert runs the ordinary products on its rows.
//
// Experts run one after the other, each shared among all workers, so that a row's sum grows in the order of the experts'
// indices whatever else is in the batch. Products themselves promise that a row does not depend on its neighbours.
#include "backend/cpu/experts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace pensieve::backend::cpu {
namespace {

// Routes one row: its experts ascending, and their weights. NaN logits are chosen first and make their weights NaN.
void RouteRow(const float* logits, const CpuExperts& layer, int32_t* experts, float* weights) {
  const auto num_experts = static_cast<int64_t>(layer.experts.size());
  const int64_t top_k = layer.top_k;
  const auto rank = [&](int64_t e) {
    return std::isnan(logits[e]) ? std::numeric_limits<float>::infinity() : logits[e];
  };
  // The best so far, best first; a later expert must be larger to go before an earlier one.
  for (int64_t e = 0; e < num_experts; ++e) {
    int64_t place = std::min(e, top_k);
    if (place == top_k && !(rank(e) > rank(experts[top_k - 1]))) continue;
    if (place == top_k) --place;
    for (; place > 0 && rank(e) > rank(experts[place - 1]); --place) experts[place] = experts[place - 1];
    experts[place] = static_cast<int32_t>(e);
  }
  const auto largest = static_cast<double>(logits[experts[0]]);
  std::sort(experts, experts + top_k);
  double sum = 0.0;
  if (layer.routing == Routing::kSoftmax) {
    for (int64_t e = 0; e < num_experts; ++e) sum += std::exp(static_cast<double>(logits[e]) - largest);
  } else {
    for (int64_t i = 0; i < top_k; ++i) sum += std::exp(static_cast<double>(logits[experts[i]]) - largest);
  }
  for (int64_t i = 0; i < top_k; ++i) {
    const auto logit = static_cast<double>(logits[experts[i]]);
    const bool sigmoid = layer.routing == Routing::kSigmoid;
    weights[i] = static_cast<float>(sigmoid ? 1.0 / (1.0 + std::exp(-logit)) : std::exp(logit - largest) / sum);
  }
}

// min(g, limit) and clip(u, -limit, limit) + 1, written so that NaN stays NaN.
void Clamp(float limit, int64_t n, float* gate, float* up) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] > limit ? limit : gate[i];
  for (int64_t i = 0; i < n; ++i) up[i] = (up[i] > limit ? limit : up[i] < -limit ? -limit : up[i]) + 1.0f;
}

}  // namespace

// Which rows every expert has, rows ascending.
void ExpertOps::RouteRows(MatrixView logits, const CpuExperts& layer) {
  const auto total = static_cast<size_t>(logits.rows * layer.top_k);
  expert_of_.resize(total);
  weight_of_.resize(total);
  chosen_.resize(total);
  // An exponential each, and places to be found among top_k.
  compute_.ForRows(logits.rows, logits.cols * 8, [&](int64_t r, int) {
    RouteRow(logits.row(r), layer, expert_of_.data() + r * layer.top_k, weight_of_.data() + r * layer.top_k);
  });
  first_.assign(layer.experts.size() + 1, 0);
  for (const int32_t expert : expert_of_) ++first_[static_cast<size_t>(expert) + 1];
  for (size_t e = 0; e < layer.experts.size(); ++e) first_[e + 1] += first_[e];
  for (size_t i = 0; i < total; ++i) {
    // first[e] walks to the end of e's rows, which is where e + 1's began: put back below.
    const auto place = static_cast<size_t>(first_[static_cast<size_t>(expert_of_[i])]++);
    chosen_[place] = {static_cast<int32_t>(static_cast<int64_t>(i) / layer.top_k), weight_of_[i]};
  }
  std::move_backward(first_.begin(), first_.end() - 1, first_.end());
  first_.front() = 0;
}

// The chosen rows of x, where they lie if they lie together.
MatrixView ExpertOps::GatherChosen(MatrixView x, std::span<const ChosenRow> chosen) {
  const auto rows = static_cast<int64_t>(chosen.size());
  if (chosen.back().row - chosen.front().row == rows - 1) return x.Rows(chosen.front().row, rows);
  const MatrixView gathered = {gathered_.Need<float>(rows * x.cols), rows, x.cols, x.cols};
  compute_.ForRows(rows, x.cols, [&](int64_t r, int) {
    std::copy_n(x.row(chosen[static_cast<size_t>(r)].row), x.cols, gathered.row(r));
  });
  return gathered;
}

// inner = act(gate) * up of rows that hold both, side by side or in turns.
void ExpertOps::ActivatePairs(MatrixView both, const CpuExperts& layer, MatrixView inner) {
  const int64_t width = inner.cols;
  const int64_t padded = Padded(width);
  compute_.pool.Run(inner.rows, [&](int64_t r, int worker) {
    float* gate = scratch_[static_cast<size_t>(worker)].Need<float>(2 * padded);
    float* up = gate + padded;
    const float* source = both.row(r);
    for (int64_t i = 0; i < width; ++i) {
      gate[i] = source[layer.alternating ? 2 * i : i];
      up[i] = source[layer.alternating ? 2 * i + 1 : width + i];
    }
    std::fill(gate + width, gate + padded, 0.0f);
    std::fill(up + width, up + padded, 0.0f);
    if (layer.limit > 0.0f) Clamp(layer.limit, width, gate, up);
    compute_.kernels.store_gated(gate, up, padded,
                                 {nullptr, layer.activation, false, inner.row(r), inner.stride, 1, width});
  });
}

namespace {

const float* DataOf(const std::vector<float>& bias) { return bias.empty() ? nullptr : bias.data(); }

}  // namespace

// act(gate x) * up x for all rows of one expert.
MatrixView ExpertOps::Inner(const ProductInput& input, const CpuExpert& expert, const CpuExperts& layer) {
  const int64_t rows = input.x.rows;
  const int64_t width = expert.down.cols();
  const MatrixView inner = {inner_.Need<float>(rows * width), rows, width, width};
  if (!layer.alternating && expert.gate_bias.empty() && expert.up_bias.empty() && layer.limit <= 0.0f) {
    products_.MultiplyGated(input, expert.gate, expert.up, layer.activation, inner);
    return inner;
  }
  const MatrixView both = {both_.Need<float>(rows * 2 * width), rows, 2 * width, 2 * width};
  if (layer.alternating) {
    const ProductTask task = {.weight = &expert.gate, .bias = DataOf(expert.gate_bias), .out = both};
    products_.Multiply(input, {&task, 1});
  } else {
    const ProductTask tasks[] = {
        {.weight = &expert.gate, .bias = DataOf(expert.gate_bias), .out = both.Columns(0, width)},
        {.weight = &expert.up, .bias = DataOf(expert.up_bias), .out = both.Columns(width, width)}};
    products_.Multiply(input, tasks);
  }
  ActivatePairs(both, layer, inner);
  return inner;
}

void ExpertOps::Run(const ProductInput& input, MatrixView logits, const CpuExperts& layer, MatrixView out) {
  if (out.rows == 0) return;
  RouteRows(logits, layer);
  for (size_t e = 0; e < layer.experts.size(); ++e) {
    const auto begin = static_cast<size_t>(first_[e]);
    const auto end = static_cast<size_t>(first_[e + 1]);
    if (begin == end) continue;
    const std::span<const ChosenRow> chosen(chosen_.data() + begin, end - begin);
    const auto rows = static_cast<int64_t>(chosen.size());
    const auto precise = std::partition_point(chosen.begin(), chosen.end(),
                                              [&](const ChosenRow& c) { return c.row < input.precise_rows; });
    const int64_t precise_rows = precise - chosen.begin();
    const CpuExpert& expert = layer.experts[e];
    const MatrixView inner = Inner({GatherChosen(input.x, chosen), precise_rows}, expert, layer);
    const MatrixView result = {result_.Need<float>(rows * out.cols), rows, out.cols, out.cols};
    const ProductTask down = {.weight = &expert.down, .bias = DataOf(expert.down_bias), .out = result};
    products_.Multiply({inner, precise_rows}, {&down, 1});
    compute_.ForRows(rows, out.cols, [&](int64_t r, int) {
      const ChosenRow& target = chosen[static_cast<size_t>(r)];
      compute_.kernels.scale(result.row(r), out.cols, target.weight);
      compute_.kernels.add(result.row(r), out.cols, out.row(target.row));
    });
  }
}

}  // namespace pensieve::backend::cpu
