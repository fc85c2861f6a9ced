// What programs need to run: an arena, kernel threads, and the thread that runs one program after another. A
// process has one context by default. Ranks that share a process have one each: their programs run side by
// side, and one that waits in a collective holds up none of the others.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "comm/lane.h"
#include "core/thread_pool.h"
#include "executor/arena.h"

namespace slipstream {

class ExecutionContext {
 public:
  ExecutionContext() = default;
  ExecutionContext(const ExecutionContext&) = delete;
  ExecutionContext& operator=(const ExecutionContext&) = delete;

  // The context of all who do not ask for one of their own.
  static const std::shared_ptr<ExecutionContext>& shared();

  Arena& arena() { return arena_; }

  // Does the work on the thread where programs run, after what was submitted before; then calls `done` there.
  void submit(std::function<void()> work, std::function<void()> done);

  // Whether nothing runs or waits to run. For the thread that submits.
  bool idle() const { return unfinished_ == 0; }

  // The kernel threads for programs of so many threads: made once, as making them costs more than a kernel.
  ThreadPool& pool(int threads);

 private:
  Arena arena_;
  std::mutex mutex_;
  std::map<int, std::unique_ptr<ThreadPool>> pools_;
  std::atomic<int> unfinished_ = 0;
  // Last, so that it ends first: what it runs uses the others.
  comm::Lane lane_;
};

}  // namespace slipstream
