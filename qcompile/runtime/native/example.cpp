/* A program around a model; README.md says how to compile it.
 *
 *     example FOLDER INPUT...        raw arrays, one for each input; prints the largest element of each output
 */
#include <algorithm>
#include <fstream>
#include <iostream>

#include "qcompile.hpp"

int main(int argc, char **argv) try {
  if (argc < 2) throw qcompile::Error("usage: example FOLDER INPUT...");
  qcompile::Model model(argv[1]);
  for (const qcompile::Tensor &input : model.inputs()) {
    const std::size_t number = &input - model.inputs().data();
    std::ifstream file(static_cast<int>(number) + 2 < argc ? argv[number + 2] : "", std::ios::binary);
    if (!file.read(static_cast<char *>(input.raw()), input.bytes()))
      throw qcompile::Error("no file for " + input.name());
  }
  model.run();
  for (const qcompile::Tensor &output : model.outputs()) {
    const float *first = output.data<float>();
    const float *best = std::max_element(first, first + output.size<float>());
    std::cout << output.name() << ": largest at " << best - first << ", " << *best << "\n";
  }
} catch (const std::exception &error) {
  std::cerr << "error: " << error.what() << "\n";
  return 2;
}
