// A cochlea: turns the samples of a sound into what a network reads, currents or events. A file of a network may have
// one; Python, C and browsers run this code, so they hear the same. It knows neither networks nor files of sounds.
//
// All arithmetic is in double and in the order written here, and the only functions are square roots, which every
// processor rounds in the same way: the outputs are the same bits everywhere, and the same for any chunks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor_file.h"

namespace srcell {

// For each band: second-order sections one after another, half-wave rectification and a low pass. Every `hop` samples
// the fourth root y of each band's value is taken, `share` of its slow mean m is subtracted, and the result is scaled:
// z = (y - share m - offset) scale, where m = m + pace (y - m) before. For events the offset is 0, so that silence has
// z = 0 and the first sound sends no more events than any other.
struct Cochlea {
    int64_t bands = 0, sections = 0;
    int64_t hop = 0;    // samples of a frame
    int64_t hold = 0;   // steps of the network for each frame
    double smooth = 0;  // of the low pass, v = v + smooth (max(x, 0) - v)
    double pace = 0, share = 0;
    double threshold = 0;    // 0: z is a current; otherwise a band sends an event when z moved by the threshold
    std::vector<double> of;  // (sections, 5, bands): b0, b1, b2, a1, a2
    std::vector<double> offset, scale;  // (bands,)

    // Reads the tensors sound.sections, sound.constants, sound.offset and sound.scale, if the file has them. Throws
    // FileError.
    static Cochlea of_file(const TensorFile& file);
    // Checks the numbers of a cochlea whose arrays have their sizes. Throws FileError.
    void check() const;

    explicit operator bool() const { return bands > 0; }
    // Inputs of the network: one for each band, or two, for z that rises and for z that falls.
    int64_t inputs() const { return threshold > 0 ? 2 * bands : bands; }
    static constexpr size_t kTensors = 4;
};

// A cochlea that hears one sound, sample by sample.
class Hearing {
  public:
    explicit Hearing(const Cochlea& cochlea);

    // Takes samples until a frame is complete or all are taken; returns how many were taken. They must be finite.
    int64_t take(const float* samples, int64_t count);
    // Whether a frame is complete. The values are then those of the frame, until the next call of take().
    bool complete() const { return filled_ == cochlea_.hop; }
    // The inputs of the frame's steps: the currents of all bands, (bands,), or the numbers of the active inputs.
    const std::vector<float>& currents() const { return currents_; }
    const std::vector<int32_t>& active() const { return active_; }

    void reset();
    // The state, for a stream that is saved.
    size_t bytes() const { return state_.size() * sizeof(double); }
    char* save(char* to) const;
    const char* restore(const char* from);

  private:
    void finish();

    const Cochlea& cochlea_;
    // (2 sections + 3, bands): two numbers of each section, the low pass, the slow mean, the level of the last event;
    // then the number of samples of the present frame.
    std::vector<double> state_;
    std::vector<double> band_;  // (bands,) scratch
    std::vector<float> currents_;
    std::vector<int32_t> active_;
    int64_t filled_ = 0;
};

// The number of the first sample that is not finite, or -1.
int64_t first_not_finite(const float* samples, int64_t count);

}  // namespace srcell
