// Depthwise convolutions of codes, on dp4a: a thread makes STRIP neighbouring pixels of four channels.
//
// The words of four taps, each of four channels, are transposed to words of four taps of one channel; weights lie that
// way already, w: [taps / 4][channels] words, taps that fill the last word are zero. x, y: [N][H][W][C].

template <class P, class R, class Y>
QC_DEVICE void depthwise(const u8* x, const u32* w, const int* bias, const float* multiplier, const R* residual, Y* y) {
  constexpr int TAPS = P::KH * P::KW, GROUPS = (TAPS + 3) / 4, STRIPS = (P::OW + P::STRIP - 1) / P::STRIP;
  const int index = blockIdx.x * P::THREADS + threadIdx.x;
  if (index >= P::IMAGES * P::OH * STRIPS * (P::C / 4)) return;
  const int channel = index % (P::C / 4) * 4, first = index / (P::C / 4) % STRIPS * P::STRIP;
  const int oh = index / (P::C / 4) / STRIPS % P::OH, image = index / (P::C / 4) / STRIPS / P::OH;
  Pack<u32, 4> weights[GROUPS];
  QC_UNROLL
  for (int g = 0; g < GROUPS; ++g) weights[g] = *reinterpret_cast<const Pack<u32, 4>*>(w + g * P::C + channel);
  const Pack<int, 4> start = *reinterpret_cast<const Pack<int, 4>*>(bias + channel);
  const Pack<float, 4> factor = *reinterpret_cast<const Pack<float, 4>*>(multiplier + channel);
  QC_UNROLL
  for (int ow = first; ow < first + P::STRIP; ++ow) {
    if (ow >= P::OW) break;
    Pack<int, 4> sums = start;
    QC_UNROLL
    for (int g = 0; g < GROUPS; ++g) {
      u32 words[4];
      QC_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int tap = g * 4 + i, h = oh * P::SH - P::TOP + tap / P::KW * P::DH;
        const int v = ow * P::SW - P::LEFT + tap % P::KW * P::DW;
        const bool inside = tap < TAPS && static_cast<u32>(h) < P::H && static_cast<u32>(v) < P::W;
        words[i] = 0x01010101u * static_cast<u8>(P::ZERO);
        if (inside) words[i] = *reinterpret_cast<const u32*>(x + ((image * P::H + h) * P::W + v) * P::C + channel);
      }
      transpose(words);
      QC_UNROLL
      for (int c = 0; c < 4; ++c) sums.v[c] = dot4<P::SIGNED>(words[c], weights[g].v[c], sums.v[c]);
    }
    const int pixel = (image * P::OH + oh) * P::OW + ow;
    if constexpr (sizeof(Y) == 1) {
      Pack<R, 4> other = {};
      if constexpr (P::RESIDUAL) other = *reinterpret_cast<const Pack<R, 4>*>(residual + pixel * P::C + channel);
      Pack<Y, 4> result;
      QC_UNROLL
      for (int c = 0; c < 4; ++c) result.v[c] = P::finish(product(real_sum<P::SMALL>(sums.v[c]), factor.v[c]), other.v[c]);
      *reinterpret_cast<Pack<Y, 4>*>(y + pixel * P::C + channel) = result;
    } else {
      for (int c = 0; c < 4; ++c) {
        if (channel + c >= P::O) break;
        const R other = P::RESIDUAL ? residual[pixel * P::RC + channel + c] : R(0);
        y[pixel * P::OC + channel + c] = P::finish(product(real_sum<P::SMALL>(sums.v[c]), factor.v[c]), other);
      }
    }
  }
}
