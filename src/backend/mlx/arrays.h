// MLX's arrays as this backend uses them: planned matrices as what was last written to them, errors as ours.
#pragma once

#include <mlx/mlx.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/status.h"

namespace pensieve::backend::mlx {

namespace mx = ::mlx::core;

// MLX counts in int: more elements than that along one axis is our own bug, since memory is asked for before.
int Int(int64_t value);

// What MLX throws: ResourceExhausted when it has no memory, Unavailable for everything else; the message names `what`.
Status ToStatus(const std::exception& error, std::string_view what);

// `bytes` bytes of the host as an array of that shape and type, copied.
mx::array FromBytes(const void* bytes, size_t size, mx::Shape shape, mx::Dtype dtype);
mx::array FromFloats(std::span<const float> values, mx::Shape shape);
mx::array FromInts(std::span<const int32_t> values);

// A planned matrix or vector. MLX's arrays are values, not memory: the buffer holds the arrays that were last written to
// it, each for some of its columns and rows from 0 on. Columns that are written and read alike, as projections are, cost
// nothing; other writes become updates of a whole matrix.
class MlxBuffer final : public Buffer {
 public:
  MlxBuffer(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {}

  // What was never written is zero.
  mx::array Read(const Matrix& matrix);
  // `step`: the number of the present step. Rows that an earlier step wrote beyond those of this one are forgotten.
  void Write(const Matrix& matrix, mx::array value, int64_t step);
  // Elements [first, first + count) of a vector.
  mx::array ReadVector(int64_t first, int64_t count);

  // Appends what it holds, for evaluation.
  void AppendTo(std::vector<mx::array>& arrays) const;
  // Whether it was written since this was last asked.
  bool was_listed = false;
  void Forget() { pieces_.clear(); }

 private:
  struct Region {
    int64_t row = 0;
    int64_t rows = 0;
    int64_t col = 0;
    int64_t cols = 0;
  };
  struct Piece {  // rows [0, value.shape(0))
    int64_t col;
    int64_t cols;
    mx::array value;
    int64_t step;
    int64_t rows() const { return value.shape(0); }
  };

  Region RegionOf(const Matrix& matrix) const;
  static bool Overlap(const Piece& piece, const Region& region);
  // The region from pieces that lie side by side; false where they do not cover it.
  bool ReadSideBySide(const Region& region, std::vector<mx::array>* parts) const;
  // All pieces as one of all rows and columns.
  void Join(int64_t step);

  int64_t rows_;
  int64_t cols_;
  std::vector<Piece> pieces_;
};

}  // namespace pensieve::backend::mlx
