#include "chat/grammar_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "chat/pattern.h"

namespace pensieve::chat {
namespace {

using sampling::Budget;
using sampling::Dfa;
using sampling::GrammarBuilder;
using sampling::Nfa;
using NodeId = sampling::NodeId;

constexpr size_t kTextBytesMax = size_t{256} << 10;
constexpr size_t kRulesMax = 2000;
constexpr int kDepthMax = 64;
// Parts without a recursive rule become one automaton, when it is not larger than this.
constexpr int64_t kAutomatonStepsMax = 100'000;

// A regular part, or one that uses rules.
struct Expression {
  enum class Kind : uint8_t { kLiteral, kSet, kSequence, kChoice, kRepeat, kRule };
  Kind kind = Kind::kSequence;
  std::string literal;
  CodePointSet set;
  std::vector<Expression> children;
  int64_t min = 0;
  int64_t max = -1;
  int32_t rule = -1;
};

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Status Read() {
    SkipBlanks();
    while (at_ < text_.size()) {
      const std::string name = TakeName();
      if (name.empty()) return Wrong("a rule must begin with its name");
      SkipBlanks();
      if (!Take("::=")) return Wrong("\"::=\" must follow the name of a rule");
      SkipBlanks();
      const auto rule = static_cast<size_t>(RuleFor(name));
      if (defined_[rule]) return Wrong(fmt::format("the rule {} is there already", name));
      defined_[rule] = true;
      PENSIEVE_TRY(Expression body, Choice(0));
      rules_[rule] = std::move(body);
      if (at_ < text_.size() && text_[at_] == ')') return Wrong("a closing bracket without an opening one");
      if (rules_.size() > kRulesMax) return Wrong("too many rules");
    }
    for (const auto& [name, rule] : names_) {
      if (!defined_[static_cast<size_t>(rule)]) return InvalidArgument(fmt::format("there is no rule {}", name));
    }
    return names_.contains("root") ? OkStatus() : InvalidArgument("there is no rule root");
  }

  const std::vector<Expression>& rules() const { return rules_; }
  int32_t root() const { return names_.at("root"); }

 private:
  Status Wrong(std::string_view what) const {
    const auto line = std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n') + 1;
    return InvalidArgument(fmt::format("line {}: {}", line, what));
  }
  std::string_view Rest() const { return text_.substr(at_); }
  bool Take(std::string_view word) {
    if (!Rest().starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  void SkipBlanks() {
    while (at_ < text_.size()) {
      if (text_[at_] == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\r' || text_[at_] == '\n') {
        ++at_;
      } else {
        return;
      }
    }
  }
  static bool IsNameCharacter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }
  std::string TakeName() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsNameCharacter(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  // Whether the name of the next rule, with its "::=", stands here.
  bool AtRule() {
    const size_t begin = at_;
    const bool named = !TakeName().empty();
    SkipBlanks();
    const bool at_rule = named && Rest().starts_with("::=");
    at_ = begin;
    return at_rule;
  }
  int32_t RuleFor(const std::string& name) {
    const auto [entry, is_new] = names_.try_emplace(name, static_cast<int32_t>(rules_.size()));
    if (is_new) {
      rules_.emplace_back();
      defined_.push_back(false);
    }
    return entry->second;
  }

  Result<Expression> Choice(int depth) {
    if (depth > kDepthMax) return Wrong("nested too deep");
    Expression choice{.kind = Expression::Kind::kChoice, .literal = {}, .set = {}, .children = {}};
    do {
      SkipBlanks();
      PENSIEVE_TRY(Expression sequence, Sequence(depth));
      choice.children.push_back(std::move(sequence));
    } while (Take("|"));
    if (choice.children.size() == 1) return std::move(choice.children[0]);
    return choice;
  }

  Result<Expression> Sequence(int depth) {
    Expression sequence;
    for (SkipBlanks(); at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')' && !AtRule(); SkipBlanks()) {
      PENSIEVE_TRY(Expression item, Item(depth));
      SkipBlanks();
      PENSIEVE_TRY(item, Repeated(std::move(item)));
      sequence.children.push_back(std::move(item));
    }
    return sequence;
  }

  Result<Expression> Item(int depth) {
    Expression item;
    const char c = text_[at_];
    if (c == '"') return Literal();
    if (c == '[') {
      item.kind = Expression::Kind::kSet;
      auto set = ParseCharacterClass(text_, at_);
      if (!set.has_value()) return Wrong(set.error().message());
      item.set = *std::move(set);
      return item;
    }
    if (Take(".")) {
      item.kind = Expression::Kind::kSet;
      item.set = CodePointSet::All();
      return item;
    }
    if (Take("(")) {
      PENSIEVE_TRY(item, Choice(depth + 1));
      if (!Take(")")) return Wrong("a group without its closing bracket");
      return item;
    }
    const std::string name = TakeName();
    if (name.empty()) return Wrong(fmt::format("\"{}\" cannot stand here", c));
    item.kind = Expression::Kind::kRule;
    item.rule = RuleFor(name);
    return item;
  }

  Result<Expression> Repeated(Expression item) {
    int64_t min = 0;
    int64_t max = -1;
    if (Take("*")) {
    } else if (Take("+")) {
      min = 1;
    } else if (Take("?")) {
      max = 1;
    } else if (Take("{")) {
      const auto first = TakeNumber();
      const bool comma = Take(",");
      const auto last = comma ? TakeNumber() : first;
      if (!first || !Take("}")) return Wrong("a wrong repetition");
      min = *first;
      max = last ? *last : -1;
      if (max >= 0 && max < min) return Wrong("a repetition whose numbers are in reverse order");
    } else {
      return item;
    }
    Expression repeat{.kind = Expression::Kind::kRepeat, .literal = {}, .set = {}, .children = {}};
    repeat.min = min;
    repeat.max = max;
    repeat.children.push_back(std::move(item));
    return repeat;
  }

  std::optional<int64_t> TakeNumber() {
    const size_t begin = at_;
    int64_t number = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      number = std::min<int64_t>(number * 10 + (text_[at_] - '0'), int64_t{1} << 30);
    return at_ > begin ? std::optional(number) : std::nullopt;
  }

  Result<Expression> Literal() {
    ++at_;
    Expression literal{.kind = Expression::Kind::kLiteral, .literal = {}, .set = {}, .children = {}};
    while (true) {
      if (at_ >= text_.size() || text_[at_] == '\n') return Wrong("a literal without its closing quote");
      const char c = text_[at_++];
      if (c == '"') return literal;
      if (c != '\\') {
        literal.literal += c;
        continue;
      }
      if (at_ >= text_.size()) return Wrong("a backslash at the end");
      const char escaped = text_[at_++];
      const size_t digits = escaped == 'x' ? 2 : escaped == 'u' ? 4 : escaped == 'U' ? 8 : 0;
      switch (escaped) {
        case 'n': literal.literal += '\n'; continue;
        case 'r': literal.literal += '\r'; continue;
        case 't': literal.literal += '\t'; continue;
        case '\\':
        case '"':
        case '[':
        case ']': literal.literal += escaped; continue;
        default: break;
      }
      uint32_t value = 0;
      const std::string_view hex = Rest().substr(0, digits);
      const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
      const bool surrogate = value >= 0xD800 && value < 0xE000;
      if (digits == 0 || hex.size() != digits || error != std::errc() || end != hex.data() + digits || surrogate ||
          value > 0x10FFFF)
        return Wrong("a wrong escape");
      at_ += digits;
      AppendUtf8(value, literal.literal);
    }
  }

  const std::string_view text_;
  size_t at_ = 0;
  std::map<std::string, int32_t> names_;
  std::vector<Expression> rules_;
  std::vector<bool> defined_;
};

// Rules that use no rule which uses itself are put in where they are used, and their automata built as a whole.
class Compiler {
 public:
  Compiler(GrammarBuilder& builder, const std::vector<Expression>& rules, Budget& budget)
      : builder_(builder),
        rules_(rules),
        budget_(budget),
        recursive_(rules.size(), false),
        done_(rules.size(), false),
        nodes_(rules.size(), -1) {}

  Result<NodeId> Compile(int32_t root) {
    FindRecursive();
    for (size_t rule = 0; rule < rules_.size(); ++rule) nodes_[rule] = builder_.Reserve();
    for (size_t rule = 0; rule < rules_.size(); ++rule) {
      if (recursive_[rule] || static_cast<int32_t>(rule) == root) PENSIEVE_RETURN_IF_ERROR(Define(rule));
    }
    // Rules that were too large to be put in stand for themselves.
    while (!late_.empty()) {
      const size_t rule = late_.back();
      late_.pop_back();
      PENSIEVE_RETURN_IF_ERROR(Define(rule));
    }
    return nodes_[static_cast<size_t>(root)];
  }

 private:
  using Kind = Expression::Kind;

  Status Define(size_t rule) {
    if (done_[rule]) return OkStatus();
    done_[rule] = true;
    PENSIEVE_TRY(const NodeId body, Make(rules_[rule]));
    builder_.Define(nodes_[rule], body);
    return builder_.status();
  }

  // A rule is recursive when it leads to itself, or to one that does.
  void FindRecursive() {
    std::vector<std::vector<int32_t>> uses(rules_.size());
    std::vector<std::vector<int32_t>> users(rules_.size());
    std::vector<size_t> waits(rules_.size(), 0);
    for (size_t rule = 0; rule < rules_.size(); ++rule) {
      Collect(rules_[rule], uses[rule]);
      std::sort(uses[rule].begin(), uses[rule].end());
      uses[rule].erase(std::unique(uses[rule].begin(), uses[rule].end()), uses[rule].end());
      waits[rule] = uses[rule].size();
      for (const int32_t used : uses[rule]) users[static_cast<size_t>(used)].push_back(static_cast<int32_t>(rule));
    }
    std::vector<size_t> open;
    for (size_t rule = 0; rule < rules_.size(); ++rule) {
      recursive_[rule] = true;
      if (waits[rule] == 0) open.push_back(rule);
    }
    while (!open.empty()) {
      const size_t rule = open.back();
      open.pop_back();
      recursive_[rule] = false;
      for (const int32_t user : users[rule]) {
        if (--waits[static_cast<size_t>(user)] == 0) open.push_back(static_cast<size_t>(user));
      }
    }
  }

  static void Collect(const Expression& expression, std::vector<int32_t>& uses) {
    if (expression.kind == Kind::kRule) uses.push_back(expression.rule);
    for (const Expression& child : expression.children) Collect(child, uses);
  }

  bool IsRegular(const Expression& expression) const {
    if (expression.kind == Kind::kRule) return !recursive_[static_cast<size_t>(expression.rule)];
    return std::all_of(expression.children.begin(), expression.children.end(),
                       [this](const Expression& child) { return IsRegular(child); });
  }

  Result<NodeId> Make(const Expression& expression) {
    PENSIEVE_RETURN_IF_ERROR(budget_.Spend(10));
    if (IsRegular(expression)) {
      Budget part(std::min(budget_.left(), kAutomatonStepsMax));
      const int64_t given = part.left();
      auto dfa = Automaton(expression, part);
      PENSIEVE_RETURN_IF_ERROR(budget_.Spend(given - std::max<int64_t>(part.left(), 0)));
      if (dfa.has_value()) return builder_.Terminal(std::make_shared<const Dfa>(*std::move(dfa)));
    }
    switch (expression.kind) {
      case Kind::kRule:
        if (!recursive_[static_cast<size_t>(expression.rule)]) late_.push_back(static_cast<size_t>(expression.rule));
        return nodes_[static_cast<size_t>(expression.rule)];
      case Kind::kRepeat: {
        PENSIEVE_TRY(const NodeId item, Make(expression.children[0]));
        return builder_.Repeat(item, -1, expression.min, expression.max < 0 ? sampling::kNoMax : expression.max);
      }
      case Kind::kSequence: return MakeSequence(expression);
      case Kind::kChoice: {
        std::vector<NodeId> nodes;
        for (const Expression& child : expression.children) {
          PENSIEVE_TRY(const NodeId node, Make(child));
          nodes.push_back(node);
        }
        return builder_.Choice(std::move(nodes));
      }
      case Kind::kLiteral:
      case Kind::kSet: break;  // too large even alone
    }
    return ResourceExhausted("too complex");
  }

  // Neighbours that are regular are one automaton.
  Result<NodeId> MakeSequence(const Expression& expression) {
    std::vector<NodeId> nodes;
    const auto& children = expression.children;
    const bool whole_failed = IsRegular(expression);
    for (size_t i = 0; i < children.size();) {
      Expression run;
      while (!whole_failed && i < children.size() && IsRegular(children[i])) run.children.push_back(children[i++]);
      if (run.children.size() > 1) {
        PENSIEVE_TRY(const NodeId node, Make(run));
        nodes.push_back(node);
      } else {
        PENSIEVE_TRY(const NodeId node, Make(run.children.empty() ? children[i++] : run.children[0]));
        nodes.push_back(node);
      }
    }
    return builder_.Sequence(std::move(nodes));
  }

  Result<Dfa> Automaton(const Expression& expression, Budget& budget) const {
    Nfa nfa(budget);
    PENSIEVE_TRY(const Nfa::Part part, Add(nfa, expression));
    return Determinize(nfa, part, budget);
  }

  Result<Nfa::Part> Add(Nfa& nfa, const Expression& expression) const {
    PENSIEVE_RETURN_IF_ERROR(nfa.status());
    switch (expression.kind) {
      case Kind::kLiteral: return nfa.Literal(expression.literal);
      case Kind::kSet: return AddCharacter(nfa, expression.set, Spelling::kPlain);
      case Kind::kRule: return Add(nfa, rules_[static_cast<size_t>(expression.rule)]);
      case Kind::kRepeat:
        return nfa.Repeat([&] { return Add(nfa, expression.children[0]); }, expression.min, expression.max);
      case Kind::kSequence:
      case Kind::kChoice: break;
    }
    std::vector<Nfa::Part> parts;
    for (const Expression& child : expression.children) {
      PENSIEVE_TRY(const Nfa::Part part, Add(nfa, child));
      parts.push_back(part);
    }
    return expression.kind == Kind::kChoice ? nfa.Choice(parts) : nfa.Sequence(parts);
  }

  GrammarBuilder& builder_;
  const std::vector<Expression>& rules_;
  Budget& budget_;
  std::vector<bool> recursive_;
  std::vector<bool> done_;
  std::vector<NodeId> nodes_;
  std::vector<size_t> late_;
};

}  // namespace

Result<NodeId> AddGrammarText(GrammarBuilder& builder, std::string_view text, Budget& budget) {
  if (text.size() > kTextBytesMax) return InvalidArgument("too long");
  if (!IsValidUtf8(text)) return InvalidArgument("not valid UTF-8");
  Reader reader(text);
  PENSIEVE_RETURN_IF_ERROR(reader.Read());
  return Compiler(builder, reader.rules(), budget).Compile(reader.root());
}

Result<NodeId> AddRegex(GrammarBuilder& builder, std::string_view pattern, Budget& budget) {
  PENSIEVE_TRY(Dfa dfa, CompilePattern(pattern, /*whole=*/true, Spelling::kPlain, budget));
  return builder.Terminal(std::make_shared<const Dfa>(std::move(dfa)));
}

}  // namespace pensieve::chat
