// Collectives of a program in a run: started on the lanes of their groups, waited for by ticket.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "comm/group.h"

namespace slipstream {

// What a start step asks for.
struct PlannedCollective {
  comm::CollectiveKind kind = comm::CollectiveKind::barrier;
  int group = 0;  // an index
  int ticket = 0;
  int dimension = 0, other_dimension = 0, peer = 0;  // as in comm::CollectiveCall
  std::string label;
};

class Collectives {
 public:
  // The groups live as long as this does.
  Collectives(std::vector<comm::Group*> groups, size_t tickets)
      : groups_(std::move(groups)), started_(tickets) {}

  bool any() const { return !groups_.empty(); }
  size_t groups() const { return groups_.size(); }

  // `at_once`: nothing is to run beside it, so it is over when this returns.
  void start(const PlannedCollective& planned, std::span<const Tensor> inputs,
             std::span<const Tensor> outputs, bool at_once);

  // Waits for what was started under a ticket and gives its outputs. Throws what it failed with.
  std::span<const Tensor> wait(int ticket);

  // Ends the groups for every rank, then waits until none of this run's collectives touches memory any more.
  void give_up(const std::string& reason);

  // Ends the groups for every rank. Any thread.
  void abort(const std::string& reason);

  // When each collective ran, by ticket: begin and end in seconds of the steady clock.
  struct Span {
    double begin = 0, end = 0;
  };
  Span span(size_t ticket) const { return started_[ticket].span; }
  size_t tickets() const { return started_.size(); }

 private:
  struct Started {
    comm::Group* group = nullptr;  // null: not under way
    comm::Lane::Ticket ticket = 0;
    std::vector<Tensor> inputs, outputs;
    comm::CollectiveCall call;
    Span span;
  };
  std::vector<comm::Group*> groups_;
  std::vector<Started> started_;
};

}  // namespace slipstream
