// The tree of a parsed template. Immutable after parsing; shared between threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "chat/jinja_value.h"

namespace pensieve::chat::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind : uint8_t {
  kConstant,   // constant
  kName,       // name
  kList,       // operands
  kTuple,      // operands
  kDict,       // operands: key, value, key, value...
  kAttribute,  // operands[0].name
  kItem,       // operands[0][operands[1]]
  kSlice,      // operands[0][operands[1] : operands[2] : operands[3]], the last three may be null
  kCall,       // operands[0](operands[1...], keywords)
  kFilter,     // operands[0] | name(operands[1...], keywords); operands[0] is null inside {% filter %}
  kTest,       // operands[0] is name(operands[1...], keywords)
  kNot,
  kNegate,
  kPlus,     // unary
  kBinary,   // operands[0] op operands[1], op one of + - * / // % **
  kCompare,  // operands[0] ops[0] operands[1] ops[1] operands[2]...
  kAnd,      // all operands
  kOr,
  kConcat,       // ~
  kConditional,  // operands[0] if operands[1] else operands[2], the last may be null
};

enum class Op : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  Op op = Op::kAdd;
  int line = 0;
  int depth = 1;  // of this tree, so that evaluating and freeing it cannot overflow the stack
  Value constant;
  std::string name;
  std::vector<ExprPtr> operands;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<Op> ops;
};

struct Stmt;
using Block = std::vector<std::unique_ptr<Stmt>>;

enum class StmtKind : uint8_t {
  kText,         // text
  kOutput,       // value
  kFor,          // for target in value if condition: body, else: otherwise
  kIf,           // arms, otherwise
  kSet,          // target = value
  kSetBlock,     // target = rendered body, through the filters of `value` if that is set
  kMacro,        // name, parameters, body
  kCall,         // value is the call; parameters and body are its caller()
  kFilterBlock,  // value is a chain of filters over the rendered body
  kWith,         // assignments, body
  kScope,        // body in a scope of its own: {% generation %}
  kBreak,
  kContinue,
};

struct Parameter {
  std::string name;
  ExprPtr default_value;  // null when required
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int line = 0;
  std::string text;  // of kText
  std::string name;  // of kMacro
  ExprPtr target;    // kName, kTuple of targets, or kAttribute of a kName (a namespace)
  ExprPtr value;
  ExprPtr condition;
  bool recursive = false;
  std::vector<std::pair<ExprPtr, Block>> arms;  // of kIf
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments;
  std::vector<Parameter> parameters;
  bool uses_varargs = false;
  bool uses_kwargs = false;
  Block body;
  Block otherwise;
};

}  // namespace pensieve::chat::jinja
