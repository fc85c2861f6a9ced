// The addon of MPI: a transport (native/comm/transport.h) over non-blocking messages between pairs of ranks,
// in a communicator of its own. MPI moves bytes and nothing else. Compiled by mpicxx into its own file, so
// that Slipstream runs without MPI.
#include <mpi.h>
#include <node_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "comm/transport.h"

struct SlipstreamRequest {
  MPI_Request request;
};

namespace {

MPI_Comm communicator = MPI_COMM_NULL;

SlipstreamRequest* send(int32_t peer, int32_t tag, const void* data, size_t bytes) {
  auto* const message = new SlipstreamRequest;
  const int status =
      MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, communicator, &message->request);
  if (status == MPI_SUCCESS) return message;
  delete message;
  return nullptr;
}

SlipstreamRequest* receive(int32_t peer, int32_t tag, void* data, size_t bytes) {
  auto* const message = new SlipstreamRequest;
  const int status = MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, peer < 0 ? MPI_ANY_SOURCE : peer, tag,
                               communicator, &message->request);
  if (status == MPI_SUCCESS) return message;
  delete message;
  return nullptr;
}

int32_t test(SlipstreamRequest* message, int32_t* peer) {
  if (message == nullptr) return -1;
  int done = 0;
  MPI_Status status;
  if (MPI_Test(&message->request, &done, &status) != MPI_SUCCESS) {
    delete message;
    return -1;
  }
  if (done == 0) return 0;
  *peer = status.MPI_SOURCE;
  delete message;
  return 1;
}

void cancel(SlipstreamRequest* message) {
  // Sends cannot be taken back everywhere; they get through, or keep their memory until the process ends.
  if (message != nullptr) MPI_Cancel(&message->request);
}

void finish() {
  MPI_Comm_free(&communicator);
  MPI_Finalize();
}

SlipstreamTransport transport = {
    slipstream::comm::kTransportVersion, 0, 1, 32767, send, receive, test, cancel, finish};

napi_value fail(napi_env env, const char* what) {
  napi_throw_error(env, "mpi", what);
  return nullptr;
}

// openTransport(): joins the ranks that the launcher started; once a process. An opaque transport.
napi_value open_transport(napi_env env, napi_callback_info) {
  if (communicator == MPI_COMM_NULL) {
    int initialized = 0, provided = 0;
    MPI_Initialized(&initialized);
    if (initialized != 0) return fail(env, "MPI has been started by something else in this process");
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) {
      return fail(env, "MPI_Init_thread failed");
    }
    if (provided < MPI_THREAD_SERIALIZED) return fail(env, "this MPI does not support threads");
    MPI_Comm_dup(MPI_COMM_WORLD, &communicator);
    MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN);
    MPI_Comm_rank(communicator, &transport.rank);
    MPI_Comm_size(communicator, &transport.size);
    int* bound = nullptr;
    int found = 0;
    MPI_Comm_get_attr(communicator, MPI_TAG_UB, &bound, &found);
    if (found != 0) transport.highest_tag = *bound;
  }
  napi_value external;
  if (napi_create_external(env, &transport, nullptr, nullptr, &external) != napi_ok) {
    return fail(env, "internal: external");
  }
  return external;
}

// libraryVersion(): what MPI says of itself; may be asked before the transport is opened.
napi_value library_version(napi_env env, napi_callback_info) {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  napi_value value;
  if (napi_create_string_utf8(env, text, static_cast<size_t>(length), &value) != napi_ok) return nullptr;
  return value;
}

void add_function(napi_env env, napi_value exports, const char* name, napi_callback callback) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function) != napi_ok) return;
  napi_set_named_property(env, exports, name, function);
}

}  // namespace

NAPI_MODULE_INIT() {
  add_function(env, exports, "openTransport", open_transport);
  add_function(env, exports, "libraryVersion", library_version);
  return exports;
}
