// The scalar oracle: every operation as its formula reads, single-threaded, sums in f64, activations never quantized.
// Other backends are tested against it; it is also a complete backend of its own on any machine.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/host_backend.h"

namespace pensieve::backend::reference {

struct ReferenceWeight final : WeightStorage {
  tensor::Weight weight;
};

struct ReferenceRope final : RopeStorage {
  struct Table {
    std::vector<float> frequencies;
    int64_t rotated;
    bool interleaved;
    float magnitude;
  };
  Table usual, for_long;
};

class ReferenceBackend final : public HostBackend {
 public:
  BackendDescription Describe() const override;

  Result<Weight> Import(const tensor::Weight& weight, WeightUse use) override;
  Result<ExpertSet> ImportExperts(const ExpertLayer& layer) override;
  Result<Rope> ImportRope(const RopeTable& usual, const RopeTable& for_long) override;
  Result<std::unique_ptr<KvCache>> NewKvCache(const KvShape& shape) override;

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
  std::deque<ReferenceWeight> weights_;
  std::deque<ReferenceRope> ropes_;
  std::vector<std::unique_ptr<ExpertStorage>> experts_;
};

class ReferenceDevice final : public Device {
 public:
  BackendDescription Describe(const BackendOptions& options) const override;
  int64_t AvailableBytes() const override;
  Result<std::unique_ptr<Backend>> NewBackend(const BackendOptions& options) override;
};

// y = act(x) as each activation is defined, in f64.
double Activate(double x, Activation activation);
// The token that a row of logits gives, as draw.h defines it, in f64.
int32_t DrawToken(std::span<const float> logits, const DrawParams& params);

}  // namespace pensieve::backend::reference
