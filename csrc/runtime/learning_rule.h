// How a layer of a file was trained, by which it goes on learning.
#pragma once

#include <string>

#include "tensor_file.h"

namespace srcell {

struct LearningRule {
    bool relu = false, lateral_relu = true;  // as in CellBackward and Lateral
    float bias_max = -4;                     // a bias acts as at most this
    bool learn_bias = true;

    // Reads the text `name`, a JSON object of what differs from these defaults, if the file has it. Throws FileError.
    static LearningRule of(const TensorFile& file, const std::string& name);
};

}  // namespace srcell
