// GGUF files of versions 2 and 3, mapped: metadata and tensor directory, all parts of a split model as one.
//
// Every count and length is checked against the bytes that are left in the file before anything is allocated for it;
// every tensor against its type's block size, the alignment, the end of the file and its neighbours.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "formats/config_fields.h"
#include "formats/ggml_blocks.h"

namespace pensieve::formats {

// A metadata value, widened: integers to int64_t (u64 above its range saturates), floats to double, arrays of bool to
// integers. Strings point into the mapping. Arrays of arrays are checked but not kept (monostate).
using GgufValue = std::variant<std::monostate, int64_t, double, bool, std::string_view, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string_view>>;

struct GgufTensor {
  std::string name;
  const GgmlTypeTraits* type = nullptr;
  std::vector<int64_t> shape;        // [rows, cols] as in Hugging Face files: the reverse of the file's dims
  std::span<const std::byte> bytes;  // in the mapping, at a multiple of the file's alignment
  size_t file = 0;                   // index into files()
};

// Immutable and thread-safe once opened. Owns the mappings that strings and tensors point into.
class GgufFile {
 public:
  // `path` may be any part of a split model (name-00002-of-00003.gguf); all parts are opened.
  static Result<GgufFile> Open(const std::string& path);

  uint32_t version() const { return version_; }
  const std::vector<MappedFile>& files() const { return files_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* FindTensor(std::string_view name) const;
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  const GgufValue* FindValue(std::string_view key) const;

 private:
  Status Append(const std::string& path, int64_t part, int64_t parts);

  uint32_t version_ = 0;
  std::vector<MappedFile> files_;
  std::map<std::string, GgufValue, std::less<>> metadata_;  // of the first part
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;
};

// Typed, range-checked access to metadata; the first error is kept, as in ConfigFields.
class GgufFields {
 public:
  explicit GgufFields(const GgufFile& file) : file_(file) {}

  bool Has(std::string_view key) const { return file_.FindValue(key) != nullptr; }
  int64_t RequiredInt(std::string_view key, IntRange range);
  int64_t Int(std::string_view key, int64_t fallback, IntRange range);
  std::optional<int64_t> OptionalInt(std::string_view key, IntRange range);
  std::optional<double> OptionalFloat(std::string_view key);  // integers count
  std::optional<bool> OptionalBool(std::string_view key);
  std::string String(std::string_view key, std::string_view fallback);
  // Null when absent; an error when of another type. Valid as long as the file.
  const std::vector<std::string_view>* Strings(std::string_view key);
  const std::vector<int64_t>* Ints(std::string_view key);
  const std::vector<double>* Floats(std::string_view key);

  Status Error(std::string_view key, std::string_view problem) const;
  void Fail(const Status& error) {
    if (status_.ok()) status_ = error;
  }
  const Status& status() const { return status_; }

 private:
  template <typename T>
  const T* Get(std::string_view key, const char* kind);

  const GgufFile& file_;
  Status status_;
};

}  // namespace pensieve::formats
