#include "binding/pools.h"

#include <map>
#include <memory>
#include <mutex>

namespace slipstream::binding {

ThreadPool& pool_of(int threads) {
  // Never destroyed: workers may still run while the process ends.
  static auto& pools = *new std::map<int, std::unique_ptr<ThreadPool>>();
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<ThreadPool>& pool = pools[threads];
  if (pool == nullptr) pool = std::make_unique<ThreadPool>(threads);
  return *pool;
}

}  // namespace slipstream::binding
