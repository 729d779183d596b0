// Weights in 4 bits with integer scales: GROUP neighbours along k (8, 16 or 32) share one, P::step multiplies codes.
//
//     sum_g scale[o, g] * (sum_{k in g} x[pixel, k] * w[o, k])           exact, mod 2^32 as every sum of codes
//
// They become bytes in registers, as they are multiplied: every product has a sum of its own, which is scaled and added.
//
// A stage of 64 weights of a channel is 8 words of 8 codes + 8; word 2 t + h has those that lanes 4 n + t multiply of
// half h: byte i holds k = 32 h + 4 t + i in its lower, and k + 16 in its upper bits. Behind all weights, w has the scales
// as bytes, [STEPS][64 / GROUP][CHANNELS]. In shared memory a stage has scales behind weights, too.

template <class P> struct Weights<P, true> {
  static constexpr int BYTES = STEP / 2, PARTS = STEP / P::GROUP;  // of a channel in a stage; groups there
  static constexpr int THREADS = 32 * P::WARPS_M * P::WARPS_N;
  static constexpr int TM = P::BM / P::WARPS_M / 16, TN = P::BN / P::WARPS_N / 8;
  static_assert(P::GROUP == 8 || P::GROUP == 16 || P::GROUP == 32, "groups are parts of what is multiplied at once");
  typedef Pack<u32, 2> Words;

  const u8 *rows, *scales;

  QC_DEVICE_MEMBER Weights(const i8* w, int tile)
      : rows(reinterpret_cast<const u8*>(w) + tile * P::BN * (P::K / 2)),
        scales(reinterpret_cast<const u8*>(w) + P::CHANNELS * (P::K / 2) + tile * P::BN) {}

  QC_DEVICE_MEMBER void copy(u8* stage, int step, int thread) const {
    QC_UNROLL
    for (int i = thread; i < P::BN * 2; i += THREADS)
      copy_async<16>(stage + i * 16, rows + i / 2 * (P::K / 2) + step * BYTES + i % 2 * 16);
    QC_UNROLL
    for (int i = thread; i < P::BN / 16 * PARTS; i += THREADS)
      copy_async<16>(stage + P::BN * BYTES + i * 16,
                     scales + (step * PARTS + i / (P::BN / 16)) * P::CHANNELS + i % (P::BN / 16) * 16);
  }

  // Four of the eight codes of a word as signed bytes.
  QC_DEVICE_MEMBER static u32 signed_bytes(u32 codes) { return ((codes & 0x0F0F0F0Fu | 0x80808080u) - 0x08080808u) ^ 0x80808080u; }

  QC_DEVICE_MEMBER static void multiply(int (&sums)[TM][TN][4], const u8* a, const u8* b, int pixel, int channel, int lane) {
    Words codes[TN];
    QC_UNROLL
    for (int j = 0; j < TN; ++j)
      codes[j] = *reinterpret_cast<const Words*>(b + (channel + j * 8 + lane / 4) * BYTES + lane % 4 * 8);
    QC_UNROLL
    for (int half = 0; half < 2; ++half) {
      u32 xs[TM][4];
      QC_UNROLL
      for (int i = 0; i < TM; ++i) load_matrices(xs[i], a + swizzled(pixel + i * 16 + lane % 16, half * 32 + lane / 16 * 16));
      QC_UNROLL
      for (int j = 0; j < TN; ++j) {
        const u32 low = signed_bytes(codes[j].v[half]), high = signed_bytes(codes[j].v[half] >> 4);
        QC_ROLLED
        for (int part = 0; part < PARTS / 2; ++part) {  // written out, many parts take more registers than there are
          const u32 w[2] = {of_part(part, 0, lane) ? low : 0, of_part(part, 1, lane) ? high : 0};
          const u8* const own = b + P::BN * BYTES + (half * (PARTS / 2) + part) * P::BN + channel + j * 8 + lane % 4 * 2;
          const Pack<u8, 2> scale = *reinterpret_cast<const Pack<u8, 2>*>(own);
          QC_UNROLL
          for (int i = 0; i < TM; ++i) {
            int total[4] = {};
            P::step(total, xs[i], w);
            QC_UNROLL
            for (int c = 0; c < 4; ++c) {
              const u32 scaled = static_cast<u32>(total[c]) * scale.v[c % 2];
              sums[i][j][c] = static_cast<int>(static_cast<u32>(sums[i][j][c]) + scaled);
            }
          }
        }
      }
    }
  }

  // Whether the lane's codes k = 16 upper + 4 (lane % 4) ... of a half belong to a group of it.
  QC_DEVICE_MEMBER static bool of_part(int part, int upper, int lane) {
    return (upper * 16 + lane % 4 * 4) / P::GROUP == part;
  }
};
