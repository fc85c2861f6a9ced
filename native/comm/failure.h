// The texts of a group's failures, the same for every implementation: who, in what, where, when.
#pragma once

#include <string>
#include <vector>

#include "comm/call.h"

namespace slipstream::comm {

// Where a failure came about.
struct Place {
  std::string group;
  std::vector<int> members;  // in the world
  int64_t call = 0;          // the number of the call in the group, from 1; 0 where calls are not counted
  std::string moment;        // of the rank that tells it
};

// What one rank called, or was doing instead.
struct Testimony {
  std::vector<int> ranks;  // in the world
  std::string moment, text;
};

GroupError mismatch(const Place& place, const std::vector<Testimony>& calls);
GroupError timeout(const Place& place, const Fingerprint& call, const std::vector<int>& missing,
                   double seconds, const std::vector<Testimony>& meanwhile);
// `how` completes "rank 1 ...", such as "left".
GroupError lost(const Place& place, const Fingerprint& call, const std::vector<int>& ranks,
                const std::string& how);
GroupError aborted(const Place& place, int rank, const std::string& reason);

}  // namespace slipstream::comm
