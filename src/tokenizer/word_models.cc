// The models without merges: WordPiece, Unigram, WordLevel.
#include <algorithm>
#include <limits>

#include "base/utf8.h"
#include "fmt/format.h"
#include "tokenizer/byte_trie.h"
#include "tokenizer/model.h"

namespace pensieve::tokenizer {
namespace {

class WordPieceModel final : public Model {
 public:
  WordPieceModel(Vocabulary words, WordPieceOptions options)
      : Model(std::move(words)), options_(std::move(options)), unk_id_(vocabulary().Find(options_.unk_token)) {}

  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids) const override {
    int64_t chars = 0;
    for (size_t at = 0; at < word.size(); at += Utf8Length(word[at])) ++chars;
    const size_t begin = ids.size();
    if (chars <= options_.max_input_chars_per_word && MatchPieces(word, ids)) return;
    ids.resize(begin);
    ids.push_back(unk_id_);
  }
  bool takes_parts() const override { return false; }

 private:
  bool MatchPieces(std::string_view word, std::vector<int32_t>& ids) const {
    std::string piece;
    for (size_t begin = 0; begin < word.size();) {
      const std::string_view prefix = begin == 0 ? std::string_view() : options_.continuing_subword_prefix;
      // No piece is longer than the vocabulary's longest token, so that one step costs no more than that squared.
      size_t end = std::min(word.size(), begin + vocabulary().longest_bytes());
      if (end < word.size()) end = PreviousCharacter(word, end + 1);  // not within a character
      int32_t id = -1;
      for (; end > begin; end = PreviousCharacter(word, end)) {
        piece.assign(prefix);
        piece.append(word.substr(begin, end - begin));
        id = vocabulary().Find(piece);
        if (id >= 0) break;
      }
      if (id < 0) return false;
      ids.push_back(id);
      begin = end;
    }
    return true;
  }

  const WordPieceOptions options_;
  const int32_t unk_id_;
};

class UnigramModel final : public Model {
 public:
  UnigramModel(Vocabulary words, UnigramOptions options)
      : Model(std::move(words)), options_(std::move(options)), byte_tokens_(vocabulary()) {
    double lowest = std::numeric_limits<double>::infinity();
    for (int32_t id = 0; id < vocabulary().size(); ++id) {
      lowest = std::min(lowest, options_.scores[static_cast<size_t>(id)]);
      const std::string& text = vocabulary().Text(id);
      if (!text.empty() && vocabulary().Find(text) == id) trie_.Insert(text, id);
    }
    trie_.Finish();
    constexpr double kUnkPenalty = 10.0;
    unk_score_ = lowest - kUnkPenalty;
  }

  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids) const override {
    const std::vector<Node> nodes = BestPath(word);
    // Backwards from the end; neighbouring unknown pieces become one.
    std::vector<TextPiece> pieces;
    bool unk_open = false;
    for (size_t end = word.size(); end > 0;) {
      const Node& node = nodes[end];
      const bool is_unk = options_.unk_id >= 0 && node.id == options_.unk_id;
      if (is_unk && unk_open) {
        pieces.back().begin = node.begin;
      } else {
        pieces.push_back({node.begin, end});
      }
      unk_open = is_unk;
      end = node.begin;
    }
    for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
      const std::string_view text = word.substr(piece->begin, piece->end - piece->begin);
      if (const int32_t id = vocabulary().Find(text); id >= 0) {
        ids.push_back(id);
      } else if (!(options_.byte_fallback && byte_tokens_.Append(text, ids)) && options_.unk_id >= 0) {
        ids.push_back(options_.unk_id);
      }
    }
  }

 private:
  struct TextPiece {
    size_t begin;
    size_t end;
  };
  struct Node {
    double score = 0;
    size_t begin = std::string_view::npos;  // npos: not reached
    int32_t id = -1;
  };

  // nodes[i]: the best last piece of a segmentation of the first i bytes.
  std::vector<Node> BestPath(std::string_view word) const {
    std::vector<Node> nodes(word.size() + 1);
    const auto offer = [&nodes](size_t begin, size_t end, double score, int32_t id) {
      Node& node = nodes[end];
      if (node.begin == std::string_view::npos || score > node.score) node = {score, begin, id};
    };
    for (size_t begin = 0; begin < word.size();) {
      const double score = nodes[begin].score;
      const size_t char_bytes = Utf8Length(word[begin]);
      bool has_character = false;
      ByteTrie::Walk walk(trie_);
      for (size_t end = begin; end < word.size() && walk.Step(word[end]);) {
        ++end;
        if (walk.value() < 0) continue;
        offer(begin, end, options_.scores[static_cast<size_t>(walk.value())] + score, walk.value());
        has_character = has_character || end - begin == char_bytes;
      }
      if (!has_character) offer(begin, begin + char_bytes, unk_score_ + score, options_.unk_id);
      begin += char_bytes;
    }
    return nodes;
  }

  const UnigramOptions options_;
  const ByteTokens byte_tokens_;
  ByteTrie trie_;
  double unk_score_ = 0;
};

class WordLevelModel final : public Model {
 public:
  WordLevelModel(Vocabulary words, int32_t unk_id) : Model(std::move(words)), unk_id_(unk_id) {}
  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids) const override {
    const int32_t id = vocabulary().Find(word);
    ids.push_back(id >= 0 ? id : unk_id_);
  }
  bool takes_parts() const override { return false; }

 private:
  const int32_t unk_id_;
};

Status RequireUnk(const Vocabulary& vocabulary, const std::string& unk_token) {
  if (vocabulary.Find(unk_token) >= 0) return OkStatus();
  return DataLoss(fmt::format("unk_token \"{}\" is not in the vocabulary", unk_token));
}

}  // namespace

Result<std::unique_ptr<Model>> CreateWordPiece(Vocabulary vocabulary, WordPieceOptions options) {
  PENSIEVE_RETURN_IF_ERROR(RequireUnk(vocabulary, options.unk_token));
  if (options.max_input_chars_per_word < 0) return DataLoss("max_input_chars_per_word is negative");
  return std::unique_ptr<Model>(std::make_unique<WordPieceModel>(std::move(vocabulary), std::move(options)));
}

Result<std::unique_ptr<Model>> CreateUnigram(Vocabulary vocabulary, UnigramOptions options) {
  if (options.scores.size() != static_cast<size_t>(vocabulary.size()) || options.scores.empty()) {
    return DataLoss(fmt::format("{} pieces, but {} scores", vocabulary.size(), options.scores.size()));
  }
  if (options.unk_id >= vocabulary.size()) return DataLoss(fmt::format("unk_id {} is no piece", options.unk_id));
  for (const double score : options.scores) {
    if (score != score) return DataLoss("a piece's score is no number");
  }
  return std::unique_ptr<Model>(std::make_unique<UnigramModel>(std::move(vocabulary), std::move(options)));
}

Result<std::unique_ptr<Model>> CreateWordLevel(Vocabulary vocabulary, const std::string& unk_token) {
  PENSIEVE_RETURN_IF_ERROR(RequireUnk(vocabulary, unk_token));
  const int32_t unk_id = vocabulary.Find(unk_token);
  return std::unique_ptr<Model>(std::make_unique<WordLevelModel>(std::move(vocabulary), unk_id));
}

}  // namespace pensieve::tokenizer
