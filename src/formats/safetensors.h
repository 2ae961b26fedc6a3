// safetensors files, mapped: one file, or all shards of a model directory as one set of names.
//
// Layout: u64 little-endian header length N, N bytes of JSON {name: {dtype, shape, data_offsets}}, then data. Nothing
// is aligned. Every claim of the header is checked at Open: lengths against the file, offsets against the data, shape
// times element size against the offsets, overlaps, duplicate names. Holes between tensors are tolerated.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "tensor/dtype.h"

namespace pensieve::formats {

struct SafeTensor {
  tensor::DType dtype = tensor::DType::kF32;  // of 8-bit floats: kU8, the raw bits
  std::string dtype_name;                     // as the file spells it
  std::vector<int64_t> shape;                 // no negative extents; the product fits
  std::span<const std::byte> bytes;           // in the mapping; no alignment
  size_t file = 0;                            // index into files()
};

// Thread-safe once opened. Owns the mappings that its tensors' bytes point into.
class SafetensorsSet {
 public:
  // One file.
  static Result<SafetensorsSet> OpenFile(const std::string& path);
  // A directory: the files that model.safetensors.index.json names, else every model*.safetensors, else every
  // weights*.safetensors. An index none of
  // whose files exist (left over from another format) counts as absent. NotFound when there is nothing to open.
  static Result<SafetensorsSet> OpenDirectory(const std::string& directory);

  // Takes in the files of `other`; its tensors' names get `prefix` in front. DataLoss when a name is there already.
  Status Include(SafetensorsSet other, std::string_view prefix);

  // Null when there is no such tensor.
  const SafeTensor* Find(std::string_view name) const;
  const std::map<std::string, SafeTensor, std::less<>>& tensors() const { return tensors_; }
  const std::vector<MappedFile>& files() const { return files_; }

 private:
  Status Append(const std::string& path);

  std::vector<MappedFile> files_;
  std::map<std::string, SafeTensor, std::less<>> tensors_;
};

}  // namespace pensieve::formats
