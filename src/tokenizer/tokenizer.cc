#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "fmt/format.h"
#include "tokenizer/encode.h"
#include "tokenizer/tokenizer_parts.h"

namespace pensieve::tokenizer {
namespace {

// What the decoder gets for a token; empty when there is none.
std::string_view Spelling(const TokenizerParts& parts, int32_t id) {
  if (const AddedToken* token = parts.added.Find(id)) return token->spelling;
  return parts.model->vocabulary().Text(id);
}

bool IsKnown(const TokenizerParts& parts, int32_t id) {
  return parts.added.Find(id) != nullptr || !parts.model->vocabulary().Text(id).empty();
}

bool IsSpecialToken(const TokenizerParts& parts, int32_t id) {
  const AddedToken* token = parts.added.Find(id);
  if (token != nullptr) return token->special;
  return parts.special_aliases.contains(id);
}

// Special tokens are left out by their spelling, as in the package: other ids may have the same.
void FindSpecialAliases(TokenizerParts& parts) {
  const Vocabulary& vocabulary = parts.model->vocabulary();
  std::unordered_set<std::string_view> contents;
  for (const AddedToken& token : parts.added.tokens()) {
    if (!token.special) continue;
    contents.insert(token.content);
    if (const int32_t id = vocabulary.Find(token.content); id >= 0 && id != token.id) parts.special_aliases.insert(id);
  }
  for (const int32_t id : vocabulary.shadowed_ids()) {
    if (contents.contains(vocabulary.Text(id))) parts.special_aliases.insert(id);
  }
}

// As the `tokenizers` package does it: the shorter text stays whole while the longer one alone can make room; else both
// get half, the second (or the longer) one token more when `tokens_max` is odd.
void CutLongestFirst(int64_t tokens_max, std::vector<int32_t>& a, std::vector<int32_t>& b) {
  const auto limit = static_cast<size_t>(tokens_max);
  if (a.size() + b.size() <= limit) return;
  std::vector<int32_t>& shorter = a.size() > b.size() ? b : a;
  std::vector<int32_t>& longer = a.size() > b.size() ? a : b;
  size_t short_len = shorter.size();
  size_t long_len = short_len > limit ? short_len : std::max(short_len, limit - short_len);
  if (short_len + long_len > limit) {
    short_len = limit / 2;
    long_len = short_len + limit % 2;
  }
  shorter.resize(std::min(shorter.size(), short_len));
  longer.resize(std::min(longer.size(), long_len));
}

}  // namespace

std::string NormalizePiece(const Normalizer* normalizer, std::string_view text) {
  NormalizedText piece{std::string(text), true, {}};
  if (normalizer != nullptr) normalizer->Apply(piece);
  return piece.text;
}

int32_t FindToken(const TokenizerParts& parts, std::string_view token) {
  const int32_t id = parts.added.FindId(token);
  return id >= 0 ? id : parts.model->vocabulary().Find(token);
}

void CollectEndOfGeneration(std::vector<int32_t> ids, TokenizerParts& parts) {
  // In gpt-oss's format (it has <|return|>) an <|end|> ends a message and not the turn.
  const bool harmony = parts.added.FindId("<|return|>") >= 0 && parts.added.FindId("<|channel|>") >= 0;
  static constexpr std::array<std::string_view, 11> kTurnEnds = {
      "<|eot_id|>", "<|im_end|>", "<|end|>",  "<end_of_turn>", "<|endoftext|>",  "<|eom_id|>",
      "<EOT>",      "<|return|>", "<|call|>", "<turn|>",       "<|end_of_text|>"};
  for (const std::string_view token : kTurnEnds) {
    if (harmony && token == "<|end|>") continue;
    if (const int32_t id = parts.added.FindId(token); id >= 0) ids.push_back(id);
  }
  if (parts.special.eos) ids.push_back(parts.special.eos->id);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  parts.special.eog_ids = std::move(ids);
}

struct StreamDecoder::State {
  const TokenizerParts& parts;
  bool skip_special;
  DecodeChain chain;
};

StreamDecoder::StreamDecoder(std::unique_ptr<State> state) : state_(std::move(state)) {}
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::Push(int32_t id) {
  if (!IsKnown(state_->parts, id) || (state_->skip_special && IsSpecialToken(state_->parts, id))) return {};
  return state_->chain.Push(Spelling(state_->parts, id));
}

std::string StreamDecoder::Flush() { return state_->chain.Finish(); }

Tokenizer::Tokenizer(TokenizerParts parts) : parts_(std::make_unique<const TokenizerParts>(std::move(parts))) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromHuggingFace(std::string_view tokenizer_json,
                                                              const Json& tokenizer_config, const std::string& path,
                                                              const TokenizerOptions& options) {
  auto parts = LoadHuggingFace(tokenizer_json, tokenizer_config, options);
  if (!parts) return parts.error().WithContext(path);
  FindSpecialAliases(*parts);
  return std::unique_ptr<Tokenizer>(new Tokenizer(*std::move(parts)));
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(GgufVocabulary vocabulary, const std::string& path,
                                                       const TokenizerOptions& options) {
  auto parts = LoadGguf(std::move(vocabulary), options);
  if (!parts) return parts.error().WithContext(path);
  FindSpecialAliases(*parts);
  return std::unique_ptr<Tokenizer>(new Tokenizer(*std::move(parts)));
}

void Tokenizer::EncodePlain(std::string_view text, bool parse_special, std::vector<int32_t>& ids) const {
  std::string repaired;
  if (!IsValidUtf8(text)) {
    repaired = ToValidUtf8(text);
    text = repaired;
  }
  for (const auto& piece : parts_->added.Split(text, AddedTokens::Pass::kRaw, parse_special)) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
    } else {
      NormalizedText part{std::string(text.substr(piece.begin, piece.end - piece.begin)), piece.begin == 0, {}};
      EncodePiece(*parts_, std::move(part), parse_special, /*authors=*/nullptr, ids);
    }
  }
}

Result<EncodedPair> Tokenizer::EncodePair(std::string_view first, std::string_view second,
                                          const PairOptions& options) const {
  using Kind = PairPart::Kind;
  static const PairTemplate kPlain{{{Kind::kFirst, {}, 0}, {Kind::kSecond, {}, 1}}, ""};
  const PairTemplate& pair = parts_->pair.parts.empty() ? kPlain : parts_->pair;
  if (!pair.problem.empty()) return Unimplemented(fmt::format("pairs of texts: {}", pair.problem));
  std::vector<int32_t> a, b;
  EncodePlain(first, options.parse_special, a);
  EncodePlain(second, options.parse_special, b);
  const int64_t added = pair.added_tokens();
  EncodedPair encoded;
  encoded.tokens_seen = static_cast<int64_t>(a.size() + b.size()) + added;
  if (options.tokens_max > 0) {
    if (options.tokens_max <= added) {
      return InvalidArgument(
          fmt::format("a pair of texts needs more than {} tokens for its special tokens alone", added));
    }
    CutLongestFirst(options.tokens_max - added, a, b);
  }
  encoded.second_from = -1;
  for (const PairPart& part : pair.parts) {
    if (part.type == 1 && encoded.second_from < 0) encoded.second_from = static_cast<int32_t>(encoded.ids.size());
    const std::vector<int32_t>& ids = part.kind == Kind::kFirst ? a : part.kind == Kind::kSecond ? b : part.ids;
    encoded.ids.insert(encoded.ids.end(), ids.begin(), ids.end());
  }
  if (encoded.second_from < 0) encoded.second_from = static_cast<int32_t>(encoded.ids.size());
  return encoded;
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_special) ids = parts_->prefix_ids;
  EncodePlain(text, options.parse_special, ids);
  if (options.add_special) ids.insert(ids.end(), parts_->suffix_ids.begin(), parts_->suffix_ids.end());
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  const auto stream = NewStreamDecoder(skip_special);
  std::string text;
  for (const int32_t id : ids) text.append(stream->Push(id));
  text.append(stream->Flush());
  return text;
}

int32_t Tokenizer::vocab_size() const {
  int32_t size = parts_->model->vocabulary().size();
  for (const AddedToken& token : parts_->added.tokens()) size = std::max(size, token.id + 1);
  for (const int32_t id : parts_->prefix_ids) size = std::max(size, id + 1);
  for (const int32_t id : parts_->suffix_ids) size = std::max(size, id + 1);
  for (const PairPart& part : parts_->pair.parts) {
    for (const int32_t id : part.ids) size = std::max(size, id + 1);
  }
  return size;
}

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  const int32_t id = FindToken(*parts_, token);
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

std::string Tokenizer::IdToToken(int32_t id) const {
  if (const AddedToken* token = parts_->added.Find(id)) return token->content;
  return parts_->model->vocabulary().Text(id);
}

std::string Tokenizer::TokenBytes(int32_t id) const {
  if (!IsKnown(*parts_, id)) return {};
  std::string text(Spelling(*parts_, id));
  for (const DecoderStagePtr& stage : parts_->decoder) text = stage->TokenText(std::move(text));
  return text;
}

bool Tokenizer::IsSpecial(int32_t id) const { return IsSpecialToken(*parts_, id); }

const SpecialTokens& Tokenizer::special() const { return parts_->special; }

std::unique_ptr<StreamDecoder> Tokenizer::NewStreamDecoder(bool skip_special) const {
  auto state = std::unique_ptr<StreamDecoder::State>(
      new StreamDecoder::State{*parts_, skip_special, DecodeChain(parts_->decoder)});
  return std::unique_ptr<StreamDecoder>(new StreamDecoder(std::move(state)));
}

const std::vector<std::string>& Tokenizer::warnings() const { return parts_->warnings; }

}  // namespace pensieve::tokenizer
