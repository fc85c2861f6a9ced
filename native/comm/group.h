// One rank's end of a process group, as the executor and the binding see it. `local_group.cc` implements it
// over shared memory, the MPI addon (native/mpi) over MPI; both keep the promises at the head of
// src/runtime/group.ts: sums in the order of ranks in float32, a fingerprint with every call, errors that
// name rank and operation.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/lane.h"
#include "core/tensor.h"

namespace slipstream::comm {

// Positions are the codes of src/runtime/native/encode.ts.
enum class CollectiveKind : int {
  barrier = 0,
  all_reduce = 1,
  reduce_scatter = 2,
  all_gather = 3,
  all_to_all = 4,
  permute = 5,
  broadcast = 6,
  send = 7,
  receive = 8,
  all_to_all_variable = 9,
  exchange = 10,
};

// What a rank asks for. Operands are contiguous; an output may be the memory of its input for all_reduce and
// broadcast only. Each input is a collective of its own, all of the same kind (a bucket).
struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::barrier;
  std::span<const Tensor> inputs;
  std::span<const Tensor> outputs;
  int dimension = 0;        // reduce_scatter, all_gather; all_to_all: the one that is cut
  int other_dimension = 0;  // all_to_all: the one that is joined
  int peer = 0;             // root, sender or receiver; permute: how many ranks on
  std::span<const int64_t> send_counts, receive_counts;  // all_to_all_variable, in elements
  std::string label;                                     // what the data are, for errors
  std::vector<std::string>* received = nullptr;          // exchange: every rank's bytes, in their order
};

// A failure of the group. `code` is collective_mismatch, rank_lost or collective_timeout.
class GroupError : public std::runtime_error {
 public:
  GroupError(std::string code, const std::string& message)
      : std::runtime_error(message), code(std::move(code)) {}
  std::string code;
};

// A link as a local group can pretend to have: bytes a second, seconds a message.
struct Link {
  double bandwidth = 0, latency = 0;
};

struct Traffic {
  int64_t bytes = 0;  // sent by this rank, counted as by bandwidth-optimal rings
  double seconds = 0;
};

class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;
  // The members' ranks in the world, ascending.
  virtual const std::vector<int>& members() const = 0;

  // Does the collective and returns when this rank's outputs are there and its inputs may be written again.
  // Called from the group's lane, one call at a time (send may be called from any thread). Throws GroupError.
  virtual void run(const CollectiveCall& call) = 0;

  // Ends the group for every rank. Any thread.
  virtual void abort(const std::string& reason) = 0;

  // Says that who got this end makes no further calls. Once all who got it said so, those who wait for this
  // rank fail (rank_lost).
  virtual void leave() = 0;

  // This rank's end of the group of these members (ranks of this group, ascending, this one among them). It
  // does not wait for the others. The same name and members give the same group.
  virtual std::shared_ptr<Group> subgroup(const std::string& name, const std::vector<int>& ranks,
                                          const Link* link) = 0;

  // What errors call the moment, for every group of this rank's world.
  virtual void set_moment(const std::string& moment) = 0;

  virtual Traffic traffic() const = 0;

  // Where this rank's calls queue: in the order in which they were started.
  Lane& lane() { return lane_; }

 private:
  Lane lane_;
};

}  // namespace slipstream::comm
