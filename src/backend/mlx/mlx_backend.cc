// Memory, steps and results; operations are in the files beside this one.
#include "backend/mlx/mlx_backend.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backend/checks.h"
#include "base/check.h"

namespace pensieve::backend::mlx {
namespace {

// A step that fails may be the fault of a passing state of the machine; as many in a row are not.
constexpr int kMostFailures = 3;

void EvaluateOperand(const Operand& operand) {
  std::vector<mx::array> arrays = {operand.values};
  if (operand.scales) arrays.push_back(*operand.scales);
  if (operand.biases) arrays.push_back(*operand.biases);
  mx::eval(arrays);
}

// One bias an expert and row, [experts, 1, rows]; null where experts have none.
std::optional<mx::array> StackBiases(std::span<const Expert> experts, std::span<const float> Expert::*bias,
                                     RowsTaken taken) {
  if ((experts.front().*bias).empty()) return std::nullopt;
  std::vector<float> all;
  for (const Expert& expert : experts) {
    const std::span<const float> own = expert.*bias;
    for (auto r = static_cast<size_t>(taken.first); r < own.size(); r += static_cast<size_t>(taken.step)) {
      all.push_back(own[r]);
    }
  }
  const auto count = static_cast<int64_t>(experts.size());
  return FromFloats(all, {Int(count), 1, Int(static_cast<int64_t>(all.size()) / count)});
}

}  // namespace

// --- memory -------------------------------------------------------------------------------------------------------

Result<Weight> MlxBackend::Import(const tensor::Weight& weight, WeightUse) {
  PENSIEVE_RETURN_IF_ERROR(device_.CheckRoom(static_cast<int64_t>(tensor::WeightBytes(weight)), "a weight"));
  try {
    weights_.emplace_back(CopyWeights({&weight, 1}, /*stacked=*/false));
    EvaluateOperand(weights_.back().operand);
    ReleasePages(weight);
  } catch (const std::exception& error) { return ToStatus(error, "copying a weight to MLX"); }
  return Weight{&weights_.back(), tensor::Rows(weight), tensor::Cols(weight),
                static_cast<int64_t>(tensor::WeightBytes(weight))};
}

Result<ExpertSet> MlxBackend::ImportExperts(const ExpertLayer& layer) {
  CheckExpertLayer(layer);
  const auto all = [&](tensor::Weight Expert::*part) {
    std::vector<tensor::Weight> weights;
    for (const Expert& expert : layer.experts) weights.push_back(expert.*part);
    return weights;
  };
  int64_t bytes = 0;
  for (const Expert& expert : layer.experts) bytes += ExpertBytes(expert, layer.alternating);
  PENSIEVE_RETURN_IF_ERROR(device_.CheckRoom(bytes, "a layer's experts"));
  const RowsTaken gates = layer.alternating ? RowsTaken{0, 2} : RowsTaken{};
  const RowsTaken ups = layer.alternating ? RowsTaken{1, 2} : RowsTaken{};
  const auto up = layer.alternating ? &Expert::gate : &Expert::up;
  const auto up_bias = layer.alternating ? &Expert::gate_bias : &Expert::up_bias;
  try {
    MlxExperts& own = experts_.emplace_back(CopyWeights(all(&Expert::gate), /*stacked=*/true, gates),
                                            CopyWeights(all(up), /*stacked=*/true, ups),
                                            CopyWeights(all(&Expert::down), /*stacked=*/true));
    own.gate_bias = StackBiases(layer.experts, &Expert::gate_bias, gates);
    own.up_bias = StackBiases(layer.experts, up_bias, ups);
    own.down_bias = StackBiases(layer.experts, &Expert::down_bias, {});
    own.routing = layer.routing;
    own.top_k = layer.top_k;
    own.activation = layer.activation;
    own.limit = layer.limit;
    for (const Operand* operand : {&own.gate, &own.up, &own.down}) EvaluateOperand(*operand);
    for (const Expert& expert : layer.experts) {
      ReleasePages(expert.gate);
      if (!layer.alternating) ReleasePages(expert.up);
      ReleasePages(expert.down);
    }
  } catch (const std::exception& error) { return ToStatus(error, "copying experts to MLX"); }
  return ExpertSet{&experts_.back(), static_cast<int64_t>(layer.experts.size()), bytes};
}

Result<Vector> MlxBackend::ImportVector(std::span<const float> values) {
  PENSIEVE_TRY(const Matrix row, NewMatrix(1, static_cast<int64_t>(values.size())));
  PENSIEVE_RETURN_IF_ERROR(CopyToDevice(values, row));
  return Vector{row.buffer, 0};
}

Result<Rope> MlxBackend::ImportRope(const RopeTable& usual, const RopeTable& for_long) {
  const auto copy = [](const RopeTable& table) {
    CheckRopeTable(table);
    return MlxRope::Table{
        {table.frequencies.begin(), table.frequencies.end()}, table.rotated, table.interleaved, table.magnitude};
  };
  MlxRope& rope = ropes_.emplace_back();
  rope.usual = copy(usual);
  rope.for_long = copy(for_long);
  return Rope{&rope};
}

Result<Matrix> MlxBackend::NewMatrix(int64_t rows, int64_t cols) {
  // Memory comes with what is written; it must be there then.
  PENSIEVE_TRY(const size_t bytes, MatrixBytes(rows, cols));
  PENSIEVE_RETURN_IF_ERROR(device_.CheckRoom(static_cast<int64_t>(bytes), "a matrix"));
  buffers_.emplace_back(rows, std::max<int64_t>(cols, 1));
  return Matrix{&buffers_.back(), 0, rows, cols, std::max<int64_t>(cols, 1)};
}

Result<std::unique_ptr<KvCache>> MlxBackend::NewKvCache(const KvShape& shape) {
  PENSIEVE_RETURN_IF_ERROR(CheckKvShape(shape));
  const int64_t bytes = shape.bytes_per_token() * shape.block_len * shape.num_blocks;
  PENSIEVE_RETURN_IF_ERROR(device_.CheckRoom(bytes, "the KV cache"));
  return MlxKvCache::Create(shape);
}

void MlxBackend::Put(const Matrix& matrix, mx::array value) {
  auto* const buffer = static_cast<MlxBuffer*>(matrix.buffer);
  if (value.dtype() != mx::float32) value = mx::astype(value, mx::float32);
  buffer->Write(matrix, std::move(value), step_number_);
  if (!buffer->was_listed) written_.push_back(buffer);
  buffer->was_listed = true;
}

Status MlxBackend::CopyToDevice(std::span<const float> host, Matrix device) {
  PENSIEVE_CHECK(static_cast<int64_t>(host.size()) == device.rows * device.cols);
  if (host.empty()) return OkStatus();
  try {
    Put(device, FromFloats(host, {Int(device.rows), Int(device.cols)}));
    return OkStatus();
  } catch (const std::exception& error) { return ToStatus(error, "copying to MLX"); }
}

Status MlxBackend::CopyToHost(Matrix device, std::span<float> host) {
  PENSIEVE_CHECK(static_cast<int64_t>(host.size()) == device.rows * device.cols);
  if (host.empty()) return error_;
  Issue("computing a result with MLX", [&] {
    mx::array rows = mx::contiguous(Get(device));
    rows.eval();
    rows.wait();
    std::memcpy(host.data(), rows.data<float>(), host.size_bytes());
  });
  return error_;
}

// --- the step -----------------------------------------------------------------------------------------------------

void MlxBackend::BeginStep(const StepInputs& inputs) {
  CheckStep(inputs);
  step_ = inputs;
  step_number_ += 1;
  arrays_ = {};
  arrays_.tables.resize(inputs.sequences.size());
  caches_.clear();
  if (!lost_) error_ = OkStatus();
}

void MlxBackend::Fail(Status error) {
  if (error_.ok()) error_ = std::move(error);
}

void MlxBackend::Evaluate(std::string_view what, bool wait) {
  Issue(what, [&] {
    std::vector<mx::array> arrays;
    for (MlxBuffer* const buffer : written_) {
      buffer->AppendTo(arrays);
      if (wait) buffer->was_listed = false;
    }
    for (const MlxKvCache* const cache : caches_) cache->AppendTo(arrays);
    if (drawn_on_device_) arrays.push_back(*drawn_on_device_);
    if (wait) {
      written_.clear();
      mx::eval(std::move(arrays));
    } else {
      mx::async_eval(std::move(arrays));
    }
  });
}

void MlxBackend::Submit() { Evaluate("giving a step to MLX", /*wait=*/false); }

Status MlxBackend::EndStep() {
  Evaluate("MLX failed while it computed a step", /*wait=*/true);
  const bool failed = !error_.ok();
  if (failed) Recover();
  if (!failed) failures_ = 0;
  arrays_ = {};
  arrays_.tables.resize(step_.sequences.size());
  caches_.clear();
  return error_;
}

void MlxBackend::Recover() {
  // What the step had begun must not be computed again with the next one.
  for (MlxBuffer* const buffer : written_) {
    buffer->Forget();
    buffer->was_listed = false;
  }
  written_.clear();
  drawn_on_device_.reset();
  if (error_.code() != StatusCode::kResourceExhausted) failures_ += 1;
  lost_ = lost_ || failures_ >= kMostFailures;
  try {
    mx::clear_cache();
    std::vector<mx::array> arrays;
    for (const MlxKvCache* const cache : caches_) cache->AppendTo(arrays);
    mx::eval(std::move(arrays));
  } catch (const std::exception&) {
    lost_ = true;  // earlier tokens' keys and values cannot be had any more
  }
}

// --- results ------------------------------------------------------------------------------------------------------

// Greedy tokens are found on the device. Others are drawn on the host, which needs their rows of logits.
void MlxBackend::Draw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) {
  CheckDraw(logits, rows, params);
  drawn_.assign(rows.size(), kNoToken);
  drawn_on_device_.reset();
  if (rows.empty()) return;
  const bool greedy =
      std::all_of(params.begin(), params.end(), [](const DrawParams& p) { return p.temperature == 0.0f; });
  if (!greedy) {
    std::vector<float> row(static_cast<size_t>(logits.cols));
    for (size_t i = 0; i < rows.size(); ++i) {
      if (!CopyToHost(logits.Rows(rows[i], 1), row).ok()) return;
      if (!IsDrawable(row, params[i])) continue;
      MakeComparable(row);
      drawn_[i] = drawer_.Draw(row, params[i]);
    }
    return;
  }
  Issue("drawing with MLX", [&] {
    const auto vocab = static_cast<int32_t>(logits.cols);
    std::vector<int32_t> limits;
    for (const DrawParams& p : params) limits.push_back(p.vocab_limit > 0 ? std::min(p.vocab_limit, vocab) : vocab);
    mx::array chosen = mx::take(Get(logits), FromInts(rows), 0);
    mx::array counts = mx::all(mx::isfinite(chosen), 1, /*keepdims=*/false);
    if (std::any_of(limits.begin(), limits.end(), [&](int32_t limit) { return limit < vocab; })) {
      const mx::array drawn_from =
          mx::less(mx::reshape(mx::arange(0, vocab), {1, vocab}),
                   mx::reshape(FromInts(limits), {Int(static_cast<int64_t>(limits.size())), 1}));
      counts = mx::all(mx::logical_or(mx::isfinite(chosen), mx::logical_not(drawn_from)), 1, /*keepdims=*/false);
      chosen = mx::where(drawn_from, chosen, mx::array(-std::numeric_limits<float>::infinity()));
    }
    const mx::array largest = mx::astype(mx::argmax(chosen, 1), mx::int32);
    drawn_on_device_ = mx::where(counts, largest, mx::array(kNoToken));
  });
}

Status MlxBackend::ReadDrawn(std::span<int32_t> tokens) {
  PENSIEVE_CHECK(tokens.size() == drawn_.size());
  if (drawn_on_device_) {
    Issue("reading drawn tokens from MLX", [&] {
      drawn_on_device_->eval();
      drawn_on_device_->wait();
      std::copy_n(drawn_on_device_->data<int32_t>(), drawn_.size(), drawn_.begin());
    });
    drawn_on_device_.reset();
  }
  std::copy(drawn_.begin(), drawn_.end(), tokens.begin());
  return error_;
}

}  // namespace pensieve::backend::mlx
