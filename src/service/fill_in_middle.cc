#include "service/fill_in_middle.h"

namespace pensieve::service {
namespace {

// How a family spells it. `middle` is "" where the prefix's token is the last one.
struct Family {
  const char* prefix;
  const char* suffix;
  const char* middle;
  bool suffix_first;
};

constexpr Family kFamilies[] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", false},     // Qwen, CodeGemma
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>", false},           // StarCoder, Granite, StableCode
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>", false},           // SantaCoder
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", false},     // DeepSeek
    {"<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", false},  // GLM
    {"▁<PRE>", "▁<SUF>", "▁<MID>", false},                             // Code Llama
    {"[PREFIX]", "[SUFFIX]", "", true},                                // Codestral
};

// What models write when the middle is done and they would go on with another file.
constexpr const char* kEnds[] = {
    "<|file_sep|>", "<|file_separator|>", "<|repo_name|>", "<|fim_pad|>",     "<|endoftext|>",
    "<file_sep>",   "<repo_name>",        "<fim_pad>",     "<｜fim▁begin｜>", "▁<EOT>"};

}  // namespace

Result<FillInMiddle> MakeFillInMiddle(const tokenizer::Tokenizer& tokenizer, const std::string& prefix,
                                      const std::string& suffix) {
  const tokenizer::EncodeOptions plain{.add_special = false, .parse_special = false};
  for (const Family& family : kFamilies) {
    const auto before = tokenizer.TokenToId(family.prefix);
    const auto behind = tokenizer.TokenToId(family.suffix);
    const bool has_middle = family.middle[0] != '\0';
    const auto middle = has_middle ? tokenizer.TokenToId(family.middle) : before;
    if (!before || !behind || !middle) continue;
    FillInMiddle fill;
    std::vector<int32_t>& ids = fill.prompt_ids;
    const auto append = [&](int32_t id, const std::string& text) {
      ids.push_back(id);
      for (const int32_t piece : tokenizer.Encode(text, plain)) ids.push_back(piece);
    };
    if (tokenizer.special().add_bos && tokenizer.special().bos) ids.push_back(tokenizer.special().bos->id);
    if (family.suffix_first) append(*behind, suffix);
    append(*before, prefix);
    if (!family.suffix_first) append(*behind, suffix);
    if (has_middle) ids.push_back(*middle);
    for (const char* end : kEnds)
      if (const auto id = tokenizer.TokenToId(end)) fill.stop_ids.push_back(*id);
    return fill;
  }
  return InvalidArgument("suffix: this model has no tokens for filling in a middle");
}

}  // namespace pensieve::service
