// What is MLX's own: matrices that are kept in parts, and errors that end a step and not the process. The operations are
// tested with those of the other backends.
#include <gtest/gtest.h>

#include <numeric>

#include "backend/devices.h"

namespace pensieve::backend {
namespace {

class MlxBackendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto chosen = OpenDevice("mlx", {});
    ASSERT_TRUE(chosen.has_value()) << chosen.error().message();
    device_ = chosen->device;
    auto backend = device_->NewBackend({});
    ASSERT_TRUE(backend.has_value());
    backend_ = *std::move(backend);
  }

  std::vector<float> Read(Matrix matrix) {
    std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
    EXPECT_TRUE(backend_->CopyToHost(matrix, values).ok());
    return values;
  }
  void Write(Matrix matrix, float value) {
    const std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols), value);
    EXPECT_TRUE(backend_->CopyToDevice(values, matrix).ok());
  }
  static std::vector<float> Times(size_t count, float value) { return std::vector<float>(count, value); }

  std::shared_ptr<Device> device_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(MlxBackendTest, PartsOfAMatrixAreWrittenAndReadInAnyWay) {
  const Matrix whole = *backend_->NewMatrix(6, 5);
  EXPECT_EQ(Read(whole), Times(30, 0.0f));
  Write(whole.Columns(0, 2), 1.0f);
  Write(whole.Columns(2, 3), 2.0f);
  EXPECT_EQ(Read(whole.Columns(1, 2).Rows(3, 1)), (std::vector<float>{1.0f, 2.0f}));
  EXPECT_EQ(Read(whole.Rows(5, 1)), (std::vector<float>{1.0f, 1.0f, 2.0f, 2.0f, 2.0f}));
  // Across both, and not from the first row on.
  Write(whole.Rows(2, 2).Columns(1, 3), 3.0f);
  EXPECT_EQ(Read(whole.Rows(1, 1)), (std::vector<float>{1.0f, 1.0f, 2.0f, 2.0f, 2.0f}));
  EXPECT_EQ(Read(whole.Rows(3, 1)), (std::vector<float>{1.0f, 3.0f, 3.0f, 3.0f, 2.0f}));
  // Rows one after the other.
  const Matrix rows = *backend_->NewMatrix(4, 2);
  Write(rows.Rows(0, 1), 1.0f);
  Write(rows.Rows(1, 2), 2.0f);
  EXPECT_EQ(Read(rows), (std::vector<float>{1, 1, 2, 2, 2, 2, 0, 0}));
  // Fewer rows of the same step leave the others.
  Write(rows.Rows(0, 2), 5.0f);
  EXPECT_EQ(Read(rows), (std::vector<float>{5, 5, 5, 5, 2, 2, 0, 0}));
}

TEST_F(MlxBackendTest, ImpossibleMemoryIsAnError) {
  const KvShape shape = {1, 1, int64_t{1} << 21, int64_t{1} << 10, int64_t{1} << 14, KvDType::kF32};
  EXPECT_EQ(backend_->NewKvCache(shape).error().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(backend_->NewMatrix(int64_t{1} << 23, int64_t{1} << 22).error().code(), StatusCode::kResourceExhausted);
}

TEST_F(MlxBackendTest, AFailedStepEndsWithAnErrorAndTheNextOneRuns) {
  const auto cache = *backend_->NewKvCache({1, 1, 4, 4, 2, KvDType::kF32});
  const Matrix x = *backend_->NewMatrix(2, 4);
  const Matrix out = *backend_->NewMatrix(2, 4);
  // MLX has no products for 7 bits, and says so when one is asked for.
  const std::vector<uint8_t> codes(28, 0);
  const std::vector<float> scale(1, 1.0f);
  const Weight odd = *backend_->Import(tensor::AffineWeight{.rows = 1,
                                                            .cols = 32,
                                                            .bits = 7,
                                                            .group = 32,
                                                            .codes = codes.data(),
                                                            .scale_dtype = tensor::DType::kF32,
                                                            .scales = scale.data()});
  const Matrix input = *backend_->NewMatrix(1, 32);
  const Matrix product = *backend_->NewMatrix(1, 1);
  const std::vector<int32_t> blocks = {1};
  const SequenceRows first = {0, 1, 0, blocks};
  const SequenceRows second = {0, 1, 1, blocks};
  const auto store = [&](const SequenceRows& rows) {
    backend_->BeginStep({.rows = 1, .sequences = {&rows, 1}});
    Write(x, 1.0f);
    backend_->StoreKv(*cache, 0, x.Rows(0, 1), x.Rows(0, 1));
  };
  const auto fail = [&] {
    store(second);
    const Product failing = {.weight = odd, .out = product};
    backend_->MatMul({input}, {&failing, 1});
    backend_->Submit();
    EXPECT_EQ(backend_->EndStep().code(), StatusCode::kUnavailable);
  };
  store(first);
  ASSERT_TRUE(backend_->EndStep().ok());
  fail();
  EXPECT_TRUE(backend_->CanGoOn());

  // What earlier steps stored is still there.
  store(second);
  backend_->PagedAttention(*cache, 0, {.scale = 1.0f}, x.Rows(0, 1), out.Rows(0, 1));
  ASSERT_TRUE(backend_->EndStep().ok());
  EXPECT_EQ(Read(out.Rows(0, 1)), Times(4, 1.0f));

  // Three in a row are no accident.
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(backend_->CanGoOn());
    fail();
  }
  EXPECT_FALSE(backend_->CanGoOn());
}

TEST_F(MlxBackendTest, AutoDoesNotTakeAProcessorForAGpu) {
  if (backend_->Describe().name.find("processor") == std::string::npos) return;  // MLX has a GPU here
  const auto chosen = OpenDevice("auto", {.cpu = {.threads = 1}});
  ASSERT_TRUE(chosen.has_value());
  EXPECT_NE(chosen->device->Describe({}).device, "mlx");
}

}  // namespace
}  // namespace pensieve::backend
