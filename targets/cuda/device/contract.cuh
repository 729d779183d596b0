// Convolutions and matrix products of codes, and of floats: an implicit matrix product on Tensor Cores.
//
//     y[pixel, o] = finish(f32(sum_k x[pixel, k] * w[o, k] + bias[o]) * multiplier[o], residual[pixel, o])
//
// Row ``pixel`` of x is gathered from the image: k counts the window's taps, and channels within a tap. A block of
// threads makes BM pixels of BN channels, a warp BM / WARPS_M of BN / WARPS_N. Stages of 64 bytes of k are copied into
// shared memory ahead of the products. There, the 16-byte pieces of a row are permuted such that the eight rows that a
// matrix load reads at once lie in different banks.
//
// Where there are few pixels and channels, and a long k, SLICES groups of warps take turns at the stages of k, each with
// shared memory of its own, and the first one adds up what the others have.
//
// Groups have blocks of their own: their channels of x are CG, of y OG, in GROUP_TILES blocks.
//
// C, CG and K count bytes. P::step multiplies a fragment, P::value makes a float of a sum, P::finish what y holds. Sums of
// floats are float32. Without P::SCALED there is no multiplier. Channels that pad rows of narrow floats are written as
// zeros: what reads them multiplies them by zeros, and NaN would remain.
//
// P has the shapes as constants, see targets/cuda/contract.py. x: [N][H][W][C], w: [channels][K], y: [pixels][OC].

constexpr int STEP = 64;  // bytes of k a stage

QC_DEVICE int swizzled(int row, int byte) { return row * STEP + ((((byte >> 4) ^ (row >> 1)) & 3) << 4) + (byte & 15); }

// The most bytes that pieces of rows of so many (or'ed: of each) may have.
QC_CONSTANT int piece_of(int bytes) { return bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : 4; }

template <class P> struct Gather {
  static constexpr int THREADS = 32 * P::WARPS_M * P::WARPS_N;  // of a slice
  static constexpr int PIECE = piece_of(P::C | P::CG);
  static constexpr int PIECES = STEP / PIECE;                // of a row
  static constexpr int ROWS = P::BM * PIECES / THREADS;      // that a thread copies a piece of
  static constexpr bool BORDER = P::TOP || P::LEFT || P::BOTTOM || P::RIGHT;
  static constexpr bool POINTWISE = P::KH * P::KW == 1 && !BORDER;
  static_assert(P::BM * PIECES % THREADS == 0 && P::BN * 4 % THREADS == 0, "threads without a piece");

  const u8* x;
  int start[ROWS], top[ROWS], left[ROWS];

  QC_DEVICE_MEMBER Gather(const u8* x, int first, int thread) : x(x) {
    QC_UNROLL
    for (int i = 0; i < ROWS; ++i) {
      int pixel = first + thread / PIECES + i * (THREADS / PIECES);
      pixel = pixel < P::PIXELS ? pixel : P::PIXELS - 1;
      const int image = pixel / (P::OH * P::OW), inner = pixel % (P::OH * P::OW);
      top[i] = inner / P::OW * P::SH - P::TOP;
      left[i] = inner % P::OW * P::SW - P::LEFT;
      start[i] = ((image * P::H + top[i]) * P::W + left[i]) * P::C;
    }
  }

  // The thread's pieces of bytes [k, k + STEP) of each row. What lies behind the last tap meets weights of zero.
  QC_DEVICE_MEMBER void copy(u8* stage, int k, int thread) const {
    const int column = thread % PIECES * PIECE;
    const int at = k + column;
    const int tap = min(at / P::CG, P::KH * P::KW - 1), channel = at % P::CG;
    const int down = tap / P::KW * P::DH, right = tap % P::KW * P::DW;
    const int offset = (down * P::W + right) * P::C + channel;
    QC_UNROLL
    for (int i = 0; i < ROWS; ++i) {
      u8* to = stage + swizzled(thread / PIECES + i * (THREADS / PIECES), column);
      const bool inside = !BORDER || (static_cast<u32>(top[i] + down) < P::H && static_cast<u32>(left[i] + right) < P::W);
      if constexpr (P::ZERO == 0) {
        copy_or_clear<PIECE>(to, x + start[i] + offset, inside);
      } else if (inside) {
        copy_async<PIECE>(to, x + start[i] + offset);
      } else {
        Pack<u32, PIECE / 4> zeros;
        for (int j = 0; j < PIECE / 4; ++j) zeros.v[j] = 0x01010101u * static_cast<u8>(P::ZERO);
        *reinterpret_cast<Pack<u32, PIECE / 4>*>(to) = zeros;
      }
    }
  }
};

// How weights come to products: a stage of BN channels into shared memory, from there into registers. Those in GROUPED
// 4 bits are in grouped.cuh.
template <class P, bool GROUPED> struct Weights {
  static constexpr int THREADS = 32 * P::WARPS_M * P::WARPS_N;
  static constexpr int TM = P::BM / P::WARPS_M / 16, TN = P::BN / P::WARPS_N / 8;  // products of 16 x 8 a warp
  static_assert(TN % 2 == 0, "weights are loaded for two products at once");

  const i8* rows;

  QC_DEVICE_MEMBER Weights(const i8* w, int tile) : rows(w + tile * P::BN * P::K) {}

  QC_DEVICE_MEMBER void copy(u8* stage, int step, int thread) const {
    QC_UNROLL
    for (int i = 0; i < P::BN * 4 / THREADS; ++i) {
      const int row = thread / 4 + i * (THREADS / 4), column = thread % 4 * 16;
      copy_async<16>(stage + swizzled(row, column), rows + row * P::K + step * STEP + column);
    }
  }

  // sums += the products of a stage of pixels a and one of weights b, those of a warp that begin at (pixel, channel).
  QC_DEVICE_MEMBER static void multiply(typename P::Sum (&sums)[TM][TN][4], const u8* a, const u8* b, int pixel,
                                        int channel, int lane) {
    QC_UNROLL
    for (int k = 0; k < STEP; k += 32) {
      u32 xs[TM][4], ws[TN / 2][4];
      QC_UNROLL
      for (int i = 0; i < TM; ++i) load_matrices(xs[i], a + swizzled(pixel + i * 16 + lane % 16, k + lane / 16 * 16));
      QC_UNROLL
      for (int j = 0; j < TN / 2; ++j)
        load_matrices(ws[j], b + swizzled(channel + j * 16 + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 16));
      QC_UNROLL
      for (int i = 0; i < TM; ++i)
        QC_UNROLL
        for (int j = 0; j < TN; ++j)
          P::step(sums[i][j], xs[i], {ws[j / 2][j % 2 * 2], ws[j / 2][j % 2 * 2 + 1]});
    }
  }
};

template <class P, class R, class Y>
QC_DEVICE void contract(const u8* x, const i8* w, const typename P::Sum* bias, const float* multiplier, const R* residual,
                        Y* y) {
  constexpr int TM = P::BM / P::WARPS_M / 16, TN = P::BN / P::WARPS_N / 8;  // products of 16 x 8 a warp
  constexpr int STEPS = P::K / STEP, TURNS = (STEPS + P::SLICES - 1) / P::SLICES, TILES_N = P::CHANNELS / P::BN;
  constexpr int SLICE = Gather<P>::THREADS, THREADS = P::SLICES * SLICE;
  QC_SHARED(memory);
  const int slice = P::SLICES == 1 ? 0 : threadIdx.x / SLICE, thread = threadIdx.x - slice * SLICE;
  u8* const pixels = memory + slice * (P::STAGES * (P::BM + P::BN) * STEP);
  u8* const weights = pixels + P::STAGES * P::BM * STEP;
  const int lane = thread % 32, warp = thread / 32;
  const int first_pixel = blockIdx.x / TILES_N * P::BM, tile = blockIdx.x % TILES_N;
  const int group = tile / P::GROUP_TILES, first_in_group = tile % P::GROUP_TILES * P::BN;
  const int first_channel = group * P::OG + first_in_group;
  const int warp_pixel = warp % P::WARPS_M * (P::BM / P::WARPS_M), warp_channel = warp / P::WARPS_M * (P::BN / P::WARPS_N);
  const Gather<P> gather(x + group * P::CG, first_pixel, thread);
  const Weights<P, (P::GROUP > 0)> rows(w, tile);
  bias += tile * P::BN;
  if constexpr (P::SCALED) multiplier += tile * P::BN;

  typename P::Sum sums[TM][TN][4] = {};
  QC_UNROLL
  for (int s = 0; s < P::STAGES - 1; ++s) {
    const int step = s * P::SLICES + slice;
    if (step < STEPS) {
      gather.copy(pixels + s * P::BM * STEP, step * STEP, thread);
      rows.copy(weights + s * P::BN * STEP, step, thread);
    }
    end_group();
  }
  int stage = 0, ahead = P::STAGES - 1;
  QC_ROLLED
  for (int turn = 0; turn < TURNS; ++turn) {
    copies_left<P::STAGES - 2>();
    barrier();
    const int next = (turn + P::STAGES - 1) * P::SLICES + slice;
    if (next < STEPS) {
      gather.copy(pixels + ahead * P::BM * STEP, next * STEP, thread);
      rows.copy(weights + ahead * P::BN * STEP, next, thread);
    }
    end_group();
    if (STEPS % P::SLICES != 0 && turn * P::SLICES + slice >= STEPS) break;  // the last turn, and others have one more
    rows.multiply(sums, pixels + stage * P::BM * STEP, weights + stage * P::BN * STEP, warp_pixel, warp_channel, lane);
    stage = stage + 1 == P::STAGES ? 0 : stage + 1;
    ahead = ahead + 1 == P::STAGES ? 0 : ahead + 1;
  }
  copies_left<0>();
  barrier();  // from here on, shared memory holds sums, then codes of results
  if constexpr (P::SLICES > 1) {
    typename P::Sum* const mine = reinterpret_cast<typename P::Sum*>(memory) + thread;
    constexpr int EACH = TM * TN * 4 * SLICE;
    QC_UNROLL
    for (int s = 1; s < P::SLICES; ++s)
      QC_UNROLL
      for (int i = 0; i < TM; ++i)
        QC_UNROLL
        for (int j = 0; j < TN; ++j)
          QC_UNROLL
          for (int c = 0; c < 4; ++c)
            if (slice == s) mine[(s - 1) * EACH + ((i * TN + j) * 4 + c) * SLICE] = sums[i][j][c];
    barrier();
    QC_UNROLL
    for (int s = 1; s < P::SLICES; ++s)
      QC_UNROLL
      for (int i = 0; i < TM; ++i)
        QC_UNROLL
        for (int j = 0; j < TN; ++j)
          QC_UNROLL
          for (int c = 0; c < 4; ++c)
            if (slice == 0) sums[i][j][c] += mine[(s - 1) * EACH + ((i * TN + j) * 4 + c) * SLICE];
    barrier();
  }

  constexpr bool CODES = P::CODES, NARROW = !CODES && sizeof(Y) < 4;
  constexpr int PITCH = P::BN + 16;
  constexpr int PIECE = piece_of(P::OC | P::OG), PIECES = P::BN / PIECE;
  typedef Pack<u32, PIECE / 4> Piece;
  if constexpr (CODES && P::RESIDUAL) {
    for (int i = threadIdx.x; i < P::BM * PIECES; i += THREADS) {
      const int row = i / PIECES, column = i % PIECES * PIECE;
      if (first_pixel + row < P::PIXELS && first_in_group + column < P::OG)
        *reinterpret_cast<Piece*>(memory + row * PITCH + column) =
            *reinterpret_cast<const Piece*>(residual + (first_pixel + row) * P::OC + first_channel + column);
    }
    barrier();
  }
  if (slice == 0) {
    QC_UNROLL
    for (int j = 0; j < TN; ++j) {
      const int column = warp_channel + j * 8 + lane % 4 * 2, channel = first_channel + column;
      typedef Pack<typename P::Sum, 2> Two;
      const Two more = *reinterpret_cast<const Two*>(bias + column);
      Pack<float, 2> factor = {};
      if constexpr (P::SCALED) factor = *reinterpret_cast<const Pack<float, 2>*>(multiplier + column);
      QC_UNROLL
      for (int i = 0; i < TM; ++i)
        QC_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int row = warp_pixel + i * 16 + half * 8 + lane / 4, pixel = first_pixel + row;
          Pack<Y, 2> two = {};
          QC_UNROLL
          for (int c = 0; c < 2; ++c) {
            const float v = P::value(sums[i][j][half * 2 + c], more.v[c], factor.v[c]);
            if constexpr (CODES) {
              Y* const at = reinterpret_cast<Y*>(memory + row * PITCH + column + c);
              *at = P::finish(v, P::RESIDUAL ? *reinterpret_cast<const R*>(at) : R(0));
            } else if (pixel < P::PIXELS && first_in_group + column + c < P::OG && channel + c < P::O) {
              two.v[c] = P::finish(v, P::RESIDUAL ? residual[pixel * P::RC + channel + c] : R(0));
              if constexpr (!NARROW) y[pixel * P::OC + channel + c] = two.v[c];
            }
          }
          if constexpr (NARROW) {
            if (pixel < P::PIXELS && first_in_group + column < P::OG)
              *reinterpret_cast<Pack<Y, 2>*>(y + pixel * P::OC + channel) = two;
          }
        }
    }
  }
  if constexpr (CODES) {
    barrier();
    for (int i = threadIdx.x; i < P::BM * PIECES; i += THREADS) {
      const int row = i / PIECES, column = i % PIECES * PIECE;
      if (first_pixel + row < P::PIXELS && first_in_group + column < P::OG)
        *reinterpret_cast<Piece*>(y + (first_pixel + row) * P::OC + first_channel + column) =
            *reinterpret_cast<const Piece*>(memory + row * PITCH + column);
    }
  }
}
