// Keys and values in device memory, laid out as attention.cu reads them.
#pragma once

#include <memory>
#include <span>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/memory.h"

namespace pensieve::backend::cuda {

class CudaKvCache final : public KvCache {
 public:
  // `stream`: of the backend, which must outlive the cache.
  static Result<std::unique_ptr<KvCache>> Create(const KvShape& shape, cudaStream_t stream);
  CudaKvCache(const KvShape& shape, DeviceMemory memory, cudaStream_t stream)
      : shape_(shape), memory_(std::move(memory)), stream_(stream) {}

  const KvShape& shape() const override { return shape_; }
  int64_t block_bytes() const override;
  Status ReadBlock(int64_t block, std::span<std::byte> bytes) const override;
  Status WriteBlock(int64_t block, std::span<const std::byte> bytes) override;

  KvLayer Layer(int64_t layer) const;

 private:
  // One plane of one layer: keys or values (elements), or their scales.
  static int64_t PlaneBlockBytes(const KvShape& shape);
  static int64_t ScaleBlockBytes(const KvShape& shape);
  static int64_t LayerBytes(const KvShape& shape) {
    return 2 * shape.num_blocks * (PlaneBlockBytes(shape) + ScaleBlockBytes(shape));
  }
  // fn(device address, bytes) for each piece of a block, in a fixed order.
  template <typename Fn>
  Status ForPieces(int64_t block, Fn fn) const;

  KvShape shape_;
  DeviceMemory memory_;
  cudaStream_t stream_;
};

}  // namespace pensieve::backend::cuda
