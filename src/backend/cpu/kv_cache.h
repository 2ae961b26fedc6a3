// Paged keys and values as the attention kernels read them.
//
// For every layer, block and kv head one chunk: keys transposed [head_dim][tokens], values [tokens][head_dim], and for
// int8 one f32 scale a token for each. Tokens and the head dimension of values are padded to 16. Keys transposed make
// every score a vertical sum over whole vectors of keys, and a head's block is one piece of 16 KB that streams.
#pragma once

#include <cstdint>
#include <utility>

#include "backend/backend.h"
#include "backend/cpu/sizes.h"
#include "tensor/buffer.h"

namespace pensieve::backend::cpu {

class CpuKvCache final : public KvCache {
 public:
  static Result<std::unique_ptr<KvCache>> Create(const KvShape& shape);
  CpuKvCache(const KvShape& shape, tensor::Buffer buffer) : shape_(shape), buffer_(std::move(buffer)) {}

  const KvShape& shape() const override { return shape_; }
  int64_t block_bytes() const override { return shape_.layers * LayerBlockBytes(); }
  Status ReadBlock(int64_t block, std::span<std::byte> bytes) const override;
  Status WriteBlock(int64_t block, std::span<const std::byte> bytes) override;

  int64_t key_stride() const { return Padded(shape_.block_len); }   // tokens a row of transposed keys
  int64_t value_stride() const { return Padded(shape_.head_dim); }  // dims a row of values
  int64_t key_count() const { return shape_.head_dim * key_stride(); }
  int64_t value_count() const { return key_stride() * value_stride(); }

  std::byte* Keys(int64_t layer, int64_t block, int64_t head) const {
    return buffer_.data() + ((layer * shape_.num_blocks + block) * shape_.kv_heads + head) * ChunkBytes(shape_);
  }
  std::byte* Values(int64_t layer, int64_t block, int64_t head) const {
    return Keys(layer, block, head) + key_count() * ElementBytes(shape_.dtype);
  }
  // int8: [tokens] scales of keys, then of values.
  float* Scales(int64_t layer, int64_t block, int64_t head) const {
    return reinterpret_cast<float*>(Values(layer, block, head) + value_count());
  }

 private:
  static int64_t ElementBytes(KvDType dtype) { return dtype == KvDType::kF32 ? 4 : dtype == KvDType::kF16 ? 2 : 1; }
  static int64_t ChunkBytes(const KvShape& shape);
  // A block's chunks of one layer lie together.
  int64_t LayerBlockBytes() const { return shape_.kv_heads * ChunkBytes(shape_); }

  KvShape shape_;
  tensor::Buffer buffer_;
};

}  // namespace pensieve::backend::cpu
