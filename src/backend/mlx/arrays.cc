#include "backend/mlx/arrays.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

namespace pensieve::backend::mlx {

int Int(int64_t value) {
  PENSIEVE_CHECK(value >= 0 && value <= std::numeric_limits<int>::max());
  return static_cast<int>(value);
}

Status ToStatus(const std::exception& error, std::string_view what) {
  const std::string_view text = error.what();
  const std::string message = fmt::format("{}: {}", what, text);
  const bool memory =
      dynamic_cast<const std::bad_alloc*>(&error) != nullptr || text.find("allocate") != std::string_view::npos ||
      text.find("malloc") != std::string_view::npos || text.find("Insufficient Memory") != std::string_view::npos;
  return memory ? ResourceExhausted(message) : Unavailable(message);
}

mx::array FromBytes(const void* bytes, size_t size, mx::Shape shape, mx::Dtype dtype) {
  mx::array result(mx::allocator::malloc(std::max<size_t>(size, 1)), std::move(shape), dtype);
  PENSIEVE_CHECK(result.nbytes() == size);
  if (size > 0) std::memcpy(result.data<uint8_t>(), bytes, size);
  return result;
}

mx::array FromFloats(std::span<const float> values, mx::Shape shape) {
  return FromBytes(values.data(), values.size_bytes(), std::move(shape), mx::float32);
}

mx::array FromInts(std::span<const int32_t> values) {
  return FromBytes(values.data(), values.size_bytes(), {Int(static_cast<int64_t>(values.size()))}, mx::int32);
}

namespace {

mx::array Cut(const mx::array& a, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  if (row == 0 && col == 0 && a.shape(0) == rows && a.shape(1) == cols) return a;
  return mx::slice(a, {Int(row), Int(col)}, {Int(row + rows), Int(col + cols)});
}

}  // namespace

MlxBuffer::Region MlxBuffer::RegionOf(const Matrix& matrix) const {
  PENSIEVE_CHECK(matrix.stride == cols_);
  const Region region = {matrix.first / cols_, matrix.rows, matrix.first % cols_, matrix.cols};
  PENSIEVE_CHECK(region.row + region.rows <= rows_ && region.col + region.cols <= cols_);
  return region;
}

bool MlxBuffer::Overlap(const Piece& piece, const Region& region) {
  return piece.col < region.col + region.cols && region.col < piece.col + piece.cols;
}

bool MlxBuffer::ReadSideBySide(const Region& region, std::vector<mx::array>* parts) const {
  const int64_t end = region.col + region.cols;
  for (int64_t at = region.col; at < end;) {
    const auto piece = std::find_if(pieces_.begin(), pieces_.end(), [&](const Piece& p) {
      return p.col <= at && at < p.col + p.cols && p.rows() >= region.row + region.rows;
    });
    if (piece == pieces_.end()) return false;
    const int64_t count = std::min(end, piece->col + piece->cols) - at;
    parts->push_back(Cut(piece->value, region.row, region.rows, at - piece->col, count));
    at += count;
  }
  return !parts->empty();
}

mx::array MlxBuffer::Read(const Matrix& matrix) {
  const Region region = RegionOf(matrix);
  std::vector<mx::array> parts;
  if (!ReadSideBySide(region, &parts)) {
    Join(0);
    return Cut(pieces_.front().value, region.row, region.rows, region.col, region.cols);
  }
  return parts.size() == 1 ? parts.front() : mx::concatenate(std::move(parts), 1);
}

mx::array MlxBuffer::ReadVector(int64_t first, int64_t count) {
  return mx::reshape(Read({this, first, 1, count, cols_}), {Int(count)});
}

void MlxBuffer::Join(int64_t step) {
  mx::array whole = mx::zeros({Int(rows_), Int(cols_)}, mx::float32);
  for (const Piece& piece : pieces_) {
    whole = mx::slice_update(whole, piece.value, mx::Shape{0, Int(piece.col)},
                             mx::Shape{Int(piece.rows()), Int(piece.col + piece.cols)});
  }
  pieces_.clear();
  pieces_.push_back({0, cols_, std::move(whole), step});
}

void MlxBuffer::Write(const Matrix& matrix, mx::array value, int64_t step) {
  const Region region = RegionOf(matrix);
  std::erase_if(pieces_, [&](const Piece& piece) {
    const bool covered = piece.col >= region.col && piece.col + piece.cols <= region.col + region.cols;
    return region.row == 0 && covered && (piece.rows() <= region.rows || piece.step < step);
  });
  const auto touched =
      std::find_if(pieces_.begin(), pieces_.end(), [&](const Piece& piece) { return Overlap(piece, region); });
  if (touched == pieces_.end() && region.row == 0) {
    pieces_.push_back({region.col, region.cols, std::move(value), step});
    return;
  }
  // The next rows of the same columns.
  if (touched != pieces_.end() && touched->col == region.col && touched->cols == region.cols &&
      touched->rows() == region.row) {
    touched->value = mx::concatenate({touched->value, std::move(value)}, 0);
    return;
  }
  Join(step);
  mx::array& whole = pieces_.front().value;
  whole = mx::slice_update(whole, value, mx::Shape{Int(region.row), Int(region.col)},
                           mx::Shape{Int(region.row + region.rows), Int(region.col + region.cols)});
}

void MlxBuffer::AppendTo(std::vector<mx::array>& arrays) const {
  for (const Piece& piece : pieces_) arrays.push_back(piece.value);
}

}  // namespace pensieve::backend::mlx
