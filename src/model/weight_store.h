// The memory behind a model's weights: the mapped files, and buffers for what had to be converted.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

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

  // Memory for the store's life: see tensor::BufferArena.
  using Mark = tensor::BufferArena::Mark;
  Result<std::byte*> Allocate(size_t bytes) { return arena_.Allocate(bytes); }
  size_t allocated_bytes() const { return arena_.allocated_bytes(); }
  Mark mark() const { return arena_.mark(); }
  void Rewind(const Mark& mark) { arena_.Rewind(mark); }

  // A number for the weights, as 16 hexadecimal digits: of the names, types and shapes of all tensors and of samples of
  // their bytes (three pages each at most, so that it costs little). For telling models apart, not for security.
  std::string Fingerprint() const;

  // Whether the address lies in one of the mapped files.
  bool IsMapped(const void* address) const { return FileOf(address) != nullptr; }
  // MappedFile::Check of every file.
  Status Check(bool quick) const;
  // Gives back the pages of a range of a mapped file that has been converted.
  void ReleaseMapped(std::span<const std::byte> range) const;

 private:
  const std::vector<MappedFile>& files() const { return gguf_ ? gguf_->files() : safetensors_->files(); }
  const MappedFile* FileOf(const void* address) const;

  std::optional<formats::SafetensorsSet> safetensors_;
  std::optional<formats::GgufFile> gguf_;
  tensor::BufferArena arena_;
};

}  // namespace pensieve::model
