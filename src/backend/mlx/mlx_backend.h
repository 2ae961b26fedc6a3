// The MLX backend: one model's state as MLX's lazy arrays.
//
// An operation builds nodes of MLX's graph and computes nothing; Submit, EndStep and what reads results evaluate it. A
// planned matrix is what was last written to it (arrays.h), so MLX reuses memory as it sees fit. Values are f32
// everywhere: activations, scales and biases of weights, sums. Only attention over f16 keys runs in f16 by default,
// because MLX would otherwise convert all keys of a context at every step (in the modes kInt16 and kF32 it does).
//
// Threads: MLX's graphs belong to the thread that built them. What outlives a call at load is evaluated before it
// returns, and a step is built, evaluated and read by one thread.
//
// Errors: MLX throws, while a graph is built or when it is evaluated. Every call catches, keeps the first error and does
// nothing more until the step ends.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/mlx/arrays.h"
#include "backend/mlx/kv_cache.h"
#include "backend/mlx/mlx_device.h"
#include "backend/mlx/weights.h"

namespace pensieve::backend::mlx {

struct MlxRope final : RopeStorage {
  struct Table {
    std::vector<float> frequencies;
    int64_t rotated = 0;
    bool interleaved = false;
    float magnitude = 1.0f;
  };
  Table usual;
  Table for_long;
};

struct MlxExperts final : ExpertStorage {
  MlxExperts(Operand gate_stack, Operand up_stack, Operand down_stack)
      : gate(std::move(gate_stack)), up(std::move(up_stack)), down(std::move(down_stack)) {}
  Operand gate, up, down;                                  // stacks; alternating rows were taken apart
  std::optional<mx::array> gate_bias, up_bias, down_bias;  // [experts, 1, rows]
  Routing routing = Routing::kSoftmaxOfChosen;
  int64_t top_k = 1;
  Activation activation = Activation::kSilu;
  float limit = 0.0f;
};

class MlxBackend final : public Backend {
 public:
  // `device` must outlive it.
  MlxBackend(const MlxDevice& device, const BackendOptions& options) : device_(device), options_(options) {}

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
  Status ReadDrawn(std::span<int32_t> tokens) override;
  void Pool(Matrix x, Pooling pooling, Matrix out) override;
  void L2Normalize(Matrix x) override;

 private:
  // Rows of one sequence and the tokens that they see.
  struct Span {
    int64_t first_row;
    int64_t rows;
    int64_t first_place;  // of the rows, among the tokens
    int64_t first_key;
    int64_t keys;
  };
  // Arrays made from the step's inputs, each when it is first needed.
  struct StepArrays {
    std::optional<mx::array> ids, positions, output_rows, query_factors, slots;
    std::vector<std::optional<mx::array>> tables;  // one a sequence
    std::map<std::tuple<const MlxRope*, bool>, std::pair<mx::array, mx::array>> rotations;
    std::optional<mx::array> is_long;  // [rows, 1, 1]
    std::map<std::tuple<int64_t, int64_t, int64_t, int64_t, bool>, mx::array> masks;
  };

  // Runs fn, which builds nodes; keeps what it throws.
  template <typename Fn>
  void Issue(std::string_view what, Fn fn);
  void Fail(Status error);
  void Evaluate(std::string_view what, bool wait);
  // After a failed step: whether keys and values can still be computed.
  void Recover();

  mx::array Get(const Matrix& matrix) const { return static_cast<MlxBuffer*>(matrix.buffer)->Read(matrix); }
  mx::array Get(const Vector& vector, int64_t count) const {
    return static_cast<MlxBuffer*>(vector.buffer)->ReadVector(vector.first, count);
  }
  void Put(const Matrix& matrix, mx::array value);

  mx::array EmbeddingRows(EmbedBy by);
  void PutProduct(const mx::array& x, const Product& product);
  // x [rows, heads, head_dim], rotated by one table of `rope`.
  mx::array RotatedBy(const mx::array& x, const MlxRope& rope, bool is_long);
  const std::pair<mx::array, mx::array>& Angles(const MlxRope& rope, bool is_long);
  const mx::array& Slots(const KvShape& shape);
  // Which keys each row sees, [rows, keys]; nothing when `causal` as MLX means it says the same.
  std::optional<mx::array> Mask(const Span& span, int64_t window, bool causal);
  // q [rows, heads * head_dim], k and v [keys, kv_heads, head_dim].
  mx::array Attend(const mx::array& q, const mx::array& k, const mx::array& v, const Span& span,
                   const AttentionParams& params, bool causal);
  mx::array AttendCapped(const mx::array& q, const mx::array& k, const mx::array& v, const AttentionParams& params,
                         const mx::array& mask) const;
  // attend(sequence number) of every sequence with rows, written to `out`.
  template <typename Fn>
  void ForSequences(Matrix out, Fn attend);

  const MlxDevice& device_;
  const BackendOptions options_;
  Status error_;
  bool lost_ = false;
  int failures_ = 0;  // steps in a row that failed, for other reasons than memory
  int64_t step_number_ = 0;

  StepInputs step_;
  StepArrays arrays_;
  std::vector<MlxBuffer*> written_;  // since the last evaluation
  std::vector<MlxKvCache*> caches_;  // the same

  std::deque<MlxBuffer> buffers_;
  std::deque<MlxWeight> weights_;
  std::deque<MlxRope> ropes_;
  std::deque<MlxExperts> experts_;

  std::vector<int32_t> drawn_;
  std::optional<mx::array> drawn_on_device_;
  TokenDrawer drawer_;
};

// The template stands here because every file of operations uses it.
template <typename Fn>
void MlxBackend::Issue(std::string_view what, Fn fn) {
  if (!error_.ok()) return;
  try {
    fn();
  } catch (const std::exception& error) { Fail(ToStatus(error, what)); }
}

}  // namespace pensieve::backend::mlx
