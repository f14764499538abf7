// Real-valued sequences as inputs: how a file's network standardises each input, and for how many steps it gets each
// element of a sequence. Networks and streams call this; it knows neither.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "../params.h"
#include "aligned_array.h"
#include "tensor_file.h"

namespace srcell {

// The mean and deviation of each input x: the network gets (x - mean) / deviation, a difference and a quotient of
// floats.
struct Standardisation {
    std::vector<float> mean, deviation;  // (K,); empty: the network gets its inputs unchanged

    // Reads the tensors input.mean and input.deviation, if the file has them. Throws FileError.
    static Standardisation of_file(const TensorFile& file, int64_t inputs);

    explicit operator bool() const { return !mean.empty(); }
    int64_t inputs() const { return static_cast<int64_t>(mean.size()); }
    static constexpr size_t kTensors = 2;
};

// Lists standardised rows as events: ascending inputs, without zeros. An input without an event is 0 before it is
// standardised, and events of one input are added in their order. Allocates only in its constructor.
class StandardisedRows {
  public:
    // The standardisation must outlive it.
    StandardisedRows(const Standardisation& of, int64_t rows);

    // The events returned live until the next call. Both throw std::invalid_argument for NaN.
    Events<float> of_dense(const float* elements);  // (rows, K)
    // Valid events; rows past a sample's length stay without.
    Events<float> of_events(const Samples& shape, const Events<float>& events);

  private:
    void list(const float* elements, int64_t row);
    Events<float> listed(int64_t rows) const;

    const Standardisation& of_;
    Aligned<int64_t> offsets_;    // (rows + 1,)
    Aligned<int32_t> indices_;    // (rows * K,)
    Aligned<float> values_;       // (rows * K,)
    Aligned<float> dense_, row_;  // (K,) scratch: a row of events as a dense one, and standardised
};

// The members of a JSON object, up to the first whose value is neither a string without escapes nor a number or word.
// The text may be anything.
std::map<std::string, std::string> leading_members(const std::string& text);

// The settings of a HeldEncoding: the steps without events before the first element of a sequence, and the steps for
// which the network gets each element.
struct Holding {
    int64_t hold = 1, prefix = 0;  // a network without an encoder gets each element for one step
    std::string refusal;           // why the network takes no sequences; empty if it does

    static Holding of_texts(const std::map<std::string, std::string>& texts);
};

}  // namespace srcell
