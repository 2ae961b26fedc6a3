// Keys and values of a model as MLX arrays: a plane a layer, [token slots, kv heads, head_dim].
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/mlx/arrays.h"

namespace pensieve::backend::mlx {

// A token's slot is its block * block_len + its place in the block.
class MlxKvCache final : public KvCache {
 public:
  static Result<std::unique_ptr<KvCache>> Create(const KvShape& shape);
  explicit MlxKvCache(const KvShape& shape);

  const KvShape& shape() const override { return shape_; }
  int64_t block_bytes() const override;
  Status ReadBlock(int64_t block, std::span<std::byte> bytes) const override;
  Status WriteBlock(int64_t block, std::span<const std::byte> bytes) override;

  // rows [n, kv_heads * head_dim] as the cache's type at slots [n]: one scatter, in place when nothing else holds the
  // plane. `plane`: 2 * layer for keys, 2 * layer + 1 for values.
  void Store(int64_t plane, const mx::array& slots, const mx::array& rows);
  // Tokens [first, first + count) of a sequence, [count, kv_heads, head_dim]: a view where its blocks are consecutive.
  // int8 comes as f32. `table`: the sequence's blocks as an array, made when it is first needed.
  mx::array Tokens(int64_t plane, std::span<const int32_t> block_table, std::optional<mx::array>& table, int64_t first,
                   int64_t count) const;

  void AppendTo(std::vector<mx::array>& arrays) const;

 private:
  struct Plane {
    mx::array values;
    std::optional<mx::array> scales;  // int8: [slots, kv_heads, 1]
  };
  mx::array TokensOf(const mx::array& pool, std::span<const int32_t> block_table, std::optional<mx::array>& table,
                     int64_t first, int64_t count) const;
  // fn(array) for each array of the cache, in a fixed order.
  template <typename Self, typename Fn>
  static void ForArrays(Self& self, Fn fn);

  KvShape shape_;
  std::vector<Plane> planes_;
};

}  // namespace pensieve::backend::mlx
