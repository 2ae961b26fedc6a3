#include "backend/devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace pensieve::backend {

// Each folder's own, in its own words; defined where PENSIEVE_CUDA and PENSIEVE_MLX are set.
#ifdef PENSIEVE_CUDA
Result<std::shared_ptr<Device>> OpenCudaDevice(const DeviceOptions& options);
#endif
#ifdef PENSIEVE_MLX
Result<std::shared_ptr<Device>> OpenMlxDevice(const DeviceOptions& options);
#endif

const std::vector<DeviceKind>& DeviceKinds() {
  static const std::vector<DeviceKind> kTable = {
      {.name = "cuda",
       .how_to_build = "configure with -DPENSIEVE_CUDA=ON on a machine that has the CUDA toolkit, and build again",
#ifdef PENSIEVE_CUDA
       .open = OpenCudaDevice
#endif
      },
      {.name = "mlx",
       .how_to_build = "configure with -DPENSIEVE_MLX=ON on a machine that has MLX, and build again",
#ifdef PENSIEVE_MLX
       .open = OpenMlxDevice
#endif
      },
      {.name = "cpu",
       .how_to_build = "",
       .open = [](const DeviceOptions& options) { return NewCpuDevice(options.cpu); }},
  };
  return kTable;
}

namespace {

// The first device of the table that is there; the reason tells what became of those before it.
Result<ChosenDevice> OpenFirst(DeviceOptions options) {
  options.by_name = false;
  std::string reason;
  for (const DeviceKind& kind : DeviceKinds()) {
    if (kind.open == nullptr) {
      reason += fmt::format("{}this program has no {}", reason.empty() ? "" : ", ", kind.name);
      continue;
    }
    auto device = kind.open(options);
    if (device) return ChosenDevice{*std::move(device), reason.empty() ? "the first that is there" : reason};
    if (&kind == &DeviceKinds().back()) return std::move(device).error();
    reason += fmt::format("{}{}: {}", reason.empty() ? "" : ", ", kind.name, device.error().message());
  }
  PENSIEVE_UNREACHABLE();
}

const DeviceKind* Find(std::string_view name) {
  const auto& table = DeviceKinds();
  const auto kind = std::find_if(table.begin(), table.end(), [&](const DeviceKind& row) { return row.name == name; });
  return kind == table.end() ? nullptr : &*kind;
}

// "cuda:1" -> "cuda", 1. Without a colon: number 0. No name where what follows the colon is no number.
struct NumberedName {
  std::string_view name;
  int number = 0;
};
NumberedName SplitName(std::string_view name) {
  const size_t colon = name.find(':');
  if (colon == std::string_view::npos) return {name, 0};
  NumberedName split = {name.substr(0, colon), 0};
  const std::string_view digits = name.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), split.number);
  const bool whole = error == std::errc() && end == digits.data() + digits.size() && split.number >= 0;
  return whole ? split : NumberedName{};
}

}  // namespace

Status CheckDevice(std::string_view name) {
  if (name == "auto") return OkStatus();
  const DeviceKind* kind = Find(SplitName(name).name);
  if (kind == nullptr) {
    std::vector<std::string_view> names;
    for (const DeviceKind& row : DeviceKinds()) names.push_back(row.name);
    return InvalidArgument(
        fmt::format("device: \"{}\" is none of {}, auto (a number may follow: cuda:1)", name, fmt::join(names, ", ")));
  }
  if (kind->open != nullptr) return OkStatus();
  return Unimplemented(fmt::format("device: this program was built without {}: {}", kind->name, kind->how_to_build));
}

Result<ChosenDevice> OpenDevice(std::string_view name, const DeviceOptions& options) {
  PENSIEVE_RETURN_IF_ERROR(CheckDevice(name));
  if (name == "auto") return OpenFirst(options);
  const NumberedName split = SplitName(name);
  DeviceOptions numbered = options;
  numbered.index = split.number;
  PENSIEVE_TRY(auto device, Find(split.name)->open(numbered));
  return ChosenDevice{std::move(device), "asked for"};
}

}  // namespace pensieve::backend
