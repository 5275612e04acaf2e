// The gated delta rule (KDA, GDN), token by token, forward and backward: see ops/delta_rule.py for the recurrence.
//
// A unit of work is a head of a sequence. Columns of its state are independent but for sums over them, so they go through in blocks
// of a few vectors, SPAN tokens at a time. A row of the state is read and written once per token: the update of the token before,
// the decay and both products happen together. Exact at any gate: nothing is divided and no product of decays is formed.
//
// Backward keeps the state before every SPAN tokens, and runs each span again to have the decayed states A_t of its tokens:
//   r = A^T k ; u = v - r ; e = b u ; S = A + k e^T ; o = scale S^T q      (A = Diag(d) S_before)
//   dS += scale q do^T ; de = dS^T k ; db = de u ; dv = b de ; dr = -dv
//   dq = scale (A do + k (e do)) ; dk = dS e + A dr ; dA = dS + k dr^T ; dg = sum A dA ; dS_before = Diag(d) dA
#include "threads.h"
#include "vectors.h"

namespace {

constexpr int SPAN = 16;

struct Operand {
  void *data;
  int64_t batch, token, head;  // strides in elements; the innermost is 1
};

}  // namespace

// Operands [B, T, H, K or V]; g [B, T, H, K] or, with channel_decay 0, [B, T, H]; beta [B, T, H]; states [B, H, K, V] contiguous.
// first: may be null (zeros). saved: null, or [B, H, ceil(T / SPAN), K, V] for the states before every SPAN tokens.
struct DeltaForward {
  Operand q, k, v, g, beta, o;
  void *first, *last, *saved;
  int64_t batch, tokens, heads, key, value, channel_decay, wide, threads;
};

// Gradients are contiguous, of the operands' shapes; d_o and d_last are given, the others written.
struct DeltaBackward {
  Operand q, k, v, g, beta, d_o;
  void *d_last, *saved, *d_q, *d_k, *d_v, *d_g, *d_beta, *d_first;
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

// One block of N vectors of columns from column c on: tokens begin ... end - 1. state [K][N W]. keep: A of every token, [SPAN][K][N W],
// errors e and differences u, [SPAN][N W], for a backward pass; else null, and o is written.
template <class T, int N, class Args>
void block_forward(const Args &a, const Operand *o, int64_t b, int64_t h, int64_t begin, int64_t end, int c, int rows, const T *decay,
                   T *state, T *keep, T *errors, T *differences) {
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
      T *row = state + i * (N * W);
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
        T *row = state + i * (N * W) + n * W;
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

template <class T, int N> void head_forward(const DeltaForward &a, int64_t b, int64_t h) {
  constexpr int W = LANES<T>, C = N * W;
  const int keys = int(a.key), values = int(a.value), rows = up(keys, W), blocks = up(values, C) / C;
  const int64_t head = b * a.heads + h, spans = (a.tokens + SPAN - 1) / SPAN, size = int64_t(keys) * values;
  Scratch<T> decay(size_t(SPAN) * rows), states(size_t(blocks) * keys * C);
  const T *first = a.first ? static_cast<const T *>(a.first) + head * size : nullptr;
  for (int i = 0; i < blocks; i++) take<T, N>(first, keys, values, i * C, states + int64_t(i) * keys * C);
  for (int64_t s = 0; s < spans; s++) {
    const int64_t begin = s * SPAN, end = begin + SPAN < a.tokens ? begin + SPAN : a.tokens;
    decays<T>(a, b, h, begin, end, rows, decay);
    for (int i = 0; i < blocks; i++) {
      T *state = states + int64_t(i) * keys * C;
      if (a.saved) put<T, N>(state, keys, values, i * C, static_cast<T *>(a.saved) + (head * spans + s) * size);
      block_forward<T, N>(a, &a.o, b, h, begin, end, i * C, rows, decay, state, static_cast<T *>(nullptr), static_cast<T *>(nullptr),
                          static_cast<T *>(nullptr));
    }
  }
  for (int i = 0; i < blocks; i++) put<T, N>(states + int64_t(i) * keys * C, keys, values, i * C, static_cast<T *>(a.last) + head * size);
}

template <class T, int N> void head_backward(const DeltaBackward &a, int64_t b, int64_t h) {
  constexpr int W = LANES<T>, C = N * W;
  const int keys = int(a.key), values = int(a.value), rows = up(keys, W), blocks = up(values, C) / C;
  const int64_t head = b * a.heads + h, spans = (a.tokens + SPAN - 1) / SPAN, size = int64_t(keys) * values;
  const T scale = T(1) / std::sqrt(T(keys));
  Scratch<T> decay(size_t(SPAN) * rows), state(size_t(keys) * C), keep(size_t(SPAN) * keys * C), errors(size_t(SPAN) * C),
      differences(size_t(SPAN) * C), d_states(size_t(blocks) * rows * C), d_q(size_t(SPAN) * rows), d_k(size_t(SPAN) * rows),
      d_g(size_t(SPAN) * rows);
  for (int i = 0; i < blocks; i++) {
    T *d_state = d_states + int64_t(i) * rows * C;
    take<T, N>(static_cast<const T *>(a.d_last) + head * size, keys, values, i * C, d_state);
  }
  for (int64_t s = spans - 1; s >= 0; s--) {
    const int64_t begin = s * SPAN, end = begin + SPAN < a.tokens ? begin + SPAN : a.tokens;
    decays<T>(a, b, h, begin, end, rows, decay);
    T d_beta[SPAN] = {};
    std::memset(d_q, 0, sizeof(T) * SPAN * size_t(rows));
    std::memset(d_k, 0, sizeof(T) * SPAN * size_t(rows));
    std::memset(d_g, 0, sizeof(T) * SPAN * size_t(rows));
    for (int block = 0; block < blocks; block++) {
      const int c = block * C;
      take<T, N>(static_cast<const T *>(a.saved) + (head * spans + s) * size, keys, values, c, state);
      std::memset(errors, 0, sizeof(T) * SPAN * size_t(C));
      std::memset(differences, 0, sizeof(T) * SPAN * size_t(C));
      block_forward<T, N>(a, static_cast<const Operand *>(nullptr), b, h, begin, end, c, rows, decay, state, keep, errors, differences);
      T *d_state = d_states + int64_t(block) * rows * C;
      for (int64_t t = end - 1; t >= begin; t--) {
        const int64_t here = t - begin;
        const T *q = at<T>(a.q, b, t, h), *k = at<T>(a.k, b, t, h), *d_out = at<T>(a.d_o, b, t, h) + c, *d = decay + here * rows;
        const T beta = *at<T>(a.beta, b, t, h);
        Vec<T> d_o[N], d_error[N] = {}, error[N], d_read[N], sum_beta = {}, sum_out = {};
        for (int n = 0; n < N; n++) {
          d_o[n] = values - c - n * W > 0 ? load_some(d_out + n * W, values - c - n * W) * scale : Vec<T>{};
          error[n] = load(errors + here * C + n * W);
        }
        for (int i = 0; i < keys; i++) {
          T *row = d_state + i * C;
#pragma GCC unroll 8
          for (int n = 0; n < N; n++) {
            const Vec<T> x = load(row + n * W) + d_o[n] * q[i];
            d_error[n] += x * k[i];
            store(row + n * W, x);
          }
        }
        T *d_v = static_cast<T *>(a.d_v) + ((b * a.tokens + t) * a.heads + h) * values + c;
        for (int n = 0; n < N; n++) {
          sum_beta += d_error[n] * load(differences + here * C + n * W);
          sum_out += d_o[n] * error[n];
          d_read[n] = d_error[n] * -beta;
          if (values - c - n * W > 0) store_some(d_v + n * W, -d_read[n], values - c - n * W);
        }
        d_beta[here] += sum<T>(sum_beta);
        const T through = sum<T>(sum_out);
        for (int i = 0; i < keys; i += W) {
          Vec<T> of_q[W] = {}, of_k[W] = {}, of_g[W] = {};
          const int last = keys - i < W ? keys - i : W;
          for (int j = 0; j < last; j++) {
            T *row = d_state + (i + j) * C;
            const T *decayed = keep + (here * keys + i + j) * C;
            const T kj = k[i + j], dj = d[i + j];
            Vec<T> sum_q = {}, sum_k = {}, sum_g = {};
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) {
              const Vec<T> x = load(row + n * W), decayed_n = load(decayed + n * W), d_decayed = x + d_read[n] * kj;
              sum_q += decayed_n * d_o[n];
              sum_k += x * error[n] + decayed_n * d_read[n];
              sum_g += decayed_n * d_decayed;
              store(row + n * W, d_decayed * dj);
            }
            of_q[j] = sum_q, of_k[j] = sum_k, of_g[j] = sum_g;
          }
          T *to_q = d_q + here * rows + i, *to_k = d_k + here * rows + i, *to_g = d_g + here * rows + i;
          store(to_q, load(to_q) + sums<T>(of_q) + load_some(k + i, keys - i) * through);
          store(to_k, load(to_k) + sums<T>(of_k));
          store(to_g, load(to_g) + sums<T>(of_g));
        }
      }
    }
    for (int64_t t = begin; t < end; t++) {
      const int64_t place = (b * a.tokens + t) * a.heads + h, here = t - begin;
      std::memcpy(static_cast<T *>(a.d_q) + place * keys, d_q + here * rows, sizeof(T) * size_t(keys));
      std::memcpy(static_cast<T *>(a.d_k) + place * keys, d_k + here * rows, sizeof(T) * size_t(keys));
      static_cast<T *>(a.d_beta)[place] = d_beta[here];
      if (a.channel_decay) {
        std::memcpy(static_cast<T *>(a.d_g) + place * keys, d_g + here * rows, sizeof(T) * size_t(keys));
      } else {
        T total = 0;
        for (int i = 0; i < keys; i++) total += d_g[here * rows + i];
        static_cast<T *>(a.d_g)[place] = total;
      }
    }
  }
  for (int i = 0; i < blocks; i++)
    put<T, N>(d_states + int64_t(i) * rows * C, keys, values, i * C, static_cast<T *>(a.d_first) + head * size);
}

// As many vectors of columns as the registers hold beside what is broadcast, no more than there are.
template <class T, template <class, int> class Head, class Args> void heads(const Args &a) {
  const int vectors = up(a.value, LANES<T>) / LANES<T>;
  share(a.batch * a.heads, int(a.threads), [&](int64_t i) {
    const NoDenormals quick;
    const int64_t b = i / a.heads, h = i % a.heads;
    if (vectors == 1)
      Head<T, 1>::run(a, b, h);
    else if (vectors <= 3)
      Head<T, 2>::run(a, b, h);
    else
      Head<T, 4>::run(a, b, h);
  });
}

template <class T, int N> struct Forward {
  static void run(const DeltaForward &a, int64_t b, int64_t h) { head_forward<T, N>(a, b, h); }
};
template <class T, int N> struct Backward {
  static void run(const DeltaBackward &a, int64_t b, int64_t h) { head_backward<T, N>(a, b, h); }
};

}  // namespace

extern "C" int kleval_delta_forward(const DeltaForward *a) {
  return guarded([&] { a->wide ? heads<double, Forward>(*a) : heads<float, Forward>(*a); });
}

extern "C" int kleval_delta_backward(const DeltaBackward *a) {
  return guarded([&] { a->wide ? heads<double, Backward>(*a) : heads<float, Backward>(*a); });
}
