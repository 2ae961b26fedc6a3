// Operations on rows, on every backend, against the reference.
#include <fmt/format.h>

#include <cmath>

#include "backend/devices.h"
#include "backend/test_support.h"

namespace pensieve::backend {
namespace {

using testing::BeginRows;
using testing::ExpectNear;
using testing::ExpectSameBits;
using testing::ExpectSameInCompany;
using testing::HostMatrix;
using testing::In;
using testing::OpTest;

class RowsTest : public OpTest {};
INSTANTIATE_TEST_SUITE_P(Backends, RowsTest, ::testing::ValuesIn(testing::AllVariants()), testing::VariantName);

constexpr int64_t kWidths[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 577};

TEST_P(RowsTest, Norms) {
  std::mt19937 rng(1);
  for (const int64_t cols : kWidths) {
    const std::vector<float> weight = testing::NormalVector(cols, rng);
    const std::vector<float> bias = testing::NormalVector(cols, rng);
    HostMatrix x = HostMatrix(3, cols).FillNormal(rng, 2.0f);
    for (int64_t c = 0; c < cols; ++c) x.row(1)[c] += 30.0f;
    HostMatrix actual(3, cols);
    HostMatrix expected(3, cols);
    backend_->RmsNorm(x.view(), In(*backend_, weight), 1e-6f, actual.view());
    reference_->RmsNorm(x.view(), In(*reference_, weight), 1e-6f, expected.view());
    ExpectNear(actual.view(), expected.view(), 1e-6f, 1e-7f, fmt::format("rms {}", cols));
    backend_->LayerNorm(x.view(), In(*backend_, weight), In(*backend_, bias), 1e-3f, actual.view());
    reference_->LayerNorm(x.view(), In(*reference_, weight), In(*reference_, bias), 1e-3f, expected.view());
    // The mean's rounding, 30 * 2^-24, is magnified where the deviation is small.
    ExpectNear(actual.view(), expected.view(), 1e-5f, cols < 4 ? 1e-3f : 2e-5f, fmt::format("layer {}", cols));
    HostMatrix in_place = x;
    backend_->RmsNorm(in_place.view(), In(*backend_, weight), 1e-6f, in_place.view());
    backend_->RmsNorm(x.view(), In(*backend_, weight), 1e-6f, actual.view());
    ExpectSameBits(in_place.view(), actual.view(), "in place");
  }
}

TEST_P(RowsTest, RmsNormExample) {
  HostMatrix x(1, 4);
  const float values[] = {1, 2, -3, 4};
  const float weight[] = {1, 1, 1, 1};
  const float expected[] = {.3651483f, .7302967f, -1.0954450f, 1.4605934f};
  std::copy_n(values, 4, x.row(0));
  backend_->RmsNorm(x.view(), In(*backend_, weight), 1e-6f, x.view());
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(x.row(0)[i], expected[i], 2e-7f);
}

TEST_P(RowsTest, NormsOfHeads) {
  std::mt19937 rng(2);
  for (const int64_t head_dim : {1, 5, 16, 80, 128}) {
    const std::vector<float> weight = testing::NormalVector(head_dim, rng);
    HostMatrix actual = HostMatrix(4, 3 * head_dim).FillNormal(rng);
    HostMatrix expected = actual;
    backend_->RmsNormHeads(actual.view(), head_dim, In(*backend_, weight), 1e-6f);
    reference_->RmsNormHeads(expected.view(), head_dim, In(*reference_, weight), 1e-6f);
    ExpectNear(actual.view(), expected.view(), 1e-6f, 1e-7f, fmt::format("heads of {}", head_dim));
  }
}

// All rows as one sequence.
void Rotate(Backend& backend, Matrix x, int64_t head_dim, std::span<const int32_t> positions, const RopeTable& table) {
  const SequenceRows sequence = {0, x.rows, 0, {}};
  backend.BeginStep({.rows = x.rows, .positions = positions, .sequences = {&sequence, 1}});
  backend.Rotate(x, head_dim, In(backend, table));
}

TEST_P(RowsTest, RopeExamples) {
  const float frequencies[] = {1.0f, 0.01f};
  const int32_t position[] = {3};
  const float half[] = {-1.413353f, 1.879118f, -2.828857f, 4.058191f};
  const float interleaved[] = {-1.272233f, -1.838865f, 2.878668f, 4.088187f};
  for (const bool pairs : {false, true}) {
    HostMatrix x(1, 4);
    for (int i = 0; i < 4; ++i) x.row(0)[i] = static_cast<float>(i + 1);
    Rotate(*backend_, x.view(), 4, position, {frequencies, 4, pairs, 1.0f});
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(x.row(0)[i], pairs ? interleaved[i] : half[i], 2e-6f);
  }
}

TEST_P(RowsTest, RopeMatchesReferenceAtAllPositions) {
  std::mt19937 rng(3);
  const std::vector<int32_t> positions = {0, 1, 7, 4095, 131071, 1000000};
  for (const auto& [head_dim, rotated] :
       {std::pair<int64_t, int64_t>{8, 8}, {64, 64}, {80, 32}, {128, 96}, {6, 2}, {4, 0}}) {
    std::vector<float> frequencies;
    for (int64_t i = 0; i < rotated / 2; ++i) {
      frequencies.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(rotated)));
    }
    for (const bool interleaved : {false, true}) {
      // Two tables in turn, as models with two kinds of layers ask for them.
      for (const float magnitude : {1.0f, 1.19f, 1.0f, 1.3f, 1.19f}) {
        HostMatrix actual = HostMatrix(6, 3 * head_dim).FillNormal(rng);
        HostMatrix expected = actual;
        const RopeTable table = {frequencies, rotated, interleaved, magnitude};
        Rotate(*backend_, actual.view(), head_dim, positions, table);
        Rotate(*reference_, expected.view(), head_dim, positions, table);
        ExpectNear(actual.view(), expected.view(), 1e-6f, 1e-6f, fmt::format("rope {} of {}", rotated, head_dim));
      }
    }
  }
}

TEST_P(RowsTest, EachSequenceHasItsTableAndEachRowItsFactor) {
  std::mt19937 rng(31);
  const float usual[] = {1.0f, 0.5f, 0.01f};
  const float for_long[] = {0.25f, 0.125f};
  const std::vector<int32_t> positions = {5, 6, 900, 901, 902, 0, 1};
  const std::vector<float> factors = {1.0f, 1.5f, 1.0f, 0.5f, 2.0f, 1.0f, 1.25f};
  const SequenceRows sequences[] = {{0, 2, 5, {}}, {2, 3, 900, {}, true}, {5, 2, 0, {}}};
  HostMatrix actual = HostMatrix(7, 24).FillNormal(rng);
  HostMatrix expected = actual;
  for (Backend* backend : {backend_.get(), reference_.get()}) {
    const Matrix x = backend == backend_.get() ? actual.view() : expected.view();
    const Rope rope = *backend->ImportRope({usual, 6, false, 1.0f}, {for_long, 4, false, 1.2f});
    // Twice: what one step leaves must not serve the next.
    for (const bool moved : {false, true}) {
      std::vector<int32_t> at = positions;
      for (int32_t& position : at) position += moved ? 13 : 0;
      backend->BeginStep({.rows = 7, .positions = at, .sequences = sequences, .query_factors = factors});
      backend->Rotate(x, 8, rope);
      backend->ScaleQueries(x);
    }
  }
  ExpectNear(actual.view(), expected.view(), 1e-6f, 1e-6f, "two tables");
}

TEST_P(RowsTest, Elementwise) {
  std::mt19937 rng(4);
  for (const int64_t cols : kWidths) {
    HostMatrix x = HostMatrix(3, cols).FillNormal(rng, 40.0f);
    HostMatrix actual = HostMatrix(3, cols).FillNormal(rng);
    HostMatrix expected = actual;
    for (Backend* backend : {backend_.get(), reference_.get()}) {
      const Matrix out = backend == backend_.get() ? actual.view() : expected.view();
      backend->Add(x.view(), out);
      backend->Softcap(out, 30.0f);
    }
    ExpectNear(actual.view(), expected.view(), 1e-6f, 1e-6f, fmt::format("elementwise {}", cols));
  }
}

TEST_P(RowsTest, SoftcapExamples) {
  HostMatrix x(1, 2);
  x.row(0)[0] = 45.0f;
  x.row(0)[1] = -1e9f;
  backend_->Softcap(x.view(), 30.0f);
  EXPECT_NEAR(x.row(0)[0], 27.15445f, 4e-6f);
  EXPECT_EQ(x.row(0)[1], -30.0f);
}

TEST_P(RowsTest, EmbedAndGather) {
  std::mt19937 rng(5);
  testing::WeightMaker maker(6);
  const std::vector<int32_t> ids = {4, 0, 11, 4, 7};
  for (const tensor::Weight& table : {maker.Affine(12, 96, 4, 32, tensor::DType::kF16, true), maker.Mxfp4(12, 96),
                                      maker.Dense(12, 96, tensor::DType::kBF16)}) {
    for (const bool add : {false, true}) {
      HostMatrix actual = HostMatrix(5, 96).FillNormal(rng);
      HostMatrix expected = actual;
      const std::vector<int32_t> positions = {9, 3, 3, 0, 1};
      const std::vector<int32_t> rows = {1, 4};
      for (const EmbedBy by : {EmbedBy::kId, EmbedBy::kPosition, EmbedBy::kFirst}) {
        for (Backend* backend : {backend_.get(), reference_.get()}) {
          const Matrix out = backend == backend_.get() ? actual.view() : expected.view();
          backend->BeginStep({.rows = 5, .ids = ids, .positions = positions, .output_rows = rows});
          backend->EmbedRows(In(*backend, table), by, 11.3f, out, add);
        }
        ExpectNear(actual.view(), expected.view(), 1e-6f, 1e-7f, "embedding");
      }
      HostMatrix gathered(2, 96);
      backend_->GatherOutputs(actual.view(), gathered.view());
      ExpectSameBits(gathered.view().Rows(0, 1), actual.view().Rows(1, 1), "gathered");
      ExpectSameBits(gathered.view().Rows(1, 1), actual.view().Rows(4, 1), "gathered");
    }
  }
}

TEST_P(RowsTest, PoolAndNormalize) {
  std::mt19937 rng(7);
  for (const int64_t cols : {1, 17, 384}) {
    HostMatrix x = HostMatrix(12, cols).FillNormal(rng);
    std::vector<SequenceRows> sequences(3);
    sequences[0].num_rows = 1;
    sequences[1].first_row = 1;
    sequences[1].num_rows = 11;
    sequences[2].first_row = 5;
    for (const Pooling pooling : {Pooling::kMean, Pooling::kCls, Pooling::kLast, Pooling::kMax}) {
      HostMatrix actual(3, cols);
      HostMatrix expected(3, cols);
      for (Backend* backend : {backend_.get(), reference_.get()}) {
        const Matrix out = backend == backend_.get() ? actual.view() : expected.view();
        backend->BeginStep({.rows = 12, .sequences = sequences});
        backend->Pool(x.view(), pooling, out);
        backend->L2Normalize(out);
      }
      ExpectNear(actual.view(), expected.view(), 1e-5f, 1e-6f, fmt::format("pooling {}", static_cast<int>(pooling)));
      for (int64_t c = 0; c < cols; ++c) EXPECT_EQ(actual.row(2)[c], 0.0f) << "no rows, and a norm of zero";
    }
  }
}

TEST_P(RowsTest, NotANumberStaysVisible) {
  HostMatrix x(1, 33);
  x.row(0)[32] = std::nanf("");
  const std::vector<float> ones(33, 1.0f);
  HostMatrix out(1, 33);
  backend_->RmsNorm(x.view(), In(*backend_, ones), 1e-6f, out.view());
  EXPECT_TRUE(std::isnan(out.row(0)[0]));
  backend_->L2Normalize(x.view());
  EXPECT_TRUE(std::isnan(x.row(0)[0]));
}

TEST_P(RowsTest, RowsAreIndependentOfTheBatch) {
  std::mt19937 rng(8);
  const std::vector<float> weight = testing::NormalVector(576, rng);
  std::vector<int32_t> positions(40);
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i * 37);
  std::vector<float> frequencies(32);
  for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = 1.0f / static_cast<float>(1 + i);
  HostMatrix all = HostMatrix(40, 576).FillNormal(rng);
  HostMatrix apart = all;
  const auto run = [&](Matrix x, std::span<const int32_t> at) {
    backend_->RmsNorm(x, In(*backend_, weight), 1e-6f, x);
    Rotate(*backend_, x, 64, at, {frequencies, 64, false, 1.0f});
    backend_->LayerNorm(x, In(*backend_, weight), In(*backend_, weight), 1e-6f, x);
    backend_->Softcap(x, 3.0f);
    backend_->L2Normalize(x);
  };
  run(all.view(), positions);
  for (int64_t r = 0; r < 40; ++r)
    run(apart.view().Rows(r, 1), std::span(positions).subspan(static_cast<size_t>(r), 1));
  ExpectSameInCompany(*backend_, all.view(), apart.view(), "rows");
}

// Activations over their whole range, through a product with an identity.
TEST_P(RowsTest, ActivationsOverTheWholeRange) {
  const float one = 1.0f;
  const tensor::Weight identity = tensor::DenseWeight{1, 1, tensor::DType::kF32, &one};
  std::vector<float> points;
  for (float x = -120.0f; x <= 120.0f; x += 0.0625f) points.push_back(x);
  for (float x = 1e-30f; x < 1e30f; x *= 7.0f) {
    points.push_back(x);
    points.push_back(-x);
  }
  points.push_back(std::nanf(""));
  const auto n = static_cast<int64_t>(points.size());
  HostMatrix x(n, 1);
  for (int64_t r = 0; r < n; ++r) x.row(r)[0] = points[static_cast<size_t>(r)];
  for (const Activation activation :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kRelu, Activation::kQuickGelu}) {
    HostMatrix actual(n, 1);
    HostMatrix expected(n, 1);
    for (Backend* backend : {backend_.get(), reference_.get()}) {
      const Matrix out = backend == backend_.get() ? actual.view() : expected.view();
      const Product product = {.weight = In(*backend, identity), .out = out, .activation = activation};
      BeginRows(*backend, n);
      backend->MatMul({x.view()}, {&product, 1});
    }
    ExpectNear(actual.view(), expected.view(), 5e-7f, 2e-6f,
               fmt::format("activation {}", static_cast<int>(activation)));
  }
}

TEST(Devices, AreChosenByName) {
  const DeviceOptions options = {.cpu = {.threads = 1}};
  const auto cpu = OpenDevice("cpu", options);
  ASSERT_TRUE(cpu.has_value());
  EXPECT_EQ(cpu->device->Describe({}).device, "cpu");
  EXPECT_EQ(cpu->reason, "asked for");
  EXPECT_EQ(OpenDevice("tpu", options).error().code(), StatusCode::kInvalidArgument);
  for (const DeviceKind& kind : DeviceKinds()) {
    if (kind.open != nullptr) continue;
    const Status status = OpenDevice(kind.name, options).error();
    EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
    EXPECT_NE(status.message().find(kind.how_to_build), std::string::npos);
  }
  const auto chosen = OpenDevice("auto", options);
  ASSERT_TRUE(chosen.has_value());
  EXPECT_FALSE(chosen->reason.empty());
}

TEST(Backends, DescribeThemselvesAndRefuseWhatIsNotThere) {
  EXPECT_EQ(NewCpuDevice({.isa = "altivec"}).error().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(NewCpuDevice({.threads = -1}).error().code(), StatusCode::kInvalidArgument);
  auto device = NewCpuDevice({.threads = 2});
  ASSERT_TRUE(device.has_value());
  auto backend = (*device)->NewBackend({});
  ASSERT_TRUE(backend.has_value());
  const BackendDescription description = (*backend)->Describe();
  EXPECT_EQ(description.device, "cpu");
  EXPECT_EQ(description.threads, 2);
  EXPECT_GT(description.memory_bytes, 0);
  EXPECT_FALSE(description.company_matters);
  EXPECT_TRUE(description.precision_differs);
  EXPECT_FALSE((*device)->Describe({.activations = InputPrecision::kF32}).precision_differs);
  EXPECT_FALSE((*backend)->NewMatrix(int64_t{1} << 40, int64_t{1} << 40).has_value());
  EXPECT_FALSE((*backend)->NewKvCache({1, 1, 64, 32, 0}).has_value());
  EXPECT_FALSE((*backend)->NewKvCache({1000, 1000, 1000, 1000, int64_t{1} << 40}).has_value());
  auto matrix = (*backend)->NewMatrix(3, 5);
  ASSERT_TRUE(matrix.has_value());
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const Matrix part = matrix->Rows(1, 2).Columns(2, 3);
  EXPECT_TRUE((*backend)->CopyToDevice(values, part).ok());
  std::vector<float> back(6);
  EXPECT_TRUE((*backend)->CopyToHost(part, back).ok());
  EXPECT_EQ(values, back);
}

}  // namespace
}  // namespace pensieve::backend
