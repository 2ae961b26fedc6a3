// The memory behind a model's weights: the mapped files, and buffers for what had to be converted.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/loader.h"
#include "tensor/buffer.h"

namespace pensieve::model {

// Written while a model is loaded, immutable afterwards. Must outlive every weight that was read through it.
class WeightStore {
 public:
  explicit WeightStore(formats::SafetensorsSet files) : safetensors_(std::move(files)) {}
  explicit WeightStore(formats::GgufFile file) : gguf_(std::move(file)) {}

  // Null unless the model came in that format.
  const formats::SafetensorsSet* safetensors() const { return safetensors_ ? &*safetensors_ : nullptr; }
  const formats::GgufFile* gguf() const { return gguf_ ? &*gguf_ : nullptr; }

  // 64-byte-aligned memory for the store's life. Small requests share large buffers, so that they lie in huge pages.
  Result<std::byte*> Allocate(size_t bytes);
  size_t allocated_bytes() const { return allocated_bytes_; }

  // How much is allocated, to come back to: Rewind frees all that was allocated since.
  struct Mark {
    size_t buffers = 0;
    size_t used_of_last = 0;
    size_t allocated_bytes = 0;
  };
  Mark mark() const { return {buffers_.size(), used_of_last_, allocated_bytes_}; }
  void Rewind(const Mark& mark);

  // Whether the address lies in one of the mapped files.
  bool IsMapped(const void* address) const { return FileOf(address) != nullptr; }
  // Gives back the pages of a range of a mapped file that has been converted.
  void ReleaseMapped(std::span<const std::byte> range) const;

 private:
  const MappedFile* FileOf(const void* address) const;

  std::optional<formats::SafetensorsSet> safetensors_;
  std::optional<formats::GgufFile> gguf_;
  std::vector<tensor::Buffer> buffers_;
  size_t used_of_last_ = 0;
  size_t allocated_bytes_ = 0;
};

}  // namespace pensieve::model
