#include "backend/cpu/kv_cache.h"

#include <cstring>
#include <memory>

#include "backend/checks.h"

namespace pensieve::backend::cpu {

int64_t CpuKvCache::ChunkBytes(const KvShape& shape) {
  const int64_t tokens = Padded(shape.block_len);
  const int64_t values = shape.head_dim * tokens + tokens * Padded(shape.head_dim);
  const int64_t scales = shape.dtype == KvDType::kInt8 ? 2 * tokens * 4 : 0;
  return (values * ElementBytes(shape.dtype) + scales + 63) / 64 * 64;
}

Result<std::unique_ptr<KvCache>> CpuKvCache::Create(const KvShape& shape) {
  PENSIEVE_RETURN_IF_ERROR(CheckKvShape(shape));
  const int64_t bytes = shape.layers * shape.num_blocks * shape.kv_heads * ChunkBytes(shape);
  PENSIEVE_TRY(auto buffer, tensor::Buffer::Allocate(static_cast<size_t>(bytes)));
  return std::unique_ptr<KvCache>(std::make_unique<CpuKvCache>(shape, std::move(buffer)));
}

Status CpuKvCache::ReadBlock(int64_t block, std::span<std::byte> bytes) const {
  PENSIEVE_CHECK(block >= 0 && block < shape_.num_blocks && static_cast<int64_t>(bytes.size()) == block_bytes());
  for (int64_t layer = 0; layer < shape_.layers; ++layer) {
    std::memcpy(bytes.data() + layer * LayerBlockBytes(), Keys(layer, block, 0),
                static_cast<size_t>(LayerBlockBytes()));
  }
  return OkStatus();
}

Status CpuKvCache::WriteBlock(int64_t block, std::span<const std::byte> bytes) {
  PENSIEVE_CHECK(block >= 0 && block < shape_.num_blocks && static_cast<int64_t>(bytes.size()) == block_bytes());
  for (int64_t layer = 0; layer < shape_.layers; ++layer) {
    std::memcpy(Keys(layer, block, 0), bytes.data() + layer * LayerBlockBytes(),
                static_cast<size_t>(LayerBlockBytes()));
  }
  return OkStatus();
}

}  // namespace pensieve::backend::cpu
