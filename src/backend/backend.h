// What a model asks of a device: coarse operations over the ragged batch of one step.
//
// Model code is written once against this interface; a backend is one folder and one row of devices.cc. A Device is the
// hardware (threads or a stream, memory) and is shared by all models of a process; a Backend is one model's state on it.
//
// A step. BeginStep gives everything that differs from step to step: ids, positions, sequences, block tables. Then come
// the operations. They name matrices, vectors and weights by handles, and take nothing else that depends on the batch
// but its number of rows: a model issues the same operations in the same order whatever the batch holds. So a backend
// may record them once, or build a lazy graph. Submit says that no more will come, EndStep waits and tells how it went.
//
// Threads. All calls to one Backend come from ONE thread, the engine thread of its model (at load: the loading thread).
// Backends of one Device may be called from several threads at once.
//
// Errors. What takes memory or waits for the device returns a Status or a Result. Operations return nothing: when the
// device fails, the rest of the step does nothing, and EndStep (or the next copy to the host) returns the error. Shapes
// that do not fit are our own bug (PENSIEVE_CHECK).
//
// Exactness. By default the result of a row depends on that row's own sequence alone, bit for bit: never on what else is
// in the batch, on how many rows there are, or on how a prompt was cut into chunks. A backend that cannot keep this says
// so in Describe().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/activation.h"
#include "backend/draw.h"
#include "base/status.h"
#include "tensor/weight.h"

namespace pensieve::backend {

// --- handles ------------------------------------------------------------------------------------------------------
// Cheap to copy. What they name belongs to the Backend that made it and lives as long as it.

// Memory of one backend. A backend derives its own.
class Buffer {
 public:
  virtual ~Buffer() = default;
  // Where the f32 values lie; null where the memory has no address that the host can use. Only backends look at it
  // (matrix_view.h): models and the engine never do.
  float* base = nullptr;
};

// A row-major f32 matrix inside a buffer: row r begins at element first + r * stride.
struct Matrix {
  Buffer* buffer = nullptr;
  int64_t first = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  // Columns [from, from + count) of all rows: how one projection's output is split into q, k and v.
  Matrix Columns(int64_t from, int64_t count) const { return {buffer, first + from, rows, count, stride}; }
  Matrix Rows(int64_t from, int64_t count) const { return {buffer, first + from * stride, count, cols, stride}; }
};

// A constant f32 vector (norm weights, biases) from element `first` of a buffer on. Null without a buffer.
struct Vector {
  Buffer* buffer = nullptr;
  int64_t first = 0;

  explicit operator bool() const { return buffer != nullptr; }
  Vector From(int64_t element) const { return {buffer, first + element}; }
};

// A weight matrix in the form that its backend multiplies. Made by Backend::Import.
class WeightStorage {
 public:
  virtual ~WeightStorage() = default;
};
struct Weight {
  const WeightStorage* storage = nullptr;
  int64_t rows = 0;   // output features
  int64_t cols = 0;   // input features
  int64_t bytes = 0;  // that a product reads
};

// The experts of one layer. Made by Backend::ImportExperts.
class ExpertStorage {
 public:
  virtual ~ExpertStorage() = default;
};
struct ExpertSet {
  const ExpertStorage* storage = nullptr;
  int64_t count = 0;
  int64_t bytes = 0;  // of all of them
};

// A rotary embedding. Made by Backend::ImportRope.
class RopeStorage {
 public:
  virtual ~RopeStorage() = default;
};
struct Rope {
  const RopeStorage* storage = nullptr;
};

// --- products -------------------------------------------------------------------------------------------------------

// How the inputs of matrix products are held while they are multiplied with quantized weights.
enum class InputPrecision : uint8_t {
  // Default: precise rows as two int8 planes (near exact); other rows as one, with a remainder for the large channels.
  kInt8,
  kInt16,  // two int8 planes for every row
  kF32,    // exact mode: never quantized
};

// Which rows of a product's input are precise.
enum class RowPrecision : uint8_t {
  kOfStep,   // x holds all rows of the step: those before StepInputs::precise_rows
  kPrecise,  // all of them; x may have any number of rows
};

struct MatMulInput {
  Matrix x;  // [M, K]
  RowPrecision precision = RowPrecision::kOfStep;
};

// One of the products that share an input: y = act(x . W^T + bias), stored into out or added to it.
struct Product {
  Weight weight = {};  // [N, K]
  Vector bias = {};    // [N], or null
  Matrix out = {};     // [M, N]
  Activation activation = Activation::kNone;
  bool accumulate = false;  // out += instead of out =: the residual add
};

// out = act(x . gate^T) * (x . up^T), without biases.
struct GatedProduct {
  Weight gate = {};  // [F, K]
  Weight up = {};    // [F, K]
  Activation activation = Activation::kSilu;
  Matrix out = {};  // [M, F]
};

// What Import may assume about a weight's use.
enum class WeightUse : uint8_t {
  kAny,
  kEncoderLayer,  // read by products alone, in passes of a few rows: a copy in the order of reading may pay
};

// How a router's logits choose the experts of a row and weigh them. The `top_k` largest are chosen; equal ones by index.
enum class Routing : uint8_t {
  kSoftmax,          // weights: softmax over all logits, taken as it is
  kSoftmaxOfChosen,  // weights: softmax over the chosen logits (the same as renormalising kSoftmax)
  kSigmoid,          // weights: sigmoid of the chosen logit itself
};

// One of the gated feed-forward networks of a layer: y = down(act(gate x) * up x), [D] -> [F] -> [D]. In host memory, as
// the files have it.
struct Expert {
  tensor::Weight gate = {};  // [F, D], or [2F, D] with the rows gate 0, up 0, gate 1, ...: see ExpertLayer::alternating
  tensor::Weight up = {};    // [F, D]; not read when alternating
  tensor::Weight down = {};  // [D, F]
  std::span<const float> gate_bias = {};  // one a row of `gate`, or empty
  std::span<const float> up_bias = {};
  std::span<const float> down_bias = {};
};

struct ExpertLayer {
  std::span<const Expert> experts = {};
  Routing routing = Routing::kSoftmaxOfChosen;
  int64_t top_k = 1;  // 1..experts
  Activation activation = Activation::kSilu;
  bool alternating = false;  // rows of gate and up take turns in Expert::gate
  float limit = 0.0f;        // > 0: act(min(g, limit)) * (clip(u, -limit, limit) + 1), as gpt-oss has it
};

// --- rows and attention -----------------------------------------------------------------------------------------------

// How a head is rotated: the angle of pair i at position p is p * frequencies[i] in f32, range-reduced accurately; both
// outputs are multiplied by `magnitude` (yarn, longrope). Host memory.
struct RopeTable {
  std::span<const float> frequencies = {};  // [rotated / 2]
  int64_t rotated = 0;                      // leading dims of a head that rotate, even
  bool interleaved = false;                 // pairs (2i, 2i+1) instead of (i, i + rotated/2)
  float magnitude = 1.0f;
};

// Which row of an embedding a row of the step takes.
enum class EmbedBy : uint8_t {
  kId,        // the row of its id
  kPosition,  // the row of its position
  kFirst,     // row 0
};

enum class KvDType : uint8_t { kF16, kF32, kInt8 };

// Shape of one model's KV memory: num_blocks blocks of block_len tokens, every layer with its own K and V planes.
struct KvShape {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t block_len = 32;  // tokens a block
  int64_t num_blocks = 0;
  KvDType dtype = KvDType::kF16;

  // K and V of one token over all layers.
  int64_t bytes_per_token() const {
    const int64_t values = layers * kv_heads * head_dim * 2;
    if (dtype == KvDType::kInt8) return values + layers * kv_heads * 2 * 4;  // an f32 scale a head and token
    return values * (dtype == KvDType::kF16 ? 2 : 4);
  }
};

// Paged keys and values in device memory, laid out as the backend likes. Made by Backend::NewKvCache.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual const KvShape& shape() const = 0;

  // One block over all layers as bytes, in the backend's own layout: what ReadBlock gave, WriteBlock takes back on the
  // same kind of device with the same shape (its num_blocks apart). Between steps only. `bytes`: [block_bytes()].
  virtual int64_t block_bytes() const = 0;
  virtual Status ReadBlock(int64_t block, std::span<std::byte> bytes) const = 0;
  virtual Status WriteBlock(int64_t block, std::span<const std::byte> bytes) = 0;
};

// Consecutive rows of one sequence inside a ragged batch. A sequence whose rows are of both precisions comes in several
// such pieces, each of one precision; a whole text of an encoder is one.
struct SequenceRows {
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t cached_len = 0;  // tokens before the first row: stored by earlier steps, or rows of this one
  // KV blocks in order, covering cached_len + num_rows tokens; empty for encoders.
  std::span<const int32_t> block_table = {};
  bool long_rope = false;  // rotates by ImportRope's second table
};

// All that a step's operations need to know of its batch. Host memory that stays as it is until EndStep.
struct StepInputs {
  int64_t rows = 0;                              // M
  std::span<const int32_t> ids = {};             // [M], each a row of the embedding
  std::span<const int32_t> positions = {};       // [M], >= 0
  std::span<const SequenceRows> sequences = {};  // pieces in row order; together all rows
  // Rows before this one are precise: multiplied with quantized weights as precisely as the activation mode has it for
  // them, and attending in f32. Whether a row is precise is a property of its token's place in the conversation, never of
  // the batch.
  int64_t precise_rows = 0;
  std::span<const int32_t> output_rows = {};  // rows that GatherOutputs takes, in its order
  std::span<const float> query_factors = {};  // [M]: what ScaleQueries multiplies by; empty when it is not issued
};

struct AttentionParams {
  float scale = 0.0f;
  int64_t window = 0;                              // > 0: a row sees only the last `window` positions, itself included
  float softcap = 0.0f;                            // > 0: scores become c * tanh(s / c) before the mask
  Vector sinks = {};                               // [heads] extra softmax terms, or null
  RowPrecision precision = RowPrecision::kOfStep;  // kPrecise: all rows attend in f32
};

// Everything between the projections of a causal attention and its output.
struct AttentionStep {
  int64_t layer = 0;
  AttentionParams params = {};
  Rope rope = {};  // null: positions do not rotate q and k
  bool scales_queries = false;
  Matrix q = {};    // [M, heads * head_dim]; changed
  Matrix k = {};    // [M, kv_heads * head_dim]; changed
  Matrix v = {};    // as k
  Matrix out = {};  // as q
};

enum class Pooling : uint8_t { kMean, kCls, kLast, kMax };

// --- devices ----------------------------------------------------------------------------------------------------------

// What a backend is and what it promises: for `inspect`, logs, /health, and for tests, which ask only for what is
// promised.
struct BackendDescription {
  std::string device = {};              // the row of devices.cc: "cpu", "cuda", ...
  std::string name = {};                // for people: "cpu (AVX-512 VNNI)"
  int threads = 0;                      // that compute
  int64_t memory_bytes = 0;             // of the device, all of it
  bool company_matters = false;         // a row's bits may depend on the rest of the batch, or on how a prompt was cut
  bool precision_differs = false;       // precise rows and others get different bits from the same token
  std::vector<KvDType> kv_dtypes = {};  // that NewKvCache takes
};

struct BackendOptions {
  InputPrecision activations = InputPrecision::kInt8;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendDescription Describe() const = 0;

  // --- memory, at load --------------------------------------------------------------------------------------------
  // Makes a weight usable by this device: in place where the layout is already good, copied where that pays. The memory
  // of `weight` must stay valid for the backend's life.
  virtual Result<Weight> Import(const tensor::Weight& weight, WeightUse use = WeightUse::kAny) = 0;
  // Biases and the span are only read during the call; the weights' memory must stay valid for the backend's life.
  virtual Result<ExpertSet> ImportExperts(const ExpertLayer& layer) = 0;
  virtual Result<Vector> ImportVector(std::span<const float> values) = 0;
  // Two tables, of which each sequence uses one (SequenceRows::long_rope); the same twice for most models.
  virtual Result<Rope> ImportRope(const RopeTable& usual, const RopeTable& for_long) = 0;
  // A zeroed matrix for planned activations.
  virtual Result<Matrix> NewMatrix(int64_t rows, int64_t cols) = 0;
  virtual Result<std::unique_ptr<KvCache>> NewKvCache(const KvShape& shape) = 0;

  // --- a step -------------------------------------------------------------------------------------------------------
  virtual void BeginStep(const StepInputs& inputs) = 0;
  // No more operations will come: starts what has not started. Does not wait.
  virtual void Submit() {}
  // Waits for everything issued. The error is the step's: what it should have written is undefined, other steps and
  // their KV blocks are untouched.
  virtual Status EndStep() = 0;
  // After an error: false when the device is lost for good and every later step would fail as well.
  virtual bool CanGoOn() const { return true; }
  // host is [rows * cols], without gaps. To and from the host; the latter waits for what was issued before.
  virtual Status CopyToDevice(std::span<const float> host, Matrix device) = 0;
  virtual Status CopyToHost(Matrix device, std::span<float> host) = 0;

  // --- products -----------------------------------------------------------------------------------------------------
  // Every product of `products` over one input. Outputs may not overlap each other or x.
  virtual void MatMul(const MatMulInput& input, std::span<const Product> products) = 0;
  virtual void GatedMatMul(const MatMulInput& input, const GatedProduct& product) = 0;
  // out[r] += the weighted sum of the experts that row r's logits [M, experts] choose, in order of their index. out
  // [M, D] may not overlap x.
  virtual void Experts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) = 0;

  // --- rows ---------------------------------------------------------------------------------------------------------
  // out[r] = scale * table[row chosen by `by`], for all rows of the step. With `add`, out[r] += instead.
  virtual void EmbedRows(const Weight& table, EmbedBy by, float scale, Matrix out, bool add) = 0;
  // out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight. f32 throughout, sums in a fixed order. x and out may be the same.
  virtual void RmsNorm(Matrix x, Vector weight, float eps, Matrix out) = 0;
  // The same over each head of a row, in place: x is [M, heads * head_dim], weight [head_dim].
  virtual void RmsNormHeads(Matrix x, int64_t head_dim, Vector weight, float eps) = 0;
  // out[r] = (x[r] - mean) / sqrt(var + eps) * weight + bias, biased variance. x and out may be the same.
  virtual void LayerNorm(Matrix x, Vector weight, Vector bias, float eps, Matrix out) = 0;
  // Rotates every head of x [M, heads * head_dim] in place, M being the step's rows, each by its position and by the
  // table of its sequence.
  virtual void Rotate(Matrix x, int64_t head_dim, const Rope& rope) = 0;
  // Row r of x times query_factors[r], M being the step's rows.
  virtual void ScaleQueries(Matrix x) = 0;
  virtual void Add(Matrix x, Matrix out) = 0;     // out += x
  virtual void Softcap(Matrix x, float cap) = 0;  // cap * tanh(x / cap)
  // out[i] = x[output_rows[i]].
  virtual void GatherOutputs(Matrix x, Matrix out) = 0;

  // --- attention ----------------------------------------------------------------------------------------------------
  // Writes k and v [M, kv_heads * head_dim] of the step's rows at their places in their sequences' blocks. Those of all
  // pieces are written before any piece attends: a sequence's later pieces see its earlier ones.
  virtual void StoreKv(KvCache& cache, int64_t layer, Matrix k, Matrix v) = 0;
  // Causal attention of q [M, heads * head_dim] over the cache (StoreKv of this layer came before). out: as q.
  virtual void PagedAttention(const KvCache& cache, int64_t layer, const AttentionParams& params, Matrix q,
                              Matrix out) = 0;
  // Bidirectional attention inside each sequence, no cache: encoders. kv heads = k.cols / head_dim; window > 0 here
  // means |i - j| <= window.
  virtual void EncoderAttention(int64_t head_dim, const AttentionParams& params, Matrix q, Matrix k, Matrix v,
                                Matrix out) = 0;

  // --- fused: each is the plain operations that its body names; a backend that does better overrides it --------------
  // normed = RmsNorm(x); then MatMul over it.
  virtual void NormMatMul(Matrix x, Vector weight, float eps, const MatMulInput& normed,
                          std::span<const Product> products) {
    RmsNorm(x, weight, eps, normed.x);
    MatMul(normed, products);
  }
  // normed = RmsNorm(x); then GatedMatMul over it.
  virtual void NormGatedMatMul(Matrix x, Vector weight, float eps, const MatMulInput& normed,
                               const GatedProduct& product) {
    RmsNorm(x, weight, eps, normed.x);
    GatedMatMul(normed, product);
  }
  // x += RmsNorm(branch). `branch` may be changed.
  virtual void AddNormed(Matrix branch, Vector weight, float eps, Matrix x) {
    RmsNorm(branch, weight, eps, branch);
    Add(branch, x);
  }
  virtual void RotateStoreAttend(KvCache& cache, const AttentionStep& step) {
    const int64_t head_dim = cache.shape().head_dim;
    if (step.rope.storage != nullptr) {
      Rotate(step.q, head_dim, step.rope);
      Rotate(step.k, head_dim, step.rope);
    }
    if (step.scales_queries) ScaleQueries(step.q);
    StoreKv(cache, step.layer, step.k, step.v);
    PagedAttention(cache, step.layer, step.params, step.q, step.out);
  }

  // --- results ------------------------------------------------------------------------------------------------------
  // Draws a token for row rows[i] of `logits` by params[i], for every i. The rows' logits may be changed. The spans are
  // only read during the call.
  virtual void Draw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) = 0;
  // The tokens of the last Draw, in its order; kNoToken where one that may be drawn has a logit that
  // is NaN or infinite. Waits for them.
  virtual Status ReadDrawn(std::span<int32_t> tokens) = 0;
  // One row a sequence of the step, [num_sequences, D]. Sums run in row order in f32.
  virtual void Pool(Matrix x, Pooling pooling, Matrix out) = 0;
  // Each row divided by its Euclidean norm (floor 1e-12).
  virtual void L2Normalize(Matrix x) = 0;
};

// The hardware that models compute on. Thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  // What backends with `options` say of themselves.
  virtual BackendDescription Describe(const BackendOptions& options) const = 0;
  // Bytes that weights, activations and KV blocks may still take; 0 when the system does not tell.
  virtual int64_t AvailableBytes() const = 0;
  // The state of one model. The device must outlive it.
  virtual Result<std::unique_ptr<Backend>> NewBackend(const BackendOptions& options) = 0;
};

struct CpuOptions {
  int threads = 0;  // 0: one per physical core this process may run on
  // "", or "scalar", "avx2", "avx512", ... to force one that the machine has (tests, comparisons).
  std::string isa = {};
};

// The scalar oracle of every operation. Slow, single-threaded, complete; activations are never quantized.
std::shared_ptr<Device> NewReferenceDevice();
// SIMD kernels and the pool of worker threads that all models of the device share. InvalidArgument when options.isa is
// unknown or not available here.
Result<std::shared_ptr<Device>> NewCpuDevice(const CpuOptions& options);

}  // namespace pensieve::backend
