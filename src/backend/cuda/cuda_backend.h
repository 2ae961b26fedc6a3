// The CUDA backend: one model's state on a GPU. Weights are copied to the device at Import, in the layout of the files.
//
// Operations are kept until the step is submitted or a result is wanted, then launched on one stream, in order: a step that
// equals an earlier one but for its inputs runs as that one's CUDA graph (operation_list.h). The host waits in EndStep,
// CopyToHost and ReadDrawn. The step's inputs travel in one copy. Precise rows (and all rows in the modes kInt16 and kF32) are computed in f32; the others
// on tensor cores, see products.cu.
#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/memory.h"
#include "backend/cuda/operation_list.h"

namespace pensieve::backend::cuda {

struct CudaWeight final : WeightStorage {
  DeviceWeight weight;
};

struct CudaRope final : RopeStorage {
  DeviceRope usual;
  DeviceRope for_long;
};

struct CudaExperts final : ExpertStorage {
  DeviceExperts layer;
};

class CudaBackend final : public Backend {
 public:
  // `device` must outlive it.
  static Result<std::unique_ptr<Backend>> Create(CudaDevice& device, const BackendOptions& options);
  ~CudaBackend() override;

  BackendDescription Describe() const override { return device_.Describe(options_); }

  Result<Weight> Import(const tensor::Weight& weight, WeightUse use) override;
  Result<ExpertSet> ImportExperts(const ExpertLayer& layer) override;
  Result<Vector> ImportVector(std::span<const float> values) override;
  Result<Rope> ImportRope(const RopeTable& usual, const RopeTable& for_long) override;
  Result<Matrix> NewMatrix(int64_t rows, int64_t cols) override;
  Result<std::unique_ptr<KvCache>> NewKvCache(const KvShape& shape) override;

  void BeginStep(const StepInputs& inputs) override;
  void Submit() override;
  Status EndStep() override;
  bool CanGoOn() const override { return !lost_; }
  Status CopyToDevice(std::span<const float> host, Matrix device) override;
  Status CopyToHost(Matrix device, std::span<float> host) override;

  void MatMul(const MatMulInput& input, std::span<const Product> products) override;
  void GatedMatMul(const MatMulInput& input, const GatedProduct& product) override;
  void Experts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) override;
  void NormMatMul(Matrix x, Vector weight, float eps, const MatMulInput& normed,
                  std::span<const Product> products) override;
  void NormGatedMatMul(Matrix x, Vector weight, float eps, const MatMulInput& normed,
                       const GatedProduct& product) override;

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
  void RotateStoreAttend(KvCache& cache, const AttentionStep& step) override;
  void EncoderAttention(int64_t head_dim, const AttentionParams& params, Matrix q, Matrix k, Matrix v,
                        Matrix out) override;

  void Draw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) override;
  Status ReadDrawn(std::span<int32_t> tokens) override;
  void Pool(Matrix x, Pooling pooling, Matrix out) override;
  void L2Normalize(Matrix x) override;

 private:
  // Device memory that is not the host's: Buffer::base stays null.
  struct DeviceBuffer final : Buffer {
    DeviceMemory memory;
    float* view = nullptr;  // or memory of somebody else
    float* data() const { return view != nullptr ? view : memory.as<float>(); }
  };
  // The inputs of the step on the device, all in one piece of memory.
  struct StepOnDevice {
    const int32_t* ids = nullptr;
    const int32_t* positions = nullptr;  // as StepInputs has them
    const int32_t* sequence = nullptr;   // [rows]
    const int32_t* places = nullptr;     // [rows]: tokens of the sequence before the row
    const uint8_t* is_long = nullptr;    // [rows]
    const float* query_factors = nullptr;
    const int32_t* first_rows = nullptr;  // [sequences]
    const int32_t* row_counts = nullptr;  // [sequences]
    const int32_t* table_at = nullptr;    // [sequences]
    const int32_t* tables = nullptr;
    const int32_t* output_rows = nullptr;
    const int32_t* tile_first = nullptr;  // tiles of coarse rows
    const int32_t* tile_count = nullptr;
    int64_t tiles = 0;
    int64_t longest = 0;
  };

  CudaBackend(CudaDevice& device, const BackendOptions& options) : device_(device), options_(options) {}
  Status Start();

  // Whether an operation may be launched: false once something failed.
  bool Ready();
  // Launches what was deferred: as the graph of an equal earlier step where there is one.
  void Flush();
  // After launches: keeps the first error.
  void Check(std::string_view what);
  void Fail(Status error);

  Result<DeviceWeight> Upload(const tensor::Weight& weight);
  // Copies `bytes` bytes to new device memory of the backend; 256-byte aligned.
  Result<uint8_t*> UploadBytes(const void* host, size_t bytes);
  Result<const float*> UploadFloats(std::span<const float> values);
  DeviceMatrix On(const Matrix& matrix) const;
  const float* On(const Vector& vector) const;
  RowPlaces Places(int64_t first, int64_t count) const;
  AttentionArgs Args(const AttentionParams& params) const;
  // Leading rows of the step that are precise.
  int64_t PreciseRowsOfStep() const;
  int64_t PreciseRows(const MatMulInput& input) const;
  // Coarse rows of a product's input as f16; null when the scratch cannot be had.
  bool ToHalf(const DeviceMatrix& x, HalfRows* out);
  // At least `bytes` bytes of `scratch`, which are free to use in stream order. Null on failure.
  void* Need(DeviceMemory& scratch, size_t bytes);
  // Norms of heads that were the last operations, in order: those before an attention become part of it.
  struct HeadNorm {
    OperationList::Mark before;
    OperationList::Mark after;
    Matrix x;
    Vector weight;
    float eps = 0.0f;
  };
  // A norm that comes before a product: its weight is null when there is none.
  struct InputNorm {
    Matrix x;
    Vector weight;
    float eps = 0.0f;
  };
  // Precise rows as planes for weights of slab `slab`; no slabs on failure. The norm, if any, is computed on the way.
  PlaneInput ToPlanes(const DeviceMatrix& x, int64_t slab, const InputNorm& norm);
  bool PlanesFor(const Weight& weight) const;
  void Products(const MatMulInput& input, std::span<const Product> products, InputNorm norm);
  void Gated(const MatMulInput& input, const GatedProduct& product, const InputNorm& norm);
  // Whether every sequence of the step has one row, and none sees what another stores.
  bool OneRowASequence(int64_t block_len);
  // Precise rows [0, rows) of q; fused with what comes before where `fused` says so.
  void PreciseAttention(const KvLayer& kv, const AttentionArgs& args, int64_t rows, const FusedArgs& fused,
                        const DeviceMatrix& q, const DeviceMatrix& k, const DeviceMatrix& v, const DeviceMatrix& out);
  void PreciseProducts(const DeviceMatrix& x, std::span<const Product> products, InputNorm norm);
  void CoarseProducts(const DeviceMatrix& x, int64_t first, std::span<const Product> products);

  CudaDevice& device_;
  const BackendOptions options_;
  cudaStream_t stream_ = nullptr;
  OperationList operations_;
  Status error_;
  bool lost_ = false;

  StepInputs step_;
  std::optional<bool> one_row_a_sequence_;  // once it is known of step_
  HeadNorm head_norms_[2];                  // the last two
  StepOnDevice on_device_;
  DeviceMemory step_memory_;
  std::byte* staging_ = nullptr;  // pinned
  size_t staging_size_ = 0;

  DeviceMemory half_scratch_;
  DeviceMemory weight_scratch_;
  DeviceMemory plane_scratch_;
  DeviceMemory product_scratch_;
  DeviceMemory attention_scratch_;
  DeviceMemory attention_counters_;
  DeviceMemory expert_scratch_;
  DeviceMemory draw_memory_;

  DeviceBuffer scratch_buffer_;  // product_scratch_, as products see it
  std::deque<DeviceBuffer> buffers_;
  std::deque<DeviceMemory> uploads_;
  std::deque<CudaWeight> weights_;
  std::deque<CudaRope> ropes_;
  std::deque<CudaExperts> experts_;

  std::vector<int32_t> drawn_;
  int64_t drawn_on_device_ = 0;  // tokens of the last Draw that lie in draw_memory_
  TokenDrawer drawer_;
};

}  // namespace pensieve::backend::cuda
