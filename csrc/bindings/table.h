// The tensors that operators take: their names, types and shapes, in the order of their schemas. Nothing else names
// them: calls.h reads real tensors by this table, and ops/_table.py, which checks fake ones by it, says what is wrong.
#pragma once

#include <cstddef>

namespace srcell {

// kFloat: the floating-point type of the call. kAny: whatever type the call's first tensor has.
enum class Number { kFloat32, kFloat64, kInt32, kInt64, kInt16, kUInt8, kBool, kOther, kFloat, kAny };

// What an argument may be besides.
enum Presence {
    kOptional = 1,  // it may be None
    kLeads = 2,     // it is checked before those that do not lead; the first float gives the type of the call
    kList = 4,      // a list of such tensors
};

// A shape is a list of sizes. Each is a letter, which has one value in a call, a number, or a sum or product of these;
// "..." are any sizes. Several shapes are separated by "|". All tensors of a call lie on one device.
//
// T steps, B samples, N neurons, K inputs, E events, C channels (of classes: classes). Of delays: D terms, M taps, S
// steps that are left out, A events that arrive, R rows of these, P steps of the past. Of what is kept for the
// gradient: X is 1 with a trace, otherwise 0, G segments, Q states of a checkpoint, R rows and W words of a mask. Of a
// kernel: O maps of neurons, I channels of a group, Y rows, X columns.
struct Argument {
    const char* name;
    Number number;
    const char* shapes;
    int presence = 0;
};

// The bias of a layer, any parameter of its cell, and what follows the state in its record (calls.h).
constexpr Argument kParameter = {"bias", Number::kFloat, "N||1|C"};
constexpr Argument kLayer[] = {
    {"lengths", Number::kInt64, "B", kOptional},
    {"weight_hh", Number::kFloat, "N,N", kOptional},
    {"first_hh", Number::kInt32, "N", kOptional},
    {"factors_hh", Number::kFloat, "N,D", kOptional},
};

// The outputs of a layer, and what has their shapes: the state before the first step, and gradients.
constexpr Argument kOutputs[] = {
    {"spikes", Number::kFloat, "T,B,N", kOptional}, {"i", Number::kFloat, "B,N", kOptional},
    {"h", Number::kFloat, "B,N", kOptional},        {"hs", Number::kFloat, "B,N", kOptional},
    {"q", Number::kFloat, "B,N", kOptional},        {"past", Number::kFloat, "B,P,N", kOptional},
};

// What a layer keeps for its gradient; the last two after a dense input.
constexpr Argument kKept[] = {
    {"trace", Number::kFloat, "T*B*N*X"},
    {"checkpoints", Number::kFloat, "G*Q*B*N"},
    {"mask", Number::kInt64, "R,W"},
    {"ones", Number::kBool, ""},
};

// Synapses.
constexpr Argument kSrc[] = {{"current", Number::kFloat, "T,B,N", kLeads}};
constexpr Argument kSrcEvents[] = {
    {"offsets", Number::kInt64, "T*B+1"},
    {"indices", Number::kInt32, "E"},
    {"values", Number::kFloat, "E", kOptional},
    {"weight", Number::kFloat, "N,K", kLeads},
};
constexpr Argument kSrcDense[] = {
    {"input", Number::kFloat, "T,B,K", kLeads},
    {"weight", Number::kFloat, "N,K"},
};
// The weight in the place of the last of either if there is a convolution.
constexpr Argument kKernel = {"weight", Number::kFloat, "O,I,Y,X", kLeads};

// Integer neurons; a gradient's operator has the same without latent and state.
constexpr Argument kIntegerSrc[] = {
    {"offsets", Number::kInt64, "T*B+1", kOptional}, {"indices", Number::kInt32, "E", kOptional},
    {"input", Number::kFloat32, "T,B,K", kOptional}, {"weight", Number::kInt16, "N,K", kLeads},
    {"latent", Number::kFloat32, "N,K", kOptional},  {"scale", Number::kFloat32, "", kOptional},
    {"state", Number::kInt16, "B,N", kList},         {"lengths", Number::kInt64, "B", kOptional},
};
constexpr Argument kIntegerSrcBackward[] = {{"grad_spikes", Number::kFloat32, "T,B,N"},
                                            {"slopes", Number::kFloat32, "T,B,N"}};

// Delays; before the same arguments a gradient's operator has what is named for it.
constexpr Argument kDelayed[] = {
    {"first", Number::kInt32, "K*M"},
    {"factors", Number::kFloat, "K*M,D", kOptional | kLeads},
    {"lengths", Number::kInt64, "B", kOptional},
};
constexpr Argument kDelayEvents[] = {
    {"offsets", Number::kInt64, "T*B+1"},
    {"indices", Number::kInt32, "E"},
    {"values", Number::kFloat, "E", kOptional | kLeads},
};
constexpr Argument kDelayEventsBackward[] = {{"grad_values", Number::kFloat, "A"},
                                             {"delayed_offsets", Number::kInt64, "R+1"}};
constexpr Argument kDelayDense[] = {{"input", Number::kFloat, "T,B,K", kLeads}};
constexpr Argument kDelayDenseBackward[] = {{"grad_delayed", Number::kFloat, "T-S,B,K*M"}};

constexpr Argument kRateEncode[] = {{"images", Number::kFloat32, "B,K"}, {"index", Number::kInt64, "B"}};
constexpr Argument kLatencyEncode[] = {{"images", Number::kFloat32, "B,K"}};
constexpr Argument kCameraFrames[] = {{"frames", Number::kFloat32, "T,B,H,W"}, {"index", Number::kInt64, "B"}};
constexpr Argument kCameraPictures[] = {
    {"pictures", Number::kFloat32, "B,H,W"}, {"movement", Number::kFloat64, "P,3"}, {"index", Number::kInt64, "B"}};

constexpr Argument kFindEventFault[] = {
    {"offsets", Number::kInt64, "T*B+1"},
    {"indices", Number::kInt32, "E"},
    {"values", Number::kFloat, "E", kOptional},
    {"lengths", Number::kInt64, "B", kOptional},
};
constexpr Argument kCountSpikes[] = {{"spikes", Number::kFloat, "T,B,N"}};
constexpr Argument kRest[] = {{"bias", Number::kFloat64, "..."}, {"gain", Number::kFloat64, "..."}};
constexpr Argument kScale[] = {{"spikes", Number::kAny, "T,..."}, {"factors", Number::kAny, "..."}};
constexpr Argument kSumOverTime[] = {{"spikes", Number::kAny, "T,B,N"}, {"factors", Number::kAny, "W|W,B"}};
constexpr Argument kSpreadOverTime[] = {{"sums", Number::kAny, "B,N"}, {"factors", Number::kAny, "W|W,B"}};
constexpr Argument kProject[] = {{"spikes", Number::kAny, "T,B,N"}, {"weight", Number::kAny, "C,N"}};
constexpr Argument kProjectBack[] = {{"sums", Number::kAny, "T,B,C"}, {"weight", Number::kAny, "C,N"}};

// All rows, by the names by which Python finds them.
struct Rows {
    const char* name;
    const Argument* rows;
    std::size_t count;
};
template <std::size_t count>
constexpr Rows rows_named(const char* name, const Argument (&rows)[count]) {
    return {name, rows, count};
}
constexpr Rows kTable[] = {
    {"parameter", &kParameter, 1},
    {"kernel", &kKernel, 1},
    rows_named("layer", kLayer),
    rows_named("outputs", kOutputs),
    rows_named("kept", kKept),
    rows_named("src", kSrc),
    rows_named("src_events", kSrcEvents),
    rows_named("src_dense", kSrcDense),
    rows_named("integer_src", kIntegerSrc),
    rows_named("integer_src_backward", kIntegerSrcBackward),
    rows_named("delayed", kDelayed),
    rows_named("delay_events", kDelayEvents),
    rows_named("delay_events_backward", kDelayEventsBackward),
    rows_named("delay_dense", kDelayDense),
    rows_named("delay_dense_backward", kDelayDenseBackward),
    rows_named("rate_encode", kRateEncode),
    rows_named("latency_encode", kLatencyEncode),
    rows_named("camera_frames", kCameraFrames),
    rows_named("camera_pictures", kCameraPictures),
    rows_named("find_event_fault", kFindEventFault),
    rows_named("count_spikes", kCountSpikes),
    rows_named("rest", kRest),
    rows_named("scale", kScale),
    rows_named("sum_over_time", kSumOverTime),
    rows_named("spread_over_time", kSpreadOverTime),
    rows_named("project", kProject),
    rows_named("project_back", kProjectBack),
};

}  // namespace srcell
