// What a model asks of a device: about twenty coarse operations over whole ragged batches.
//
// Model code is written once against this interface; a backend is one folder. Activations are f32 matrices in the
// backend's own memory ("device memory", which is plain memory on a CPU). Operations are issued in order by ONE thread,
// the engine thread of the model; a backend may run them asynchronously until Synchronize(). Arguments are checked by
// the caller: shapes that do not fit are our own bug (PENSIEVE_CHECK), so operations return nothing.
//
// Exactness, which every backend keeps: the result of a row depends on that row's own sequence alone, bit for bit, never on
// what else is in the batch, how many rows there are, or how a prompt was cut into chunks. So a text embedded alone
// and in a batch, or a prompt run alone and beside others, gives the same numbers on the same machine.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "tensor/weight.h"

namespace pensieve::backend {

// A row-major f32 matrix in device memory; `stride` is in elements. Borrows.
struct Matrix {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* row(int64_t r) const { return data + r * stride; }
  // Columns [first, first + count) of all rows: how one projection's output is split into q, k and v.
  Matrix Columns(int64_t first, int64_t count) const { return {data + first, rows, count, stride}; }
  Matrix Rows(int64_t first, int64_t count) const { return {data + first * stride, count, cols, stride}; }
};

// How the inputs of matrix products are held while they are multiplied with quantized weights.
enum class ActivationMode : uint8_t {
  kInt8,   // default: fine rows as two int8 planes (near exact); other rows as one, with a remainder for the large channels
  kInt16,  // two int8 planes for every row
  kF32,    // exact mode: never quantized
};

// The input of a product. The first `fine_rows` rows are decode steps: they wait for memory, not arithmetic, so kInt8
// multiplies them in two planes. Which rows are fine is a property of the sequence's phase, never of the batch.
struct MatMulInput {
  Matrix x;               // [M, K]
  int64_t fine_rows = 0;  // 0..M
};

// kQuickGelu: x * sigmoid(1.702 x).
enum class Activation : uint8_t { kNone, kSilu, kGeluTanh, kGeluErf, kRelu, kQuickGelu };

// One of the products that share an input: y = act(x . W^T + bias), stored into out or added to it.
struct Product {
  const tensor::Weight* weight = nullptr;  // [N, K], as returned by Backend::Import
  const float* bias = nullptr;             // [N] or null, device memory
  Matrix out;                              // [M, N]
  Activation activation = Activation::kNone;
  bool accumulate = false;                 // out += instead of out =: the residual add
};

// How a router's logits choose the experts of a row and weigh them. The `top_k` largest are chosen; equal ones by index.
enum class Routing : uint8_t {
  kSoftmax,          // weights: softmax over all logits, taken as it is
  kSoftmaxOfChosen,  // weights: softmax over the chosen logits (the same as renormalising kSoftmax)
  kSigmoid,          // weights: sigmoid of the chosen logit itself
};

// One of the gated feed-forward networks of a layer: y = down(act(gate x) * up x), [D] -> [F] -> [D].
struct Expert {
  tensor::Weight gate;  // [F, D], or [2F, D] with the rows gate 0, up 0, gate 1, ...: see ExpertLayer::interleaved
  tensor::Weight up;    // [F, D]; not read when interleaved
  tensor::Weight down;  // [D, F]
  const float* gate_bias = nullptr;  // one a row of `gate`, device memory, or null
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
};

struct ExpertLayer {
  std::span<const Expert> experts;
  Routing routing = Routing::kSoftmaxOfChosen;
  int64_t top_k = 1;  // 1..experts
  Activation activation = Activation::kSilu;
  bool interleaved = false;
  float limit = 0.0f;  // > 0: act(min(g, limit)) * (clip(u, -limit, limit) + 1), as gpt-oss has it
};

// Rotation table of a rotary embedding: angle of pair i at position p is p * frequencies[i] in f32, range-reduced
// accurately; both outputs are multiplied by `magnitude` (yarn, longrope).
struct RopeTable {
  const float* frequencies = nullptr;  // [rotated / 2], device memory
  int64_t rotated = 0;                 // leading dims of a head that rotate, even
  bool interleaved = false;            // pairs (2i, 2i+1) instead of (i, i + rotated/2)
  float magnitude = 1.0f;
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
};

// The rows of one sequence inside a ragged batch.
struct SequenceRows {
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t cached_len = 0;                // tokens whose K and V were stored by earlier steps
  std::span<const int32_t> block_table;  // KV blocks in order, covering cached_len + num_rows tokens; host memory
};

struct AttentionParams {
  float scale = 0.0f;
  int64_t window = 0;                // > 0: a row sees only the last `window` positions, itself included
  float softcap = 0.0f;              // > 0: scores become c * tanh(s / c) before the mask
  const float* sinks = nullptr;      // [heads] extra softmax terms, device memory, or null
  // Sequences whose rows begin before this one are decode steps and get f32 throughout; those of others may be rounded
  // as the activation mode allows (kInt8 only).
  int64_t fine_rows = std::numeric_limits<int64_t>::max();
};

// A backend's own work thread count, instruction sets and so on, for `inspect`, logs and metrics.
struct DeviceDescription {
  std::string name;            // "cpu (AVX-512 VNNI)"
  int threads = 0;
  int64_t memory_bytes = 0;    // of the device
};

enum class Pooling : uint8_t { kMean, kCls, kLast, kMax };

class Backend {
 public:
  virtual ~Backend() = default;

  virtual DeviceDescription Describe() const = 0;

  // --- memory ---------------------------------------------------------------------------------------------------
  // Makes a weight usable by this device: in place where the layout is already good, repacked where that pays. The
  // backend owns what it makes, for its own life; `weight`'s memory must stay valid as long.
  virtual Result<tensor::Weight> Import(const tensor::Weight& weight) = 0;
  // The same for a matrix of an encoder, which products alone read, in passes of a few rows: one that is copied once into
  // the order in which products read it, if that pays, need not be put into that order in every pass.
  virtual Result<tensor::Weight> ImportForEncoder(const tensor::Weight& weight) { return Import(weight); }
  // A zeroed f32 matrix owned by the backend for its life. For weights' vectors and planned activations.
  virtual Result<Matrix> NewMatrix(int64_t rows, int64_t cols) = 0;
  virtual Result<std::unique_ptr<KvCache>> NewKvCache(const KvShape& shape) = 0;
  virtual void CopyToDevice(std::span<const float> host, float* device) = 0;
  virtual void CopyToHost(const float* device, std::span<float> host) = 0;  // waits for what was issued before
  virtual void Synchronize() = 0;

  // --- products -------------------------------------------------------------------------------------------------
  // Every product of `products` over one input, which is quantized once. Outputs may not overlap each other or x.
  virtual void MatMul(const MatMulInput& input, std::span<const Product> products) = 0;
  // out = act(x . gate^T) * (x . up^T), [M, F]. No biases.
  virtual void GatedMatMul(const MatMulInput& input, const tensor::Weight& gate, const tensor::Weight& up,
                           Activation activation, Matrix out) = 0;
  // out[r] += the weighted sum of the experts that row r's logits [M, experts] choose, in order of their index. Every
  // expert's weights are read once for all rows that chose it. out [M, D] may not overlap x.
  virtual void Experts(const MatMulInput& input, Matrix logits, const ExpertLayer& layer, Matrix out) = 0;

  // --- rows -----------------------------------------------------------------------------------------------------
  // out[r] = scale * table[ids[r]]; ids are checked by the caller to lie in [0, rows). With `add`, out[r] += instead.
  virtual void EmbedRows(const tensor::Weight& table, std::span<const int32_t> ids, float scale, Matrix out, bool add) = 0;
  // out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight. f32 throughout, sums in a fixed order. x and out may be the same.
  virtual void RmsNorm(Matrix x, const float* weight, float eps, Matrix out) = 0;
  // The same over each head of a row: x is [M, heads * head_dim], weight [head_dim].
  virtual void RmsNormHeads(Matrix x, int64_t head_dim, const float* weight, float eps) = 0;
  // out[r] = (x[r] - mean) / sqrt(var + eps) * weight + bias, biased variance. x and out may be the same.
  virtual void LayerNorm(Matrix x, const float* weight, const float* bias, float eps, Matrix out) = 0;
  // Rotates every head of x [M, heads * head_dim] in place; positions: [M], host memory.
  virtual void Rope(Matrix x, int64_t head_dim, std::span<const int32_t> positions, const RopeTable& table) = 0;
  virtual void Add(Matrix x, Matrix out) = 0;  // out += x
  virtual void Scale(Matrix x, float factor) = 0;
  virtual void Softcap(Matrix x, float cap) = 0;  // cap * tanh(x / cap)
  // out[r] = x[rows[r]].
  virtual void GatherRows(Matrix x, std::span<const int32_t> rows, Matrix out) = 0;

  // --- attention ------------------------------------------------------------------------------------------------
  // Writes k and v [M, kv_heads * head_dim] of every sequence at positions cached_len.. of its blocks.
  virtual void StoreKv(KvCache& cache, int64_t layer, std::span<const SequenceRows> sequences, Matrix k, Matrix v) = 0;
  // Causal attention of q [M, heads * head_dim] over the cache (StoreKv of this layer came before). out: as q.
  virtual void PagedAttention(const KvCache& cache, int64_t layer, std::span<const SequenceRows> sequences,
                              const AttentionParams& params, Matrix q, Matrix out) = 0;
  // Bidirectional attention inside each sequence, no cache: encoders. kv heads = k.cols / head_dim; window > 0 here
  // means |i - j| <= window. block_table and cached_len are ignored.
  virtual void EncoderAttention(std::span<const SequenceRows> sequences, int64_t head_dim, const AttentionParams& params,
                                Matrix q, Matrix k, Matrix v, Matrix out) = 0;

  // --- pooling --------------------------------------------------------------------------------------------------
  // One row a sequence, [num_sequences, D]. Sums run in row order in f32.
  virtual void Pool(Matrix x, std::span<const SequenceRows> sequences, Pooling pooling, Matrix out) = 0;
  // Each row divided by its Euclidean norm (floor 1e-12).
  virtual void L2Normalize(Matrix x) = 0;
};

struct CpuOptions {
  int threads = 0;  // 0: one per physical core this process may run on
  ActivationMode activations = ActivationMode::kInt8;
  std::string isa;  // "", or "scalar", "avx2", "avx512", ... to force one that the machine has (tests, comparisons)
};

// The scalar oracle of every operation. Slow, single-threaded, complete; activations are never quantized.
std::unique_ptr<Backend> NewReferenceBackend();
// SIMD kernels and a worker pool. InvalidArgument when options.isa is unknown or not available here.
Result<std::unique_ptr<Backend>> NewCpuBackend(const CpuOptions& options);

}  // namespace pensieve::backend
