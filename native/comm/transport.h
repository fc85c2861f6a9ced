// What moves bytes between processes, as a table of C functions: the addon of MPI (native/mpi) fills it in,
// and message_world.cc is all that calls it, one call at a time. Nothing in it waits.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct SlipstreamRequest;  // a message under way

struct SlipstreamTransport {
  int32_t version;  // kTransportVersion
  int32_t rank, size;
  int32_t highest_tag;  // tags are 0 to this
  // Each starts a message and returns it, or null for a failure. The memory must last until `test` says that
  // the message is done. Messages of one sender with one tag arrive in the order in which they were sent. The
  // bytes received may be fewer than asked for; a peer of -1 is any.
  SlipstreamRequest* (*send)(int32_t peer, int32_t tag, const void* data, size_t bytes);
  SlipstreamRequest* (*receive)(int32_t peer, int32_t tag, void* data, size_t bytes);
  // 1: done, and the request is gone; 0: not yet; -1: failed, and the request is gone. Gives who sent it.
  int32_t (*test)(SlipstreamRequest* request, int32_t* peer);
  // Tries to take back a receive; `test` still has to be asked until it is done.
  void (*cancel)(SlipstreamRequest* request);
  // Ends the transport, when every rank does.
  void (*finish)();
};

}  // extern "C"

namespace slipstream::comm {

constexpr int32_t kTransportVersion = 1;

}  // namespace slipstream::comm
