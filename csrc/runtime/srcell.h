/* srcell's runtime: a trained network in C, without Python and without torch.

   srcell_network_load() reads a file that `srcell export` wrote. A network does not change and may serve any number of
   threads. A stream takes one step at a time and belongs to one thread at a time; streams of one network may run side
   by side. srcell_stream_step() and srcell_stream_step_dense() allocate nothing.

   Every function that can fail returns SRCELL_OK or an error code; srcell_error() then has one line of text, that of
   the last failure in the calling thread. T steps, B samples, K inputs, N neurons of the last layer, C classes. Spikes
   are 0 where a neuron is silent and in (0, 1) where it is active; their bits do not depend on the processor.

   Another thread may write into the arrays of events during a call: the results are then unspecified, but nothing
   outside the arrays is read or written. The last offset says how long they are, and must not change. */
#ifndef SRCELL_H
#define SRCELL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(SRCELL_BUILDS_LIBRARY) && defined(_WIN32)
#define SRCELL_API __declspec(dllexport)
#elif defined(SRCELL_BUILDS_LIBRARY)
#define SRCELL_API __attribute__((visibility("default")))
#else
#define SRCELL_API
#endif

typedef struct srcell_network srcell_network;
typedef struct srcell_stream srcell_stream;

typedef enum srcell_status {
    SRCELL_OK = 0,
    SRCELL_BAD_FILE = 1,     /* not a network, or not one that this version reads */
    SRCELL_BAD_ARGUMENT = 2, /* a null pointer, a size, an event that does not exist */
    SRCELL_NO_MEMORY = 3
} srcell_status;

/* One line about the last failure in this thread, or "" if there was none. Valid until the next failure. */
SRCELL_API const char* srcell_error(void);
/* The version of srcell, such as "0.2.0". */
SRCELL_API const char* srcell_version(void);

/* Reads a file, or its bytes, which may be freed afterwards. On success *network must be given to
   srcell_network_free(), on failure it is null. */
SRCELL_API srcell_status srcell_network_load(const char* path, srcell_network** network);
SRCELL_API srcell_status srcell_network_read(const void* bytes, size_t size, srcell_network** network);
SRCELL_API void srcell_network_free(srcell_network* network);

SRCELL_API int64_t srcell_network_inputs(const srcell_network* network);  /* K */
SRCELL_API int64_t srcell_network_outputs(const srcell_network* network); /* N */
SRCELL_API int64_t srcell_network_classes(const srcell_network* network); /* C; 0 without a readout */
SRCELL_API int64_t srcell_network_layers(const srcell_network* network);
SRCELL_API int64_t srcell_network_neurons(const srcell_network* network,
                                          int64_t layer); /* -1: there is no such layer */
/* A text of the file, such as "encoder", or null. Valid as long as the network. */
SRCELL_API const char* srcell_network_text(const srcell_network* network, const char* name);

/* Classifies B samples of T steps. Row b * T + t has the events [offsets[row], offsets[row + 1]): offsets (B * T + 1)
   ascend from 0, indices are in [0, K), values may be null: all 1. Lengths (B) are the steps of each sample, or null:
   T. Writes logits (B, C) and the last layer's spikes (T, B, N); either may be null. On up to `threads` threads, whose
   number changes no bit. */
SRCELL_API srcell_status srcell_network_run(const srcell_network* network, int64_t steps, int64_t batch,
                                            const int64_t* offsets, const int32_t* indices, const float* values,
                                            const int64_t* lengths, float* logits, float* spikes, int threads);

/* A stream of B samples side by side, in its initial state. The network must outlive it. */
SRCELL_API srcell_status srcell_stream_new(const srcell_network* network, int64_t batch, srcell_stream** stream);
SRCELL_API void srcell_stream_free(srcell_stream* stream);

/* One step with the active inputs of one sample: `count` indices in [0, K), and their values or null. For B = 1. */
SRCELL_API srcell_status srcell_stream_step(srcell_stream* stream, const int32_t* indices, const float* values,
                                            int64_t count);
/* One step of B samples: sample b has the events [offsets[b], offsets[b + 1]) of `offsets` (B + 1). */
SRCELL_API srcell_status srcell_stream_step_rows(srcell_stream* stream, const int64_t* offsets, const int32_t* indices,
                                                 const float* values);
/* One step with a dense input (B, K); its elements that are not 0 are events. */
SRCELL_API srcell_status srcell_stream_step_dense(srcell_stream* stream, const float* input);

/* The last layer's spikes of the last step, (B, N). Valid until the next call on the stream. */
SRCELL_API const float* srcell_stream_spikes(const srcell_stream* stream);
/* Writes the state of a layer's neurons, (3, B, N of that layer): i, h and hs; of integer neurons as whole numbers. */
SRCELL_API srcell_status srcell_stream_values(const srcell_stream* stream, int64_t layer, float* values);
/* Writes what the readout makes of all steps so far, (B, C). */
SRCELL_API srcell_status srcell_stream_logits(const srcell_stream* stream, float* logits);

/* Back to the initial state. */
SRCELL_API srcell_status srcell_stream_reset(srcell_stream* stream);
/* The state as bytes: `size` must be srcell_stream_state_size(). Only a stream of the same network and B restores it.
 */
SRCELL_API size_t srcell_stream_state_size(const srcell_stream* stream);
SRCELL_API srcell_status srcell_stream_save(const srcell_stream* stream, void* state, size_t size);
SRCELL_API srcell_status srcell_stream_restore(srcell_stream* stream, const void* state, size_t size);

/* The rate encoder, which makes events of images; a network's text "encoder" has the settings it was trained with. */
typedef struct srcell_rate {
    int64_t steps, prefix; /* T = prefix + steps: no pixel fires in the prefix */
    double gain;           /* at each later step a pixel fires with probability min(gain * pixel, 1) */
    int32_t thinned;       /* not 0: no pixel fires at two steps in a row */
    uint64_t seed;
} srcell_rate;

/* Writes the events of images (B, K) with pixels in [0, 1] as srcell_network_run() takes them: offsets (B * T + 1) and
   as many indices as offsets[B * T] says. If these are more than `room`, none are written and the call fails. A
   sample's spikes depend on its pixels, the settings and its number, index[b], or b if index is null. */
SRCELL_API srcell_status srcell_encode_rate(const srcell_rate* settings, int64_t batch, int64_t inputs,
                                            const float* images, const int64_t* index, int64_t* offsets,
                                            int32_t* indices, int64_t room);

#ifdef __cplusplus
}
#endif

#endif
