// A CPU in place of a GPU: what machine.cuh has, to the bit, so that the same kernels run where there is no GPU.
//
// Every thread of a block is a fiber with a stack of its own. Fibers of a warp run in turns from one collective
// instruction (ldmatrix, mma) to the next, warps from one barrier to the next: forwards, backwards, or mixed, from one
// collective to the next of a warp drawn at random. Results that depend on it show a missing barrier. Asynchronous copies happen no earlier than they are waited for; until then, what they will
// overwrite is poisoned. Pages around buffers that may not be read, and accesses that are not aligned, raise signals,
// which end the kernel with words.

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define QC_EMULATED
#ifndef QC_ARCH
#define QC_ARCH 800
#endif
#define QC_DEVICE static inline
#define QC_CONSTANT static constexpr
#define QC_DEVICE_MEMBER inline
#define QC_KERNEL(threads) extern "C" void
#define QC_KERNEL_RESIDENT(threads, blocks) QC_KERNEL(threads)
#define QC_SHARED(name) u8* const name = emulation::shared
#define QC_UNROLL
#define QC_ROLLED
#define QC_INFINITY HUGE_VALF

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;

template <class T> static inline T min(T a, T b) { return a < b ? a : b; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }

static struct Index {
  int x;
} threadIdx, blockIdx;

namespace emulation {

constexpr int MOST_THREADS = 1024, STACK = 64 << 10, MOST_SHARED = 256 << 10, MOST_COPIES = 512, MOST_ARGUMENTS = 32;
enum State { READY, COLLECTIVE, BARRIER, DONE };

struct Copy {
  void* to;
  const void* from;
  int bytes, group;
};

struct Fiber {
  jmp_buf at;
  void* stack;
  State state;
  int collectives, groups, copies;
  Copy queue[MOST_COPIES];
};

struct Lane {
  const void* row;
  u32 x[4], w[2];
};

static Fiber fibers[MOST_THREADS];
static int started, current;
static Lane lanes[MOST_THREADS / 32][2][32];  // of each warp: at this collective, and at the next
static jmp_buf scheduler;
static ucontext_t fiber_context;
static const char* failure;
alignas(1024) static u8 shared[MOST_SHARED + 4096];
static int shared_size;
alignas(16) static const u8 zeros[16] = {};
static void (*body)();

static inline void fail(const char* what) {
  if (!failure) failure = what;
}

__attribute__((noinline)) static void leave(State state) {
  fibers[current].state = state;
  if (!_setjmp(fibers[current].at)) _longjmp(scheduler, 1);
}

static void fiber_main() {
  for (;;) {
    leave(DONE);
    body();
    if (fibers[current].copies) fail("a thread ends with copies under way");
  }
}

__attribute__((noinline)) static void resume(int thread) {
  current = threadIdx.x = thread;
  if (!_setjmp(scheduler)) _longjmp(fibers[thread].at, 1);
}

static void start(int threads) {
  for (; started < threads; ++started) {
    getcontext(&fiber_context);
    if (!fibers[started].stack) fibers[started].stack = malloc(STACK);
    fiber_context.uc_stack.ss_sp = fibers[started].stack;
    fiber_context.uc_stack.ss_size = STACK;
    fiber_context.uc_link = nullptr;
    makecontext(&fiber_context, fiber_main, 0);
    current = started;
    if (!_setjmp(scheduler)) setcontext(&fiber_context);
  }
}

// In which order blocks, warps and lanes run; any other number is the seed of a mixed one.
enum Order { FORWARDS, BACKWARDS };
static u32 random_state;

static int drawn(int count) {
  u32 mixed = random_state += 0x9E3779B9u;
  mixed = (mixed ^ mixed >> 16) * 0x85EBCA6Bu;
  mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35u;
  return static_cast<int>((mixed ^ mixed >> 16) % static_cast<u32>(count));
}

// The lanes of a warp to their next collective, barrier, or end; a failure if they part ways.
static void step_warp(int first, int count, bool backwards) {
  for (int i = 0; i < count; ++i) resume(first + (backwards ? count - 1 - i : i));
  for (int i = 1; i < count; ++i)
    if (fibers[first + i].state != fibers[first].state) return fail("lanes of a warp part ways");
}

// All warps to their next barrier, or end.
static void run_warps(int threads, int order) {
  int left[MOST_THREADS / 32], count = 0;
  for (int first = 0; first < threads; first += 32) left[count++] = first;
  const int warps = count;
  while (count > 0 && !failure) {
    const int at = order == FORWARDS ? warps - count : order == BACKWARDS ? count - 1 : drawn(count);
    const int first = left[at];
    step_warp(first, min(32, threads - first), order == BACKWARDS || (order > BACKWARDS && drawn(2)));
    if (fibers[first].state == COLLECTIVE) continue;
    --count;
    if (order > BACKWARDS) left[at] = left[count];
  }
}

constexpr int BEHIND = 4096;  // bytes behind shared memory that are watched

static void run_block(int threads, int order) {
  memset(shared, 0xA5, static_cast<size_t>(shared_size + BEHIND));
  for (int t = 0; t < threads; ++t) {
    fibers[t].state = READY;
    fibers[t].collectives = fibers[t].groups = fibers[t].copies = 0;
  }
  do {
    run_warps(threads, order);
    for (int first = 32; first < threads; first += 32)
      if (fibers[first].state != fibers[0].state) return fail("warps part ways at a barrier");
  } while (fibers[0].state == BARRIER && !failure);
  for (int i = 0; i < BEHIND; ++i)
    if (shared[shared_size + i] != 0xA5) return fail("a write behind shared memory");
}

static void caught(int signal) {
  fail(signal == SIGILL ? "an access that is not aligned" : "an access outside of every buffer");
  _longjmp(scheduler, 1);
}

// Catches what kernels raise, while it lives.
struct Watch {
  static constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL};
  struct sigaction before[3];
  Watch() {
    struct sigaction mine = {};
    mine.sa_handler = caught;
    mine.sa_flags = SA_NODEFER;
    for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &mine, &before[i]);
  }
  ~Watch() {
    for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &before[i], nullptr);
  }
};

static inline Lane* collective() { return lanes[current / 32][fibers[current].collectives++ % 2]; }

static inline void check_shared(const void* p, int bytes, const char* what) {
  const u8* at = static_cast<const u8*>(p);
  if (at < shared || at + bytes > shared + shared_size || reinterpret_cast<uintptr_t>(p) % bytes) fail(what);
}

}  // namespace emulation

QC_DEVICE float product(float a, float b) { return a * b; }
QC_DEVICE float sum(float a, float b) { return a + b; }
QC_DEVICE float quotient(float a, float b) { return a / b; }
QC_DEVICE int bits_of(float v) {
  int bits;
  memcpy(&bits, &v, 4);
  return bits;
}
QC_DEVICE float with_bits(int bits) {
  float v;
  memcpy(&v, &bits, 4);
  return v;
}
QC_DEVICE float real(int v) { return static_cast<float>(v); }
QC_DEVICE void barrier() { emulation::leave(emulation::BARRIER); }
QC_DEVICE void warp_barrier() { emulation::leave(emulation::COLLECTIVE); }

QC_DEVICE u32 permuted(u32 low, u32 high, u32 selector) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  u32 result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<u32>(bytes >> (8 * (selector >> 4 * i & 7)) & 255) << 8 * i;
  return result;
}

template <bool SIGNED> QC_DEVICE int dot4(u32 x, u32 w, int sum) {
  u32 total = static_cast<u32>(sum);
  for (int i = 0; i < 32; i += 8) {
    const int a = SIGNED ? static_cast<i8>(x >> i) : static_cast<u8>(x >> i);
    total += static_cast<u32>(a * static_cast<i8>(w >> i));
  }
  return static_cast<int>(total);
}

template <int BYTES> QC_DEVICE void copy_async(void* to, const void* from) {
  using namespace emulation;
  Fiber& fiber = fibers[current];
  check_shared(to, BYTES, "a copy outside of shared memory, or not aligned");
  if (reinterpret_cast<uintptr_t>(from) % BYTES) fail("a copy from an address that is not aligned");
  if (fiber.copies == MOST_COPIES) return fail("more copies under way than emulated");
  fiber.queue[fiber.copies++] = {to, from, BYTES, fiber.groups};
  memset(to, 0x5A, BYTES);
}

template <int BYTES> QC_DEVICE void copy_or_clear(void* to, const void* from, bool inside) {
  copy_async<BYTES>(to, inside ? from : emulation::zeros);
}

QC_DEVICE void end_group() { ++emulation::fibers[emulation::current].groups; }

template <int LEFT> QC_DEVICE void copies_left() {
  emulation::Fiber& fiber = emulation::fibers[emulation::current];
  int kept = 0;
  for (int i = 0; i < fiber.copies; ++i) {
    const emulation::Copy& copy = fiber.queue[i];
    if (copy.group < fiber.groups - LEFT)
      memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
    else
      fiber.queue[kept++] = copy;
  }
  fiber.copies = kept;
}

QC_DEVICE void load_matrices(u32 (&words)[4], const void* row) {
  using namespace emulation;
  Lane* const warp = collective();
  const int lane = current % 32;
  check_shared(row, 16, "a matrix load outside of shared memory, or not aligned");
  warp[lane].row = row;
  leave(COLLECTIVE);
  for (int m = 0; m < 4; ++m) memcpy(&words[m], static_cast<const u8*>(warp[m * 8 + lane / 4].row) + lane % 4 * 4, 4);
}

namespace emulation {

// The fragments of all lanes of a product, once each has brought its own.
inline const Lane* exchanged(const u32 (&x)[4], const u32 (&w)[2]) {
  Lane* const warp = collective();
  memcpy(warp[current % 32].x, x, sizeof x);
  memcpy(warp[current % 32].w, w, sizeof w);
  leave(COLLECTIVE);
  return warp;
}

}  // namespace emulation

template <bool SIGNED> QC_DEVICE void multiply_16832(int (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
  const int lane = emulation::current % 32;
  const emulation::Lane* const warp = emulation::exchanged(x, w);
  for (int half = 0; half < 2; ++half)
    for (int c = 0; c < 2; ++c)
      for (int t = 0; t < 4; ++t) {
        const emulation::Lane &a = warp[lane / 4 * 4 + t], &b = warp[(lane % 4 * 2 + c) * 4 + t];
        int& total = sums[half * 2 + c];
        total = dot4<SIGNED>(a.x[half + 2], b.w[1], dot4<SIGNED>(a.x[half], b.w[0], total));
      }
}

namespace emulation {

// Floats of BITS bits as qcompile.reference.narrow has them: MANTISSA bits of fraction, LEAST the exponent of the
// smallest normal number.
template <int BITS, int MANTISSA, int LEAST> u32 narrowed(float v, float largest, u32 nan) {
  if (v != v) return nan;
  const float size = fminf(fabsf(v), largest);
  int above = LEAST;  // size < 2^above
  if (size > 0) frexpf(size, &above);
  const int exponent = max(above - 1, LEAST);
  const u32 steps = static_cast<u32>(lrintf(ldexpf(size, MANTISSA - exponent)));  // ties to even
  return (signbit(v) ? 1u << (BITS - 1) : 0) | (steps + (static_cast<u32>(exponent - LEAST) << MANTISSA));
}

template <int BITS, int MANTISSA, int LEAST> float widened(u32 bits, u32 greatest) {
  const u32 sign = bits >> (BITS - 1), size = bits & ((1u << (BITS - 1)) - 1);
  if (size > greatest) return NAN;
  const float v = with_bits(static_cast<int>(size << (23 - MANTISSA))) * with_bits((253 + LEAST) << 23);
  return sign ? -v : v;
}

// Sums of products of LANES floats a word; each product exact, and added in float32.
template <int LANES, class Widen> inline void multiply_floats(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2],
                                                              const Widen& widen) {
  const int lane = current % 32;
  const Lane* const warp = exchanged(x, w);
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 2; ++c)
      for (int t = 0; t < 4; ++t) {
        const u32 row = warp[lane / 4 * 4 + t].x[r], column = warp[(lane % 4 * 2 + c) * 4 + t].w[r / 2];
        for (int i = 0; i < 32; i += 32 / LANES)
          sums[r % 2 * 2 + c] += widen(row >> i) * widen(column >> i);
      }
}

}  // namespace emulation

QC_DEVICE u16 to_f16(float v) { return static_cast<u16>(emulation::narrowed<16, 10, -14>(v, 65504.0f, 0x7E00)); }
QC_DEVICE float from_f16(u16 bits) { return emulation::widened<16, 10, -14>(bits, 0x7BFF); }

QC_DEVICE void multiply_f16(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
  emulation::multiply_floats<2>(sums, x, w, [](u32 v) { return from_f16(static_cast<u16>(v)); });
}

QC_DEVICE u8 to_e4m3(float v) { return static_cast<u8>(emulation::narrowed<8, 3, -6>(v, 448.0f, 0x7F)); }
QC_DEVICE float from_e4m3(u8 bits) { return emulation::widened<8, 3, -6>(bits, 0x7E); }
QC_DEVICE u8 to_e5m2(float v) { return static_cast<u8>(emulation::narrowed<8, 2, -14>(v, 57344.0f, 0x7E)); }
QC_DEVICE float from_e5m2(u8 bits) { return emulation::widened<8, 2, -14>(bits, 0x7B); }

QC_DEVICE void multiply_e4m3(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
  emulation::multiply_floats<4>(sums, x, w, [](u32 v) { return from_e4m3(static_cast<u8>(v)); });
}

QC_DEVICE void multiply_e5m2(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
  emulation::multiply_floats<4>(sums, x, w, [](u32 v) { return from_e5m2(static_cast<u8>(v)); });
}

QC_DEVICE void multiply_f32(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
  emulation::multiply_floats<1>(sums, x, w, [](u32 v) { return with_bits(static_cast<int>(v)); });
}

QC_DEVICE void multiply_bf16(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
  emulation::multiply_floats<2>(sums, x, w, [](u32 v) { return with_bits(static_cast<int>(v << 16)); });
}

template <bool SIGNED> QC_DEVICE void multiply_8816(int& left, int& right, u32 x, u32 w) {
  using namespace emulation;
  Lane* const warp = collective();
  const int lane = current % 32;
  warp[lane].x[0] = x;
  warp[lane].w[0] = w;
  leave(COLLECTIVE);
  for (int t = 0; t < 4; ++t) {
    const u32 row = warp[lane / 4 * 4 + t].x[0];
    left = dot4<SIGNED>(row, warp[lane % 4 * 8 + t].w[0], left);
    right = dot4<SIGNED>(row, warp[lane % 4 * 8 + 4 + t].w[0], right);
  }
}

namespace emulation {

// Calls a function of so many pointers: the first ``count``, of at most N.
template <int N, class... P> struct Call {
  static void of(void* function, void** a, int count, P... p) { of_rest(function, a, count, p..., a[sizeof...(P)]); }
  static void of_rest(void* function, void** a, int count, P... p, void* next) {
    if (sizeof...(P) + 1 == static_cast<size_t>(count))
      reinterpret_cast<void (*)(P..., void*)>(function)(p..., next);
    else
      Call<N - 1, P..., void*>::of(function, a, count, p..., next);
  }
};
template <class... P> struct Call<0, P...> {
  static void of(void*, void**, int, P...) {}
};

}  // namespace emulation

// Runs a kernel whose arguments are all pointers; null, or what went wrong.
extern "C" const char* emulate(void* kernel, int count, void** arguments, int grid, int block, int shared, int order) {
  using namespace emulation;
  static void* function;
  static void** a;
  static int given;
  failure = nullptr;
  if (count < 1 || count > MOST_ARGUMENTS || block > MOST_THREADS || shared > MOST_SHARED)
    return "too many arguments, threads, or bytes";
  given = count;
  body = [] { Call<MOST_ARGUMENTS>::of(function, a, given); };
  function = kernel;
  a = arguments;
  shared_size = shared;
  start(block);
  random_state = 1000003u * static_cast<u32>(order);
  const Watch watch;
  for (int b = 0; b < grid && !failure; ++b) {
    blockIdx.x = order == BACKWARDS ? grid - 1 - b : b;
    run_block(block, order);
  }
  if (failure) started = 0;  // threads that were left in the middle of the kernel begin anew
  return failure;
}
