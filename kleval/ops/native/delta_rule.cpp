// The delta rule of delta_rule.h behind the C interface, and its backward pass.
//
// Backward keeps the state before every SPAN tokens, and runs each span again to have the decayed states A_t of its tokens:
//   r = A^T k ; u = v - r ; e = b u ; S = A + k e^T ; o = scale S^T q      (A = Diag(d) S_before)
//   dS += scale q do^T ; de = dS^T k ; db = de u ; dv = b de ; dr = -dv
//   dq = scale (A do + k (e do)) ; dk = dS e + A dr ; dA = dS + k dr^T ; dg = sum A dA ; dS_before = Diag(d) dA
#include "delta_rule.h"

// Gradients are contiguous, of the operands' shapes; d_o and d_last are given, the others written.
struct DeltaBackward {
  Operand q, k, v, g, beta, d_o;
  void *d_last, *saved, *d_q, *d_k, *d_v, *d_g, *d_beta, *d_first;
  int64_t batch, tokens, heads, key, value, channel_decay, wide, threads;
};

namespace {

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
      block_forward<T, N>(a, static_cast<const Operand *>(nullptr), b, h, begin, end, c, rows, decay, state, C, keep, errors, differences);
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

template <class T> void head_backward(const DeltaBackward &a, int64_t b, int64_t h) {
  const int vectors = up(a.value, LANES<T>) / LANES<T>;
  if (vectors == 1)
    head_backward<T, 1>(a, b, h);
  else if (vectors <= 3)
    head_backward<T, 2>(a, b, h);
  else
    head_backward<T, 4>(a, b, h);
}

template <class Args, class Head> void heads(const Args &a, Head &&head) {
  share(a.batch * a.heads, int(a.threads), [&](int64_t i) {
    const NoDenormals quick;
    head(i / a.heads, i % a.heads);
  });
}

}  // namespace

extern "C" int kleval_delta_forward(const DeltaForward *a) {
  return guarded([&] {
    heads(*a, [&](int64_t b, int64_t h) { a->wide ? head_forward<double>(*a, b, h) : head_forward<float>(*a, b, h); });
  });
}

extern "C" int kleval_delta_backward(const DeltaBackward *a) {
  return guarded([&] {
    heads(*a, [&](int64_t b, int64_t h) { a->wide ? head_backward<double>(*a, b, h) : head_backward<float>(*a, b, h); });
  });
}
