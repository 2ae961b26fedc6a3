// Operations on rows: a block of threads a row, or a thread a value. Limited by launches, then by memory.
#include "backend/cuda/device_code.cuh"

namespace pensieve::backend::cuda {
namespace {

constexpr int kThreads = 256;

template <Form kForm, int kBits>
__global__ void EmbedRows(DeviceWeight w, const int32_t* ids, float scale, bool add, DeviceMatrix out) {
  WaitForPrevious();
  const int64_t r = blockIdx.x;
  const int64_t row = ids == nullptr ? 0 : ids[r];
  float* target = out.data + r * out.stride;
  for (int64_t k = threadIdx.x * 8; k < w.cols; k += blockDim.x * 8) {
    float values[8];
    LoadEight<kForm, kBits>(w, row, k, values);
    for (int i = 0; i < 8 && k + i < w.cols; ++i) {
      const float value = values[i] * scale;
      target[k + i] = add ? target[k + i] + value : value;
    }
  }
}

// One piece of a row a block: blockIdx.x the piece, blockIdx.y the row.
__global__ void RmsNorm(DeviceMatrix x, int64_t width, const float* weight, float eps, DeviceMatrix out) {
  WaitForPrevious();
  __shared__ float shared[kThreads / 32];
  const float* row = x.data + blockIdx.y * x.stride + blockIdx.x * width;
  float* target = out.data + blockIdx.y * out.stride + blockIdx.x * width;
  const float squares = SumSquares<kThreads>(row, static_cast<int>(width), shared);
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(width) + eps);
  for (int64_t i = threadIdx.x; i < width; i += kThreads) target[i] = row[i] * inverse * weight[i];
}

__global__ void LayerNorm(DeviceMatrix x, const float* weight, const float* bias, float eps, DeviceMatrix out) {
  WaitForPrevious();
  __shared__ float shared[kThreads / 32];
  const float* row = x.data + blockIdx.x * x.stride;
  float* target = out.data + blockIdx.x * out.stride;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) sum += row[i];
  const float mean = BlockSum<kThreads>(sum, shared) / static_cast<float>(x.cols);
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) squares = fmaf(row[i] - mean, row[i] - mean, squares);
  squares = BlockSum<kThreads>(squares, shared);
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(x.cols) + eps);
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) {
    target[i] = fmaf((row[i] - mean) * inverse, weight[i], bias == nullptr ? 0.0f : bias[i]);
  }
}

// A thread a pair of all heads of a row: the angle's sine and cosine are computed once.
__global__ void Rotate(DeviceMatrix x, int64_t head_dim, const int32_t* positions, const uint8_t* is_long,
                       DeviceRope usual, DeviceRope for_long) {
  WaitForPrevious();
  const int64_t r = blockIdx.x;
  const DeviceRope& rope = is_long != nullptr && is_long[r] != 0 ? for_long : usual;
  const int64_t pairs = rope.rotated / 2;
  float* row = x.data + r * x.stride;
  for (int64_t i = threadIdx.x; i < pairs; i += blockDim.x) {
    // The product is rounded to f32 on purpose: see RopeTable.
    const float angle = __fmul_rn(static_cast<float>(positions[r]), rope.frequencies[i]);
    float s, c;
    sincosf(angle, &s, &c);
    s *= rope.magnitude;
    c *= rope.magnitude;
    for (int64_t head = 0; head < x.cols; head += head_dim) {
      float& a = row[head + (rope.interleaved ? 2 * i : i)];
      float& b = row[head + (rope.interleaved ? 2 * i + 1 : i + pairs)];
      const float u = a;
      const float v = b;
      a = u * c - v * s;
      b = v * c + u * s;
    }
  }
}

// fn(value of x, value of out) for every element.
template <typename Fn>
__global__ void ForEach(DeviceMatrix out, Fn fn) {
  WaitForPrevious();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < out.rows * out.cols) fn(i / out.cols, i % out.cols);
}
template <typename Fn>
void LaunchForEach(const DeviceMatrix& out, cudaStream_t stream, Fn fn) {
  const int64_t count = out.rows * out.cols;
  if (count == 0) return;
  Launch(ForEach<Fn>, {dim3(static_cast<unsigned>(CeilDiv(count, kThreads))), dim3(kThreads), 0, stream}, out, fn);
}

__global__ void L2Normalize(DeviceMatrix x) {
  WaitForPrevious();
  __shared__ float shared[kThreads / 32];
  float* row = x.data + blockIdx.x * x.stride;
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) squares = fmaf(row[i], row[i], squares);
  // Not fmaxf: NaN must stay visible.
  const float length = sqrtf(BlockSum<kThreads>(squares, shared));
  const float norm = length < 1e-12f ? 1e-12f : length;
  for (int64_t i = threadIdx.x; i < x.cols; i += kThreads) row[i] /= norm;
}

__global__ void PoolRows(DeviceMatrix x, const int32_t* first, const int32_t* count, Pool pooling, DeviceMatrix out) {
  WaitForPrevious();
  const int64_t s = blockIdx.y;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= x.cols) return;
  const float* column = x.data + first[s] * x.stride + c;
  const int64_t rows = count[s];
  float result = 0.0f;
  if (rows > 0) {
    if (pooling == Pool::kCls) result = column[0];
    if (pooling == Pool::kLast) result = column[(rows - 1) * x.stride];
    if (pooling == Pool::kMax) {
      result = column[0];
      for (int64_t r = 1; r < rows; ++r) result = MaxOrNan(result, column[r * x.stride]);
    }
    if (pooling == Pool::kMean) {
      for (int64_t r = 0; r < rows; ++r) result += column[r * x.stride];
      result /= static_cast<float>(rows);
    }
  }
  out.data[s * out.stride + c] = result;
}

// The better of two: the larger, then the lower id.
__device__ inline void TakeBetter(float other, int32_t other_id, float* best, int32_t* id) {
  if (other_id < 0) return;
  if (*id < 0 || other > *best || (other == *best && other_id < *id)) {
    *best = other;
    *id = other_id;
  }
}

__global__ void Greedy(DeviceMatrix logits, const int32_t* rows, const int32_t* limits, int32_t* tokens) {
  WaitForPrevious();
  __shared__ float best_of[32];
  __shared__ int32_t id_of[32];
  const float* row = logits.data + rows[blockIdx.x] * logits.stride;
  float best = 0.0f;
  int32_t id = -1;
  for (int32_t i = threadIdx.x; i < limits[blockIdx.x]; i += blockDim.x) {
    // Neither NaN nor -infinity may be drawn; +infinity counts as the largest float.
    const float value = fminf(row[i], 3.402823466e+38f);
    if (isnan(row[i]) || isinf(value)) continue;
    TakeBetter(value, i, &best, &id);
  }
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(~0u, best, step);
    const int32_t other_id = __shfl_xor_sync(~0u, id, step);
    TakeBetter(other, other_id, &best, &id);
  }
  if (threadIdx.x % 32 == 0) {
    best_of[threadIdx.x / 32] = best;
    id_of[threadIdx.x / 32] = id;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned i = 1; i < blockDim.x / 32; ++i) TakeBetter(best_of[i], id_of[i], &best, &id);
  tokens[blockIdx.x] = id;
}

}  // namespace

void LaunchEmbedRows(const DeviceWeight& w, const int32_t* ids, float scale, bool add, const DeviceMatrix& out,
                     cudaStream_t stream) {
  if (out.rows == 0) return;
  WithForm(w.form, w.bits, [&]<Form kForm, int kBits>() {
    Launch(EmbedRows<kForm, kBits>, {dim3(static_cast<unsigned>(out.rows)), dim3(128), 0, stream}, w, ids, scale, add,
           out);
  });
}

void LaunchRmsNorm(const DeviceMatrix& x, int64_t width, const float* weight, float eps, const DeviceMatrix& out,
                   cudaStream_t stream) {
  if (x.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(x.cols / width), static_cast<unsigned>(x.rows));
  Launch(RmsNorm, {dim3(grid), dim3(kThreads), 0, stream}, x, width, weight, eps, out);
}

void LaunchLayerNorm(const DeviceMatrix& x, const float* weight, const float* bias, float eps, const DeviceMatrix& out,
                     cudaStream_t stream) {
  if (x.rows == 0) return;
  Launch(LayerNorm, {dim3(static_cast<unsigned>(x.rows)), dim3(kThreads), 0, stream}, x, weight, bias, eps, out);
}

void LaunchRotate(const DeviceMatrix& x, int64_t head_dim, const int32_t* positions, const uint8_t* is_long,
                  const DeviceRope& usual, const DeviceRope& for_long, cudaStream_t stream) {
  if (x.rows == 0) return;
  Launch(Rotate, {dim3(static_cast<unsigned>(x.rows)), dim3(64), 0, stream}, x, head_dim, positions, is_long, usual,
         for_long);
}

void LaunchScaleRows(const DeviceMatrix& x, const float* factors, cudaStream_t stream) {
  LaunchForEach(x, stream, [=] __device__(int64_t r, int64_t c) { x.data[r * x.stride + c] *= factors[r]; });
}

void LaunchAdd(const DeviceMatrix& x, const DeviceMatrix& out, cudaStream_t stream) {
  LaunchForEach(out, stream,
                [=] __device__(int64_t r, int64_t c) { out.data[r * out.stride + c] += x.data[r * x.stride + c]; });
}

void LaunchSoftcap(const DeviceMatrix& x, float cap, cudaStream_t stream) {
  LaunchForEach(x, stream, [=] __device__(int64_t r, int64_t c) {
    float& value = x.data[r * x.stride + c];
    value = cap * tanhf(value / cap);
  });
}

void LaunchGather(const DeviceMatrix& x, const int32_t* rows, const DeviceMatrix& out, cudaStream_t stream) {
  LaunchForEach(out, stream, [=] __device__(int64_t r, int64_t c) {
    out.data[r * out.stride + c] = x.data[rows[r] * x.stride + c];
  });
}

void LaunchL2Normalize(const DeviceMatrix& x, cudaStream_t stream) {
  if (x.rows == 0) return;
  Launch(L2Normalize, {dim3(static_cast<unsigned>(x.rows)), dim3(kThreads), 0, stream}, x);
}

void LaunchPool(const DeviceMatrix& x, const int32_t* first, const int32_t* count, Pool pooling,
                const DeviceMatrix& out, cudaStream_t stream) {
  if (out.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(CeilDiv(x.cols, 128)), static_cast<unsigned>(out.rows));
  Launch(PoolRows, {dim3(grid), dim3(128), 0, stream}, x, first, count, pooling, out);
}

void LaunchGreedy(const DeviceMatrix& logits, const int32_t* rows, const int32_t* limits, int64_t count,
                  int32_t* tokens, cudaStream_t stream) {
  if (count == 0) return;
  Launch(Greedy, {dim3(static_cast<unsigned>(count)), dim3(1024), 0, stream}, logits, rows, limits, tokens);
}

}  // namespace pensieve::backend::cuda
