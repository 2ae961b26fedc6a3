// What a path means: where a model's files lie, and one sentence for whatever is no model.
#pragma once

#include <string>

#include "base/status.h"
#include "formats/gguf.h"

namespace pensieve::model {

// Either a GGUF file or a directory with a config.json.
struct ModelPlace {
  std::string gguf;         // the file; "": a directory
  std::string directory;    // with config.json, tokenizer.json and safetensors
  std::string safetensors;  // the one weight file that was asked for; "": those that the directory names

  bool is_gguf() const { return !gguf.empty(); }
};

// `path` is a GGUF file, a safetensors file or config.json of a model's directory, such a directory, a directory with
// one GGUF model (projectors, adapters and importance matrices beside it do not count), or the folder of a repository
// in Hugging Face's cache. Of a directory with safetensors and GGUF files the safetensors are meant. NotFound when
// there is nothing; Unimplemented or InvalidArgument, with what to do, when there is something else: adapters, PyTorch
// checkpoints, tokenizers alone, several models, ...
Result<ModelPlace> FindModelFiles(const std::string& path);

// As FindModelFiles, but a directory need not hold weights: for those who need the tokenizer only.
Result<ModelPlace> FindTokenizerFiles(const std::string& path);

// Unimplemented when the file holds something else than a model's weights: the vision projector of one, an adapter, an
// importance matrix, a vocabulary alone.
Status CheckIsModel(const formats::GgufFile& file);

// The error for a directory without tokenizer.json: names the tokenizer files that are there and how to convert them.
Status MissingTokenizer(const std::string& directory);

}  // namespace pensieve::model
