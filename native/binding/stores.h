// Stores (io/file_store.h) as JavaScript sees them: by number.
#pragma once

#include <node_api.h>

namespace slipstream::binding {

// openStore(folder, bytes, direct): the number of a new store.
napi_value open_store(napi_env env, napi_callback_info info);

// moveStore(store, direction, offset, view): a promise; direction 0 reads into the view, 1 writes from it.
napi_value move_store(napi_env env, napi_callback_info info);

// storeTraffic(store): what it moved so far.
napi_value store_traffic(napi_env env, napi_callback_info info);

// drainStore(store): waits for what a failed program left under way.
napi_value drain_store(napi_env env, napi_callback_info info);

// closeStore(store): gives its file back; no program that names it may run afterwards.
napi_value close_store(napi_env env, napi_callback_info info);

}  // namespace slipstream::binding
