/* Models built by qcompile, in this process: C99 and C++, Linux on AArch64 and x86-64, nothing but libc and libm.
 *
 *     qc_model *model = qc_open("folder", 0);
 *     if (!model) { fputs(qc_error(), stderr); return 1; }
 *     memcpy(qc_input(model, 0)->data, image, qc_input(model, 0)->bytes);
 *     if (qc_run(model)) { ... }
 *     const float *scores = qc_output(model, 0)->data;
 *     qc_close(model);
 *
 * A model's tensors live as long as it does, at the same place: fill the inputs, call, read the outputs. One thread at
 * a time may call a model; several models may be called at once.
 */
#ifndef QCOMPILE_H
#define QCOMPILE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QC_API __attribute__((visibility("default")))

typedef struct qc_model qc_model;

typedef struct {
  const char *name;     /* as in the ONNX model */
  const char *dtype;    /* as numpy spells it: "float32", "uint8", ... */
  int32_t rank;
  const int64_t *shape; /* C-contiguous */
  size_t bytes;
  void *data;           /* on a 64-byte boundary */
} qc_tensor;

/* The model in a folder with model.txt, model.so and weights.bin. threads: that share its parallel loops, 0 for as many
 * as it was built for and there are cores; results do not depend on it. NULL if it cannot be run here, see qc_error. */
QC_API qc_model *qc_open(const char *folder, int threads);

/* Computes the outputs from the inputs. Not 0 if the model failed, see qc_error. */
QC_API int qc_run(qc_model *model);

QC_API int qc_inputs(const qc_model *model);
QC_API int qc_outputs(const qc_model *model);
QC_API const qc_tensor *qc_input(const qc_model *model, int number);
QC_API const qc_tensor *qc_output(const qc_model *model, int number);

/* Not 0 if a call has written outside of its buffers, which is a defect of qcompile. */
QC_API int qc_check(const qc_model *model);

QC_API void qc_close(qc_model *model);

/* Why the last of these functions that failed in this thread did so: one line. */
QC_API const char *qc_error(void);

#ifdef __cplusplus
}
#endif
#endif
