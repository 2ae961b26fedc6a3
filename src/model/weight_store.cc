#include "model/weight_store.h"

#include <functional>

namespace pensieve::model {

void WeightStore::ReleaseMapped(std::span<const std::byte> range) const {
  if (const MappedFile* file = FileOf(range.data())) file->AdviseDone(range);
}

Status WeightStore::Check(bool quick) const {
  for (const MappedFile& file : files()) PENSIEVE_RETURN_IF_ERROR(file.Check(quick));
  return OkStatus();
}

const MappedFile* WeightStore::FileOf(const void* address) const {
  const auto* byte = static_cast<const std::byte*>(address);
  for (const MappedFile& file : files()) {
    const auto bytes = file.bytes();
    if (std::greater_equal<>()(byte, bytes.data()) && std::less<>()(byte, bytes.data() + bytes.size())) return &file;
  }
  return nullptr;
}

}  // namespace pensieve::model
