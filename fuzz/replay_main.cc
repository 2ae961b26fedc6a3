// Runs a fuzz target over the files of the corpus directories named on the command line, and over fixed changes of
// each: cut short, and with single bytes changed. Crashes and sanitizer reports fail the test; there is nothing to
// compare.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

namespace {

constexpr size_t kCuts = 32;
constexpr size_t kChanges = 200;

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

void RunWithChanges(const std::string& input) {
  Run(input);
  for (size_t i = 0; i < kCuts; ++i) Run(input.substr(0, input.size() * i / kCuts));
  std::mt19937 random(1);  // the same changes on every run
  for (size_t i = 0; i < kChanges && !input.empty(); ++i) {
    std::string changed = input;
    for (uint32_t count = 1 + random() % 3; count > 0; --count) {
      changed[random() % changed.size()] = static_cast<char>(random());
    }
    Run(changed);
  }
}

}  // namespace

int main(int argc, char** argv) {
  size_t files = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      RunWithChanges({std::istreambuf_iterator<char>(file), {}});
      ++files;
    }
  }
  std::printf("%zu corpus files\n", files);
  return files > 0 ? 0 : 1;
}
