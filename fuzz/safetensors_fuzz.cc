// Any bytes as a safetensors file: every tensor that is accepted can be read to its last byte.
#include "formats/safetensors.h"
#include "fuzz_file.h"
#include "model/weight_source.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace pensieve;
  static const fuzz::FuzzDirectory directory;
  const auto set = formats::SafetensorsSet::OpenFile(directory.Write("model.safetensors", bytes, size));
  if (!set) return 0;
  unsigned sum = 0;
  for (const auto& [name, tensor] : set->tensors()) {
    for (const std::byte byte : tensor.bytes) sum += static_cast<unsigned>(byte);
  }
  volatile unsigned kept = sum;
  (void)kept;
  model::QuantizationConfig quantization;
  quantization.global = model::QuantizationParams{};
  (void)model::CountSafetensors(*set, quantization);
  return 0;
}
