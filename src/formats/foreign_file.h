// Files that are not what they were taken for: what they are, and what to do about it, in one sentence.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"

namespace pensieve::formats {

enum class FileFormat { kGguf, kSafetensors, kJson };

// An error that says what `bytes`, the content of the file `path`, are instead of `wanted`: a git-lfs pointer, an empty
// file, a web page, an archive, a PyTorch checkpoint, a program, ... Nothing when they are of that format or of none
// that is known here. Looks at the first bytes only.
std::optional<Status> ExplainForeignFile(const std::string& path, std::span<const std::byte> bytes, FileFormat wanted);

}  // namespace pensieve::formats
