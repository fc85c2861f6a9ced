// Programs and memory as JavaScript sees them.
#pragma once

#include <node_api.h>

namespace slipstream::binding {

// createContext(isolated): where programs run: one of its own, or that of the process.
napi_value create_context(napi_env env, napi_callback_info info);

// releaseContext(context): its memory is freed with its last program.
napi_value release_context(napi_env env, napi_callback_info info);

// createProgram(context, words, kernels, isa, constants, groups, labels): an opaque program. `groups` are
// what `native` of process groups holds, in the order of the words.
napi_value create_program(napi_env env, napi_callback_info info);

// bindMemory(views): the memory of all bindings of a program, read once for many runs.
napi_value bind_memory(napi_env env, napi_callback_info info);

// runProgram(program, threads, bindings, symbols, prepare, checkFinite, trace): a promise of a report.
// Bindings are views, or what bindMemory gave. The program runs on the thread of its context, one at a time.
napi_value run_program(napi_env env, napi_callback_info info);

// releaseProgram(program): frees its memory, after the runs that were started before.
napi_value release_program(napi_env env, napi_callback_info info);

// allocate(bytes): a zeroed ArrayBuffer aligned to pages.
napi_value allocate(napi_env env, napi_callback_info info);

}  // namespace slipstream::binding
