// Attention in f32. The keys of a row are cut into pieces of kAttentionPiece, from the first key of its sequence on; a
// block of threads takes one piece for up to four query heads that share a kv head, and a second kernel joins the pieces in
// ascending order. So a row's sums depend on its own position alone, and a long conversation fills the whole device.
//
//   score[j] = scale * q . k[j], capped; p[j] = exp(score[j] - largest); piece: largest, sum of p, sum of p v
//
// Limited by the memory's speed for few rows.
#include "backend/cuda/kv_code.cuh"

namespace pensieve::backend::cuda {
namespace {

constexpr int kThreads = 256;

// Eight neighbouring elements at a multiple of 8.
template <KvType kType>
__device__ inline void LoadKvEight(const uint8_t* plane, int64_t i, float (&out)[8]) {
  if constexpr (kType == KvType::kF32) {
    const float4 a = *reinterpret_cast<const float4*>(plane + i * 4);
    const float4 b = *reinterpret_cast<const float4*>(plane + i * 4 + 16);
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  } else if constexpr (kType == KvType::kF16) {
    const uint4 eight = *reinterpret_cast<const uint4*>(plane + i * 2);
    const uint32_t words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int j = 0; j < 8; ++j) out[j] = HalfBits(static_cast<uint16_t>(words[j / 2] >> (16 * (j % 2))));
  } else {
    const uint2 eight = *reinterpret_cast<const uint2*>(plane + i);
#pragma unroll
    for (int j = 0; j < 8; ++j)
      out[j] = static_cast<float>(static_cast<int8_t>((j < 4 ? eight.x : eight.y) >> (8 * (j % 4))));
  }
}

// blockIdx.x the row, blockIdx.y the kv head; warp 0 stores the key, warp 1 the value.
template <KvType kType>
__global__ void StoreKv(KvLayer kv, RowPlaces places, DeviceMatrix k, DeviceMatrix v) {
  WaitForPrevious();
  const int64_t r = blockIdx.x;
  const int64_t head = blockIdx.y;
  const int64_t position = places.position[r];
  const int32_t* table = places.tables + places.table_at[places.sequence[r]];
  const bool is_key = threadIdx.x < 32;
  const DeviceMatrix& source = is_key ? k : v;
  StoreHead<kType>(source.data + r * source.stride + head * kv.head_dim, kv, table[position / kv.block_len], head,
                   position % kv.block_len, is_key);
}

// Pairs of one head by the lanes of a warp: as Rotate in rows.cu, bit for bit.
__device__ inline void RotateHead(float* head, float position, const DeviceRope& rope) {
  const int pairs = static_cast<int>(rope.rotated / 2);
  for (int i = threadIdx.x % 32; i < pairs; i += 32) { RotatePair(head, rope, i, SineAndCosine(position, rope, i)); }
}

// A warp a head: the query heads of a row, then its keys, then its values. Keys are stored as they were rotated.
template <KvType kType>
__global__ void RotateAndStore(KvLayer kv, RowPlaces places, RotateArgs args, DeviceMatrix q, DeviceMatrix k,
                               DeviceMatrix v) {
  WaitForPrevious();
  const int64_t r = blockIdx.x;
  const int64_t heads = q.cols / kv.head_dim;
  const int64_t slot = static_cast<int64_t>(blockIdx.y) * (blockDim.x / 32) + threadIdx.x / 32;
  if (slot >= heads + 2 * kv.kv_heads) return;
  const auto position = static_cast<float>(args.positions[r]);
  const DeviceRope& rope = args.is_long[r] != 0 ? args.for_long : args.usual;
  if (slot < heads) {
    if (args.rotates != 0) RotateHead(q.data + r * q.stride + slot * kv.head_dim, position, rope);
    return;
  }
  const bool is_key = slot < heads + kv.kv_heads;
  const int64_t head = (slot - heads) % kv.kv_heads;
  const DeviceMatrix& source = is_key ? k : v;
  float* row = source.data + r * source.stride + head * kv.head_dim;
  if (is_key && args.rotates != 0) RotateHead(row, position, rope);
  __syncwarp();
  const int64_t place = places.position[r];
  const int32_t* table = places.tables + places.table_at[places.sequence[r]];
  StoreHead<kType>(row, kv, table[place / kv.block_len], head, place % kv.block_len, is_key);
}

// How a block takes a piece: its eight warps take 32 keys each, a lane a key for the scores, then the lanes share the
// dims of the values. Warps meet once, at the end.
constexpr int kWarps = kThreads / 32;
constexpr int kWarpKeys = 32;
static_assert(kWarps * kWarpKeys == kAttentionPiece);

// Four neighbouring elements at a multiple of 4.
template <KvType kType>
__device__ inline void LoadKvFour(const uint8_t* plane, int64_t i, float (&out)[4]) {
  if constexpr (kType == KvType::kF32) {
    const float4 a = *reinterpret_cast<const float4*>(plane + i * 4);
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  } else if constexpr (kType == KvType::kF16) {
    const uint2 four = *reinterpret_cast<const uint2*>(plane + i * 2);
#pragma unroll
    for (int j = 0; j < 4; ++j) out[j] = HalfBits(static_cast<uint16_t>((j < 2 ? four.x : four.y) >> (16 * (j % 2))));
  } else {
    const uint32_t four = *reinterpret_cast<const uint32_t*>(plane + i);
#pragma unroll
    for (int j = 0; j < 4; ++j) out[j] = static_cast<float>(static_cast<int8_t>(four >> (8 * j)));
  }
}

// Scores of the lane's key with kHeads query heads; queries: shared, [kHeads][padded_dim].
template <KvType kType, int kHeads>
__device__ inline void DotKey(const KvLayer& kv, int64_t base, int64_t token, const float* queries,
                              float (&dots)[kHeads]) {
#pragma unroll 8
  for (int d = 0; d < static_cast<int>(kv.padded_dim); d += 8) {
    float eight[8];
    LoadKvEight<kType>(kv.keys, base * kv.padded_dim + (d / 8 * kv.block_len + token) * 8, eight);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float4 a = *reinterpret_cast<const float4*>(queries + h * kv.padded_dim + d);
      const float4 b = *reinterpret_cast<const float4*>(queries + h * kv.padded_dim + d + 4);
      dots[h] = fmaf(a.x, eight[0], dots[h]);
      dots[h] = fmaf(a.y, eight[1], dots[h]);
      dots[h] = fmaf(a.z, eight[2], dots[h]);
      dots[h] = fmaf(a.w, eight[3], dots[h]);
      dots[h] = fmaf(b.x, eight[4], dots[h]);
      dots[h] = fmaf(b.y, eight[5], dots[h]);
      dots[h] = fmaf(b.z, eight[6], dots[h]);
      dots[h] = fmaf(b.w, eight[7], dots[h]);
    }
  }
}

// The warps' results of one head, in shared memory: [kWarps] largest, [kWarps] sums, [kWarps][padded_dim] mixtures.
__device__ inline int64_t WarpResults(const KvLayer& kv) { return kWarps * (kv.padded_dim + 2); }

// blockIdx.x the piece, blockIdx.y the kv head and kHeads of its query heads, blockIdx.z the row.
template <KvType kType, int kHeads>
__global__ void __launch_bounds__(kThreads)
    AttendPiece(KvLayer kv, RowPlaces places, AttentionArgs args, DeviceMatrix q, float* scratch, int64_t pieces) {
  WaitForPrevious();
  extern __shared__ __align__(16) float memory[];
  const int64_t row = blockIdx.z;
  const int64_t position = places.position[row];
  const int64_t first_key = static_cast<int64_t>(blockIdx.x) * kAttentionPiece;
  const int64_t first_seen = args.window > 0 ? max(int64_t{0}, position - args.window + 1) : 0;
  if (first_key > position || first_key + kAttentionPiece <= first_seen) return;
  const int64_t heads = q.cols / kv.head_dim;
  const int64_t share = heads / kv.kv_heads;
  const int64_t turns = (share + kHeads - 1) / kHeads;
  const int64_t kv_head = blockIdx.y / turns;
  const int64_t first_head = kv_head * share + blockIdx.y % turns * kHeads;
  const int64_t end_head = min((kv_head + 1) * share, first_head + kHeads);
  const int32_t* table = places.tables + places.table_at[places.sequence[row]];
  const int dims = static_cast<int>(kv.padded_dim);
  float* queries = memory;
  float* results = queries + kHeads * dims;
  for (int i = threadIdx.x; i < kHeads * dims; i += kThreads) {
    const int64_t head = first_head + i / dims;
    const int d = i % dims;
    queries[i] = head < end_head && d < kv.head_dim ? q.data[row * q.stride + head * kv.head_dim + d] : 0.0f;
  }
  __syncthreads();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int64_t warp_key = first_key + warp * kWarpKeys;
  const int64_t key = warp_key + lane;
  const bool seen = key <= position && key >= first_seen;
  // Keys beyond the row's own read the block of its last key: there is one, and what stands there has no weight.
  const int64_t inside = min(key, position);
  const int64_t base = BlockOffset(kv, table[inside / kv.block_len], kv_head);
  const int64_t token = inside % kv.block_len;
  float p[kHeads] = {};
  DotKey<kType, kHeads>(kv, base, token, queries, p);
  const float key_scale = kType == KvType::kInt8 ? kv.key_scales[base + token] : 1.0f;
  const float value_scale = kType == KvType::kInt8 ? kv.value_scales[base + token] : 1.0f;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    const float score = seen ? Score(p[h] * key_scale, args) : -INFINITY;
    const float largest = WarpMax(score);
    // NaN, which a maximum loses, comes back with the sum. A warp that sees nothing has the largest -infinity.
    const float weight = seen ? expf(score - largest) : 0.0f;
    const float sum = WarpSum(weight);
    p[h] = seen ? weight * value_scale : 0.0f;
    if (lane == 0) {
      results[h * WarpResults(kv) + warp] = largest;
      results[h * WarpResults(kv) + kWarps + warp] = sum;
    }
  }
  const int64_t line = (base + token) * kv.padded_dim;
  const int live = static_cast<int>(max(int64_t{0}, min(int64_t{kWarpKeys}, position + 1 - warp_key)));
  for (int first_dim = 0; first_dim < dims; first_dim += 128) {
    // Lanes beyond the last dim go along, for the shuffles' sake.
    const int d = first_dim + lane * 4;
    const int inside_dim = min(d, dims - 4);
    float mixed[kHeads][4] = {};
#pragma unroll 8
    for (int j = 0; j < live; ++j) {
      const int64_t at = __shfl_sync(~0u, line, j);
      float four[4];
      LoadKvFour<kType>(kv.values, at + inside_dim, four);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float weight = __shfl_sync(~0u, p[h], j);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          // What is not seen has no weight, whatever stands there.
          mixed[h][i] = weight != 0.0f ? fmaf(weight, four[i], mixed[h][i]) : mixed[h][i];
        }
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads && d < dims; ++h) {
#pragma unroll
      for (int i = 0; i < 4; ++i) results[h * WarpResults(kv) + 2 * kWarps + warp * dims + d + i] = mixed[h][i];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kHeads * dims; i += kThreads) {
    const int h = i / dims;
    const int d = i % dims;
    if (first_head + h >= end_head || d >= kv.head_dim) continue;
    const float* own = results + h * WarpResults(kv);
    float largest = own[0];
    for (int w = 1; w < kWarps; ++w) largest = MaxOrNan(own[w], largest);
    float sum = 0.0f;
    float mixed = 0.0f;
    for (int w = 0; w < kWarps; ++w) {
      const float fade = own[w] == -INFINITY ? 0.0f : expf(own[w] - largest);
      sum = fmaf(fade, own[kWarps + w], sum);
      if (fade != 0.0f) mixed = fmaf(fade, own[2 * kWarps + w * dims + d], mixed);
    }
    float* piece = PieceAt(scratch, row, heads, first_head + h, pieces, blockIdx.x, kv.head_dim);
    if (d == 0) {
      piece[0] = largest;
      piece[1] = sum;
    }
    piece[2 + d] = mixed;
  }
}

// blockIdx.x the head, blockIdx.y the row. Shared: [pieces] what each piece counts for.
__global__ void JoinPieces(RowPlaces places, AttentionArgs args, int64_t head_dim, const float* scratch, int64_t pieces,
                           DeviceMatrix out) {
  extern __shared__ float fades[];
  __shared__ float total;
  WaitForPrevious();
  const int64_t row = blockIdx.y;
  const int64_t head = blockIdx.x;
  const int64_t heads = gridDim.x;
  const int position = places.position[row];
  const int first_seen = args.window > 0 ? max(0, position - static_cast<int>(args.window) + 1) : 0;
  const int first = first_seen / static_cast<int>(kAttentionPiece);
  const int last = position / static_cast<int>(kAttentionPiece);
  const float* base = PieceAt(const_cast<float*>(scratch), row, heads, head, pieces, 0, head_dim);
  const int pitch = static_cast<int>(head_dim) + 2;
  if (threadIdx.x < 32) {
    const float sink = args.sinks != nullptr ? args.sinks[head] : -INFINITY;
    float largest = sink;
    for (int i = first + static_cast<int>(threadIdx.x); i <= last; i += 32) largest = fmaxf(largest, base[i * pitch]);
    largest = WarpMax(largest);
    float sum = 0.0f;
    for (int i = first + static_cast<int>(threadIdx.x); i <= last; i += 32) {
      const float own = base[i * pitch];
      fades[i] = own == -INFINITY ? 0.0f : expf(own - largest);
      sum = fmaf(fades[i], base[i * pitch + 1], sum);
    }
    sum = WarpSum(sum);
    if (threadIdx.x == 0) total = sum + (args.sinks != nullptr ? expf(sink - largest) : 0.0f);
  }
  __syncthreads();
  for (int d = threadIdx.x; d < static_cast<int>(head_dim); d += blockDim.x) {
    float mixed = 0.0f;
#pragma unroll 8
    for (int i = first; i <= last; ++i) mixed = fmaf(fades[i], base[i * pitch + 2 + d], mixed);
    out.data[row * out.stride + head * head_dim + d] = mixed / total;
  }
}

// fn.template operator()<query heads a block>().
template <typename Fn>
void WithHeads(int64_t share, Fn fn) {
  if (share == 1) return fn.template operator()<1>();
  if (share == 2) return fn.template operator()<2>();
  fn.template operator()<4>();
}

template <typename Fn>
void WithKvType(KvType type, Fn fn) {
  switch (type) {
    case KvType::kF16: return fn.template operator()<KvType::kF16>();
    case KvType::kF32: return fn.template operator()<KvType::kF32>();
    case KvType::kInt8: return fn.template operator()<KvType::kInt8>();
  }
}

// blockIdx.x the row, blockIdx.y the head. Keys by the hundreds, with a running largest.
__global__ void __launch_bounds__(kThreads)
    AttendEncoder(const int32_t* sequence, const int32_t* first, const int32_t* count, int64_t head_dim,
                  AttentionArgs args, DeviceMatrix q, DeviceMatrix k, DeviceMatrix v, DeviceMatrix out) {
  WaitForPrevious();
  extern __shared__ float memory[];
  __shared__ float shared[kThreads / 32];
  const int64_t row = blockIdx.x;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / (q.cols / k.cols);
  const int64_t begin = first[sequence[row]];
  const int64_t place = row - begin;
  const int64_t length = count[sequence[row]];
  const int64_t first_seen = args.window > 0 ? max(int64_t{0}, place - args.window) : 0;
  const int64_t end_seen = args.window > 0 ? min(length, place + args.window + 1) : length;
  float* query = memory;
  float* mixed = query + head_dim;
  float* weights = mixed + head_dim;
  for (int64_t d = threadIdx.x; d < head_dim; d += kThreads) {
    query[d] = q.data[row * q.stride + head * head_dim + d];
    mixed[d] = 0.0f;
  }
  __syncthreads();
  float largest = args.sinks != nullptr ? args.sinks[head] : -INFINITY;
  float sum = args.sinks != nullptr ? 1.0f : 0.0f;
  for (int64_t j0 = first_seen; j0 < end_seen; j0 += kThreads) {
    const int64_t j = j0 + threadIdx.x;
    const bool seen = j < end_seen;
    float score = -INFINITY;
    if (seen) {
      const float* key = k.data + (begin + j) * k.stride + kv_head * head_dim;
      float dot = 0.0f;
      for (int64_t d = 0; d < head_dim; ++d) dot = fmaf(query[d], key[d], dot);
      score = Score(dot, args);
    }
    const bool usable = __syncthreads_and(!isnan(score));
    const float now = usable ? fmaxf(largest, BlockMax<kThreads>(score, shared)) : __uint_as_float(0x7fc00000u);
    const float fade = largest == -INFINITY && usable ? 0.0f : expf(largest - now);
    const float p = seen ? expf(score - now) : 0.0f;
    sum = sum * fade + BlockSum<kThreads>(p, shared);
    weights[threadIdx.x] = p;
    __syncthreads();
    const int64_t here = min(int64_t{kThreads}, end_seen - j0);
    for (int64_t d = threadIdx.x; d < head_dim; d += kThreads) {
      float value = mixed[d] * fade;
      for (int64_t i = 0; i < here; ++i) {
        value = fmaf(weights[i], v.data[(begin + j0 + i) * v.stride + kv_head * head_dim + d], value);
      }
      mixed[d] = value;
    }
    largest = now;
    __syncthreads();
  }
  for (int64_t d = threadIdx.x; d < head_dim; d += kThreads) {
    out.data[row * out.stride + head * head_dim + d] = mixed[d] / sum;
  }
}

}  // namespace

void LaunchStoreKv(const KvLayer& kv, const RowPlaces& places, const DeviceMatrix& k, const DeviceMatrix& v,
                   cudaStream_t stream) {
  if (places.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(places.rows), static_cast<unsigned>(kv.kv_heads));
  WithKvType(kv.type, [&]<KvType kType>() {
    Launch(StoreKv<kType>, {dim3(grid), dim3(64), 0, stream}, kv, places, k, v);
  });
}

void LaunchRotateAndStore(const KvLayer& kv, const RowPlaces& places, const RotateArgs& args, const DeviceMatrix& q,
                          const DeviceMatrix& k, const DeviceMatrix& v, cudaStream_t stream) {
  if (places.rows == 0) return;
  constexpr int64_t kHeadsABlock = 4;
  const dim3 grid(static_cast<unsigned>(places.rows),
                  static_cast<unsigned>(CeilDiv(q.cols / kv.head_dim + 2 * kv.kv_heads, kHeadsABlock)));
  WithKvType(kv.type, [&]<KvType kType>() {
    Launch(RotateAndStore<kType>, {dim3(grid), dim3(kHeadsABlock * 32), 0, stream}, kv, places, args, q, k, v);
  });
}

int64_t AttentionScratch(const KvLayer& kv, const RowPlaces& places, int64_t heads) {
  return places.rows * heads * CeilDiv(places.longest, kAttentionPiece) * (kv.head_dim + 2);
}

void LaunchPagedAttention(const KvLayer& kv, const RowPlaces& places, const AttentionArgs& args, const DeviceMatrix& q,
                          const DeviceMatrix& out, float* scratch, cudaStream_t stream) {
  if (places.rows == 0) return;
  const int64_t pieces = CeilDiv(places.longest, kAttentionPiece);
  const int64_t share = q.cols / kv.head_dim / kv.kv_heads;
  WithKvType(kv.type, [&]<KvType kType>() {
    WithHeads(share, [&]<int kHeads>() {
      const dim3 grid(static_cast<unsigned>(pieces), static_cast<unsigned>(kv.kv_heads * CeilDiv(share, kHeads)),
                      static_cast<unsigned>(places.rows));
      const size_t bytes = sizeof(float) * static_cast<size_t>(kHeads * (kv.padded_dim + kWarps * (kv.padded_dim + 2)));
      if (bytes > 48 * 1024) {
        cudaFuncSetAttribute(AttendPiece<kType, kHeads>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes));
      }
      Launch(AttendPiece<kType, kHeads>, {dim3(grid), dim3(kThreads), bytes, stream}, kv, places, args, q, scratch,
             pieces);
    });
  });
  const dim3 join(static_cast<unsigned>(q.cols / kv.head_dim), static_cast<unsigned>(places.rows));
  Launch(JoinPieces, {dim3(join), dim3(128), static_cast<size_t>(pieces) * sizeof(float), stream}, places, args,
         kv.head_dim, scratch, pieces, out);
}

void LaunchEncoderAttention(const int32_t* sequence, const int32_t* first, const int32_t* count, int64_t head_dim,
                            const AttentionArgs& args, const DeviceMatrix& q, const DeviceMatrix& k,
                            const DeviceMatrix& v, const DeviceMatrix& out, cudaStream_t stream) {
  if (q.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(q.rows), static_cast<unsigned>(q.cols / head_dim));
  const size_t bytes = sizeof(float) * static_cast<size_t>(2 * head_dim + kThreads);
  Launch(AttendEncoder, {dim3(grid), dim3(kThreads), bytes, stream}, sequence, first, count, head_dim, args, q, k, v,
         out);
}

}  // namespace pensieve::backend::cuda
