#include "tensor/buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace pensieve::tensor {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kArenaBufferBytes = size_t{32} << 20;
constexpr size_t kArenaAlignment = 64;

size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

Result<Buffer> Buffer::Allocate(size_t bytes) {
  if (bytes == 0) return Buffer();
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t unit = bytes >= kHugePage ? kHugePage : page;
  if (bytes > SIZE_MAX - 2 * kHugePage) return ResourceExhausted(fmt::format("cannot allocate {} bytes", bytes));
  const size_t mapped = RoundUp(bytes, unit);
  // One unit more than needed, then both ends trimmed: that is how mmap is made to align to a huge page.
  const size_t asked = mapped + (unit == page ? 0 : unit);
  void* raw = ::mmap(nullptr, asked, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return ResourceExhausted(fmt::format("cannot allocate {} bytes", bytes));
  const auto begin = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = RoundUp(begin, unit);
  if (aligned > begin) ::munmap(raw, aligned - begin);
  const uintptr_t end = begin + asked;
  if (end > aligned + mapped) ::munmap(reinterpret_cast<void*>(aligned + mapped), end - aligned - mapped);
#ifdef MADV_HUGEPAGE
  if (unit == kHugePage) ::madvise(reinterpret_cast<void*>(aligned), mapped, MADV_HUGEPAGE);
#endif
  return Buffer(reinterpret_cast<std::byte*>(aligned), bytes, mapped);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, mapped_);
}

Result<std::byte*> BufferArena::Allocate(size_t bytes) {
  if (bytes > SIZE_MAX - kArenaAlignment) return ResourceExhausted(fmt::format("cannot allocate {} bytes", bytes));
  const size_t rounded = RoundUp(bytes, kArenaAlignment);
  if (buffers_.empty() || buffers_.back().size() - used_of_last_ < rounded) {
    PENSIEVE_TRY(Buffer buffer, Buffer::Allocate(std::max(rounded, kArenaBufferBytes)));
    buffers_.push_back(std::move(buffer));
    used_of_last_ = 0;
  }
  std::byte* memory = buffers_.back().data() + used_of_last_;
  used_of_last_ += rounded;
  allocated_bytes_ += rounded;
  return memory;
}

void BufferArena::Rewind(const Mark& mark) {
  buffers_.resize(mark.buffers);
  used_of_last_ = mark.used_of_last;
  allocated_bytes_ = mark.allocated_bytes;
}

}  // namespace pensieve::tensor
