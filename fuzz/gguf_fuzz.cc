// Any bytes as a GGUF file: metadata, configuration, tokenizer and template, and every matrix that is accepted converted
// and decoded.
#include <deque>
#include <vector>

#include "formats/ggml_convert.h"
#include "formats/gguf.h"
#include "fuzz_file.h"
#include "fuzz_text.h"
#include "model/config_gguf.h"
#include "model/rope.h"
#include "model/text_loader.h"
#include "model/weight_source.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace pensieve;
  static const fuzz::FuzzDirectory directory;
  const auto file = formats::GgufFile::Open(directory.Write("model.gguf", bytes, size));
  if (!file) return 0;
  const auto config = model::ReadGgufConfig(*file);
  if (config) (void)model::ComputeRope(config->rope, config->context_max, config->context_max).has_value();
  (void)model::CountGguf(*file);
  if (const auto text = model::ReadGgufText(*file, "")) fuzz::UseTokenizer(*text->tokenizer);
  for (const formats::GgufTensor& tensor : file->tensors()) {
    const int64_t cols = tensor.shape.back();
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
    std::deque<std::vector<std::byte>> memory;
    const auto allocate = [&](size_t wanted) -> Result<std::byte*> { return memory.emplace_back(wanted).data(); };
    const auto weight = formats::ConvertGgmlMatrix({tensor.type->type, rows, cols, tensor.bytes, {}}, allocate, 1);
    if (!weight) continue;
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r) tensor::DequantizeRow(*weight, r, row.data());
  }
  return 0;
}
