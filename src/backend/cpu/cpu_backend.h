// The CPU backend: one model's state on a CpuDevice. Each family of operations has its own file, products.h, attention.h,
// experts.h and rows.h; here they are put together behind the seam.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/compute.h"
#include "backend/cpu/cpu_device.h"
#include "backend/cpu/experts.h"
#include "backend/cpu/products.h"
#include "backend/cpu/rows.h"
#include "backend/host_backend.h"
#include "tensor/buffer.h"

namespace pensieve::backend::cpu {

class CpuBackend final : public HostBackend {
 public:
  // `device` must outlive it.
  CpuBackend(CpuDevice& device, const BackendOptions& options);

  BackendDescription Describe() const override { return device_.Describe(options_); }

  Result<Weight> Import(const tensor::Weight& weight, WeightUse use) override;
  Result<ExpertSet> ImportExperts(const ExpertLayer& layer) override;
  Result<Rope> ImportRope(const RopeTable& usual, const RopeTable& for_long) override;
  Result<std::unique_ptr<KvCache>> NewKvCache(const KvShape& shape) override;

  void BeginStep(const StepInputs& inputs) override;

  void MatMul(const MatMulInput& input, std::span<const Product> products) override;
  void GatedMatMul(const MatMulInput& input, const GatedProduct& product) override;
  void Experts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) override;

  void EmbedRows(const Weight& table, EmbedBy by, float scale, Matrix out, bool add) override;
  void RmsNorm(Matrix x, Vector weight, float eps, Matrix out) override;
  void RmsNormHeads(Matrix x, int64_t head_dim, Vector weight, float eps) override;
  void LayerNorm(Matrix x, Vector weight, Vector bias, float eps, Matrix out) override;
  void Rotate(Matrix x, int64_t head_dim, const Rope& rope) override;
  void ScaleQueries(Matrix x) override;
  void Add(Matrix x, Matrix out) override;
  void Softcap(Matrix x, float cap) override;
  void GatherOutputs(Matrix x, Matrix out) override;

  void StoreKv(KvCache& cache, int64_t layer, Matrix k, Matrix v) override;
  void PagedAttention(const KvCache& cache, int64_t layer, const AttentionParams& params, Matrix q,
                      Matrix out) override;
  void EncoderAttention(int64_t head_dim, const AttentionParams& params, Matrix q, Matrix k, Matrix v,
                        Matrix out) override;

  void Draw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) override;
  void Pool(Matrix x, Pooling pooling, Matrix out) override;
  void L2Normalize(Matrix x) override;

 private:
  ProductInput InputOf(const MatMulInput& input) const { return {View(input.x), PreciseRows(input)}; }

  CpuDevice& device_;
  const BackendOptions options_;
  const Compute compute_;
  Products products_;
  ExpertOps experts_;
  Attention attention_;
  RowOps rows_;

  std::deque<CpuWeight> weights_;
  tensor::BufferArena encoder_weights_;
  std::vector<std::unique_ptr<CpuExperts>> expert_layers_;
  std::deque<CpuRope> ropes_;
};

}  // namespace pensieve::backend::cpu
