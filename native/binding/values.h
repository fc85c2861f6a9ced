// Reading JavaScript values and turning C++ exceptions into JavaScript errors.
#pragma once

#include <node_api.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace slipstream::binding {

// Throws std::runtime_error where a Node-API call failed.
void check(napi_status status, const char* what);

std::vector<napi_value> arguments(napi_env env, napi_callback_info info, size_t expected);
std::string read_string(napi_env env, napi_value value);
double read_number(napi_env env, napi_value value);
int64_t read_integer(napi_env env, napi_value value);
std::vector<double> read_numbers(napi_env env, napi_value array);
std::vector<std::string> read_strings(napi_env env, napi_value array);
bool is_nullish(napi_env env, napi_value value);
napi_value property(napi_env env, napi_value object, const char* name);
napi_value make_string(napi_env env, const std::string& text);
napi_value make_number(napi_env env, double value);
void set_property(napi_env env, napi_value object, const char* name, napi_value value);

struct Bytes {
  void* data = nullptr;
  size_t length = 0;
};
// The memory of a typed array, ArrayBuffer or SharedArrayBuffer view.
Bytes read_bytes(napi_env env, napi_value value);

// {data: TypedArray | null, dtype: number, shape: number[]}; throws where the data are too short.
Tensor read_tensor(napi_env env, napi_value value);

// Runs `body` and throws its C++ exception as a JavaScript Error.
template <class Body>
napi_value guarded(napi_env env, const Body& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    if (!pending) napi_throw_error(env, "native", error.what());
    return nullptr;
  }
}

}  // namespace slipstream::binding
