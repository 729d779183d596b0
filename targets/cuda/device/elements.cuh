// What element-by-element kernels call that C++ has no operator for.

// The second where they do not compare (NaN), as TVM has it.
template <class T> QC_DEVICE T larger(T a, T b) { return a > b ? a : b; }
template <class T> QC_DEVICE T smaller(T a, T b) { return a < b ? a : b; }

// Rounded down; the remainder has the divisor's sign.
template <class T> QC_DEVICE T floor_quotient(T a, T b) { return a / b - (a % b != 0 && (a % b < 0) != (b < 0)); }
template <class T> QC_DEVICE T floor_remainder(T a, T b) {
  return a % b != 0 && (a % b < 0) != (b < 0) ? a % b + b : a % b;
}
