#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>

#include "base/json.h"
#include "formats/config_fields.h"
#include "formats/foreign_file.h"
#include "formats/printable.h"

namespace pensieve::formats {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the limit of the reference implementations
constexpr size_t kIndexBytesMax = 100'000'000;
constexpr size_t kDimsMax = 8;
constexpr size_t kShardsMax = 10'000;

std::optional<tensor::DType> ParseDType(std::string_view name) {
  using tensor::DType;
  static const std::map<std::string_view, DType> kNames = {
      {"F32", DType::kF32},   {"F16", DType::kF16},    {"BF16", DType::kBF16},  {"F64", DType::kF64},
      {"I64", DType::kI64},   {"I32", DType::kI32},    {"I16", DType::kI16},    {"I8", DType::kI8},
      {"U64", DType::kU64},   {"U32", DType::kU32},    {"U16", DType::kU16},    {"U8", DType::kU8},
      {"BOOL", DType::kBool}, {"F8_E4M3", DType::kU8}, {"F8_E5M2", DType::kU8}, {"F8_E8M0", DType::kU8}};
  const auto it = kNames.find(name);
  return it == kNames.end() ? std::nullopt : std::optional(it->second);
}

// A non-negative integer that fits int64_t.
std::optional<int64_t> AsExtent(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto wide = value.get<uint64_t>();
  return wide <= INT64_MAX ? std::optional(static_cast<int64_t>(wide)) : std::nullopt;
}

// Parses one header entry; `data` is everything after the header.
Result<SafeTensor> ParseTensor(const Json& entry, std::span<const std::byte> data) {
  const auto dtype = entry.is_object() ? entry.find("dtype") : entry.end();
  const auto shape = entry.is_object() ? entry.find("shape") : entry.end();
  const auto offsets = entry.is_object() ? entry.find("data_offsets") : entry.end();
  if (dtype == entry.end() || shape == entry.end() || offsets == entry.end()) {
    return DataLoss("needs the fields \"dtype\", \"shape\" and \"data_offsets\"");
  }
  if (!dtype->is_string()) return DataLoss("field \"dtype\" must be a string");
  SafeTensor tensor;
  tensor.dtype_name = dtype->get<std::string>();
  const auto type = ParseDType(tensor.dtype_name);
  if (!type)
    return DataLoss(fmt::format("field \"dtype\" holds the unknown type \"{}\"", Printable(tensor.dtype_name, 40)));
  tensor.dtype = *type;

  if (!shape->is_array() || shape->size() > kDimsMax) {
    return DataLoss(fmt::format("field \"shape\" must be a list of at most {} sizes", kDimsMax));
  }
  auto bytes = static_cast<int64_t>(tensor::DTypeBytes(tensor.dtype));
  for (const Json& extent : *shape) {
    const auto size = AsExtent(extent);
    if (!size) return DataLoss("field \"shape\" holds something other than non-negative integers");
    if (__builtin_mul_overflow(bytes, *size, &bytes))
      return DataLoss("field \"shape\" overflows: no file is that large");
    tensor.shape.push_back(*size);
  }

  const auto begin = offsets->is_array() && offsets->size() == 2 ? AsExtent((*offsets)[0]) : std::nullopt;
  const auto end = offsets->is_array() && offsets->size() == 2 ? AsExtent((*offsets)[1]) : std::nullopt;
  if (!begin || !end || *begin > *end) return DataLoss("field \"data_offsets\" must be [begin, end] with begin <= end");
  if (static_cast<uint64_t>(*end) > data.size()) {
    return DataLoss(
        fmt::format("field \"data_offsets\" ends at byte {} of the data, but the file holds only {} (truncated?)", *end,
                    data.size()));
  }
  if (*end - *begin != bytes) {
    return DataLoss(
        fmt::format("field \"data_offsets\" spans {} bytes, but shape and dtype need {}", *end - *begin, bytes));
  }
  tensor.bytes = data.subspan(static_cast<size_t>(*begin), static_cast<size_t>(bytes));
  return tensor;
}

using NamedTensor = std::pair<std::string, SafeTensor>;

Status CheckOverlaps(const std::string& path, const std::vector<NamedTensor>& tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& tensor : tensors) {
    if (!tensor.second.bytes.empty()) order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const NamedTensor* a, const NamedTensor* b) { return a->second.bytes.data() < b->second.bytes.data(); });
  for (size_t i = 1; i < order.size(); ++i) {
    const auto& before = order[i - 1]->second.bytes;
    if (before.data() + before.size() > order[i]->second.bytes.data()) {
      return DataLoss(fmt::format("{}: tensors \"{}\" and \"{}\" overlap", path, Printable(order[i - 1]->first),
                                  Printable(order[i]->first)));
    }
  }
  return OkStatus();
}

Result<std::vector<NamedTensor>> ParseFile(const MappedFile& file) {
  const auto bytes = file.bytes();
  uint64_t header_bytes = 0;
  if (const auto foreign = ExplainForeignFile(file.path(), bytes, FileFormat::kSafetensors)) return *foreign;
  if (bytes.size() < sizeof(header_bytes)) {
    return DataLoss(fmt::format("{}: {} bytes are too few for a safetensors file", file.path(), bytes.size()));
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes == 0 || header_bytes >= kHeaderBytesMax || header_bytes > bytes.size() - sizeof(header_bytes)) {
    return DataLoss(fmt::format("{}: header length {} does not fit the file's {} bytes (not safetensors, or truncated)",
                                file.path(), header_bytes, bytes.size()));
  }
  const auto header = bytes.subspan(sizeof(header_bytes), static_cast<size_t>(header_bytes));
  const auto data = bytes.subspan(sizeof(header_bytes) + static_cast<size_t>(header_bytes));
  auto json = ParseJson({reinterpret_cast<const char*>(header.data()), header.size()},
                        {.depth_max = 4,
                         .refuse_duplicate_keys = true,
                         .values_max = kFileJson.values_max,
                         .key_comparisons_max = kFileJson.key_comparisons_max});
  if (!json) return DataLoss(fmt::format("{}: header is {}", file.path(), json.error().message()));
  if (!json->is_object()) return DataLoss(fmt::format("{}: header must be a JSON object", file.path()));

  std::vector<NamedTensor> tensors;
  for (const auto& [name, entry] : json->items()) {
    if (name == "__metadata__") continue;
    auto tensor = ParseTensor(entry, data);
    if (!tensor)
      return DataLoss(fmt::format("{}: tensor \"{}\": {}", file.path(), Printable(name), tensor.error().message()));
    tensors.emplace_back(name, *std::move(tensor));
  }
  PENSIEVE_RETURN_IF_ERROR(CheckOverlaps(file.path(), tensors));
  return tensors;
}

std::vector<std::string> GlobShards(const fs::path& directory, std::string_view beginning) {
  std::vector<std::string> paths;
  std::error_code ignored;
  for (fs::directory_iterator it(directory, ignored), end; it != end; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(beginning) && name.ends_with(".safetensors")) paths.push_back(it->path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The distinct files of an index in sorted order; checks that each is a plain name.
Result<std::set<std::string>> IndexedFiles(const std::string& index_path, const Json& index) {
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    return DataLoss(fmt::format("{}: field \"weight_map\" is missing or no object", index_path));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find_first_of("/\\") != std::string::npos || name == "..") {
      return DataLoss(fmt::format("{}: field \"weight_map.{}\" must be the name of a file in the same directory",
                                  index_path, tensor));
    }
    names.insert(name);
    if (names.size() > kShardsMax) return DataLoss(fmt::format("{}: more than {} files", index_path, kShardsMax));
  }
  return names;
}

}  // namespace

Status SafetensorsSet::Append(const std::string& path) {
  PENSIEVE_TRY(MappedFile file, MappedFile::Open(path));
  PENSIEVE_TRY(std::vector<NamedTensor> tensors, ParseFile(file));
  for (auto& [name, tensor] : tensors) {
    tensor.file = files_.size();
    const auto [it, inserted] = tensors_.emplace(name, std::move(tensor));
    if (!inserted) {
      return DataLoss(
          fmt::format("{}: tensor \"{}\" is also in {}", path, Printable(name), files_[it->second.file].path()));
    }
  }
  files_.push_back(std::move(file));
  return OkStatus();
}

Result<SafetensorsSet> SafetensorsSet::OpenFile(const std::string& path) {
  SafetensorsSet set;
  PENSIEVE_RETURN_IF_ERROR(set.Append(path));
  return set;
}

Result<SafetensorsSet> SafetensorsSet::OpenDirectory(const std::string& directory) {
  const fs::path base(directory);
  const std::string index_path = (base / "model.safetensors.index.json").string();
  std::vector<std::string> paths = GlobShards(base, "model");
  if (paths.empty()) paths = GlobShards(base, "weights");  // MLX before 2024
  Json index;
  std::error_code ignored;
  if (fs::exists(index_path, ignored)) {
    PENSIEVE_TRY(index, ReadJsonObject(index_path, kIndexBytesMax));
    PENSIEVE_TRY(const std::set<std::string> names, IndexedFiles(index_path, index));
    const auto exists = [&](const std::string& name) { return fs::exists(base / name, ignored); };
    const bool stale = !paths.empty() && std::none_of(names.begin(), names.end(), exists);
    if (stale) {
      index = Json();
    } else {
      paths.clear();
      std::vector<std::string> missing;
      for (const std::string& name : names) {
        if (exists(name)) {
          paths.push_back((base / name).string());
        } else {
          missing.push_back(name);
        }
      }
      if (!missing.empty()) {
        return NotFound(
            fmt::format("{}: {} of the {} files that it names are not there (the first is {}); download them",
                        index_path, missing.size(), names.size(), Printable(missing.front(), 200)));
      }
    }
  }
  if (paths.empty()) return NotFound(fmt::format("{}: no model*.safetensors in this directory", directory));

  SafetensorsSet set;
  for (const std::string& path : paths) PENSIEVE_RETURN_IF_ERROR(set.Append(path));
  if (index.is_object()) {
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      if (set.Find(tensor) == nullptr) {
        return DataLoss(
            fmt::format("{}: tensor \"{}\" is not in {}", index_path, Printable(tensor), file.get<std::string>()));
      }
    }
  }
  return set;
}

const SafeTensor* SafetensorsSet::Find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

Status SafetensorsSet::Include(SafetensorsSet other, std::string_view prefix) {
  const size_t first_file = files_.size();
  for (MappedFile& file : other.files_) files_.push_back(std::move(file));
  for (auto& [name, tensor] : other.tensors_) {
    tensor.file += first_file;
    const std::string& path = files_[tensor.file].path();
    if (!tensors_.emplace(fmt::format("{}{}", prefix, name), std::move(tensor)).second) {
      return DataLoss(fmt::format("{}: tensor \"{}\" is in another file too", path, name));
    }
  }
  return OkStatus();
}

}  // namespace pensieve::formats
