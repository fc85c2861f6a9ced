// How work on other threads comes back to JavaScript: what it gives is settled on JavaScript's thread. The
// process stays alive while something is expected. When the environment ends, what still runs is asked to
// stop and waited for, because the memory that it uses ends with it.
#pragma once

#include <node_api.h>

#include <memory>

namespace slipstream::binding {

class Completion {
 public:
  virtual ~Completion() = default;

  // JavaScript's thread: resolves or rejects a promise and lets go of references.
  virtual void settle(napi_env env) = 0;

  // JavaScript's thread, while the work is under way and the environment ends: makes it end soon.
  virtual void stop() {}
};

// JavaScript's thread, before the work is given to another: `post` will be called with this completion.
void expect_completion(napi_env env, Completion* completion);

// Any thread, once for each expected completion; takes ownership.
void post_completion(napi_env env, Completion* completion);

// JavaScript's thread: when the environment ends, what is expected ends before anything that was made by now.
void finish_completions_first(napi_env env);

}  // namespace slipstream::binding
