// What may come next: a text that a grammar allows, followed token by token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "sampling/grammar.h"
#include "sampling/token_masks.h"
#include "sampling/token_set.h"

namespace pensieve::sampling {

// One per sequence. Not thread-safe, but may move between threads.
class Constraint {
 public:
  virtual ~Constraint() = default;
  virtual int32_t vocab_size() const = 0;
  // The ids that may come next, those that end the text left out. `mask` has the size of the vocabulary.
  virtual void FillMask(TokenSet& mask) = 0;
  // Takes the token as read. False, with nothing changed, when it is not allowed here.
  virtual bool Accept(int32_t id) = 0;
  // The same for bytes that are no token of the answer (the beginning of an answer that a client gave).
  virtual bool AcceptBytes(std::string_view bytes) = 0;
  // Forgets the last tokens; at most kRollbackMax of them, and never AcceptBytes.
  virtual void Rollback(int64_t num_tokens) = 0;
  // The text may end here.
  virtual bool accepting() const = 0;
  // It must: nothing can follow.
  virtual bool finished() const = 0;
  // A fresh one, where this one began.
  virtual std::unique_ptr<Constraint> Clone() const = 0;

  static constexpr int64_t kRollbackMax = 64;
};

// Whether the grammar accepts the whole of `text`.
bool Matches(const Grammar& grammar, std::string_view text);

// Both are shared with other constraints.
std::unique_ptr<Constraint> NewGrammarConstraint(std::shared_ptr<const Grammar> grammar,
                                                 std::shared_ptr<TokenMasks> masks);

}  // namespace pensieve::sampling
