// Attention of precise rows in f32, for keys and values of f16 or int8 and heads of up to 128 dims. The tiles of 64 keys
// that a row sees are shared out between at most 32 blocks by the row's own position alone; the block that ends last
// joins the pieces in ascending order. So a row's sums depend on nothing but the row. Where rows alone fill the device, a
// block takes several pieces, one after the other: the pieces are the same.
//
// In a step of one row a sequence (`fused`) a block also norms and rotates the heads that it needs, and the block of the
// row's last piece stores the new key and value. Keys and values of earlier steps are then fetched before the kernels
// that come before have ended.
//
// Limited by the memory's speed for many rows, by latency for one.
#include "backend/cuda/kv_code.cuh"

namespace pensieve::backend::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kTileKeys = 64;
constexpr int kMostPieces = 32;
constexpr int64_t kMostBlocks = 512;

// Eight elements as they lie in memory.
template <KvType kType>
struct RawEight;
template <>
struct RawEight<KvType::kF16> {
  using Type = uint4;
  static constexpr int kBytes = 2;
};
template <>
struct RawEight<KvType::kInt8> {
  using Type = uint2;
  static constexpr int kBytes = 1;
};

__device__ inline void Widen(const uint4& raw, float (&out)[8]) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
    out[2 * i] = two.x;
    out[2 * i + 1] = two.y;
  }
}
__device__ inline void Widen(const uint2& raw, float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i)
    out[i] = static_cast<float>(static_cast<int8_t>((i < 4 ? raw.x : raw.y) >> (8 * (i % 4))));
}

// Not inlined: instructions that run once a kernel cost more to fetch than to run.
__device__ __noinline__ float2 AngleOf(float position, const DeviceRope& rope, int i) {
  return SineAndCosine(position, rope, i);
}

// Which tiles the pieces of a row take: `each` tiles a piece from tile `first` on.
struct Share {
  int first;
  int each;
  int pieces;
};
__device__ inline Share ShareOf(int position, int window) {
  const int first = (window > 0 ? max(0, position - window + 1) : 0) / kTileKeys;
  const int tiles = position / kTileKeys - first + 1;
  const int each = (tiles + kMostPieces - 1) / kMostPieces;
  return {first, each, (tiles + each - 1) / each};
}

template <int kDim, int kHeads>
struct Shared {
  float queries[kHeads + 2][kDim];  // then the new key and the new value
  float2 angles[kDim / 2];
  int64_t lines[kTileKeys];        // of the tile that is fetched next
  float key_scales[2][kTileKeys];  // tiles take turns
  float value_scales[2][kTileKeys];
  float dots[2][kHeads][kTileKeys];
  float weights[kHeads][kTileKeys];
  float fades[kHeads];
  float largest[kHeads];
  float sums[kHeads];
  float mixed[kWarps][kHeads][kDim];
  float piece_fades[kHeads][kMostPieces];
  int last;
};

// A head of the row by one warp: normed, rotated, in shared memory. As RmsNorm and Rotate give it, bit for bit.
__device__ __noinline__ void PrepareHead(const float* source, int head_dim, const float* norm, float eps, bool rotates,
                                         const DeviceRope& rope, const float2* angles, float* target) {
  const int lane = threadIdx.x % 32;
  const int d = lane * 8;
  float eight[8] = {};
  if (d < head_dim) {
#pragma unroll
    for (int i = 0; i < 8; ++i) eight[i] = __ldcg(source + d + i);
  }
  if (norm != nullptr) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) squares = fmaf(eight[i], eight[i], squares);
    squares = WarpSum(squares);
    const float inverse = 1.0f / sqrtf(squares / static_cast<float>(head_dim) + eps);
    if (d < head_dim) {
#pragma unroll
      for (int i = 0; i < 8; ++i) eight[i] = eight[i] * inverse * norm[d + i];
    }
  }
  if (d < head_dim) {
#pragma unroll
    for (int i = 0; i < 8; ++i) target[d + i] = eight[i];
  }
  __syncwarp();
  if (rotates) {
    for (int i = lane; i < static_cast<int>(rope.rotated / 2); i += 32) RotatePair(target, rope, i, angles[i]);
  }
  __syncwarp();
}

// blockIdx.x the first of every gridDim.x-th piece, blockIdx.y the kv head and kHeads of its query heads, blockIdx.z the
// row.
template <KvType kType, int kDim, int kHeads, bool kFused>
__global__ void __launch_bounds__(kThreads, kHeads <= 2 ? 4 : 1)
    AttendRow(KvLayer kv, RowPlaces places, const __grid_constant__ FusedArgs fused, AttentionArgs args, DeviceMatrix q,
              DeviceMatrix k, DeviceMatrix v, DeviceMatrix out, float* scratch, int32_t* counters,
              int64_t most_pieces) {
  using Raw = typename RawEight<kType>::Type;
  constexpr int kBytes = RawEight<kType>::kBytes;
  constexpr int kEights = kDim / 8;
  constexpr int kLoads = kTileKeys * kEights / kThreads;
  constexpr int kGroupKeys = kLoads;  // neighbouring keys whose values a thread takes
  __shared__ Shared<kDim, kHeads> shared;
  if constexpr (!kFused) WaitForPrevious();
  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / 32;
  const int lane = tid % 32;
  const int64_t row = blockIdx.z;
  const int position = places.position[row];
  const Share share = ShareOf(position, static_cast<int>(args.window));
  const auto first_piece = static_cast<int>(blockIdx.x);
  if (first_piece >= share.pieces) return;
  const int head_dim = static_cast<int>(kv.head_dim);
  const int padded = static_cast<int>(kv.padded_dim);
  const auto block_len = static_cast<int>(kv.block_len);
  const int heads = static_cast<int>(q.cols) / head_dim;
  const int heads_a_kv = heads / static_cast<int>(kv.kv_heads);
  const int turns = (heads_a_kv + kHeads - 1) / kHeads;
  const int kv_head = static_cast<int>(blockIdx.y) / turns;
  const int first_head = kv_head * heads_a_kv + static_cast<int>(blockIdx.y) % turns * kHeads;
  const int end_head = min((kv_head + 1) * heads_a_kv, first_head + kHeads);
  const int32_t* table = places.tables + places.table_at[places.sequence[row]];
  const int first_seen = args.window > 0 ? max(0, position - static_cast<int>(args.window) + 1) : 0;
  const int last_tile = position / kTileKeys;
  const int first_tile = share.first + first_piece * share.each;
  const int stored = kFused ? position : position + 1;  // keys that lie in the cache when the first tile is fetched
  const int own_key = tid % kTileKeys;
  const int own_half = tid / kTileKeys;
  const int value_eight = tid % kEights;
  const int value_key = tid / kEights * kGroupKeys;

  Raw keys[kLoads];
  Raw values[kLoads];
  const auto load_key = [&](int64_t line, int token, int turn) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int eight = own_half * kLoads + i;
      const int64_t at = (line - token) * padded + (eight * block_len + token) * 8;
      keys[i] = eight * 8 < padded ? *reinterpret_cast<const Raw*>(kv.keys + at * kBytes) : Raw{};
    }
    if (kType == KvType::kInt8 && own_half == 0) {
      shared.key_scales[turn][own_key] = kv.key_scales[line];
      shared.value_scales[turn][own_key] = kv.value_scales[line];
    }
  };
  const auto load_value = [&](int i, int64_t line) {
    values[i] = value_eight * 8 < padded
                    ? *reinterpret_cast<const Raw*>(kv.values + (line * padded + value_eight * 8) * kBytes)
                    : Raw{};
  };
  // Keys of a tile before key `end`; then, when the warps have met, its values.
  const auto load_keys = [&](int tile, int end, int turn) {
    const int key = tile * kTileKeys + own_key;
    const bool there = key < end && key >= first_seen;
    const int64_t line = there ? BlockOffset(kv, table[key / block_len], kv_head) + key % block_len : 0;
    if (own_half == 0) shared.lines[own_key] = line;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) keys[i] = Raw{};
    if (there) load_key(line, key % block_len, turn);
  };
  const auto load_values = [&](int tile, int end) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int value = tile * kTileKeys + value_key + i;
      // What is not seen is nothing, whatever stands there.
      values[i] = Raw{};
      if (value < end && value >= first_seen) load_value(i, shared.lines[value_key + i]);
    }
  };

  load_keys(first_tile, stored, 0);
  __syncthreads();
  load_values(first_tile, stored);
  if constexpr (kFused) {
    const DeviceRope& rope = fused.rotate.is_long[row] != 0 ? fused.rotate.for_long : fused.rotate.usual;
    const bool rotates = fused.rotate.rotates != 0;
    if (rotates) {
      const auto angle_position = static_cast<float>(fused.rotate.positions[row]);
      for (int i = tid; i < static_cast<int>(rope.rotated / 2); i += kThreads) {
        shared.angles[i] = AngleOf(angle_position, rope, i);
      }
    }
    __syncthreads();
    WaitForPrevious();
    const bool has_new = (share.pieces - 1) % static_cast<int>(gridDim.x) == first_piece;
    for (int slot = warp; slot < kHeads + 2; slot += kWarps) {
      if (slot < kHeads) {
        if (first_head + slot < end_head) {
          PrepareHead(q.data + row * q.stride + (first_head + slot) * head_dim, head_dim, fused.q_norm, fused.q_eps,
                      rotates, rope, shared.angles, shared.queries[slot]);
        }
      } else if (has_new) {
        const bool is_key = slot == kHeads;
        const DeviceMatrix& source = is_key ? k : v;
        PrepareHead(source.data + row * source.stride + kv_head * head_dim, head_dim, is_key ? fused.k_norm : nullptr,
                    fused.k_eps, is_key && rotates, rope, shared.angles, shared.queries[slot]);
        StoreHead<kType>(shared.queries[slot], kv, table[position / block_len], kv_head, position % block_len, is_key);
      }
    }
    __syncthreads();
    if (last_tile == first_tile) {
      const int64_t line = BlockOffset(kv, table[position / block_len], kv_head) + position % block_len;
      if (own_key == position % kTileKeys) load_key(line, position % block_len, 0);
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        if (value_key + i == position % kTileKeys) load_value(i, line);
      }
    }
  } else {
    for (int i = tid; i < kHeads * head_dim; i += kThreads) {
      const int head = first_head + i / head_dim;
      if (head < end_head)
        shared.queries[i / head_dim][i % head_dim] = q.data[row * q.stride + head * head_dim + i % head_dim];
    }
  }
  // What is beyond the heads or their dims multiplies as nothing.
  for (int i = tid; i < kHeads * kDim; i += kThreads) {
    if (first_head + i / kDim >= end_head || i % kDim >= head_dim) shared.queries[i / kDim][i % kDim] = 0.0f;
  }
  __syncthreads();

  const auto value_of = [&](int h, int d) {
    return ((shared.mixed[0][h][d] + shared.mixed[1][h][d]) + shared.mixed[2][h][d]) + shared.mixed[3][h][d];
  };
  float mixed[kHeads][8];
  int piece = first_piece;
  int tile = first_tile;
  int turn = 0;  // of the two places for scales
  while (true) {
    const int piece_tile = share.first + piece * share.each;
    const bool starts = tile == piece_tile;
    const bool ends = tile == min(last_tile, piece_tile + share.each - 1);
    const int next_piece = ends ? piece + static_cast<int>(gridDim.x) : piece;
    const int next_tile = ends ? share.first + next_piece * share.each : tile + 1;
    const bool goes_on = next_piece < share.pieces;
    if (starts) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
#pragma unroll
        for (int i = 0; i < 8; ++i) mixed[h][i] = 0.0f;
      }
    }
    float dots[kHeads] = {};
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      float eight[8];
      Widen(keys[i], eight);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float* query = &shared.queries[h][(own_half * kLoads + i) * 8];
        const float4 a = *reinterpret_cast<const float4*>(query);
        const float4 b = *reinterpret_cast<const float4*>(query + 4);
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
#pragma unroll
    for (int h = 0; h < kHeads; ++h) shared.dots[own_half][h][own_key] = dots[h];
    if (goes_on) load_keys(next_tile, position + 1, turn ^ 1);
    __syncthreads();
    for (int h = warp; h < kHeads; h += kWarps) {
      float scores[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int j = lane + i * 32;
        const int key = tile * kTileKeys + j;
        float dot = shared.dots[0][h][j] + shared.dots[1][h][j];
        if (kType == KvType::kInt8) dot *= shared.key_scales[turn][j];
        scores[i] = key <= position && key >= first_seen ? Score(dot, args) : -INFINITY;
      }
      const float before = starts ? -INFINITY : shared.largest[h];
      const float sum_before = starts ? 0.0f : shared.sums[h];
      const float largest = fmaxf(before, WarpMax(fmaxf(scores[0], scores[1])));
      const float fade = before == -INFINITY ? 0.0f : expf(before - largest);
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int j = lane + i * 32;
        const int key = tile * kTileKeys + j;
        const bool seen = key <= position && key >= first_seen;
        // NaN, which a maximum loses, comes back with the sum.
        const float weight = seen ? expf(scores[i] - largest) : 0.0f;
        sum += weight;
        shared.weights[h][j] = kType == KvType::kInt8 && seen ? weight * shared.value_scales[turn][j] : weight;
      }
      sum = WarpSum(sum);
      __syncwarp();
      if (lane == 0) {
        shared.largest[h] = largest;
        shared.sums[h] = fmaf(sum_before, fade, sum);
        shared.fades[h] = fade;
      }
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float fade = shared.fades[h];
#pragma unroll
      for (int i = 0; i < 8; ++i) mixed[h][i] *= fade;
    }
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      float eight[8];
      Widen(values[j], eight);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float weight = shared.weights[h][value_key + j];
#pragma unroll
        for (int i = 0; i < 8; ++i) mixed[h][i] = fmaf(weight, eight[i], mixed[h][i]);
      }
    }
    if (goes_on) load_values(next_tile, position + 1);
    if (ends) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
#pragma unroll
          for (int step = kEights; step < 32; step *= 2) mixed[h][i] += __shfl_xor_sync(~0u, mixed[h][i], step);
        }
        if (lane < kEights) {
#pragma unroll
          for (int i = 0; i < 8; ++i) shared.mixed[warp][h][lane * 8 + i] = mixed[h][i];
        }
      }
      __syncthreads();
      if (share.pieces > 1) {
        for (int i = tid; i < (end_head - first_head) * head_dim; i += kThreads) {
          const int h = i / head_dim;
          const int d = i % head_dim;
          float* own = PieceAt(scratch, row, heads, first_head + h, most_pieces, piece, head_dim);
          if (d == 0) {
            own[0] = shared.largest[h];
            own[1] = shared.sums[h];
          }
          own[2 + d] = value_of(h, d);
        }
      }
    }
    if (!goes_on) break;
    // Before the next tile's numbers take the place of this one's.
    __syncthreads();
    piece = next_piece;
    tile = next_tile;
    turn ^= 1;
  }
  if (share.pieces == 1) {
    for (int i = tid; i < (end_head - first_head) * head_dim; i += kThreads) {
      const int h = i / head_dim;
      const int d = i % head_dim;
      const float sink = args.sinks != nullptr ? args.sinks[first_head + h] : -INFINITY;
      const float largest = fmaxf(shared.largest[h], sink);
      const float fade = expf(shared.largest[h] - largest);
      const float total = fade * shared.sums[h] + (args.sinks != nullptr ? expf(sink - largest) : 0.0f);
      out.data[row * out.stride + (first_head + h) * head_dim + d] = fade * value_of(h, d) / total;
    }
    return;
  }
  __threadfence();
  __syncthreads();
  int32_t* counter = counters + row * gridDim.y + blockIdx.y;
  if (tid == 0) {
    const int blocks = min(share.pieces, static_cast<int>(gridDim.x));
    shared.last = atomicAdd(counter, 1) == blocks - 1 ? 1 : 0;
    if (shared.last != 0) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  if (shared.last == 0) return;
  for (int h = warp; h < end_head - first_head; h += kWarps) {
    const float* base = PieceAt(scratch, row, heads, first_head + h, most_pieces, 0, head_dim) + lane * (head_dim + 2);
    const bool live = lane < share.pieces;
    const float own = live ? __ldcg(base) : -INFINITY;
    const float own_sum = live ? __ldcg(base + 1) : 0.0f;
    const float sink = args.sinks != nullptr ? args.sinks[first_head + h] : -INFINITY;
    const float largest = fmaxf(WarpMax(own), sink);
    const float fade = own == -INFINITY ? 0.0f : expf(own - largest);
    float total = WarpSum(fade * own_sum);
    if (args.sinks != nullptr) total += expf(sink - largest);
    shared.piece_fades[h][lane] = fade;
    if (lane == 0) shared.sums[h] = total;
  }
  __syncthreads();
  for (int i = tid; i < (end_head - first_head) * head_dim; i += kThreads) {
    const int h = i / head_dim;
    const int d = i % head_dim;
    const float* base = PieceAt(scratch, row, heads, first_head + h, most_pieces, 0, head_dim) + 2 + d;
    float sum = 0.0f;
#pragma unroll 8
    for (int p = 0; p < share.pieces; ++p) {
      sum = fmaf(shared.piece_fades[h][p], __ldcg(base + static_cast<int64_t>(p) * (head_dim + 2)), sum);
    }
    out.data[row * out.stride + (first_head + h) * head_dim + d] = sum / shared.sums[h];
  }
}

int64_t HeadsABlock(int64_t share) { return share <= 1 ? 1 : share <= 2 ? 2 : share <= 4 ? 4 : 8; }

template <typename Fn>
void WithHeads(int64_t share, Fn fn) {
  switch (HeadsABlock(share)) {
    case 1: return fn.template operator()<1>();
    case 2: return fn.template operator()<2>();
    case 4: return fn.template operator()<4>();
    default: return fn.template operator()<8>();
  }
}

int64_t PiecesFor(int64_t longest) { return std::min<int64_t>(kMostPieces, CeilDiv(longest, kTileKeys)); }

}  // namespace

bool TakesDecodeAttention(const KvLayer& kv) { return kv.type != KvType::kF32 && kv.head_dim <= 128; }

bool TakesFusedAttention(const KvLayer& kv, int64_t heads) {
  return TakesDecodeAttention(kv) && kv.head_dim == kv.padded_dim && heads / kv.kv_heads <= 8;
}

int64_t DecodeAttentionScratch(const KvLayer& kv, const RowPlaces& places, int64_t heads) {
  return places.rows * heads * PiecesFor(places.longest) * (kv.head_dim + 2);
}

void LaunchDecodeAttention(const KvLayer& kv, const RowPlaces& places, const FusedArgs& fused,
                           const AttentionArgs& args, const DeviceMatrix& q, const DeviceMatrix& k,
                           const DeviceMatrix& v, const DeviceMatrix& out, float* scratch, int32_t* counters,
                           cudaStream_t stream) {
  if (places.rows == 0) return;
  const int64_t share = q.cols / kv.head_dim / kv.kv_heads;
  WithHeads(share, [&]<int kHeads>() {
    const int64_t most_pieces = PiecesFor(places.longest);
    const int64_t groups = kv.kv_heads * CeilDiv(share, kHeads);
    // Blocks enough for every multiprocessor, and no more of them than that where rows are many.
    const int64_t blocks = std::clamp<int64_t>(CeilDiv(kMostBlocks, groups * places.rows), 1, most_pieces);
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(groups), static_cast<unsigned>(places.rows));
    const LaunchShape shape = {grid, dim3(kThreads), 0, stream};
    const auto launch = [&]<KvType kType, int kDim>() {
      if (fused.fused != 0) {
        Launch(AttendRow<kType, kDim, kHeads, true>, shape, kv, places, fused, args, q, k, v, out, scratch, counters,
               most_pieces);
      } else {
        Launch(AttendRow<kType, kDim, kHeads, false>, shape, kv, places, fused, args, q, k, v, out, scratch, counters,
               most_pieces);
      }
    };
    if (kv.type == KvType::kF16) {
      return kv.head_dim <= 64 ? launch.template operator()<KvType::kF16, 64>()
                               : launch.template operator()<KvType::kF16, 128>();
    }
    return kv.head_dim <= 64 ? launch.template operator()<KvType::kInt8, 64>()
                             : launch.template operator()<KvType::kInt8, 128>();
  });
}

}  // namespace pensieve::backend::cuda
