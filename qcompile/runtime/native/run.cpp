/* The model of a folder on files, as run.c, in C++: a program to start from. README.md says how to compile it.
 *
 *     run FOLDER FILE...        raw arrays: one to read for each input, then one to write for each output
 */
#include <fstream>
#include <iostream>

#include "qcompile.hpp"

int main(int argc, char **argv) try {
  if (argc < 2) throw qcompile::Error("usage: run FOLDER FILE...");
  qcompile::Model model(argv[1]);
  const std::vector<std::string> files(argv + 2, argv + argc);
  if (files.size() != model.inputs().size() + model.outputs().size()) throw qcompile::Error("a file for each tensor");

  auto file = files.begin();
  for (const qcompile::Tensor &input : model.inputs())
    if (!std::ifstream(*file++, std::ios::binary).read(static_cast<char *>(input.raw()), input.bytes()))
      throw qcompile::Error("no file for " + input.name());
  model.run();
  for (const qcompile::Tensor &output : model.outputs())
    if (!std::ofstream(*file++, std::ios::binary).write(static_cast<char *>(output.raw()), output.bytes()))
      throw qcompile::Error("cannot write " + output.name());
} catch (const std::exception &error) {
  std::cerr << "error: " << error.what() << "\n";
  return 2;
}
