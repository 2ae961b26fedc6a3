#include "model/weight_store.h"

#include <functional>

namespace pensieve::model {

void WeightStore::ReleaseMapped(std::span<const std::byte> range) const {
  if (const MappedFile* file = FileOf(range.data())) file->AdviseDone(range);
}

const MappedFile* WeightStore::FileOf(const void* address) const {
  const auto* byte = static_cast<const std::byte*>(address);
  for (const MappedFile& file : gguf_ ? gguf_->files() : safetensors_->files()) {
    const auto bytes = file.bytes();
    if (std::greater_equal<>()(byte, bytes.data()) && std::less<>()(byte, bytes.data() + bytes.size())) return &file;
  }
  return nullptr;
}

}  // namespace pensieve::model
