// The gated delta rule (KDA, GDN), token by token, forward and backward: see ops/delta_rule.py for the recurrence.
//
// A unit of work is a head of a sequence. Columns of its state are independent but for sums over them, so they go through in blocks
// of a few vectors, SPAN tokens at a time. A row of the state is read and written once per token: the update of the token before,
// the decay and both products happen together. Exact at any gate: nothing is divided and no product of decays is formed.
#pragma once

#include "threads.h"
#include "vectors.h"

constexpr int SPAN = 16;

struct Operand {
  void *data;
  int64_t batch, token, head;  // strides in elements; the innermost is 1
};

// Operands [B, T, H, K or V]; g [B, T, H, K] or, with channel_decay 0, [B, T, H]; beta [B, T, H]; states [B, H, K, V] contiguous.
// first: may be null (zeros). saved: null, or [B, H, ceil(T / SPAN), K, V] for the states before every SPAN tokens.
struct DeltaForward {
  Operand q, k, v, g, beta, o;
  void *first, *last, *saved;
  int64_t batch, tokens, heads, key, value, channel_decay, wide, threads;
};

namespace {

template <class T> const T *at(const Operand &x, int64_t b, int64_t t, int64_t h) {
  return static_cast<const T *>(x.data) + b * x.batch + t * x.token + h * x.head;
}

// Decays of tokens begin ... end - 1 as [SPAN][rows], rows = K up to whole vectors.
template <class T, class Args>
void decays(const Args &a, int64_t b, int64_t h, int64_t begin, int64_t end, int rows, T *decay) {
  constexpr int W = LANES<T>;
  for (int64_t t = begin; t < end; t++) {
    const T *g = at<T>(a.g, b, t, h);
    T *d = decay + (t - begin) * rows;
    if (a.channel_decay) {
      for (int i = 0; i < int(a.key); i += W) store(d + i, exp(load_some(g + i, int(a.key) - i)));
    } else {
      const Vec<T> one = exp(all(*g));
      for (int i = 0; i < rows; i += W) store(d + i, one);
    }
  }
}

// One block of N vectors of columns from column c on: tokens begin ... end - 1. state [K][N W], rows `stride` apart. keep: A of every
// token, [SPAN][K][N W], errors e and differences u, [SPAN][N W], for a backward pass; else null, and o is written.
template <class T, int N, class Args>
void block_forward(const Args &a, const Operand *o, int64_t b, int64_t h, int64_t begin, int64_t end, int c, int rows, const T *decay,
                   T *state, int stride, T *keep, T *errors, T *differences) {
  constexpr int W = LANES<T>;
  const int keys = int(a.key), width = int(a.value) - c;
  const T scale = T(1) / std::sqrt(T(keys));
  Vec<T> error[N] = {};
  const T *before = nullptr;  // the key of the token before, whose update is still to come
  for (int64_t t = begin; t < end; t++) {
    const T *q = at<T>(a.q, b, t, h), *k = at<T>(a.k, b, t, h), *v = at<T>(a.v, b, t, h) + c;
    const T *d = decay + (t - begin) * rows;
    const T beta = *at<T>(a.beta, b, t, h);
    T *kept = keep ? keep + (t - begin) * keys * (N * W) : nullptr;
    Vec<T> read[N] = {}, asked[N] = {};
    T both = 0;
    for (int i = 0; i < keys; i++) {
      T *row = state + int64_t(i) * stride;
      const T late = before ? before[i] : T(0), di = d[i], ki = k[i], qi = q[i];
      both += qi * ki;
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) {
        const Vec<T> s = (load(row + n * W) + error[n] * late) * di;
        read[n] += s * ki;
        asked[n] += s * qi;
        store(row + n * W, s);
      }
      if (kept)
        for (int n = 0; n < N; n++) store(kept + i * (N * W) + n * W, load(row + n * W));
    }
    for (int n = 0; n < N; n++) {
      const int left = width - n * W;
      if (left <= 0) break;
      const Vec<T> difference = load_some(v + n * W, left) - read[n];
      error[n] = difference * beta;
      if (keep) {
        store(differences + (t - begin) * (N * W) + n * W, difference);
        store(errors + (t - begin) * (N * W) + n * W, error[n]);
      } else {
        T *out = const_cast<T *>(at<T>(*o, b, t, h)) + c;
        store_some(out + n * W, (asked[n] + error[n] * both) * scale, left);
      }
    }
    before = k;
  }
  if (before)
    for (int i = 0; i < keys; i++)
      for (int n = 0; n < N; n++) {
        T *row = state + int64_t(i) * stride + n * W;
        store(row, load(row) + error[n] * before[i]);
      }
}

// Columns c ... of a matrix [K, V] into [K][N W] with zeros behind, and back.
template <class T, int N> void take(const T *matrix, int keys, int values, int c, T *block) {
  constexpr int C = N * LANES<T>;
  const int width = values - c < C ? values - c : C;
  if (!matrix || width < C) std::memset(block, 0, sizeof(T) * size_t(keys) * C);
  if (matrix)
    for (int i = 0; i < keys; i++) std::memcpy(block + i * C, matrix + int64_t(i) * values + c, sizeof(T) * size_t(width));
}
template <class T, int N> void put(const T *block, int keys, int values, int c, T *matrix) {
  constexpr int C = N * LANES<T>;
  const int width = values - c < C ? values - c : C;
  for (int i = 0; i < keys; i++) std::memcpy(matrix + int64_t(i) * values + c, block + i * C, sizeof(T) * size_t(width));
}

// Whole blocks of columns are worked on where the last state lies, others in a copy with zeros behind.
template <class T, int N> void head_forward(const DeltaForward &a, int64_t b, int64_t h) {
  constexpr int W = LANES<T>, C = N * W;
  const int keys = int(a.key), values = int(a.value), rows = up(keys, W), blocks = up(values, C) / C;
  const int64_t head = b * a.heads + h, spans = (a.tokens + SPAN - 1) / SPAN, size = int64_t(keys) * values;
  const bool whole = values % C == 0;
  T *last = static_cast<T *>(a.last) + head * size;
  const T *first = a.first ? static_cast<const T *>(a.first) + head * size : nullptr;
  Scratch<T> decay(size_t(SPAN) * rows), copy(whole ? 1 : size_t(blocks) * keys * C);
  if (!whole) {
    for (int i = 0; i < blocks; i++) take<T, N>(first, keys, values, i * C, copy + int64_t(i) * keys * C);
  } else if (!first) {
    std::memset(last, 0, sizeof(T) * size_t(size));
  } else if (first != last) {
    std::memcpy(last, first, sizeof(T) * size_t(size));
  }
  const auto state = [&](int i) { return whole ? last + i * C : copy + int64_t(i) * keys * C; };
  for (int64_t s = 0; s < spans; s++) {
    const int64_t begin = s * SPAN, end = begin + SPAN < a.tokens ? begin + SPAN : a.tokens;
    decays<T>(a, b, h, begin, end, rows, decay);
    T *saved = a.saved ? static_cast<T *>(a.saved) + (head * spans + s) * size : nullptr;
    if (saved && whole) std::memcpy(saved, last, sizeof(T) * size_t(size));
    for (int i = 0; i < blocks; i++) {
      if (saved && !whole) put<T, N>(state(i), keys, values, i * C, saved);
      T *none = nullptr;
      block_forward<T, N>(a, &a.o, b, h, begin, end, i * C, rows, decay, state(i), whole ? values : C, none, none, none);
    }
  }
  for (int i = 0; i < blocks && !whole; i++) put<T, N>(state(i), keys, values, i * C, last);
}

// As many vectors of columns as the registers hold beside what is broadcast, no more than there are.
template <class T> void head_forward(const DeltaForward &a, int64_t b, int64_t h) {
  const int vectors = up(a.value, LANES<T>) / LANES<T>;
  if (vectors == 1)
    head_forward<T, 1>(a, b, h);
  else if (vectors <= 3)
    head_forward<T, 2>(a, b, h);
  else
    head_forward<T, 4>(a, b, h);
}

}  // namespace
