// Speed of the operations as models use them. Gop/s count a multiplication and an addition as two; GB/s count weights
// (and keys and values) once. Rates are per second of processor time of all threads together, that is per core: they
// hold on a machine that does other work as well. BACKEND_ISA and BACKEND_THREADS in the environment choose what is
// measured.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>

#include "backend/cpu/bandwidth.h"
#include "backend/test_support.h"

namespace pensieve::backend {
namespace {

using testing::WeightMaker;

std::shared_ptr<Backend> MakeMeasured(InputPrecision mode) {
  CpuOptions options;
  if (const char* isa = std::getenv("BACKEND_ISA")) options.isa = isa;
  if (const char* threads = std::getenv("BACKEND_THREADS")) options.threads = std::atoi(threads);
  const auto device = NewCpuDevice(options);
  if (!device) return nullptr;
  auto backend = (*device)->NewBackend({.activations = mode});
  return {(*std::move(backend)).release(), [kept = *device](Backend* owned) { delete owned; }};
}

Matrix RandomMatrix(Backend& backend, int64_t rows, int64_t cols) {
  std::mt19937 rng(1);
  Matrix m = *backend.NewMatrix(rows, cols);
  const std::vector<float> values = testing::NormalVector(rows * cols, rng);
  PENSIEVE_CHECK(backend.CopyToDevice(values, m).ok());
  return m;
}

struct Shape {
  int64_t m, n, k;
};

enum class Form { kAffine4, kAffine4Group32, kAffine8, kMxfp4, kDenseBf16, kDenseF32 };

tensor::Weight MakeWeight(WeightMaker& maker, Form form, const Shape& s) {
  switch (form) {
    case Form::kAffine4: return maker.Affine(s.n, s.k, 4, 64, tensor::DType::kBF16, true);
    case Form::kAffine4Group32: return maker.Affine(s.n, s.k, 4, 32, tensor::DType::kF16, false);
    case Form::kAffine8: return maker.Affine(s.n, s.k, 8, 64, tensor::DType::kBF16, true);
    case Form::kMxfp4: return maker.Mxfp4(s.n, s.k);
    case Form::kDenseBf16: return maker.Dense(s.n, s.k, tensor::DType::kBF16);
    case Form::kDenseF32: return maker.Dense(s.n, s.k, tensor::DType::kF32);
  }
  return {};
}

// Several copies of the weight in turn, 512 MiB together, when few rows are multiplied: decoding finds no weight in a
// cache. `precise`: rows are decode steps.
void MatMul(benchmark::State& state, Form form, InputPrecision mode, Shape s, bool precise) {
  const auto backend = MakeMeasured(mode);
  if (backend == nullptr) return state.SkipWithError("no such instruction set");
  WeightMaker maker(1);
  std::vector<Weight> weights = {testing::In(*backend, MakeWeight(maker, form, s))};
  const auto bytes = static_cast<double>(weights[0].bytes);
  const int copies = s.m > 64 ? 1 : static_cast<int>(0x20000000 / bytes) + 1;
  while (static_cast<int>(weights.size()) < copies)
    weights.push_back(testing::In(*backend, MakeWeight(maker, form, s)));
  const Matrix x = RandomMatrix(*backend, s.m, s.k);
  const Matrix out = *backend->NewMatrix(s.m, s.n);
  testing::BeginRows(*backend, s.m, precise ? s.m : 0);
  size_t turn = 0;
  for (auto _ : state) {
    const Product product = {.weight = weights[turn], .out = out};
    backend->MatMul({x}, {&product, 1});
    turn = (turn + 1) % weights.size();
  }
  const auto runs = static_cast<double>(state.iterations());
  state.counters["Gop/s"] =
      benchmark::Counter(runs * 2e-9 * static_cast<double>(s.m * s.n * s.k), benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(runs * bytes / 1e9, benchmark::Counter::kIsRate);
}

void PagedAttention(benchmark::State& state, int64_t rows, int64_t cached, int64_t heads, int64_t kv_heads,
                    int64_t dim) {
  const auto backend = MakeMeasured(InputPrecision::kInt8);
  if (backend == nullptr) return state.SkipWithError("no such instruction set");
  const int64_t total = rows + cached;
  // Decoding finds no keys in a cache.
  const int64_t layers = rows == 1 ? 32 : 4;
  const KvShape shape = {layers, kv_heads, dim, 32, (total + 31) / 32, KvDType::kF16};
  const auto cache = *backend->NewKvCache(shape);
  std::vector<int32_t> blocks(static_cast<size_t>(shape.num_blocks));
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  const Matrix kv = RandomMatrix(*backend, total, kv_heads * dim);
  const SequenceRows whole = {0, total, 0, blocks};
  backend->BeginStep({.rows = total, .sequences = {&whole, 1}});
  for (int64_t i = 0; i < layers; ++i) backend->StoreKv(*cache, i, kv, kv);
  const Matrix q = RandomMatrix(*backend, rows, heads * dim);
  const Matrix out = *backend->NewMatrix(rows, heads * dim);
  const SequenceRows last = {0, rows, cached, blocks};
  AttentionParams params;
  params.scale = 0.1f;
  backend->BeginStep({.rows = rows, .sequences = {&last, 1}, .precise_rows = rows > 1 ? 0 : rows});
  int64_t layer = 0;
  for (auto _ : state) {
    backend->PagedAttention(*cache, layer, params, q, out);
    layer = (layer + 1) % layers;
  }
  const auto runs = static_cast<double>(state.iterations());
  const auto pairs = static_cast<double>(rows * cached + rows * (rows + 1) / 2);
  state.counters["Gop/s"] =
      benchmark::Counter(runs * 4e-9 * pairs * static_cast<double>(heads * dim), benchmark::Counter::kIsRate);
  state.counters["GB/s"] =
      benchmark::Counter(runs * 4e-9 * static_cast<double>(total * kv_heads * dim), benchmark::Counter::kIsRate);
}

void Rows(benchmark::State& state, bool norm) {
  const auto backend = MakeMeasured(InputPrecision::kInt8);
  if (backend == nullptr) return state.SkipWithError("no such instruction set");
  const Matrix x = RandomMatrix(*backend, 512, 1024);
  const Vector weight = testing::In(*backend, std::vector<float>(1024, 0.5f));
  const Matrix out = *backend->NewMatrix(512, 1024);
  const std::vector<float> frequencies(64, 0.1f);
  std::vector<int32_t> positions(512);
  for (size_t i = 0; i < 512; ++i) positions[i] = static_cast<int32_t>(i);
  const Rope rope = testing::In(*backend, RopeTable{frequencies, 128, false, 1.0f});
  const SequenceRows sequence = {0, 512, 0, {}};
  backend->BeginStep({.rows = 512, .positions = positions, .sequences = {&sequence, 1}});
  for (auto _ : state) {
    if (norm) {
      backend->RmsNorm(x, weight, 1e-6f, out);
    } else {
      backend->Rotate(x, 128, rope);
    }
  }
}

void ReadBandwidth(benchmark::State& state) {
  const char* threads = std::getenv("BACKEND_THREADS");
  double best = 0.0;
  for (auto _ : state) best = std::max(best, cpu::MeasureReadBandwidth(threads == nullptr ? 2 : std::atoi(threads)));
  state.counters["GB/s"] = best;
}

void RegisterProducts() {
  const auto add = [](const std::string& name, Form form, InputPrecision mode, Shape s, bool precise) {
    benchmark::RegisterBenchmark(
        (name + "/" + std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k)).c_str(),
        [=](benchmark::State& state) { MatMul(state, form, mode, s, precise); })
        ->MeasureProcessCPUTime();
  };
  for (const Shape& s :
       {Shape{512, 3072, 1024}, {512, 1024, 3072}, {512, 8192, 3072}, {128, 3072, 1024}, {16, 3072, 1024}}) {
    add("affine4_int8", Form::kAffine4, InputPrecision::kInt8, s, false);
  }
  add("affine4g32_int8", Form::kAffine4Group32, InputPrecision::kInt8, {512, 3072, 1024}, false);
  add("affine8_int8", Form::kAffine8, InputPrecision::kInt8, {512, 3072, 1024}, false);
  add("affine4_int16", Form::kAffine4, InputPrecision::kInt16, {512, 3072, 1024}, false);
  add("affine4_f32", Form::kAffine4, InputPrecision::kF32, {512, 3072, 1024}, false);
  add("dense_bf16", Form::kDenseBf16, InputPrecision::kInt8, {512, 3072, 1024}, false);
  for (const int64_t m : {1, 2, 4, 8, 32}) {
    add("decode_affine4", Form::kAffine4, InputPrecision::kInt8, {m, 3072, 1024}, true);
  }
  for (const Shape& s : {Shape{1, 8192, 3072}, {1, 3072, 8192}, {1, 576, 576}, {1, 1536, 576}}) {
    add("decode_affine4", Form::kAffine4, InputPrecision::kInt8, s, true);
  }
  add("decode_affine4g32", Form::kAffine4Group32, InputPrecision::kInt8, {1, 3072, 1024}, true);
  add("decode_affine8", Form::kAffine8, InputPrecision::kInt8, {1, 3072, 1024}, true);
  add("decode_mxfp4", Form::kMxfp4, InputPrecision::kInt8, {1, 3072, 1024}, true);
  add("decode_dense_bf16", Form::kDenseBf16, InputPrecision::kInt8, {1, 3072, 1024}, true);
  add("decode_dense_f32", Form::kDenseF32, InputPrecision::kInt8, {1, 3072, 1024}, true);
}

const int kRegistered = [] {
  benchmark::RegisterBenchmark("read_bandwidth", ReadBandwidth)->Iterations(1);
  RegisterProducts();
  const auto attention = [](const char* name, int64_t rows, int64_t cached, int64_t heads, int64_t kv_heads,
                            int64_t dim) {
    benchmark::RegisterBenchmark(name, [=](benchmark::State& s) {
      PagedAttention(s, rows, cached, heads, kv_heads, dim);
    })->MeasureProcessCPUTime();
  };
  attention("attention_prefill/512+0_qwen3", 512, 0, 16, 8, 128);
  attention("attention_prefill/512+7680_qwen3", 512, 7680, 16, 8, 128);
  attention("attention_prefill/512+7680_qwen2.5", 512, 7680, 14, 2, 64);
  attention("attention_decode/1+8192_qwen3", 1, 8192, 16, 8, 128);
  attention("attention_decode/1+11615_qwen2.5", 1, 11615, 14, 2, 64);
  benchmark::RegisterBenchmark("rms_norm/512x1024", [](benchmark::State& s) {
    Rows(s, true);
  })->MeasureProcessCPUTime();
  benchmark::RegisterBenchmark("rope/512x1024", [](benchmark::State& s) { Rows(s, false); })->MeasureProcessCPUTime();
  return 0;
}();

}  // namespace
}  // namespace pensieve::backend
