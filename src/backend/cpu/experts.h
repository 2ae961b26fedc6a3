// Mixture of experts. Engine-thread-only.
#pragma once

#include <span>
#include <vector>

#include "backend/cpu/compute.h"
#include "backend/cpu/products.h"
#include "backend/cpu/scratch.h"

namespace pensieve::backend::cpu {

struct CpuExpert {
  CpuWeight gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;  // or empty
};

struct CpuExperts final : ExpertStorage {
  std::vector<CpuExpert> experts;
  Routing routing = Routing::kSoftmaxOfChosen;
  int64_t top_k = 1;
  Activation activation = Activation::kSilu;
  bool alternating = false;
  float limit = 0.0f;
};

class ExpertOps {
 public:
  // `products` must outlive it.
  ExpertOps(const Compute& compute, Products& products)
      : compute_(compute), products_(products), scratch_(static_cast<size_t>(compute.pool.threads())) {}

  // out[r] += the weighted sum of the experts that row r's logits choose.
  void Run(const ProductInput& input, MatrixView logits, const CpuExperts& layer, MatrixView out);

 private:
  // A row that chose an expert, and how much of the expert it takes.
  struct ChosenRow {
    int32_t row;
    float weight;
  };

  void RouteRows(MatrixView logits, const CpuExperts& layer);
  MatrixView GatherChosen(MatrixView x, std::span<const ChosenRow> chosen);
  MatrixView Inner(const ProductInput& input, const CpuExpert& expert, const CpuExperts& layer);
  void ActivatePairs(MatrixView both, const CpuExperts& layer, MatrixView inner);

  const Compute compute_;
  Products& products_;
  std::vector<Scratch> scratch_;  // one a worker

  // The rows of every expert, expert by expert, and the matrices between its products. Valid within one call.
  std::vector<ChosenRow> chosen_;   // [rows * top_k]: the rows of expert e are [first_[e], first_[e + 1])
  std::vector<int64_t> first_;      // [experts + 1]
  std::vector<int32_t> expert_of_;  // [rows * top_k], row by row, experts ascending
  std::vector<float> weight_of_;
  Scratch gathered_;
  Scratch both_;
  Scratch inner_;
  Scratch result_;
};

}  // namespace pensieve::backend::cpu
