// The arithmetic of codes, as qcompile.reference.arithmetic has it: every product and sum is rounded on its own.

// GPUs convert between int and float at a fraction of the rate of sums. In floats from 2^23 on, neighbours differ by 1:
// a sum with 1.5 * 2^23 leaves the nearest integer, ties to even, in the lowest bits; if |v| < 2^22.
constexpr float SHIFT = 12582912.0f;
constexpr int SHIFT_BITS = 0x4B400000;

QC_DEVICE int nearest(float v) { return bits_of(sum(v, SHIFT)) - SHIFT_BITS; }

// ``real`` of an int within [-2^22, 2^22), if it is known to be SMALL.
template <bool SMALL> QC_DEVICE float real_sum(int v) {
  if constexpr (SMALL) return sum(with_bits(SHIFT_BITS + v), -SHIFT);
  else return real(v);
}

// f32(total + more) * factor. Sums wrap around as int32 does; signed overflow would be undefined in C++.
template <bool SMALL> QC_DEVICE float scaled_sum(int total, int more, float factor) {
  return product(real_sum<SMALL>(static_cast<int>(static_cast<u32>(total) + static_cast<u32>(more))), factor);
}

// clip(round_half_even(v), low - z, high - z) + z. Clipping first gives the same and keeps the conversion in range.
QC_DEVICE int to_code(float v, float low, float high, int zero) { return nearest(fminf(fmaxf(v, low), high)) + zero; }

// float32 as bfloat16 and back: to nearest, ties to even, NaN to NaN.
QC_DEVICE u16 to_bf16(float v) {
  const u32 bits = static_cast<u32>(bits_of(v));
  return static_cast<u16>(v == v ? (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16 : 0x7FC0u);
}
QC_DEVICE float from_bf16(u16 v) { return with_bits(static_cast<int>(static_cast<u32>(v) << 16)); }

// 0 for NaN.
QC_DEVICE float number(float v) { return v == v ? v : 0.0f; }

// The codes of four channels' pixels as the pixels of four channels: byte i of word j becomes byte j of word i.
QC_DEVICE void transpose(u32 (&words)[4]) {
  const u32 a = permuted(words[0], words[1], 0x5140), b = permuted(words[2], words[3], 0x5140);
  const u32 c = permuted(words[0], words[1], 0x7362), d = permuted(words[2], words[3], 0x7362);
  words[0] = permuted(a, b, 0x5410);
  words[1] = permuted(a, b, 0x7632);
  words[2] = permuted(c, d, 0x5410);
  words[3] = permuted(c, d, 0x7632);
}
