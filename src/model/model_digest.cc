// Digests of what every tiny model of tests/data/models computes on every instruction set of this machine, one line
// each: for comparing two builds bit for bit. Not a test: other machines and compilers' libraries give other digests.
//
//   ninja -C build/release model_digest && build/release/src/model/model_digest > before.txt
#include <fmt/format.h>

#include <bit>
#include <filesystem>
#include <numeric>
#include <set>

#include "model/test_runner.h"

namespace pensieve::model {
namespace {

class Digest {
 public:
  void Add(const Logits& rows) {
    for (const std::vector<float>& row : rows) {
      for (const float value : row) hash_ = (hash_ ^ std::bit_cast<uint32_t>(value)) * 0x100000001b3u;
      hash_ ^= hash_ >> 29;
    }
  }
  std::string text() const { return fmt::format("{:016x}", hash_); }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

// Token ids of a text that repeats itself nowhere.
std::vector<int32_t> TextOf(int64_t length, int64_t vocab_size, uint32_t seed) {
  std::vector<int32_t> ids;
  uint32_t state = seed * 2654435761u + 1;
  for (int64_t i = 0; i < length; ++i) {
    state = state * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocab_size)));
  }
  return ids;
}

void PrintLine(const std::string& name, const std::string& how, const std::string& what, const Logits& rows) {
  Digest digest;
  digest.Add(rows);
  fmt::print("{} {} {} {}\n", name, how, what, digest.text());
}

void DigestDecoder(const std::string& name, const std::string& how, LoadedModel& model) {
  const int64_t vocab = model.config.vocab_size;
  const std::vector<int32_t> text = TextOf(std::min<int64_t>(100, model.config.context_max - 4), vocab, 1);
  for (const auto dtype : {backend::KvDType::kF16, backend::KvDType::kF32, backend::KvDType::kInt8}) {
    Runner runner(model, 64, dtype);
    const std::string kind = fmt::format("kv{}", static_cast<int>(dtype));
    if (!model.config.can_generate()) {
      PrintLine(name, how, kind + "-hidden", runner.Hidden(text));
      continue;
    }
    PrintLine(name, how, kind + "-prefill", runner.Prefill(text, 33));
    TestSequence a = runner.NewSequence(100), b = runner.NewSequence(40);
    Logits steps = runner.Step({{&a, text}});
    for (auto& row : runner.Step({{&b, TextOf(19, vocab, 2)}})) steps.push_back(std::move(row));
    for (int32_t step = 0; step < 3; ++step) {
      const auto next = [&](uint32_t seed) { return TextOf(1, vocab, seed + static_cast<uint32_t>(step)); };
      for (auto& row : runner.Step({{&a, next(7)}, {&b, next(17)}}, /*all_precise=*/true))
        steps.push_back(std::move(row));
    }
    PrintLine(name, how, kind + "-decode", steps);
  }
}

void DigestEmbedder(const std::string& name, const std::string& how, LoadedModel& model) {
  Runner runner(model);
  for (const auto pooling : {backend::Pooling::kMean, backend::Pooling::kCls, backend::Pooling::kMax}) {
    model.config.pooling = pooling;
    std::vector<std::vector<int32_t>> texts;
    for (const int64_t length : {1, 17, 40, 60}) {
      texts.push_back(TextOf(std::min(length, model.config.context_max), model.config.vocab_size, 3));
    }
    PrintLine(name, how, fmt::format("pool{}", static_cast<int>(pooling)), runner.Embed(texts));
  }
}

int PrintAll() {
  std::set<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(TestData(""))) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("tiny-") && name.find("-00002-of-") == std::string::npos) paths.insert(entry.path().string());
  }
  for (const std::string& path : paths) {
    const std::string name = std::filesystem::path(path).filename().string();
    for (const char* isa : {"reference", "scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"}) {
      const bool reference = std::string_view(isa) == "reference";
      for (const auto mode :
           {backend::InputPrecision::kInt8, backend::InputPrecision::kInt16, backend::InputPrecision::kF32}) {
        if (reference && mode != backend::InputPrecision::kF32) continue;
        LoadOptions options;
        options.rows_max = 128;
        options.compute.activations = mode;
        if (reference) {
          options.device = backend::NewReferenceDevice();
        } else {
          auto device = backend::NewCpuDevice({.threads = 2, .isa = isa});
          if (!device) continue;  // not an instruction set of this machine
          options.device = *std::move(device);
        }
        auto model = Load(path, options);
        if (!model) continue;
        const std::string how = fmt::format("{}-{}", isa, static_cast<int>(mode));
        (*model)->config.is_encoder ? DigestEmbedder(name, how, **model) : DigestDecoder(name, how, **model);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace pensieve::model

int main() { return pensieve::model::PrintAll(); }
