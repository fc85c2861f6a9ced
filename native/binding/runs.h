// Programs and memory as JavaScript sees them.
#pragma once

#include <node_api.h>

namespace slipstream::binding {

// createProgram(words, kernels, isa, constants): an opaque program.
napi_value create_program(napi_env env, napi_callback_info info);

// bindMemory(views): the memory of all bindings of a program, read once for many runs.
napi_value bind_memory(napi_env env, napi_callback_info info);

// runProgram(program, threads, bindings, symbols, prepare, checkFinite, trace): a promise of a report.
// Bindings are views, or what bindMemory gave. The program runs on a thread of libuv's pool; only one runs at
// a time.
napi_value run_program(napi_env env, napi_callback_info info);

// releaseProgram(program): frees its memory; it must not be running.
napi_value release_program(napi_env env, napi_callback_info info);

// allocate(bytes): a zeroed ArrayBuffer aligned to pages.
napi_value allocate(napi_env env, napi_callback_info info);

}  // namespace slipstream::binding
