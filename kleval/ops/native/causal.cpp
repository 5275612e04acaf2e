// Causal attention of sequences with themselves, forward and backward, for training: float32, never [T, T].
//
// Forward keeps each query's log of the sum of its exponentials; backward makes the weights of a block of queries again from it.
// Scores, weights and their gradients are held for BLOCK_QUERIES queries at a time, as far as the last of them sees.
#include "matrices.h"
#include "threads.h"

struct Causal {
  const float *q, *k, *v;  // [units, tokens, width], the last [units, tokens, value]; q is scaled
  float *out, *logs;       // [units, tokens, value], [units, tokens]
  const float *d_out;
  float *d_q, *d_k, *d_v;
  int64_t units, tokens, width, value, threads;
};

namespace {

constexpr int BLOCK_QUERIES = 4 * TILE;

// x [tokens, width] as packed weights of two products: `across` gives a row's product with every token, `along` a weighted sum of tokens.
struct Packed {
  int64_t tokens;
  int width, panels;
  Scratch<float> across_, along_;

  Packed(const float *x, int64_t tokens, int width, bool across, bool along)
      : tokens(tokens), width(width), panels(up(width, PANEL) / PANEL),
        across_(across ? size_t(packed_size(tokens, width)) : 0), along_(along ? size_t(packed_size(width, tokens)) : 0) {
    if (across)
      for (int64_t t = 0; t < up(tokens, PANEL); t++)
        for (int i = 0; i < width; i++)
          across_[(t / PANEL * width + i) * PANEL + t % PANEL] = t < tokens ? x[t * width + i] : 0.0f;
    if (along)
      for (int p = 0; p < panels; p++)
        for (int64_t t = 0; t < tokens; t++) {
          float *to = along_ + (p * tokens + t) * PANEL;
          const int n = width - p * PANEL < PANEL ? width - p * PANEL : PANEL;
          std::memcpy(to, x + t * width + p * PANEL, sizeof(float) * size_t(n));
          if (n < PANEL) std::memset(to + n, 0, sizeof(float) * size_t(PANEL - n));
        }
  }

  // y [rows, reach] = x [rows, width] times the first `reach` tokens; reach is whole panels.
  void scores(const float *x, int rows, int reach, float *y, int64_t ldy) const {
    multiply(x, width, rows, Matrix{across_, reach, width}, y, ldy);
  }

  // y [rows, width] += x [rows, count] times tokens begin ... begin + count - 1; Turned: x is [count, rows].
  template <bool Turned> void add(const float *x, int64_t ldx, int64_t rows, int64_t begin, int64_t count, float *y) const {
    for (int p = 0; p < panels; p++) {
      const int left = width - p * PANEL < PANEL ? width - p * PANEL : PANEL;
      const Matrix part{along_ + (p * tokens + begin) * PANEL, left, count};
      multiply<Turned>(x, ldx, int(rows), part, y + p * PANEL, width, true);
    }
  }
};

// e^(score - subtracted) of what a query sees, 0 behind it as far as `reach`; their sum.
inline float weights(float *s, int64_t sees, int reach, float subtracted) {
  for (int64_t j = sees; j < reach; j++) s[j] = -INFINITY;
  V total = {};
  for (int j = 0; j < reach; j += W) {
    const V e = exp(load(s + j) - subtracted);
    store(s + j, e);
    total += e;
  }
  return sum<float>(total);
}

inline float largest(const float *s, int64_t sees) {
  float most = -INFINITY;
  int64_t j = 0;
  if (sees >= W) {
    V found = load(s);
    for (j = W; j + W <= sees; j += W) {
      const V x = load(s + j);
      found = x > found ? x : found;
    }
    for (int i = 0; i < W; i++) most = found[i] > most ? found[i] : most;
  }
  for (; j < sees; j++) most = s[j] > most ? s[j] : most;
  return most;
}

void forward(const Causal &a, int64_t unit) {
  const int width = int(a.width), value = int(a.value);
  const float *q = a.q + unit * a.tokens * width;
  float *out = a.out + unit * a.tokens * value, *logs = a.logs + unit * a.tokens;
  const Packed k(a.k + unit * a.tokens * width, a.tokens, width, true, false);
  const Packed v(a.v + unit * a.tokens * value, a.tokens, value, false, true);
  const int64_t ld = up(a.tokens, PANEL);
  Scratch<float> scores(size_t(BLOCK_QUERIES) * ld);
  std::memset(out, 0, sizeof(float) * size_t(a.tokens) * value);
  for (int64_t begin = 0; begin < a.tokens; begin += BLOCK_QUERIES) {
    const int count = int(a.tokens - begin < BLOCK_QUERIES ? a.tokens - begin : BLOCK_QUERIES);
    const int reach = up(begin + count, PANEL);
    k.scores(q + begin * width, count, reach, scores, ld);
    for (int t = 0; t < count; t++) {
      float *s = scores + t * ld;
      const float most = largest(s, begin + t + 1);
      const float total = weights(s, begin + t + 1, reach, most), inverse = 1.0f / total;
      logs[begin + t] = most + std::log(total);
      for (int j = 0; j < reach; j += W) store(s + j, load(s + j) * inverse);
    }
    v.add<false>(scores, ld, count, 0, begin + count, out + begin * value);
  }
}

void backward(const Causal &a, int64_t unit) {
  const int width = int(a.width), value = int(a.value);
  const int64_t keys = unit * a.tokens * width, values = unit * a.tokens * value;
  const float *q = a.q + keys, *out = a.out + values, *d_out = a.d_out + values, *logs = a.logs + unit * a.tokens;
  float *d_q = a.d_q + keys, *d_k = a.d_k + keys, *d_v = a.d_v + values;
  const Packed k(a.k + keys, a.tokens, width, true, true), v(a.v + values, a.tokens, value, true, false);
  const Packed queries(q, a.tokens, width, false, true), outs(d_out, a.tokens, value, false, true);
  const int64_t ld = up(a.tokens, PANEL);
  Scratch<float> p(size_t(BLOCK_QUERIES) * ld), d(size_t(BLOCK_QUERIES) * ld);
  for (float *x : {d_q, d_k}) std::memset(x, 0, sizeof(float) * size_t(a.tokens) * width);
  std::memset(d_v, 0, sizeof(float) * size_t(a.tokens) * value);
  for (int64_t begin = 0; begin < a.tokens; begin += BLOCK_QUERIES) {
    const int count = int(a.tokens - begin < BLOCK_QUERIES ? a.tokens - begin : BLOCK_QUERIES);
    const int64_t end = begin + count;
    const int reach = up(end, PANEL);
    k.scores(q + begin * width, count, reach, p, ld);
    v.scores(d_out + begin * value, count, reach, d, ld);
    for (int t = 0; t < count; t++) {
      weights(p + t * ld, begin + t + 1, reach, logs[begin + t]);
      const float *o = out + (begin + t) * value, *g = d_out + (begin + t) * value;
      float along = 0;
      for (int i = 0; i < value; i++) along += o[i] * g[i];
      float *row = d + t * ld;
      for (int j = 0; j < reach; j += W) store(row + j, (load(row + j) - along) * load(p + t * ld + j));
    }
    outs.add<true>(p, ld, end, begin, count, d_v);
    k.add<false>(d, ld, count, 0, end, d_q + begin * width);
    queries.add<true>(d, ld, end, begin, count, d_k);
  }
}

}  // namespace

extern "C" int kleval_causal_forward(const Causal *a) {
  return guarded([&] {
    share(a->units, int(a->threads), [&](int64_t unit) {
      const NoDenormals quick;
      forward(*a, unit);
    });
  });
}

extern "C" int kleval_causal_backward(const Causal *a) {
  return guarded([&] {
    share(a->units, int(a->threads), [&](int64_t unit) {
      const NoDenormals quick;
      backward(*a, unit);
    });
  });
}
