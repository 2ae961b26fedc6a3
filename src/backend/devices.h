// The table of devices. A new one is a folder here, a row in devices.cc and an option in CMakeLists.txt.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/status.h"

namespace pensieve::backend {

struct DeviceOptions {
  CpuOptions cpu = {};
  int index = 0;  // which one, where a machine has several of a kind
  // The device was named, and is not one that `auto` tries: then it may be slower than another that is there.
  bool by_name = true;
};

struct DeviceKind {
  std::string_view name;  // as --device has it
  // What to do about it, where this program lacks it: "build with ...".
  std::string_view how_to_build;
  // Null when this program was built without it. Unavailable, saying why, when the machine has no such device.
  Result<std::shared_ptr<Device>> (*open)(const DeviceOptions& options) = nullptr;
};

// In the order in which `auto` tries them: the last one is always there.
const std::vector<DeviceKind>& DeviceKinds();

// OK for "auto" and for a device that this program has. Unimplemented, saying how to build with it, for one that it
// lacks; InvalidArgument for other names.
Status CheckDevice(std::string_view name);

// A device and why it was chosen: "asked for", or what `auto` found.
struct ChosenDevice {
  std::shared_ptr<Device> device;
  std::string reason;
};

// `name`: a row of the table, or "auto". A number may follow a colon ("cuda:1"): the second of its kind, whatever
// options.index says. The errors of CheckDevice, and what opening says.
Result<ChosenDevice> OpenDevice(std::string_view name, const DeviceOptions& options);

}  // namespace pensieve::backend
