#include "binding/populate.h"

#include <sys/mman.h>

#include <cstdint>
#include <memory>

#include "binding/values.h"

namespace slipstream::binding {

namespace {

struct Populating {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref keep_alive = nullptr;
  Bytes bytes;
};

// MADV_POPULATE_WRITE (Linux 5.14): older headers do not name it, older systems refuse it, and then pages
// come when they are first written, as they would have.
constexpr int kPopulateWrite = 23;
constexpr uintptr_t kPage = 4096;

void execute(napi_env, void* data) {
  const Bytes& bytes = static_cast<Populating*>(data)->bytes;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.data);
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + bytes.length) / kPage * kPage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, kPopulateWrite);
}

void complete(napi_env env, napi_status, void* data) {
  const std::unique_ptr<Populating> populating(static_cast<Populating*>(data));
  napi_delete_async_work(env, populating->work);
  napi_delete_reference(env, populating->keep_alive);
  napi_value nothing;
  napi_get_undefined(env, &nothing);
  napi_resolve_deferred(env, populating->deferred, nothing);
}

}  // namespace

napi_value populate(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const napi_value view = arguments(env, info, 1)[0];
    auto populating = std::make_unique<Populating>();
    populating->bytes = read_bytes(env, view);
    napi_value promise;
    check(napi_create_reference(env, view, 1, &populating->keep_alive), "reference");
    check(napi_create_promise(env, &populating->deferred, &promise), "promise");
    check(napi_create_async_work(env, nullptr, make_string(env, "slipstream populate"), execute, complete,
                                 populating.get(), &populating->work),
          "async work");
    check(napi_queue_async_work(env, populating->work), "queue");
    populating.release();
    return promise;
  });
}

}  // namespace slipstream::binding
