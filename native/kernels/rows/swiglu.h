// swiglu and swiglu_gradient (docs/kernels.md): silu(gate) * up (Shazeer, arXiv:2002.05202), one pass over
// memory, elements where they lie. All operands have one float dtype. A result may be the memory of any
// operand: a vector of every operand is read before the same elements of the results are written.
#pragma once

#include "core/float_rows.h"
#include "core/vector_math.h"

namespace slipstream {
namespace {

// Elements in one unit of work.
constexpr int64_t kSwigluGrain = 4096;

// Beyond this, e^-x is too large to add 1 to and to take the reciprocal of; silu is there 0 to 2e-36.
constexpr float kLowestGate = -87.0f;

// e^-x for x >= kLowestGate: 2^n 2^f, n = floor(-x log2(e)); 2^f is 1 + f P(f) with relative error 9.4e-8 on
// [0, 1).
SLIPSTREAM_INLINE Vector inverse_exponential(Vector x) {
#if defined(SLIPSTREAM_ONE_LANE)
  return exp(-x);
#else
  const Vector factor(-1.44269504f);
  const Vector bounded = min(Vector(87.0f), x);
  const Vector n = floor(bounded * factor), f = fma(bounded, factor, -n);
  Vector p = 0.00186713022f;
  p = fma(p, f, Vector(0.00901703002f));
  p = fma(p, f, Vector(0.05579991332f));
  p = fma(p, f, Vector(0.24016445010f));
  p = fma(p, f, Vector(0.69315131181f));
  p = fma(p, f, Vector(1.0f));
  return scale(p, n);
#endif
}

// Calls body<T>(i, lanes) for every vector of the operands, T their element type.
template <class Body>
SLIPSTREAM_INLINE void for_each_gate(const KernelCall& call, const Tensor& gate, const Body& body) {
  call.threads.parallel_for(gate.elements(), kSwigluGrain, [&](int64_t begin, int64_t end, int) {
    with_float_type(gate.dtype, [&](auto element) {
      using T = decltype(element);
      for_each_vector(end - begin,
                      [&](int64_t i, auto lanes) { body.template operator()<T>(begin + i, lanes); });
    });
  });
}

void swiglu(const KernelCall& call) {
  const Tensor &gate = call.inputs[0], &up = call.inputs[1], &y = call.outputs[0];
  for_each_gate(call, gate, [&]<class T>(int64_t i, auto lanes) {
    const Vector g = max(Vector(kLowestGate), load(gate.as<T>() + i, lanes));
    store(y.as<T>() + i, g * reciprocal(inverse_exponential(g) + Vector(1.0f)) * load(up.as<T>() + i, lanes),
          lanes);
  });
}

// d_up = d_y silu(g), d_gate = d_y up s (1 + g (1 - s)), s = sigmoid(g).
void swiglu_gradient(const KernelCall& call) {
  const Tensor &d_y = call.inputs[0], &gate = call.inputs[1], &up = call.inputs[2];
  const Tensor &d_gate = call.outputs[0], &d_up = call.outputs[1];
  for_each_gate(call, gate, [&]<class T>(int64_t i, auto lanes) {
    const Vector g = max(Vector(kLowestGate), load(gate.as<T>() + i, lanes));
    const Vector e = inverse_exponential(g), s = reciprocal(e + Vector(1.0f));
    const Vector d = load(d_y.as<T>() + i, lanes) * s;
    // e s is 1 - s without the cancellation.
    const Vector slope = fma(g, e * s, Vector(1.0f));
    const Vector d_g = d * load(up.as<T>() + i, lanes) * slope;
    store(d_gate.as<T>() + i, d_g, lanes);
    store(d_up.as<T>() + i, d * g, lanes);
  });
}

SLIPSTREAM_KERNEL("swiglu", kVectorIsa, swiglu);
SLIPSTREAM_KERNEL("swiglu_gradient", kVectorIsa, swiglu_gradient);

}  // namespace
}  // namespace slipstream
