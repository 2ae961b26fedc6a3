// Working memory that grows to the largest size ever asked for and is then reused: nothing is allocated once a model
// has taken its largest step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/check.h"
#include "tensor/buffer.h"

namespace pensieve::backend::cpu {

class Scratch {
 public:
  // `count` values of T, 64-byte aligned, contents undefined, valid until the next call. Aborts when the system refuses
  // the memory: operations have no way to fail, and sizes are bounded by the model's planned batch.
  template <typename T>
  T* Need(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (bytes > buffer_.size()) {
      auto grown = tensor::Buffer::Allocate(bytes + bytes / 4);
      PENSIEVE_CHECK(grown.has_value());
      buffer_ = *std::move(grown);
    }
    return buffer_.as<T>();
  }

 private:
  tensor::Buffer buffer_;
};

// Cuts one allocation into aligned parts: Reserve all of them, then Take them in the same order.
class ScratchCutter {
 public:
  template <typename T>
  void Reserve(int64_t count) {
    total_ += Rounded(count * static_cast<int64_t>(sizeof(T)));
  }
  void Allocate(Scratch& scratch) { next_ = scratch.Need<std::byte>(total_); }
  template <typename T>
  T* Take(int64_t count) {
    auto* part = reinterpret_cast<T*>(next_);
    next_ += Rounded(count * static_cast<int64_t>(sizeof(T)));
    return part;
  }

 private:
  static int64_t Rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  int64_t total_ = 0;
  std::byte* next_ = nullptr;
};

}  // namespace pensieve::backend::cpu
