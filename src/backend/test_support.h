// What the shared tests of operations need: every backend and instruction set of this machine, seeded random operands at
// awkward addresses, comparison that prints the worst element.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/matrix_view.h"

namespace pensieve::backend::testing {

// One way to compute: a backend, its instruction set and its thread count.
struct Variant {
  std::string isa;  // "reference" or one for CpuOptions::isa
  int threads = 1;
};

// The reference and every instruction set that this processor runs, with 1 and 3 threads.
std::vector<Variant> AllVariants();
std::string VariantName(const ::testing::TestParamInfo<Variant>& info);
std::shared_ptr<Backend> MakeBackend(const Variant& variant, InputPrecision mode = InputPrecision::kF32);

class OpTest : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override { backend_ = MakeBackend(GetParam()); }
  std::shared_ptr<Backend> reference_ = MakeBackend({"reference"});
  std::shared_ptr<Backend> backend_;
};

// Operands in a backend's memory.
inline Weight In(Backend& backend, const tensor::Weight& weight) { return *backend.Import(weight); }
inline Vector In(Backend& backend, std::span<const float> values) { return *backend.ImportVector(values); }
inline Rope In(Backend& backend, const RopeTable& table) { return *backend.ImportRope(table, table); }
// Begins a step of `rows` rows about which nothing else need be known.
inline void BeginRows(Backend& backend, int64_t rows, int64_t precise_rows = 0) {
  backend.BeginStep({.rows = rows, .precise_rows = precise_rows});
}

// Row-major f32 on the host with the padding and first offset asked for: rows start at odd floats.
class HostMatrix {
 public:
  HostMatrix(int64_t rows, int64_t cols, int64_t padding = 3);
  Matrix view() { return {&memory_, 1, rows_, cols_, stride_}; }
  float* row(int64_t r) { return memory_.base + 1 + r * stride_; }
  HostMatrix& FillNormal(std::mt19937& rng, float scale = 1.0f);

 private:
  struct Memory : Buffer {
    explicit Memory(size_t size) : values(size, 0.0f) { base = values.data(); }
    Memory(const Memory& other) : Buffer(other), values(other.values) { base = values.data(); }
    Memory& operator=(const Memory& other) {
      values = other.values;
      base = values.data();
      return *this;
    }
    std::vector<float> values;
  };

  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  Memory memory_;
};

std::vector<float> NormalVector(int64_t n, std::mt19937& rng, float scale = 1.0f);

// Weights with random contents whose arrays start at odd addresses.
class WeightMaker {
 public:
  explicit WeightMaker(uint32_t seed) : rng_(seed) {}
  tensor::Weight Affine(int64_t rows, int64_t cols, int bits, int group, tensor::DType scales, bool biases);
  // The same with scales and biases +-2^-8 .. +-2^-1 of f16, times which every f32 is exact.
  tensor::Weight AffineOfPowers(int64_t rows, int64_t cols, int bits, int group, bool biases);
  tensor::Weight Mxfp4(int64_t rows, int64_t cols);
  tensor::Weight Dense(int64_t rows, int64_t cols, tensor::DType dtype);

 private:
  uint8_t* Bytes(int64_t count);  // at an odd address, ending where the allocation ends
  uint8_t* Floats(int64_t count, tensor::DType dtype, float center, float spread);
  uint8_t* Powers(int64_t count);

  std::mt19937 rng_;
  std::deque<std::vector<uint8_t>> storage_;
};

// |a - b| <= absolute + relative * |b| for every element; prints the worst. NaN equals NaN only.
void ExpectNear(Matrix actual, Matrix expected, float relative, float absolute, const std::string& what);
// The same bytes.
void ExpectSameBits(Matrix actual, Matrix expected, const std::string& what);

// Rows computed in other company, or in other chunks: the same bytes where `backend` promises it, nearly so elsewhere.
void ExpectSameInCompany(const Backend& backend, Matrix actual, Matrix expected, const std::string& what);

}  // namespace pensieve::backend::testing
