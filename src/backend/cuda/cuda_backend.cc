#include "backend/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <variant>

#include "backend/checks.h"
#include "backend/cuda/kv_cache.h"
#include "base/check.h"

namespace pensieve::backend::cuda {
namespace {

Act ActOf(Activation activation) {
  switch (activation) {
    case Activation::kNone: return Act::kNone;
    case Activation::kSilu: return Act::kSilu;
    case Activation::kGeluTanh: return Act::kGeluTanh;
    case Activation::kGeluErf: return Act::kGeluErf;
    case Activation::kRelu: return Act::kRelu;
    case Activation::kQuickGelu: return Act::kQuickGelu;
  }
  PENSIEVE_UNREACHABLE();
}

ScaleType ScaleTypeOf(tensor::DType dtype) {
  if (dtype == tensor::DType::kF32) return ScaleType::kF32;
  return dtype == tensor::DType::kF16 ? ScaleType::kF16 : ScaleType::kBf16;
}

Form FormOf(tensor::DType dtype) {
  if (dtype == tensor::DType::kF32) return Form::kF32;
  return dtype == tensor::DType::kF16 ? Form::kF16 : Form::kBf16;
}

DeviceMatrix RowsOf(const DeviceMatrix& matrix, int64_t first, int64_t count) {
  return {matrix.data + first * matrix.stride, count, matrix.cols, matrix.stride};
}

// Rows of a product's task that f16 pays for: dense f32 stays f32.
bool HasCoarseForm(const DeviceWeight& weight) { return weight.form != Form::kF32; }

// From so many coarse rows on, making a weight halves once pays.
constexpr int64_t kRowsForHalfWeights = 192;

}  // namespace

// --- life ---------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<Backend>> CudaBackend::Create(CudaDevice& device, const BackendOptions& options) {
  std::unique_ptr<CudaBackend> backend(new CudaBackend(device, options));
  PENSIEVE_RETURN_IF_ERROR(backend->Start());
  return std::unique_ptr<Backend>(std::move(backend));
}

Status CudaBackend::Start() {
  PENSIEVE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device_.index()), "the GPU cannot be used"));
  return ToStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "the GPU gives no stream");
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(device_.index());
  if (stream_ != nullptr) {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  if (staging_ != nullptr) cudaFreeHost(staging_);
}

bool CudaBackend::Ready() {
  if (!error_.ok()) return false;
  // Backends are made by one thread and used by another; the current device belongs to the thread.
  const cudaError_t error = cudaSetDevice(device_.index());
  if (error != cudaSuccess) Fail(ToStatus(error, "the GPU cannot be used"));
  return error_.ok();
}

void CudaBackend::Flush() {
  if (operations_.empty()) return;
  const cudaError_t error = operations_.Run(stream_);
  if (error != cudaSuccess) Fail(ToStatus(error, "the GPU takes no more work"));
}

void CudaBackend::Submit() {
  if (Ready()) Flush();
}

void CudaBackend::Check(std::string_view what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) Fail(ToStatus(error, what));
}

void CudaBackend::Fail(Status error) {
  // Only want of memory leaves the device usable: other errors stay with the context until the process ends.
  if (error.code() != StatusCode::kResourceExhausted) lost_ = true;
  if (error_.ok()) error_ = std::move(error);
}

// --- memory -------------------------------------------------------------------------------------------------------

Result<uint8_t*> CudaBackend::UploadBytes(const void* host, size_t bytes) {
  PENSIEVE_TRY(DeviceMemory memory, DeviceMemory::Allocate(std::max<size_t>(bytes, 1)));
  uploads_.push_back(std::move(memory));
  auto* const target = uploads_.back().as<uint8_t>();
  if (bytes == 0) return target;
  PENSIEVE_RETURN_IF_ERROR(
      ToStatus(cudaMemcpyAsync(target, host, bytes, cudaMemcpyHostToDevice, stream_), "copying weights to the GPU"));
  PENSIEVE_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "copying weights to the GPU"));
  return target;
}

Result<const float*> CudaBackend::UploadFloats(std::span<const float> values) {
  PENSIEVE_TRY(const uint8_t* const memory, UploadBytes(values.data(), values.size_bytes()));
  return reinterpret_cast<const float*>(memory);
}

Result<DeviceWeight> CudaBackend::Upload(const tensor::Weight& weight) {
  DeviceWeight w = {};
  w.rows = tensor::Rows(weight);
  w.cols = tensor::Cols(weight);
  w.group = 32;
  w.group_shift = 5;
  const auto bytes = [&](int64_t a, int64_t b) { return static_cast<size_t>(a * b); };
  if (const auto* dense = std::get_if<tensor::DenseWeight>(&weight)) {
    w.form = FormOf(dense->dtype);
    w.row_bytes = w.cols * static_cast<int64_t>(tensor::DTypeBytes(dense->dtype));
    PENSIEVE_TRY(w.codes, UploadBytes(dense->data, bytes(w.rows, w.row_bytes)));
  } else if (const auto* affine = std::get_if<tensor::AffineWeight>(&weight)) {
    w.form = Form::kAffine;
    w.bits = affine->bits;
    w.group = affine->group;
    w.group_shift = std::countr_zero(static_cast<unsigned>(affine->group));
    w.scale_type = ScaleTypeOf(affine->scale_dtype);
    w.row_bytes = affine->row_bytes();
    w.zero = static_cast<float>(1 << (affine->bits - 1));
    const size_t scale_bytes = bytes(w.rows, affine->groups()) * tensor::DTypeBytes(affine->scale_dtype);
    PENSIEVE_TRY(w.codes, UploadBytes(affine->codes, bytes(w.rows, w.row_bytes)));
    PENSIEVE_TRY(w.scales, UploadBytes(affine->scales, scale_bytes));
    if (affine->biases != nullptr) { PENSIEVE_TRY(w.biases, UploadBytes(affine->biases, scale_bytes)); }
  } else {
    const auto& fp4 = std::get<tensor::Mxfp4Weight>(weight);
    w.form = Form::kMxfp4;
    w.bits = 4;
    w.row_bytes = w.cols / 2;
    PENSIEVE_TRY(w.codes, UploadBytes(fp4.codes, bytes(w.rows, w.row_bytes)));
    PENSIEVE_TRY(w.scales, UploadBytes(fp4.scales, bytes(w.rows, w.cols / 32)));
  }
  w.groups = static_cast<int>(w.cols / w.group);
  return w;
}

Result<Weight> CudaBackend::Import(const tensor::Weight& weight, WeightUse) {
  PENSIEVE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device_.index()), "the GPU cannot be used"));
  weights_.emplace_back();
  PENSIEVE_TRY(weights_.back().weight, Upload(weight));
  return Weight{&weights_.back(), tensor::Rows(weight), tensor::Cols(weight),
                static_cast<int64_t>(tensor::WeightBytes(weight))};
}

Result<ExpertSet> CudaBackend::ImportExperts(const ExpertLayer& layer) {
  CheckExpertLayer(layer);
  PENSIEVE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device_.index()), "the GPU cannot be used"));
  std::vector<DeviceExpert> experts;
  int64_t bytes = 0;
  const auto upload_bias = [&](std::span<const float> bias) -> Result<const float*> {
    if (bias.empty()) return static_cast<const float*>(nullptr);
    return UploadFloats(bias);
  };
  for (const Expert& expert : layer.experts) {
    DeviceExpert own = {};
    PENSIEVE_TRY(own.gate, Upload(expert.gate));
    if (!layer.alternating) { PENSIEVE_TRY(own.up, Upload(expert.up)); }
    PENSIEVE_TRY(own.down, Upload(expert.down));
    PENSIEVE_TRY(own.gate_bias, upload_bias(expert.gate_bias));
    PENSIEVE_TRY(own.up_bias, upload_bias(expert.up_bias));
    PENSIEVE_TRY(own.down_bias, upload_bias(expert.down_bias));
    experts.push_back(own);
    bytes += ExpertBytes(expert, layer.alternating);
  }
  CudaExperts set;
  PENSIEVE_TRY(const uint8_t* const table, UploadBytes(experts.data(), experts.size() * sizeof(DeviceExpert)));
  set.layer.experts = reinterpret_cast<const DeviceExpert*>(table);
  set.layer.count = static_cast<int64_t>(experts.size());
  set.layer.inner = tensor::Cols(layer.experts.front().down);
  set.layer.top_k = layer.top_k;
  set.layer.route = layer.routing == Routing::kSoftmax           ? Route::kSoftmax
                    : layer.routing == Routing::kSoftmaxOfChosen ? Route::kSoftmaxOfChosen
                                                                 : Route::kSigmoid;
  set.layer.act = ActOf(layer.activation);
  set.layer.alternating = layer.alternating;
  set.layer.limit = layer.limit;
  experts_.push_back(set);
  return ExpertSet{&experts_.back(), set.layer.count, bytes};
}

Result<Vector> CudaBackend::ImportVector(std::span<const float> values) {
  PENSIEVE_TRY(const Matrix row, NewMatrix(1, static_cast<int64_t>(values.size())));
  PENSIEVE_RETURN_IF_ERROR(CopyToDevice(values, row));
  return Vector{row.buffer, 0};
}

Result<Rope> CudaBackend::ImportRope(const RopeTable& usual, const RopeTable& for_long) {
  CudaRope rope;
  for (const auto& [table, own] : {std::pair{&usual, &rope.usual}, {&for_long, &rope.for_long}}) {
    CheckRopeTable(*table);
    PENSIEVE_TRY(own->frequencies, UploadFloats(table->frequencies));
    own->rotated = table->rotated;
    own->interleaved = table->interleaved ? 1 : 0;
    own->magnitude = table->magnitude;
  }
  ropes_.push_back(rope);
  return Rope{&ropes_.back()};
}

Result<Matrix> CudaBackend::NewMatrix(int64_t rows, int64_t cols) {
  PENSIEVE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device_.index()), "the GPU cannot be used"));
  PENSIEVE_TRY(const size_t bytes, MatrixBytes(rows, cols));
  PENSIEVE_TRY(DeviceMemory memory, DeviceMemory::Allocate(std::max<size_t>(bytes, sizeof(float))));
  PENSIEVE_RETURN_IF_ERROR(
      ToStatus(cudaMemsetAsync(memory.as<void>(), 0, memory.size(), stream_), "clearing a matrix"));
  buffers_.emplace_back();
  buffers_.back().memory = std::move(memory);
  return Matrix{&buffers_.back(), 0, rows, cols, cols};
}

Result<std::unique_ptr<KvCache>> CudaBackend::NewKvCache(const KvShape& shape) {
  PENSIEVE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device_.index()), "the GPU cannot be used"));
  return CudaKvCache::Create(shape, stream_);
}

void* CudaBackend::Need(DeviceMemory& scratch, size_t bytes) {
  if (scratch.size() < bytes) {
    // What was deferred or still runs may use the old memory: cudaFree waits for the latter.
    Flush();
    auto memory = DeviceMemory::Allocate(bytes + bytes / 4);
    if (!memory) {
      Fail(std::move(memory).error());
      return nullptr;
    }
    scratch = *std::move(memory);
  }
  return scratch.as<void>();
}

Status CudaBackend::CopyToDevice(std::span<const float> host, Matrix device) {
  PENSIEVE_CHECK(static_cast<int64_t>(host.size()) == device.rows * device.cols);
  if (host.empty()) return OkStatus();
  PENSIEVE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device_.index()), "the GPU cannot be used"));
  Flush();
  const DeviceMatrix target = On(device);
  const size_t row_bytes = static_cast<size_t>(device.cols) * sizeof(float);
  const cudaError_t error =
      cudaMemcpy2DAsync(target.data, static_cast<size_t>(target.stride) * sizeof(float), host.data(), row_bytes,
                        row_bytes, static_cast<size_t>(device.rows), cudaMemcpyHostToDevice, stream_);
  PENSIEVE_RETURN_IF_ERROR(ToStatus(error, "copying to the GPU"));
  return ToStatus(cudaStreamSynchronize(stream_), "copying to the GPU");
}

Status CudaBackend::CopyToHost(Matrix device, std::span<float> host) {
  PENSIEVE_CHECK(static_cast<int64_t>(host.size()) == device.rows * device.cols);
  if (!error_.ok()) return error_;
  if (host.empty() || !Ready()) return error_;
  Flush();
  const DeviceMatrix source = On(device);
  const size_t row_bytes = static_cast<size_t>(device.cols) * sizeof(float);
  cudaMemcpy2DAsync(host.data(), row_bytes, source.data, static_cast<size_t>(source.stride) * sizeof(float), row_bytes,
                    static_cast<size_t>(device.rows), cudaMemcpyDeviceToHost, stream_);
  cudaStreamSynchronize(stream_);
  Check("copying from the GPU");
  return error_;
}

DeviceMatrix CudaBackend::On(const Matrix& matrix) const {
  if (matrix.buffer == nullptr) {
    PENSIEVE_CHECK(matrix.rows == 0 || matrix.cols == 0);
    return {nullptr, matrix.rows, matrix.cols, matrix.stride};
  }
  return {static_cast<DeviceBuffer*>(matrix.buffer)->data() + matrix.first, matrix.rows, matrix.cols, matrix.stride};
}

const float* CudaBackend::On(const Vector& vector) const {
  if (!vector) return nullptr;
  return static_cast<DeviceBuffer*>(vector.buffer)->data() + vector.first;
}

// --- products -----------------------------------------------------------------------------------------------------

int64_t CudaBackend::PreciseRowsOfStep() const {
  return options_.activations == InputPrecision::kInt8 ? step_.precise_rows : step_.rows;
}

int64_t CudaBackend::PreciseRows(const MatMulInput& input) const {
  if (input.precision == RowPrecision::kPrecise) return input.x.rows;
  PENSIEVE_CHECK(input.x.rows == step_.rows);
  return PreciseRowsOfStep();
}

bool CudaBackend::ToHalf(const DeviceMatrix& x, HalfRows* out) {
  if (out->values != nullptr) return true;
  out->padded_cols = (x.cols + 31) / 32 * 32;
  const auto values = static_cast<size_t>(x.rows * out->padded_cols) * sizeof(uint16_t);
  auto* const memory = static_cast<uint8_t*>(Need(half_scratch_, values + static_cast<size_t>(x.rows) * sizeof(float)));
  if (memory == nullptr) return false;
  out->values = reinterpret_cast<uint16_t*>(memory);
  out->factors = reinterpret_cast<float*>(memory + values);
  operations_.Add(&LaunchToHalfRows, x, *out);
  return true;
}

bool CudaBackend::PlanesFor(const Weight& weight) const {
  return options_.activations != InputPrecision::kF32 &&
         TakesPlanes(static_cast<const CudaWeight*>(weight.storage)->weight);
}

PlaneInput CudaBackend::ToPlanes(const DeviceMatrix& x, int64_t slab, const InputNorm& norm) {
  const DeviceMatrix source = norm.weight ? RowsOf(On(norm.x), 0, x.rows) : x;
  // A block must not read what another one has normed in place.
  if (MakesOwnPlanes(source, On(norm.weight)) && !(norm.weight && source.data == x.data)) {
    return {{nullptr, nullptr, nullptr, x.cols / slab, slab}, source, On(norm.weight), x, norm.eps, 1};
  }
  PlaneRows planes = {};
  planes.slab = slab;
  planes.slabs = x.cols / slab;
  const auto values = static_cast<size_t>(2 * x.rows * x.cols) * sizeof(uint16_t);
  const auto sums = static_cast<size_t>(x.rows * planes.slabs) * sizeof(float);
  auto* const memory =
      static_cast<std::byte*>(Need(plane_scratch_, values + sums + static_cast<size_t>(x.rows) * sizeof(float)));
  if (memory == nullptr) return {};
  planes.values = reinterpret_cast<uint16_t*>(memory);
  planes.sums = reinterpret_cast<float*>(memory + values);
  planes.inverses = reinterpret_cast<float*>(memory + values + sums);
  operations_.Add(&LaunchToPlanes, source, On(norm.weight), norm.eps, x, planes);
  return {planes, source, nullptr, x, 0.0f, 0};
}

void CudaBackend::PreciseProducts(const DeviceMatrix& x, std::span<const Product> products, InputNorm norm) {
  if (x.rows == 0) return;
  const auto output_of = [&](const Product& product) {
    const Epilogue epilogue = {On(product.bias), ActOf(product.activation), product.accumulate ? 1 : 0};
    return PlaneOutput{static_cast<const CudaWeight*>(product.weight.storage)->weight, epilogue,
                       RowsOf(On(product.out), 0, x.rows)};
  };
  const bool overwrites = std::any_of(products.begin(), products.end(), [&](const Product& product) {
    return norm.weight && product.out.buffer == norm.x.buffer;
  });
  if (overwrites) {
    operations_.Add(&LaunchRmsNorm, RowsOf(On(norm.x), 0, x.rows), x.cols, On(norm.weight), norm.eps, x);
    norm.weight = {};
  }
  for (const int64_t slab : {int64_t{64}, int64_t{32}}) {
    PlaneInput planes = {};
    PlaneOutputs outputs = {};
    const auto launch = [&] {
      if (outputs.count == 0) return;
      operations_.Add(&LaunchPlaneProducts, planes, x.rows, outputs);
      outputs = {};
      // The first launch has stored the norm: the next reads it.
      planes.source = planes.normed;
      planes.norm_weight = nullptr;
    };
    for (const Product& product : products) {
      const PlaneOutput output = output_of(product);
      if (!PlanesFor(product.weight) || SlabOf(output.w) != slab) continue;
      if (planes.rows.slabs == 0) {
        planes = ToPlanes(x, slab, norm);
        norm.weight = {};  // x holds it from the launch on
        if (planes.rows.slabs == 0) return;
      }
      outputs.of[outputs.count++] = output;
      if (outputs.count == kMostPlaneOutputs) launch();
    }
    launch();
  }
  if (norm.weight) operations_.Add(&LaunchRmsNorm, RowsOf(On(norm.x), 0, x.rows), x.cols, On(norm.weight), norm.eps, x);
  for (const Product& product : products) {
    if (PlanesFor(product.weight)) continue;
    const PlaneOutput output = output_of(product);
    operations_.Add(&LaunchPreciseProduct, x, output.w, output.epilogue, output.out);
  }
}

// x: all rows; those from `first` on are meant.
void CudaBackend::CoarseProducts(const DeviceMatrix& x, int64_t first, std::span<const Product> products) {
  const int64_t rows = x.rows - first;
  HalfRows half = {};
  for (const Product& product : products) {
    const DeviceWeight& weight = static_cast<const CudaWeight*>(product.weight.storage)->weight;
    const Epilogue epilogue = {On(product.bias), ActOf(product.activation), product.accumulate ? 1 : 0};
    const DeviceMatrix out = RowsOf(On(product.out), first, rows);
    if (!HasCoarseForm(weight)) {
      operations_.Add(&LaunchPreciseProduct, RowsOf(x, first, rows), weight, epilogue, out);
    } else if (ToHalf(RowsOf(x, first, rows), &half)) {
      if (rows < kRowsForHalfWeights || !TakesHalfWeights(weight)) {
        operations_.Add(&LaunchCoarseProduct, half, weight, epilogue, out);
        continue;
      }
      auto* const halves = static_cast<uint16_t*>(
          Need(weight_scratch_, static_cast<size_t>(weight.rows * weight.cols) * sizeof(uint16_t)));
      if (halves == nullptr) return;
      operations_.Add(&LaunchToHalfWeights, weight, halves);
      operations_.Add(&LaunchHalfProduct, half, halves, weight.rows, epilogue, out);
    }
  }
}

void CudaBackend::Products(const MatMulInput& input, std::span<const Product> products, InputNorm norm) {
  CheckProducts(input, products);
  if (input.x.rows == 0 || !Ready()) return;
  const DeviceMatrix x = On(input.x);
  const int64_t precise = PreciseRows(input);
  if (norm.weight && (precise < x.rows || products.empty())) {
    operations_.Add(&LaunchRmsNorm, On(norm.x), x.cols, On(norm.weight), norm.eps, x);
    norm.weight = {};
  }
  PreciseProducts(RowsOf(x, 0, precise), products, norm);
  if (precise < x.rows) CoarseProducts(x, precise, products);
}

void CudaBackend::MatMul(const MatMulInput& input, std::span<const Product> products) { Products(input, products, {}); }

void CudaBackend::NormMatMul(Matrix x, Vector weight, float eps, const MatMulInput& normed,
                             std::span<const Product> products) {
  CheckSameShape(x, normed.x);
  Products(normed, products, {x, weight, eps});
}

void CudaBackend::GatedMatMul(const MatMulInput& input, const GatedProduct& product) { Gated(input, product, {}); }

void CudaBackend::NormGatedMatMul(Matrix x, Vector weight, float eps, const MatMulInput& normed,
                                  const GatedProduct& product) {
  CheckSameShape(x, normed.x);
  Gated(normed, product, {x, weight, eps});
}

void CudaBackend::Gated(const MatMulInput& input, const GatedProduct& product, const InputNorm& norm) {
  CheckGated(input, product);
  if (input.x.rows == 0 || !Ready()) return;
  const DeviceMatrix x = On(input.x);
  const DeviceMatrix out = On(product.out);
  const DeviceWeight& gate = static_cast<const CudaWeight*>(product.gate.storage)->weight;
  const DeviceWeight& up = static_cast<const CudaWeight*>(product.up.storage)->weight;
  const int64_t precise = PreciseRows(input);
  if (precise == x.rows && PlanesFor(product.gate) && PlanesFor(product.up) && SlabOf(gate) == SlabOf(up)) {
    const PlaneInput planes = ToPlanes(x, SlabOf(gate), norm);
    if (planes.rows.slabs == 0) return;
    operations_.Add(&LaunchPlaneGated, planes, x.rows, gate, up, ActOf(product.activation), out);
    return;
  }
  // Otherwise two products and what joins them: a row's bits are the same either way.
  auto* const memory =
      static_cast<float*>(Need(product_scratch_, static_cast<size_t>(x.rows * out.cols) * sizeof(float)));
  if (memory == nullptr) return;
  scratch_buffer_.view = memory;
  const Product both[] = {{.weight = product.gate, .out = product.out},
                          {.weight = product.up, .out = {&scratch_buffer_, 0, x.rows, out.cols, out.cols}}};
  Products(input, both, norm);
  operations_.Add(&LaunchGate, DeviceMatrix{memory, x.rows, out.cols, out.cols}, ActOf(product.activation), out);
}

void CudaBackend::Experts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) {
  CheckExperts(input, logits, experts, out);
  if (input.x.rows == 0 || !Ready()) return;
  const DeviceExperts& layer = static_cast<const CudaExperts*>(experts.storage)->layer;
  const auto pairs = static_cast<size_t>(input.x.rows * layer.top_k);
  const size_t bytes =
      pairs * (sizeof(int32_t) + sizeof(float)) + pairs * static_cast<size_t>(layer.inner) * sizeof(float);
  auto* const memory = static_cast<float*>(Need(expert_scratch_, bytes));
  if (memory == nullptr) return;
  float* const weights = memory + pairs * static_cast<size_t>(layer.inner);
  auto* const chosen = reinterpret_cast<int32_t*>(weights + pairs);
  operations_.Add(&LaunchRoute, On(logits), layer, chosen, weights);
  operations_.Add(&LaunchExperts, On(input.x), layer, chosen, weights, memory, On(out));
}

// --- rows ---------------------------------------------------------------------------------------------------------

void CudaBackend::EmbedRows(const Weight& table, EmbedBy by, float scale, Matrix out, bool add) {
  CheckEmbed(step_, table, by, out);
  if (!Ready()) return;
  const int32_t* const ids = by == EmbedBy::kFirst ? nullptr
                             : by == EmbedBy::kId  ? on_device_.ids
                                                   : on_device_.positions;
  operations_.Add(&LaunchEmbedRows, static_cast<const CudaWeight*>(table.storage)->weight, ids, scale, add, On(out));
}

void CudaBackend::RmsNorm(Matrix x, Vector weight, float eps, Matrix out) {
  CheckSameShape(x, out);
  if (!Ready()) return;
  operations_.Add(&LaunchRmsNorm, On(x), x.cols, On(weight), eps, On(out));
}

void CudaBackend::RmsNormHeads(Matrix x, int64_t head_dim, Vector weight, float eps) {
  PENSIEVE_CHECK(head_dim > 0 && x.cols % head_dim == 0);
  if (!Ready()) return;
  head_norms_[0] = head_norms_[1];
  head_norms_[1] = {operations_.Here(), {}, x, weight, eps};
  operations_.Add(&LaunchRmsNorm, On(x), head_dim, On(weight), eps, On(x));
  head_norms_[1].after = operations_.Here();
}

void CudaBackend::LayerNorm(Matrix x, Vector weight, Vector bias, float eps, Matrix out) {
  CheckSameShape(x, out);
  if (!Ready()) return;
  operations_.Add(&LaunchLayerNorm, On(x), On(weight), On(bias), eps, On(out));
}

void CudaBackend::Rotate(Matrix x, int64_t head_dim, const Rope& rope) {
  CheckRotate(step_, x, head_dim);
  const auto& own = *static_cast<const CudaRope*>(rope.storage);
  PENSIEVE_CHECK(own.usual.rotated <= head_dim && own.for_long.rotated <= head_dim);
  if (!Ready()) return;
  operations_.Add(&LaunchRotate, On(x), head_dim, on_device_.positions, on_device_.is_long, own.usual, own.for_long);
}

void CudaBackend::ScaleQueries(Matrix x) {
  PENSIEVE_CHECK(x.rows == static_cast<int64_t>(step_.query_factors.size()));
  if (!Ready()) return;
  operations_.Add(&LaunchScaleRows, On(x), on_device_.query_factors);
}

void CudaBackend::Add(Matrix x, Matrix out) {
  CheckSameShape(x, out);
  if (!Ready()) return;
  operations_.Add(&LaunchAdd, On(x), On(out));
}

void CudaBackend::Softcap(Matrix x, float cap) {
  if (!Ready()) return;
  operations_.Add(&LaunchSoftcap, On(x), cap);
}

void CudaBackend::GatherOutputs(Matrix x, Matrix out) {
  CheckGather(step_, x, out);
  if (!Ready()) return;
  operations_.Add(&LaunchGather, On(x), on_device_.output_rows, On(out));
}

// --- attention ----------------------------------------------------------------------------------------------------

AttentionArgs CudaBackend::Args(const AttentionParams& params) const {
  return {params.window, On(params.sinks), params.scale, params.softcap};
}

void CudaBackend::StoreKv(KvCache& cache, int64_t layer, Matrix k, Matrix v) {
  CheckStoreKv(cache.shape(), layer, step_, k, v);
  if (!Ready()) return;
  operations_.Add(&LaunchStoreKv, static_cast<CudaKvCache&>(cache).Layer(layer), Places(0, step_.rows), On(k), On(v));
}

void CudaBackend::PagedAttention(const KvCache& cache, int64_t layer, const AttentionParams& params, Matrix q,
                                 Matrix out) {
  CheckPagedAttention(cache.shape(), layer, step_, q, out);
  if (!Ready()) return;
  const KvLayer kv = static_cast<const CudaKvCache&>(cache).Layer(layer);
  const int64_t precise = TakesPromptAttention(kv) ? PreciseRowsOfStep() : q.rows;
  if (precise < q.rows) {
    const RowTiles tiles = {on_device_.tile_first, on_device_.tile_count, on_device_.tiles};
    operations_.Add(&LaunchPromptAttention, kv, Places(0, q.rows), tiles, Args(params), On(q), On(out));
  }
  PreciseAttention(kv, Args(params), precise, {}, On(q), {}, {}, On(out));
}

void CudaBackend::PreciseAttention(const KvLayer& kv, const AttentionArgs& args, int64_t all, const FusedArgs& fused,
                                   const DeviceMatrix& q, const DeviceMatrix& k, const DeviceMatrix& v,
                                   const DeviceMatrix& out) {
  // Rows a few at a time, so that the pieces of long prompts fit the scratch.
  constexpr int64_t kMostScratch = int64_t{64} << 20;
  const bool one_kernel = TakesDecodeAttention(kv);
  const int64_t heads = q.cols / kv.head_dim;
  const int64_t a_row =
      one_kernel ? DecodeAttentionScratch(kv, Places(0, 1), heads) : AttentionScratch(kv, Places(0, 1), heads);
  const int64_t step = std::clamp<int64_t>(kMostScratch / a_row / static_cast<int64_t>(sizeof(float)), 1, 32768);
  for (int64_t first = 0; first < all; first += step) {
    const int64_t rows = std::min(step, all - first);
    auto* const scratch =
        static_cast<float*>(Need(attention_scratch_, static_cast<size_t>(rows * a_row) * sizeof(float)));
    if (scratch == nullptr) return;
    if (!one_kernel) {
      operations_.Add(&LaunchPagedAttention, kv, Places(first, rows), args, RowsOf(q, first, rows),
                      RowsOf(out, first, rows), scratch);
      continue;
    }
    const size_t bytes = static_cast<size_t>(rows * heads) * sizeof(int32_t);
    const bool grows = attention_counters_.size() < bytes;
    auto* const counters = static_cast<int32_t*>(Need(attention_counters_, bytes));
    if (counters == nullptr) return;
    if (grows) cudaMemsetAsync(counters, 0, attention_counters_.size(), stream_);
    FusedArgs own = fused;
    if (own.fused != 0) {
      own.rotate.positions += first;
      own.rotate.is_long += first;
    }
    const auto part = [&](const DeviceMatrix& m) { return m.data == nullptr ? m : RowsOf(m, first, rows); };
    operations_.Add(&LaunchDecodeAttention, kv, Places(first, rows), own, args, part(q), part(k), part(v), part(out),
                    scratch, counters);
  }
}

bool CudaBackend::OneRowASequence(int64_t block_len) {
  if (one_row_a_sequence_.has_value()) return *one_row_a_sequence_;
  constexpr size_t kMost = 512;  // the check is quadratic
  const std::span<const SequenceRows> all = step_.sequences;
  bool alone = all.size() <= kMost;
  for (size_t i = 0; alone && i < all.size(); ++i) {
    alone = all[i].num_rows == 1;
    const auto at = static_cast<size_t>(all[i].cached_len / block_len);
    for (size_t j = 0; alone && j < all.size(); ++j) {
      alone = i == j || all[j].block_table.size() <= at || all[j].block_table[at] != all[i].block_table[at];
    }
  }
  one_row_a_sequence_ = alone;
  return alone;
}

void CudaBackend::RotateStoreAttend(KvCache& cache, const AttentionStep& step) {
  // Queries that grow do so between rotating and attending; few models have it.
  if (step.scales_queries) return Backend::RotateStoreAttend(cache, step);
  const int64_t head_dim = cache.shape().head_dim;
  CheckStoreKv(cache.shape(), step.layer, step_, step.k, step.v);
  RotateArgs args = {};
  if (step.rope.storage != nullptr) {
    CheckRotate(step_, step.q, head_dim);
    const auto& own = *static_cast<const CudaRope*>(step.rope.storage);
    PENSIEVE_CHECK(own.usual.rotated <= head_dim && own.for_long.rotated <= head_dim);
    args = {on_device_.positions, on_device_.is_long, own.usual, own.for_long, 1};
  } else {
    args.positions = on_device_.places;  // not read for rotating, but a row has one
    args.is_long = on_device_.is_long;
  }
  if (!Ready()) return;
  const KvLayer kv = static_cast<CudaKvCache&>(cache).Layer(step.layer);
  if (PreciseRowsOfStep() == step_.rows && TakesFusedAttention(kv, step.q.cols / head_dim) &&
      OneRowASequence(kv.block_len)) {
    CheckPagedAttention(cache.shape(), step.layer, step_, step.q, step.out);
    FusedArgs fused = {args, nullptr, nullptr, 0.0f, 0.0f, 1};
    const HeadNorm& of_q = head_norms_[0];
    const HeadNorm& of_k = head_norms_[1];
    const auto is = [](const Matrix& a, const Matrix& b) { return a.buffer == b.buffer && a.first == b.first; };
    if (of_q.weight && of_k.weight && operations_.Here() == of_k.after && of_k.before == of_q.after &&
        is(of_q.x, step.q) && is(of_k.x, step.k)) {
      fused = {args, On(of_q.weight), On(of_k.weight), of_q.eps, of_k.eps, 1};
      operations_.ReturnTo(of_q.before);
    }
    return PreciseAttention(kv, Args(step.params), step_.rows, fused, On(step.q), On(step.k), On(step.v), On(step.out));
  }
  operations_.Add(&LaunchRotateAndStore, kv, Places(0, step_.rows), args, On(step.q), On(step.k), On(step.v));
  PagedAttention(cache, step.layer, step.params, step.q, step.out);
}

void CudaBackend::EncoderAttention(int64_t head_dim, const AttentionParams& params, Matrix q, Matrix k, Matrix v,
                                   Matrix out) {
  CheckEncoderAttention(step_, head_dim, q, k, v, out);
  if (!Ready()) return;
  operations_.Add(&LaunchEncoderAttention, on_device_.sequence, on_device_.first_rows, on_device_.row_counts, head_dim,
                  Args(params), On(q), On(k), On(v), On(out));
}

// --- results ------------------------------------------------------------------------------------------------------

// Greedy tokens are found on the device. Others are drawn on the host, which needs their rows of logits.
void CudaBackend::Draw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) {
  CheckDraw(logits, rows, params);
  drawn_.assign(rows.size(), kNoToken);
  drawn_on_device_ = 0;
  if (rows.empty() || !Ready()) return;
  const bool greedy =
      std::all_of(params.begin(), params.end(), [](const DrawParams& p) { return p.temperature == 0.0f; });
  if (!greedy) {
    std::vector<float> row(static_cast<size_t>(logits.cols));
    for (size_t i = 0; i < rows.size(); ++i) {
      if (!CopyToHost(logits.Rows(rows[i], 1), row).ok()) return;
      MakeComparable(row);
      drawn_[i] = drawer_.Draw(row, params[i]);
    }
    return;
  }
  const size_t count = rows.size();
  auto* const memory = static_cast<int32_t*>(Need(draw_memory_, 3 * count * sizeof(int32_t)));
  if (memory == nullptr) return;
  std::vector<int32_t> host(rows.begin(), rows.end());
  for (const DrawParams& p : params) {
    const auto vocab = static_cast<int32_t>(logits.cols);
    host.push_back(p.vocab_limit > 0 ? std::min(p.vocab_limit, vocab) : vocab);
  }
  Flush();
  // From pageable memory: the copy has been staged when the call returns.
  cudaMemcpyAsync(memory, host.data(), host.size() * sizeof(int32_t), cudaMemcpyHostToDevice, stream_);
  LaunchGreedy(On(logits), memory, memory + count, static_cast<int64_t>(count), memory + 2 * count, stream_);
  Check("drawing on the GPU");
  drawn_on_device_ = static_cast<int64_t>(count);
}

Status CudaBackend::ReadDrawn(std::span<int32_t> tokens) {
  PENSIEVE_CHECK(tokens.size() == drawn_.size());
  if (drawn_on_device_ > 0 && Ready()) {
    const auto count = static_cast<size_t>(drawn_on_device_);
    cudaMemcpyAsync(drawn_.data(), draw_memory_.as<int32_t>() + 2 * count, count * sizeof(int32_t),
                    cudaMemcpyDeviceToHost, stream_);
    cudaStreamSynchronize(stream_);
    Check("reading drawn tokens from the GPU");
    drawn_on_device_ = 0;
  }
  std::copy(drawn_.begin(), drawn_.end(), tokens.begin());
  return error_;
}

void CudaBackend::Pool(Matrix x, Pooling pooling, Matrix out) {
  CheckPool(step_, x, out);
  if (!Ready()) return;
  const cuda::Pool kind = pooling == Pooling::kMean   ? cuda::Pool::kMean
                          : pooling == Pooling::kCls  ? cuda::Pool::kCls
                          : pooling == Pooling::kLast ? cuda::Pool::kLast
                                                      : cuda::Pool::kMax;
  operations_.Add(&LaunchPool, On(x), on_device_.first_rows, on_device_.row_counts, kind, On(out));
}

void CudaBackend::L2Normalize(Matrix x) {
  if (!Ready()) return;
  operations_.Add(&LaunchL2Normalize, On(x));
}

}  // namespace pensieve::backend::cuda
