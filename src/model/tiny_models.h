// Loading the tiny models of tests/data/models, as they are or with another configuration.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "backend/devices.h"
#include "formats/test_files.h"
#include "model/test_runner.h"

namespace pensieve::model {

enum class Device { kReference, kCpuExact, kCpuDefault };

// The device under test: the processor, or the one that PENSIEVE_TEST_DEVICE names as --device does.
inline std::shared_ptr<backend::Device> DeviceUnderTest() {
  const char* const name = std::getenv("PENSIEVE_TEST_DEVICE");
  auto chosen = backend::OpenDevice(name == nullptr ? "cpu" : name, {.cpu = {.threads = 2}});
  EXPECT_TRUE(chosen.has_value()) << chosen.error().message();
  return chosen ? chosen->device : nullptr;
}

inline LoadOptions TinyOptions(Device device) {
  LoadOptions options;
  options.rows_max = 128;
  options.device = device == Device::kReference ? backend::NewReferenceDevice() : DeviceUnderTest();
  if (device == Device::kCpuExact) options.compute.activations = backend::InputPrecision::kF32;
  return options;
}

inline std::unique_ptr<LoadedModel> LoadTiny(const std::string& path, const LoadOptions& options) {
  auto model = Load(path, options);
  EXPECT_TRUE(model.has_value()) << path << ": " << model.error().message();
  return model ? *std::move(model) : nullptr;
}

inline std::unique_ptr<LoadedModel> LoadTiny(const std::string& path, Device device) {
  return LoadTiny(path, TinyOptions(device));
}

// Logits or vectors of the same rows, computed in other company: the same bits where the model's device promises them.
inline void ExpectSameInCompany(const LoadedModel& model, const Logits& got, const Logits& expected) {
  if (!model.backend->Describe().company_matters) {
    EXPECT_EQ(got, expected);
    return;
  }
  ASSERT_EQ(got.size(), expected.size());
  for (size_t r = 0; r < got.size(); ++r) {
    ASSERT_EQ(got[r].size(), expected[r].size());
    for (size_t i = 0; i < got[r].size(); ++i) EXPECT_NEAR(got[r][i], expected[r][i], 2e-2) << r << ", " << i;
  }
}

// A copy of a model directory whose config.json has some fields changed; null removes one.
inline void CopyWithChanges(const std::string& from, const Json& changes, const formats::TempDirectory& to) {
  namespace fs = std::filesystem;
  fs::copy(from, to.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  const auto text = ReadFile(from + "/config.json", 1 << 20);
  Json config = *ParseJson(*text);
  for (const auto& [key, value] : changes.items()) {
    if (value.is_null()) {
      config.erase(key);
    } else {
      config[key] = value;
    }
  }
  to.Write("config.json", DumpJson(config));
}

// Largest difference from the rows of a golden entry, beside which logits of size one count as they are and larger
// ones relatively.
inline double WorstDifference(const Logits& got, const Json& expected) {
  double worst = 0;
  for (size_t i = 0; i < expected["rows"].size(); ++i) {
    const auto at = expected["rows"][i].get<size_t>();
    if (at >= got.size() || got[at].size() != expected["logits"][i].size()) return INFINITY;
    double largest = 1;
    for (const Json& wanted : expected["logits"][i]) largest = std::max(largest, std::fabs(wanted.get<double>()));
    for (size_t k = 0; k < got[at].size(); ++k) {
      worst = std::max(worst, std::fabs(got[at][k] - expected["logits"][i][k].get<double>()) / largest);
    }
  }
  return worst;
}

}  // namespace pensieve::model
