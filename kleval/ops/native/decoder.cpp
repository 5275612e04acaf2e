// A whole decoder on new tokens of a batch of sequences: their states advance, and every token's hidden state after the last norm is
// written. The architecture is that of models/decoder.py; models/native_decoder.py fills the structures.
//
// The tokens of all sequences lie behind one another. What is done to each token alone (norms, products, experts) goes through in
// blocks of tokens, what runs along a sequence (convolution, delta rule, attention) by sequence and head. Decoding is the same with one
// token per sequence.
#include <algorithm>
#include <chrono>

#include "attention.h"
#include "delta_rule.h"
#include "greedy.h"

enum Mixer : int64_t { MLA = 0, KDA = 1, GDN = 2 };

// Matrices are packed; an absent one has no outputs. Experts: one matrix behind the other.
struct Layer {
  int64_t mixer;
  const float *norm, *mlp_norm;
  Matrix inputs, output;                         // of the mixer: q, k, v, f, g_a or g, b (KDA, GDN) or q, latent, rope part (MLA)
  Matrix forget, gate;                           // f_b and g_b; no g_b where the output gate is of full rank
  const float *taps, *bias, *rate, *head_norm;   // taps [width, 3 H D], bias [H D or H], rate [H], head_norm [D]
  const float *latent_norm, *kv_b, *to_latent, *from_latent;
  Matrix gate_up, down;                          // dense or shared
  Matrix router;
  const float *router_bias, *experts_gate_up, *experts_down;
};

struct Model {
  const Layer *layers;
  const float *embeddings, *norm, *frequencies;  // frequencies [rope / 2] of RoPE, or null
  int64_t count, hidden, vocabulary;
  int64_t heads, dim, taps;
  int64_t attention_heads, nope, rope, value, rank;
  int64_t experts, top_k, expert_inner;
  double eps, latent_eps, multiplier, scaling;
  double bound;  // below 0: KDA's log-decays lie between it and 0
  Matrix head;   // hidden -> vocabulary
};

// One sequence: its tokens begin ... begin + count - 1 of the batch, `position` of them are in its states already. recurrent, conv: per
// linear layer [H, D, D] and [taps - 1, 3 H D]. pieces: cached rows, room for the new ones included, `piece_layer` floats from one MLA
// layer to the next.
struct Segment {
  float *rows;
  int64_t count, layer_stride;
};
struct Sequence {
  int64_t begin, count, position;
  float *const *recurrent, *const *conv;
  const Segment *segments;
  int64_t segment_count;
};

// hidden [tokens, hidden] and logits [tokens, vocabulary]: what is wanted of the two, else null. lengths [sequence_count]: null, or the
// positions, which are then advanced.
struct Run {
  const Model *model;
  Sequence *sequences;
  const int64_t *ids;
  float *hidden, *logits;
  int64_t *lengths;
  int64_t sequence_count, tokens, absorbed_tokens, threads;
};

// Decode steps behind one another, `most` at most: the most likely tokens after a step go into the next, or inputs [most, sequences] do.
// The last step is one after which some sequence's is among `ends` or its logits are not finite; its logits are left in the run's.
// Written: done, of steps; chosen [done - 1, sequences]; seconds [done], from the call on.
struct Steps {
  int64_t most;
  const int64_t *inputs, *ends;
  int64_t end_count, *chosen;
  double *seconds;
  int64_t done;
};

namespace {

constexpr int BLOCK = 48;          // tokens that go through a product together: their activations stay in the second cache
constexpr int64_t SHARED_WORK = 1 << 20;  // values of state that tokens pass, from which on another thread is worth making
constexpr int EXPERT_BLOCK = 384;  // and through the experts, so that each has some
constexpr int HEAD_SLICE = 64 * PANEL;    // logits that one thread makes at a time

struct Pass {
  const Run &run;
  const Model &m;
  const int hidden, tokens, threads;
  Scratch<float> x;

  explicit Pass(const Run &r)
      : run(r), m(*r.model), hidden(int(r.model->hidden)), tokens(int(r.tokens)), threads(int(r.threads)), x(size_t(r.tokens) * r.model->hidden) {}

  template <class F> void blocks(int size, F &&work) {
    share((tokens + size - 1) / size, threads, [&](int64_t i) {
      const NoDenormals quick;
      const int begin = int(i) * size;
      work(begin, tokens - begin < size ? tokens - begin : size);
    });
  }

  void embed() {
    for (int t = 0; t < tokens; t++)
      for (int i = 0; i < hidden; i++) x[int64_t(t) * hidden + i] = m.embeddings[run.ids[t] * hidden + i] * float(m.multiplier);
  }

  void normed(const float *weight, int begin, int count, float *out) {
    for (int t = 0; t < count; t++) rms_norm(x + int64_t(begin + t) * hidden, weight, hidden, float(m.eps), out + int64_t(t) * hidden);
  }

  // A head of one sequence: convolutions, norms, the delta rule, and the norm of what comes out.
  void linear_head(const Layer &l, const Sequence &s, int h, float *y, int ldy, float *g, float *o, float *recurrent, float *conv) {
    const int D = int(m.dim), inner = int(m.heads) * D, T = int(s.count), before = int(m.taps) - 1, C = 3 * D;
    y += s.begin * ldy;
    Scratch<float> old(size_t(before) * C + 1);
    for (int w = 0; w < before; w++)
      for (int part = 0; part < 3; part++)
        std::memcpy(old + w * C + part * D, conv + int64_t(w) * 3 * inner + part * inner + h * D, sizeof(float) * size_t(D));
    const auto input = [&](int t, int part) {  // of time t, -before ... T - 1
      return t < 0 ? old + (t + before) * C + part * D : y + int64_t(t) * ldy + part * inner + h * D;
    };
    for (int w = 0; w < before; w++)
      for (int part = 0; part < 3; part++)
        std::memcpy(conv + int64_t(w) * 3 * inner + part * inner + h * D, input(T - before + w, part), sizeof(float) * size_t(D));
    for (int t = T - 1; t >= 0; t--)
      for (int part = 0; part < 3; part++) {
        float *out = y + int64_t(t) * ldy + part * inner + h * D;
        const float *taps = l.taps + part * inner + h * D;
        V squares = {};
        for (int i = 0; i < D; i += W) {
          V total = load_some(out + i, D - i) * load_some(taps + int64_t(before) * 3 * inner + i, D - i);
          for (int w = 0; w < before; w++)
            total += load_some(input(t - before + w, part) + i, D - i) * load_some(taps + int64_t(w) * 3 * inner + i, D - i);
          total = silu(total);
          squares += total * total;
          store_some(out + i, total, D - i);
        }
        if (part == 2) continue;
        const float inverse = 1.0f / std::sqrt(sum<float>(squares) + 1e-6f);
        for (int i = 0; i < D; i += W) store_some(out + i, load_some(out + i, D - i) * inverse, D - i);
      }
    const bool channels = l.mixer == KDA;
    const int64_t gates = channels ? inner : m.heads;
    DeltaForward a{};
    float *q = y + h * D;
    a.q = {q, 0, ldy, 0}, a.k = {q + inner, 0, ldy, 0}, a.v = {q + 2 * inner, 0, ldy, 0};
    a.g = {g + s.begin * gates + (channels ? h * D : h), 0, gates, 0};
    a.beta = {y + ldy - int(m.heads) + h, 0, ldy, 0};
    a.o = {o + s.begin * inner + h * D, 0, inner, 0};
    a.first = a.last = recurrent + int64_t(h) * D * D;
    a.batch = a.heads = 1, a.tokens = T, a.key = a.value = D, a.channel_decay = channels;
    head_forward<float>(a, 0, 0);
  }

  void linear(const Layer &l, int number) {
    const int D = int(m.dim), H = int(m.heads), inner = H * D, ldy = int(l.inputs.outputs);
    const bool full = l.gate.outputs == 0;
    const float bound = float(m.bound);
    const int f = 3 * inner, low = f + (l.mixer == KDA ? D : H), b = low + (full ? inner : D), gates = l.mixer == KDA ? inner : H;
    Scratch<float> y(size_t(tokens) * ldy), g(size_t(tokens) * gates), o(size_t(tokens) * inner), gate(full ? 0 : size_t(tokens) * inner);
    blocks(BLOCK, [&](int begin, int count) {
      Scratch<float> h(size_t(count) * hidden);
      normed(l.norm, begin, count, h);
      float *rows = y + int64_t(begin) * ldy;
      multiply(h, hidden, count, l.inputs, rows, ldy);
      if (l.mixer == KDA) multiply(rows + f, ldy, count, l.forget, g + int64_t(begin) * inner, inner);
      if (!full) multiply(rows + low, ldy, count, l.gate, gate + int64_t(begin) * inner, inner);
      for (int t = 0; t < count; t++) {
        float *row = rows + int64_t(t) * ldy, *to = g + int64_t(begin + t) * gates;
        if (l.mixer == KDA) {
          for (int head = 0; head < H; head++)
            for (int i = 0; i < D; i += W) {
              const int at = head * D + i;
              const auto raw = load_some(to + at, D - i) + load_some(l.bias + at, D - i);
              store_some(to + at, bound < 0 ? sigmoid(raw * -l.rate[head]) * bound : softplus(raw) * l.rate[head], D - i);
            }
        } else {
          for (int i = 0; i < H; i += W)
            store_some(to + i, softplus(load_some(row + f + i, H - i) + load_some(l.bias + i, H - i)) * load_some(l.rate + i, H - i), H - i);
        }
        for (int i = 0; i < H; i += W) store_some(row + b + i, sigmoid(load_some(row + b + i, H - i)), H - i);
      }
    });
    const bool worth = int64_t(tokens) * inner * D > SHARED_WORK;
    share(run.sequence_count * H, worth ? threads : 1, [&](int64_t unit) {
      const NoDenormals quick;
      const Sequence &s = run.sequences[unit / H];
      if (s.count) linear_head(l, s, int(unit % H), y, ldy, g, o, s.recurrent[number], s.conv[number]);
    });
    blocks(BLOCK, [&](int begin, int count) {
      for (int64_t t = begin; t < begin + count; t++)
        for (int h = 0; h < H; h++) {
          float *out = o + t * inner + h * D;
          const float *from = (full ? y + t * ldy + low : gate + t * inner) + h * D, inverse = 1.0f / std::sqrt(square_sum(out, D) / float(D) + float(m.eps));
          for (int i = 0; i < D; i += W)
            store_some(out + i, load_some(out + i, D - i) * inverse * load_some(l.head_norm + i, D - i) * sigmoid(load_some(from + i, D - i)), D - i);
        }
      multiply(o + int64_t(begin) * inner, inner, count, l.output, x + int64_t(begin) * hidden, hidden, true);
    });
  }

  // Pairs (2 i, 2 i + 1) turned by position times frequency.
  void rotate(float *part, int64_t position) const {
    for (int i = 0; i < int(m.rope) / 2; i++) {
      const float angle = float(position) * m.frequencies[i], c = std::cos(angle), s = std::sin(angle);
      const float even = part[2 * i], odd = part[2 * i + 1];
      part[2 * i] = even * c - odd * s, part[2 * i + 1] = even * s + odd * c;
    }
  }

  void latent(const Layer &l, int number) {
    const int H = int(m.attention_heads), wide = int(m.nope + m.rope), rank = int(m.rank), width = rank + int(m.rope);
    const int ldy = int(l.inputs.outputs), ldo = H * int(m.value);
    Scratch<float> y(size_t(tokens) * ldy), o(size_t(tokens) * ldo);
    blocks(BLOCK, [&](int begin, int count) {
      Scratch<float> h(size_t(count) * hidden);
      normed(l.norm, begin, count, h);
      multiply(h, hidden, count, l.inputs, y + int64_t(begin) * ldy, ldy);
      for (int t = 0; t < count; t++) {
        float *row = y + int64_t(begin + t) * ldy + H * wide;
        rms_norm(row, l.latent_norm, rank, float(m.latent_eps), row);
      }
    });
    const LatentWeights weights{m.attention_heads, m.nope, m.rope, m.value, m.rank, 1.0f / std::sqrt(float(wide)), l.kv_b, l.to_latent, l.from_latent};
    for (int64_t i = 0; i < run.sequence_count; i++) {
      const Sequence &s = run.sequences[i];
      if (!s.count) continue;
      float *first = y + s.begin * ldy;
      std::vector<Piece> pieces;
      int64_t at = s.position, left = s.count, passed = 0;
      for (int64_t p = 0; p < s.segment_count; p++) {
        const Segment &segment = s.segments[p];
        float *rows = segment.rows + number * segment.layer_stride;
        pieces.push_back({rows, segment.count});
        for (; left && at < passed + segment.count; at++, left--) {
          float *row = first + (at - s.position) * ldy;
          if (m.frequencies) {
            rotate(row + H * wide + rank, at);
            for (int h = 0; h < H; h++) rotate(row + h * wide + m.nope, at);
          }
          std::memcpy(rows + (at - passed) * width, row + H * wide, sizeof(float) * size_t(width));
        }
        passed += segment.count;
      }
      if (left) throw 0;  // no room was made
      if (s.count <= run.absorbed_tokens) {
        for (int64_t t = 0; t < s.count; t++) absorbed(weights, first + t * ldy, pieces.data(), s.position + t + 1, o + (s.begin + t) * ldo, threads);
      } else {
        expanded(weights, first, ldy, s.count, pieces.data(), s.position + s.count, o + s.begin * ldo, ldo, threads);
      }
    }
    blocks(BLOCK, [&](int begin, int count) {
      multiply(o + int64_t(begin) * ldo, ldo, count, l.output, x + int64_t(begin) * hidden, hidden, true);
    });
  }

  void dense(const Layer &l, const float *h, int begin, int count) {
    const int inner = int(l.down.inputs);
    Scratch<float> both(size_t(count) * 2 * inner);
    multiply(h, hidden, count, l.gate_up, both, 2 * inner);
    swiglu(both, count, inner);
    multiply(both, 2 * inner, count, l.down, x + int64_t(begin) * hidden, hidden, true);
  }

  // The top_k experts of a row of router products: highest sigmoid + bias, the lower index first among equals; weights without bias.
  void choose(const Layer &l, const float *products, int *chosen, float *weights) {
    const int E = int(m.experts), K = int(m.top_k);
    Scratch<float> scores{size_t(E)}, left{size_t(E)};
    for (int i = 0; i < E; i += W) {
      const V score = sigmoid(load_some(products + i, E - i));
      store_some(scores + i, score, E - i);
      store_some(left + i, score + load_some(l.router_bias + i, E - i), E - i);
    }
    float total = 0;
    for (int k = 0; k < K; k++) {
      int best = -1;
      for (int e = 0; e < E; e++) {
        bool taken = false;
        for (int j = 0; j < k; j++) taken = taken || chosen[j] == e;
        if (!taken && (best < 0 || left[e] > left[best])) best = e;
      }
      chosen[k] = best, weights[k] = scores[best];
      total += scores[best];
    }
    for (int k = 0; k < K; k++) weights[k] = weights[k] / (total + 1e-20f) * float(m.scaling);
  }

  void sparse(const Layer &l, const float *h, int begin, int count) {
    const int E = int(m.experts), K = int(m.top_k), inner = int(m.expert_inner);
    const int64_t up_size = packed_size(2 * inner, hidden), down_size = packed_size(hidden, inner);
    Scratch<float> products(size_t(count) * E), weights(size_t(count) * K);
    Scratch<int> chosen(size_t(count) * K), members(size_t(count) * K);
    multiply(h, hidden, count, l.router, products, E);
    for (int t = 0; t < count; t++) choose(l, products + int64_t(t) * E, chosen + t * K, weights + t * K);
    Scratch<float> rows(size_t(count) * hidden), both(size_t(count) * 2 * inner), out(size_t(count) * hidden);
    for (int e = 0; e < E; e++) {
      int n = 0;
      for (int i = 0; i < count * K; i++)
        if (chosen[i] == e) members[n++] = i;
      if (!n) continue;
      for (int i = 0; i < n; i++) std::memcpy(rows + int64_t(i) * hidden, h + int64_t(members[i] / K) * hidden, sizeof(float) * size_t(hidden));
      multiply(rows, hidden, n, Matrix{l.experts_gate_up + e * up_size, 2 * inner, hidden}, both, 2 * inner);
      swiglu(both, n, inner);
      multiply(both, 2 * inner, n, Matrix{l.experts_down + e * down_size, hidden, inner}, out, hidden);
      for (int i = 0; i < n; i++) {
        float *to = x + int64_t(begin + members[i] / K) * hidden;
        const float weight = weights[members[i]], *from = out + int64_t(i) * hidden;
        for (int j = 0; j < hidden; j++) to[j] += from[j] * weight;
      }
    }
  }

  void mlp(const Layer &l) {
    blocks(l.router.outputs ? EXPERT_BLOCK : BLOCK, [&](int begin, int count) {
      Scratch<float> h(size_t(count) * hidden);
      normed(l.mlp_norm, begin, count, h);
      if (l.router.outputs) sparse(l, h, begin, count);
      if (l.gate_up.outputs) dense(l, h, begin, count);
    });
  }

  void logits() {
    const Matrix &w = m.head;
    Scratch<float> h(size_t(tokens) * hidden);
    normed(m.norm, 0, tokens, h);
    const bool worth = w.outputs * w.inputs > SHARED_WORK;
    share((w.outputs + HEAD_SLICE - 1) / HEAD_SLICE, worth ? threads : 1, [&](int64_t i) {
      const NoDenormals quick;
      const int64_t first = i * HEAD_SLICE, left = w.outputs - first;
      const Matrix slice{w.data + first * w.inputs, left < HEAD_SLICE ? left : HEAD_SLICE, w.inputs};
      multiply(h, hidden, tokens, slice, run.logits + first, w.outputs);
    });
  }

  void all() {
    for (int64_t i = 0; run.lengths && i < run.sequence_count; i++) run.sequences[i].position = run.lengths[i];
    embed();
    int linear_layers = 0, latent_layers = 0;
    for (int64_t i = 0; i < m.count; i++) {
      const Layer &l = m.layers[i];
      if (l.mixer == MLA)
        latent(l, latent_layers++);
      else
        linear(l, linear_layers++);
      mlp(l);
    }
    if (run.hidden) blocks(BLOCK, [&](int begin, int count) { normed(m.norm, begin, count, run.hidden + int64_t(begin) * hidden); });
    if (run.logits) logits();
    for (int64_t i = 0; run.lengths && i < run.sequence_count; i++) run.lengths[i] += run.sequences[i].count;
  }
};

bool known(const int64_t *ids, int64_t count, const Model &m) {
  return std::all_of(ids, ids + count, [&](int64_t id) { return id >= 0 && id < m.vocabulary; });
}

void step_by_step(Run run, Steps &steps) {
  const auto begin = std::chrono::steady_clock::now();
  const int64_t *ends = steps.ends + steps.end_count, rows = run.sequence_count, vocabulary = run.model->head.outputs;
  for (bool goes_on = true; goes_on && steps.done < steps.most;) {
    if (steps.inputs) run.ids = steps.inputs + steps.done * rows;
    Pass(run).all();
    steps.seconds[steps.done++] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (steps.inputs || steps.done == steps.most) continue;
    int64_t *chosen = steps.chosen + (steps.done - 1) * rows;
    for (int64_t i = 0; i < rows && goes_on; i++) {
      chosen[i] = greedy(run.logits + i * vocabulary, vocabulary);
      goes_on = chosen[i] >= 0 && std::find(steps.ends, ends, chosen[i]) == ends;
    }
    run.ids = chosen;
  }
}

}  // namespace

// 3 for an id that is none, before anything has happened.
extern "C" int kleval_decoder_run(const Run *run) {
  if (!known(run->ids, run->tokens, *run->model)) return 3;
  return guarded([&] {
    const NoDenormals quick;
    Pass(*run).all();
  });
}

// The same for steps: the run is of one token per sequence, with lengths and logits.
extern "C" int kleval_decoder_steps(const Run *run, Steps *steps) {
  const int64_t given = steps->inputs ? steps->most * run->tokens : run->tokens;
  if (!known(steps->inputs ? steps->inputs : run->ids, given, *run->model)) return 3;
  return guarded([&] {
    const NoDenormals quick;
    step_by_step(*run, *steps);
  });
}

// y [rows, outputs] = x [rows, inputs] times a packed matrix's transpose: the logits.
extern "C" int kleval_multiply(const float *x, int64_t rows, const Matrix *m, float *y) {
  return guarded([&] { multiply(x, m->inputs, int(rows), *m, y, m->outputs); });
}

extern "C" int64_t kleval_panel() { return PANEL; }
