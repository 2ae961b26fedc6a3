// An owned, 64-byte-aligned block of memory, zeroed. Blocks of 2 MiB and more ask for transparent huge pages: streaming
// weights through 4 KiB pages costs about 5 % of the machine's read bandwidth.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/status.h"

namespace pensieve::tensor {

class Buffer {
 public:
  Buffer() = default;
  // ResourceExhausted when the system refuses the memory.
  static Result<Buffer> Allocate(size_t bytes);

  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  template <typename T>
  std::span<T> span() const {
    return {as<T>(), size_ / sizeof(T)};
  }

 private:
  Buffer(std::byte* data, size_t size, size_t mapped) : data_(data), size_(size), mapped_(mapped) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;  // bytes taken from the system, a whole number of pages
};

// Pieces of memory, 64-byte aligned and zeroed, for the arena's life. Small ones share large buffers, so that they lie in
// huge pages. Not thread-safe.
class BufferArena {
 public:
  // ResourceExhausted when the system refuses the memory.
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

 private:
  std::vector<Buffer> buffers_;
  size_t used_of_last_ = 0;
  size_t allocated_bytes_ = 0;
};

}  // namespace pensieve::tensor
