#include "executor/context.h"

namespace slipstream {

const std::shared_ptr<ExecutionContext>& ExecutionContext::shared() {
  // Never destroyed: threads may still be there while the process ends.
  static auto& context = *new std::shared_ptr<ExecutionContext>(std::make_shared<ExecutionContext>());
  return context;
}

void ExecutionContext::submit(std::function<void()> work, std::function<void()> done) {
  unfinished_++;
  lane_.submit(
      [this, work = std::move(work)] {
        work();
        // Before `done`, which may let somebody ask.
        unfinished_--;
      },
      [done = std::move(done)](std::exception_ptr) { done(); });
}

ThreadPool& ExecutionContext::pool(int threads) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::unique_ptr<ThreadPool>& pool = pools_[threads];
  if (pool == nullptr) pool = std::make_unique<ThreadPool>(threads);
  return *pool;
}

}  // namespace slipstream
