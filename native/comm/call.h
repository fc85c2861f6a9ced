// What can be said of a collective call without its data: its fingerprint, which all ranks must have in
// common, its description for errors, and what it costs on a link.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/group.h"

namespace slipstream::comm {

// Kind, dimensions, root, and the dtypes and shapes of all operands. Lengths that may differ between ranks
// (those of all_to_all_variable and exchange) are left out; so is the peer of send and receive.
struct Fingerprint {
  std::vector<int64_t> words;
  std::string label;
  bool operator==(const Fingerprint&) const = default;
};
void take_fingerprint(const CollectiveCall& call, Fingerprint* result);

// Such as: all_gather of "model.norm" f32[4, 8] along dimension 0.
std::string describe(const Fingerprint& fingerprint);

// What a rank sends, by the counts of src/graph/rules/communication.ts (bandwidth-optimal rings).
struct Cost {
  double bytes = 0;
  int messages = 0;
};
Cost cost_of(const CollectiveCall& call, int rank, int size);

// Throws std::logic_error where the operands of a call do not fit each other.
void validate(const CollectiveCall& call, int rank, int size);

// Such as: rank 1, ranks 0, 2 and 3.
std::string list_ranks(const std::vector<int>& ranks);

}  // namespace slipstream::comm
