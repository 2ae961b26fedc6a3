// Attention of coarse rows (prompts) on tensor cores: queries, keys, probabilities and values in f16, scores and sums in
// f32. A block takes up to 64 neighbouring rows of one sequence and one head, and walks the keys in tiles of 64 from the
// sequence's first, with a running largest score. A tile in which a row sees nothing leaves the row's numbers as they
// are, bit for bit: so it does not matter with which rows it shares a block.
//
// Limited by the tensor cores, and by loads of keys that no other block's arithmetic hides.
#include "backend/cuda/device_code.cuh"
#include "backend/cuda/tensor_core.cuh"

namespace pensieve::backend::cuda {
namespace {

constexpr int kKeys = 64;
constexpr int kWarps = 4;  // 16 rows each
static_assert(kWarps * 16 == kPromptRows);

__device__ inline void LoadTransposed(uint32_t (&r)[4], const void* shared) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ inline void CopyAsync16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#endif
}

// Keys and values of one tile, zeros beyond head_dim.
template <int kDim>
struct KeyTile {
  __half keys[kKeys][kDim + 8];
  __half values[kKeys][kDim + 8];
};

// Eight neighbouring elements as f16, times a scale where they are bytes.
template <KvType kType>
__device__ inline uint4 LoadHalves(const uint8_t* plane, int64_t i, float scale) {
  if constexpr (kType == KvType::kF16) {
    return *reinterpret_cast<const uint4*>(plane + i * 2);
  } else {
    const uint2 eight = *reinterpret_cast<const uint2*>(plane + i);
    float v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      v[j] = scale * static_cast<float>(static_cast<int8_t>((j < 4 ? eight.x : eight.y) >> (8 * (j % 4))));
    }
    return make_uint4(PackHalves(v[0], v[1]), PackHalves(v[2], v[3]), PackHalves(v[4], v[5]), PackHalves(v[6], v[7]));
  }
}

// Keys [first, first + kKeys) of a sequence that has `length` of them; later ones repeat the last, and are not seen.
template <KvType kType, int kDim>
__device__ inline void LoadTile(const KvLayer& kv, const int32_t* table, int64_t head, int first, int length,
                                KeyTile<kDim>* tile) {
  constexpr int kEights = kDim / 8;
  const int padded = static_cast<int>(kv.padded_dim);
  const auto block_len = static_cast<int>(kv.block_len);
  const auto tid = static_cast<int>(threadIdx.x);
  // Of halves each goes its own way to shared memory; bytes become halves first.
  const auto copy = [&](__half* target, const uint8_t* plane, int64_t at, int d, const float* scales, int64_t line) {
    if (d >= padded) {
      *reinterpret_cast<uint4*>(target) = make_uint4(0, 0, 0, 0);
    } else if constexpr (kType == KvType::kF16) {
      CopyAsync16(target, plane + at * 2);
    } else {
      *reinterpret_cast<uint4*>(target) = LoadHalves<kType>(plane, at, scales[line]);
    }
  };
  {
    // Neighbouring lanes take neighbouring keys: that is how keys lie in memory.
    const int j = tid % kKeys;
    const int key = min(first + j, length - 1);
    const int64_t base = (table[key / block_len] * kv.kv_heads + head) * kv.block_len;
    const int token = key % block_len;
#pragma unroll
    for (int e = 0; e < kEights; e += kWarps * 32 / kKeys) {
      const int d = (e + tid / kKeys) * 8;
      copy(&tile->keys[j][d], kv.keys, base * padded + (d / 8 * block_len + token) * 8, d, kv.key_scales, base + token);
    }
  }
  constexpr int kLanes = kWarps * 32 / kKeys;  // that share a value
  const int j = tid / kLanes;
  const int key = min(first + j, length - 1);
  const int64_t line = (table[key / block_len] * kv.kv_heads + head) * kv.block_len + key % block_len;
#pragma unroll
  for (int e = 0; e < kEights; e += kLanes) {
    const int d = (e + tid % kLanes) * 8;
    copy(&tile->values[j][d], kv.values, line * padded + d, d, kv.value_scales, line);
  }
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// A warp's queries as operands of the tensor cores: rows g and g + 8 of its sixteen.
template <int kDim>
__device__ inline void LoadQueries(const DeviceMatrix& q, int64_t row, int64_t last_row, int64_t column, int head_dim,
                                   uint32_t (&a)[kDim / 16][4]) {
  const int lane = threadIdx.x % 32;
  const float* rows[2] = {q.data + min(row + lane / 4, last_row) * q.stride + column,
                          q.data + min(row + lane / 4 + 8, last_row) * q.stride + column};
  const auto at = [&](const float* from, int d) { return d < head_dim ? from[d] : 0.0f; };
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i) {
    const int d = i * 16 + lane % 4 * 2;
    a[i][0] = PackHalves(at(rows[0], d), at(rows[0], d + 1));
    a[i][1] = PackHalves(at(rows[1], d), at(rows[1], d + 1));
    a[i][2] = PackHalves(at(rows[0], d + 8), at(rows[0], d + 9));
    a[i][3] = PackHalves(at(rows[1], d + 8), at(rows[1], d + 9));
  }
}

// blockIdx.x the tile of rows, blockIdx.y the query head.
template <KvType kType, int kDim>
__global__ void __launch_bounds__(kWarps * 32)
    AttendPrompt(KvLayer kv, RowPlaces places, RowTiles tiles, AttentionArgs args, DeviceMatrix q, DeviceMatrix out) {
  extern __shared__ __align__(16) char memory[];
  auto* const key_tiles = reinterpret_cast<KeyTile<kDim>*>(memory);  // two take turns
  WaitForPrevious();
  const int lane = threadIdx.x % 32;
  // The last tiles see the most keys: they begin first.
  const int64_t own = tiles.tiles - 1 - blockIdx.x;
  const int64_t first_row = tiles.first[own];
  const int count = tiles.count[own];
  const int64_t head = blockIdx.y;
  const auto head_dim = static_cast<int>(kv.head_dim);
  const int64_t kv_head = head / (static_cast<int>(q.cols) / head_dim / static_cast<int>(kv.kv_heads));
  const int32_t* table = places.tables + places.table_at[places.sequence[first_row]];
  const int first_position = places.position[first_row];
  const int length = first_position + count;  // keys that the last row sees
  const auto window = static_cast<int>(args.window);
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
  // This lane's two rows.
  const int positions[2] = {first_position + warp_row + lane / 4, first_position + warp_row + lane / 4 + 8};
  uint32_t queries[kDim / 16][4];
  LoadQueries<kDim>(q, first_row + warp_row, first_row + count - 1, head * head_dim, head_dim, queries);
  float mixed[kDim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY};
  float sums[2] = {0.0f, 0.0f};
  const int first_seen = window > 0 ? max(0, first_position - window + 1) : 0;
  int turn = 0;
  LoadTile<kType, kDim>(kv, table, kv_head, first_seen / kKeys * kKeys, length, &key_tiles[0]);
  for (int first = first_seen / kKeys * kKeys; first < length; first += kKeys, turn ^= 1) {
    if (first + kKeys < length) {
      LoadTile<kType, kDim>(kv, table, kv_head, first + kKeys, length, &key_tiles[turn ^ 1]);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncthreads();
    const KeyTile<kDim>& tile = key_tiles[turn];
    float scores[kKeys / 8][4] = {};
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t b[4];
        LoadMatrices(b, &tile.keys[n * 16 + lane / 16 * 8 + lane % 8][i * 16 + lane / 8 % 2 * 8]);
        MultiplyAdd(scores[2 * n], queries[i], b[0], b[1]);
        MultiplyAdd(scores[2 * n + 1], queries[i], b[2], b[3]);
      }
    }
    float tops[2] = {largest[0], largest[1]};
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first + n * 8 + lane % 4 * 2 + i % 2;
        const int position = positions[i / 2];
        const bool seen = key <= position && (window == 0 || key > position - window);
        float score = scores[n][i] * args.scale;
        if (args.softcap > 0.0f) score = args.softcap * tanhf(score / args.softcap);
        scores[n][i] = seen ? score : -INFINITY;
        tops[i / 2] = fmaxf(tops[i / 2], scores[n][i]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      tops[half] = fmaxf(tops[half], __shfl_xor_sync(~0u, tops[half], 1));
      tops[half] = fmaxf(tops[half], __shfl_xor_sync(~0u, tops[half], 2));
      // While a row has seen nothing there is nothing to fade.
      const float fade = largest[half] == -INFINITY ? 1.0f : __expf(largest[half] - tops[half]);
      largest[half] = tops[half];
      sums[half] *= fade;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        mixed[n][2 * half] *= fade;
        mixed[n][2 * half + 1] *= fade;
      }
    }
    uint32_t weights[kKeys / 16][4];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        // Not seen: exactly nothing. NaN stays one.
        scores[n][i] = scores[n][i] == -INFINITY ? 0.0f : __expf(scores[n][i] - largest[i / 2]);
        sums[i / 2] += scores[n][i];
      }
      weights[n / 2][n % 2 * 2] = PackHalves(scores[n][0], scores[n][1]);
      weights[n / 2][n % 2 * 2 + 1] = PackHalves(scores[n][2], scores[n][3]);
    }
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        uint32_t b[4];
        LoadTransposed(b, &tile.values[k * 16 + lane / 8 % 2 * 8 + lane % 8][n * 16 + lane / 16 * 8]);
        MultiplyAdd(mixed[2 * n], weights[k], b[0], b[1]);
        MultiplyAdd(mixed[2 * n + 1], weights[k], b[2], b[3]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = sums[half];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    float fade = 1.0f;
    if (args.sinks != nullptr) {
      const float top = fmaxf(largest[half], args.sinks[head]);
      fade = __expf(largest[half] - top);
      sum = fmaf(sum, fade, __expf(args.sinks[head] - top));
    }
    const int r = warp_row + lane / 4 + half * 8;
    if (r >= count) continue;
    float* target = out.data + (first_row + r) * out.stride + head * head_dim;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int d = n * 8 + lane % 4 * 2 + i;
        if (d < head_dim) target[d] = mixed[n][2 * half + i] * fade / sum;
      }
    }
  }
}

template <KvType kType>
void LaunchFor(const KvLayer& kv, const RowPlaces& places, const RowTiles& tiles, const AttentionArgs& args,
               const DeviceMatrix& q, const DeviceMatrix& out, cudaStream_t stream) {
  const auto launch = [&]<int kDim>() {
    constexpr size_t kBytes = 2 * sizeof(KeyTile<kDim>);
    cudaFuncSetAttribute(AttendPrompt<kType, kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(kBytes));
    const dim3 grid(static_cast<unsigned>(tiles.tiles), static_cast<unsigned>(q.cols / kv.head_dim));
    Launch(AttendPrompt<kType, kDim>, {grid, dim3(kWarps * 32), kBytes, stream}, kv, places, tiles, args, q, out);
  };
  if (kv.head_dim <= 64) return launch.template operator()<64>();
  if (kv.head_dim <= 96) return launch.template operator()<96>();
  launch.template operator()<128>();
}

}  // namespace

bool TakesPromptAttention(const KvLayer& kv) { return kv.type != KvType::kF32 && kv.head_dim <= 128; }

void LaunchPromptAttention(const KvLayer& kv, const RowPlaces& places, const RowTiles& tiles, const AttentionArgs& args,
                           const DeviceMatrix& q, const DeviceMatrix& out, cudaStream_t stream) {
  if (tiles.tiles == 0) return;
  if (kv.type == KvType::kF16) return LaunchFor<KvType::kF16>(kv, places, tiles, args, q, out, stream);
  LaunchFor<KvType::kInt8>(kv, places, tiles, args, q, out, stream);
}

}  // namespace pensieve::backend::cuda
