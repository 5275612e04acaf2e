// Greedy choice among logits.
#pragma once

#include "vectors.h"

// The index of the largest of n values, the first among equals; -1 where one is not finite.
static inline int64_t greedy(const float *x, int64_t n) {
  FloatVector best = all(-INFINITY), strange = {};
  for (int64_t i = 0; i < n; i += LANES<float>) {
    FloatVector some = all(x[i]);  // lanes behind the end repeat a value
    if (n - i >= LANES<float>) {
      some = load(x + i);
    } else {
      for (int64_t j = i; j < n; j++) some[j - i] = x[j];
    }
    strange += some - some;  // NaN of infinities and of NaN
    best = some > best ? some : best;
  }
  float most = best[0];
  for (int i = 1; i < LANES<float>; i++) most = best[i] > most ? best[i] : most;
  if (!(sum<float>(strange) == 0.0f)) return -1;
  int64_t at = 0;
  while (x[at] != most) at++;
  return at;
}
