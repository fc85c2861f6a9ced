// A world of processes over a transport: messages that are waited for with a deadline while failures, and the
// leaving of ranks, are heard of. One world a process. Everything may be called from any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "comm/group.h"
#include "comm/transport.h"

namespace slipstream::comm {

class MessageGroup;

// A message under way. Its memory belongs to the caller.
struct Message {
  int peer = 0;                              // rank of the world
  std::vector<SlipstreamRequest*> requests;  // a long message travels in several
  size_t done = 0;                           // of them
};

class MessageWorld : public std::enable_shared_from_this<MessageWorld> {
 public:
  MessageWorld(const SlipstreamTransport& transport, double timeout_seconds);
  ~MessageWorld();

  int rank() const { return transport_.rank; }
  int size() const { return transport_.size; }
  double timeout() const { return timeout_; }

  // The channels of a group have the tags `context * kChannels` on.
  static constexpr int kChannels = 4;
  int contexts() const { return transport_.highest_tag / kChannels; }

  Message start_send(int peer, int tag, const void* data, int64_t bytes);
  Message start_receive(int peer, int tag, void* data, int64_t bytes);

  // Sends memory that is kept until it is through, without waiting.
  void send_kept(int peer, int tag, std::unique_ptr<char[]> memory, int64_t bytes);

  // Waits for all. When none got on for as long as the timeout, or a rank of `peers` that is still missing
  // has left group `context`, `explain` makes the error from the ranks that are missing; that ends the world.
  using Explain = std::function<GroupError(const std::vector<int>& missing, bool left)>;
  void wait(std::vector<Message>* messages, int context, const Explain& explain);

  // Throws the failure that ended the world, if one did.
  void check();
  // Ends the world on every rank with the first failure reported.
  void fail(const GroupError& error);
  // Tells the members that this rank makes no further calls in a group.
  void leave(int context, const std::vector<int>& members);

  void set_moment(const std::string& moment);
  std::string moment();

  // This rank's end of a group: one object a name and members.
  std::shared_ptr<Group> join(const std::string& name, const std::vector<int>& members, const Link* link);

  // The process ends: says so, waits until every rank does, and ends the transport.
  void finish();

 private:
  struct Control;
  struct Kept {
    std::unique_ptr<char[]> memory;
    Message message;
  };

  bool test(Message* message);  // under mutex_: whether it is through; throws GroupError where it failed
  void listen();                // under mutex_: takes in what other ranks tell
  void tell(int peer, const Control& control);
  void end(const GroupError& error, bool tell_others);  // under mutex_
  void drain(std::vector<Message>* messages);
  void progress();
  void push_kept();   // under mutex_; abandons everything where the transport fails
  void keep_going();  // under mutex_: sees to what was kept

  const SlipstreamTransport transport_;
  const double timeout_;

  std::mutex mutex_;  // the transport's too
  std::optional<GroupError> failure_;
  bool unusable_ = false;  // messages are stuck in memory that is no longer ours
  bool finished_ = false;
  std::string moment_;
  std::set<std::pair<int, int>> left_;  // group's context and rank; context 0: every group
  std::set<int> told_left_;             // contexts that this rank told to have left
  std::list<Kept> kept_;
  std::unique_ptr<Control> heard_;
  SlipstreamRequest* hearing_ = nullptr;
  std::map<std::pair<std::string, std::vector<int>>, std::weak_ptr<MessageGroup>> groups_;
  std::condition_variable kept_changed_;
  bool stopping_ = false;
  std::thread progress_;
};

}  // namespace slipstream::comm
