// A weight as the CPU's products read it.
#pragma once

#include <optional>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

namespace pensieve::backend::cpu {

struct CpuWeight final : WeightStorage {
  explicit CpuWeight(const tensor::Weight& source);

  int64_t rows() const { return tensor::Rows(weight); }
  int64_t cols() const { return tensor::Cols(weight); }

  tensor::Weight weight;             // where it lies
  std::optional<QuantWeight> quant;  // the codes of a quantized form; nothing for a dense one
  // A copy in the order of reading, [rows / panel rounded up][cols][panel] f32, or null: see WeightUse::kEncoderLayer.
  const float* panels = nullptr;
};

}  // namespace pensieve::backend::cpu
