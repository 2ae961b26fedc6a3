#include "tokenizer/hf_document.h"

#include "fmt/format.h"

namespace pensieve::tokenizer {
namespace {

constexpr size_t kDepthMax = 64;

// Receives nlohmann's parse events. Never throws; an error is kept in status() and ends the parse.
class Handler {
 public:
  using number_integer_t = Json::number_integer_t;
  using number_unsigned_t = Json::number_unsigned_t;
  using number_float_t = Json::number_float_t;
  using string_t = Json::string_t;
  using binary_t = Json::binary_t;

  bool null() { return Value(nullptr); }
  bool boolean(bool value) { return Value(value); }
  bool number_integer(number_integer_t value) { return Number(value, static_cast<double>(value), true); }
  bool number_unsigned(number_unsigned_t value) {
    const bool fits = value <= static_cast<number_unsigned_t>(kTokenIdMax);
    if (place_ != Place::kTree) {
      return Number(fits ? static_cast<int64_t>(value) : kTokenIdMax + 1, static_cast<double>(value), true);
    }
    return Value(value);
  }
  bool number_float(number_float_t value, const string_t& /*text*/) { return Number(0, value, false); }
  bool binary(binary_t& /*value*/) { return Fail("binary data"); }

  bool string(string_t& value) {
    switch (place_) {
      case Place::kTree: return Value(std::move(value));
      case Place::kPiece:
        if (item_ != 0) return Fail("model.vocab: a piece is not [string, number]");
        ++item_;
        document_.vocabulary.push_back({std::move(value), static_cast<int64_t>(document_.vocabulary.size())});
        return true;
      case Place::kMerges: return MergeLine(value);
      case Place::kMergePair:
        if (item_ > 1) return Fail("model.merges: a pair has more than two parts");
        (item_ == 0 ? pair_.first : pair_.second) = std::move(value);
        ++item_;
        return true;
      default: return Unexpected();
    }
  }

  bool start_object(size_t /*size*/) {
    if (place_ != Place::kTree) return Unexpected();
    if (AtModelKey("vocab")) {
      place_ = Place::kVocabulary;
      document_.vocabulary_form = HfDocument::VocabularyForm::kObject;
      return document_.vocabulary.empty() || Fail("model.vocab is given twice");
    }
    return Open(Json::object());
  }
  bool key(string_t& key) {
    if (place_ == Place::kVocabulary) {
      document_.vocabulary.push_back({std::move(key), -1});
      expects_id_ = true;
      return true;
    }
    key_ = std::move(key);
    return true;
  }
  bool end_object() {
    if (place_ == Place::kVocabulary) {
      place_ = Place::kTree;
      return true;
    }
    return Close();
  }

  bool start_array(size_t /*size*/) {
    switch (place_) {
      case Place::kTree:
        if (AtModelKey("vocab")) {
          place_ = Place::kPieces;
          document_.vocabulary_form = HfDocument::VocabularyForm::kArray;
          return document_.vocabulary.empty() || Fail("model.vocab is given twice");
        }
        if (AtModelKey("merges")) {
          place_ = Place::kMerges;
          document_.has_merges = true;
          return true;
        }
        return Open(Json::array());
      case Place::kPieces:
        place_ = Place::kPiece;
        item_ = 0;
        return true;
      case Place::kMerges:
        place_ = Place::kMergePair;
        item_ = 0;
        return true;
      default: return Unexpected();
    }
  }
  bool end_array() {
    switch (place_) {
      case Place::kPiece:
        place_ = Place::kPieces;
        return item_ == 2 || Fail("model.vocab: a piece is not [string, number]");
      case Place::kMergePair:
        place_ = Place::kMerges;
        if (item_ != 2) return Fail("model.merges: a pair has fewer than two parts");
        document_.merges.push_back(std::move(pair_));
        return true;
      case Place::kPieces:
      case Place::kMerges: place_ = Place::kTree; return true;
      default: return Close();
    }
  }

  bool parse_error(size_t position, const std::string& /*token*/, const nlohmann::detail::exception& error) {
    return Fail(fmt::format("invalid JSON at byte {}: {}", position, error.what()));
  }

  const Status& status() const { return status_; }
  HfDocument TakeDocument() { return std::move(document_); }

 private:
  enum class Place { kTree, kVocabulary, kPieces, kPiece, kMerges, kMergePair };
  struct Frame {
    Json value;
    std::string key;  // of this container in its parent
  };

  bool Fail(std::string message) {
    if (status_.ok()) status_ = DataLoss(std::move(message));
    return false;
  }

  bool Unexpected() {
    const bool merges = place_ == Place::kMerges || place_ == Place::kMergePair;
    return Fail(fmt::format("model.{} holds a value of a wrong type", merges ? "merges" : "vocab"));
  }

  bool AtModelKey(std::string_view key) const {
    return frames_.size() == 2 && frames_[1].key == "model" && key_ == key;
  }

  bool Number(int64_t integer, double value, bool is_integer) {
    if (place_ == Place::kTree) return is_integer ? Value(integer) : Value(value);
    if (place_ == Place::kVocabulary && expects_id_ && is_integer) {
      expects_id_ = false;
      document_.vocabulary.back().id = integer;
      return true;
    }
    if (place_ == Place::kPiece && item_ == 1) {
      ++item_;
      document_.scores.push_back(value);
      return true;
    }
    return Unexpected();
  }

  // "left right", with exactly one space.
  bool MergeLine(const std::string& line) {
    if (line.starts_with("#version")) return true;
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
      return Fail(fmt::format("model.merges[{}] is not two tokens with a space between", document_.merges.size()));
    }
    document_.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
    return true;
  }

  bool Value(Json value) {
    if (place_ != Place::kTree) return Unexpected();
    if (frames_.empty()) return Fail("is no JSON object");
    Attach(key_, std::move(value));
    return true;
  }

  // Without a search for the key, which would make large objects quadratic: of equal keys the first is found.
  void Attach(const std::string& key, Json value) {
    Json& parent = frames_.back().value;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
    } else {
      parent.get_ref<Json::object_t&>().emplace_back(key, std::move(value));
    }
  }

  bool Open(Json container) {
    if (frames_.size() >= kDepthMax) return Fail(fmt::format("is nested deeper than {} levels", kDepthMax));
    frames_.push_back({std::move(container), key_});
    return true;
  }

  bool Close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    if (frames_.empty()) {
      document_.root = std::move(frame.value);
    } else {
      Attach(frame.key, std::move(frame.value));
    }
    return true;
  }

  HfDocument document_;
  Status status_;
  std::vector<Frame> frames_;
  std::string key_;
  Place place_ = Place::kTree;
  bool expects_id_ = false;
  int item_ = 0;  // of the piece or pair being read
  std::pair<std::string, std::string> pair_;
};

}  // namespace

Result<HfDocument> ParseHfDocument(std::string_view text) {
  Handler handler;
  const bool parsed = Json::sax_parse(text.begin(), text.end(), &handler);
  if (!handler.status().ok()) return handler.status();
  if (!parsed) return DataLoss("is no valid JSON");
  HfDocument document = handler.TakeDocument();
  if (!document.root.is_object()) return DataLoss("is no JSON object");
  return document;
}

}  // namespace pensieve::tokenizer
