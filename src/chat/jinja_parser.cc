#include "chat/jinja_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>

#include "chat/jinja_lexer.h"

namespace pensieve::chat::jinja {
namespace {

constexpr int kNestingMax = 100;    // of statements and of brackets: bounds the parser's own recursion
constexpr int kExprDepthMax = 400;  // of one expression's tree, long chains of operators included

// Words that end a block's body, such as {"elif", "else", "endif"}.
using EndWords = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Result<Block> Run() {
    PENSIEVE_TRY(Block block, Body({}));
    return block;
  }

 private:
  const Token& Peek() const { return tokens_[pos_]; }
  const Token& PeekNext() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  const Token& Take() {
    const Token& token = tokens_[pos_];
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }
  bool TakeOperator(std::string_view op) {
    if (!Peek().IsOperator(op)) return false;
    Take();
    return true;
  }
  bool TakeName(std::string_view name) {
    if (!Peek().IsName(name)) return false;
    Take();
    return true;
  }

  static std::string Describe(const Token& token) {
    switch (token.type) {
      case TokenType::kText: return "text";
      case TokenType::kVariableBegin: return "'{{'";
      case TokenType::kVariableEnd: return "'}}'";
      case TokenType::kBlockBegin: return "'{%'";
      case TokenType::kBlockEnd: return "'%}'";
      case TokenType::kEnd: return "end of template";
      case TokenType::kString: return "a string";
      default: return fmt::format("'{}'", token.text.substr(0, 40));
    }
  }
  Status Error(std::string_view what) const { return InvalidArgument(fmt::format("line {}: {}", Peek().line, what)); }
  Status Unexpected(std::string_view wanted) const {
    return Error(fmt::format("unexpected {}, expected {}", Describe(Peek()), wanted));
  }
  Status ExpectOperator(std::string_view op) {
    return TakeOperator(op) ? OkStatus() : Unexpected(fmt::format("'{}'", op));
  }
  Status ExpectName(std::string_view name) {
    return TakeName(name) ? OkStatus() : Unexpected(fmt::format("'{}'", name));
  }
  Status ExpectBlockEnd() {
    if (Peek().type != TokenType::kBlockEnd) return Unexpected("'%}'");
    Take();
    return OkStatus();
  }
  Result<std::string> Identifier() {
    if (Peek().type != TokenType::kName) return Unexpected("a name");
    return Take().text;
  }

  // --- expressions -----------------------------------------------------------------------------------------------

  ExprPtr New(ExprKind kind) const {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = Peek().line;
    return expr;
  }
  ExprPtr New(ExprKind kind, ExprPtr operand) const {
    auto expr = New(kind);
    expr->line = operand->line;
    expr->operands.push_back(std::move(operand));
    return expr;
  }
  ExprPtr Constant(Value value) const {
    auto expr = New(ExprKind::kConstant);
    expr->constant = std::move(value);
    return expr;
  }
  // Every finished tree passes here: knows its depth and is refused when too deep.
  Result<ExprPtr> Done(ExprPtr expr) const {
    int depth = 0;
    for (const auto& operand : expr->operands) depth = std::max(depth, operand == nullptr ? 0 : operand->depth);
    for (const auto& keyword : expr->keywords) depth = std::max(depth, keyword.second->depth);
    expr->depth = depth + 1;
    if (expr->depth > kExprDepthMax) {
      return InvalidArgument(
          fmt::format("line {}: an expression is nested deeper than {} levels", expr->line, kExprDepthMax));
    }
    return expr;
  }

  Result<ExprPtr> Expression() {
    if (++nesting_ > kNestingMax) return Error(fmt::format("nested deeper than {} levels", kNestingMax));
    auto result = Conditional();
    --nesting_;
    return result;
  }

  Result<ExprPtr> Conditional() {
    PENSIEVE_TRY(ExprPtr expr, Or());
    while (TakeName("if")) {
      auto conditional = New(ExprKind::kConditional, std::move(expr));
      PENSIEVE_TRY(ExprPtr condition, Or());
      conditional->operands.push_back(std::move(condition));
      ExprPtr otherwise;
      if (TakeName("else")) { PENSIEVE_TRY(otherwise, Expression()); }
      conditional->operands.push_back(std::move(otherwise));
      PENSIEVE_TRY(expr, Done(std::move(conditional)));
    }
    return expr;
  }

  using Rule = Result<ExprPtr> (Parser::*)();

  Result<ExprPtr> Chain(ExprKind kind, std::string_view word, Rule operand) {
    PENSIEVE_TRY(ExprPtr expr, (this->*operand)());
    if (!Peek().IsName(word) && !Peek().IsOperator(word)) return expr;
    auto chain = New(kind, std::move(expr));
    while (Peek().IsName(word) || Peek().IsOperator(word)) {
      Take();
      PENSIEVE_TRY(ExprPtr next, (this->*operand)());
      chain->operands.push_back(std::move(next));
    }
    return Done(std::move(chain));
  }

  Result<ExprPtr> Or() { return Chain(ExprKind::kOr, "or", &Parser::And); }
  Result<ExprPtr> And() { return Chain(ExprKind::kAnd, "and", &Parser::Not); }

  Result<ExprPtr> Not() {
    if (!Peek().IsName("not")) return Comparison();
    if (++nesting_ > kNestingMax) return Error(fmt::format("nested deeper than {} levels", kNestingMax));
    Take();
    PENSIEVE_TRY(ExprPtr operand, Not());
    --nesting_;
    return Done(New(ExprKind::kNot, std::move(operand)));
  }

  // True, with `op` set, when a comparison operator was taken.
  bool TakeComparison(Op& op) {
    static constexpr std::pair<std::string_view, Op> kComparisons[] = {{"==", Op::kEqual},        {"!=", Op::kNotEqual},
                                                                       {"<=", Op::kLessEqual},    {"<", Op::kLess},
                                                                       {">=", Op::kGreaterEqual}, {">", Op::kGreater}};
    for (const auto& [text, kind] : kComparisons) {
      op = kind;
      if (TakeOperator(text)) return true;
    }
    op = Op::kIn;
    if (TakeName("in")) return true;
    if (!Peek().IsName("not") || !PeekNext().IsName("in")) return false;
    Take();
    Take();
    op = Op::kNotIn;
    return true;
  }

  Result<ExprPtr> Comparison() {
    PENSIEVE_TRY(ExprPtr expr, Sum());
    Op op{};
    if (!TakeComparison(op)) return expr;
    auto comparison = New(ExprKind::kCompare, std::move(expr));
    do {
      PENSIEVE_TRY(ExprPtr right, Sum());
      comparison->ops.push_back(op);
      comparison->operands.push_back(std::move(right));
    } while (TakeComparison(op));
    return Done(std::move(comparison));
  }

  Result<ExprPtr> LeftBinary(std::initializer_list<std::pair<std::string_view, Op>> operators, Rule operand) {
    PENSIEVE_TRY(ExprPtr expr, (this->*operand)());
    while (true) {
      const auto found = std::find_if(operators.begin(), operators.end(),
                                      [&](const auto& candidate) { return Peek().IsOperator(candidate.first); });
      if (found == operators.end()) return expr;
      Take();
      auto binary = New(ExprKind::kBinary, std::move(expr));
      binary->op = found->second;
      PENSIEVE_TRY(ExprPtr right, (this->*operand)());
      binary->operands.push_back(std::move(right));
      PENSIEVE_TRY(expr, Done(std::move(binary)));
    }
  }

  Result<ExprPtr> Sum() { return LeftBinary({{"+", Op::kAdd}, {"-", Op::kSubtract}}, &Parser::Concat); }
  Result<ExprPtr> Concat() { return Chain(ExprKind::kConcat, "~", &Parser::Product); }
  Result<ExprPtr> Product() {
    return LeftBinary({{"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}},
                      &Parser::Power);
  }
  Result<ExprPtr> Power() { return LeftBinary({{"**", Op::kPower}}, &Parser::Filtered); }

  Result<ExprPtr> Filtered() {
    PENSIEVE_TRY(ExprPtr expr, Unary());
    return Filters(std::move(expr));
  }

  Result<ExprPtr> Unary() {
    const bool negate = Peek().IsOperator("-");
    if (!negate && !Peek().IsOperator("+")) {
      PENSIEVE_TRY(ExprPtr primary, Primary());
      return Postfix(std::move(primary));
    }
    if (++nesting_ > kNestingMax) return Error(fmt::format("nested deeper than {} levels", kNestingMax));
    Take();
    PENSIEVE_TRY(ExprPtr operand, Unary());
    --nesting_;
    PENSIEVE_TRY(ExprPtr unary, Done(New(negate ? ExprKind::kNegate : ExprKind::kPlus, std::move(operand))));
    return Postfix(std::move(unary));
  }

  Result<ExprPtr> Primary() {
    const Token& token = Peek();
    switch (token.type) {
      case TokenType::kName: return NameOrConstant();
      case TokenType::kString: {
        std::string text;
        while (Peek().type == TokenType::kString) text += Take().text;
        return Constant(Value::Text(std::move(text)));
      }
      case TokenType::kInteger: {
        Int value = 0;
        for (const char digit : token.text) {
          if (__builtin_mul_overflow(value, Int{10}, &value) ||
              __builtin_add_overflow(value, Int{digit - '0'}, &value)) {
            return Error("an integer is out of range");
          }
        }
        Take();
        return Constant(Value::Integer(value));
      }
      case TokenType::kFloat: return Constant(Value::Float(std::strtod(Take().text.c_str(), nullptr)));
      default: break;
    }
    if (TakeOperator("(")) return Parenthesized();
    if (TakeOperator("[")) return ListLiteral();
    if (TakeOperator("{")) return DictLiteral();
    return Unexpected("an expression");
  }

  Result<ExprPtr> NameOrConstant() {
    const std::string& name = Take().text;
    if (name == "true" || name == "True") return Constant(Value::Bool(true));
    if (name == "false" || name == "False") return Constant(Value::Bool(false));
    if (name == "none" || name == "None") return Constant(Value::None());
    if (name == "varargs") uses_varargs_ = true;
    if (name == "kwargs") uses_kwargs_ = true;
    auto expr = New(ExprKind::kName);
    expr->name = name;
    return expr;
  }

  Result<ExprPtr> Parenthesized() {
    if (TakeOperator(")")) return New(ExprKind::kTuple);
    PENSIEVE_TRY(ExprPtr expr, TupleOrSingle());
    PENSIEVE_RETURN_IF_ERROR(ExpectOperator(")"));
    return expr;
  }

  // `a` or `a, b, c`; a trailing comma makes a tuple of one.
  Result<ExprPtr> TupleOrSingle() {
    PENSIEVE_TRY(ExprPtr first, Expression());
    if (!Peek().IsOperator(",")) return first;
    auto tuple = New(ExprKind::kTuple, std::move(first));
    while (TakeOperator(",")) {
      const bool ends = Peek().IsOperator(")") || Peek().IsOperator("=") || Peek().type == TokenType::kVariableEnd ||
                        Peek().type == TokenType::kBlockEnd || Peek().IsName("in");
      if (ends) break;
      PENSIEVE_TRY(ExprPtr next, Expression());
      tuple->operands.push_back(std::move(next));
    }
    return Done(std::move(tuple));
  }

  Result<ExprPtr> ListLiteral() {
    auto list = New(ExprKind::kList);
    while (!TakeOperator("]")) {
      if (!list->operands.empty()) {
        PENSIEVE_RETURN_IF_ERROR(ExpectOperator(","));
        if (TakeOperator("]")) break;
      }
      PENSIEVE_TRY(ExprPtr item, Expression());
      list->operands.push_back(std::move(item));
    }
    return Done(std::move(list));
  }

  Result<ExprPtr> DictLiteral() {
    auto dict = New(ExprKind::kDict);
    while (!TakeOperator("}")) {
      if (!dict->operands.empty()) {
        PENSIEVE_RETURN_IF_ERROR(ExpectOperator(","));
        if (TakeOperator("}")) break;
      }
      PENSIEVE_TRY(ExprPtr key, Expression());
      PENSIEVE_RETURN_IF_ERROR(ExpectOperator(":"));
      PENSIEVE_TRY(ExprPtr value, Expression());
      dict->operands.push_back(std::move(key));
      dict->operands.push_back(std::move(value));
    }
    return Done(std::move(dict));
  }

  Result<ExprPtr> Postfix(ExprPtr expr) {
    while (true) {
      if (TakeOperator(".")) {
        PENSIEVE_TRY(expr, AfterDot(std::move(expr)));
      } else if (TakeOperator("[")) {
        PENSIEVE_TRY(expr, AfterBracket(std::move(expr)));
      } else if (Peek().IsOperator("(")) {
        auto call = New(ExprKind::kCall, std::move(expr));
        PENSIEVE_RETURN_IF_ERROR(Arguments(*call));
        PENSIEVE_TRY(expr, Done(std::move(call)));
      } else {
        return expr;
      }
    }
  }

  Result<ExprPtr> AfterDot(ExprPtr object) {
    if (Peek().type == TokenType::kInteger) {
      PENSIEVE_TRY(ExprPtr index, Primary());
      auto item = New(ExprKind::kItem, std::move(object));
      item->operands.push_back(std::move(index));
      return Done(std::move(item));
    }
    PENSIEVE_TRY(std::string name, Identifier());
    auto attribute = New(ExprKind::kAttribute, std::move(object));
    attribute->name = std::move(name);
    return Done(std::move(attribute));
  }

  Result<ExprPtr> AfterBracket(ExprPtr object) {
    ExprPtr parts[3];
    int colons = 0;
    while (!Peek().IsOperator("]")) {
      if (TakeOperator(":")) {
        if (++colons > 2) return Unexpected("']'");
        continue;
      }
      if (parts[colons] != nullptr) return Unexpected("']'");
      PENSIEVE_TRY(parts[colons], colons == 0 ? TupleOrSingle() : Expression());
    }
    PENSIEVE_RETURN_IF_ERROR(ExpectOperator("]"));
    if (colons == 0 && parts[0] == nullptr) return Error("an index is empty");
    auto expr = New(colons == 0 ? ExprKind::kItem : ExprKind::kSlice, std::move(object));
    expr->operands.push_back(std::move(parts[0]));
    if (colons > 0) {
      expr->operands.push_back(std::move(parts[1]));
      expr->operands.push_back(std::move(parts[2]));
    }
    return Done(std::move(expr));
  }

  // "(a, b, key=c)" into the operands and keywords of `call`.
  Status Arguments(Expr& call) {
    PENSIEVE_RETURN_IF_ERROR(ExpectOperator("("));
    bool first = true;
    while (!TakeOperator(")")) {
      if (!first) {
        PENSIEVE_RETURN_IF_ERROR(ExpectOperator(","));
        if (TakeOperator(")")) break;
      }
      first = false;
      if (Peek().IsOperator("*") || Peek().IsOperator("**")) return Error("argument unpacking is not supported");
      if (Peek().type == TokenType::kName && PeekNext().IsOperator("=")) {
        std::string name = Take().text;
        Take();
        PENSIEVE_TRY(ExprPtr value, Expression());
        call.keywords.emplace_back(std::move(name), std::move(value));
        continue;
      }
      if (!call.keywords.empty()) return Error("a positional argument follows keyword arguments");
      PENSIEVE_TRY(ExprPtr value, Expression());
      call.operands.push_back(std::move(value));
    }
    return OkStatus();
  }

  Result<std::string> DottedName() {
    PENSIEVE_TRY(std::string name, Identifier());
    while (TakeOperator(".")) {
      PENSIEVE_TRY(const std::string part, Identifier());
      name += "." + part;
    }
    return name;
  }

  // "| a | b(c)" of a block, whose text is the first one's input: null here.
  Result<ExprPtr> BlockFilters(ExprPtr expr) {
    while (TakeOperator("|")) { PENSIEVE_TRY(expr, OneFilter(std::move(expr))); }
    return expr;
  }

  // Filters and tests behind an expression; calls of their results too.
  Result<ExprPtr> Filters(ExprPtr expr) {
    while (true) {
      if (TakeOperator("|")) {
        PENSIEVE_TRY(expr, OneFilter(std::move(expr)));
      } else if (TakeName("is")) {
        PENSIEVE_TRY(expr, Test(std::move(expr)));
      } else if (Peek().IsOperator("(")) {
        auto call = New(ExprKind::kCall, std::move(expr));
        PENSIEVE_RETURN_IF_ERROR(Arguments(*call));
        PENSIEVE_TRY(expr, Done(std::move(call)));
      } else {
        return expr;
      }
    }
  }

  Result<ExprPtr> OneFilter(ExprPtr input) {
    auto filter = New(ExprKind::kFilter);
    PENSIEVE_TRY(filter->name, DottedName());
    filter->operands.push_back(std::move(input));
    if (Peek().IsOperator("(")) PENSIEVE_RETURN_IF_ERROR(Arguments(*filter));
    return Done(std::move(filter));
  }

  Result<ExprPtr> Test(ExprPtr input) {
    const bool negated = TakeName("not");
    auto test = New(ExprKind::kTest, std::move(input));
    PENSIEVE_TRY(test->name, DottedName());
    if (Peek().IsOperator("(")) {
      PENSIEVE_RETURN_IF_ERROR(Arguments(*test));
    } else if (StartsTestArgument()) {
      if (Peek().IsName("is")) return Error("tests cannot be chained with 'is'");
      PENSIEVE_TRY(ExprPtr primary, Primary());
      PENSIEVE_TRY(ExprPtr argument, Postfix(std::move(primary)));
      test->operands.push_back(std::move(argument));
    }
    PENSIEVE_TRY(ExprPtr done, Done(std::move(test)));
    if (!negated) return done;
    return Done(New(ExprKind::kNot, std::move(done)));
  }

  // `x is divisibleby 3`: a test takes one argument without parentheses.
  bool StartsTestArgument() const {
    const Token& token = Peek();
    if (token.type == TokenType::kName) {
      return token.text != "else" && token.text != "or" && token.text != "and" && token.text != "if" &&
             token.text != "in" && token.text != "not";
    }
    return token.type == TokenType::kString || token.type == TokenType::kInteger || token.type == TokenType::kFloat ||
           token.IsOperator("[") || token.IsOperator("{");
  }

  // --- statements ------------------------------------------------------------------------------------------------

  // Statements up to `{% word` with a word of `ends`, which is left untaken behind the block begin; or to the end.
  Result<Block> Body(EndWords ends) {
    if (++nesting_ > kNestingMax) return Error(fmt::format("nested deeper than {} levels", kNestingMax));
    Block block;
    while (Peek().type != TokenType::kEnd) {
      if (Peek().type == TokenType::kText) {
        auto text = NewStmt(StmtKind::kText);
        text->text = Take().text;
        block.push_back(std::move(text));
      } else if (Peek().type == TokenType::kVariableBegin) {
        Take();
        auto output = NewStmt(StmtKind::kOutput);
        PENSIEVE_TRY(output->value, TupleOrSingle());
        if (Peek().type != TokenType::kVariableEnd) return Unexpected("'}}'");
        Take();
        block.push_back(std::move(output));
      } else {
        Take();
        if (std::find(ends.begin(), ends.end(), Peek().text) != ends.end() && Peek().type == TokenType::kName) break;
        PENSIEVE_TRY(auto statement, Statement());
        block.push_back(std::move(statement));
      }
    }
    --nesting_;
    if (ends.size() != 0 && Peek().type == TokenType::kEnd) {
      return Error(fmt::format("unexpected end of template, a block is missing its '{}'", *(ends.end() - 1)));
    }
    return block;
  }

  // A body and its end tag.
  Result<Block> BodyUntil(std::string_view end_word) {
    PENSIEVE_RETURN_IF_ERROR(ExpectBlockEnd());
    PENSIEVE_TRY(Block block, Body({end_word}));
    Take();
    PENSIEVE_RETURN_IF_ERROR(ExpectBlockEnd());
    return block;
  }

  std::unique_ptr<Stmt> NewStmt(StmtKind kind) const {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->line = Peek().line;
    return stmt;
  }

  using StmtResult = Result<std::unique_ptr<Stmt>>;

  StmtResult Statement() {
    if (Peek().type != TokenType::kName) return Unexpected("a tag name");
    const std::string word = Take().text;
    if (word == "for") return For();
    if (word == "if") return If();
    if (word == "set") return Set();
    if (word == "macro") return Macro();
    if (word == "call") return CallBlock();
    if (word == "filter") return FilterBlock();
    if (word == "with") return With();
    if (word == "generation") {
      auto scope = NewStmt(StmtKind::kScope);
      PENSIEVE_TRY(scope->body, BodyUntil("endgeneration"));
      return scope;
    }
    if (word == "break" || word == "continue") {
      if (loop_depth_ == 0) return Error(fmt::format("'{}' outside of a loop", word));
      auto jump = NewStmt(word == "break" ? StmtKind::kBreak : StmtKind::kContinue);
      PENSIEVE_RETURN_IF_ERROR(ExpectBlockEnd());
      return jump;
    }
    return Error(fmt::format("unknown or misplaced tag '{}'", word));
  }

  // `name`, `ns.attr` or `a, b`.
  Result<ExprPtr> Target() {
    PENSIEVE_TRY(ExprPtr first, SingleTarget());
    if (!Peek().IsOperator(",")) return first;
    auto tuple = New(ExprKind::kTuple, std::move(first));
    while (TakeOperator(",")) {
      if (Peek().type != TokenType::kName && !Peek().IsOperator("(")) break;
      if (Peek().IsName("in")) break;
      PENSIEVE_TRY(ExprPtr next, SingleTarget());
      tuple->operands.push_back(std::move(next));
    }
    return Done(std::move(tuple));
  }

  Result<ExprPtr> SingleTarget() {
    if (TakeOperator("(")) {
      if (++nesting_ > kNestingMax) return Error(fmt::format("nested deeper than {} levels", kNestingMax));
      PENSIEVE_TRY(ExprPtr inner, Target());
      --nesting_;
      PENSIEVE_RETURN_IF_ERROR(ExpectOperator(")"));
      return inner;
    }
    auto target = New(ExprKind::kName);
    PENSIEVE_TRY(target->name, Identifier());
    static constexpr std::string_view kReserved[] = {"true", "True", "false", "False", "none", "None"};
    if (std::find(std::begin(kReserved), std::end(kReserved), target->name) != std::end(kReserved)) {
      return Error(fmt::format("cannot assign to '{}'", target->name));
    }
    if (!TakeOperator(".")) return target;
    auto attribute = New(ExprKind::kAttribute, std::move(target));
    PENSIEVE_TRY(attribute->name, Identifier());
    return Done(std::move(attribute));
  }

  StmtResult For() {
    auto loop = NewStmt(StmtKind::kFor);
    PENSIEVE_TRY(loop->target, Target());
    PENSIEVE_RETURN_IF_ERROR(ExpectName("in"));
    PENSIEVE_TRY(loop->value, LoopSource());
    if (TakeName("if")) { PENSIEVE_TRY(loop->condition, Expression()); }
    loop->recursive = TakeName("recursive");
    PENSIEVE_RETURN_IF_ERROR(ExpectBlockEnd());
    ++loop_depth_;
    PENSIEVE_TRY(loop->body, Body({"else", "endfor"}));
    --loop_depth_;
    if (Take().text == "else") {
      PENSIEVE_TRY(loop->otherwise, BodyUntil("endfor"));
      return loop;
    }
    PENSIEVE_RETURN_IF_ERROR(ExpectBlockEnd());
    return loop;
  }

  // What a loop runs over: no conditional expression, since `if` starts the loop's filter.
  Result<ExprPtr> LoopSource() {
    PENSIEVE_TRY(ExprPtr first, Or());
    if (!Peek().IsOperator(",")) return first;
    auto tuple = New(ExprKind::kTuple, std::move(first));
    while (TakeOperator(",")) {
      if (Peek().type == TokenType::kBlockEnd) break;
      PENSIEVE_TRY(ExprPtr next, Or());
      tuple->operands.push_back(std::move(next));
    }
    return Done(std::move(tuple));
  }

  StmtResult If() {
    auto branch = NewStmt(StmtKind::kIf);
    while (true) {
      PENSIEVE_TRY(ExprPtr condition, Or());
      PENSIEVE_RETURN_IF_ERROR(ExpectBlockEnd());
      PENSIEVE_TRY(Block body, Body({"elif", "else", "endif"}));
      branch->arms.emplace_back(std::move(condition), std::move(body));
      const std::string word = Take().text;
      if (word == "elif") continue;
      if (word == "else") {
        PENSIEVE_TRY(branch->otherwise, BodyUntil("endif"));
        return branch;
      }
      PENSIEVE_RETURN_IF_ERROR(ExpectBlockEnd());
      return branch;
    }
  }

  StmtResult Set() {
    auto set = NewStmt(StmtKind::kSet);
    PENSIEVE_TRY(set->target, Target());
    if (TakeOperator("=")) {
      PENSIEVE_TRY(set->value, TupleOrSingle());
      PENSIEVE_RETURN_IF_ERROR(ExpectBlockEnd());
      return set;
    }
    set->kind = StmtKind::kSetBlock;
    PENSIEVE_TRY(set->value, BlockFilters(nullptr));
    PENSIEVE_TRY(set->body, BodyUntil("endset"));
    return set;
  }

  Status Signature(Stmt& stmt) {
    PENSIEVE_RETURN_IF_ERROR(ExpectOperator("("));
    while (!TakeOperator(")")) {
      if (!stmt.parameters.empty()) PENSIEVE_RETURN_IF_ERROR(ExpectOperator(","));
      Parameter parameter;
      PENSIEVE_TRY(parameter.name, Identifier());
      if (TakeOperator("=")) {
        PENSIEVE_TRY(parameter.default_value, Expression());
      } else if (!stmt.parameters.empty() && stmt.parameters.back().default_value != nullptr) {
        return Error("a parameter without default follows one with a default");
      }
      stmt.parameters.push_back(std::move(parameter));
    }
    return OkStatus();
  }

  // The body of a macro or call block, and whether it wants surplus arguments.
  Status CallableBody(Stmt& stmt, std::string_view end_word) {
    const bool outer_varargs = std::exchange(uses_varargs_, false);
    const bool outer_kwargs = std::exchange(uses_kwargs_, false);
    const int outer_loops = std::exchange(loop_depth_, 0);
    PENSIEVE_TRY(stmt.body, BodyUntil(end_word));
    stmt.uses_varargs = std::exchange(uses_varargs_, outer_varargs);
    stmt.uses_kwargs = std::exchange(uses_kwargs_, outer_kwargs);
    loop_depth_ = outer_loops;
    return OkStatus();
  }

  StmtResult Macro() {
    auto macro = NewStmt(StmtKind::kMacro);
    PENSIEVE_TRY(macro->name, Identifier());
    PENSIEVE_RETURN_IF_ERROR(Signature(*macro));
    PENSIEVE_RETURN_IF_ERROR(CallableBody(*macro, "endmacro"));
    return macro;
  }

  StmtResult CallBlock() {
    auto call = NewStmt(StmtKind::kCall);
    call->name = "caller";
    if (Peek().IsOperator("(")) PENSIEVE_RETURN_IF_ERROR(Signature(*call));
    PENSIEVE_TRY(call->value, Expression());
    if (call->value->kind != ExprKind::kCall) return Error("'call' needs a macro call");
    PENSIEVE_RETURN_IF_ERROR(CallableBody(*call, "endcall"));
    return call;
  }

  StmtResult FilterBlock() {
    auto block = NewStmt(StmtKind::kFilterBlock);
    PENSIEVE_TRY(ExprPtr first, OneFilter(nullptr));
    PENSIEVE_TRY(block->value, BlockFilters(std::move(first)));
    PENSIEVE_TRY(block->body, BodyUntil("endfilter"));
    return block;
  }

  StmtResult With() {
    auto with = NewStmt(StmtKind::kWith);
    while (Peek().type != TokenType::kBlockEnd) {
      if (!with->assignments.empty()) PENSIEVE_RETURN_IF_ERROR(ExpectOperator(","));
      PENSIEVE_TRY(ExprPtr target, SingleTarget());
      PENSIEVE_RETURN_IF_ERROR(ExpectOperator("="));
      PENSIEVE_TRY(ExprPtr value, Expression());
      with->assignments.emplace_back(std::move(target), std::move(value));
    }
    PENSIEVE_TRY(with->body, BodyUntil("endwith"));
    return with;
  }

  const std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
  int loop_depth_ = 0;
  bool uses_varargs_ = false;
  bool uses_kwargs_ = false;
};

}  // namespace

Result<Block> ParseTemplate(std::string_view source) {
  if (source.size() > kSourceBytesMax) {
    return InvalidArgument(fmt::format("the template has {} bytes, more than {}", source.size(), kSourceBytesMax));
  }
  PENSIEVE_TRY(auto tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace pensieve::chat::jinja
