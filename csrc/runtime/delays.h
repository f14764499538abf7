// Delays in the runtime: the tables of a layer as its file holds them, and the delay line of a stream, which keeps
// spikes until they arrive. The network and its streams use them; they know neither weights nor equations.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "../params.h"
#include "aligned_array.h"
#include "tensor_file.h"

namespace srcell {

// The delays of a layer's inputs, or of its spikes on their way through recurrent weights.
struct StoredDelays {
    int64_t taps = 1, terms = 0;  // as in Delays; no terms: no delays
    int64_t longest = 0;          // the most steps that a term takes
    std::vector<int32_t> first;   // (numbers,)
    std::vector<float> factors;   // (numbers, terms), or empty: all 1

    // Reads the tensors `name`.first, (sources, taps), and `name`.factors, (sources, taps, terms), if the file has
    // them. -1 stands for any number of sources or taps. Throws FileError.
    static StoredDelays of(const TensorFile& file, const std::string& name, int64_t sources, int64_t taps);

    explicit operator bool() const { return terms > 0; }
    Delays<float> view() const;
    // The tensors of the file.
    size_t tensors() const { return (terms > 0) + !factors.empty(); }
    int64_t sources() const { return static_cast<int64_t>(first.size()) / taps; }
    // The size of a delay line for one sample, in numbers of 32 bits: each step takes one for each source, and a bit
    // for each term.
    int64_t room() const;
};

// The largest sum of room() over the delays of a network: 1 GiB.
constexpr int64_t kMostRoom = int64_t(1) << 28;

// The spikes on their way to the samples of a stream, in a ring of rows, one for each step. When a spike is sent, a bit
// is set in the row of each step at which one of its terms arrives. So a spike costs the same whatever its delay.
class DelayLine {
  public:
    // The order of what arrives at a step: inputs by the step of their departure, then by input and
    // tap; recurrent spikes by neuron, then by departure.
    enum Order { kByDeparture, kBySource };

    DelayLine() = default;  // without delays
    DelayLine(const StoredDelays& delays, int64_t batch, Order order);

    explicit operator bool() const { return rows_ > 0; }

    // Sends valid events of B rows at the present step, and returns what arrives at it, valid until the next call, in
    // the order that the batch would have. Rows that do not ascend or repeat an input may need more memory: throws
    // std::bad_alloc before anything is sent.
    Events<float> pass(const Events<float>& events);
    // The same for the spikes of h, (B, sources): its elements above 0, and NaN.
    Events<float> pass_spikes(const float* h);
    // Goes on to the next step.
    void advance();

    // Returns to the start, with nothing on its way.
    void clear();
    // What was sent at the last `longest` steps, (B, longest, sources), earliest first. After restore() it arrives by
    // ascending input, and events of one input in a row have been added up.
    size_t bytes() const { return static_cast<size_t>(batch_ * (rows_ ? rows_ - 1 : 0) * sources_) * sizeof(float); }
    char* save(char* to) const;
    const char* restore(const char* from);

  private:
    // A term of a delay. The arrivals of a step are in the order of their terms.
    struct Term {
        int64_t source, number;
        int64_t steps;  // from its departure to its arrival
        float factor;
    };

    int64_t row_after(int64_t steps) const { return now_ + steps < rows_ ? now_ + steps : now_ + steps - rows_; }
    int64_t row_before(int64_t steps) const { return now_ < steps ? now_ - steps + rows_ : now_ - steps; }
    float& sent(int64_t sample, int64_t row, int64_t source) const {
        return values_.data()[(sample * rows_ + row) * sources_ + source];
    }
    // An event as it was sent.
    struct Sent {
        int64_t source;
        float value;
    };

    // Marks the arrivals of a source's spike that was sent `age` steps ago: those after at least `least` steps.
    void mark(int64_t sample, int64_t source, int64_t age, int64_t least);
    void clear_sent(int64_t sample);
    // Keeps a row of events in its order, unless its inputs ascend.
    void keep_order(int64_t sample, const Events<float>& events);
    // Makes room for what arrives at the present step.
    void reserve(const Events<float>& events);
    // Append to the first `count` arrivals: one; those of an event after `steps` steps; those marked for the present
    // step.
    void append(const Term& term, float value, int64_t& count);
    void append_terms(const Sent& event, int64_t steps, int64_t& count);
    void append_marked(int64_t sample, int64_t& count);
    Events<float> listed(int64_t count) const;

    int64_t batch_ = 0, sources_ = 0, numbers_ = 0, rows_ = 0, words_ = 0;
    int64_t now_ = 0;                  // the row of the present step
    std::vector<Term> terms_;          // in the order of arrival
    std::vector<int32_t> begin_, of_;  // the numbers of the terms of source k: of_[begin_[k]] to of_[begin_[k + 1]]
    Aligned<float> values_;            // (B, rows, sources)
    Aligned<uint64_t> marks_;          // (B, rows, words): bit n: term number n arrives
    Aligned<int64_t> offsets_;         // (B + 1,)
    // The rows on their way whose inputs do not ascend, by sample * rows + row; and the number of their events.
    std::map<int64_t, std::vector<Sent>> kept_;
    int64_t kept_events_ = 0;
    std::vector<int32_t> at_once_;  // (sources,): the number of terms without steps; empty if there are none
    int64_t later_terms_ = 0;       // terms of at least one step
    Aligned<int32_t> indices_;      // (B * terms,), or more
    Aligned<float> arrived_;        // as indices_
};

}  // namespace srcell
