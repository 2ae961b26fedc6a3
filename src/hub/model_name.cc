#include "hub/model_name.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "formats/printable.h"

namespace pensieve::hub {
namespace {

constexpr size_t kRepoPartMax = 96;
constexpr size_t kRevisionMax = 200;
constexpr size_t kComponentMax = 200;
constexpr size_t kPathMax = 800;
constexpr int kPartsMax = 10'000;
constexpr size_t kNamesListed = 20;
constexpr std::string_view kGguf = ".gguf";

bool IsNameChar(char c) {
  const auto u = static_cast<unsigned char>(c);
  return std::isalnum(u) != 0 || c == '-' || c == '_' || c == '.';
}

// Hugging Face's rule for users and repos, which also keeps "--" free as the separator of its cache's directories.
Status CheckRepoPart(std::string_view part, std::string_view what) {
  const bool good = !part.empty() && part.size() <= kRepoPartMax && std::all_of(part.begin(), part.end(), IsNameChar) &&
                    part.front() != '.' && part.front() != '-' && part.back() != '.' && part.back() != '-' &&
                    part.find("..") == std::string_view::npos && part.find("--") == std::string_view::npos;
  if (good) return OkStatus();
  return InvalidArgument(fmt::format("\"{}\" is no name of a {}", formats::Printable(part), what));
}

Status CheckRevision(std::string_view revision) {
  const bool good = !revision.empty() && revision.size() <= kRevisionMax && CheckRelativePath(revision).ok() &&
                    std::all_of(revision.begin(), revision.end(), [](char c) { return IsNameChar(c) || c == '/'; }) &&
                    revision.front() != '-' && revision.front() != '.' && revision.find("--") == std::string_view::npos;
  if (good) return OkStatus();
  return InvalidArgument(fmt::format("\"{}\" is no branch, tag or commit", formats::Printable(revision)));
}

Status CheckQuant(std::string_view quant) {
  const bool good = !quant.empty() && quant.size() <= 40 && std::all_of(quant.begin(), quant.end(), IsNameChar);
  if (good) return OkStatus();
  return InvalidArgument(fmt::format("\"{}\" is no quantization such as Q4_K_M", formats::Printable(quant)));
}

std::string Upper(std::string_view text) {
  std::string upper(text);
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
  return upper;
}

bool IsGguf(std::string_view file) {
  return file.size() > kGguf.size() && SameIgnoringCase(file.substr(file.size() - kGguf.size()), kGguf);
}

// The file's path without ".gguf" and "-00001-of-00003".
std::string StemOf(std::string_view file) {
  if (const auto split = ParseSplitName(file)) return split->stem;
  return std::string(IsGguf(file) ? file.substr(0, file.size() - kGguf.size()) : file);
}

// "x/Model-UD-Q4_K_XL" has the tags "UD-Q4_K_XL" and "Q4_K_XL", and the tag of each of its directories.
bool HasQuant(std::string_view stem, std::string_view quant) {
  const std::string name = Upper(stem);
  const std::string tag = Upper(quant);
  const auto ends_with_tag = [&](std::string_view text) {
    if (!text.ends_with(tag)) return false;
    const size_t before = text.size() - tag.size();
    return before == 0 || text[before - 1] == '-' || text[before - 1] == '.' || text[before - 1] == '_';
  };
  for (size_t at = 0; at < name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    if (ends_with_tag(std::string_view(name).substr(at, end - at))) return true;
    at = end + 1;
  }
  return false;
}

std::string ListFiles(const std::vector<std::vector<std::string>>& models) {
  std::string list;
  for (size_t i = 0; i < std::min(models.size(), kNamesListed); ++i) {
    list += (i == 0 ? "" : ", ") + formats::Printable(models[i].front());
  }
  return list + (models.size() > kNamesListed ? ", ..." : "");
}

}  // namespace

bool SameIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

std::string ModelName::ToString() const {
  std::string text = repo_id();
  if (!file.empty()) text += "/" + file;
  if (!quant.empty()) text += ":" + quant;
  if (!revision.empty()) text += "@" + revision;
  return text;
}

Result<ModelName> ParseModelName(std::string_view text) {
  for (const std::string_view prefix : {"https://huggingface.co/", "https://hf.co/", "huggingface.co/", "hf.co/"}) {
    if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
  }
  ModelName name;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    name.revision = text.substr(at + 1);
    text = text.substr(0, at);
    PENSIEVE_RETURN_IF_ERROR(CheckRevision(name.revision));
    if (name.revision == "main") name.revision.clear();  // one name for one thing
  }
  if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    name.quant = text.substr(colon + 1);
    text = text.substr(0, colon);
    PENSIEVE_RETURN_IF_ERROR(CheckQuant(name.quant));
  }
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) {
    return InvalidArgument(fmt::format("\"{}\" is no name of a model: ORG/REPO is", formats::Printable(text)));
  }
  const size_t second = text.find('/', slash + 1);
  name.org = text.substr(0, slash);
  name.repo = text.substr(slash + 1, second == std::string_view::npos ? second : second - slash - 1);
  PENSIEVE_RETURN_IF_ERROR(CheckRepoPart(name.org, "user or organization"));
  PENSIEVE_RETURN_IF_ERROR(CheckRepoPart(name.repo, "repo"));
  if (second == std::string_view::npos) return name;
  name.file = text.substr(second + 1);
  PENSIEVE_RETURN_IF_ERROR(CheckRelativePath(name.file));
  if (!IsGguf(name.file) || !name.quant.empty()) {
    return InvalidArgument(fmt::format("\"{}\" is no .gguf file of a repo", formats::Printable(name.file)));
  }
  return name;
}

const std::vector<Alias>& Aliases() {
  static const std::vector<Alias> aliases = {{"qwen3-0.6b-4bit", "mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ"},
                                             {"gemma-300m-4bit", "mlx-community/embeddinggemma-300m-4bit"},
                                             {"phi-3-mini-128k-4bit", "mlx-community/Phi-3-mini-128k-instruct-4bit"}};
  return aliases;
}

const Alias* FindAlias(std::string_view name) {
  for (const auto& alias : Aliases()) {
    if (SameIgnoringCase(alias.name, name) || SameIgnoringCase(alias.repo_id, name)) return &alias;
  }
  return nullptr;
}

bool IsSafeComponent(std::string_view name) {
  return !name.empty() && name.size() <= kComponentMax && name.front() != '.' && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), IsNameChar);
}

Status CheckRelativePath(std::string_view name) {
  const auto bad = [&](std::string_view why) {
    return InvalidArgument(fmt::format("\"{}\" is no safe name of a file: {}", formats::Printable(name), why));
  };
  if (name.empty()) return bad("it is empty");
  if (name.size() > kPathMax) return bad("it is too long");
  if (name.front() == '/') return bad("it is absolute");
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\')
      return bad("it holds a control character or a backslash");
  }
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    const std::string_view component = name.substr(at, end - at);
    if (component.empty() || component == "." || component == "..") return bad("it leaves its directory");
    if (component.size() > kComponentMax) return bad("it is too long");
    at = end + 1;
  }
  return OkStatus();
}

std::optional<SplitName> ParseSplitName(std::string_view file) {
  // "-00001-of-00003.gguf"
  constexpr size_t kSuffixLength = 20;
  if (!IsGguf(file) || file.size() <= kSuffixLength) return std::nullopt;
  const std::string_view suffix = file.substr(file.size() - kSuffixLength);
  const auto number = [&](size_t at) {
    int value = 0;
    for (const char c : suffix.substr(at, 5)) {
      if (c < '0' || c > '9') return -1;
      value = 10 * value + (c - '0');
    }
    return value;
  };
  if (suffix[0] != '-' || suffix.substr(6, 4) != "-of-") return std::nullopt;
  const int part = number(1);
  const int parts = number(10);
  if (part < 1 || parts < part || parts > kPartsMax) return std::nullopt;
  return SplitName{std::string(file.substr(0, file.size() - kSuffixLength)), part, parts};
}

std::string QuantOfFileName(std::string_view file) {
  const std::string path = Upper(StemOf(file));
  const std::string_view stem = std::string_view(path).substr(path.rfind('/') + 1);
  std::string quant;
  for (size_t at = 0; at < stem.size();) {
    const size_t end = std::min(stem.find_first_of("-.", at), stem.size());
    const std::string_view word = stem.substr(at, end - at);
    size_t digit = 0;
    for (const std::string_view letters : {"IQ", "TQ", "Q"}) {
      if (digit == 0 && word.starts_with(letters)) digit = letters.size();
    }
    const bool numbered =
        digit > 0 && word.size() > digit && std::isdigit(static_cast<unsigned char>(word[digit])) != 0;
    if (numbered || word == "F16" || word == "F32" || word == "BF16" || word == "FP16" || word == "MXFP4") quant = word;
    at = end + 1;
  }
  return quant;
}

std::vector<std::vector<std::string>> GgufModels(const std::vector<std::string>& files) {
  std::map<std::string, std::vector<std::string>> splits;
  std::vector<std::vector<std::string>> models;
  for (const auto& file : files) {
    const size_t slash = file.rfind('/');
    const std::string_view base = std::string_view(file).substr(slash == std::string::npos ? 0 : slash + 1);
    // Image encoders lie beside language models and are none.
    if (!IsGguf(file) || base.starts_with("mmproj")) continue;
    if (const auto split = ParseSplitName(file)) {
      splits[fmt::format("{}-of-{:05d}", split->stem, split->parts)].push_back(file);
    } else {
      models.push_back({file});
    }
  }
  for (auto& [stem, parts] : splits) {
    std::sort(parts.begin(), parts.end());
    if (static_cast<int>(parts.size()) == ParseSplitName(parts.front())->parts) models.push_back(std::move(parts));
  }
  std::sort(models.begin(), models.end());
  return models;
}

Result<std::vector<std::string>> ChooseGguf(const std::vector<std::string>& files, const ModelName& name) {
  const auto models = GgufModels(files);
  if (models.empty()) return NotFound(fmt::format("{} holds no whole GGUF model", name.repo_id()));
  std::vector<std::vector<std::string>> matches;
  for (const auto& model : models) {
    const bool matches_file = std::find(model.begin(), model.end(), name.file) != model.end();
    const bool matches_quant = !name.quant.empty() && HasQuant(StemOf(model.front()), name.quant);
    if (name.file.empty() && name.quant.empty() ? models.size() == 1 || HasQuant(StemOf(model.front()), "Q4_K_M")
                                                : matches_file || matches_quant) {
      matches.push_back(model);
    }
  }
  if (matches.size() == 1) return matches.front();
  if (matches.empty() && !name.file.empty()) {
    return NotFound(fmt::format("{} has no file {}; it has {}", name.repo_id(), name.file, ListFiles(models)));
  }
  if (matches.empty() && !name.quant.empty()) {
    return NotFound(fmt::format("{} has no model in {}; it has {}", name.repo_id(), name.quant, ListFiles(models)));
  }
  return InvalidArgument(fmt::format("{} holds several models; name one as {}/FILE.gguf: {}", name.repo_id(),
                                     name.repo_id(), ListFiles(matches.empty() ? models : matches)));
}

}  // namespace pensieve::hub
