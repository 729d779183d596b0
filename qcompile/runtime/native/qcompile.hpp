/* Models built by qcompile, from C++17; see qcompile.h.
 *
 *     qcompile::Model model("folder");
 *     std::copy(image.begin(), image.end(), model.input(0).data<float>());
 *     model.run();
 *     const float *scores = model.output("scores").data<float>();
 */
#ifndef QCOMPILE_HPP
#define QCOMPILE_HPP

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "qcompile.h"

namespace qcompile {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/* An input or output: a place that stays the same as long as the model lives. */
class Tensor {
 public:
  explicit Tensor(const qc_tensor *tensor) : tensor_(tensor) {
    if (!tensor) throw Error(qc_error());
  }

  std::string name() const { return tensor_->name; }
  std::string dtype() const { return tensor_->dtype; }
  std::vector<std::int64_t> shape() const { return {tensor_->shape, tensor_->shape + tensor_->rank}; }
  std::size_t bytes() const { return tensor_->bytes; }
  void *raw() const { return tensor_->data; }

  /* Elements, C-contiguous. T is float for "float32", std::uint8_t for "uint8", bool for "bool" and so on. */
  template <typename T>
  T *data() const {
    if (tensor_->dtype != dtype_of<T>()) throw Error(name() + " is " + dtype() + ", not " + dtype_of<T>());
    return static_cast<T *>(tensor_->data);
  }

  template <typename T>
  std::size_t size() const {
    return bytes() / sizeof(*data<T>());
  }

 private:
  template <typename T>
  static std::string dtype_of() {
    static_assert(std::is_arithmetic_v<T>, "tensors are of numbers");
    if (std::is_same_v<T, bool>) return "bool";
    const char *kind = std::is_floating_point_v<T> ? "float" : std::is_signed_v<T> ? "int" : "uint";
    return kind + std::to_string(8 * sizeof(T));
  }

  const qc_tensor *tensor_;
};

class Model {
 public:
  /* threads: 0 for as many as the model was built for. Throws Error if it cannot be run here. */
  explicit Model(const std::string &folder, int threads = 0) : model_(qc_open(folder.c_str(), threads), qc_close) {
    if (!model_) throw Error(qc_error());
    for (int i = 0; i < qc_inputs(model_.get()); i++) inputs_.emplace_back(qc_input(model_.get(), i));
    for (int i = 0; i < qc_outputs(model_.get()); i++) outputs_.emplace_back(qc_output(model_.get(), i));
  }

  const std::vector<Tensor> &inputs() const { return inputs_; }
  const std::vector<Tensor> &outputs() const { return outputs_; }
  const Tensor &input(std::size_t number) const { return inputs_.at(number); }
  const Tensor &output(std::size_t number) const { return outputs_.at(number); }
  const Tensor &input(const std::string &name) const { return named(inputs_, name); }
  const Tensor &output(const std::string &name) const { return named(outputs_, name); }

  /* Computes the outputs from the inputs. */
  void run() {
    if (qc_run(model_.get())) throw Error(qc_error());
  }

 private:
  static const Tensor &named(const std::vector<Tensor> &tensors, const std::string &name) {
    for (const Tensor &tensor : tensors)
      if (tensor.name() == name) return tensor;
    throw Error("the model has no '" + name + "'");
  }

  std::unique_ptr<qc_model, void (*)(qc_model *)> model_;
  std::vector<Tensor> inputs_, outputs_;
};

}  // namespace qcompile
#endif
