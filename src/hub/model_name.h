// What a user may write for a model that lies on a hub, and which names of files are safe to write to disk.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pensieve::hub {

// ORG/REPO, ORG/REPO:QUANT, ORG/REPO/PATH/FILE.gguf, each with @REVISION at its end if wanted.
struct ModelName {
  std::string org;
  std::string repo;
  std::string revision;  // branch, tag or commit; "" for main
  std::string file;      // "dir/model-Q4_K_M.gguf"; any part of a split file stands for all
  std::string quant;     // "Q4_K_M", as it stands in a file's name, in any case

  std::string repo_id() const { return org + "/" + repo; }
  std::string revision_or_main() const { return revision.empty() ? "main" : revision; }
  // As the user would write it.
  std::string ToString() const;
  bool operator==(const ModelName&) const = default;
};

// Accepts "https://huggingface.co/" and "hf.co/" before the name. InvalidArgument says what is wrong with it.
Result<ModelName> ParseModelName(std::string_view text);

// Short names for models of a hub, as AkiDB and the documentation use them.
struct Alias {
  std::string name;     // "qwen3-0.6b-4bit"
  std::string repo_id;  // "mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ"
};
const std::vector<Alias>& Aliases();
// By short name or by repo, in any case; null when there is none.
const Alias* FindAlias(std::string_view name);

bool SameIgnoringCase(std::string_view a, std::string_view b);

// One path component: letters, digits and what names of files usually hold; not ".", "..", hidden or too long.
bool IsSafeComponent(std::string_view name);

// InvalidArgument unless `name` is a relative path that stays below its directory on every system: no "..", no empty
// component, no backslash, no control character or NUL, not absolute, no component or whole too long.
Status CheckRelativePath(std::string_view name);

// "x-00002-of-00003.gguf" is part 2 of 3 of "x".
struct SplitName {
  std::string stem;
  int part = 0;
  int parts = 0;
};
std::optional<SplitName> ParseSplitName(std::string_view file);

// "Q4_K_M" of "SmolLM2-135M-Instruct.Q4_K_M.gguf", in capitals; "" when the name does not say.
std::string QuantOfFileName(std::string_view file);

// The GGUF model that `name` means among the files of its repo: all of its parts, the first one first. A plain ORG/REPO
// means the only one, else the one of Q4_K_M. NotFound or InvalidArgument list what there is.
Result<std::vector<std::string>> ChooseGguf(const std::vector<std::string>& files, const ModelName& name);

// Every GGUF model among the files, each as its parts.
std::vector<std::vector<std::string>> GgufModels(const std::vector<std::string>& files);

}  // namespace pensieve::hub
