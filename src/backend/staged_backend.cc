#include "backend/staged_backend.h"

#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "backend/matrix_view.h"
#include "base/check.h"

namespace pensieve::backend::testing {
namespace {

bool SameView(const Matrix& a, const Matrix& b) {
  return a.buffer == b.buffer && a.first == b.first && a.rows == b.rows && a.cols == b.cols && a.stride == b.stride;
}

class StagedBackend final : public Backend {
 public:
  explicit StagedBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  BackendDescription Describe() const override { return inner_->Describe(); }
  Result<Weight> Import(const tensor::Weight& weight, WeightUse use) override { return inner_->Import(weight, use); }
  Result<ExpertSet> ImportExperts(const ExpertLayer& layer) override { return inner_->ImportExperts(layer); }
  Result<Vector> ImportVector(std::span<const float> values) override { return inner_->ImportVector(values); }
  Result<Rope> ImportRope(const RopeTable& usual, const RopeTable& for_long) override {
    return inner_->ImportRope(usual, for_long);
  }
  Result<Matrix> NewMatrix(int64_t rows, int64_t cols) override { return inner_->NewMatrix(rows, cols); }
  Result<std::unique_ptr<KvCache>> NewKvCache(const KvShape& shape) override { return inner_->NewKvCache(shape); }

  void BeginStep(const StepInputs& inputs) override { inner_->BeginStep(inputs); }
  void Submit() override { inner_->Submit(); }
  Status EndStep() override { return inner_->EndStep(); }
  bool CanGoOn() const override { return inner_->CanGoOn(); }
  Status CopyToDevice(std::span<const float> host, Matrix device) override {
    return inner_->CopyToDevice(host, device);
  }
  Status CopyToHost(Matrix device, std::span<float> host) override { return inner_->CopyToHost(device, host); }

  void MatMul(const MatMulInput& input, std::span<const Product> products) override {
    Staging staging(*this);
    std::vector<Product> staged(products.begin(), products.end());
    for (Product& product : staged) product.out = staging.Written(product.out);
    inner_->MatMul({staging.Read(input.x), input.precision}, staged);
  }
  void GatedMatMul(const MatMulInput& input, const GatedProduct& product) override {
    Staging staging(*this);
    GatedProduct staged = product;
    staged.out = staging.Written(product.out);
    inner_->GatedMatMul({staging.Read(input.x), input.precision}, staged);
  }
  void Experts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) override {
    Staging staging(*this);
    inner_->Experts({staging.Read(input.x), input.precision}, staging.Read(logits), experts, staging.Written(out));
  }

  void EmbedRows(const Weight& table, EmbedBy by, float scale, Matrix out, bool add) override {
    inner_->EmbedRows(table, by, scale, Staging(*this).Written(out), add);
  }
  void RmsNorm(Matrix x, Vector weight, float eps, Matrix out) override {
    Staging staging(*this);
    inner_->RmsNorm(staging.Read(x), weight, eps, staging.Written(out));
  }
  void RmsNormHeads(Matrix x, int64_t head_dim, Vector weight, float eps) override {
    inner_->RmsNormHeads(Staging(*this).Written(x), head_dim, weight, eps);
  }
  void LayerNorm(Matrix x, Vector weight, Vector bias, float eps, Matrix out) override {
    Staging staging(*this);
    inner_->LayerNorm(staging.Read(x), weight, bias, eps, staging.Written(out));
  }
  void Rotate(Matrix x, int64_t head_dim, const Rope& rope) override {
    inner_->Rotate(Staging(*this).Written(x), head_dim, rope);
  }
  void ScaleQueries(Matrix x) override { inner_->ScaleQueries(Staging(*this).Written(x)); }
  void Add(Matrix x, Matrix out) override {
    Staging staging(*this);
    inner_->Add(staging.Read(x), staging.Written(out));
  }
  void Softcap(Matrix x, float cap) override { inner_->Softcap(Staging(*this).Written(x), cap); }
  void GatherOutputs(Matrix x, Matrix out) override {
    Staging staging(*this);
    inner_->GatherOutputs(staging.Read(x), staging.Written(out));
  }

  void StoreKv(KvCache& cache, int64_t layer, Matrix k, Matrix v) override {
    Staging staging(*this);
    inner_->StoreKv(cache, layer, staging.Read(k), staging.Read(v));
  }
  void PagedAttention(const KvCache& cache, int64_t layer, const AttentionParams& params, Matrix q,
                      Matrix out) override {
    Staging staging(*this);
    inner_->PagedAttention(cache, layer, params, staging.Read(q), staging.Written(out));
  }
  void EncoderAttention(int64_t head_dim, const AttentionParams& params, Matrix q, Matrix k, Matrix v,
                        Matrix out) override {
    Staging staging(*this);
    inner_->EncoderAttention(head_dim, params, staging.Read(q), staging.Read(k), staging.Read(v), staging.Written(out));
  }

  void NormMatMul(Matrix x, Vector weight, float eps, const MatMulInput& normed,
                  std::span<const Product> products) override {
    Staging staging(*this);
    std::vector<Product> staged(products.begin(), products.end());
    for (Product& product : staged) product.out = staging.Written(product.out);
    inner_->NormMatMul(staging.Read(x), weight, eps, {staging.Written(normed.x), normed.precision}, staged);
  }
  void NormGatedMatMul(Matrix x, Vector weight, float eps, const MatMulInput& normed,
                       const GatedProduct& product) override {
    Staging staging(*this);
    GatedProduct staged = product;
    staged.out = staging.Written(product.out);
    inner_->NormGatedMatMul(staging.Read(x), weight, eps, {staging.Written(normed.x), normed.precision}, staged);
  }
  void RotateStoreAttend(KvCache& cache, const AttentionStep& step) override {
    Staging staging(*this);
    AttentionStep staged = step;
    staged.q = staging.Written(step.q);
    staged.k = staging.Written(step.k);
    staged.v = staging.Read(step.v);
    staged.out = staging.Written(step.out);
    inner_->RotateStoreAttend(cache, staged);
  }

  void Draw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) override {
    inner_->Draw(Staging(*this).Written(logits), rows, params);
  }
  Status ReadDrawn(std::span<int32_t> tokens) override { return inner_->ReadDrawn(tokens); }
  void Pool(Matrix x, Pooling pooling, Matrix out) override {
    Staging staging(*this);
    inner_->Pool(staging.Read(x), pooling, staging.Written(out));
  }
  void L2Normalize(Matrix x) override { inner_->L2Normalize(Staging(*this).Written(x)); }

 private:
  // The matrices of one operation. What was written goes back to the host at the end of the operation's statement.
  class Staging {
   public:
    explicit Staging(StagedBackend& backend) : backend_(backend) {}
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;
    ~Staging() {
      for (const Entry& entry : entries_) {
        if (entry.written) backend_.CopyBack(entry.device, entry.host);
        backend_.Release(entry.device);
      }
    }
    Matrix Read(const Matrix& host) { return Stage(host, false); }
    Matrix Written(const Matrix& host) { return Stage(host, true); }

   private:
    struct Entry {
      Matrix host;
      Matrix device;
      bool written;
    };

    Matrix Stage(const Matrix& host, bool written) {
      if (host.buffer == nullptr || host.buffer->base == nullptr) return host;  // the device's own
      for (Entry& entry : entries_) {
        if (!SameView(entry.host, host)) continue;
        entry.written = entry.written || written;
        return entry.device;
      }
      entries_.push_back({host, backend_.CopyIn(host), written});
      return entries_.back().device;
    }

    StagedBackend& backend_;
    std::deque<Entry> entries_;
  };

  Matrix CopyIn(const Matrix& host) {
    std::vector<Matrix>& free = free_[{host.rows, host.cols}];
    if (free.empty()) free.push_back(*inner_->NewMatrix(host.rows, host.cols));
    const Matrix device = free.back();
    free.pop_back();
    const MatrixView view = View(host);
    std::vector<float> values;
    for (int64_t r = 0; r < host.rows; ++r) values.insert(values.end(), view.row(r), view.row(r) + host.cols);
    PENSIEVE_CHECK(inner_->CopyToDevice(values, device).ok());
    return device;
  }
  void CopyBack(const Matrix& device, const Matrix& host) {
    std::vector<float> values(static_cast<size_t>(host.rows * host.cols));
    const Status status = inner_->CopyToHost(device, values);
    PENSIEVE_CHECK(status.ok());
    const MatrixView view = View(host);
    for (int64_t r = 0; r < host.rows; ++r) {
      for (int64_t c = 0; c < host.cols; ++c) view.row(r)[c] = values[static_cast<size_t>(r * host.cols + c)];
    }
  }
  void Release(const Matrix& device) { free_[{device.rows, device.cols}].push_back(device); }

  std::unique_ptr<Backend> inner_;
  std::map<std::pair<int64_t, int64_t>, std::vector<Matrix>> free_;
};

}  // namespace

std::unique_ptr<Backend> StageHostMatrices(std::unique_ptr<Backend> inner) {
  return std::make_unique<StagedBackend>(std::move(inner));
}

}  // namespace pensieve::backend::testing
