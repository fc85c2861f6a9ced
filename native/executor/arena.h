// The arena of all programs of a context: they run one at a time and keep nothing in it between runs, so one
// block as large as the largest program needs serves all.
#pragma once

#include <cstddef>
#include <mutex>
#include <set>

#include "core/memory.h"

namespace slipstream {

class Arena {
 public:
  // Says that a program needs `bytes`. Throws std::bad_alloc where the system refuses them.
  void require(size_t bytes);

  // Takes back one `require` of the same size.
  void give_back(size_t bytes);

  // Returns to the system what no program needs any more. No program may be running.
  void trim();

  // The block, at least as large as any requirement. For the program that runs: it stays until the next call.
  char* data();

 private:
  std::mutex mutex_;
  std::multiset<size_t> required_;
  Memory memory_;
  Memory larger_;  // replaces `memory_` at the next run
};

}  // namespace slipstream
