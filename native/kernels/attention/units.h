// Sharing units out among threads. No result depends on it: a unit's numbers are the same whichever threads
// compute it.
#pragma once

#include "kernels/attention/problem.h"

namespace slipstream {
namespace {

SLIPSTREAM_INLINE int64_t block_count(int64_t length) {
  return (length + kAttentionBlock - 1) / kAttentionBlock;
}

// Calls shared(unit) on the calling thread, one after another, for units so large that one thread would keep
// the others waiting, and whole(unit, thread) for all others, on all threads at once.
template <class VisibilityOf, class Whole, class Shared>
void for_each_unit(ThreadPool& threads, int64_t units, int64_t group_heads, const VisibilityOf& visibility_of,
                   const Whole& whole, const Shared& shared) {
  double total = 0;
  for (int64_t unit = 0; unit < units; unit++) total += static_cast<double>(visibility_of(unit).pairs());
  const double limit = total / (4.0 * threads.size());
  const auto is_shared = [&](int64_t unit) {
    const Visibility visibility = visibility_of(unit);
    return threads.size() > 1 && static_cast<double>(visibility.pairs()) > limit &&
           block_count(visibility.keys) * group_heads > 1;
  };
  for (int64_t unit = 0; unit < units; unit++) {
    if (is_shared(unit)) shared(unit);
  }
  threads.parallel_tasks(units, [&](int64_t unit, int thread) {
    if (visibility_of(unit).keys > 0 && !is_shared(unit)) whole(unit, thread);
  });
}

}  // namespace
}  // namespace slipstream
