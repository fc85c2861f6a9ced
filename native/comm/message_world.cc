#include "comm/message_world.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "comm/failure.h"
#include "comm/message_group.h"

namespace slipstream::comm {

namespace {

// Tags of context 0, which no group has.
constexpr int kControlTag = 0;

// Longer messages travel in pieces: transports count bytes in 32 bits, and each piece shows that it goes on.
constexpr int64_t kLongest = int64_t{1} << 24;

// For how long a failed world tries to get its last messages through, and to end with the others.
constexpr double kGraceSeconds = 3;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Between two looks: at first none to speak of, then longer, so that kernels have the processors.
void rest(double waited) {
  if (waited < 20e-6) return;
  if (waited < 200e-6) return std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::microseconds(waited < 5e-3 ? 20 : 100));
}

}  // namespace

// What ranks tell one another outside of collectives. Small enough to be sent without the receiver's help.
struct MessageWorld::Control {
  enum Kind : int32_t { failed = 1, left = 2, joined = 3 };
  int32_t kind = failed;
  int32_t context = 0;
  char code[32] = {};
  char text[1900] = {};
};

MessageWorld::MessageWorld(const SlipstreamTransport& transport, double timeout_seconds)
    : transport_(transport), timeout_(timeout_seconds), heard_(std::make_unique<Control>()) {
  hearing_ = transport_.receive(-1, kControlTag, heard_.get(), sizeof(Control));
}

MessageWorld::~MessageWorld() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  kept_changed_.notify_all();
  if (progress_.joinable()) progress_.join();
}

bool MessageWorld::test(Message* message) {
  for (; message->done < message->requests.size(); message->done++) {
    int32_t peer = -1;
    const int32_t state = transport_.test(message->requests[message->done], &peer);
    if (state == 0) return false;
    if (state < 0) {
      message->requests.resize(message->done);
      throw GroupError("rank_lost", list_ranks({message->peer}) + " was lost: the connection to it failed");
    }
  }
  return true;
}

Message MessageWorld::start_send(int peer, int tag, const void* data, int64_t bytes) {
  Message message;
  message.peer = peer;
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_.has_value()) return message;
  for (int64_t at = 0; at < bytes; at += kLongest) {
    const auto length = static_cast<size_t>(std::min(kLongest, bytes - at));
    message.requests.push_back(transport_.send(peer, tag, static_cast<const char*>(data) + at, length));
  }
  return message;
}

Message MessageWorld::start_receive(int peer, int tag, void* data, int64_t bytes) {
  Message message;
  message.peer = peer;
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_.has_value()) return message;
  for (int64_t at = 0; at < bytes; at += kLongest) {
    const auto length = static_cast<size_t>(std::min(kLongest, bytes - at));
    message.requests.push_back(transport_.receive(peer, tag, static_cast<char*>(data) + at, length));
  }
  return message;
}

void MessageWorld::send_kept(int peer, int tag, std::unique_ptr<char[]> memory, int64_t bytes) {
  Message message = start_send(peer, tag, memory.get(), bytes);
  std::lock_guard<std::mutex> lock(mutex_);
  if (message.requests.empty()) return;
  kept_.push_back({std::move(memory), std::move(message)});
  keep_going();
}

void MessageWorld::keep_going() {
  if (!kept_.empty() && !progress_.joinable()) progress_ = std::thread([this] { progress(); });
  kept_changed_.notify_all();
}

void MessageWorld::push_kept() {
  if (unusable_ || finished_) return;
  try {
    for (auto each = kept_.begin(); each != kept_.end();) {
      each = test(&each->message) ? kept_.erase(each) : std::next(each);
    }
  } catch (const GroupError& error) {
    // The transport may still read this memory: it is never freed.
    new std::list<Kept>(std::move(kept_));
    kept_.clear();
    end(error, true);
  }
}

// Long messages need the sender's help to get on, also while it calculates.
void MessageWorld::progress() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!failure_.has_value() && !finished_) {
    kept_changed_.wait(lock, [&] { return stopping_ || finished_ || !kept_.empty(); });
    if (stopping_) return;
    push_kept();
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    lock.lock();
  }
}

void MessageWorld::listen() {
  if (unusable_ || finished_ || hearing_ == nullptr) return;
  int32_t peer = -1;
  for (int32_t state; (state = transport_.test(hearing_, &peer)) != 0;) {
    hearing_ = nullptr;
    if (state < 0) return end(GroupError("rank_lost", "the connection to the other ranks failed"), false);
    if (heard_->kind == Control::left) {
      left_.insert({heard_->context, peer});
    } else if (heard_->kind == Control::joined) {
      left_.erase({heard_->context, peer});
    } else if (!failure_.has_value()) {
      failure_.emplace(heard_->code, heard_->text);
    }
    hearing_ = transport_.receive(-1, kControlTag, heard_.get(), sizeof(Control));
  }
}

void MessageWorld::tell(int peer, const Control& control) {
  auto memory = std::make_unique_for_overwrite<char[]>(sizeof control);
  std::memcpy(memory.get(), &control, sizeof control);
  SlipstreamRequest* const request = transport_.send(peer, kControlTag, memory.get(), sizeof control);
  if (request == nullptr) return;
  Message message;
  message.peer = peer;
  message.requests.push_back(request);
  kept_.push_back({std::move(memory), std::move(message)});
}

void MessageWorld::end(const GroupError& error, bool tell_others) {
  if (failure_.has_value()) return;
  failure_.emplace(error);
  if (!tell_others || unusable_ || finished_) return;
  Control control;
  error.code.copy(control.code, sizeof control.code - 1);
  std::string(error.what()).copy(control.text, sizeof control.text - 1);
  for (int peer = 0; peer < size(); peer++) {
    if (peer != rank()) tell(peer, control);
  }
}

void MessageWorld::fail(const GroupError& error) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    listen();
    end(error, true);
  }
  // The others are told while the transport is still in order.
  std::vector<Message> none;
  drain(&none);
}

void MessageWorld::check() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!failure_.has_value()) listen();
  if (failure_.has_value()) throw GroupError(*failure_);
}

// After a failure: takes back what has not come, and gets what was kept through, for a while.
void MessageWorld::drain(std::vector<Message>* messages) {
  const double begin = now();
  std::unique_lock<std::mutex> lock(mutex_);
  if (unusable_ || finished_) return;
  for (Message& message : *messages) {
    for (size_t each = message.done; each < message.requests.size(); each++) {
      transport_.cancel(message.requests[each]);
    }
  }
  for (;;) {
    bool all = true;
    for (Message& message : *messages) {
      try {
        all = test(&message) && all;
      } catch (const GroupError&) {
        // It is gone with its memory.
      }
    }
    push_kept();
    if (all && kept_.empty()) return;
    if (now() - begin > 0.3) break;
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    lock.lock();
  }
  for (const Message& message : *messages) unusable_ = unusable_ || message.done < message.requests.size();
}

void MessageWorld::wait(std::vector<Message>* messages, int context, const Explain& explain) {
  const double begin = now();
  double last = begin;
  double without = -1;  // since when a missing rank is known to have left
  size_t done_before = 0;
  for (;;) {
    std::optional<GroupError> error;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      size_t done = 0;
      bool all = true;
      try {
        for (Message& message : *messages) {
          all = !failure_.has_value() && test(&message) && all;
          done += message.done;
        }
      } catch (const GroupError& failure) {
        end(failure, true);
      }
      if (!failure_.has_value() && all) return;
      if (!failure_.has_value()) listen();
      error = failure_;
      if (done > done_before) last = now();
      done_before = done;
    }
    if (!error.has_value()) {
      std::vector<int> missing, gone;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        for (const Message& message : *messages) {
          if (message.done == message.requests.size()) continue;
          const bool left = left_.contains({context, message.peer}) || left_.contains({0, message.peer});
          std::vector<int>& list = left ? gone : missing;
          if (std::ranges::find(list, message.peer) == list.end()) list.push_back(message.peer);
        }
      }
      if (gone.empty()) {
        without = -1;
      } else if (without < 0) {
        without = now();
      }
      // What was sent before leaving may still be on its way.
      if (without >= 0 && now() - without > 0.2) {
        fail(explain(gone, true));
      } else if (timeout_ > 0 && now() - last > timeout_ && !missing.empty()) {
        std::ranges::sort(missing);
        fail(explain(missing, false));
      } else {
        rest(now() - last);
        continue;
      }
      std::lock_guard<std::mutex> lock(mutex_);
      error = failure_;
    }
    drain(messages);
    throw GroupError(*error);
  }
}

void MessageWorld::leave(int context, const std::vector<int>& members) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_.has_value() || finished_) return;
  Control control;
  control.kind = Control::left;
  control.context = context;
  for (int peer : members) {
    if (peer != rank()) tell(peer, control);
  }
  told_left_.insert(context);
  keep_going();
}

void MessageWorld::set_moment(const std::string& moment) {
  std::lock_guard<std::mutex> lock(mutex_);
  moment_ = moment;
}

std::string MessageWorld::moment() {
  std::lock_guard<std::mutex> lock(mutex_);
  return moment_;
}

std::shared_ptr<Group> MessageWorld::join(const std::string& name, const std::vector<int>& members,
                                          const Link* link) {
  if (link != nullptr) throw std::logic_error("links are emulated between ranks of one process only");
  std::lock_guard<std::mutex> lock(mutex_);
  std::weak_ptr<MessageGroup>& known = groups_[{name, members}];
  std::shared_ptr<MessageGroup> group = known.lock();
  if (group == nullptr) {
    group = std::make_shared<MessageGroup>(shared_from_this(), name, members);
    known = group;
  }
  if (told_left_.erase(group->context()) > 0) {
    Control control;
    control.kind = Control::joined;
    control.context = group->context();
    for (int peer : members) {
      if (peer != rank()) tell(peer, control);
    }
    keep_going();
  }
  group->add_user();
  return group;
}

void MessageWorld::finish() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (finished_) return;
  const bool failed = failure_.has_value();
  if (!unusable_) {
    Control control;
    control.kind = Control::left;
    for (int peer = 0; peer < size(); peer++) {
      if (peer != rank()) tell(peer, control);
    }
  }
  const double begin = now();
  const auto all_left = [&] {
    for (int peer = 0; peer < size(); peer++) {
      if (peer != rank() && !left_.contains({0, peer})) return false;
    }
    return kept_.empty();
  };
  const double patience = failed ? kGraceSeconds : timeout_;
  while (patience == 0 || now() - begin < patience) {
    if (!unusable_) {
      push_kept();
      listen();
      if (all_left()) break;
    }
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    lock.lock();
  }
  // Ending the transport waits for all: only where all are known to do it.
  const bool orderly = !unusable_ && all_left();
  finished_ = true;
  kept_changed_.notify_all();
  if (!orderly) return;
  if (hearing_ != nullptr) {
    transport_.cancel(hearing_);
    int32_t peer;
    for (double until = now() + 1; now() < until && transport_.test(hearing_, &peer) == 0;) {
    }
    hearing_ = nullptr;
  }
  transport_.finish();
}

}  // namespace slipstream::comm
