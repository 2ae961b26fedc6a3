// The scalar oracle: every operation as its formula reads, single-threaded, sums in f64, activations never quantized.
// Other backends are tested against it; it is also a complete backend of its own on any machine.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "tensor/buffer.h"

namespace pensieve::backend::reference {

class ReferenceBackend final : public Backend {
 public:
  DeviceDescription Describe() const override;

  Result<tensor::Weight> Import(const tensor::Weight& weight) override;
  Result<Matrix> NewMatrix(int64_t rows, int64_t cols) override;
  Result<std::unique_ptr<KvCache>> NewKvCache(const KvShape& shape) override;
  void CopyToDevice(std::span<const float> host, float* device) override;
  void CopyToHost(const float* device, std::span<float> host) override;
  void Synchronize() override {}

  void MatMul(const MatMulInput& input, std::span<const Product> products) override;
  void GatedMatMul(const MatMulInput& input, const tensor::Weight& gate, const tensor::Weight& up,
                   Activation activation, Matrix out) override;
  void Experts(const MatMulInput& input, Matrix logits, const ExpertLayer& layer, Matrix out) override;

  void EmbedRows(const tensor::Weight& table, std::span<const int32_t> ids, float scale, Matrix out,
                 bool add) override;
  void RmsNorm(Matrix x, const float* weight, float eps, Matrix out) override;
  void RmsNormHeads(Matrix x, int64_t head_dim, const float* weight, float eps) override;
  void LayerNorm(Matrix x, const float* weight, const float* bias, float eps, Matrix out) override;
  void Rope(Matrix x, int64_t head_dim, std::span<const int32_t> positions, const RopeTable& table) override;
  void Add(Matrix x, Matrix out) override;
  void Scale(Matrix x, float factor) override;
  void Softcap(Matrix x, float cap) override;
  void GatherRows(Matrix x, std::span<const int32_t> rows, Matrix out) override;

  void StoreKv(KvCache& cache, int64_t layer, std::span<const SequenceRows> sequences, Matrix k, Matrix v) override;
  void PagedAttention(const KvCache& cache, int64_t layer, std::span<const SequenceRows> sequences,
                      const AttentionParams& params, Matrix q, Matrix out) override;
  void EncoderAttention(std::span<const SequenceRows> sequences, int64_t head_dim, const AttentionParams& params,
                        Matrix q, Matrix k, Matrix v, Matrix out) override;

  void Pool(Matrix x, std::span<const SequenceRows> sequences, Pooling pooling, Matrix out) override;
  void L2Normalize(Matrix x) override;

 private:
  std::deque<tensor::Buffer> buffers_;
};

// y = act(x) as each activation is defined, in f64.
double Activate(double x, Activation activation);

}  // namespace pensieve::backend::reference
