// One thread pool a size, shared by all programs: making threads costs more than a small kernel.
#pragma once

#include "core/thread_pool.h"

namespace slipstream::binding {

ThreadPool& pool_of(int threads);

}  // namespace slipstream::binding
