#include "backend/cpu/kv_cache.h"

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

}  // namespace pensieve::backend::cpu
