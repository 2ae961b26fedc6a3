// Byte pair encoding over ranked merges: a linked list of symbols and a priority queue of candidate merges.
#include <algorithm>
#include <bit>

#include "base/utf8.h"
#include "fmt/format.h"
#include "tokenizer/model.h"
#include "tokenizer/word_cache.h"

namespace pensieve::tokenizer {
namespace {

struct Merge {
  int32_t rank = -1;  // -1: the pair does not merge
  int32_t merged = -1;
};

// (left id, right id) -> merge; open addressing, at most half full.
class MergeTable {
 public:
  explicit MergeTable(size_t count) : slots_(std::bit_ceil(std::max<size_t>(count, 8) * 2)) {}

  // A later merge of the same pair replaces the earlier one, as in the package.
  void Insert(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[SlotOf(Key(left, right))];
    slot = {Key(left, right), merge};
  }
  Merge Find(int32_t left, int32_t right) const { return slots_[SlotOf(Key(left, right))].merge; }

 private:
  struct Slot {
    uint64_t key = ~uint64_t{0};
    Merge merge;
  };
  static uint64_t Key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }
  // The slot of `key`, or the free one where it would go.
  size_t SlotOf(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t at = static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask;
    while (slots_[at].key != key && slots_[at].key != ~uint64_t{0}) at = (at + 1) & mask;
    return at;
  }
  std::vector<Slot> slots_;
};

struct Symbol {
  int32_t id = -1;
  int32_t previous = -1;
  int32_t next = -1;
};

struct Candidate {
  int32_t rank;
  int32_t position;  // of the left symbol
  int32_t merged;
};

// Lowest rank first, then leftmost (a heap keeps its largest on top).
bool Later(const Candidate& a, const Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

class BpeModel final : public Model {
 public:
  BpeModel(Vocabulary words, BpeOptions options, MergeTable merges)
      : Model(std::move(words)),
        options_(std::move(options)),
        merges_(std::move(merges)),
        byte_tokens_(vocabulary()),
        unk_id_(options_.unk_token ? vocabulary().Find(*options_.unk_token) : -1) {
    affixes_ = !options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty();
    char_ids_.assign(kCharIdsCount, -1);
    for (int32_t id = 0; id < vocabulary().size(); ++id) {
      const std::string& text = vocabulary().Text(id);
      if (text.empty() || Utf8Length(text[0]) != text.size()) continue;
      size_t at = 0;
      const char32_t c = NextCodePoint(text, at);
      if (c < kCharIdsCount) char_ids_[c] = vocabulary().Find(text);
    }
  }

  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids) const override {
    if (options_.ignore_merges) {
      if (const int32_t id = vocabulary().Find(word); id >= 0) {
        ids.push_back(id);
        return;
      }
    }
    if (cache_.Find(word, ids)) return;
    std::vector<int32_t> symbols;
    symbols.reserve(word.size());
    SplitIntoSymbols(word, symbols);
    const size_t begin = ids.size();
    if (symbols.size() < 2) {
      ids.insert(ids.end(), symbols.begin(), symbols.end());
    } else {
      MergeAll(symbols, ids);
    }
    cache_.Insert(word, ids.data() + begin, ids.size() - begin);
  }

 private:
  static constexpr char32_t kCharIdsCount = 0x10000;

  int32_t FindCharacter(std::string_view character, bool is_first, bool is_last) const {
    if (!affixes_) {
      size_t at = 0;
      const char32_t c = NextCodePoint(character, at);
      return c < kCharIdsCount ? char_ids_[c] : vocabulary().Find(character);
    }
    return vocabulary().Find(WithAffixes(character, is_first, is_last));
  }

  std::string WithAffixes(std::string_view character, bool is_first, bool is_last) const {
    std::string text = is_first ? std::string() : options_.continuing_subword_prefix;
    text.append(character);
    if (is_last) text.append(options_.end_of_word_suffix);
    return text;
  }

  // Known characters are their ids; others byte tokens, unk, or nothing. An unk that is pending while byte tokens are
  // added comes behind them, as it does in the package.
  void SplitIntoSymbols(std::string_view word, std::vector<int32_t>& symbols) const {
    bool unk_pending = false;
    for (size_t at = 0; at < word.size();) {
      const size_t begin = at;
      at += Utf8Length(word[at]);
      const std::string_view character = word.substr(begin, at - begin);
      const bool is_first = begin == 0;
      const bool is_last = at == word.size();
      if (const int32_t id = FindCharacter(character, is_first, is_last); id >= 0) {
        if (unk_pending) symbols.push_back(unk_id_);
        unk_pending = false;
        symbols.push_back(id);
        continue;
      }
      if (options_.byte_fallback && byte_tokens_.Append(WithAffixes(character, is_first, is_last), symbols)) continue;
      if (unk_id_ < 0) continue;
      if (unk_pending && !options_.fuse_unk) symbols.push_back(unk_id_);
      unk_pending = true;
    }
    if (unk_pending) symbols.push_back(unk_id_);
  }

  void MergeAll(const std::vector<int32_t>& initial, std::vector<int32_t>& ids) const {
    const auto count = static_cast<int32_t>(initial.size());
    std::vector<Symbol> symbols(initial.size());
    std::vector<Candidate> queue;
    queue.reserve(initial.size());
    for (int32_t i = 0; i < count; ++i) {
      symbols[static_cast<size_t>(i)] = {initial[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1};
      if (i == 0) continue;
      const Merge merge = merges_.Find(initial[static_cast<size_t>(i) - 1], initial[static_cast<size_t>(i)]);
      if (merge.rank >= 0) queue.push_back({merge.rank, i - 1, merge.merged});
    }
    std::make_heap(queue.begin(), queue.end(), Later);
    while (!queue.empty()) {
      std::pop_heap(queue.begin(), queue.end(), Later);
      const Candidate top = queue.back();
      queue.pop_back();
      Apply(top, symbols, queue);
    }
    for (int32_t at = 0; at >= 0; at = symbols[static_cast<size_t>(at)].next) {
      ids.push_back(symbols[static_cast<size_t>(at)].id);
    }
  }

  // Merges the candidate's pair if it is still there, and queues the pairs that the new symbol makes.
  void Apply(const Candidate& top, std::vector<Symbol>& symbols, std::vector<Candidate>& queue) const {
    Symbol& left = symbols[static_cast<size_t>(top.position)];
    if (left.id < 0 || left.next < 0) return;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge current = merges_.Find(left.id, right.id);
    if (current.rank < 0 || current.merged != top.merged) return;
    left.id = top.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.position;
    const auto push = [&](int32_t position) {
      const Symbol& first = symbols[static_cast<size_t>(position)];
      const Merge merge = merges_.Find(first.id, symbols[static_cast<size_t>(first.next)].id);
      if (merge.rank < 0) return;
      queue.push_back({merge.rank, position, merge.merged});
      std::push_heap(queue.begin(), queue.end(), Later);
    };
    if (left.previous >= 0) push(left.previous);
    if (left.next >= 0) push(top.position);
  }

  const BpeOptions options_;
  const MergeTable merges_;
  const ByteTokens byte_tokens_;
  const int32_t unk_id_;
  bool affixes_ = false;
  std::vector<int32_t> char_ids_;  // by code point: most lookups of a character need no hash
  WordCache cache_;
};

}  // namespace

ByteTokens::ByteTokens(const Vocabulary& vocabulary) : ids_(256) {
  for (size_t byte = 0; byte < 256; ++byte) ids_[byte] = vocabulary.Find(fmt::format("<0x{:02X}>", byte));
}

bool ByteTokens::Append(std::string_view bytes, std::vector<int32_t>& ids) const {
  const size_t begin = ids.size();
  for (const char c : bytes) {
    const int32_t id = ids_[static_cast<unsigned char>(c)];
    if (id < 0) {
      ids.resize(begin);
      return false;
    }
    ids.push_back(id);
  }
  return true;
}

Result<std::unique_ptr<Model>> CreateBpe(Vocabulary vocabulary, BpeOptions options) {
  MergeTable merges(options.merges.size());
  const size_t prefix = options.continuing_subword_prefix.size();
  for (size_t rank = 0; rank < options.merges.size(); ++rank) {
    const auto& [left, right] = options.merges[rank];
    const auto fail = [&, rank = rank](const std::string& token) {
      return DataLoss(fmt::format("merges[{}] names the token \"{}\", which is not in the vocabulary", rank, token));
    };
    const int32_t left_id = vocabulary.Find(left);
    if (left_id < 0) return fail(left);
    const int32_t right_id = vocabulary.Find(right);
    if (right_id < 0) return fail(right);
    const std::string joined = left + right.substr(std::min(prefix, right.size()));
    const int32_t merged = vocabulary.Find(joined);
    if (merged < 0) return fail(joined);
    merges.Insert(left_id, right_id, {static_cast<int32_t>(rank), merged});
  }
  if (options.unk_token && vocabulary.Find(*options.unk_token) < 0) {
    return DataLoss(fmt::format("unk_token \"{}\" is not in the vocabulary", *options.unk_token));
  }
  options.merges = {};
  return std::unique_ptr<Model>(
      std::make_unique<BpeModel>(std::move(vocabulary), std::move(options), std::move(merges)));
}

}  // namespace pensieve::tokenizer
