// Which tokens an automaton reads from a state, for all grammars over one vocabulary: found once by a walk over the
// trie and kept, for the same states (inside a string, inside a number) come again and again.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "sampling/automaton.h"
#include "sampling/token_set.h"
#include "sampling/token_trie.h"

namespace pensieve::sampling {

// What a walk from one state of an automaton finds. A token is in exactly one of: inside, ends, none of them; and has
// its place below any number of exits.
struct StateMask {
  TokenSet inside;  // the automaton reads all bytes and may go on
  // The automaton reads all bytes and accepts, where whether it may is for the caller to say: with labels or counts.
  struct End {
    int32_t token;
    int32_t units;
    int32_t label;
  };
  std::vector<End> ends;
  // Tokens below this node of the trie begin with a text that the automaton accepts.
  struct Exit {
    int32_t node;
    int32_t units;
    int32_t label;
  };
  std::vector<Exit> exits;
  // With a counting state: tokens of `inside` by the units that they need, a begun one included. Below
  // inside_by_units.size() all tokens are in one of the lists.
  std::vector<std::vector<int32_t>> inside_by_units;

  int64_t bytes() const;
};

// Thread-safe.
class TokenMasks {
 public:
  explicit TokenMasks(std::shared_ptr<const TokenTrie> trie, int64_t bytes_max = int64_t{64} << 20)
      : trie_(std::move(trie)), bytes_max_(bytes_max) {}

  const TokenTrie& trie() const { return *trie_; }
  // Walks when it is not known.
  std::shared_ptr<const StateMask> Get(const std::shared_ptr<const Dfa>& dfa, int32_t state);
  int64_t walks() const { return walks_; }

 private:
  struct Key {
    const Dfa* dfa;
    int32_t state;
    bool operator==(const Key&) const = default;
  };
  struct HashKey {
    size_t operator()(const Key& key) const {
      return std::hash<const void*>()(key.dfa) * 31 + static_cast<size_t>(key.state) * 0x9E3779B97F4A7C15u;
    }
  };
  struct Entry {
    Key key;
    std::shared_ptr<const Dfa> dfa;  // so that its address means nothing else meanwhile
    std::shared_ptr<const StateMask> mask;
    int64_t bytes;
  };

  const std::shared_ptr<const TokenTrie> trie_;
  const int64_t bytes_max_;
  Mutex mutex_;
  std::list<Entry> entries_ PENSIEVE_GUARDED_BY(mutex_);  // the last used first
  std::unordered_map<Key, std::list<Entry>::iterator, HashKey> found_ PENSIEVE_GUARDED_BY(mutex_);
  int64_t bytes_ PENSIEVE_GUARDED_BY(mutex_) = 0;
  std::atomic<int64_t> walks_{0};
};

// The walk itself. `is_live(state)`: false where labels that may not be used are all that is left.
StateMask WalkTrie(const TokenTrie& trie, const Dfa& dfa, int32_t state, const std::function<bool(int32_t)>& is_live);

}  // namespace pensieve::sampling
