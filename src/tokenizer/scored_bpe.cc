// SentencePiece's BPE: the vocabulary's scores say which adjacent symbols merge first.
#include <algorithm>
#include <unordered_map>

#include "base/utf8.h"
#include "fmt/format.h"
#include "tokenizer/model.h"
#include "tokenizer/word_cache.h"

namespace pensieve::tokenizer {
namespace {

struct Symbol {
  int32_t begin = 0;
  int32_t size = 0;  // 0: merged into the symbol to its left
  int32_t previous = -1;
  int32_t next = -1;
};

struct Candidate {
  float score;
  int32_t left;
  int32_t right;
  int32_t size;  // of both when queued: a changed size means that one has merged since
};

// Highest score first, then leftmost.
bool Later(const Candidate& a, const Candidate& b) { return a.score != b.score ? a.score < b.score : a.left > b.left; }

class ScoredBpeModel final : public Model {
 public:
  ScoredBpeModel(Vocabulary words, ScoredBpeOptions options)
      : Model(std::move(words)), options_(std::move(options)), byte_tokens_(vocabulary()) {}

  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids) const override {
    if (cache_.Find(word, ids)) return;
    const size_t begin = ids.size();
    Run(word, ids);
    cache_.Insert(word, ids.data() + begin, ids.size() - begin);
  }

 private:
  struct Work {
    std::string_view word;
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;
    std::unordered_map<int32_t, int32_t> left_sizes;  // unused token id -> bytes of the left part it was merged from
  };

  void Run(std::string_view word, std::vector<int32_t>& ids) const {
    Work work{word, {}, {}, {}};
    work.symbols.reserve(word.size());
    for (size_t at = 0; at < word.size();) {
      const size_t size = Utf8Length(word[at]);
      const auto index = static_cast<int32_t>(work.symbols.size());
      work.symbols.push_back({static_cast<int32_t>(at), static_cast<int32_t>(size), index - 1, index + 1});
      at += size;
    }
    work.symbols.back().next = -1;
    for (int32_t i = 1; i < static_cast<int32_t>(work.symbols.size()); ++i) Queue(work, i - 1, i);
    while (!work.queue.empty()) {
      std::pop_heap(work.queue.begin(), work.queue.end(), Later);
      const Candidate top = work.queue.back();
      work.queue.pop_back();
      Symbol& left = work.symbols[static_cast<size_t>(top.left)];
      Symbol& right = work.symbols[static_cast<size_t>(top.right)];
      if (left.size == 0 || right.size == 0 || left.size + right.size != top.size) continue;
      left.size = top.size;
      right.size = 0;
      left.next = right.next;
      if (left.next >= 0) work.symbols[static_cast<size_t>(left.next)].previous = top.left;
      if (left.previous >= 0) Queue(work, left.previous, top.left);
      if (left.next >= 0) Queue(work, top.left, left.next);
    }
    for (int32_t at = 0; at >= 0; at = work.symbols[static_cast<size_t>(at)].next) {
      const Symbol& symbol = work.symbols[static_cast<size_t>(at)];
      Emit(work, word.substr(static_cast<size_t>(symbol.begin), static_cast<size_t>(symbol.size)), ids);
    }
  }

  void Queue(Work& work, int32_t left, int32_t right) const {
    const Symbol& a = work.symbols[static_cast<size_t>(left)];
    const Symbol& b = work.symbols[static_cast<size_t>(right)];
    const auto size = static_cast<size_t>(a.size) + static_cast<size_t>(b.size);
    if (size > vocabulary().longest_bytes()) return;
    const int32_t id = vocabulary().Find(work.word.substr(static_cast<size_t>(a.begin), size));
    if (id < 0 || Kind(id) == ScoredTokenKind::kReserved) return;
    if (Kind(id) == ScoredTokenKind::kUnused) work.left_sizes[id] = a.size;
    work.queue.push_back({options_.scores[static_cast<size_t>(id)], left, right, static_cast<int32_t>(size)});
    std::push_heap(work.queue.begin(), work.queue.end(), Later);
  }

  ScoredTokenKind Kind(int32_t id) const { return options_.kinds[static_cast<size_t>(id)]; }

  // Depth is bounded by the longest token: every step shortens the piece.
  void Emit(const Work& work, std::string_view piece, std::vector<int32_t>& ids) const {
    const int32_t id = vocabulary().Find(piece);
    if (id >= 0 && Kind(id) == ScoredTokenKind::kUnused) {
      if (const auto found = work.left_sizes.find(id); found != work.left_sizes.end()) {
        Emit(work, piece.substr(0, static_cast<size_t>(found->second)), ids);
        Emit(work, piece.substr(static_cast<size_t>(found->second)), ids);
        return;
      }
    }
    if (id >= 0 && Kind(id) != ScoredTokenKind::kReserved) {
      ids.push_back(id);
    } else if (!byte_tokens_.Append(piece, ids) && options_.unk_id >= 0) {
      ids.push_back(options_.unk_id);
    }
  }

  const ScoredBpeOptions options_;
  const ByteTokens byte_tokens_;
  WordCache cache_;
};

}  // namespace

Result<std::unique_ptr<Model>> CreateScoredBpe(Vocabulary vocabulary, ScoredBpeOptions options) {
  const auto count = static_cast<size_t>(vocabulary.size());
  if (options.scores.size() != count || options.kinds.size() != count) {
    return DataLoss(
        fmt::format("{} tokens, but {} scores and {} token types", count, options.scores.size(), options.kinds.size()));
  }
  return std::unique_ptr<Model>(std::make_unique<ScoredBpeModel>(std::move(vocabulary), std::move(options)));
}

}  // namespace pensieve::tokenizer
