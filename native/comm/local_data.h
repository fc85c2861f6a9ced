// What one rank does of a collective whose operands all lie in this process.
#pragma once

#include <vector>

#include "comm/group.h"

namespace slipstream::comm {

// `calls` are all ranks' calls, in their order. Every rank runs this at the same time, each for itself:
// together they write every output once, and no one writes what another reads.
void move_data(const std::vector<const CollectiveCall*>& calls, int rank);

// The shape of what a call gives, whatever the shape of the output it was given.
Tensor gathered(const CollectiveCall& call, size_t index, int size);

}  // namespace slipstream::comm
