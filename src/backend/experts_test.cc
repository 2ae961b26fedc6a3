// Mixture of experts on every backend: against the reference, and against itself in other batches.
#include <fmt/format.h>

#include <cmath>

#include "backend/test_support.h"

namespace pensieve::backend {
namespace {

using tensor::DType;
using testing::ExpectNear;
using testing::ExpectSameInCompany;
using testing::HostMatrix;
using testing::OpTest;
using testing::WeightMaker;

enum class Form { kDense, kBf16, kAffine4, kAffine2, kAffine8, kMxfp4 };

// The experts of one layer as views of stacked weights, as files hold them.
struct TestExperts {
  std::vector<float> gate_bias, up_bias, down_bias;
  std::vector<Expert> experts;
  ExpertLayer layer;

  void Run(Backend& backend, Matrix x, int64_t precise_rows, Matrix logits, Matrix out) {
    layer.experts = experts;
    testing::BeginRows(backend, x.rows, precise_rows);
    backend.Experts({x}, logits, *backend.ImportExperts(layer), out);
  }
};

struct Shape {
  int64_t experts, hidden, inner;
};

tensor::Weight Stacked(WeightMaker& maker, Form form, int64_t rows, int64_t cols) {
  switch (form) {
    case Form::kDense: return maker.Dense(rows, cols, DType::kF32);
    case Form::kBf16: return maker.Dense(rows, cols, DType::kBF16);
    case Form::kAffine4: return maker.Affine(rows, cols, 4, 32, DType::kBF16, true);
    case Form::kAffine2: return maker.Affine(rows, cols, 2, 16, DType::kF32, true);
    case Form::kAffine8: return maker.Affine(rows, cols, 8, 64, DType::kF16, false);
    case Form::kMxfp4: return maker.Mxfp4(rows, cols);
  }
  return {};
}

TestExperts MakeExperts(WeightMaker& maker, Form form, Shape shape, bool alternating, std::mt19937* biases) {
  TestExperts made;
  const int64_t gate_rows = alternating ? 2 * shape.inner : shape.inner;
  const tensor::Weight gate = Stacked(maker, form, shape.experts * gate_rows, shape.hidden);
  const tensor::Weight up = Stacked(maker, form, shape.experts * shape.inner, shape.hidden);
  const tensor::Weight down = Stacked(maker, form, shape.experts * shape.hidden, shape.inner);
  if (biases != nullptr) {
    made.gate_bias = testing::NormalVector(shape.experts * gate_rows, *biases);
    made.up_bias = testing::NormalVector(shape.experts * shape.inner, *biases);
    made.down_bias = testing::NormalVector(shape.experts * shape.hidden, *biases);
  }
  for (int64_t e = 0; e < shape.experts; ++e) {
    Expert expert;
    expert.gate = tensor::SliceRows(gate, e * gate_rows, gate_rows);
    expert.up = tensor::SliceRows(up, e * shape.inner, shape.inner);
    expert.down = tensor::SliceRows(down, e * shape.hidden, shape.hidden);
    if (biases != nullptr) {
      const auto part = [&](const std::vector<float>& all, int64_t rows) {
        return std::span(all).subspan(static_cast<size_t>(e * rows), static_cast<size_t>(rows));
      };
      expert.gate_bias = part(made.gate_bias, gate_rows);
      if (!alternating) expert.up_bias = part(made.up_bias, shape.inner);
      expert.down_bias = part(made.down_bias, shape.hidden);
    }
    made.experts.push_back(expert);
  }
  made.layer.alternating = alternating;
  return made;
}

class ExpertTest : public OpTest {};
INSTANTIATE_TEST_SUITE_P(Backends, ExpertTest, ::testing::ValuesIn(testing::AllVariants()), testing::VariantName);

TEST_P(ExpertTest, ExactModeMatchesReferenceForEveryForm) {
  std::mt19937 rng(1);
  WeightMaker maker(2);
  for (const Form form : {Form::kDense, Form::kBf16, Form::kAffine4, Form::kAffine2, Form::kAffine8, Form::kMxfp4}) {
    for (const bool alternating : {false, true}) {
      for (const bool biased : {false, true}) {
        TestExperts made = MakeExperts(maker, form, {5, 64, 128}, alternating, biased ? &rng : nullptr);
        made.layer.top_k = 2;
        for (const int64_t rows : {0, 1, 2, 13, 40}) {
          HostMatrix x = HostMatrix(rows, 64).FillNormal(rng);
          HostMatrix logits = HostMatrix(rows, 5).FillNormal(rng);
          HostMatrix actual = HostMatrix(rows, 64).FillNormal(rng);
          HostMatrix expected = actual;
          made.Run(*backend_, x.view(), 0, logits.view(), actual.view());
          made.Run(*reference_, x.view(), 0, logits.view(), expected.view());
          ExpectNear(actual.view(), expected.view(), 2e-5f, 1e-4f,
                     fmt::format("form {}, {} rows, alternating {}, biased {}", static_cast<int>(form), rows,
                                 alternating, biased));
        }
      }
    }
  }
}

TEST_P(ExpertTest, EveryRoutingAndActivationAtOddSizes) {
  std::mt19937 rng(3);
  WeightMaker maker(4);
  for (const Routing routing : {Routing::kSoftmax, Routing::kSoftmaxOfChosen, Routing::kSigmoid}) {
    for (const auto& [activation, limit] :
         {std::pair{Activation::kSilu, 0.0f}, {Activation::kQuickGelu, 0.5f}, {Activation::kGeluTanh, 0.0f}}) {
      for (const int64_t top_k : {1, 3, 7}) {
        TestExperts made = MakeExperts(maker, Form::kDense, {7, 33, 19}, limit > 0.0f && top_k == 3, nullptr);
        made.layer.routing = routing;
        made.layer.activation = activation;
        made.layer.limit = limit;
        made.layer.top_k = top_k;
        HostMatrix x = HostMatrix(11, 33).FillNormal(rng, 3.0f);
        HostMatrix logits = HostMatrix(11, 7).FillNormal(rng, 2.0f);
        HostMatrix actual(11, 33);
        HostMatrix expected(11, 33);
        made.Run(*backend_, x.view(), 0, logits.view(), actual.view());
        made.Run(*reference_, x.view(), 0, logits.view(), expected.view());
        ExpectNear(actual.view(), expected.view(), 2e-5f, 2e-5f,
                   fmt::format("routing {}, top {}", static_cast<int>(routing), top_k));
      }
    }
  }
}

// Experts that do nothing but tell which they are and what they were given.
TestExperts Telling(int64_t experts, std::vector<float>& storage) {
  TestExperts made;
  storage.assign(static_cast<size_t>(experts * 3), 0.0f);
  for (int64_t e = 0; e < experts; ++e) {
    float* row = storage.data() + e * 3;
    row[1] = std::pow(10.0f, static_cast<float>(e));  // the bias of down: the expert's mark
    Expert expert;
    expert.gate = expert.up = tensor::DenseWeight{1, 1, DType::kF32, row};
    expert.down = tensor::DenseWeight{1, 1, DType::kF32, row + 2};
    expert.down_bias = {row + 1, 1};
    made.experts.push_back(expert);
  }
  return made;
}

TEST_P(ExpertTest, WeightsAreThoseOfTheDefinition) {
  std::vector<float> storage;
  TestExperts made = Telling(4, storage);
  made.layer.top_k = 2;
  HostMatrix x(1, 1);
  HostMatrix logits(1, 4);
  const float values[] = {1, 2, 3, 0};
  std::copy_n(values, 4, logits.row(0));
  const auto result = [&](Routing routing) {
    made.layer.routing = routing;
    HostMatrix out(1, 1);
    made.Run(*backend_, x.view(), 0, logits.view(), out.view());
    return out.row(0)[0];
  };
  EXPECT_NEAR(result(Routing::kSoftmax), 0.23688f * 10 + 0.64391f * 100, 1e-3f);
  EXPECT_NEAR(result(Routing::kSoftmaxOfChosen), 0.26894f * 10 + 0.73106f * 100, 1e-3f);
  EXPECT_NEAR(result(Routing::kSigmoid), 0.880797f * 10 + 0.952574f * 100, 1e-3f);
}

TEST_P(ExpertTest, EqualLogitsChooseTheFirstAndNanShows) {
  std::vector<float> storage;
  TestExperts made = Telling(4, storage);
  made.layer.top_k = 2;
  HostMatrix x(3, 1);
  HostMatrix logits(3, 4);
  for (int64_t e = 0; e < 4; ++e) logits.row(0)[e] = 0.5f;
  logits.row(1)[2] = std::nanf("");
  for (int64_t e = 0; e < 4; ++e) logits.row(2)[e] = e == 3 ? 1.0f : -INFINITY;
  HostMatrix out(3, 1);
  made.Run(*backend_, x.view(), 0, logits.view(), out.view());
  EXPECT_NEAR(out.row(0)[0], 0.5f * 1 + 0.5f * 10, 1e-5f);
  EXPECT_TRUE(std::isnan(out.row(1)[0]));
  EXPECT_NEAR(out.row(2)[0], 1000.0f, 1e-3f);
}

TEST_P(ExpertTest, ClampedGateOfTheDefinition) {
  const float one = 1.0f;
  const tensor::Weight unit = tensor::DenseWeight{1, 1, DType::kF32, &one};
  for (const auto& [gate, up, wanted] :
       {std::array{1.0f, 2.0f, 2.537387f}, {8.0f, -9.0f, -41.999719f}, {-3.0f, 0.5f, -0.027107f}}) {
    const float zero = 0.0f;
    TestExperts made;
    made.experts = {{.gate = unit,
                     .up = unit,
                     .down = unit,
                     .gate_bias = {&gate, 1},
                     .up_bias = {&up, 1},
                     .down_bias = {&zero, 1}}};
    made.layer = {.activation = Activation::kQuickGelu, .limit = 7.0f};
    HostMatrix x(1, 1);
    HostMatrix logits(1, 1);
    HostMatrix out(1, 1);
    made.Run(*backend_, x.view(), 0, logits.view(), out.view());
    EXPECT_NEAR(out.row(0)[0], wanted, 2e-5f);
  }
}

// Rows spread over experts in several ways: as they come, all to one expert, none to some.
HostMatrix Spread(int64_t rows, int64_t experts, int kind, std::mt19937& rng) {
  HostMatrix logits = HostMatrix(rows, experts).FillNormal(rng);
  for (int64_t r = 0; r < rows; ++r) {
    if (kind == 1) logits.row(r)[2] = 50.0f;
    if (kind == 2) logits.row(r)[0] = logits.row(r)[experts - 1] = -50.0f;
  }
  return logits;
}

// The contract: a row's result depends on neither its batch nor the workers.
TEST_P(ExpertTest, RowsAreIndependentOfTheBatch) {
  std::mt19937 rng(5);
  WeightMaker maker(6);
  const int64_t m = 61;
  HostMatrix x = HostMatrix(m, 128).FillNormal(rng);
  for (const InputPrecision mode : {InputPrecision::kInt8, InputPrecision::kInt16, InputPrecision::kF32}) {
    const auto backend = testing::MakeBackend(GetParam(), mode);
    const auto single = testing::MakeBackend({GetParam().isa, 1}, mode);
    for (const Form form : {Form::kAffine4, Form::kMxfp4, Form::kBf16}) {
      if (GetParam().isa == "reference" && form != Form::kMxfp4) continue;
      for (const int kind : {0, 1, 2}) {
        TestExperts made = MakeExperts(maker, form, {6, 128, 64}, kind == 1, kind == 2 ? nullptr : &rng);
        made.layer.top_k = 1 + kind;
        HostMatrix logits = Spread(m, 6, kind, rng);
        HostMatrix all = HostMatrix(m, 128).FillNormal(rng);
        HostMatrix apart = all;
        made.Run(*backend, x.view(), 9, logits.view(), all.view());
        int64_t first = 0;
        for (const int64_t count : {1, 1, 2, 3, 5, 1, 16, 0, 32}) {
          const int64_t precise = std::clamp<int64_t>(9 - first, 0, count);
          made.Run(*single, x.view().Rows(first, count), precise, logits.view().Rows(first, count),
                   apart.view().Rows(first, count));
          first += count;
        }
        ASSERT_EQ(first, m);
        ExpectSameInCompany(*backend, all.view(), apart.view(),
                            fmt::format("mode {}, kind {}", static_cast<int>(mode), kind));
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace pensieve::backend
