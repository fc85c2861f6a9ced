// Sharing units out among threads. No result depends on it: a unit's numbers are the same whichever threads
// compute it.
#pragma once

#include "kernels/attention/problem.h"

namespace slipstream {
namespace {

SLIPSTREAM_INLINE int64_t block_count(int64_t length) {
  return (length + kAttentionBlock - 1) / kAttentionBlock;
}

// Scratch memory of a unit above which threads work on one unit at a time, so that there is one such piece.
constexpr int64_t kLargeUnit = int64_t{4} << 20;

// How much work a unit is, in how many tasks several threads can do it, and the scratch memory it needs.
struct UnitLoad {
  int64_t pairs, tasks, bytes;
};

// Calls shared(unit) on the calling thread, one after another, for units so large that one thread would keep
// the others waiting or that one a thread would take much memory, and whole(unit, thread) for all others that
// have tasks, on all threads at once.
template <class LoadOf, class Whole, class Shared>
void for_each_unit(ThreadPool& threads, int64_t units, const LoadOf& load_of, const Whole& whole,
                   const Shared& shared) {
  double total = 0;
  for (int64_t unit = 0; unit < units; unit++) total += static_cast<double>(load_of(unit).pairs);
  const double limit = total / (4.0 * threads.size());
  const auto is_shared = [&](const UnitLoad& load) {
    const bool is_large = static_cast<double>(load.pairs) > limit || load.bytes > kLargeUnit;
    return threads.size() > 1 && is_large && load.tasks > 1;
  };
  for (int64_t unit = 0; unit < units; unit++) {
    if (is_shared(load_of(unit))) shared(unit);
  }
  threads.parallel_tasks(units, [&](int64_t unit, int thread) {
    const UnitLoad load = load_of(unit);
    if (load.tasks > 0 && !is_shared(load)) whole(unit, thread);
  });
}

}  // namespace
}  // namespace slipstream
