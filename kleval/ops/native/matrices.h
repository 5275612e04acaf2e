// Matrix products with packed weights, and the elementwise functions between them.
//
// A matrix of `outputs` rows and `inputs` columns is packed in panels of PANEL outputs: [outputs / PANEL][inputs][PANEL], zeros behind.
// One output vector is then made of whole vectors of weights, for one row of x (decoding reads every weight once, in order) as for many.
#pragma once

#include "vectors.h"

typedef FloatVector V;
constexpr int W = LANES<float>;
constexpr int PANEL = 2 * W;
#if defined(__AVX512F__)
constexpr int TILE = 12;  // rows of x at a time: as many as the registers hold beside the weights
#else
constexpr int TILE = 6;
#endif

struct Matrix {
  const float *data;
  int64_t outputs, inputs;
};

static inline int64_t packed_size(int64_t outputs, int64_t inputs) { return int64_t(up(outputs, PANEL)) * inputs; }

namespace {

// R rows of x by P panels of weights. Turned: x is given as its transpose [inputs, rows].
template <int R, int P, bool Turned = false>
inline void tile(const float *x, int64_t ldx, const float *w, int inputs, float *y, int64_t ldy, int width, bool add) {
  V sum[R][2 * P];
#pragma GCC unroll 12
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int n = 0; n < 2 * P; n++) sum[r][n] = V{};
  for (int i = 0; i < inputs; i++) {
    V b[2 * P];
#pragma GCC unroll 8
    for (int n = 0; n < 2 * P; n++) b[n] = load(w + int64_t(n / 2) * inputs * PANEL + int64_t(i) * PANEL + (n & 1) * W);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      const float a = Turned ? x[i * ldx + r] : x[r * ldx + i];
#pragma GCC unroll 8
      for (int n = 0; n < 2 * P; n++) sum[r][n] += b[n] * a;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int n = 0; n < 2 * P; n++) {
      float *out = y + r * ldy + n * W;
      const int left = width - n * W;
      if (left <= 0) break;
      store_some(out, add ? load_some(out, left) + sum[r][n] : sum[r][n], left);
    }
}

template <int R, bool Turned> inline void rows_tile(const float *x, int64_t ldx, const Matrix &m, float *y, int64_t ldy, bool add) {
  constexpr int P = R <= 2 ? 4 : 1;
  const int inputs = int(m.inputs), outputs = int(m.outputs);
  int n = 0;
  for (; n + (P - 1) * PANEL < outputs; n += P * PANEL)
    tile<R, P, Turned>(x, ldx, m.data + int64_t(n) * inputs, inputs, y + n, ldy, outputs - n, add);
  for (; n < outputs; n += PANEL) tile<R, 1, Turned>(x, ldx, m.data + int64_t(n) * inputs, inputs, y + n, ldy, outputs - n, add);
}

template <int R, bool Turned> inline void some_rows(int rows, const float *x, int64_t ldx, const Matrix &m, float *y, int64_t ldy, bool add) {
  if (rows == R) return rows_tile<R, Turned>(x, ldx, m, y, ldy, add);
  if constexpr (R > 1) some_rows<R - 1, Turned>(rows, x, ldx, m, y, ldy, add);
}

// y [rows, outputs] = or += x [rows, inputs] times the matrix's transpose. y has no room behind `outputs`.
template <bool Turned = false>
inline void multiply(const float *x, int64_t ldx, int rows, const Matrix &m, float *y, int64_t ldy, bool add = false) {
  if (rows < TILE) return rows ? some_rows<TILE - 1, Turned>(rows, x, ldx, m, y, ldy, add) : void();
  // Panel by panel, over rows that stay in the cache.
  const int inputs = int(m.inputs), outputs = int(m.outputs), whole = rows - rows % TILE;
  for (int n = 0; n < outputs; n += PANEL)
    for (int r = 0; r < whole; r += TILE)
      tile<TILE, 1, Turned>(x + (Turned ? r : r * ldx), ldx, m.data + int64_t(n) * inputs, inputs, y + r * ldy + n, ldy, outputs - n, add);
  if (whole < rows) some_rows<TILE - 1, Turned>(rows - whole, x + (Turned ? whole : whole * ldx), ldx, m, y + whole * ldy, ldy, add);
}

inline V sigmoid(V x) { return 1.0f / (1.0f + exp(-x)); }
inline V silu(V x) { return x / (1.0f + exp(-x)); }

// log(x) of positive x, to 2 units in the last place; what is not positive and finite is not asked for.
inline V log(V x) {
  IntVector bits;
  std::memcpy(&bits, &x, sizeof bits);
  IntVector power = ((bits - 0x3f3504f3) >> 23);  // the mantissa is then between sqrt(1/2) and sqrt(2)
  const IntVector mantissa = bits - (power << 23);
  V m;
  std::memcpy(&m, &mantissa, sizeof m);
  const V e = __builtin_convertvector(power, V), f = m - 1.0f, z = f * f;
  V p = all(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  p = p * f * z + e * -2.12194440e-4f - z * 0.5f;
  return f + p + e * 0.693359375f;
}

// log(1 + e^x), as torch has it: x itself above 20.
inline V softplus(V x) {
  const V u = exp(x > 20.0f ? all(20.0f) : x), w = 1.0f + u;
  const V y = w == 1.0f ? u : log(w) * u / (w - 1.0f);  // what rounding took from 1 + u is given back
  return x > 20.0f ? x : y;
}

inline float square_sum(const float *x, int n) {
  V total[2] = {};
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    total[0] += load(x + i) * load(x + i);
    total[1] += load(x + i + W) * load(x + i + W);
  }
  for (; i < n; i += W) total[0] += load_some(x + i, n - i) * load_some(x + i, n - i);
  return sum<float>(total[0] + total[1]);
}

inline void rms_norm(const float *x, const float *weight, int n, float eps, float *y) {
  const float inverse = 1.0f / std::sqrt(square_sum(x, n) / float(n) + eps);
  for (int i = 0; i < n; i += W) store_some(y + i, load_some(x + i, n - i) * inverse * load_some(weight + i, n - i), n - i);
}

// SiLU of the left half of each row times its right half: both [rows, 2 n] -> left half in place.
inline void swiglu(float *both, int rows, int n) {
  for (int r = 0; r < rows; r++) {
    float *left = both + int64_t(r) * 2 * n, *right = left + n;
    for (int i = 0; i < n; i += W) store_some(left + i, silu(load_some(left + i, n - i)) * load_some(right + i, n - i), n - i);
  }
}

}  // namespace
