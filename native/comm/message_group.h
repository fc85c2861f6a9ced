// A process group over messages: collectives made of pairwise transfers, with sums of our own in the order of
// ranks, so that they give the same bits as local_group.cc.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/call.h"
#include "comm/failure.h"
#include "comm/group.h"
#include "comm/message_world.h"
#include "comm/parcel.h"

namespace slipstream::comm {

class MessageGroup : public Group {
 public:
  MessageGroup(std::shared_ptr<MessageWorld> world, std::string name, std::vector<int> members);

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  const std::string& name() const override { return name_; }
  const std::vector<int>& members() const override { return members_; }
  void run(const CollectiveCall& call) override;
  void abort(const std::string& reason) override;
  void leave() override;
  std::shared_ptr<Group> subgroup(const std::string& name, const std::vector<int>& ranks,
                                  const Link* link) override;
  void set_moment(const std::string& moment) override { world_->set_moment(moment); }
  Traffic traffic() const override;

  // The group's place among the tags.
  int context() const { return context_; }
  void add_user() { users_++; }

 private:
  struct Header;
  using Parcels = std::vector<Parcel>;  // by rank of the group

  Place place();
  MessageWorld::Explain explain(const char* stage);
  Header make_header(const CollectiveCall& call, int peer);
  std::vector<Header> meet(const CollectiveCall& call);
  void compare(const CollectiveCall& call, const std::vector<Header>& headers);
  void transfer(Parcels* outgoing, Parcels* incoming);

  void all_reduce(const CollectiveCall& call);
  void reduce_scatter(const CollectiveCall& call);
  void rearrange(const CollectiveCall& call);
  void exchange(const CollectiveCall& call, const std::vector<Header>& headers);
  void send(const CollectiveCall& call);
  void receive(const CollectiveCall& call);

  const std::shared_ptr<MessageWorld> world_;
  const std::string name_;
  const std::vector<int> members_;
  int rank_ = 0;
  int context_ = 0;
  uint64_t identity_ = 0;  // of name and members
  int64_t calls_ = 0;      // collectives so far
  int64_t number_ = 0;     // of the present call; 0 for messages between two ranks
  Fingerprint fingerprint_;
  std::atomic<int> users_{0};
  mutable std::mutex traffic_mutex_;
  Traffic traffic_;
};

std::shared_ptr<Group> create_message_world(const std::shared_ptr<MessageWorld>& world);

}  // namespace slipstream::comm
