// What a mask costs: answers of a schema, token by token, over the vocabularies named by the environment.
//   MASK_TOKENIZER=<tokenizer.json or .gguf> service_bench
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "chat/answer_grammar.h"
#include "formats/gguf.h"
#include "model/text_loader.h"
#include "sampling/constraint.h"
#include "tokenizer/tokenizer.h"

namespace pensieve {
namespace {

const char* const kSchema = R"({"type": "object", "required": ["name", "age", "tags", "notes"], "properties": {
  "name": {"type": "string", "maxLength": 40}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
  "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
  "mail": {"type": "string", "format": "email"},
  "notes": {"type": "array", "items": {"$ref": "#/$defs/note"}}, "extra": {}},
  "$defs": {"note": {"type": "object", "properties": {"text": {"type": "string"}, "score": {"type": "number"}},
            "required": ["text"], "additionalProperties": {"type": "string"}}}})";
const char* const kAnswer = R"({"name": "Ada Lovelace", "age": 36, "tags": ["red", "blue"], "mail": "ada@example.com",
  "notes": [{"text": "She wrote the first program, for a machine that was never built.", "score": 9.5},
            {"text": "Her notes are longer than the article; \"notes\" is modest.", "by": "Charles Babbage, 1843"}],
  "extra": {"years": [1815, 1852], "known": true, "languages": {"english": "yes", "french": "well"}}})";

// A tokenizer and what owns its file.
struct Loaded {
  model::ModelText gguf;
  std::unique_ptr<tokenizer::Tokenizer> json;
  const tokenizer::Tokenizer& get() const { return json != nullptr ? *json : *gguf.tokenizer; }
};

Loaded Load(const std::string& path) {
  Loaded loaded;
  if (path.ends_with(".gguf")) {
    auto file = formats::GgufFile::Open(path);
    PENSIEVE_CHECK(file.has_value());
    auto text = model::ReadGgufText(**file, "");
    PENSIEVE_CHECK(text.has_value());
    loaded.gguf = *std::move(text);
    return loaded;
  }
  std::stringstream bytes;
  bytes << std::ifstream(path).rdbuf();
  auto read = tokenizer::Tokenizer::FromHuggingFace(bytes.str(), Json(), path);
  PENSIEVE_CHECK(read.has_value());
  loaded.json = *std::move(read);
  return loaded;
}

struct Vocabulary {
  std::shared_ptr<sampling::TokenMasks> masks;
  std::vector<int32_t> answer;
};

Vocabulary MakeVocabulary() {
  const char* path = std::getenv("MASK_TOKENIZER");
  if (path == nullptr) return {};
  const Loaded loaded = Load(path);
  const tokenizer::Tokenizer& tokenizer = loaded.get();
  std::vector<sampling::TokenBytes> tokens(static_cast<size_t>(tokenizer.vocab_size()));
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const bool special = tokenizer.IsSpecial(id);
    tokens[static_cast<size_t>(id)] = {special ? tokenizer.IdToToken(id) : tokenizer.TokenBytes(id), special};
  }
  Vocabulary vocabulary;
  vocabulary.masks = std::make_shared<sampling::TokenMasks>(std::make_shared<const sampling::TokenTrie>(tokens));
  // As a model would write it: no token begins with the blanks of two parts.
  vocabulary.answer = tokenizer.Encode(DumpJson(*ParseJson(kAnswer)), {.add_special = false});
  return vocabulary;
}

std::shared_ptr<const sampling::Grammar> Compile() {
  chat::AnswerRules rules;
  rules.form = chat::AnswerForm::kJsonSchema;
  rules.schema = *ParseJson(kSchema);
  return *chat::CompileAnswer(rules);
}

// `fresh`: with no mask known from earlier answers.
void Answer(benchmark::State& state, bool fresh) {
  static const Vocabulary vocabulary = MakeVocabulary();
  if (vocabulary.masks == nullptr) return state.SkipWithError("MASK_TOKENIZER names no tokenizer");
  const auto grammar = Compile();
  int64_t tokens = 0;
  int64_t walks = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto masks = vocabulary.masks;
    if (fresh) {
      masks = std::make_shared<sampling::TokenMasks>(
          std::shared_ptr<const sampling::TokenTrie>(vocabulary.masks, &vocabulary.masks->trie()));
    }
    sampling::TokenSet allowed(masks->trie().size());
    const int64_t walks_before = masks->walks();
    state.ResumeTiming();
    const auto constraint = sampling::NewGrammarConstraint(grammar, masks);
    for (const int32_t id : vocabulary.answer) {
      constraint->FillMask(allowed);
      PENSIEVE_CHECK(allowed.Has(id) && constraint->Accept(id));
    }
    PENSIEVE_CHECK(constraint->accepting());
    tokens += static_cast<int64_t>(vocabulary.answer.size());
    walks += masks->walks() - walks_before;
  }
  state.SetItemsProcessed(tokens);
  state.counters["us_per_token"] =
      benchmark::Counter(static_cast<double>(tokens) * 1e-6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["walks"] = static_cast<double>(walks) / static_cast<double>(state.iterations());
}

BENCHMARK_CAPTURE(Answer, first, true);
BENCHMARK_CAPTURE(Answer, later, false);

void CompileSchema(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Compile());
}
BENCHMARK(CompileSchema);

}  // namespace
}  // namespace pensieve
