// <arm_neon.h>, and SLIPSTREAM_NEON, in every file whose vectors are NEON's. On arm64 the compiler targets
// NEON in all files: those with scalar twins define SLIPSTREAM_SCALAR_VECTORS before they include anything.
#pragma once

#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(SLIPSTREAM_SCALAR_VECTORS)
#define SLIPSTREAM_NEON 1
#include <arm_neon.h>
#endif
