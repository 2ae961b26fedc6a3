// The kernels of the CUDA backend, as functions that launch them on a stream. Plain structures only, so that nvcc and the
// host compiler agree on them.
//
// Launchers return nothing: what a launch fails with is found by cudaGetLastError afterwards. Pointers are device memory
// unless they say otherwise. Sizes are checked by the caller.
//
// Structures have no padding where they are made anew for every step: they are compared byte by byte (operation_list.h).
//
// Order of sums. Company must not matter, so the order in which a value's terms are added is a function of the value's
// own shape: (rows, columns) of the weight for products, the row's own position for attention. No launcher chooses an
// order by how many rows there are.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace pensieve::backend::cuda {

enum class Form : int { kF32, kF16, kBf16, kAffine, kMxfp4 };
enum class ScaleType : int { kF16, kBf16, kF32 };
// As backend::Activation, by value.
enum class Act : int { kNone, kSilu, kGeluTanh, kGeluErf, kRelu, kQuickGelu };

// A weight [rows, cols] in device memory, rows one after the other as tensor/weight.h describes them. Every row of codes
// starts at an address that is a multiple of 4, and so do scales of f32; halves at multiples of 2.
struct DeviceWeight {
  Form form;
  int64_t rows;
  int64_t cols;
  int bits;   // kAffine
  int group;  // columns that share a scale: 2^group_shift
  int group_shift;
  int groups;             // of a row
  ScaleType scale_type;   // kAffine
  const uint8_t* codes;   // or the values of a dense weight
  int64_t row_bytes;      // of codes
  const uint8_t* scales;  // [rows, cols / group]
  const uint8_t* biases;  // likewise, or null: -zero * scale
  float zero;
};

// A matrix [rows, cols] of f32; stride in elements.
struct DeviceMatrix {
  float* data;
  int64_t rows;
  int64_t cols;
  int64_t stride;
};

// What becomes of a sum: out = act(sum + bias), or added to out.
struct Epilogue {
  const float* bias;  // or null
  Act act;
  int32_t accumulate;  // 0 or 1
};

// --- products -----------------------------------------------------------------------------------------------------
// out[r][n] = epilogue(sum over k of x[r][k] * w[n][k]) in f32: weights become f32 by one product and one sum, every lane
// of a warp adds the eights of columns that are its own in ascending order, and the lanes are added as a tree.
void LaunchPreciseProduct(const DeviceMatrix& x, const DeviceWeight& w, const Epilogue& epilogue,
                          const DeviceMatrix& out, cudaStream_t stream);
// Rows as two planes of f16: x * factor ~ high + low / 2048, a factor of a power of two for each row that brings its
// largest magnitude into [2^13, 2^14). So 22 bits of a value are kept.
// values: [rows][plane][columns], columns in the order in which PlaneProduct's lanes read them for groups of 64 and more,
// or for groups of 32. sums: of x * factor over 64 (or 32) columns each.
struct PlaneRows {
  uint16_t* values;  // [rows][2][slabs * slab]
  float* sums;       // [rows][slabs]
  float* inverses;   // [rows]: 1 / factor, NaN when the row holds what is not finite
  int64_t slabs;
  int64_t slab;  // 64 or 32
};
// weight null: x as it is; else RmsNorm(x) by it, which is also stored to `normed`.
void LaunchToPlanes(const DeviceMatrix& x, const float* weight, float eps, const DeviceMatrix& normed,
                    const PlaneRows& out, cudaStream_t stream);
// Where a product's planes come from: `rows`, or, when own is 1, every block makes those of `source` by itself, normed
// by norm_weight (or null: as it is); the norm is stored to `normed` as well. One row, same bits either way.
struct PlaneInput {
  PlaneRows rows;
  DeviceMatrix source;
  const float* norm_weight;
  DeviceMatrix normed;
  float eps;
  int32_t own;
};
bool MakesOwnPlanes(const DeviceMatrix& source, const float* norm_weight);
// Weights of 4 bits with groups of 32 and more (by group: slabs of 32 or of 64) take this way.
bool TakesPlanes(const DeviceWeight& w);
inline int64_t SlabOf(const DeviceWeight& w) { return w.group == 32 ? 32 : 64; }

struct PlaneOutput {
  DeviceWeight w;
  Epilogue epilogue;
  DeviceMatrix out;
};
inline constexpr int kMostPlaneOutputs = 4;
struct PlaneOutputs {
  PlaneOutput of[kMostPlaneOutputs];
  int64_t count;
};
// Products of one input, whose weights all have its slab: integers 0..15 times the planes on tensor cores, exact but for
// f32 sums; scales and biases once a group. A block's eight warps share a row's columns by the columns alone.
void LaunchPlaneProducts(const PlaneInput& x, int64_t rows, const PlaneOutputs& outputs, cudaStream_t stream);
void LaunchPlaneGated(const PlaneInput& x, int64_t rows, const DeviceWeight& gate, const DeviceWeight& up, Act act,
                      const DeviceMatrix& out, cudaStream_t stream);

// Rows as f16 with one power of two each, so that the largest magnitude of a row lies in [2^13, 2^14): the input of
// coarse products. padded_cols: cols rounded up to 32, zeros beyond cols.
struct HalfRows {
  uint16_t* values;  // [rows][padded_cols]
  float* factors;    // [rows]: what a product of the row is multiplied by
  int64_t padded_cols;
};
void LaunchToHalfRows(const DeviceMatrix& x, const HalfRows& out, cudaStream_t stream);
// The same products on tensor cores: weights rounded to f16, f32 sums over columns in ascending sixteens.
void LaunchCoarseProduct(const HalfRows& x, const DeviceWeight& w, const Epilogue& epilogue, const DeviceMatrix& out,
                         cudaStream_t stream);
// For many rows: the weight as halves [rows][cols] first, then a product that gives the bits of LaunchCoarseProduct.
bool TakesHalfWeights(const DeviceWeight& w);
void LaunchToHalfWeights(const DeviceWeight& w, uint16_t* out, cudaStream_t stream);
void LaunchHalfProduct(const HalfRows& x, const uint16_t* w, int64_t channels, const Epilogue& epilogue,
                       const DeviceMatrix& out, cudaStream_t stream);
// out = act(out) * up: the second half of a gated product whose gate lies in out.
void LaunchGate(const DeviceMatrix& up, Act act, const DeviceMatrix& out, cudaStream_t stream);

// --- rows ---------------------------------------------------------------------------------------------------------
// out[r] (+)= scale * w[ids[r]]; ids null: row 0 for all.
void LaunchEmbedRows(const DeviceWeight& w, const int32_t* ids, float scale, bool add, const DeviceMatrix& out,
                     cudaStream_t stream);
// Every piece of `width` columns by itself. x and out may be the same.
void LaunchRmsNorm(const DeviceMatrix& x, int64_t width, const float* weight, float eps, const DeviceMatrix& out,
                   cudaStream_t stream);
void LaunchLayerNorm(const DeviceMatrix& x, const float* weight, const float* bias, float eps, const DeviceMatrix& out,
                     cudaStream_t stream);
struct DeviceRope {
  const float* frequencies;  // [rotated / 2]
  int64_t rotated;
  int32_t interleaved;  // 0 or 1
  float magnitude;
};
// is_long: [rows], which of the two tables.
void LaunchRotate(const DeviceMatrix& x, int64_t head_dim, const int32_t* positions, const uint8_t* is_long,
                  const DeviceRope& usual, const DeviceRope& for_long, cudaStream_t stream);
void LaunchScaleRows(const DeviceMatrix& x, const float* factors, cudaStream_t stream);
void LaunchAdd(const DeviceMatrix& x, const DeviceMatrix& out, cudaStream_t stream);
void LaunchSoftcap(const DeviceMatrix& x, float cap, cudaStream_t stream);
void LaunchGather(const DeviceMatrix& x, const int32_t* rows, const DeviceMatrix& out, cudaStream_t stream);
void LaunchL2Normalize(const DeviceMatrix& x, cudaStream_t stream);
enum class Pool : int { kMean, kCls, kLast, kMax };
// Sequence s has rows [first[s], first[s] + count[s]).
void LaunchPool(const DeviceMatrix& x, const int32_t* first, const int32_t* count, Pool pooling,
                const DeviceMatrix& out, cudaStream_t stream);
// tokens[i] = the first id of the largest comparable logit of row rows[i] among ids below limits[i]; -1 without any.
void LaunchGreedy(const DeviceMatrix& logits, const int32_t* rows, const int32_t* limits, int64_t count,
                  int32_t* tokens, cudaStream_t stream);

// --- attention ----------------------------------------------------------------------------------------------------
enum class KvType : int64_t { kF16, kF32, kInt8 };

// Keys and values of one layer. A block holds, for each kv head, keys as [padded_dim / 8][block_len][8], so that
// neighbouring lanes read neighbouring keys, and values as [block_len][padded_dim]; dims beyond head_dim are zero. Scales
// (int8 only) lie in planes of their own, [block][kv_head][block_len].
struct KvLayer {
  KvType type;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t padded_dim;  // a multiple of 8
  int64_t block_len;
  uint8_t* keys;
  uint8_t* values;
  float* key_scales;
  float* value_scales;
};

// Where the rows of a step stand.
struct RowPlaces {
  const int32_t* sequence;  // [rows]: which sequence
  const int32_t* position;  // [rows]: how many tokens of the sequence lie before the row
  const int32_t* tables;    // block tables, one after the other
  const int32_t* table_at;  // [sequences]: where a sequence's table begins
  int64_t rows;
  int64_t longest;  // the largest position + 1
};

struct AttentionArgs {
  int64_t window;      // 0: all
  const float* sinks;  // [heads] or null
  float scale;
  float softcap;  // 0: none
};

void LaunchStoreKv(const KvLayer& kv, const RowPlaces& places, const DeviceMatrix& k, const DeviceMatrix& v,
                   cudaStream_t stream);
// How a step's rows rotate. `rotates` 0: they do not.
struct RotateArgs {
  const int32_t* positions;
  const uint8_t* is_long;
  DeviceRope usual;
  DeviceRope for_long;
  int64_t rotates;
};
// Rotates q and k in place and stores k and v: what LaunchRotate for each and LaunchStoreKv give, bit for bit.
void LaunchRotateAndStore(const KvLayer& kv, const RowPlaces& places, const RotateArgs& args, const DeviceMatrix& q,
                          const DeviceMatrix& k, const DeviceMatrix& v, cudaStream_t stream);
// What a step of one row a sequence does on the way to attention: norms of heads, rotation, storing. `fused` 0: q is ready
// and the keys are stored.
struct FusedArgs {
  RotateArgs rotate;
  const float* q_norm;  // [head_dim] or null
  const float* k_norm;
  float q_eps;
  float k_eps;
  int64_t fused;
};
// Precise rows over keys of f16 or int8, heads of up to 128 dims: one kernel. counters: [rows][heads] of zeros, which are
// zeros again afterwards. When fused, k and v are read, q and k stay as they are, and no row sees another row of the step.
bool TakesDecodeAttention(const KvLayer& kv);
bool TakesFusedAttention(const KvLayer& kv, int64_t heads);
int64_t DecodeAttentionScratch(const KvLayer& kv, const RowPlaces& places, int64_t heads);
void LaunchDecodeAttention(const KvLayer& kv, const RowPlaces& places, const FusedArgs& fused,
                           const AttentionArgs& args, const DeviceMatrix& q, const DeviceMatrix& k,
                           const DeviceMatrix& v, const DeviceMatrix& out, float* scratch, int32_t* counters,
                           cudaStream_t stream);

// Keys a block of threads takes at once. A row's keys are cut into pieces of this many, from its sequence's first on;
// the pieces are joined in ascending order.
inline constexpr int64_t kAttentionPiece = 256;
// Floats that LaunchPagedAttention needs as scratch.
int64_t AttentionScratch(const KvLayer& kv, const RowPlaces& places, int64_t heads);
void LaunchPagedAttention(const KvLayer& kv, const RowPlaces& places, const AttentionArgs& args, const DeviceMatrix& q,
                          const DeviceMatrix& out, float* scratch, cudaStream_t stream);
// Neighbouring rows of one sequence that a block of threads takes together: at most kPromptRows.
inline constexpr int64_t kPromptRows = 64;
struct RowTiles {
  const int32_t* first;  // [tiles]: rows of the step
  const int32_t* count;  // [tiles]
  int64_t tiles;
};
// Coarse rows on tensor cores: keys and values of f16 or int8, heads of up to 128 dims. q, out and places: of all rows.
bool TakesPromptAttention(const KvLayer& kv);
void LaunchPromptAttention(const KvLayer& kv, const RowPlaces& places, const RowTiles& tiles, const AttentionArgs& args,
                           const DeviceMatrix& q, const DeviceMatrix& out, cudaStream_t stream);
// Inside of each sequence: row r sees the rows of its own sequence, [first[sequence], + count).
void LaunchEncoderAttention(const int32_t* sequence, const int32_t* first, const int32_t* count, int64_t head_dim,
                            const AttentionArgs& args, const DeviceMatrix& q, const DeviceMatrix& k,
                            const DeviceMatrix& v, const DeviceMatrix& out, cudaStream_t stream);

// --- experts ------------------------------------------------------------------------------------------------------
enum class Route : int { kSoftmax, kSoftmaxOfChosen, kSigmoid };

struct DeviceExpert {
  DeviceWeight gate, up, down;
  const float* gate_bias;
  const float* up_bias;
  const float* down_bias;
};

struct DeviceExperts {
  const DeviceExpert* experts;  // [count]
  int64_t count;
  int64_t inner;
  int64_t top_k;
  Route route;
  Act act;
  bool alternating;
  float limit;
};

// chosen, weights: [rows][top_k], by ascending index.
void LaunchRoute(const DeviceMatrix& logits, const DeviceExperts& experts, int32_t* chosen, float* weights,
                 cudaStream_t stream);
// inner: scratch [rows * top_k][inner].
void LaunchExperts(const DeviceMatrix& x, const DeviceExperts& experts, const int32_t* chosen, const float* weights,
                   float* inner, const DeviceMatrix& out, cudaStream_t stream);

}  // namespace pensieve::backend::cuda
