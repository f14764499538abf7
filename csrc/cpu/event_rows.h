// What makes event rows valid, and the pass over them that finds what does not. The bindings call this; it knows
// neither Python nor an ISA, and it never looks at what a network does with the events.
#pragma once

#include <cstdint>

namespace srcell {

// B samples, T steps, K inputs. Row b * T + t holds the events offsets[row] to offsets[row + 1]. Every array is dense,
// stays the caller's and must outlive the call. Sizes are >= 0, inputs <= 2^31; nothing is assumed of the elements.
struct UncheckedEvents {
    const int64_t* offsets;    // (B * T + 1,)
    const int32_t* indices;    // (events,)
    const float* values_f32;   // (events,); null: not of this type
    const double* values_f64;  // (events,); null: not of this type
    const int64_t* lengths;    // (B,); null: T for all
    int64_t steps, batch, inputs, events;
    int threads;  // at most this many; the result does not depend on it
};

// In the order in which they are looked for: of several kinds of fault the first is reported.
enum class Fault {
    kNone,
    kLength,       // a length that is not in [0, T]; position: the sample
    kFirstOffset,  // that is not 0
    kDescent,      // an offset below the one before; position: of the lower one
    kLastOffset,   // that is not the number of events
    kIndex,        // that is not in [0, K); position: the event
    kNan,          // position: the event
    kPastLength,   // an event past a sample's length; position: the sample
};

struct FoundFault {
    Fault fault;
    int64_t position;  // the first of its kind
};

FoundFault find_fault(const UncheckedEvents& p);

}  // namespace srcell
