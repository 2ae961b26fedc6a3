#include "backend/mlx/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "backend/checks.h"
#include "base/check.h"

namespace pensieve::backend::mlx {

Result<std::unique_ptr<KvCache>> MlxKvCache::Create(const KvShape& shape) {
  PENSIEVE_RETURN_IF_ERROR(CheckKvShape(shape));
  try {
    auto cache = std::make_unique<MlxKvCache>(shape);
    std::vector<mx::array> arrays;
    cache->AppendTo(arrays);
    mx::eval(arrays);
    return std::unique_ptr<KvCache>(std::move(cache));
  } catch (const std::exception& error) { return ToStatus(error, "memory for keys and values"); }
}

MlxKvCache::MlxKvCache(const KvShape& shape) : shape_(shape) {
  const int slots = Int(shape.num_blocks * shape.block_len);
  const int heads = Int(shape.kv_heads);
  const mx::Dtype type = shape.dtype == KvDType::kF32   ? mx::float32
                         : shape.dtype == KvDType::kF16 ? mx::float16
                                                        : mx::int8;
  for (int64_t plane = 0; plane < 2 * shape.layers; ++plane) {
    planes_.push_back({mx::zeros({slots, heads, Int(shape.head_dim)}, type), std::nullopt});
    if (shape.dtype == KvDType::kInt8) planes_.back().scales = mx::zeros({slots, heads, 1}, mx::float32);
  }
}

template <typename Self, typename Fn>
void MlxKvCache::ForArrays(Self& self, Fn fn) {
  for (auto& plane : self.planes_) {
    fn(plane.values);
    if (plane.scales) fn(*plane.scales);
  }
}

void MlxKvCache::AppendTo(std::vector<mx::array>& arrays) const {
  ForArrays(*this, [&](const mx::array& a) { arrays.push_back(a); });
}

int64_t MlxKvCache::block_bytes() const {
  size_t bytes = 0;
  ForArrays(*this, [&](const mx::array& a) { bytes += a.nbytes() / static_cast<size_t>(shape_.num_blocks); });
  return static_cast<int64_t>(bytes);
}

Status MlxKvCache::ReadBlock(int64_t block, std::span<std::byte> bytes) const {
  PENSIEVE_CHECK(static_cast<int64_t>(bytes.size()) == block_bytes() && block >= 0 && block < shape_.num_blocks);
  try {
    std::byte* target = bytes.data();
    const auto first = static_cast<size_t>(block);
    ForArrays(*this, [&](const mx::array& a) {
      const size_t size = a.nbytes() / static_cast<size_t>(shape_.num_blocks);
      mx::array pool = a;
      pool.eval();
      pool.wait();
      std::memcpy(target, pool.data<std::byte>() + first * size, size);
      target += size;
    });
    return OkStatus();
  } catch (const std::exception& error) { return ToStatus(error, "reading a KV block"); }
}

Status MlxKvCache::WriteBlock(int64_t block, std::span<const std::byte> bytes) {
  PENSIEVE_CHECK(static_cast<int64_t>(bytes.size()) == block_bytes() && block >= 0 && block < shape_.num_blocks);
  try {
    const std::byte* source = bytes.data();
    ForArrays(*this, [&](mx::array& a) {
      const size_t size = a.nbytes() / static_cast<size_t>(shape_.num_blocks);
      // No step runs now: nothing else reads or writes the memory.
      a.eval();
      a.wait();
      std::memcpy(a.data<std::byte>() + static_cast<size_t>(block) * size, source, size);
      source += size;
    });
    return OkStatus();
  } catch (const std::exception& error) { return ToStatus(error, "writing a KV block"); }
}

void MlxKvCache::Store(int64_t plane, const mx::array& slots, const mx::array& rows) {
  Plane& own = planes_[static_cast<size_t>(plane)];
  const int count = rows.shape(0);
  const int heads = Int(shape_.kv_heads);
  // Scatter takes [rows, 1 slot, ...].
  mx::array values = mx::reshape(rows, {count, 1, heads, Int(shape_.head_dim)});
  if (own.scales) {
    // Symmetric: a head's largest magnitude is 127.
    const mx::array scale = mx::divide(mx::max(mx::abs(values), 3, /*keepdims=*/true), mx::array(127.0f));
    const mx::array divisor = mx::where(mx::equal(scale, mx::array(0.0f)), mx::array(1.0f), scale);
    values = mx::round(mx::divide(values, divisor));
    *own.scales = mx::scatter(*own.scales, slots, scale, 0);
  }
  own.values = mx::scatter(own.values, slots, mx::astype(values, own.values.dtype()), 0);
}

mx::array MlxKvCache::TokensOf(const mx::array& pool, std::span<const int32_t> block_table,
                               std::optional<mx::array>& table, int64_t first, int64_t count) const {
  const int64_t length = shape_.block_len;
  const auto first_block = static_cast<size_t>(first / length);
  const auto end_block = static_cast<size_t>((first + count + length - 1) / length);
  const std::span<const int32_t> blocks = block_table.subspan(first_block, end_block - first_block);
  const auto gap = std::adjacent_find(blocks.begin(), blocks.end(), [](int32_t a, int32_t b) { return b != a + 1; });
  const int heads = pool.shape(1);
  const int dim = pool.shape(2);
  const int64_t skipped = first % length;
  if (gap == blocks.end()) {
    const int64_t at = blocks.front() * length + skipped;
    return mx::slice(pool, {Int(at), 0, 0}, {Int(at + count), heads, dim});
  }
  if (!table) table = FromInts(block_table);
  const mx::array seen =
      mx::slice(*table, {Int(static_cast<int64_t>(first_block))}, {Int(static_cast<int64_t>(end_block))});
  const mx::array by_block = mx::reshape(pool, {Int(shape_.num_blocks), Int(length), heads, dim});
  const auto tokens = static_cast<int64_t>(blocks.size()) * length;
  const mx::array gathered = mx::reshape(mx::take(by_block, seen, 0), {Int(tokens), heads, dim});
  return mx::slice(gathered, {Int(skipped), 0, 0}, {Int(skipped + count), heads, dim});
}

mx::array MlxKvCache::Tokens(int64_t plane, std::span<const int32_t> block_table, std::optional<mx::array>& table,
                             int64_t first, int64_t count) const {
  const Plane& own = planes_[static_cast<size_t>(plane)];
  mx::array values = TokensOf(own.values, block_table, table, first, count);
  if (!own.scales) return values;
  return mx::multiply(mx::astype(values, mx::float32), TokensOf(*own.scales, block_table, table, first, count));
}

}  // namespace pensieve::backend::mlx
