#include "engine/event_queue.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

Event Token(int32_t id) {
  Event event;
  event.sample.id = id;
  return event;
}
Event Done() {
  Event event;
  event.kind = Event::Kind::kDone;
  return event;
}

class EventQueueTest : public testing::Test {
 protected:
  std::shared_ptr<WakeSignal> drained = std::make_shared<WakeSignal>();
  EventQueue queue{3, drained};
};

TEST_F(EventQueueTest, KeepsOrderAndHasRoomForTheEnd) {
  for (int32_t round = 0; round < 3; ++round) {  // around the ring
    queue.Push(Token(round));
    EXPECT_EQ(queue.TryNext()->sample.id, round);
  }
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_FALSE(queue.full());
    queue.Push(Token(i));
  }
  EXPECT_TRUE(queue.full());
  queue.PushTerminal(Done());
  for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(queue.Next()->sample.id, i);
  EXPECT_TRUE(queue.Next()->terminal());
  EXPECT_FALSE(queue.Next().has_value());  // and does not wait
  EXPECT_FALSE(queue.TryNext().has_value());
}

TEST_F(EventQueueTest, ProgressNeverQueues) {
  queue.PushIfEmpty(Token(1));
  queue.PushIfEmpty(Token(2));
  EXPECT_EQ(queue.TryNext()->sample.id, 1);
  EXPECT_FALSE(queue.TryNext().has_value());
}

TEST_F(EventQueueTest, OnlyOneEnd) {
  queue.PushTerminal(Done());
  EXPECT_DEATH(queue.PushTerminal(Done()), "check failed");
  EXPECT_DEATH(queue.Push(Token(1)), "check failed");
}

TEST_F(EventQueueTest, WakesWhenNoLongerEmpty) {
  int wakes = 0;
  queue.SetWaker([&] { ++wakes; });
  EXPECT_EQ(wakes, 0);
  queue.Push(Token(1));
  queue.Push(Token(2));
  EXPECT_EQ(wakes, 1);
  queue.TryNext();
  queue.Push(Token(3));  // was not empty
  EXPECT_EQ(wakes, 1);
  queue.TryNext();
  queue.TryNext();
  queue.PushTerminal(Done());
  EXPECT_EQ(wakes, 2);
  queue.SetWaker([&] { wakes += 10; });  // events wait already
  EXPECT_EQ(wakes, 12);
  queue.SetWaker(nullptr);
}

TEST_F(EventQueueTest, WakerMayTakeEventsAndReplaceItself) {
  int taken = 0;
  queue.SetWaker([&] {
    while (queue.TryNext().has_value()) ++taken;
    queue.SetWaker(nullptr);
  });
  queue.Push(Token(1));
  queue.Push(Token(2));
  EXPECT_EQ(taken, 1);
}

TEST_F(EventQueueTest, DrainingAFullQueueIsSignalled) {
  for (int32_t i = 0; i < 3; ++i) queue.Push(Token(i));
  queue.TryNext();
  drained->Wait();  // raised: returns at once
}

TEST_F(EventQueueTest, NoWakeAfterSetWakerReturned) {
  // The waker writes to what its owner frees right after SetWaker(nullptr): a sanitizer would see a late call.
  for (int round = 0; round < 200; ++round) {
    EventQueue own(4, drained);
    auto target = std::make_unique<std::atomic<int>>(0);
    own.SetWaker([&own, counter = target.get()] {
      while (own.TryNext().has_value()) counter->fetch_add(1);
    });
    std::thread pusher([&own] {
      for (int32_t i = 0; i < 50; ++i) {
        if (!own.full()) own.Push(Token(i));
      }
    });
    own.SetWaker(nullptr);
    target.reset();
    pusher.join();
  }
}

TEST_F(EventQueueTest, NextWaitsForAnotherThread) {
  std::thread consumer([this] {
    int tokens = 0;
    while (auto event = queue.Next()) tokens += event->terminal() ? 0 : 1;
    EXPECT_EQ(tokens, 100);
  });
  for (int32_t i = 0; i < 100; ++i) {
    while (queue.full()) drained->Wait();
    queue.Push(Token(i));
  }
  queue.PushTerminal(Done());
  consumer.join();
}

}  // namespace
}  // namespace pensieve::engine
