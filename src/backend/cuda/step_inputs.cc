// What a step brings, laid out in pinned memory and copied to the GPU in one go.
#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/checks.h"
#include "backend/cuda/cuda_backend.h"

namespace pensieve::backend::cuda {
namespace {

// Arrays of a step, laid one after the other into the staging memory; the same offsets hold on the device.
class Packer {
 public:
  template <typename T>
  size_t Reserve(size_t count) {
    const size_t at = (size_ + 15) / 16 * 16;
    size_ = at + count * sizeof(T);
    return at;
  }
  size_t size() const { return size_; }

 private:
  size_t size_ = 0;
};

struct RowTile {
  int32_t first;
  int32_t count;
};

// The rows from `precise` on, cut into tiles of kPromptRows inside of their sequences.
std::vector<RowTile> TilesOf(const StepInputs& inputs, int64_t precise) {
  std::vector<RowTile> tiles;
  for (const SequenceRows& sequence : inputs.sequences) {
    const int64_t end = sequence.first_row + sequence.num_rows;
    for (int64_t row = std::max(sequence.first_row, precise); row < end; row += kPromptRows) {
      tiles.push_back({static_cast<int32_t>(row), static_cast<int32_t>(std::min(kPromptRows, end - row))});
    }
  }
  return tiles;
}

}  // namespace

void CudaBackend::BeginStep(const StepInputs& inputs) {
  CheckStep(inputs);
  step_ = inputs;
  one_row_a_sequence_.reset();
  if (!lost_) error_ = OkStatus();
  if (!Ready()) return;
  Flush();
  const auto rows = static_cast<size_t>(inputs.rows);
  size_t table_size = 0;
  for (const SequenceRows& sequence : inputs.sequences) table_size += sequence.block_table.size();
  // Powers of two, here and in `longest`, so that steps of a growing sequence keep their addresses and launches.
  table_size = table_size == 0 ? 0 : std::bit_ceil(table_size);
  Packer packer;
  const size_t ids = packer.Reserve<int32_t>(inputs.ids.size());
  const size_t positions = packer.Reserve<int32_t>(inputs.positions.size());
  const size_t sequence_of = packer.Reserve<int32_t>(rows);
  const size_t places = packer.Reserve<int32_t>(rows);
  const size_t is_long = packer.Reserve<uint8_t>(rows);
  const size_t factors = packer.Reserve<float>(inputs.query_factors.size());
  const size_t first_rows = packer.Reserve<int32_t>(inputs.sequences.size());
  const size_t row_counts = packer.Reserve<int32_t>(inputs.sequences.size());
  const size_t table_at = packer.Reserve<int32_t>(inputs.sequences.size());
  const size_t tables = packer.Reserve<int32_t>(table_size);
  const size_t outputs = packer.Reserve<int32_t>(inputs.output_rows.size());
  const std::vector<RowTile> row_tiles = TilesOf(inputs, PreciseRowsOfStep());
  const size_t tile_first = packer.Reserve<int32_t>(row_tiles.size());
  const size_t tile_count = packer.Reserve<int32_t>(row_tiles.size());
  if (packer.size() == 0) return;

  // The copy of the step before has been read: EndStep waited for it, or this does.
  cudaStreamSynchronize(stream_);
  if (packer.size() > staging_size_) {
    if (staging_ != nullptr) cudaFreeHost(staging_);
    staging_ = nullptr;
    staging_size_ = packer.size() * 2;
    void* memory = nullptr;
    if (const cudaError_t error = cudaMallocHost(&memory, staging_size_); error != cudaSuccess) {
      staging_size_ = 0;
      return Fail(ToStatus(error, "the step's inputs find no pinned memory"));
    }
    staging_ = static_cast<std::byte*>(memory);
  }
  const auto put = [&]<typename T>(size_t at, std::span<const T> values) {
    if (!values.empty()) std::memcpy(staging_ + at, values.data(), values.size_bytes());
  };
  const auto array = [&]<typename T>(size_t at, T) { return reinterpret_cast<T*>(staging_ + at); };
  put(ids, inputs.ids);
  put(positions, inputs.positions);
  put(factors, inputs.query_factors);
  put(outputs, inputs.output_rows);
  std::memset(staging_ + is_long, 0, rows);
  std::memset(staging_ + sequence_of, 0, rows * sizeof(int32_t));
  std::memset(staging_ + places, 0, rows * sizeof(int32_t));
  size_t used = 0;
  on_device_.longest = 0;
  for (size_t s = 0; s < inputs.sequences.size(); ++s) {
    const SequenceRows& sequence = inputs.sequences[s];
    array(first_rows, int32_t{})[s] = static_cast<int32_t>(sequence.first_row);
    array(row_counts, int32_t{})[s] = static_cast<int32_t>(sequence.num_rows);
    array(table_at, int32_t{})[s] = static_cast<int32_t>(used);
    put(tables + used * sizeof(int32_t), sequence.block_table);
    used += sequence.block_table.size();
    for (int64_t r = 0; r < sequence.num_rows; ++r) {
      const int64_t row = sequence.first_row + r;
      array(sequence_of, int32_t{})[row] = static_cast<int32_t>(s);
      array(places, int32_t{})[row] = static_cast<int32_t>(sequence.cached_len + r);
      array(is_long, uint8_t{})[row] = sequence.long_rope ? 1 : 0;
    }
    on_device_.longest = std::max(on_device_.longest, sequence.cached_len + sequence.num_rows);
  }
  for (size_t i = 0; i < row_tiles.size(); ++i) {
    array(tile_first, int32_t{})[i] = row_tiles[i].first;
    array(tile_count, int32_t{})[i] = row_tiles[i].count;
  }
  on_device_.tiles = static_cast<int64_t>(row_tiles.size());
  on_device_.longest = kAttentionPiece * static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(
                                             1, (on_device_.longest + kAttentionPiece - 1) / kAttentionPiece))));
  auto* const device = static_cast<std::byte*>(Need(step_memory_, packer.size()));
  if (device == nullptr) return;
  cudaMemcpyAsync(device, staging_, packer.size(), cudaMemcpyHostToDevice, stream_);
  Check("copying a step's inputs to the GPU");
  const auto ints = [&](size_t at) { return reinterpret_cast<const int32_t*>(device + at); };
  on_device_.ids = ints(ids);
  on_device_.positions = ints(positions);
  on_device_.sequence = ints(sequence_of);
  on_device_.places = ints(places);
  on_device_.is_long = reinterpret_cast<const uint8_t*>(device + is_long);
  on_device_.query_factors = reinterpret_cast<const float*>(device + factors);
  on_device_.first_rows = ints(first_rows);
  on_device_.row_counts = ints(row_counts);
  on_device_.table_at = ints(table_at);
  on_device_.tables = ints(tables);
  on_device_.output_rows = ints(outputs);
  on_device_.tile_first = ints(tile_first);
  on_device_.tile_count = ints(tile_count);
}

Status CudaBackend::EndStep() {
  if (!Ready()) return error_;
  Flush();
  const cudaError_t error = cudaStreamSynchronize(stream_);
  if (error != cudaSuccess) Fail(ToStatus(error, "the GPU failed while it computed a step"));
  return error_;
}

RowPlaces CudaBackend::Places(int64_t first, int64_t count) const {
  return {on_device_.sequence + first, on_device_.places + first, on_device_.tables, on_device_.table_at, count,
          on_device_.longest};
}

}  // namespace pensieve::backend::cuda
