#include "backend/reference/reference_backend.h"

#include <unistd.h>

#include <utility>

#include "backend/checks.h"
#include "base/system_memory.h"

namespace pensieve::backend {

std::shared_ptr<Device> NewReferenceDevice() { return std::make_shared<reference::ReferenceDevice>(); }

namespace reference {

BackendDescription ReferenceBackend::Describe() const { return ReferenceDevice().Describe({}); }

Result<Weight> ReferenceBackend::Import(const tensor::Weight& weight, WeightUse) {
  weights_.emplace_back().weight = weight;
  return Weight{&weights_.back(), tensor::Rows(weight), tensor::Cols(weight),
                static_cast<int64_t>(tensor::WeightBytes(weight))};
}

Result<Rope> ReferenceBackend::ImportRope(const RopeTable& usual, const RopeTable& for_long) {
  const auto copy = [](const RopeTable& table) {
    CheckRopeTable(table);
    return ReferenceRope::Table{
        {table.frequencies.begin(), table.frequencies.end()}, table.rotated, table.interleaved, table.magnitude};
  };
  ReferenceRope& rope = ropes_.emplace_back();
  rope.usual = copy(usual);
  rope.for_long = copy(for_long);
  return Rope{&rope};
}

BackendDescription ReferenceDevice::Describe(const BackendOptions&) const {
  const auto pages = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES));
  BackendDescription description;
  description.device = "reference";
  description.name = "reference (scalar)";
  description.threads = 1;
  description.memory_bytes = pages * static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
  description.kv_dtypes = {KvDType::kF16, KvDType::kF32, KvDType::kInt8};
  return description;
}

int64_t ReferenceDevice::AvailableBytes() const { return AvailableMemoryBytes().value_or(0); }

Result<std::unique_ptr<Backend>> ReferenceDevice::NewBackend(const BackendOptions&) {
  return std::unique_ptr<Backend>(std::make_unique<ReferenceBackend>());
}

}  // namespace reference
}  // namespace pensieve::backend
