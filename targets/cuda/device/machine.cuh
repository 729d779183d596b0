// The instructions that kernels are made of. Where QC_EMULATED is defined, emulated.h has the same functions for a CPU.

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;

// L neighbouring elements that move as one word.
template <class T, int L> struct alignas(sizeof(T) * L) Pack {
  T v[L];
};

#ifndef QC_EMULATED

#define QC_DEVICE_MEMBER __device__ __forceinline__

#define QC_DEVICE static __device__ __forceinline__
#define QC_CONSTANT static constexpr __device__
#ifdef __CUDA_ARCH__
#define QC_ARCH __CUDA_ARCH__
#else
#define QC_ARCH 0  // nvcc looks at the code for the host, too, and leaves it out
#endif
#define QC_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// blocks: of a multiprocessor at once, from sm_80 on: registers must suffice for so many.
#if QC_ARCH >= 800
#define QC_KERNEL_RESIDENT(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#else
#define QC_KERNEL_RESIDENT(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, 1)
#endif
#define QC_SHARED(name) extern __shared__ __align__(128) u8 name[]
#define QC_UNROLL _Pragma("unroll")
#define QC_ROLLED _Pragma("unroll 1")
#define QC_INFINITY __int_as_float(0x7f800000)

// A float product and sum that no compiler may contract.
QC_DEVICE float product(float a, float b) { return __fmul_rn(a, b); }
QC_DEVICE float sum(float a, float b) { return __fadd_rn(a, b); }
QC_DEVICE float quotient(float a, float b) { return __fdiv_rn(a, b); }
QC_DEVICE int bits_of(float v) { return __float_as_int(v); }
QC_DEVICE float with_bits(int bits) { return __int_as_float(bits); }
QC_DEVICE float real(int v) { return __int2float_rn(v); }
QC_DEVICE void barrier() { __syncthreads(); }
QC_DEVICE void warp_barrier() { __syncwarp(); }  // of the threads of a warp, all of which come to it

QC_DEVICE u32 permuted(u32 low, u32 high, u32 selector) { return __byte_perm(low, high, selector); }

// sum + the dot product of four codes of x (unsigned, or signed) and four signed weights.
template <bool SIGNED> QC_DEVICE int dot4(u32 x, u32 w, int sum) {
  int result;
  if constexpr (SIGNED)
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(x), "r"(w), "r"(sum));
  else
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(x), "r"(w), "r"(sum));
  return result;
}

QC_DEVICE u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

// BYTES (4, 8 or 16) from global to shared memory; there when ``copies_left`` says so and a barrier has been passed.
template <int BYTES> QC_DEVICE void copy_async(void* to, const void* from) {
#if QC_ARCH >= 800
  const size_t source = __cvta_generic_to_global(from);
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(source) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(to)), "l"(source), "n"(BYTES)
                 : "memory");
#else
  typedef Pack<u32, BYTES / 4> Word;
  *static_cast<Word*>(to) = *static_cast<const Word*>(from);
#endif
}

// The same of zeros where there is nothing to read.
template <int BYTES> QC_DEVICE void copy_or_clear(void* to, const void* from, bool inside) {
#if QC_ARCH >= 800
  const size_t source = __cvta_generic_to_global(from);
  const int read = inside ? BYTES : 0;
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(source), "r"(read)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(source), "n"(BYTES),
                 "r"(read)
                 : "memory");
#else
  typedef Pack<u32, BYTES / 4> Word;
  Word word = {};
  if (inside) word = *static_cast<const Word*>(from);
  *static_cast<Word*>(to) = word;
#endif
}

// The copies since the last call are one group.
QC_DEVICE void end_group() {
#if QC_ARCH >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most LEFT groups of this thread's are under way.
template <int LEFT> QC_DEVICE void copies_left() {
#if QC_ARCH >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

// Four matrices of 8 rows of 16 bytes; lane i gives the address of row i % 8 of matrix i / 8, and gets of each matrix
// the four bytes 4 (lane % 4) of row lane / 4.
QC_DEVICE void load_matrices(u32 (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

#define QC_MMA(shape, type, outputs, inputs, weights) \
  "mma.sync.aligned." shape ".row.col.s32." type ".s8.s32 {" outputs "}, {" inputs "}, {" weights "}, {" outputs "};"

// sums (16 x 8) += x (16 x 32) * w (32 x 8), in the registers of a warp as PTX lays them out.
template <bool SIGNED> QC_DEVICE void multiply_16832(int (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
  if constexpr (SIGNED)
    asm(QC_MMA("m16n8k32", "s8", "%0, %1, %2, %3", "%4, %5, %6, %7", "%8, %9")
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w[0]), "r"(w[1]));
  else
    asm(QC_MMA("m16n8k32", "u8", "%0, %1, %2, %3", "%4, %5, %6, %7", "%8, %9")
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w[0]), "r"(w[1]));
}

// The same of 8 x 8 x 16.
template <bool SIGNED> QC_DEVICE void multiply_8816(int& left, int& right, u32 x, u32 w) {
  if constexpr (SIGNED)
    asm(QC_MMA("m8n8k16", "s8", "%0, %1", "%2", "%3") : "+r"(left), "+r"(right) : "r"(x), "r"(w));
  else
    asm(QC_MMA("m8n8k16", "u8", "%0, %1", "%2", "%3") : "+r"(left), "+r"(right) : "r"(x), "r"(w));
}

// float32 as a half, to nearest, ties to even; the largest one for what is larger, NaN for NaN.
QC_DEVICE u16 to_f16(float v) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v == v ? fminf(fmaxf(v, -65504.0f), 65504.0f) : v));
  return bits;
}
QC_DEVICE float from_f16(u16 bits) {
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
  return v;
}

// The same of halves, 16 x 8 x 16, in float32: products are exact, how a Tensor Core rounds their sums is its own.
QC_DEVICE void multiply_f16(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
#if QC_ARCH >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w[0]), "r"(w[1]));
#else
  for (int half = 0; half < 2; ++half)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(x[2 * half]), "r"(x[2 * half + 1]), "r"(w[half]));
#endif
}

// The same of float32, 16 x 8 x 8, from sm_80 on: each number is a sum of two of TF32, of whose four products the least
// is left out, which is below 2^-20 of the product. Tensor Cores cut sums off, so long ones are made outside of them.
// Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak
// performance", 2022.
QC_DEVICE void multiply_f32(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
  u32 high_x[4], low_x[4], high_w[2], low_w[2];
  QC_UNROLL
  for (int i = 0; i < 4; ++i) {
    high_x[i] = x[i] & 0xFFFFE000u;
    low_x[i] = static_cast<u32>(bits_of(sum(with_bits(x[i]), -with_bits(high_x[i])))) & 0xFFFFE000u;
  }
  QC_UNROLL
  for (int i = 0; i < 2; ++i) {
    high_w[i] = w[i] & 0xFFFFE000u;
    low_w[i] = static_cast<u32>(bits_of(sum(with_bits(w[i]), -with_bits(high_w[i])))) & 0xFFFFE000u;
  }
  float part[4] = {};
  const auto multiply_tf32 = [&](const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(part[0]), "+f"(part[1]), "+f"(part[2]), "+f"(part[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  };
  multiply_tf32(low_x, high_w);
  multiply_tf32(high_x, low_w);
  multiply_tf32(high_x, high_w);
  QC_UNROLL
  for (int i = 0; i < 4; ++i) sums[i] = sum(sums[i], part[i]);
}

// Floats of 8 bits, from sm_89 on: to nearest, ties to even; the largest one for what is larger, NaN for NaN.
#define QC_FLOAT8(name)                                                                                             \
  QC_DEVICE u8 to_##name(float v) {                                                                                 \
    u16 bits;                                                                                                       \
    asm("cvt.rn.satfinite." #name "x2.f32 %0, %1, %2;" : "=h"(bits) : "f"(0.0f), "f"(v));                           \
    return static_cast<u8>(bits);                                                                                   \
  }                                                                                                                 \
  QC_DEVICE float from_##name(u8 bits) {                                                                            \
    u32 halves;                                                                                                     \
    asm("cvt.rn.f16x2." #name "x2 %0, %1;" : "=r"(halves) : "h"(static_cast<u16>(bits)));                           \
    return from_f16(static_cast<u16>(halves));                                                                      \
  }                                                                                                                 \
  QC_DEVICE void multiply_##name(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {                          \
    asm("mma.sync.aligned.m16n8k32.row.col.f32." #name "." #name ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "        \
        "{%8, %9}, {%0, %1, %2, %3};"                                                                               \
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                                \
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w[0]), "r"(w[1]));                                        \
  }
QC_FLOAT8(e4m3)
QC_FLOAT8(e5m2)

// The same of bfloat16; before sm_80 without Tensor Cores.
QC_DEVICE void multiply_bf16(float (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
#if QC_ARCH >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w[0]), "r"(w[1]));
#else
  const int lane = threadIdx.x % 32;
  for (int t = 0; t < 4; ++t)
    for (int r = 0; r < 4; ++r) {
      const u32 row = __shfl_sync(~0u, x[r], lane / 4 * 4 + t);
      for (int c = 0; c < 2; ++c) {
        const u32 column = __shfl_sync(~0u, w[r / 2], (lane % 4 * 2 + c) * 4 + t);
        float& total = sums[r % 2 * 2 + c];
        total = fmaf(with_bits(row << 16), with_bits(column << 16), total);
        total = fmaf(with_bits(row & 0xFFFF0000u), with_bits(column & 0xFFFF0000u), total);
      }
    }
#endif
}

#endif

// ``multiply_16832``; before sm_80 made of four smaller products, whose registers are the same ones.
template <bool SIGNED> QC_DEVICE void multiply(int (&sums)[4], const u32 (&x)[4], const u32 (&w)[2]) {
#if QC_ARCH >= 800
  multiply_16832<SIGNED>(sums, x, w);
#else
  multiply_8816<SIGNED>(sums[0], sums[1], x[0], w[0]);
  multiply_8816<SIGNED>(sums[2], sums[3], x[1], w[0]);
  multiply_8816<SIGNED>(sums[0], sums[1], x[2], w[1]);
  multiply_8816<SIGNED>(sums[2], sums[3], x[3], w[1]);
#endif
}
