// Ranks as threads of one process: collectives over shared memory. Every rank reads its peers' operands where
// they lie, sums its own share of them in the order of ranks, and (all_reduce) writes it into every rank's
// output, so that a collective is one pass over memory between two gates that all pass together.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/group.h"

namespace slipstream::comm {

struct LocalOptions {
  double timeout_seconds = 0;         // 0: waits for ever
  std::map<std::string, Link> links;  // by mesh axis: for groups whose name has that axis
};

// Rank i's end of a world of `size` ranks.
std::vector<std::shared_ptr<Group>> create_local_world(int size, const LocalOptions& options);

}  // namespace slipstream::comm
