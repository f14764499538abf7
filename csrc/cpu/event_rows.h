// Defines when event rows are valid, finds their first fault, and counts the events of a dense array. The bindings call
// this; it knows neither Python nor an ISA, nor what a network does with the events.
#pragma once

#include <cstdint>

#include "../params.h"

namespace srcell {

// B samples, T steps, K inputs. Row b * T + t holds the events [offsets[row], offsets[row + 1]). Every array is dense;
// the caller owns it and keeps it alive during the call. Sizes are >= 0, inputs <= 2^31; elements may have any value.
struct UncheckedEvents {
    const int64_t* offsets;  // (B * T + 1,)
    const int32_t* indices;  // (events,)
    // (events,), in one of two types; else all ones.
    Maybe<const float> values_f32;
    Maybe<const double> values_f64;
    Maybe<const int64_t> lengths;  // (B,); else T for all
    int64_t steps, batch, inputs, events;
    int threads;  // at most this many; the result does not depend on it
};

// In order of precedence: of several kinds of fault, the first in this list is reported.
enum class Fault {
    kNone,
    kLength,       // a length that is not in [0, T]; position: the sample
    kFirstOffset,  // the first offset is not 0
    kDescent,      // an offset below the one before; position: of the lower one
    kLastOffset,   // the last offset is not the number of events
    kIndex,        // an index that is not in [0, K); position: the event
    kNan,          // a value that is NaN; position: the event
    kPastLength,   // an event past a sample's length; position: the sample
};

struct FoundFault {
    Fault fault;
    int64_t position;  // of the first fault of this kind
};

FoundFault find_fault(const UncheckedEvents& p);

// The number of events, the nonzero elements, in rows 0, stride, 2 stride, ... of a dense array (rows, K). NaN is an
// event.
int64_t count_nonzero(const float* elements, int64_t rows, int64_t inputs, int64_t stride);
int64_t count_nonzero(const double* elements, int64_t rows, int64_t inputs, int64_t stride);

}  // namespace srcell
