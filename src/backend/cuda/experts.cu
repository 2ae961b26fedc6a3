// Mixtures of experts: choose on the device, then one warp a channel of each (row, chosen expert). Sums as in precise
// products; what the experts of a row give is added in the order of their index.
#include "backend/cuda/device_code.cuh"

namespace pensieve::backend::cuda {
namespace {

constexpr int kWarps = 8;

// NaN counts as the largest: what comes out must show it.
__device__ inline float Rank(float logit) { return isnan(logit) ? INFINITY : logit; }

// One thread a row: experts are a few hundred at most.
__global__ void ChooseExperts(DeviceMatrix logits, DeviceExperts layer, int32_t* all_chosen, float* all_weights) {
  WaitForPrevious();
  const int64_t r = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (r >= logits.rows) return;
  const float* row = logits.data + r * logits.stride;
  int32_t* chosen = all_chosen + r * layer.top_k;
  float* weights = all_weights + r * layer.top_k;
  float largest = 0.0f;
  for (int64_t place = 0; place < layer.top_k; ++place) {
    int32_t best = -1;
    for (int32_t e = 0; e < layer.count; ++e) {
      // After the one chosen before, in the order "larger first, then lower index".
      if (place > 0) {
        const int32_t last = chosen[place - 1];
        const float a = Rank(row[e]);
        const float b = Rank(row[last]);
        if (a > b || (a == b && e <= last)) continue;
      }
      if (best < 0 || Rank(row[e]) > Rank(row[best])) best = e;
    }
    chosen[place] = best;
    if (place == 0) largest = row[best];
  }
  float sum = 0.0f;
  if (layer.route == Route::kSoftmax) {
    for (int64_t e = 0; e < layer.count; ++e) sum += expf(row[e] - largest);
  } else if (layer.route == Route::kSoftmaxOfChosen) {
    for (int64_t i = 0; i < layer.top_k; ++i) sum += expf(row[chosen[i]] - largest);
  }
  // By index, by insertion.
  for (int64_t i = 1; i < layer.top_k; ++i) {
    const int32_t e = chosen[i];
    int64_t j = i;
    for (; j > 0 && chosen[j - 1] > e; --j) chosen[j] = chosen[j - 1];
    chosen[j] = e;
  }
  for (int64_t i = 0; i < layer.top_k; ++i) {
    const float logit = row[chosen[i]];
    weights[i] = layer.route == Route::kSigmoid ? 1.0f / (1.0f + expf(-logit)) : expf(logit - largest) / sum;
  }
}

// The sum of a row of w times x, for all lanes.
__device__ inline float RowTimes(const DeviceWeight& w, int64_t channel, const float* x) {
  float sum = 0.0f;
  WithForm(w.form, w.bits, [&]<Form kForm, int kBits>() {
    for (int64_t k = threadIdx.x % 32 * 8; k < w.cols; k += 256) {
      float weights[8];
      LoadEight<kForm, kBits>(w, channel, k, weights);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum = fmaf(weights[i], k + i < w.cols ? x[k + i] : 0.0f, sum);
    }
  });
  return WarpSum(sum);
}

// blockIdx.y: row * top_k + place.
__global__ void __launch_bounds__(kWarps * 32)
    ExpertInner(DeviceMatrix x, DeviceExperts layer, const int32_t* chosen, float* inner) {
  WaitForPrevious();
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (n >= layer.inner) return;
  const int64_t pair = blockIdx.y;
  const DeviceExpert& expert = layer.experts[chosen[pair]];
  const float* row = x.data + pair / layer.top_k * x.stride;
  const int64_t gate_row = layer.alternating ? 2 * n : n;
  float gate = RowTimes(expert.gate, gate_row, row);
  float up = layer.alternating ? RowTimes(expert.gate, 2 * n + 1, row) : RowTimes(expert.up, n, row);
  if (threadIdx.x % 32 != 0) return;
  if (expert.gate_bias != nullptr) gate += expert.gate_bias[gate_row];
  if (layer.alternating && expert.gate_bias != nullptr) up += expert.gate_bias[2 * n + 1];
  if (!layer.alternating && expert.up_bias != nullptr) up += expert.up_bias[n];
  if (layer.limit > 0.0f) {
    gate = gate > layer.limit ? layer.limit : gate;
    up = (up > layer.limit ? layer.limit : up < -layer.limit ? -layer.limit : up) + 1.0f;
  }
  inner[pair * layer.inner + n] = Activate(gate, layer.act) * up;
}

__global__ void __launch_bounds__(kWarps * 32)
    ExpertDown(DeviceExperts layer, const int32_t* chosen, const float* weights, const float* inner, DeviceMatrix out) {
  WaitForPrevious();
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (n >= out.cols) return;
  const int64_t r = blockIdx.y;
  float sum = 0.0f;
  for (int64_t i = 0; i < layer.top_k; ++i) {
    const int64_t pair = r * layer.top_k + i;
    const DeviceExpert& expert = layer.experts[chosen[pair]];
    float down = RowTimes(expert.down, n, inner + pair * layer.inner);
    if (expert.down_bias != nullptr) down += expert.down_bias[n];
    sum = fmaf(weights[pair], down, sum);
  }
  if (threadIdx.x % 32 == 0) out.data[r * out.stride + n] += sum;
}

}  // namespace

void LaunchRoute(const DeviceMatrix& logits, const DeviceExperts& experts, int32_t* chosen, float* weights,
                 cudaStream_t stream) {
  if (logits.rows == 0) return;
  Launch(ChooseExperts, {dim3(static_cast<unsigned>(CeilDiv(logits.rows, 64))), dim3(64), 0, stream}, logits, experts,
         chosen, weights);
}

void LaunchExperts(const DeviceMatrix& x, const DeviceExperts& experts, const int32_t* chosen, const float* weights,
                   float* inner, const DeviceMatrix& out, cudaStream_t stream) {
  if (x.rows == 0) return;
  const dim3 wide(static_cast<unsigned>(CeilDiv(experts.inner, kWarps)), static_cast<unsigned>(x.rows * experts.top_k));
  Launch(ExpertInner, {dim3(wide), dim3(kWarps * 32), 0, stream}, x, experts, chosen, inner);
  const dim3 down(static_cast<unsigned>(CeilDiv(out.cols, kWarps)), static_cast<unsigned>(x.rows));
  Launch(ExpertDown, {dim3(down), dim3(kWarps * 32), 0, stream}, experts, chosen, weights, inner, out);
}

}  // namespace pensieve::backend::cuda
