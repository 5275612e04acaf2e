// Latent attention: new tokens of one sequence against its cached rows [latent | rope part], their own included, causally.
//
// Few new tokens stay in latent space (`absorbed`): a query is carried there, meets the rows as they lie, each read once for all heads.
// Many meet keys and values of a block of rows at a time (`expanded`), by online softmax; never is more than one block expanded.
#pragma once

#include "matrices.h"
#include "threads.h"

// Rows `first` ... of a sequence, as far as the next piece begins.
struct Piece {
  const float *rows;
  int64_t count;
};

// kv_b [heads, nope + value, rank] as it lies, and per head packed: to_latent [rank <- nope], from_latent [value <- rank].
struct LatentWeights {
  int64_t heads, nope, rope, value, rank;
  float scale;
  const float *kv_b, *to_latent, *from_latent;
};

namespace {

constexpr int BLOCK_ROWS = 512;      // expanded at a time
constexpr int QUERY_TILE = 4 * TILE;
constexpr int LINE = 16;             // floats of a cache line
constexpr int STRIP = 32;            // rows whose scores are held at a time in latent space
constexpr int SHARED_ROWS = 4096;    // rows for which another thread is worth making

// Result over some rows: weighted sum, sum of weights, largest score.
struct Partial {
  float *out, total, most;
};

#if defined(__AVX512F__)
constexpr int TOGETHER = 4;  // rows that meet a part of the queries while it is in registers
constexpr int WIDE = 3;      // vectors of a row that are summed up together
#else
constexpr int TOGETHER = 2, WIDE = 2;
#endif

// H queries of `width` against W rows of a strip of n, from row j on: their scores. What lies behind the strip's end has the last row's.
template <int H> inline void scores_of(const float *q, int width, const float *strip, int j, int n, float (*scores)[STRIP + W]) {
  V lanes[H][W];
  const int whole = width / W * W;
  for (int r = 0; r < W; r += TOGETHER) {
    const float *row[TOGETHER];
    V s[TOGETHER][H] = {};
#pragma GCC unroll 4
    for (int t = 0; t < TOGETHER; t++) row[t] = strip + int64_t(j + r + t < n ? j + r + t : n - 1) * width;
    for (int i = 0; i < whole; i += W) {
      V x[TOGETHER];
#pragma GCC unroll 4
      for (int t = 0; t < TOGETHER; t++) x[t] = load(row[t] + i);
#pragma GCC unroll 4
      for (int h = 0; h < H; h++) {
        const V part = load(q + h * width + i);
#pragma GCC unroll 4
        for (int t = 0; t < TOGETHER; t++) s[t][h] += x[t] * part;
      }
    }
    if (whole < width)
      for (int h = 0; h < H; h++)
        for (int t = 0; t < TOGETHER; t++) s[t][h] += load_some(row[t] + whole, width - whole) * load_some(q + h * width + whole, width - whole);
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
#pragma GCC unroll 4
      for (int t = 0; t < TOGETHER; t++) lanes[h][r + t] = s[t][h];
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; h++) store(scores[h] + j, sums<float>(lanes[h]));
}

// out [H][rank] from place i on += weights times C vectors of a strip's n rows. ahead: memory that is asked for meanwhile, in order, so that a
// strip arrives while the one before is summed up (what lies behind the last row is asked for in vain); null: nothing.
template <int C>
inline void add_rows(const float (*weights)[STRIP + W], const float *strip, int width, int n, int i, int H, Partial *results, const float *&ahead) {
  V acc[4][C] = {};
  const float *row = strip + i;
  for (int j = 0; j < n; j++, row += width) {
    V x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) x[c] = load(row + c * W);
    if (ahead) {
#pragma GCC unroll 4
      for (int c = 0; c < C * W; c += LINE) __builtin_prefetch(ahead + c, 0, 2);
      ahead += C * W;
    }
#pragma GCC unroll 4
    for (int h = 0; h < 4; h++) {
      const float weight = weights[h][j];
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) acc[h][c] += x[c] * weight;
    }
  }
  for (int h = 0; h < H; h++)
    for (int c = 0; c < C; c++) store(results[h].out + i + c * W, load(results[h].out + i + c * W) + acc[h][c]);
}

// H queries of `width` against rows [count, width]: out [H][rank] += e^(score - most) row. Scores of STRIP rows at a time.
inline void over_rows(const float *queries, int heads, int width, int rank, const float *rows, int64_t count, Partial *results) {
  alignas(64) float scores[4][STRIP + W];
  for (int64_t begin = 0; begin < count; begin += STRIP) {
    const int n = int(count - begin < STRIP ? count - begin : STRIP);
    const float *strip = rows + begin * width, *ahead = strip + int64_t(n) * width;
    for (int h0 = 0; h0 < heads; h0 += 4) {
      const int H = heads - h0 < 4 ? heads - h0 : 4;
      const float *q = queries + int64_t(h0) * width;
      for (int j = 0; j < n; j += W) {
        if (H == 4) scores_of<4>(q, width, strip, j, n, scores);
        else if (H == 3) scores_of<3>(q, width, strip, j, n, scores);
        else if (H == 2) scores_of<2>(q, width, strip, j, n, scores);
        else scores_of<1>(q, width, strip, j, n, scores);
        if (ahead)
          for (int i = 0; i < W * (width - rank); i += LINE, ahead += LINE) __builtin_prefetch(ahead, 0, 2);
      }
      for (int h = 0; h < H; h++) {
        Partial &p = results[h0 + h];
        for (int j = n; j < up(n, W); j++) scores[h][j] = -INFINITY;
        V largest = all(p.most);
        for (int j = 0; j < n; j += W) {
          const V s = load(scores[h] + j);
          largest = s > largest ? s : largest;
        }
        float most = p.most;
        for (int i = 0; i < W; i++) most = largest[i] > most ? largest[i] : most;
        V total = {};
        for (int j = 0; j < n; j += W) {
          const V e = exp(load(scores[h] + j) - most);
          store(scores[h] + j, e);
          total += e;
        }
        const float fade = exp(all(p.most - most))[0];
        p.total = p.total * fade + sum<float>(total);
        if (p.most != most)
          for (int i = 0; i < rank; i += W) store_some(p.out + i, load_some(p.out + i, rank - i) * fade, rank - i);
        p.most = most;
      }
      int i = 0;
      for (; i + WIDE * W <= rank; i += WIDE * W) add_rows<WIDE>(scores, strip, width, n, i, H, results + h0, ahead);
      for (; i + W <= rank; i += W) add_rows<1>(scores, strip, width, n, i, H, results + h0, ahead);
      if (i < rank)
        for (int h = 0; h < H; h++) {
          V acc = {};
          for (int j = 0; j < n; j++) acc += load_some(strip + int64_t(j) * width + i, rank - i) * scores[h][j];
          store_some(results[h0 + h].out + i, load_some(results[h0 + h].out + i, rank - i) + acc, rank - i);
        }
      ahead = nullptr;
    }
  }
}

// One token: q [H, nope + rope], the rows it sees -> out [H, value].
inline void absorbed(const LatentWeights &m, const float *q, const Piece *pieces, int64_t seen, float *out, int threads) {
  const int heads = int(m.heads), width = int(m.rank + m.rope), rank = int(m.rank), wide = int(m.nope + m.rope);
  Scratch<float> full(size_t(heads) * width + W);
  for (int h = 0; h < heads; h++) {
    const Matrix to{m.to_latent + h * packed_size(m.rank, m.nope), m.rank, m.nope};
    multiply(q + h * wide, wide, 1, to, full + h * width, width);
    std::memcpy(full + h * width + rank, q + h * wide + m.nope, sizeof(float) * size_t(m.rope));
    for (int i = 0; i < width; i++) full[h * width + i] *= m.scale;
  }
  int parts = int(seen / SHARED_ROWS);
  parts = parts < 1 ? 1 : (parts > threads ? threads : parts);
  const int64_t each = (seen + parts - 1) / parts;
  Scratch<float> sums_(size_t(parts) * heads * rank);
  Scratch<Partial> partials(size_t(parts) * heads);
  std::memset(sums_, 0, sizeof(float) * size_t(parts) * heads * size_t(rank));
  for (int i = 0; i < parts * heads; i++) partials[i] = Partial{sums_ + int64_t(i) * rank, 0.0f, -INFINITY};
  share(parts, threads, [&](int64_t part) {
    const NoDenormals quick;
    int64_t begin = part * each, end = begin + each < seen ? begin + each : seen;
    for (const Piece *p = pieces; begin < end; p++) {
      const int64_t here = end < p->count ? end : p->count;
      if (begin < here) {
        over_rows(full, heads, width, rank, p->rows + begin * width, here - begin, partials + part * heads);
        begin = here;
      }
      begin -= p->count, end -= p->count;
      if (begin < 0) begin = 0;
    }
  });
  for (int h = 0; h < heads; h++) {
    float most = -INFINITY, total = 0;
    for (int p = 0; p < parts; p++) most = partials[p * heads + h].most > most ? partials[p * heads + h].most : most;
    float *whole = full + h * width;
    std::memset(whole, 0, sizeof(float) * size_t(rank));
    for (int p = 0; p < parts; p++) {
      const Partial &part = partials[p * heads + h];
      const float weight = std::exp(part.most - most);
      total += part.total * weight;
      for (int i = 0; i < rank; i++) whole[i] += part.out[i] * weight;
    }
    for (int i = 0; i < rank; i++) whole[i] /= total;
    const Matrix from{m.from_latent + h * packed_size(m.value, m.rank), m.value, m.rank};
    multiply(whole, rank, 1, from, out + h * m.value, m.value);
  }
}

// Cached rows begin ... end - 1 put together [n, width].
inline void gather(const Piece *pieces, int64_t begin, int64_t end, int width, float *to) {
  for (const Piece *p = pieces; begin < end; p++) {
    const int64_t here = end < p->count ? end : p->count;
    if (begin < here) {
      std::memcpy(to, p->rows + begin * width, sizeof(float) * size_t(here - begin) * size_t(width));
      to += (here - begin) * width, begin = here;
    }
    begin -= p->count, end -= p->count;
    if (begin < 0) begin = 0;
  }
}

// `tokens` new tokens, the last of `seen` rows: q [tokens, H, nope + rope], ldq apart -> out [tokens, H, value], ldo apart.
inline void expanded(const LatentWeights &m, const float *q, int64_t ldq, int64_t tokens, const Piece *pieces, int64_t seen, float *out,
                     int64_t ldo, int threads) {
  const int heads = int(m.heads), rank = int(m.rank), rope = int(m.rope), nope = int(m.nope), value = int(m.value);
  const int width = rank + rope, wide = nope + rope, values = up(value, PANEL);
  const int64_t start = seen - tokens, tiles = (tokens + QUERY_TILE - 1) / QUERY_TILE;
  const int block = int(seen < BLOCK_ROWS ? up(seen, PANEL) : BLOCK_ROWS), panels = block / PANEL;
  Scratch<float> rows(size_t(block) * width), packed(size_t(block) * width), keys(size_t(heads) * block * wide),
      vals(size_t(heads) * block * values), results(size_t(heads) * tokens * values), stats(size_t(heads) * tokens * 2);
  std::memset(results, 0, sizeof(float) * size_t(heads) * size_t(tokens) * values);
  for (int64_t i = 0; i < heads * tokens; i++) stats[2 * i] = -INFINITY, stats[2 * i + 1] = 0.0f;
  for (int64_t begin = 0; begin < seen; begin += block) {
    const int n = int(seen - begin < block ? seen - begin : block), used = up(n, PANEL) / PANEL;
    gather(pieces, begin, begin + n, width, rows);
    std::memset(rows + int64_t(n) * width, 0, sizeof(float) * size_t(used * PANEL - n) * size_t(width));
    for (int p = 0; p < used; p++)
      for (int i = 0; i < width; i++)
        for (int j = 0; j < PANEL; j++) packed[(int64_t(p) * width + i) * PANEL + j] = rows[int64_t(p * PANEL + j) * width + i];
    share(heads, threads, [&](int64_t h) {
      const NoDenormals quick;
      float *k = keys + h * block * wide, *v = vals + h * block * values;
      for (int p = 0; p < used; p++) {
        const Matrix latent{packed + int64_t(p) * width * PANEL, PANEL, rank};
        float *to = k + int64_t(p) * wide * PANEL;
        multiply(m.kv_b + h * (nope + value) * rank, rank, nope, latent, to, PANEL);
        std::memcpy(to + nope * PANEL, packed + (int64_t(p) * width + rank) * PANEL, sizeof(float) * size_t(rope) * PANEL);
      }
      // Values in panels [value / PANEL][rows][PANEL]: as a product's packed weights.
      const float *from = m.from_latent + h * packed_size(value, rank);
      for (int p = 0; p < values / PANEL; p++)
        multiply(rows, width, n, Matrix{from + int64_t(p) * rank * PANEL, PANEL, rank}, v + int64_t(p) * block * PANEL, PANEL);
    });
    share(heads * tiles, threads, [&](int64_t unit) {
      const NoDenormals quick;
      const int64_t h = unit / tiles, first = unit % tiles * QUERY_TILE;
      const int count = int(tokens - first < QUERY_TILE ? tokens - first : QUERY_TILE);
      const int64_t visible = start + first + count - begin;  // rows of this block that the tile's last token sees
      if (visible <= 0) return;
      const int reach = int(visible < n ? visible : n), reach_panels = up(reach, PANEL) / PANEL, stride = panels * PANEL;
      static thread_local struct Buffers {
        std::vector<float> queries, scores;
      } buffers;
      buffers.queries.resize(size_t(QUERY_TILE) * wide);
      buffers.scores.resize(size_t(QUERY_TILE) * stride);
      float *queries = buffers.queries.data(), *scores = buffers.scores.data();
      for (int t = 0; t < count; t++) {
        const float *from = q + (first + t) * ldq + h * wide;
        for (int i = 0; i < wide; i++) queries[t * wide + i] = from[i] * m.scale;
      }
      const Matrix k{keys + h * block * wide, int64_t(reach_panels) * PANEL, wide};
      multiply(queries, wide, count, k, scores, stride);
      for (int t = 0; t < count; t++) {
        float *s = scores + int64_t(t) * stride, *stat = stats + (h * tokens + first + t) * 2;
        const int64_t sees = start + first + t + 1 - begin;
        const int limit = int(sees < 0 ? 0 : (sees < reach ? sees : reach));
        for (int j = limit; j < reach_panels * PANEL; j++) s[j] = -INFINITY;
        if (limit == 0) {  // all weights 0, whatever the scores
          std::memset(s, 0, sizeof(float) * size_t(reach_panels) * PANEL);
          continue;
        }
        V largest = all(stat[0]);
        for (int j = 0; j < reach_panels * PANEL; j += W) {
          const V x = load(s + j);
          largest = x > largest ? x : largest;
        }
        float most = stat[0];
        for (int i = 0; i < W; i++) most = largest[i] > most ? largest[i] : most;
        V total = {};
        for (int j = 0; j < reach_panels * PANEL; j += W) {
          const V e = exp(load(s + j) - most);
          store(s + j, e);
          total += e;
        }
        const float fade = exp(all(stat[0] - most))[0];
        stat[1] = stat[1] * fade + sum<float>(total);
        if (stat[0] != most) {
          float *o = results + (h * tokens + first + t) * values;
          for (int i = 0; i < values; i += W) store(o + i, load(o + i) * fade);
        }
        stat[0] = most;
      }
      const int inner = reach_panels * PANEL < n ? reach_panels * PANEL : n;
      float *o = results + (h * tokens + first) * values;
      for (int p = 0; p < values / PANEL; p++)
        multiply(scores, stride, count, Matrix{vals + (h * (values / PANEL) + p) * block * PANEL, PANEL, inner}, o + p * PANEL, values, true);
    });
  }
  for (int64_t t = 0; t < tokens; t++)
    for (int h = 0; h < heads; h++) {
      const float inverse = 1.0f / stats[(h * tokens + t) * 2 + 1], *from = results + (h * tokens + t) * values;
      for (int i = 0; i < value; i++) out[t * ldo + h * value + i] = from[i] * inverse;
    }
}

}  // namespace
