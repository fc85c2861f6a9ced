#include "binding/completions.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "binding/values.h"

namespace slipstream::binding {

namespace {

struct Environment {
  napi_threadsafe_function function = nullptr;
  int unsettled = 0;  // JavaScript's thread only
  std::mutex mutex;
  std::condition_variable posted;
  std::set<Completion*> under_way;
};

std::mutex environments_mutex;

std::map<napi_env, std::shared_ptr<Environment>>& environments() {
  // Never destroyed: work may still end while the process does.
  static auto& all = *new std::map<napi_env, std::shared_ptr<Environment>>();
  return all;
}

void settle(napi_env env, napi_value, void* context, void* data) {
  std::unique_ptr<Completion> completion(static_cast<Completion*>(data));
  if (env == nullptr) return;
  completion->settle(env);
  Environment& environment = *static_cast<Environment*>(context);
  if (--environment.unsettled == 0) napi_unref_threadsafe_function(env, environment.function);
}

// Runs before the environment closes the function and frees the memory of its buffers.
void finish(void* data) {
  Environment& environment = *static_cast<Environment*>(data);
  std::unique_lock<std::mutex> lock(environment.mutex);
  for (Completion* completion : environment.under_way) completion->stop();
  environment.posted.wait(lock, [&] { return environment.under_way.empty(); });
}

Environment& environment_of(napi_env env) {
  std::lock_guard<std::mutex> lock(environments_mutex);
  std::shared_ptr<Environment>& environment = environments()[env];
  if (environment != nullptr) return *environment;
  environment = std::make_shared<Environment>();
  const auto forget = [](napi_env closed, void*, void*) {
    std::lock_guard<std::mutex> forget_lock(environments_mutex);
    environments().erase(closed);
  };
  check(napi_create_threadsafe_function(env, nullptr, nullptr, make_string(env, "slipstream"), 0, 1, nullptr,
                                        forget, environment.get(), settle, &environment->function),
        "completions");
  check(napi_unref_threadsafe_function(env, environment->function), "completions");
  // Hooks run in the reverse order of their addition: this one before the function's own.
  check(napi_add_env_cleanup_hook(env, finish, environment.get()), "cleanup hook");
  return *environment;
}

}  // namespace

void finish_completions_first(napi_env env) {
  Environment& environment = environment_of(env);
  check(napi_remove_env_cleanup_hook(env, finish, &environment), "cleanup hook");
  check(napi_add_env_cleanup_hook(env, finish, &environment), "cleanup hook");
}

void expect_completion(napi_env env, Completion* completion) {
  Environment& environment = environment_of(env);
  if (environment.unsettled++ == 0) {
    check(napi_ref_threadsafe_function(env, environment.function), "completions");
  }
  std::lock_guard<std::mutex> lock(environment.mutex);
  environment.under_way.insert(completion);
}

void post_completion(napi_env env, Completion* completion) {
  std::shared_ptr<Environment> environment;
  {
    std::lock_guard<std::mutex> lock(environments_mutex);
    environment = environments().at(env);
  }
  // Under the lock, so that the environment does not end in between.
  std::lock_guard<std::mutex> lock(environment->mutex);
  environment->under_way.erase(completion);
  if (napi_call_threadsafe_function(environment->function, completion, napi_tsfn_nonblocking) != napi_ok) {
    delete completion;
  }
  environment->posted.notify_all();
}

}  // namespace slipstream::binding
