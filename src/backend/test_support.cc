#include "backend/test_support.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/devices.h"
#include "backend/staged_backend.h"
#include "base/check.h"
#include "base/half.h"

namespace pensieve::backend::testing {

std::vector<Variant> AllVariants() {
  std::vector<Variant> variants = {{"reference", 1}};
  for (const char* isa : {"scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"}) {
    if (!NewCpuDevice({.threads = 1, .isa = isa})) continue;
    variants.push_back({isa, 1});
    variants.push_back({isa, 3});
  }
  for (const DeviceKind& kind : DeviceKinds()) {
    if (kind.name != "cpu" && OpenDevice(kind.name, {})) variants.push_back({std::string(kind.name), 1});
  }
  return variants;
}

std::string VariantName(const ::testing::TestParamInfo<Variant>& info) {
  return fmt::format("{}_{}", info.param.isa, info.param.threads);
}

namespace {

std::shared_ptr<Device> DeviceOf(const Variant& variant) {
  if (variant.isa == "reference") return NewReferenceDevice();
  if (auto cpu = NewCpuDevice({.threads = variant.threads, .isa = variant.isa})) return *cpu;
  auto chosen = OpenDevice(variant.isa, {});
  PENSIEVE_CHECK(chosen.has_value());
  return chosen->device;
}

}  // namespace

std::shared_ptr<Backend> MakeBackend(const Variant& variant, InputPrecision mode) {
  const std::shared_ptr<Device> device = DeviceOf(variant);
  auto backend = device->NewBackend({.activations = mode});
  PENSIEVE_CHECK(backend.has_value());
  // The tests' matrices lie in the host's memory, which only the host's own devices read.
  const std::string where = (*backend)->Describe().device;
  if (where != "cpu" && where != "reference") backend = StageHostMatrices(*std::move(backend));
  // The device goes after its backend.
  return {(*std::move(backend)).release(), [device](Backend* owned) { delete owned; }};
}

HostMatrix::HostMatrix(int64_t rows, int64_t cols, int64_t padding)
    : rows_(rows), cols_(cols), stride_(cols + padding), memory_(static_cast<size_t>(rows * stride_ + 1)) {}

HostMatrix& HostMatrix::FillNormal(std::mt19937& rng, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  for (int64_t r = 0; r < rows_; ++r) {
    for (int64_t c = 0; c < cols_; ++c) row(r)[c] = normal(rng);
  }
  return *this;
}

std::vector<float> NormalVector(int64_t n, std::mt19937& rng, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(rng);
  return values;
}

uint8_t* WeightMaker::Bytes(int64_t count) {
  // Vectors start at even addresses, so one byte in is odd; nothing follows the last byte but the sanitizer's guard.
  storage_.emplace_back(static_cast<size_t>(count) + 1);
  for (uint8_t& byte : storage_.back()) byte = static_cast<uint8_t>(rng_());
  return storage_.back().data() + 1;
}

uint8_t* WeightMaker::Floats(int64_t count, tensor::DType dtype, float center, float spread) {
  const auto bytes = static_cast<int64_t>(tensor::DTypeBytes(dtype));
  uint8_t* data = Bytes(count * bytes);
  std::normal_distribution<float> normal(center, spread);
  for (int64_t i = 0; i < count; ++i) {
    const float value = normal(rng_);
    const uint16_t half = dtype == tensor::DType::kF16 ? F32ToF16(value) : F32ToBf16(value);
    if (dtype == tensor::DType::kF32) {
      std::memcpy(data + i * bytes, &value, sizeof(value));
    } else {
      std::memcpy(data + i * bytes, &half, sizeof(half));
    }
  }
  return data;
}

tensor::Weight WeightMaker::Affine(int64_t rows, int64_t cols, int bits, int group, tensor::DType scales, bool biases) {
  tensor::AffineWeight w;
  w.rows = rows;
  w.cols = cols;
  w.bits = bits;
  w.group = group;
  w.codes = Bytes(rows * w.row_bytes());
  w.scale_dtype = scales;
  const float unit = 0.1f / static_cast<float>(1 << bits);
  w.scales = Floats(rows * w.groups(), scales, 0.0f, unit);
  if (biases) w.biases = Floats(rows * w.groups(), scales, 0.0f, 0.05f);
  return w;
}

uint8_t* WeightMaker::Powers(int64_t count) {
  uint8_t* data = Bytes(count * 2);
  for (int64_t i = 0; i < count; ++i) {
    // A random sign, the exponent's 15 is 2^0.
    const uint16_t half = static_cast<uint16_t>((data[2 * i] & 0x80) << 8 | (7 + (data[2 * i] & 7)) << 10);
    std::memcpy(data + 2 * i, &half, sizeof(half));
  }
  return data;
}

tensor::Weight WeightMaker::AffineOfPowers(int64_t rows, int64_t cols, int bits, int group, bool biases) {
  auto w = std::get<tensor::AffineWeight>(Affine(rows, cols, bits, group, tensor::DType::kF16, false));
  w.scales = Powers(rows * w.groups());
  if (biases) w.biases = Powers(rows * w.groups());
  return w;
}

tensor::Weight WeightMaker::Mxfp4(int64_t rows, int64_t cols) {
  tensor::Mxfp4Weight w;
  w.rows = rows;
  w.cols = cols;
  w.codes = Bytes(rows * cols / 2);
  uint8_t* scales = Bytes(rows * cols / 32);
  for (int64_t i = 0; i < rows * cols / 32; ++i) scales[i] = static_cast<uint8_t>(115 + scales[i] % 12);
  w.scales = scales;
  return w;
}

tensor::Weight WeightMaker::Dense(int64_t rows, int64_t cols, tensor::DType dtype) {
  return tensor::DenseWeight{rows, cols, dtype, Floats(rows * cols, dtype, 0.0f, 0.05f)};
}

void ExpectNear(Matrix actual_matrix, Matrix expected_matrix, float relative, float absolute, const std::string& what) {
  const MatrixView actual = View(actual_matrix);
  const MatrixView expected = View(expected_matrix);
  ASSERT_EQ(actual.rows, expected.rows) << what;
  ASSERT_EQ(actual.cols, expected.cols) << what;
  double worst = -1.0;
  std::string where;
  for (int64_t r = 0; r < actual.rows; ++r) {
    for (int64_t c = 0; c < actual.cols; ++c) {
      const auto a = static_cast<double>(actual.row(r)[c]);
      const auto e = static_cast<double>(expected.row(r)[c]);
      if (std::isnan(a) && std::isnan(e)) continue;
      if (a == e) continue;
      const double bound = static_cast<double>(absolute) + static_cast<double>(relative) * std::fabs(e);
      double excess = std::fabs(a - e) / bound;
      if (std::isnan(excess)) excess = 1e30;
      if (excess <= worst) continue;
      worst = excess;
      where = fmt::format("[{}][{}]: {} instead of {}, {:.3g} of the bound", r, c, a, e, excess);
    }
  }
  EXPECT_LE(worst, 1.0) << what << " worst at " << where;
}

void ExpectSameBits(Matrix actual_matrix, Matrix expected_matrix, const std::string& what) {
  const MatrixView actual = View(actual_matrix);
  const MatrixView expected = View(expected_matrix);
  ASSERT_EQ(actual.rows, expected.rows) << what;
  ASSERT_EQ(actual.cols, expected.cols) << what;
  for (int64_t r = 0; r < actual.rows; ++r) {
    for (int64_t c = 0; c < actual.cols; ++c) {
      ASSERT_EQ(std::memcmp(actual.row(r) + c, expected.row(r) + c, sizeof(float)), 0)
          << what << " [" << r << "][" << c << "]: " << actual.row(r)[c] << " and " << expected.row(r)[c];
    }
  }
}

void ExpectSameInCompany(const Backend& backend, Matrix actual, Matrix expected, const std::string& what) {
  if (backend.Describe().company_matters) {
    ExpectNear(actual, expected, 1e-3f, 1e-3f, what);
  } else {
    ExpectSameBits(actual, expected, what);
  }
}

}  // namespace pensieve::backend::testing
