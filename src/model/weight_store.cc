#include "model/weight_store.h"

#include <fmt/format.h>

#include <functional>
#include <map>
#include <string_view>

namespace pensieve::model {
namespace {

// FNV-1a.
class Hash {
 public:
  void Add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) value_ = (value_ ^ static_cast<uint64_t>(byte)) * 0x100000001b3u;
  }
  void AddTensor(std::string_view name, std::string_view type, std::span<const int64_t> shape,
                 std::span<const std::byte> bytes) {
    constexpr size_t kSampleBytes = 1024;
    Add(std::as_bytes(std::span(name)));
    Add(std::as_bytes(std::span(type)));
    Add(std::as_bytes(shape));
    if (bytes.size() <= 3 * kSampleBytes) return Add(bytes);
    for (const size_t begin : {size_t{0}, bytes.size() / 2, bytes.size() - kSampleBytes}) {
      Add(bytes.subspan(begin, kSampleBytes));
    }
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace

void WeightStore::ReleaseMapped(std::span<const std::byte> range) const {
  if (const MappedFile* file = FileOf(range.data())) file->AdviseDone(range);
}

std::string WeightStore::Fingerprint() const {
  Hash hash;
  if (gguf_) {
    std::map<std::string_view, const formats::GgufTensor*> by_name;
    for (const formats::GgufTensor& tensor : gguf_->tensors()) by_name.emplace(tensor.name, &tensor);
    for (const auto& [name, tensor] : by_name) hash.AddTensor(name, tensor->type->name, tensor->shape, tensor->bytes);
  } else {
    for (const auto& [name, tensor] : safetensors_->tensors()) {
      hash.AddTensor(name, tensor.dtype_name, tensor.shape, tensor.bytes);
    }
  }
  return fmt::format("{:016x}", hash.value());
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
