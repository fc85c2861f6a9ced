// Memory that the machine hands out when it is first written, asked for ahead of that.
#pragma once

#include <node_api.h>

namespace slipstream::binding {

// populate(view): a promise that resolves when every page of the view has memory behind it, or when the
// system cannot do that. Contents stay as they are.
napi_value populate(napi_env env, napi_callback_info info);

}  // namespace slipstream::binding
