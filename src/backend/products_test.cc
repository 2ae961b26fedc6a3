// Products of every weight form on every backend, against the reference and against themselves in other batches.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "backend/test_support.h"

namespace pensieve::backend {
namespace {

using tensor::DType;
using testing::ExpectNear;
using testing::ExpectSameBits;
using testing::ExpectSameInCompany;
using testing::HostMatrix;
using testing::OpTest;
using testing::WeightMaker;

struct NamedWeight {
  std::string name;
  tensor::Weight weight;
};

// Every bit width, group and scale type at a few shapes; cols a multiple of every group tried.
std::vector<NamedWeight> QuantizedWeights(WeightMaker& maker, int64_t rows, int64_t cols) {
  std::vector<NamedWeight> weights;
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int group : {16, 32, 64, 128}) {
      if (cols % group != 0) continue;
      for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
        const bool biases = dtype != DType::kBF16 || bits != 4;
        weights.push_back({fmt::format("{} bits, group {}, {} scales{}", bits, group, tensor::DTypeName(dtype),
                                       biases ? "" : ", symmetric"),
                           maker.Affine(rows, cols, bits, group, dtype, biases)});
      }
    }
  }
  if (cols % 32 == 0) weights.push_back({"mxfp4", maker.Mxfp4(rows, cols)});
  return weights;
}

class ProductTest : public OpTest {};
INSTANTIATE_TEST_SUITE_P(Backends, ProductTest, ::testing::ValuesIn(testing::AllVariants()), testing::VariantName);

Matrix MultiplyImported(Backend& backend, const Weight& weight, Matrix x, Matrix out, int64_t precise_rows = 0) {
  const Product product = {.weight = weight, .out = out};
  testing::BeginRows(backend, x.rows, precise_rows);
  backend.MatMul({x}, {&product, 1});
  return out;
}

Matrix Multiply(Backend& backend, const tensor::Weight& weight, Matrix x, Matrix out, int64_t precise_rows = 0) {
  return MultiplyImported(backend, testing::In(backend, weight), x, out, precise_rows);
}

// f32 sums of K terms against f64: 2e-6 of the sum of magnitudes; here terms are about 0.05 x 1.
float SumBound(int64_t cols) { return 2e-6f * 0.1f * static_cast<float>(cols) + 1e-7f; }

TEST_P(ProductTest, ExactModeMatchesReferenceForEveryForm) {
  std::mt19937 rng(1);
  WeightMaker maker(2);
  for (const auto& [rows, cols, m] : {std::array<int64_t, 3>{37, 256, 5}, {1, 48, 1}, {70, 144, 13}}) {
    HostMatrix x = HostMatrix(m, cols).FillNormal(rng);
    for (const NamedWeight& w : QuantizedWeights(maker, rows, cols)) {
      HostMatrix actual(m, rows);
      HostMatrix expected(m, rows);
      ExpectNear(Multiply(*backend_, w.weight, x.view(), actual.view()),
                 Multiply(*reference_, w.weight, x.view(), expected.view()), 1e-5f, SumBound(cols), w.name);
    }
  }
}

TEST_P(ProductTest, DenseAtAwkwardSizes) {
  std::mt19937 rng(3);
  WeightMaker maker(4);
  for (const int64_t cols : {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100, 384}) {
    for (const int64_t rows : {1, 2, 15, 16, 17, 31, 32, 33, 65}) {
      for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
        const int64_t m = 1 + (rows + cols) % 14;
        const tensor::Weight w = maker.Dense(rows, cols, dtype);
        HostMatrix x = HostMatrix(m, cols).FillNormal(rng);
        HostMatrix actual(m, rows);
        HostMatrix expected(m, rows);
        ExpectNear(Multiply(*backend_, w, x.view(), actual.view()), Multiply(*reference_, w, x.view(), expected.view()),
                   1e-5f, SumBound(cols), fmt::format("{} {}x{}x{}", tensor::DTypeName(dtype), m, rows, cols));
      }
    }
  }
}

TEST_P(ProductTest, WeightsOfEncodersGiveTheSameBits) {
  std::mt19937 rng(20);
  WeightMaker maker(21);
  for (const int64_t cols : {1, 7, 16, 191, 192, 193, 400}) {
    for (const int64_t rows : {1, 31, 32, 33, 75}) {
      const tensor::Weight weight = maker.Dense(rows, cols, DType::kF32);
      const Weight imported = *backend_->Import(weight, WeightUse::kEncoderLayer);
      for (const int64_t m : {1, 12, 13, 100}) {
        HostMatrix x = HostMatrix(m, cols).FillNormal(rng);
        HostMatrix plain(m, rows);
        HostMatrix copied(m, rows);
        ExpectSameBits(Multiply(*backend_, weight, x.view(), plain.view()),
                       MultiplyImported(*backend_, imported, x.view(), copied.view()),
                       fmt::format("{} x {} x {}", m, rows, cols));
      }
    }
  }
}

TEST_P(ProductTest, BiasActivationAndAccumulate) {
  std::mt19937 rng(5);
  WeightMaker maker(6);
  const tensor::Weight w = maker.Affine(45, 128, 4, 64, DType::kF16, true);
  const std::vector<float> bias = testing::NormalVector(45, rng);
  HostMatrix x = HostMatrix(7, 128).FillNormal(rng, 3.0f);
  for (const Activation activation : {Activation::kNone, Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf,
                                      Activation::kRelu, Activation::kQuickGelu}) {
    for (const bool accumulate : {false, true}) {
      HostMatrix actual = HostMatrix(7, 45).FillNormal(rng);
      HostMatrix expected = actual;
      for (Backend* backend : {backend_.get(), reference_.get()}) {
        const Matrix out = backend == backend_.get() ? actual.view() : expected.view();
        const Product product = {testing::In(*backend, w), testing::In(*backend, bias), out, activation, accumulate};
        testing::BeginRows(*backend, 7);
        backend->MatMul({x.view()}, {&product, 1});
      }
      ExpectNear(actual.view(), expected.view(), 1e-5f, 2e-5f,
                 fmt::format("activation {}, accumulate {}", static_cast<int>(activation), accumulate));
    }
  }
}

TEST_P(ProductTest, SeveralProductsShareAnInput) {
  std::mt19937 rng(7);
  WeightMaker maker(8);
  const tensor::Weight a = maker.Affine(33, 128, 4, 64, DType::kF16, true);
  const tensor::Weight b = maker.Affine(7, 128, 8, 32, DType::kBF16, true);
  const tensor::Weight c = maker.Dense(12, 128, DType::kBF16);
  HostMatrix x = HostMatrix(9, 128).FillNormal(rng);
  HostMatrix together(9, 52);
  HostMatrix apart(9, 52);
  for (const InputPrecision mode : {InputPrecision::kInt8, InputPrecision::kInt16, InputPrecision::kF32}) {
    const auto backend = testing::MakeBackend(GetParam(), mode);
    const std::array<Product, 3> products = {
        {{.weight = testing::In(*backend, a), .out = together.view().Columns(0, 33)},
         {.weight = testing::In(*backend, b), .out = together.view().Columns(33, 7)},
         {.weight = testing::In(*backend, c), .out = together.view().Columns(40, 12)}}};
    testing::BeginRows(*backend, 9, 2);
    backend->MatMul({x.view()}, products);
    Multiply(*backend, a, x.view(), apart.view().Columns(0, 33), 2);
    Multiply(*backend, b, x.view(), apart.view().Columns(33, 7), 2);
    Multiply(*backend, c, x.view(), apart.view().Columns(40, 12), 2);
    ExpectSameBits(together.view(), apart.view(), "q, k, v in one pass");
  }
}

TEST_P(ProductTest, Gated) {
  std::mt19937 rng(9);
  WeightMaker maker(10);
  const tensor::Weight gate = maker.Affine(50, 128, 4, 32, DType::kF16, true);
  const tensor::Weight up = maker.Affine(50, 128, 6, 64, DType::kF16, true);
  const tensor::Weight dense = maker.Dense(50, 128, DType::kF16);
  HostMatrix x = HostMatrix(14, 128).FillNormal(rng);
  for (const tensor::Weight* second : {&up, &dense}) {
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      HostMatrix actual(14, 50);
      HostMatrix expected(14, 50);
      for (Backend* backend : {backend_.get(), reference_.get()}) {
        const Matrix out = backend == backend_.get() ? actual.view() : expected.view();
        testing::BeginRows(*backend, 14);
        backend->GatedMatMul({x.view()},
                             {testing::In(*backend, gate), testing::In(*backend, *second), activation, out});
      }
      ExpectNear(actual.view(), expected.view(), 2e-5f, 2e-5f, "gated");
    }
  }
}

TEST_P(ProductTest, NoRowsAndNoProducts) {
  std::mt19937 rng(11);
  WeightMaker maker(12);
  const tensor::Weight w = maker.Dense(3, 8, DType::kF32);
  HostMatrix x(0, 8);
  HostMatrix out(0, 3);
  Multiply(*backend_, w, x.view(), out.view());
  backend_->MatMul({x.view()}, {});
  backend_->GatedMatMul({x.view()},
                        {testing::In(*backend_, w), testing::In(*backend_, w), Activation::kSilu, out.view()});
}

// sqrt(sum (a - b)^2 / sum b^2)
double RelativeError(Matrix a_matrix, Matrix b_matrix) {
  const MatrixView a = View(a_matrix);
  const MatrixView b = View(b_matrix);
  double difference = 0.0;
  double size = 0.0;
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      const auto d = static_cast<double>(a.row(r)[c]) - static_cast<double>(b.row(r)[c]);
      difference += d * d;
      size += static_cast<double>(b.row(r)[c]) * static_cast<double>(b.row(r)[c]);
    }
  }
  return std::sqrt(difference / size);
}

// Normal activations with a few channels twenty times larger, as behind a norm.
HostMatrix OutlierRows(int64_t rows, int64_t cols, std::mt19937& rng) {
  HostMatrix x = HostMatrix(rows, cols).FillNormal(rng);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 5; c < cols; c += 64) x.row(r)[c] *= 20.0f;
  }
  return x;
}

TEST_P(ProductTest, QuantizedActivationsStayWithinTheirError) {
  std::mt19937 rng(13);
  WeightMaker maker(14);
  HostMatrix x = OutlierRows(9, 256, rng);
  for (const NamedWeight& w : QuantizedWeights(maker, 40, 256)) {
    HostMatrix actual(9, 40);
    HostMatrix expected(9, 40);
    Multiply(*reference_, w.weight, x.view(), expected.view());
    const auto precise = testing::MakeBackend(GetParam(), InputPrecision::kInt16);
    Multiply(*precise, w.weight, x.view(), actual.view());
    // Values are off by largest / 16256 / sqrt(12) in the mean, and the largest of these groups is some ten times the
    // mean magnitude: 1.2e-4 expected, 2e-4 allowed.
    EXPECT_LT(RelativeError(actual.view(), expected.view()), 2e-4) << "int16 " << w.name;
    const auto fast = testing::MakeBackend(GetParam(), InputPrecision::kInt8);
    Multiply(*fast, w.weight, x.view(), actual.view());
    EXPECT_LT(RelativeError(actual.view(), expected.view()), 6e-3) << "int8 " << w.name;
    Multiply(*fast, w.weight, x.view(), actual.view(), 9);
    EXPECT_LT(RelativeError(actual.view(), expected.view()), 2e-4) << "int8, precise rows " << w.name;
  }
}

// Columns that share an activation scale.
int ActivationGroup(const tensor::Weight& weight) {
  const auto* affine = std::get_if<tensor::AffineWeight>(&weight);
  return affine == nullptr ? 32 : std::min(affine->group, 64);
}

// Models have a few channels a hundred times larger than the others, and tokens where all of those are massive. As many
// as a group has quads with a remainder leave the others their own scale: if one of them did not, the error would be ten
// times what is allowed.
TEST_P(ProductTest, LargeChannelsOfAGroupLeaveTheOthersTheirScale) {
  if (GetParam().isa == "reference") return;
  std::mt19937 rng(17);
  WeightMaker maker(18);
  const auto fast = testing::MakeBackend(GetParam(), InputPrecision::kInt8);
  for (const NamedWeight& w : QuantizedWeights(maker, 40, 256)) {
    const int group = ActivationGroup(w.weight);
    const int large = group == 64 ? 4 : group == 32 ? 3 : 2;
    HostMatrix x = HostMatrix(13, 256).FillNormal(rng);
    for (int64_t r = 0; r < 13; ++r) {
      // Eight columns apart they are in different quads.
      for (int64_t c = 0; c < 256; ++c) x.row(r)[c] *= c % group % 8 == 3 && c % group / 8 < large ? 100.0f : 1.0f;
    }
    HostMatrix actual(13, 40);
    HostMatrix expected(13, 40);
    Multiply(*reference_, w.weight, x.view(), expected.view());
    Multiply(*fast, w.weight, x.view(), actual.view());
    EXPECT_LT(RelativeError(actual.view(), expected.view()), 4e-4) << w.name;
  }
}

// Integer sums are exact on every instruction set. With scales and biases that are powers of two the f32 steps around
// them round alike, fused or not, so the results have the scalar kernels' bits.
TEST_P(ProductTest, IntegerPartsEqualTheScalarKernels) {
  if (backend_->Describe().device != "cpu") return;
  std::mt19937 rng(18);
  WeightMaker maker(19);
  for (const auto& [channels, cols, rows] :
       {std::array<int64_t, 3>{37, 192, 1}, {1, 64, 2}, {19, 384, 7}, {33, 96, 14}, {35, 192, 37}, {20, 1344, 18}}) {
    HostMatrix x = OutlierRows(rows, cols, rng);
    // The largest sums of either sign.
    for (int64_t c = 0; c < cols; ++c) x.row(0)[c] = 1.0f;
    for (int64_t c = 0; rows > 1 && c < cols; ++c) x.row(1)[c] = -1.0f;
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      for (const int group : {16, 32, 64}) {
        if (cols % group != 0) continue;
        const tensor::Weight weight = maker.AffineOfPowers(channels, cols, bits, group, group != 16);
        for (const int64_t precise : {int64_t{0}, rows / 2, rows}) {
          HostMatrix actual(rows, channels);
          HostMatrix expected(rows, channels);
          const auto backend = testing::MakeBackend(GetParam(), InputPrecision::kInt8);
          const auto scalar = testing::MakeBackend({"scalar", 1}, InputPrecision::kInt8);
          ExpectSameBits(Multiply(*backend, weight, x.view(), actual.view(), precise),
                         Multiply(*scalar, weight, x.view(), expected.view(), precise),
                         fmt::format("{} bits, group {}, {} of {} rows precise", bits, group, precise, rows));
        }
      }
    }
  }
}

// AMX sums differently, but the same integers, and scales them as AVX-512 does.
TEST_P(ProductTest, AmxGivesTheBitsOfAvx512) {
  if (GetParam().isa != "amx") return;
  std::mt19937 rng(20);
  WeightMaker maker(21);
  for (const int64_t rows : {3, 8, 15, 16, 17, 47, 100}) {
    HostMatrix x = OutlierRows(rows, 768, rng);
    for (const NamedWeight& w : QuantizedWeights(maker, 40, 768)) {
      for (const int64_t precise : {int64_t{0}, rows / 2, rows}) {
        HostMatrix actual(rows, 40);
        HostMatrix expected(rows, 40);
        const auto avx512 = testing::MakeBackend({"avx512", 1}, InputPrecision::kInt8);
        const auto amx = testing::MakeBackend(GetParam(), InputPrecision::kInt8);
        ExpectSameBits(Multiply(*amx, w.weight, x.view(), actual.view(), precise),
                       Multiply(*avx512, w.weight, x.view(), expected.view(), precise),
                       fmt::format("{}, {} of {} rows precise", w.name, precise, rows));
      }
    }
  }
}

TEST_P(ProductTest, Mxfp4ScalesOfEveryValue) {
  const std::vector<uint8_t> codes(256 * 16, 0x53);  // 1.5 and 3
  std::vector<uint8_t> scales(256);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<uint8_t>(i);
  tensor::Mxfp4Weight w;
  w.rows = 256;
  w.cols = 32;
  w.codes = codes.data();
  w.scales = scales.data();
  HostMatrix x(1, 32);
  for (int64_t c = 0; c < 32; ++c) x.row(0)[c] = 1e-3f;
  for (const InputPrecision mode : {InputPrecision::kF32, InputPrecision::kInt16}) {
    HostMatrix actual(1, 256);
    HostMatrix expected(1, 256);
    const auto backend = testing::MakeBackend(GetParam(), mode);
    Multiply(*backend, w, x.view(), actual.view());
    Multiply(*reference_, w, x.view(), expected.view());
    // Twelve times a larger scale, which kernels take for the zero point, leaves f32. 255 is no number.
    ExpectNear(actual.view().Columns(0, 251), expected.view().Columns(0, 251), 1e-5f, 1e-43f, "mxfp4");
    EXPECT_NEAR(actual.row(0)[127], 0.072f, 1e-6f);
    EXPECT_FALSE(std::isfinite(actual.row(0)[255]));
  }
}

TEST_P(ProductTest, ZerosTinyValuesAndNotFinite) {
  WeightMaker maker(15);
  const tensor::Weight w = maker.Affine(20, 128, 4, 64, DType::kF16, true);
  for (const InputPrecision mode : {InputPrecision::kInt8, InputPrecision::kInt16, InputPrecision::kF32}) {
    const auto backend = testing::MakeBackend(GetParam(), mode);
    for (const int64_t precise : {0, 5}) {
      HostMatrix x(5, 128);
      x.row(1)[3] = 1e-39f;
      x.row(2)[70] = std::nanf("");
      x.row(3)[1] = INFINITY;
      for (int64_t c = 0; c < 128; ++c) x.row(4)[c] = 1.0f;
      HostMatrix out(5, 20);
      Multiply(*backend, w, x.view(), out.view(), precise);
      for (int64_t n = 0; n < 20; ++n) {
        EXPECT_EQ(out.row(0)[n], 0.0f);
        EXPECT_LT(std::fabs(out.row(1)[n]), 1e-38f);
        EXPECT_TRUE(std::isnan(out.row(2)[n]));
        EXPECT_FALSE(std::isfinite(out.row(3)[n]));
        EXPECT_TRUE(std::isfinite(out.row(4)[n]));
      }
    }
  }
}

// The contract: a row's result depends on neither its batch nor the workers.
TEST_P(ProductTest, RowsAreIndependentOfTheBatch) {
  std::mt19937 rng(16);
  WeightMaker maker(17);
  const int64_t cols = 384;
  const int64_t m = 150;
  HostMatrix x = OutlierRows(m, cols, rng);
  std::vector<NamedWeight> weights = QuantizedWeights(maker, 75, cols);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    weights.push_back({"dense", maker.Dense(75, cols, dtype)});
  for (const InputPrecision mode : {InputPrecision::kInt8, InputPrecision::kInt16, InputPrecision::kF32}) {
    const auto backend = testing::MakeBackend(GetParam(), mode);
    const auto single = testing::MakeBackend({GetParam().isa, 1}, mode);
    for (const NamedWeight& w : weights) {
      if (GetParam().isa == "reference" && w.name != "dense") continue;
      HostMatrix all(m, 75);
      HostMatrix apart(m, 75);
      Multiply(*backend, w.weight, x.view(), all.view(), 20);
      int64_t first = 0;
      for (const int64_t count : {1, 1, 2, 3, 5, 8, 1, 16, 13, 33, 67}) {
        const int64_t precise = std::clamp<int64_t>(20 - first, 0, count);
        Multiply(*single, w.weight, x.view().Rows(first, count), apart.view().Rows(first, count), precise);
        first += count;
      }
      ASSERT_EQ(first, m);
      ExpectSameInCompany(*backend, all.view(), apart.view(),
                          fmt::format("mode {} {}", static_cast<int>(mode), w.name));
      if (HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace pensieve::backend
