#include "sampling/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sampling/automaton.h"
#include "sampling/constraint.h"
#include "sampling/constraint_fixture.h"

namespace pensieve::sampling {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kBudget = 1'000'000;

// One or more of the bytes.
DfaPtr RunOf(uint8_t first, uint8_t last) {
  Budget budget(kBudget);
  Nfa nfa(budget);
  return std::make_shared<const Dfa>(*Determinize(nfa, nfa.Plus(nfa.Bytes(first, last)), budget));
}

// '<', any number of letters or pairs of digits (each a unit), '>'.
DfaPtr Units() {
  Budget budget(kBudget);
  Nfa nfa(budget);
  const std::array<Nfa::Part, 2> digits = {nfa.Bytes('0', '9'), nfa.Bytes('0', '9')};
  const std::array<Nfa::Part, 2> unit = {nfa.Bytes('a', 'z'), nfa.Sequence(digits)};
  const std::array<Nfa::Part, 3> all = {nfa.Literal("<"), nfa.Star(nfa.Choice(unit)), nfa.Literal(">")};
  Dfa dfa = *Determinize(nfa, nfa.Sequence(all), budget);
  dfa.set_counting_state(dfa.Next(dfa.start(), '<'));
  return std::make_shared<const Dfa>(std::move(dfa));
}

class GrammarTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Grammar> Build(NodeId root) {
    auto grammar = builder_.Build(root);
    EXPECT_TRUE(grammar.has_value()) << grammar.status().ToString();
    return grammar.has_value() ? *grammar : nullptr;
  }

  // Members "a=1", "b=2" and so on with commas, keys from `names`; other lower-case keys when `others`.
  NodeId Members(const std::vector<std::string>& names, bool others, MembersSpec spec) {
    const auto named = static_cast<int32_t>(names.size());
    Dfa keys = *LiteralSet(names, true, budget_);
    if (others) {
      const DfaPtr letters = RunOf('a', 'z');
      const auto label = [&](int32_t, int32_t name) { return name == Dfa::kNoLabel ? named : name; };
      const auto of_letters = [&](int32_t own, int32_t name) { return own == Dfa::kNoLabel ? own : label(own, name); };
      keys = *Product(*letters, keys, of_letters, /*both=*/false, budget_);
    }
    EXPECT_TRUE(keys.FindReach(named).ok());
    spec.keys = std::make_shared<const Dfa>(std::move(keys));
    for (const std::string& name : names) spec.values.push_back(builder_.Literal("=" + name));
    if (others) spec.values.push_back(builder_.Literal("=?"));
    spec.separator = builder_.Literal(",");
    return builder_.Members(std::move(spec));
  }

  Budget budget_{kBudget};
  GrammarBuilder builder_{budget_};
};

// Reads every text with single bytes and with merged tokens, and compares masks with what is accepted on the way.
void ExpectTexts(const std::shared_ptr<const Grammar>& grammar, const std::vector<std::string>& good,
                 const std::vector<std::string>& bad, const std::vector<std::string>& merged) {
  ASSERT_NE(grammar, nullptr);
  for (const auto& vocabulary : {MakeVocabulary(), MakeVocabulary(merged)}) {
    for (const std::string& text : good) {
      EXPECT_TRUE(Takes(*NewGrammarConstraint(grammar, vocabulary), vocabulary->trie(), text)) << text;
      auto constraint = NewGrammarConstraint(grammar, vocabulary);
      EXPECT_EQ(FirstDisagreement(*constraint, vocabulary->trie()), -1);
      for (const int32_t id : Segment(vocabulary->trie(), text)) {
        ASSERT_TRUE(constraint->Accept(id)) << text;
        EXPECT_EQ(FirstDisagreement(*constraint, vocabulary->trie()), -1) << text;
      }
    }
    for (const std::string& text : bad)
      EXPECT_FALSE(Takes(*NewGrammarConstraint(grammar, vocabulary), vocabulary->trie(), text)) << text;
  }
  for (const std::string& text : good) EXPECT_TRUE(Matches(*grammar, text)) << text;
  for (const std::string& text : bad) EXPECT_FALSE(Matches(*grammar, text)) << text;
}

TEST(Automaton, DeterminizesIntersectsAndSubtracts) {
  Budget budget(kBudget);
  Nfa nfa(budget);
  const std::array<Nfa::Part, 2> parts = {nfa.Star(nfa.Bytes('a', 'c')), nfa.Literal("b")};
  const Dfa ends_in_b = *Determinize(nfa, nfa.Sequence(parts), budget);
  EXPECT_EQ(ends_in_b.Match("acb"), 0);
  EXPECT_EQ(ends_in_b.Match("acba"), Dfa::kNoLabel);
  const Dfa texts = *LiteralSet({"ab", "b", "ac", "ab"}, true, budget);
  EXPECT_EQ(texts.Match("ab"), 0);
  EXPECT_EQ(texts.Match("ac"), 2);
  const Dfa both = *Intersect(texts, ends_in_b, budget);
  EXPECT_EQ(both.Match("b"), 1);
  EXPECT_EQ(both.Match("ac"), Dfa::kNoLabel);
  const Dfa rest = *Subtract(texts, ends_in_b, budget);
  EXPECT_EQ(rest.Match("ac"), 2);
  EXPECT_EQ(rest.Match("ab"), Dfa::kNoLabel);
  EXPECT_TRUE(Intersect(*LiteralSet({"x"}, false, budget), ends_in_b, budget)->empty());
}

TEST(Automaton, KeepsOnlyStatesThatLeadToAnEnd) {
  Budget budget(kBudget);
  const Dfa rest = *Subtract(*LiteralSet({"abc", "x"}, false, budget), *LiteralSet({"abc"}, false, budget), budget);
  EXPECT_EQ(rest.Next(rest.start(), 'a'), Dfa::kDead);
  EXPECT_EQ(rest.num_states(), 2);
}

TEST(Automaton, StopsWhenTheBudgetIsUsedUp) {
  Budget budget(20'000);
  Nfa nfa(budget);
  // The 17th letter from the end: 2^17 states.
  std::vector<Nfa::Part> parts{nfa.Star(nfa.Bytes('a', 'b')), nfa.Literal("a")};
  for (int i = 0; i < 16; ++i) parts.push_back(nfa.Bytes('a', 'b'));
  const auto dfa = Determinize(nfa, nfa.Sequence(parts), budget);
  ASSERT_FALSE(dfa.has_value());
  EXPECT_EQ(dfa.error().code(), StatusCode::kResourceExhausted);
}

TEST(TokenTrie, HoldsTokensThatATextCanHaveAndMarksSpecialOnes) {
  const TokenTrie trie({{"ab"}, {""}, {"a\xFF"}, {"ab"}, {"end", true}});
  EXPECT_EQ(trie.Bytes(0), "ab");
  EXPECT_EQ(trie.Bytes(1), "");
  EXPECT_EQ(trie.Bytes(2), "");
  EXPECT_EQ(trie.Bytes(4),
            "\xFF"
            "end\xFE");
  EXPECT_EQ(trie.Bytes(5), "");
  EXPECT_EQ(trie.NextSame(3), 0);
}

TEST_F(GrammarTest, FollowsSequencesChoicesAndRepetitions) {
  const NodeId item =
      builder_.Choice({builder_.Literal("ab"), builder_.Literal("a"), builder_.Terminal(RunOf('0', '9'))});
  const NodeId list = builder_.Repeat(item, builder_.Literal(","), 1, 3);
  const auto grammar = Build(builder_.Sequence({builder_.Literal("["), list, builder_.Literal("]")}));
  ExpectTexts(grammar, {"[ab]", "[a,ab,17]", "[0,a]"}, {"[]", "[a,a,a,a]", "[ab", "[b]", "[a,]", "a"},
              {"[a", "b,", ",a", "1,", "7]", "a,a,a,a", "]x"});
}

TEST_F(GrammarTest, IsRecursive) {
  const NodeId value = builder_.Reserve();
  const NodeId list = builder_.Repeat(value, builder_.Literal(","), 0, kNoMax);
  builder_.Define(value, builder_.Choice({builder_.Literal("x"),
                                          builder_.Sequence({builder_.Literal("("), list, builder_.Literal(")")})}));
  ExpectTexts(Build(value), {"x", "()", "((x,()),x)", "(((((x)))))"}, {"(", "(x", "x)", "(x,)"},
              {"((", "))", "x)", "(x,", ")),", "()"});
}

TEST_F(GrammarTest, TakesMembersInAnyOrderAndEachOnce) {
  const auto grammar = Build(Members({"a", "b", "c"}, false, {.keys = {}, .values = {}, .required = {0, 2}}));
  ExpectTexts(grammar, {"a=a,c=c", "c=c,a=a", "c=c,b=b,a=a"}, {"a=a", "a=a,c=c,a=a", "a=a,b=b", "", "d=d,a=a,c=c"},
              {"a=", "a,c", ",b", "b=b", "a=a,c=c", "c=c,a"});
}

TEST_F(GrammarTest, TakesOtherKeysOftenAndKeepsNamesApart) {
  const auto grammar = Build(Members({"aa", "b"}, true, {.keys = {}, .values = {}, .required = {1}}));
  ExpectTexts(grammar, {"b=b", "a=?,b=b,a=?", "aaa=?,aa=aa,b=b", "ba=?,b=b"}, {"aa=?,b=b", "a=?", "b=b,b=b", "b=?"},
              {"aa", "a=", "b=b", "b=?", ",b", "=?,", "aa=aa,b"});
}

TEST_F(GrammarTest, KeepsPlacesForMembersThatMustCome) {
  const auto grammar = Build(Members({"a", "b", "c"}, true, {.keys = {}, .values = {}, .required = {0}, .max = 2}));
  ExpectTexts(grammar, {"a=a", "b=b,a=a", "x=?,a=a", "a=a,y=?"}, {"b=b,c=c", "x=?,x=?", "x=?,y=?,a=a"},
              {"b=b,c", "=b,a", "x=?,"});
}

TEST_F(GrammarTest, CountsDifferentMembers) {
  const auto grammar = Build(Members({"a", "b"}, true, {.keys = {}, .values = {}, .min = 2}));
  // The same other key twice is one key only.
  ExpectTexts(grammar, {"a=a,b=b", "a=a,x=?", "x=?,y=?,b=b"}, {"a=a", "x=?,x=?", ""}, {"a=a", ",x", "=?,y"});
}

TEST_F(GrammarTest, DemandsWhatAMemberImplies) {
  MembersSpec spec{.keys = {}, .values = {}};
  spec.implies = {{0, 1}, {1, 2}};
  const auto grammar = Build(Members({"a", "b", "c"}, false, std::move(spec)));
  ExpectTexts(grammar, {"", "c=c", "b=b,c=c", "b=b,a=a,c=c"}, {"a=a", "a=a,b=b", "b=b"}, {"a=a,", "b=b,c"});
}

TEST_F(GrammarTest, ASwitchGoesOnByItsLabel) {
  Dfa keys = *LiteralSet({"red ", "rest "}, true, budget_);
  ASSERT_TRUE(keys.FindReach(2).ok());
  const auto grammar = Build(builder_.Switch(std::make_shared<const Dfa>(std::move(keys)),
                                             {builder_.Literal("wine"), builder_.Literal("room")}));
  ExpectTexts(grammar, {"red wine", "rest room"}, {"red room", "rest", "rest wine"}, {"re", "d w", "t r", "st room"});
}

TEST_F(GrammarTest, CountsUnits) {
  const auto grammar = Build(builder_.Sequence({builder_.Counted(Units(), 2, 3), builder_.Literal("!")}));
  ExpectTexts(grammar, {"<ab>!", "<abc>!", "<a12>!", "<123456>!"}, {"<>!", "<a>!", "<abcd>!", "<1>!", "<ab1>!"},
              {"<a", "ab", "abc", "abcd", "12", "1", "b>", "b>!", "c>", "34", "<abc>!"});
}

TEST_F(GrammarTest, CountsUnitsWithoutALimit) {
  const auto grammar = Build(builder_.Counted(Units(), 2, kNoMax));
  ExpectTexts(grammar, {"<ab>", "<abcdefghijklmnop>"}, {"<a>", "<>"}, {"<a", "abcd", "a>", "b>"});
}

TEST_F(GrammarTest, SpecialTokensAreAllowedWhereTheyAreNamedOnly) {
  const auto any = RunOf(0, 0xFD);
  const auto grammar = Build(builder_.Sequence({builder_.Literal("\xFF"
                                                                 "call\xFE"),
                                                builder_.Terminal(any)}));
  const auto vocabulary = MakeVocabulary({"call"}, {"call", "end"});
  auto constraint = NewGrammarConstraint(grammar, vocabulary);
  TokenSet mask(vocabulary->trie().size());
  constraint->FillMask(mask);
  EXPECT_EQ(mask.Count(), 1);
  EXPECT_TRUE(mask.Has(257));
  ASSERT_TRUE(constraint->Accept(257));
  constraint->FillMask(mask);
  EXPECT_TRUE(mask.Has(256));
  EXPECT_FALSE(mask.Has(257));
  EXPECT_FALSE(mask.Has(258));
}

TEST_F(GrammarTest, RollsBackAndEnds) {
  const auto grammar = Build(builder_.Literal("abc"));
  const auto vocabulary = MakeVocabulary();
  auto constraint = NewGrammarConstraint(grammar, vocabulary);
  ASSERT_TRUE(constraint->Accept('a'));
  ASSERT_TRUE(constraint->Accept('b'));
  EXPECT_FALSE(constraint->Accept('b'));
  constraint->Rollback(2);
  EXPECT_FALSE(constraint->Accept('b'));
  EXPECT_FALSE(constraint->AcceptBytes("ax"));
  ASSERT_TRUE(constraint->AcceptBytes("ab"));
  EXPECT_FALSE(constraint->finished());
  ASSERT_TRUE(constraint->Accept('c'));
  EXPECT_TRUE(constraint->finished());
  auto fresh = constraint->Clone();
  EXPECT_FALSE(fresh->accepting());
  EXPECT_TRUE(fresh->Accept('a'));
}

TEST_F(GrammarTest, WhatCanNeverEndIsTakenOut) {
  const NodeId endless = builder_.Reserve();
  builder_.Define(endless, builder_.Sequence({builder_.Literal("("), endless, builder_.Literal(")")}));
  const auto grammar = Build(builder_.Choice({endless, builder_.Literal("x")}));
  ExpectTexts(grammar, {"x"}, {"("}, {"(("});
}

TEST_F(GrammarTest, RefusesWhatNothingCanSatisfy) {
  const NodeId endless = builder_.Reserve();
  builder_.Define(endless, builder_.Sequence({builder_.Literal("("), endless}));
  EXPECT_THAT(builder_.Build(endless).error().message(), HasSubstr("nothing can satisfy"));
}

TEST_F(GrammarTest, RefusesLeftRecursion) {
  const NodeId list = builder_.Reserve();
  const NodeId maybe = builder_.Optional(builder_.Literal("-"));
  builder_.Define(list,
                  builder_.Choice({builder_.Literal("x"), builder_.Sequence({maybe, list, builder_.Literal("x")})}));
  EXPECT_THAT(builder_.Build(list).error().message(), HasSubstr("left recursion"));
}

TEST_F(GrammarTest, RefusesToRepeatNothing) {
  const NodeId nothing = builder_.Optional(builder_.Literal("-"));
  EXPECT_THAT(builder_.Build(builder_.Repeat(nothing, -1, 0, kNoMax)).error().message(), HasSubstr("repeated"));
}

// Two readings of every bracket: 2^100 of the whole text.
TEST_F(GrammarTest, ManyReadingsOfATextStayBounded) {
  const NodeId value = builder_.Reserve();
  const NodeId one = builder_.Sequence({builder_.Literal("("), value, builder_.Literal(")")});
  const NodeId other = builder_.Sequence({builder_.Literal("("), value, builder_.Literal(")"), builder_.Empty()});
  builder_.Define(value, builder_.Choice({one, other, builder_.Literal("x")}));
  const auto grammar = Build(value);
  EXPECT_TRUE(Matches(*grammar, std::string(100, '(') + "x" + std::string(100, ')')));
}

TEST_F(GrammarTest, MasksAreFoundOnceForAllGrammars) {
  const DfaPtr digits = RunOf('0', '9');
  const auto vocabulary = MakeVocabulary({"12", "1,"});
  const NodeId digit = builder_.Terminal(digits);
  const auto grammar = Build(builder_.Repeat(digit, builder_.Literal(","), 1, kNoMax));
  TokenSet mask(vocabulary->trie().size());
  auto first = NewGrammarConstraint(grammar, vocabulary);
  for (const char c : std::string("1,2,3,4")) {
    first->FillMask(mask);
    ASSERT_TRUE(first->Accept(c));
  }
  const int64_t walks = vocabulary->walks();
  EXPECT_LE(walks, 4);
  GrammarBuilder builder(budget_);
  auto second = NewGrammarConstraint(*builder.Build(builder.Terminal(digits)), vocabulary);
  second->FillMask(mask);
  ASSERT_TRUE(second->Accept('1'));
  second->FillMask(mask);
  EXPECT_EQ(vocabulary->walks(), walks);
}

TEST_F(GrammarTest, AVocabularyForgetsMasksWhenTheyTakeTooMuchRoom) {
  std::vector<TokenBytes> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back({std::string(1, static_cast<char>(byte))});
  TokenMasks masks(std::make_shared<const TokenTrie>(tokens), /*bytes_max=*/1);
  const DfaPtr digits = RunOf('0', '9');
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(masks.Get(digits, 0)->inside.Count(), 10);
    EXPECT_EQ(masks.Get(digits, 1)->inside.Count(), 10);
  }
  EXPECT_EQ(masks.walks(), 4);
}

TEST_F(GrammarTest, LongTextsDropFramesThatNobodyNeeds) {
  const NodeId value = builder_.Reserve();
  const NodeId list = builder_.Repeat(value, builder_.Literal(","), 0, kNoMax);
  builder_.Define(value, builder_.Choice({builder_.Literal("x"),
                                          builder_.Sequence({builder_.Literal("("), list, builder_.Literal(")")})}));
  const auto vocabulary = MakeVocabulary();
  auto constraint = NewGrammarConstraint(Build(value), vocabulary);
  ASSERT_TRUE(constraint->AcceptBytes("("));
  // A new depth each time makes new frames.
  std::string deep;
  for (int round = 0; round < 2000; ++round) {
    ASSERT_TRUE(constraint->AcceptBytes(std::string(200, '(') + std::string(200, ')') + ","));
  }
  ASSERT_TRUE(constraint->AcceptBytes("x)"));
  EXPECT_TRUE(constraint->finished());
}

TEST(TokenSet, CountsAndJoins) {
  TokenSet a(130);
  TokenSet b(130);
  a.Add(0);
  b.Add(129);
  a.AddAll(b);
  EXPECT_EQ(a.Count(), 2);
  EXPECT_TRUE(a.Has(129));
  EXPECT_FALSE(a.Has(130));
  EXPECT_FALSE(a.Has(-1));
  a.Remove(129);
  EXPECT_FALSE(a.Has(129));
}

}  // namespace
}  // namespace pensieve::sampling
