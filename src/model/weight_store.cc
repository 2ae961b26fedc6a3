#include "model/weight_store.h"

#include <algorithm>

namespace pensieve::model {
namespace {

constexpr size_t kBufferBytes = size_t{32} << 20;
constexpr size_t kAlignment = 64;

}  // namespace

Result<std::byte*> WeightStore::Allocate(size_t bytes) {
  if (bytes > SIZE_MAX - kAlignment) return ResourceExhausted("cannot allocate a weight of that size");
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (buffers_.empty() || buffers_.back().size() - used_of_last_ < rounded) {
    PENSIEVE_TRY(tensor::Buffer buffer, tensor::Buffer::Allocate(std::max(rounded, kBufferBytes)));
    buffers_.push_back(std::move(buffer));
    used_of_last_ = 0;
  }
  std::byte* memory = buffers_.back().data() + used_of_last_;
  used_of_last_ += rounded;
  allocated_bytes_ += rounded;
  return memory;
}

void WeightStore::Rewind(const Mark& mark) {
  buffers_.resize(mark.buffers);
  used_of_last_ = mark.used_of_last;
  allocated_bytes_ = mark.allocated_bytes;
}

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
