// The arithmetic of codes, as qcompile.reference.arithmetic has it: every product and sum is rounded on its own.

// clip(round_half_even(v), low - z, high - z) + z. Clipping first gives the same and keeps the conversion in range.
QC_DEVICE int to_code(float v, float low, float high, int zero) { return nearest(fminf(fmaxf(v, low), high)) + zero; }

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
