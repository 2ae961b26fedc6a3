#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <utility>

#include "backend/checks.h"
#include "backend/cpu/sizes.h"

namespace pensieve::backend::cpu {
namespace {

const CpuWeight& Own(const Weight& weight) { return *static_cast<const CpuWeight*>(weight.storage); }

}  // namespace

CpuBackend::CpuBackend(CpuDevice& device, const BackendOptions& options)
    : device_(device),
      options_(options),
      compute_{device.kernels(), device.pool(), options.activations},
      products_(compute_),
      experts_(compute_, products_),
      attention_(compute_),
      rows_(compute_) {}

// Kernels read every form where it lies. An encoder's f32 is copied as panels of all columns: half as much time for a
// text of a dozen tokens.
Result<Weight> CpuBackend::Import(const tensor::Weight& weight, WeightUse use) {
  const auto bytes = static_cast<int64_t>(tensor::WeightBytes(weight));
  CpuWeight& own = weights_.emplace_back(weight);
  const Weight handle = {&own, own.rows(), own.cols(), bytes};
  const auto* dense = std::get_if<tensor::DenseWeight>(&weight);
  if (use != WeightUse::kEncoderLayer || dense == nullptr || dense->dtype != tensor::DType::kF32) return handle;
  const int64_t panel = compute_.kernels.panel;
  const int64_t panels = CeilDiv(dense->rows, panel);
  PENSIEVE_TRY(const size_t copy_bytes, MatrixBytes(panels * panel, dense->cols));
  PENSIEVE_TRY(std::byte* const memory, encoder_weights_.Allocate(copy_bytes));
  auto* out = reinterpret_cast<float*>(memory);
  compute_.pool.Run(panels, [&](int64_t p, int) {
    const int64_t count = std::min(panel, dense->rows - p * panel);
    compute_.kernels.unpack_dense(*dense, p * panel, count, 0, dense->cols, out + p * panel * dense->cols);
  });
  own.panels = out;
  return handle;
}

Result<ExpertSet> CpuBackend::ImportExperts(const ExpertLayer& layer) {
  CheckExpertLayer(layer);
  auto own = std::make_unique<CpuExperts>();
  const auto copy = [](std::span<const float> bias) { return std::vector<float>(bias.begin(), bias.end()); };
  int64_t bytes = 0;
  for (const Expert& expert : layer.experts) {
    own->experts.push_back({CpuWeight(expert.gate), CpuWeight(expert.up), CpuWeight(expert.down),
                            copy(expert.gate_bias), copy(expert.up_bias), copy(expert.down_bias)});
    bytes += ExpertBytes(expert, layer.alternating);
  }
  own->routing = layer.routing;
  own->top_k = layer.top_k;
  own->activation = layer.activation;
  own->alternating = layer.alternating;
  own->limit = layer.limit;
  expert_layers_.push_back(std::move(own));
  return ExpertSet{expert_layers_.back().get(), static_cast<int64_t>(layer.experts.size()), bytes};
}

Result<Rope> CpuBackend::ImportRope(const RopeTable& usual, const RopeTable& for_long) {
  return Rope{&ropes_.emplace_back(usual, for_long)};
}

Result<std::unique_ptr<KvCache>> CpuBackend::NewKvCache(const KvShape& shape) { return CpuKvCache::Create(shape); }

void CpuBackend::BeginStep(const StepInputs& inputs) {
  HostBackend::BeginStep(inputs);
  rows_.BeginStep();
}

void CpuBackend::MatMul(const MatMulInput& input, std::span<const Product> products) {
  CheckProducts(input, products);
  PENSIEVE_CHECK(products.size() <= Products::kMostTasks);
  std::array<ProductTask, Products::kMostTasks> tasks;
  for (size_t i = 0; i < products.size(); ++i) {
    const Product& product = products[i];
    tasks[i] = {&Own(product.weight), View(product.bias), View(product.out), product.activation, product.accumulate};
  }
  products_.Multiply(InputOf(input), std::span(tasks).first(products.size()));
}

void CpuBackend::GatedMatMul(const MatMulInput& input, const GatedProduct& product) {
  CheckGated(input, product);
  products_.MultiplyGated(InputOf(input), Own(product.gate), Own(product.up), product.activation, View(product.out));
}

void CpuBackend::Experts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) {
  CheckExperts(input, logits, experts, out);
  experts_.Run(InputOf(input), View(logits), *static_cast<const CpuExperts*>(experts.storage), View(out));
}

void CpuBackend::EmbedRows(const Weight& table, EmbedBy by, float scale, Matrix out, bool add) {
  CheckEmbed(step(), table, by, out);
  rows_.Embed(Own(table), scale, View(out), add, [&](int64_t r) { return EmbeddingRow(by, r); });
}

void CpuBackend::RmsNorm(Matrix x, Vector weight, float eps, Matrix out) {
  CheckSameShape(x, out);
  rows_.RmsNorm(View(x), View(weight), eps, View(out));
}

void CpuBackend::RmsNormHeads(Matrix x, int64_t head_dim, Vector weight, float eps) {
  PENSIEVE_CHECK(head_dim > 0 && x.cols % head_dim == 0);
  rows_.RmsNormHeads(View(x), head_dim, View(weight), eps);
}

void CpuBackend::LayerNorm(Matrix x, Vector weight, Vector bias, float eps, Matrix out) {
  CheckSameShape(x, out);
  rows_.LayerNorm(View(x), View(weight), View(bias), eps, View(out));
}

void CpuBackend::Rotate(Matrix x, int64_t head_dim, const Rope& rope) {
  CheckRotate(step(), x, head_dim);
  rows_.Rotate(View(x), head_dim, *static_cast<const CpuRope*>(rope.storage), step());
}

void CpuBackend::ScaleQueries(Matrix x) {
  PENSIEVE_CHECK(x.rows == static_cast<int64_t>(step().query_factors.size()));
  rows_.ScaleRows(View(x), step().query_factors);
}

void CpuBackend::Add(Matrix x, Matrix out) {
  CheckSameShape(x, out);
  rows_.Add(View(x), View(out));
}

void CpuBackend::Softcap(Matrix x, float cap) { rows_.Softcap(View(x), cap); }

void CpuBackend::GatherOutputs(Matrix x, Matrix out) {
  CheckGather(step(), x, out);
  rows_.Gather(View(x), step().output_rows, View(out));
}

void CpuBackend::StoreKv(KvCache& cache, int64_t layer, Matrix k, Matrix v) {
  CheckStoreKv(cache.shape(), layer, step(), k, v);
  attention_.Store(static_cast<const CpuKvCache&>(cache), layer, step().sequences, View(k), View(v));
}

void CpuBackend::PagedAttention(const KvCache& cache, int64_t layer, const AttentionParams& params, Matrix q,
                                Matrix out) {
  CheckPagedAttention(cache.shape(), layer, step(), q, out);
  attention_.Paged(static_cast<const CpuKvCache&>(cache), layer, step(), params, View(q), View(out));
}

void CpuBackend::EncoderAttention(int64_t head_dim, const AttentionParams& params, Matrix q, Matrix k, Matrix v,
                                  Matrix out) {
  CheckEncoderAttention(step(), head_dim, q, k, v, out);
  attention_.Encoder({head_dim, View(q), View(k), View(v)}, step(), params, View(out));
}

void CpuBackend::Draw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) {
  CheckDraw(logits, rows, params);
  rows_.Draw(View(logits), rows, params, drawn_);
}

void CpuBackend::Pool(Matrix x, Pooling pooling, Matrix out) {
  CheckPool(step(), x, out);
  rows_.Pool(View(x), step().sequences, pooling, View(out));
}

void CpuBackend::L2Normalize(Matrix x) { rows_.L2Normalize(View(x)); }

}  // namespace pensieve::backend::cpu
