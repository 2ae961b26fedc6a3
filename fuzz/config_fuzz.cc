// Any bytes as config.json of a model directory; the part behind a NUL byte is modules.json.
#include <algorithm>

#include "fuzz_file.h"
#include "model/config_hf.h"
#include "model/rope.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace pensieve;
  static const fuzz::FuzzDirectory directory;
  const uint8_t* const end = bytes + size;
  const uint8_t* const split = std::find(bytes, end, uint8_t{0});
  directory.Write("config.json", bytes, static_cast<size_t>(split - bytes));
  const uint8_t* const modules = split == end ? end : split + 1;
  directory.Write("modules.json", modules, static_cast<size_t>(end - modules));
  const auto model = model::ReadHfModel(directory.path());
  if (!model || model->config.is_encoder) return 0;
  (void)model::ComputeRope(model->config.rope, model->config.context_max, model->config.context_max).has_value();
  return 0;
}
