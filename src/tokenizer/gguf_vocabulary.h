// The tokenizer part of a GGUF file as plain values; whoever reads the file fills it in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pensieve::tokenizer {

struct GgufVocabulary {
  std::string model = {};                // tokenizer.ggml.model: "gpt2", "llama", "bert", ...
  std::string pre = {};                  // tokenizer.ggml.pre: names the split pattern of "gpt2"; may be empty
  std::vector<std::string> tokens = {};  // by id
  std::vector<float> scores = {};        // by id; empty unless model is "llama"
  // By id; empty: all normal. 1 normal 2 unknown 3 control 4 user 5 unused 6 byte.
  std::vector<int32_t> token_types = {};
  std::vector<std::string> merges = {};  // "left right"
  std::optional<int64_t> bos_id = {}, eos_id = {}, eot_id = {}, eom_id = {}, unk_id = {}, sep_id = {}, pad_id = {},
                         cls_id = {}, mask_id = {};
  std::vector<int64_t> eos_ids = {};  // tokenizer.ggml.eos_token_ids
  std::optional<bool> add_bos = {}, add_eos = {}, add_space_prefix = {}, remove_extra_whitespaces = {};
};

}  // namespace pensieve::tokenizer
