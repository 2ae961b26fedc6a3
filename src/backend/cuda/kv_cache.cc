#include "backend/cuda/kv_cache.h"

#include <fmt/format.h>

#include "backend/checks.h"
#include "base/check.h"

namespace pensieve::backend::cuda {
namespace {

int64_t PaddedDim(const KvShape& shape) { return (shape.head_dim + 7) / 8 * 8; }
int64_t ElementBytes(KvDType dtype) { return dtype == KvDType::kF32 ? 4 : dtype == KvDType::kF16 ? 2 : 1; }

}  // namespace

int64_t CudaKvCache::PlaneBlockBytes(const KvShape& shape) {
  return shape.kv_heads * shape.block_len * PaddedDim(shape) * ElementBytes(shape.dtype);
}

int64_t CudaKvCache::ScaleBlockBytes(const KvShape& shape) {
  return shape.dtype == KvDType::kInt8 ? shape.kv_heads * shape.block_len * static_cast<int64_t>(sizeof(float)) : 0;
}

Result<std::unique_ptr<KvCache>> CudaKvCache::Create(const KvShape& shape, cudaStream_t stream) {
  PENSIEVE_RETURN_IF_ERROR(CheckKvShape(shape));
  PENSIEVE_TRY(DeviceMemory memory, DeviceMemory::Allocate(static_cast<size_t>(shape.layers * LayerBytes(shape))));
  // Keys beyond a row's own have no weight, but they must not be NaN.
  PENSIEVE_RETURN_IF_ERROR(
      ToStatus(cudaMemsetAsync(memory.as<void>(), 0, memory.size(), stream), "clearing the KV cache"));
  return std::unique_ptr<KvCache>(std::make_unique<CudaKvCache>(shape, std::move(memory), stream));
}

KvLayer CudaKvCache::Layer(int64_t layer) const {
  KvLayer result;
  result.type = shape_.dtype == KvDType::kF16   ? KvType::kF16
                : shape_.dtype == KvDType::kF32 ? KvType::kF32
                                                : KvType::kInt8;
  result.kv_heads = shape_.kv_heads;
  result.head_dim = shape_.head_dim;
  result.padded_dim = PaddedDim(shape_);
  result.block_len = shape_.block_len;
  result.keys = memory_.as<uint8_t>() + layer * LayerBytes(shape_);
  result.values = result.keys + shape_.num_blocks * PlaneBlockBytes(shape_);
  result.key_scales = reinterpret_cast<float*>(result.values + shape_.num_blocks * PlaneBlockBytes(shape_));
  result.value_scales =
      result.key_scales + shape_.num_blocks * ScaleBlockBytes(shape_) / static_cast<int64_t>(sizeof(float));
  return result;
}

int64_t CudaKvCache::block_bytes() const {
  return shape_.layers * 2 * (PlaneBlockBytes(shape_) + ScaleBlockBytes(shape_));
}

template <typename Fn>
Status CudaKvCache::ForPieces(int64_t block, Fn fn) const {
  const int64_t plane = PlaneBlockBytes(shape_);
  const int64_t scales = ScaleBlockBytes(shape_);
  for (int64_t i = 0; i < shape_.layers; ++i) {
    const KvLayer layer = Layer(i);
    PENSIEVE_RETURN_IF_ERROR(fn(layer.keys + block * plane, plane));
    PENSIEVE_RETURN_IF_ERROR(fn(layer.values + block * plane, plane));
    if (scales == 0) continue;
    PENSIEVE_RETURN_IF_ERROR(fn(reinterpret_cast<uint8_t*>(layer.key_scales) + block * scales, scales));
    PENSIEVE_RETURN_IF_ERROR(fn(reinterpret_cast<uint8_t*>(layer.value_scales) + block * scales, scales));
  }
  return ToStatus(cudaStreamSynchronize(stream_), "copying a KV block");
}

Status CudaKvCache::ReadBlock(int64_t block, std::span<std::byte> bytes) const {
  PENSIEVE_CHECK(static_cast<int64_t>(bytes.size()) == block_bytes() && block >= 0 && block < shape_.num_blocks);
  std::byte* target = bytes.data();
  return ForPieces(block, [&](const uint8_t* piece, int64_t size) {
    const cudaError_t error =
        cudaMemcpyAsync(target, piece, static_cast<size_t>(size), cudaMemcpyDeviceToHost, stream_);
    target += size;
    return ToStatus(error, "reading a KV block");
  });
}

Status CudaKvCache::WriteBlock(int64_t block, std::span<const std::byte> bytes) {
  PENSIEVE_CHECK(static_cast<int64_t>(bytes.size()) == block_bytes() && block >= 0 && block < shape_.num_blocks);
  const std::byte* source = bytes.data();
  return ForPieces(block, [&](uint8_t* piece, int64_t size) {
    const cudaError_t error =
        cudaMemcpyAsync(piece, source, static_cast<size_t>(size), cudaMemcpyHostToDevice, stream_);
    source += size;
    return ToStatus(error, "writing a KV block");
  });
}

}  // namespace pensieve::backend::cuda
