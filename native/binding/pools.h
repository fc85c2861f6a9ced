// One thread pool a size for kernels that run alone: making threads costs more than a small kernel. Programs
// run on the pools of their contexts.
#pragma once

#include "core/thread_pool.h"

namespace slipstream::binding {

ThreadPool& pool_of(int threads);

}  // namespace slipstream::binding
