// The kernels of one instruction set, as a table of function pointers chosen once when a backend is created.
//
// Kernels are plain loops over plain memory: no allocation, no checks, no threads. The .cc files of the operations cut
// the work into chunks, lend scratch memory and call them. Sizes that a driver must know are in the table.
#pragma once

#include <cstdint>

#include "backend/activation.h"
#include "tensor/weight.h"

namespace pensieve::backend::cpu {

// Where the codes of a quantized weight lie: group-affine, or mxfp4 (`fp4`), whose nibbles stand for e2m1 values.
// Both become unsigned bytes q with w = scale * q + bias: e2m1 is doubled and raised by 12, into 0..24.
struct QuantWeight {
  int64_t rows = 0;
  int64_t cols = 0;
  int bits = 4;
  int group = 64;
  bool fp4 = false;
  const uint8_t* codes = nullptr;
  int64_t row_bytes = 0;
  tensor::DType scale_dtype = tensor::DType::kF16;  // kU8 for mxfp4's E8M0
  const uint8_t* scales = nullptr;
  const uint8_t* biases = nullptr;  // null: the bias follows from the scale, `zero` codes below zero
  float zero = 0.0f;                // w = scale * (q - zero) when biases is null
  float scale_factor = 1.0f;        // applied to every scale: 0.5 for mxfp4's doubled values

  int code_max() const { return fp4 ? 24 : (1 << bits) - 1; }
  // Elements that share an activation scale. Longer than 64 would cost precision, shorter costs a flush more.
  int activation_group() const { return group < 64 ? group : 64; }
};

// Columns are held in "quads" of four that one integer dot product takes at once. Within every 8 columns the even ones
// come first (0 2 4 6 | 1 3 5 7): that is how nibbles fall out of 32-bit words without a shuffle. Integer sums do not
// depend on the order, so it shows nowhere else.
//
// `panel` output channels of a quantized weight, unpacked: scales and biases [cols / group][panel] f32, group being the
// activation group, and of the groups [first_group, end_group) the codes, [columns / 4][panel][4] bytes. 64-byte aligned.
// Codes are unpacked and multiplied at most kDepthColumns at a time: 20 KB of them stay in the L1 cache meanwhile.
struct QuantPanel {
  int64_t cols = 0;
  int group = 64;
  int code_max = 255;  // the largest code there may be
  int64_t first_group = 0;
  int64_t end_group = 0;
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  float* biases = nullptr;
  // Weight memory that is wanted next: quant_tile asks for it while it multiplies the first rows.
  const uint8_t* ahead = nullptr;
  int64_t ahead_per_group = 0;  // bytes for each of the panel's groups
};
inline constexpr int64_t kDepthColumns = 640;

// Big quads of a group in a coarse row. Each more of them lowers the error of the rest and costs one dot product in
// some sixteen; docs/exactness.md has the figures.
inline constexpr int kMostBigQuads = 4;
constexpr int BigQuads(int group) { return group == 64 ? 4 : group == 32 ? 3 : 2; }

// What a row's group of activations needs beside its planes: read together, so kept together. Kernels read its first 32
// bytes in two vectors of 16.
struct QuantGroup {
  float scale;
  float sum;                           // scale * sum of v over the group
  float center;                        // -kCenter * scale, exactly; coarse rows
  int32_t total;                       // sum of v over the group
  int32_t big_value[kMostBigQuads];    // four signed bytes each; coarse rows
  uint16_t big_offset[kMostBigQuads];  // bytes from the group's first codes in a panel to those of a big quad
};

// One activation row: x[k] ~ scale[g] * v[k], v = low[k] + 128 * high[k], both signed bytes.
// Precise rows have the whole plane `high`; v has about 15 bits. Coarse rows have `high` only for the few quads of a group
// that hold its largest values (`big_offset`, `big_value`, BigQuads of a group), so that those do not coarsen the scale
// of the others; v of the others has 8 bits.
struct QuantRow {
  int8_t* low = nullptr;         // [cols], quad order
  int8_t* high = nullptr;        // [cols], quad order; precise rows
  QuantGroup* groups = nullptr;  // [cols / group]
};
// 1.5 * 2^23: an integer below 2^22 in magnitude added to this number's bits is the float kCenter + integer.
inline constexpr float kCenter = 12582912.0f;

// Rows at equal distances: row r's pointers are the first row's plus r * stride (of each array's own kind).
struct QuantRows {
  QuantRow first;
  int64_t cols = 0;
  int64_t groups = 0;
  // [rows][cols]: both planes once more with all even quads of a row before its odd ones; decode_tile's rows only.
  int8_t* split_high = nullptr;
  int8_t* split_low = nullptr;
};

inline bool DecodesDirectly(const QuantWeight& w) { return (w.bits == 4 || w.bits == 8) && w.activation_group() >= 32; }

// What happens to a tile of finished sums [rows, cols] on its way out: y = act(sum + bias), stored or added.
struct TileOutput {
  const float* bias = nullptr;  // of the tile's first column, or null
  Activation activation = Activation::kNone;
  bool accumulate = false;
  float* out = nullptr;
  int64_t stride = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

// What a tile's products are of when they are made of pairs of 16-bit integers; attention_pairs-inl.h says how. Columns
// are keys, a block's from block * key_stride on.
struct AttentionPairs {
  const int16_t* q = nullptr;  // [rows][q_stride]
  int64_t q_stride = 0;
  const float* q_scales = nullptr;      // [rows], times the attention's own scale
  const int16_t* keys = nullptr;        // [pairs of dimensions][columns][2]
  const float* key_scales = nullptr;    // [columns]
  const int16_t* values = nullptr;      // [pairs of columns][value_stride][2]
  const float* value_scales = nullptr;  // [columns]; 0 where there is no key
  int64_t columns = 0;
  float* p_scales = nullptr;  // scratch [rows]
  float p_limit = 0.0f;
};

// One tile of attention for a task's rows: up to kMostBlocks blocks of keys, and the running softmax they are added to.
// Keys and values are f32, or f16 (`halves`, for few rows).
struct AttentionTile {
  static constexpr int kMostBlocks = 16;
  float* q = nullptr;  // [rows, q_stride], already times scale
  int64_t q_stride = 0;
  int64_t rows = 0;  // ascending positions: end_seen never falls
  int64_t head_dim = 0;
  int64_t block_len = 0;  // keys a block
  int64_t num_keys = 0;   // of all blocks
  bool halves = false;
  const void* keys[kMostBlocks] = {};    // [head_dim][key_stride] each: transposed
  const void* values[kMostBlocks] = {};  // [block_len][value_stride] each
  const void* ahead = nullptr;           // what is read after this tile, or null; f16
  int64_t key_stride = 0;                // a multiple of the lanes
  int64_t value_stride = 0;              // a multiple of the lanes
  const int32_t* first_seen = nullptr;   // [rows]: row r sees keys [first_seen, end_seen) of this tile; may be empty
  const int32_t* end_seen = nullptr;
  float softcap = 0.0f;
  float* scores = nullptr;  // scratch [rows][score_stride], block after block
  int64_t score_stride = 0;
  float* largest = nullptr;  // [rows], running maximum
  float* sum = nullptr;      // [rows], running sum of exponentials
  float* mixed = nullptr;    // [rows][value_stride], running weighted values
  AttentionPairs pairs;      // attend_pairs reads these in the place of q, keys and values

  void SetState(float* new_mixed, float* new_sum, float* new_largest) {
    mixed = new_mixed;
    sum = new_sum;
    largest = new_largest;
  }
};

struct KernelTable {
  const char* isa;
  int lanes;  // floats a vector
  int panel;  // output channels a panel: two vectors

  // --- products
  void (*quantize_row)(const float* x, int64_t cols, int group, bool precise, const QuantRow& out);
  // Channels [first_row, first_row + count), count <= panel; channels beyond are filled with copies of the last.
  // Scales and biases of all groups; codes of the panel's present groups.
  void (*unpack_groups)(const QuantWeight& weight, int64_t first_row, int64_t count, const QuantPanel& panel);
  void (*unpack_codes)(const QuantWeight& weight, int64_t first_row, int64_t count, const QuantPanel& panel);
  // tile[r][c] = sum of the present groups' products of row (first + r), channel c, upon what the tile holds of the
  // groups before; tile stride = panel.
  void (*quant_tile)(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t count, bool precise,
                     float* tile);
  // Unpacking and quant_tile in one, for one or two precise rows and weights that DecodesDirectly holds for.
  void (*decode_tile)(const QuantWeight& weight, int64_t first_row, int64_t count, const QuantRows& rows, int64_t first,
                      int64_t count_rows, float* tile);
  // A plane [cols] in quad order, the even quads first (QuantRows::split_high).
  void (*split_quads)(const int8_t* plane, int64_t cols, int8_t* out);
  // panel_out[k - first_k][c] = w[first_row + c][k] as f32, for k in [first_k, first_k + count_k).
  void (*unpack_dense)(const tensor::DenseWeight& weight, int64_t first_row, int64_t count, int64_t first_k,
                       int64_t count_k, float* panel_out);
  // The same from the panel's present groups: scale * q + bias in f32.
  void (*dequantize_panel)(const QuantPanel& panel, float* panel_out);
  // tile[r][c] = sum over k of a[r][k] * panel[k][c], k ascending, one accumulator each; `add`: upon what the tile holds.
  void (*f32_tile)(const float* a, int64_t a_stride, int64_t rows, const float* panel, int64_t depth, bool add,
                   float* tile);
  void (*store_tile)(const float* tile, int64_t tile_stride, const TileOutput& output);
  // out = act(gate) * up.
  void (*store_gated)(const float* gate, const float* up, int64_t tile_stride, const TileOutput& output);

  // --- rows
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out);
  // cosines and sines: [rotated / 2], magnitude included.
  void (*rope)(float* head, int64_t rotated, bool interleaved, const float* cosines, const float* sines);
  void (*add)(const float* x, int64_t n, float* out);
  void (*scale)(float* x, int64_t n, float factor);
  void (*softcap)(float* x, int64_t n, float cap);
  void (*max)(const float* x, int64_t n, float* out);
  void (*l2_normalize)(float* x, int64_t n);

  // --- attention
  void (*attend)(const AttentionTile& tile);
  // The same in pairs, and what makes them: x ~ scale * out, integers up to `limit` in magnitude. Null where the
  // instruction set multiplies pairs no faster than floats.
  void (*attend_pairs)(const AttentionTile& tile);
  float (*pair_query)(const float* x, int64_t n, float limit, int16_t* out);
  void (*pair_keys)(const float* keys, int64_t head_dim, int64_t key_stride, float limit, int64_t columns, int16_t* out,
                    float* scales);
  void (*pair_values)(const float* values, int64_t tokens, int64_t padded, int64_t stride, float limit, int16_t* out,
                      float* scales);
  // n values to and from the cache's types; n is rounded up to whole vectors.
  void (*from_f16)(const uint16_t* x, int64_t n, float* out);
  void (*to_f16)(const float* x, int64_t n, uint16_t* out);
  void (*from_i8)(const int8_t* x, int64_t n, float* out);
  // The part [mixed, sum, largest] of a later segment joined to that of the earlier ones.
  void (*merge)(const float* mixed, float sum, float largest, int64_t n, float* mixed_total, float* sum_total,
                float* largest_total);
};

// Those of the build that this processor runs, best first. Never empty.
struct KernelTables {
  const KernelTable* tables[8];
  int count;
};
KernelTables AvailableKernels();

}  // namespace pensieve::backend::cpu
