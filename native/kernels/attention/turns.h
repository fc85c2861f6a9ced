// Turns at the sums of key blocks in the backward pass, where several threads work on one unit.
#pragma once

#include <sched.h>

#include "kernels/attention/problem.h"

namespace slipstream {
namespace {

// taken[b] counts the (head, query block) tasks that have added to key block b. A task may add when all
// earlier ones that add to the block have; it is called by the task whose turn it is to pass it on.
SLIPSTREAM_INLINE void wait_for_turn(const int32_t* taken, int64_t turn) {
  for (int64_t spin = 0; __atomic_load_n(taken, __ATOMIC_ACQUIRE) != turn; spin++) {
    if (spin < 4000) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      __asm__ volatile("yield");
#endif
    } else {
      sched_yield();
    }
  }
}
SLIPSTREAM_INLINE void pass_turn(int32_t* taken) { __atomic_store_n(taken, *taken + 1, __ATOMIC_RELEASE); }

// The turns of tasks that skip the key blocks which their queries do not see: a task's number among those of
// a block follows from which queries see it.
struct Turns {
  int32_t* taken;  // null where one thread does all tasks in order
  Visibility visibility;

  SLIPSTREAM_INLINE void wait(int64_t key_block, int64_t head, int64_t query_block) const {
    if (taken == nullptr) return;
    const int64_t first = visibility.causal ? key_block : 0;
    int64_t last = (visibility.keys - 1) / kAttentionBlock;
    if (visibility.window > 0) {
      // The last query that sees the block's last key is window - 1 behind it.
      last = smaller(
          last, (key_block * kAttentionBlock + kAttentionBlock + visibility.window - 2) / kAttentionBlock);
    }
    wait_for_turn(taken + key_block, head * (last - first + 1) + query_block - first);
  }

  SLIPSTREAM_INLINE void pass(int64_t key_block) const {
    if (taken != nullptr) pass_turn(taken + key_block);
  }
};

}  // namespace
}  // namespace slipstream
