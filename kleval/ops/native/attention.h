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
constexpr int STRIP = 64;            // rows whose scores are held at a time in latent space
constexpr int SHARED_ROWS = 4096;    // rows for which another thread is worth making

// Result over some rows: weighted sum, sum of weights, largest score.
struct Partial {
  float *out, total, most;
};

// H queries of `width` against rows [count, width]: out [H][rank] += e^(score - most) row. Scores of STRIP rows at a time.
inline void over_rows(const float *queries, int heads, int width, int rank, const float *rows, int64_t count, Partial *results) {
  alignas(64) float scores[4][STRIP + W];
  for (int64_t begin = 0; begin < count; begin += STRIP) {
    const int n = int(count - begin < STRIP ? count - begin : STRIP);
    const float *strip = rows + begin * width;
    for (int h0 = 0; h0 < heads; h0 += 4) {
      const int H = heads - h0 < 4 ? heads - h0 : 4;
      const float *q = queries + int64_t(h0) * width;
      for (int j = 0; j < n; j += W) {
        V lanes[4][W];
        const int some = n - j < W ? n - j : W;
        for (int r = 0; r < W; r++) {
          V s[4] = {};
          if (r < some) {
            const float *row = strip + int64_t(j + r) * width;
            if (H == 4) {
              for (int i = 0; i < width; i += W) {
                const V x = load_some(row + i, width - i);
#pragma GCC unroll 4
                for (int h = 0; h < 4; h++) s[h] += x * load_some(q + h * width + i, width - i);
              }
            } else {
              for (int i = 0; i < width; i += W) {
                const V x = load_some(row + i, width - i);
                for (int h = 0; h < H; h++) s[h] += x * load_some(q + h * width + i, width - i);
              }
            }
          }
          for (int h = 0; h < 4; h++) lanes[h][r] = s[h];
        }
        for (int h = 0; h < H; h++) store(scores[h] + j, sums<float>(lanes[h]));
      }
      for (int h = 0; h < H; h++) {
        Partial &p = results[h0 + h];
        float most = p.most;
        for (int j = 0; j < n; j++) most = scores[h][j] > most ? scores[h][j] : most;
        V total = {};
        for (int j = 0; j < n; j += W) {
          V e = exp(load(scores[h] + j) - most);
          if (n - j < W) e = load_some(reinterpret_cast<const float *>(&e), n - j);
          store(scores[h] + j, e);
          total += e;
        }
        const float fade = exp(all(p.most - most))[0];
        p.total = p.total * fade + sum<float>(total);
        if (p.most != most)
          for (int i = 0; i < rank; i += W) store_some(p.out + i, load_some(p.out + i, rank - i) * fade, rank - i);
        p.most = most;
      }
      for (int i = 0; i < rank; i += 2 * W) {
        V acc[4][2] = {};
        for (int j = 0; j < n; j++) {
          const float *row = strip + int64_t(j) * width + i;
          // What lies behind the latent part of a row is its rope part or the next row; the last row's end is watched.
          const V a = load_some(row, width - i), b = width - i > W ? load_some(row + W, width - i - W) : V{};
#pragma GCC unroll 4
          for (int h = 0; h < 4; h++) {
            acc[h][0] += a * scores[h][j];
            acc[h][1] += b * scores[h][j];
          }
        }
        for (int h = 0; h < H; h++) {
          float *out = results[h0 + h].out + i;
          store_some(out, load_some(out, rank - i) + acc[h][0], rank - i);
          if (rank - i > W) store_some(out + W, load_some(out + W, rank - i - W) + acc[h][1], rank - i - W);
        }
      }
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
