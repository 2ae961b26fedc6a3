#include "chat/jinja_evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/utf8.h"
#include "chat/jinja_globals.h"
#include "chat/jinja_print.h"
#include "chat/python_text.h"

namespace pensieve::chat::jinja {

// One level of names. Loops, macros and {% with %} open one; {% if %} does not.
struct Scope : Object {
  Scope* parent = nullptr;
  bool captured = false;  // a macro was defined in it, so it must not be reused
  std::vector<std::pair<std::string_view, Value>> names;

  Value* Find(std::string_view name) {
    for (auto& [key, value] : names) {
      if (key == name) return &value;
    }
    return nullptr;
  }
  void Set(std::string_view name, Value value) {
    if (Value* held = Find(name)) {
      *held = std::move(value);
    } else {
      names.emplace_back(name, std::move(value));
    }
  }
};

// `loop`, and the state of the iteration. Filtered items are looked at only when needed, because the condition may
// depend on what earlier iterations did.
struct LoopObject : Object {
  const Stmt* stmt = nullptr;
  Scope* outer = nullptr;
  std::vector<Value> items;
  size_t next = 0;  // of items not yet taken
  size_t index0 = 0;
  int depth0 = 0;
  std::optional<Value> previous;
  std::optional<Value> current;
  std::optional<Value> after;  // looked ahead
  std::optional<Value> changed;
  bool conditions_done = false;  // the remaining items have passed the loop's condition
};

namespace {

enum class Flow : uint8_t { kNormal, kBreak, kContinue };

class Evaluator final : public Runtime {
 public:
  explicit Evaluator(const RenderContext& context) : Runtime(context.limits), context_(context) {}

  Result<TracedText> Run(const Block& block) {
    PENSIEVE_RETURN_IF_ERROR(SetGlobals());
    auto flow = Execute(block);
    if (!flow.has_value()) return std::move(flow).error();
    return std::move(root_out_);
  }

 protected:
  Result<Value> CallMacro(const CallableObject& macro, const CallArgs& args) override;
  Result<Value> LoopAttribute(LoopObject& loop, std::string_view name) override;
  Result<Value> CallLoop(LoopObject& loop, const CallArgs& args) override;

 private:
  // Counts nesting while it lives.
  class DepthGuard {
   public:
    explicit DepthGuard(int& depth) : depth_(depth) { ++depth_; }
    ~DepthGuard() { --depth_; }

   private:
    int& depth_;
  };
  // Switches to another scope while it lives.
  class ScopeGuard {
   public:
    ScopeGuard(Scope*& current, Scope* inner) : current_(current), outer_(current) { current_ = inner; }
    ~ScopeGuard() { current_ = outer_; }

   private:
    Scope*& current_;
    Scope* outer_;
  };

  Status CheckDepth() const {
    if (depth_ <= limits().depth_max) return OkStatus();
    return InvalidArgument(fmt::format("the template nests deeper than {} evaluations", limits().depth_max));
  }
  Status AtLine(Status status, int line) const;

  Status SetGlobals();
  Result<Value> Messages(const Json& messages, Origin origin);
  Result<Scope*> NewScope(Scope* parent);

  Result<Flow> Execute(const Block& block);
  Result<Flow> ExecuteOne(const Stmt& stmt);
  Status Output(const Stmt& stmt);
  Result<Flow> If(const Stmt& stmt);
  Status For(const Stmt& stmt);
  Status RunLoop(const Stmt& stmt, std::vector<Value> items, int depth0, Scope* outer);
  Status SetBlock(const Stmt& stmt);
  Status DefineMacro(const Stmt& stmt);
  Status CallBlock(const Stmt& stmt);
  Status FilterBlock(const Stmt& stmt);
  Result<Flow> With(const Stmt& stmt);
  // The body's output in a scope of its own, as a string.
  Result<Value> Capture(const Block& body, Scope* scope);
  Status Assign(const Expr& target, Value value);
  Status BindMacroArguments(const CallableObject& macro, const CallArgs& args, Scope& scope);

  Result<bool> Advance(LoopObject& loop);
  Result<bool> TakeNext(LoopObject& loop, std::optional<Value>& into);
  Result<size_t> LoopLength(LoopObject& loop);

  Result<Value> Evaluate(const Expr& expr);
  Result<Value> EvaluateKind(const Expr& expr);
  Result<Value> Name(const Expr& expr);
  Result<Value> Sequence(const Expr& expr);
  Result<Value> Dict(const Expr& expr);
  Result<Value> Slice(const Expr& expr);
  Result<Value> CallExpr(const Expr& expr);
  Result<Value> Filter(const Expr& expr);
  Result<Value> Test(const Expr& expr);
  Result<Value> Negate(const Expr& expr);
  Result<Value> Binary(const Expr& expr);
  Result<Value> Comparison(const Expr& expr);
  Result<Value> Logic(const Expr& expr);
  Result<Value> Concat(const Expr& expr);
  Result<Value> Conditional(const Expr& expr);
  Status Arguments(const Expr& expr, CallArgs& args);

  const RenderContext& context_;
  Scope* scope_ = nullptr;
  Value filter_input_;  // of the innermost filter block
  TracedText root_out_;
  TracedText* out_ = &root_out_;
  int depth_ = 0;
};

// Errors know the innermost line; raise_exception's message stays as the template wrote it.
constexpr std::string_view kLinePrefix = "line ";

Status Evaluator::AtLine(Status status, int line) const {
  const std::string& message = status.message();
  if (message.starts_with(kLinePrefix) || (!message.empty() && message[0] == kVerbatimMark)) return status;
  return InvalidArgument(fmt::format("line {}: {}", line, message));
}

// --- globals -------------------------------------------------------------------------------------------------------

Status Evaluator::SetGlobals() {
  PENSIEVE_TRY(scope_, NewScope(nullptr));
  for (const auto& [name, function] : GlobalFunctions()) {
    PENSIEVE_TRY(Value native, Native(name, function));
    scope_->Set(name, std::move(native));
  }
  PENSIEVE_TRY(Value strftime_now, Native("strftime_now", StrftimeNow, Value::Integer(context_.now_s)));
  scope_->Set("strftime_now", std::move(strftime_now));
  for (const Variable& variable : context_.variables) {
    auto value = variable.numbered && variable.value.is_array() ? Messages(variable.value, variable.origin)
                                                                : FromJson(variable.value, variable.origin);
    if (!value.has_value()) return std::move(value).error();
    scope_->Set(variable.name, *std::move(value));
  }
  return OkStatus();
}

bool IsPlainWord(const Json& json) {
  return json.is_string() && std::ranges::all_of(json.get_ref<const std::string&>(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
         });
}

Result<Value> Evaluator::Messages(const Json& messages, Origin origin) {
  std::vector<Value> items;
  items.reserve(messages.size());
  for (const Json& message : messages) {
    PENSIEVE_TRY(Value item, FromJson(message, origin++));
    const auto role = message.is_object() ? message.find("role") : message.end();
    if (message.is_object() && role != message.end() && IsPlainWord(*role)) {
      PENSIEVE_TRY(Value word, FromJson(*role, kFromTemplate));
      PENSIEVE_RETURN_IF_ERROR(SetEntry(*item.dict(), Value::Text("role"), std::move(word)));
    }
    items.push_back(std::move(item));
  }
  return List(std::move(items));
}

Result<Scope*> Evaluator::NewScope(Scope* parent) {
  PENSIEVE_TRY(Scope * scope, New<Scope>());
  scope->parent = parent;
  return scope;
}

// --- statements ----------------------------------------------------------------------------------------------------

Result<Flow> Evaluator::Execute(const Block& block) {
  const DepthGuard guard(depth_);
  PENSIEVE_RETURN_IF_ERROR(CheckDepth());
  for (const auto& stmt : block) {
    PENSIEVE_RETURN_IF_ERROR(Step());
    auto flow = ExecuteOne(*stmt);
    if (!flow.has_value()) return AtLine(std::move(flow).error(), stmt->line);
    if (*flow != Flow::kNormal) return *flow;
  }
  return Flow::kNormal;
}

Result<Flow> Evaluator::ExecuteOne(const Stmt& stmt) {
  const auto done = [](Status status) { return status.ok() ? Result<Flow>(Flow::kNormal) : Result<Flow>(status); };
  switch (stmt.kind) {
    case StmtKind::kText:
    case StmtKind::kOutput: return done(Output(stmt));
    case StmtKind::kFor: return done(For(stmt));
    case StmtKind::kIf: return If(stmt);
    case StmtKind::kSet: {
      PENSIEVE_TRY(Value value, Evaluate(*stmt.value));
      return done(Assign(*stmt.target, std::move(value)));
    }
    case StmtKind::kSetBlock: return done(SetBlock(stmt));
    case StmtKind::kMacro: return done(DefineMacro(stmt));
    case StmtKind::kCall: return done(CallBlock(stmt));
    case StmtKind::kFilterBlock: return done(FilterBlock(stmt));
    case StmtKind::kWith: return With(stmt);
    case StmtKind::kScope: {
      PENSIEVE_TRY(Scope * inner, NewScope(scope_));
      const ScopeGuard guard(scope_, inner);
      return Execute(stmt.body);
    }
    case StmtKind::kBreak: return Flow::kBreak;
    case StmtKind::kContinue: return Flow::kContinue;
  }
  PENSIEVE_UNREACHABLE();
}

Status Evaluator::Output(const Stmt& stmt) {
  if (stmt.kind == StmtKind::kText) {
    PENSIEVE_RETURN_IF_ERROR(Step(stmt.text.size() / 64));
    if (out_->size() + stmt.text.size() > limits().output_bytes_max) {
      return InvalidArgument(fmt::format("the output passes {} bytes", limits().output_bytes_max));
    }
    out_->Append(stmt.text, kFromTemplate);
    return OkStatus();
  }
  PENSIEVE_TRY(const Value value, Evaluate(*stmt.value));
  PENSIEVE_RETURN_IF_ERROR(Step(WorkSize(value)));
  return AppendStr(value, limits().output_bytes_max, *out_);
}

Result<Flow> Evaluator::If(const Stmt& stmt) {
  for (const auto& [condition, body] : stmt.arms) {
    PENSIEVE_TRY(const Value value, Evaluate(*condition));
    if (Truthy(value)) return Execute(body);
  }
  return Execute(stmt.otherwise);
}

Status Evaluator::For(const Stmt& stmt) {
  PENSIEVE_TRY(const Value source, Evaluate(*stmt.value));
  PENSIEVE_TRY(auto items, Items(source));
  return RunLoop(stmt, std::move(items), 0, scope_);
}

Status Evaluator::RunLoop(const Stmt& stmt, std::vector<Value> items, int depth0, Scope* outer) {
  PENSIEVE_RETURN_IF_ERROR(Charge(items.size() * sizeof(Value)));
  PENSIEVE_TRY(LoopObject * loop, New<LoopObject>());
  loop->stmt = &stmt;
  loop->outer = outer;
  loop->items = std::move(items);
  loop->depth0 = depth0;
  PENSIEVE_TRY(Scope * inner, NewScope(outer));
  const ScopeGuard guard(scope_, inner);
  bool ran = false;
  while (true) {
    PENSIEVE_TRY(const bool more, Advance(*loop));
    if (!more) break;
    ran = true;
    if (inner->captured) {
      PENSIEVE_TRY(inner, NewScope(outer));
      scope_ = inner;
    }
    inner->names.clear();
    inner->Set("loop", Value(Value::Storage(loop)));
    PENSIEVE_RETURN_IF_ERROR(Assign(*stmt.target, *loop->current));
    PENSIEVE_TRY(const Flow flow, Execute(stmt.body));
    if (flow == Flow::kBreak) break;
  }
  loop->items.clear();
  if (ran) return OkStatus();
  inner->names.clear();
  return Execute(stmt.otherwise).status();
}

Result<bool> Evaluator::TakeNext(LoopObject& loop, std::optional<Value>& into) {
  while (loop.next < loop.items.size()) {
    Value item = loop.items[loop.next++];
    if (loop.stmt->condition != nullptr && !loop.conditions_done) {
      PENSIEVE_TRY(Scope * scope, NewScope(loop.outer));
      const ScopeGuard guard(scope_, scope);
      PENSIEVE_RETURN_IF_ERROR(Assign(*loop.stmt->target, item));
      PENSIEVE_TRY(const Value wanted, Evaluate(*loop.stmt->condition));
      if (!Truthy(wanted)) continue;
    }
    into = std::move(item);
    return true;
  }
  into.reset();
  return false;
}

Result<bool> Evaluator::Advance(LoopObject& loop) {
  std::optional<Value> next = std::exchange(loop.after, std::nullopt);
  if (!next.has_value()) {
    PENSIEVE_TRY(const bool found, TakeNext(loop, next));
    if (!found) return false;
  }
  if (loop.current.has_value()) {
    ++loop.index0;
    loop.previous = std::move(loop.current);
  }
  loop.current = std::move(next);
  return true;
}

Result<size_t> Evaluator::LoopLength(LoopObject& loop) {
  const size_t seen = loop.index0 + 1 + (loop.after.has_value() ? 1 : 0);
  if (loop.stmt->condition == nullptr || loop.conditions_done) return seen + loop.items.size() - loop.next;
  // The rest has to pass the condition now, as Jinja does it.
  std::vector<Value> rest;
  std::optional<Value> item;
  while (true) {
    PENSIEVE_TRY(const bool found, TakeNext(loop, item));
    if (!found) break;
    rest.push_back(*item);
  }
  const size_t count = rest.size();
  loop.conditions_done = true;
  loop.items = std::move(rest);
  loop.next = 0;
  return seen + count;
}

Status Evaluator::SetBlock(const Stmt& stmt) {
  PENSIEVE_TRY(Scope * inner, NewScope(scope_));
  PENSIEVE_TRY(Value text, Capture(stmt.body, inner));
  if (stmt.value != nullptr) {
    const Value outer_input = std::exchange(filter_input_, text);
    auto filtered = Evaluate(*stmt.value);
    filter_input_ = outer_input;
    if (!filtered.has_value()) return std::move(filtered).error();
    text = *std::move(filtered);
  }
  return Assign(*stmt.target, std::move(text));
}

Status Evaluator::DefineMacro(const Stmt& stmt) {
  PENSIEVE_TRY(CallableObject * macro, New<CallableObject>());
  macro->name = stmt.name;
  macro->macro = &stmt;
  macro->closure = scope_;
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) scope->captured = true;
  scope_->Set(stmt.name, Value(Value::Storage(macro)));
  return OkStatus();
}

Status Evaluator::CallBlock(const Stmt& stmt) {
  PENSIEVE_TRY(CallableObject * caller, New<CallableObject>());
  caller->name = stmt.name;
  caller->macro = &stmt;
  caller->closure = scope_;
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) scope->captured = true;
  PENSIEVE_TRY(const Value callee, Evaluate(*stmt.value->operands[0]));
  CallArgs args;
  PENSIEVE_RETURN_IF_ERROR(Arguments(*stmt.value, args));
  args.keywords.emplace_back("caller", Value(Value::Storage(caller)));
  PENSIEVE_TRY(const Value result, Call(callee, args));
  return AppendStr(result, limits().output_bytes_max, *out_);
}

Status Evaluator::FilterBlock(const Stmt& stmt) {
  PENSIEVE_TRY(Scope * inner, NewScope(scope_));
  PENSIEVE_TRY(Value text, Capture(stmt.body, inner));
  const Value outer_input = std::exchange(filter_input_, std::move(text));
  auto filtered = Evaluate(*stmt.value);
  filter_input_ = outer_input;
  if (!filtered.has_value()) return std::move(filtered).error();
  return AppendStr(*filtered, limits().output_bytes_max, *out_);
}

Result<Flow> Evaluator::With(const Stmt& stmt) {
  PENSIEVE_TRY(Scope * inner, NewScope(scope_));
  // All values are evaluated outside, before any name is bound.
  std::vector<Value> values;
  for (const auto& assignment : stmt.assignments) {
    PENSIEVE_TRY(Value value, Evaluate(*assignment.second));
    values.push_back(std::move(value));
  }
  const ScopeGuard guard(scope_, inner);
  for (size_t i = 0; i < values.size(); ++i) {
    PENSIEVE_RETURN_IF_ERROR(Assign(*stmt.assignments[i].first, std::move(values[i])));
  }
  return Execute(stmt.body);
}

Result<Value> Evaluator::Capture(const Block& body, Scope* scope) {
  TracedText text;
  const ScopeGuard guard(scope_, scope);
  TracedText* const outer_out = std::exchange(out_, &text);
  auto flow = Execute(body);
  out_ = outer_out;
  if (!flow.has_value()) return std::move(flow).error();
  return String(std::move(text));
}

Status Evaluator::Assign(const Expr& target, Value value) {
  if (target.kind == ExprKind::kName) {
    scope_->Set(target.name, std::move(value));
    return OkStatus();
  }
  if (target.kind == ExprKind::kAttribute) {
    PENSIEVE_TRY(const Value space, Name(*target.operands[0]));
    if (space.name_space() == nullptr) return InvalidArgument("cannot assign attribute on non-namespace object");
    PENSIEVE_RETURN_IF_ERROR(Charge(64));
    space.name_space()->Set(target.name, std::move(value));
    return OkStatus();
  }
  if (value.IsUndefined()) return InvalidArgument("not enough values to unpack: got an undefined value");
  PENSIEVE_TRY(const auto items, Items(value));
  if (items.size() != target.operands.size()) {
    return InvalidArgument(fmt::format("cannot unpack {} values into {} names", items.size(), target.operands.size()));
  }
  for (size_t i = 0; i < items.size(); ++i) PENSIEVE_RETURN_IF_ERROR(Assign(*target.operands[i], items[i]));
  return OkStatus();
}

// --- macros and loops as values ------------------------------------------------------------------------------------

Status Evaluator::BindMacroArguments(const CallableObject& macro, const CallArgs& args, Scope& scope) {
  const Stmt& stmt = *macro.macro;
  const size_t count = stmt.parameters.size();
  if (args.positional.size() > count && !stmt.uses_varargs) {
    return InvalidArgument(fmt::format("macro '{}' takes not more than {} argument(s)", macro.name, count));
  }
  std::vector<const Value*> given(count, nullptr);
  for (size_t i = 0; i < std::min(count, args.positional.size()); ++i) given[i] = &args.positional[i];
  PENSIEVE_TRY(DictObject * surplus, NewDict());
  for (const auto& [name, value] : args.keywords) {
    const auto at = static_cast<size_t>(
        std::find_if(stmt.parameters.begin(), stmt.parameters.end(),
                     [&, wanted = &name](const Parameter& parameter) { return parameter.name == *wanted; }) -
        stmt.parameters.begin());
    if (at < count) {
      given[at] = &value;
    } else if (name == "caller") {
      scope.Set("caller", value);
    } else if (stmt.uses_kwargs) {
      PENSIEVE_RETURN_IF_ERROR(SetEntry(*surplus, Value::Text(name), value));
    } else {
      return InvalidArgument(fmt::format("macro '{}' takes no keyword argument '{}'", macro.name, name));
    }
  }
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = stmt.parameters[i];
    Value value = UndefinedWith(fmt::format("parameter '{}' was not provided", parameter.name));
    if (given[i] != nullptr) {
      value = *given[i];
    } else if (parameter.default_value != nullptr) {
      PENSIEVE_TRY(value, Evaluate(*parameter.default_value));
    }
    scope.Set(parameter.name, std::move(value));
  }
  if (stmt.uses_kwargs) scope.Set("kwargs", Value(Value::Storage(surplus)));
  if (!stmt.uses_varargs) return OkStatus();
  std::vector<Value> rest;
  for (size_t i = count; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
  PENSIEVE_TRY(Value varargs, List(std::move(rest), SequenceKind::kTuple));
  scope.Set("varargs", std::move(varargs));
  return OkStatus();
}

Result<Value> Evaluator::CallMacro(const CallableObject& macro, const CallArgs& args) {
  const DepthGuard depth_guard(depth_);
  PENSIEVE_RETURN_IF_ERROR(CheckDepth());
  PENSIEVE_TRY(Scope * scope, NewScope(macro.closure));
  {
    const ScopeGuard guard(scope_, scope);
    PENSIEVE_RETURN_IF_ERROR(BindMacroArguments(macro, args, *scope));
  }
  return Capture(macro.macro->body, scope);
}

Result<Value> Evaluator::CallLoop(LoopObject& loop, const CallArgs& args) {
  if (!loop.stmt->recursive) {
    return InvalidArgument("The loop must have the 'recursive' marker to be called recursively.");
  }
  const DepthGuard depth_guard(depth_);
  PENSIEVE_RETURN_IF_ERROR(CheckDepth());
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("loop", {"iterable"}, args, 1));
  PENSIEVE_TRY(auto items, Items(*bound[0]));
  TracedText text;
  TracedText* const outer_out = std::exchange(out_, &text);
  const Status status = RunLoop(*loop.stmt, std::move(items), loop.depth0 + 1, loop.outer);
  out_ = outer_out;
  if (!status.ok()) return status;
  return String(std::move(text));
}

Result<Value> LoopCycle(Runtime&, const Value& self, const CallArgs& args) {
  if (args.positional.empty()) return InvalidArgument("no items for cycling given");
  return args.positional[self.loop()->index0 % args.positional.size()];
}

Result<Value> LoopChanged(Runtime& runtime, const Value& self, const CallArgs& args) {
  PENSIEVE_TRY(Value now, runtime.List(args.positional, SequenceKind::kTuple));
  std::optional<Value>& held = self.loop()->changed;
  bool same = false;
  if (held.has_value()) { PENSIEVE_TRY(same, runtime.Equal(*held, now)); }
  held = std::move(now);
  return Value::Bool(!same);
}

Result<Value> Evaluator::LoopAttribute(LoopObject& loop, std::string_view name) {
  const auto index = static_cast<Int>(loop.index0);
  if (name == "index") return Value::Integer(index + 1);
  if (name == "index0") return Value::Integer(index);
  if (name == "first") return Value::Bool(index == 0);
  if (name == "depth") return Value::Integer(loop.depth0 + 1);
  if (name == "depth0") return Value::Integer(loop.depth0);
  if (name == "previtem") return loop.previous.value_or(UndefinedWith("there is no previous item"));
  if (name == "last" || name == "nextitem") {
    if (!loop.after.has_value()) PENSIEVE_RETURN_IF_ERROR(TakeNext(loop, loop.after).status());
    if (name == "last") return Value::Bool(!loop.after.has_value());
    return loop.after.value_or(UndefinedWith("there is no next item"));
  }
  if (name == "length" || name == "revindex" || name == "revindex0") {
    PENSIEVE_TRY(const size_t length, LoopLength(loop));
    const auto count = static_cast<Int>(length);
    return Value::Integer(name == "length" ? count : name == "revindex" ? count - index : count - index - 1);
  }
  if (name == "cycle") return Native(name, LoopCycle, Value(Value::Storage(&loop)));
  if (name == "changed") return Native(name, LoopChanged, Value(Value::Storage(&loop)));
  return UndefinedWith(fmt::format("'jinja2.runtime.LoopContext object' has no attribute '{}'", name.substr(0, 200)));
}

// --- expressions ---------------------------------------------------------------------------------------------------

Result<Value> Evaluator::Evaluate(const Expr& expr) {
  const DepthGuard guard(depth_);
  PENSIEVE_RETURN_IF_ERROR(CheckDepth());
  PENSIEVE_RETURN_IF_ERROR(Step());
  auto value = EvaluateKind(expr);
  if (!value.has_value()) return AtLine(std::move(value).error(), expr.line);
  return value;
}

Result<Value> Evaluator::EvaluateKind(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kConstant: return expr.constant;
    case ExprKind::kName: return Name(expr);
    case ExprKind::kList:
    case ExprKind::kTuple: return Sequence(expr);
    case ExprKind::kDict: return Dict(expr);
    case ExprKind::kAttribute: {
      PENSIEVE_TRY(const Value object, Evaluate(*expr.operands[0]));
      return Attribute(object, expr.name);
    }
    case ExprKind::kItem: {
      PENSIEVE_TRY(const Value object, Evaluate(*expr.operands[0]));
      PENSIEVE_TRY(const Value key, Evaluate(*expr.operands[1]));
      return Item(object, key);
    }
    case ExprKind::kSlice: return Slice(expr);
    case ExprKind::kCall: return CallExpr(expr);
    case ExprKind::kFilter: return Filter(expr);
    case ExprKind::kTest: return Test(expr);
    case ExprKind::kNot: {
      PENSIEVE_TRY(const Value operand, Evaluate(*expr.operands[0]));
      return Value::Bool(!Truthy(operand));
    }
    case ExprKind::kNegate:
    case ExprKind::kPlus: return Negate(expr);
    case ExprKind::kBinary: return Binary(expr);
    case ExprKind::kCompare: return Comparison(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr: return Logic(expr);
    case ExprKind::kConcat: return Concat(expr);
    case ExprKind::kConditional: return Conditional(expr);
  }
  PENSIEVE_UNREACHABLE();
}

Result<Value> Evaluator::Name(const Expr& expr) {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    if (const Value* found = scope->Find(expr.name)) return *found;
  }
  return MissingName(expr.name);
}

Result<Value> Evaluator::Sequence(const Expr& expr) {
  std::vector<Value> items;
  items.reserve(expr.operands.size());
  for (const auto& operand : expr.operands) {
    PENSIEVE_TRY(Value item, Evaluate(*operand));
    items.push_back(std::move(item));
  }
  return List(std::move(items), expr.kind == ExprKind::kTuple ? SequenceKind::kTuple : SequenceKind::kList);
}

Result<Value> Evaluator::Dict(const Expr& expr) {
  PENSIEVE_TRY(DictObject * dict, NewDict());
  for (size_t i = 0; i < expr.operands.size(); i += 2) {
    PENSIEVE_TRY(const Value key, Evaluate(*expr.operands[i]));
    PENSIEVE_TRY(Value value, Evaluate(*expr.operands[i + 1]));
    PENSIEVE_RETURN_IF_ERROR(SetEntry(*dict, key, std::move(value)));
  }
  return Value(Value::Storage(dict));
}

// Positions that start:stop:step selects among `count`, as Python's slice.indices.
std::vector<size_t> SlicePositions(std::optional<Int> start, std::optional<Int> stop, Int step, Int count) {
  const auto clamp = [&](std::optional<Int> bound, Int otherwise) {
    if (!bound.has_value()) return otherwise;
    const Int position = *bound < 0 ? *bound + count : *bound;
    return step > 0 ? std::clamp<Int>(position, 0, count) : std::clamp<Int>(position, -1, count - 1);
  };
  const Int first = clamp(start, step > 0 ? Int{0} : count - 1);
  const Int last = clamp(stop, step > 0 ? count : Int{-1});
  std::vector<size_t> positions;
  for (Int i = first; step > 0 ? i < last : i > last; i += step) positions.push_back(static_cast<size_t>(i));
  return positions;
}

Result<Value> Evaluator::Slice(const Expr& expr) {
  PENSIEVE_TRY(const Value object, Evaluate(*expr.operands[0]));
  std::optional<Int> bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expr.operands[i + 1] == nullptr) continue;
    PENSIEVE_TRY(const Value bound, Evaluate(*expr.operands[i + 1]));
    if (bound.IsNone()) continue;
    if (bound.IsUndefined()) return UndefinedError(bound);
    if (!bound.IsIntegral()) return InvalidArgument("slice indices must be integers or None");
    // No sequence is longer than 2^40, and clamped bounds cannot overflow when they are added up.
    bounds[i] = std::clamp<Int>(bound.integer(), -(Int{1} << 40), Int{1} << 40);
  }
  const Int step = bounds[2].value_or(1);
  if (step == 0) return InvalidArgument("slice step cannot be zero");
  if (object.IsUndefined()) return UndefinedError(object);
  const ListObject* list = object.list();
  if (!object.IsString() && (list == nullptr || !list->Indexable())) {
    return InvalidArgument(fmt::format("'{}' object cannot be sliced", object.TypeName()));
  }
  if (list != nullptr) {
    PENSIEVE_RETURN_IF_ERROR(Step(list->items.size()));
    std::vector<Value> items;
    for (const size_t i : SlicePositions(bounds[0], bounds[1], step, static_cast<Int>(list->items.size()))) {
      items.push_back(list->items[i]);
    }
    return List(std::move(items), list->kind);
  }
  const std::string& text = object.text();
  PENSIEVE_RETURN_IF_ERROR(Step(text.size() / 16));
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); i += CodePointBytes(text, i)) starts.push_back(i);
  TracedText out;
  for (const size_t i : SlicePositions(bounds[0], bounds[1], step, static_cast<Int>(starts.size()))) {
    out.Append(object.traced(), starts[i], starts[i] + CodePointBytes(text, starts[i]));
  }
  return String(std::move(out), object.IsMarkup());
}

Status Evaluator::Arguments(const Expr& expr, CallArgs& args) {
  args.positional.reserve(expr.operands.size() - 1);
  for (size_t i = 1; i < expr.operands.size(); ++i) {
    PENSIEVE_TRY(Value value, Evaluate(*expr.operands[i]));
    args.positional.push_back(std::move(value));
  }
  for (const auto& [name, operand] : expr.keywords) {
    PENSIEVE_TRY(Value value, Evaluate(*operand));
    args.keywords.emplace_back(name, std::move(value));
  }
  return OkStatus();
}

Result<Value> Evaluator::CallExpr(const Expr& expr) {
  PENSIEVE_TRY(const Value callee, Evaluate(*expr.operands[0]));
  CallArgs args;
  PENSIEVE_RETURN_IF_ERROR(Arguments(expr, args));
  return Call(callee, args);
}

Result<Value> Evaluator::Filter(const Expr& expr) {
  Value input = filter_input_;
  if (expr.operands[0] != nullptr) { PENSIEVE_TRY(input, Evaluate(*expr.operands[0])); }
  CallArgs args;
  PENSIEVE_RETURN_IF_ERROR(Arguments(expr, args));
  return ApplyFilter(expr.name, input, args);
}

Result<Value> Evaluator::Test(const Expr& expr) {
  PENSIEVE_TRY(const Value input, Evaluate(*expr.operands[0]));
  CallArgs args;
  PENSIEVE_RETURN_IF_ERROR(Arguments(expr, args));
  PENSIEVE_TRY(const bool holds, ApplyTest(expr.name, input, args));
  return Value::Bool(holds);
}

Result<Value> Evaluator::Negate(const Expr& expr) {
  PENSIEVE_TRY(const Value operand, Evaluate(*expr.operands[0]));
  if (operand.IsUndefined()) return UndefinedError(operand);
  if (!operand.IsNumber())
    return InvalidArgument(fmt::format("bad operand type for unary -: '{}'", operand.TypeName()));
  if (operand.IsFloat()) return Value::Float(expr.kind == ExprKind::kPlus ? operand.number() : -operand.number());
  return BinaryOperation(*this, expr.kind == ExprKind::kPlus ? Op::kAdd : Op::kSubtract, Value::Integer(0), operand);
}

Result<Value> Evaluator::Binary(const Expr& expr) {
  PENSIEVE_TRY(const Value left, Evaluate(*expr.operands[0]));
  PENSIEVE_TRY(const Value right, Evaluate(*expr.operands[1]));
  PENSIEVE_RETURN_IF_ERROR(Step(WorkSize(left)));
  return BinaryOperation(*this, expr.op, left, right);
}

Result<Value> Evaluator::Comparison(const Expr& expr) {
  PENSIEVE_TRY(Value left, Evaluate(*expr.operands[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    PENSIEVE_TRY(Value right, Evaluate(*expr.operands[i + 1]));
    PENSIEVE_TRY(const bool holds, CompareValues(*this, expr.ops[i], left, right));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

// `and` and `or` give the operand that decided, not a boolean.
Result<Value> Evaluator::Logic(const Expr& expr) {
  const bool deciding = expr.kind == ExprKind::kOr;
  for (size_t i = 0;; ++i) {
    PENSIEVE_TRY(Value value, Evaluate(*expr.operands[i]));
    if (i + 1 == expr.operands.size() || Truthy(value) == deciding) return value;
  }
}

Result<Value> Evaluator::Concat(const Expr& expr) {
  TracedText text;
  for (const auto& operand : expr.operands) {
    PENSIEVE_TRY(const Value value, Evaluate(*operand));
    PENSIEVE_RETURN_IF_ERROR(AppendStr(value, limits().output_bytes_max, text));
  }
  return String(std::move(text));
}

Result<Value> Evaluator::Conditional(const Expr& expr) {
  PENSIEVE_TRY(const Value condition, Evaluate(*expr.operands[1]));
  if (Truthy(condition)) return Evaluate(*expr.operands[0]);
  if (expr.operands[2] != nullptr) return Evaluate(*expr.operands[2]);
  return UndefinedWith("the inline if-expression evaluated to false and no else section was defined.");
}

}  // namespace

Result<TracedText> RenderTemplate(const Block& block, const RenderContext& context) {
  Evaluator evaluator(context);
  auto text = evaluator.Run(block);
  if (text.has_value()) return text;
  std::string message = text.error().message();
  if (!message.empty() && message[0] == kVerbatimMark) message.erase(0, 1);
  return InvalidArgument(std::move(message));
}

}  // namespace pensieve::chat::jinja
