// Vectors of the processor's width, in the compilers' own vector types: AVX-512, AVX2, else 16 bytes (SSE2, NEON).
// Nothing here may be compiled with -ffast-math: divisions must stay divisions, NaN must stay NaN.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

typedef float FloatVector __attribute__((vector_size(VECTOR_BYTES)));
typedef float LooseFloatVector __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t IntVector __attribute__((vector_size(VECTOR_BYTES)));
typedef double DoubleVector __attribute__((vector_size(VECTOR_BYTES)));
typedef double LooseDoubleVector __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));

template <class T> struct Vectors;
template <> struct Vectors<float> {
  typedef FloatVector type;
  typedef LooseFloatVector loose;
};
template <> struct Vectors<double> {
  typedef DoubleVector type;
  typedef LooseDoubleVector loose;
};
template <class T> using Vec = typename Vectors<T>::type;
template <class T> constexpr int LANES = VECTOR_BYTES / int(sizeof(T));

template <class T> static inline Vec<T> load(const T *p) { return *reinterpret_cast<const typename Vectors<T>::loose *>(p); }
template <class T> static inline void store(T *p, Vec<T> x) { *reinterpret_cast<typename Vectors<T>::loose *>(p) = x; }
template <class T> static inline Vec<T> all(T x) { return x - Vec<T>{}; }

// The first n lanes, the others 0; and back.
template <class T> static inline Vec<T> load_some(const T *p, int n) {
  if (n >= LANES<T>) return load(p);
  T lanes[LANES<T>] = {};
  std::memcpy(lanes, p, size_t(n) * sizeof(T));
  return load(lanes);
}
template <class T> static inline void store_some(T *p, Vec<T> x, int n) {
  if (n >= LANES<T>) return store(p, x);
  T lanes[LANES<T>];
  store(lanes, x);
  std::memcpy(p, lanes, size_t(n) * sizeof(T));
}

template <class T> static inline T sum(Vec<T> x) {
  T total = 0;
  for (int i = 0; i < LANES<T>; i++) total += x[i];
  return total;
}

constexpr int even(int i, int d) { return (i / d) & 1; }

template <class T, int D, size_t... I> static inline Vec<T> paired(Vec<T> a, Vec<T> b, std::index_sequence<I...>) {
  constexpr int w = LANES<T>;
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, (even(int(I), D) ? w + int(I) - D : int(I))...) +
         __builtin_shufflevector(a, b, (even(int(I), D) ? w + int(I) : int(I) + D)...);
#else
  typedef typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type Index;
  typedef Index Mask __attribute__((vector_size(VECTOR_BYTES)));
  return __builtin_shuffle(a, b, Mask{(even(int(I), D) ? w + int(I) - D : int(I))...}) +
         __builtin_shuffle(a, b, Mask{(even(int(I), D) ? w + int(I) : int(I) + D)...});
#endif
}

// Lane i of the result is the sum of the lanes of x[i]; x is overwritten.
template <class T, int D = 1> static inline Vec<T> sums(Vec<T> *x) {
  constexpr int left = LANES<T> / D;
  if constexpr (left == 1) {
    return x[0];
  } else {
    for (int i = 0; i < left / 2; i++) x[i] = paired<T, D>(x[2 * i], x[2 * i + 1], std::make_index_sequence<size_t(LANES<T>)>{});
    return sums<T, 2 * D>(x);
  }
}

// e^x to 2 units in the last place; 0 below the smallest normal number, NaN of NaN.
static inline FloatVector exp(FloatVector x) {
  const FloatVector low = all(-87.33654f), high = all(88.72284f);
  const FloatVector inside = x < low ? low : (x > high ? high : x);
  const FloatVector shifter = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const FloatVector n = (inside * 1.44269504f + shifter) - shifter;
  const FloatVector r = (inside - n * 0.693359375f) + n * 2.12194440e-4f;
  FloatVector p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors: n reaches 128, whose power alone is no float.
  const IntVector whole = __builtin_convertvector(n, IntVector), half = whole >> 1;
  FloatVector a, b;
  const IntVector ai = (half + 127) << 23, bi = (whole - half + 127) << 23;
  std::memcpy(&a, &ai, sizeof a);
  std::memcpy(&b, &bi, sizeof b);
  const FloatVector y = p * a * b;
  return x < low ? FloatVector{} : (x > high ? all(INFINITY) : y);
}
static inline DoubleVector exp(DoubleVector x) {
  DoubleVector y;
  for (int i = 0; i < LANES<double>; i++) y[i] = std::exp(x[i]);
  return y;
}

// Memory of a kernel, aligned to vectors, not initialised.
template <class T> class Scratch {
public:
  explicit Scratch(size_t count)
      : data_(static_cast<T *>(::operator new(count * sizeof(T) + VECTOR_BYTES, std::align_val_t(VECTOR_BYTES)))) {}
  ~Scratch() { ::operator delete(data_, std::align_val_t(VECTOR_BYTES)); }
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;
  operator T *() const { return data_; }

private:
  T *data_;
};

// While it lives, numbers too small to be normal count as 0: states that fade away would else cost a hundred times as much.
class NoDenormals {
public:
#if defined(__x86_64__)
  NoDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
  ~NoDenormals() { _mm_setcsr(before_); }

private:
  unsigned before_;
#else
  NoDenormals() {}
#endif
};

static inline int up(int64_t x, int to) { return int((x + to - 1) / to * to); }
