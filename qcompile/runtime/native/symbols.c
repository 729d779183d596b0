/* The functions that generated code may call: a few of TVM's runtime, and what LLVM takes from libc and libm. */
#define _GNU_SOURCE 1
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static void set_error(const char *kind, const char **parts, int32_t count) {
  char text[1024];
  size_t at = (size_t)snprintf(text, sizeof text, "%s: ", kind);
  for (int i = 0; i < count && at < sizeof text; i++)
    if (parts[i]) at += (size_t)snprintf(text + at, sizeof text - at, "%s", parts[i]);
  qc_set_error(text);
}

static void *alloc_workspace(int device_type, int device, uint64_t bytes, int code, int bits) {
  void *p;
  (void)device_type, (void)device, (void)code, (void)bits;
  return posix_memalign(&p, 64, (size_t)bytes + 64) ? NULL : p;
}

static int free_workspace(int device_type, int device, void *p) {
  (void)device_type, (void)device;
  free(p);
  return 0;
}

/* One type for all: C++ overloads the names of libm, and these are never called here. */
#define IS(name, f) {name, (void *)(uintptr_t)(f)}
#define F(f) {#f, (void *)(uintptr_t)(float (*)(float))f}
#define F2(f) {#f, (void *)(uintptr_t)(float (*)(float, float))f}
#define D(f) {#f, (void *)(uintptr_t)(double (*)(double))f}
#define D2(f) {#f, (void *)(uintptr_t)(double (*)(double, double))f}
static const struct {
  const char *name;
  void *address;
} known[] = {
    IS("TVMFFIErrorSetRaisedFromCStrParts", set_error),
    IS("TVMBackendAllocWorkspace", alloc_workspace),
    IS("TVMBackendFreeWorkspace", free_workspace),
    IS("TVMBackendParallelLaunch", qc_parallel),
    IS("memcpy", memcpy), IS("memmove", memmove), IS("memset", memset), IS("memcmp", memcmp), IS("bcmp", memcmp),
    F(expf), F(exp2f), F(expm1f), F(logf), F(log2f), F(log10f), F(log1pf), F(sqrtf), F(cbrtf), F(tanhf), F(sinhf),
    F(coshf), F(sinf), F(cosf), F(tanf), F(asinf), F(acosf), F(atanf), F(asinhf), F(acoshf), F(atanhf), F(erff),
    F(erfcf), F(floorf), F(ceilf), F(roundf), F(truncf), F(rintf), F(nearbyintf), F(fabsf),
    F2(powf), F2(atan2f), F2(fmodf), F2(fminf), F2(fmaxf), F2(hypotf), F2(copysignf),
    D(exp), D(exp2), D(expm1), D(log), D(log2), D(log10), D(log1p), D(sqrt), D(cbrt), D(tanh), D(sinh), D(cosh), D(sin),
    D(cos), D(tan), D(asin), D(acos), D(atan), D(asinh), D(acosh), D(atanh), D(erf), D(erfc), D(floor), D(ceil),
    D(round), D(trunc), D(rint), D(nearbyint), D(fabs),
    D2(pow), D2(atan2), D2(fmod), D2(fmin), D2(fmax), D2(hypot), D2(copysign),
    IS("fmaf", (float (*)(float, float, float))fmaf), IS("fma", (double (*)(double, double, double))fma),
    IS("ldexpf", (float (*)(float, int))ldexpf), IS("ldexp", (double (*)(double, int))ldexp),
    IS("lrintf", (long (*)(float))lrintf), IS("lrint", (long (*)(double))lrint),
    IS("sincosf", sincosf), IS("sincos", sincos),
};

void *qc_symbol(const char *name) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(known[i].name, name)) return known[i].address;
  return NULL;
}
