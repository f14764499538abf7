/* srcell's runtime: runs a trained network in C, without Python and without torch.

   srcell_network_load() reads a file that `srcell export` wrote. A network never changes, so any number of threads may
   use it at the same time. A learner changes the weights of a network of its own, and takes one call at a time; another
   one fails. A stream advances one step at a time and must be used by one thread at a time; several
   streams of one network may run in parallel. srcell_stream_step(), srcell_stream_step_dense() and srcell_stream_feed()
   allocate nothing, unless a step of a network with delays or constant currents lists inputs that do not ascend.

   Every function that can fail returns SRCELL_OK or an error code; after an error, srcell_error() returns one line of
   text about it.

   If the network was exported with a srcell.Standardise, every function below standardises its inputs: give it the
   values as they were measured.

   Sizes: T steps, B samples, K inputs, N neurons of the last layer, C classes. A spike is 0 where a neuron is silent
   and in (0, 1] where it is active; its bits do not depend on the processor.

   Another thread may write into the arrays of events during a call: the results are then unspecified, but nothing
   outside the arrays is read or written. Only the last offset must not change, because it gives the length of `indices`
   and `values`. */
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
typedef struct srcell_learner srcell_learner;

typedef enum srcell_status {
    SRCELL_OK = 0,
    SRCELL_BAD_FILE = 1,     /* not a network, or one that this version cannot read */
    SRCELL_BAD_ARGUMENT = 2, /* a null pointer, an invalid size, an event that does not exist */
    SRCELL_NO_MEMORY = 3,
    SRCELL_NOT_WRITTEN = 4 /* a file that could not be written; an older one is then as before */
} srcell_status;

/* One line of text about the last failure in the calling thread, or "" if there was none. Valid until this thread's
   next failure. */
SRCELL_API const char* srcell_error(void);
/* The version of srcell, such as "0.3.0". */
SRCELL_API const char* srcell_version(void);

/* Loads a network from a file, or from the file's bytes, which may be freed afterwards. On success, free *network with
   srcell_network_free(); on failure it is null. */
SRCELL_API srcell_status srcell_network_load(const char* path, srcell_network** network);
SRCELL_API srcell_status srcell_network_read(const void* bytes, size_t size, srcell_network** network);
SRCELL_API void srcell_network_free(srcell_network* network);

/* The network's file: its size, its bytes, of which `size` must be that size, or a file at `path`, which is replaced
   whole or not at all. */
SRCELL_API size_t srcell_network_size(const srcell_network* network);
SRCELL_API srcell_status srcell_network_bytes(const srcell_network* network, void* bytes, size_t size);
SRCELL_API srcell_status srcell_network_write(const srcell_network* network, const char* path);

SRCELL_API int64_t srcell_network_inputs(const srcell_network* network);  /* K */
SRCELL_API int64_t srcell_network_outputs(const srcell_network* network); /* N */
SRCELL_API int64_t srcell_network_classes(const srcell_network* network); /* C; 0 without a readout */
SRCELL_API int64_t srcell_network_layers(const srcell_network* network);
SRCELL_API int64_t srcell_network_neurons(const srcell_network* network,
                                          int64_t layer); /* -1 if there is no such layer */
/* Whether the layer's neurons resonate: 1 or 0; -1 if there is no such layer. */
SRCELL_API int srcell_network_resonates(const srcell_network* network, int64_t layer);
/* The most steps for which an input or a spike of the layer is delayed, 0 without delays; -1 if there is no such layer.
 */
SRCELL_API int64_t srcell_network_delay(const srcell_network* network, int64_t layer);
/* The text that the file holds under that name, such as "encoder", or null if the file has none. Valid as long as the
   network. */
SRCELL_API const char* srcell_network_text(const srcell_network* network, const char* name);
/* The name of a class, in UTF-8, or null if the file has no names, or there is no such class. Valid as long as the
   network. */
SRCELL_API const char* srcell_network_class_name(const srcell_network* network, int64_t label);

/* Classifies B samples of T steps. At step t, sample b has the events [offsets[row], offsets[row + 1]), where row is
   b * T + t. `offsets` (B * T + 1) ascend from 0, `indices` are the active inputs, in [0, K), and `values` may be null
   if all are 1. `lengths` (B) gives each sample's number of steps, or is null if all have T. Writes the logits (B, C)
   after each sample's last step, and the last layer's spikes (T, B, N); either pointer may be null. Runs on up to
   `threads` threads; their number does not change a bit of the results. */
SRCELL_API srcell_status srcell_network_run(const srcell_network* network, int64_t steps, int64_t batch,
                                            const int64_t* offsets, const int32_t* indices, const float* values,
                                            const int64_t* lengths, float* logits, float* spikes, int threads);

/* Creates a stream that advances B samples side by side, in its initial state. The network must outlive it. */
SRCELL_API srcell_status srcell_stream_new(const srcell_network* network, int64_t batch, srcell_stream** stream);
SRCELL_API void srcell_stream_free(srcell_stream* stream);

/* Advances a stream with B = 1 by one step. `indices` are the `count` active inputs, in [0, K); `values` may be null if
   all are 1. */
SRCELL_API srcell_status srcell_stream_step(srcell_stream* stream, const int32_t* indices, const float* values,
                                            int64_t count);
/* Advances all B samples by one step. Sample b has the events [offsets[b], offsets[b + 1]); `offsets` has B + 1
   elements. */
SRCELL_API srcell_status srcell_stream_step_rows(srcell_stream* stream, const int64_t* offsets, const int32_t* indices,
                                                 const float* values);
/* Advances all B samples by one step with a dense input (B, K), standardised as the file says; what is then not 0 are
   the events. */
SRCELL_API srcell_status srcell_stream_step_dense(srcell_stream* stream, const float* input);
/* Takes the next element (B, K) of B real-valued sequences, and writes the number of steps to *steps, unless it is
   null. A network that was exported with a HeldEncoding takes `hold` steps with these values; before the first element
   since the stream was made or reset, it takes `prefix` steps without events. A network without an encoder takes one
   step, as srcell_stream_step_dense() does. Another encoder is an error. */
SRCELL_API srcell_status srcell_stream_feed(srcell_stream* stream, const float* values, int64_t* steps);

/* Hears `count` samples of a sound with a stream of B = 1, whose network was exported with a SoundEncoding: advances by
   the steps of each frame that the samples complete, and writes their number to *steps, unless it is null. Samples are
   finite numbers, by convention in [-1, 1], as many per second as the text "encoder" says. Chunks of any lengths give
   the same bits. */
SRCELL_API srcell_status srcell_stream_hear(srcell_stream* stream, const float* samples, int64_t count, int64_t* steps);

/* The last layer's spikes in the last step, (B, N). Valid until the next call on the stream. */
SRCELL_API const float* srcell_stream_spikes(const srcell_stream* stream);
/* Writes the state of a layer's neurons: i, h and hs, (3, B, N of that layer). Integer neurons give whole numbers. */
SRCELL_API srcell_status srcell_stream_values(const srcell_stream* stream, int64_t layer, float* values);
/* Writes q, the second part of the integrators of a layer that resonates, (B, N of that layer). */
SRCELL_API srcell_status srcell_stream_quadrature(const srcell_stream* stream, int64_t layer, float* q);
/* Writes the current logits, which the readout computes from all steps so far, (B, C). */
SRCELL_API srcell_status srcell_stream_logits(const srcell_stream* stream, float* logits);

/* Returns the stream to its initial state. */
SRCELL_API srcell_status srcell_stream_reset(srcell_stream* stream);
/* Saves the state as bytes, and restores it; `size` must be srcell_stream_state_size(). Only a stream of the same file
   and the same B can restore it, with a srcell that has the same layout of states; the bytes carry its version. If
   steps listed delayed inputs that did not ascend, what is on its way is added in another order after it was restored.
 */
SRCELL_API size_t srcell_stream_state_size(const srcell_stream* stream);
SRCELL_API srcell_status srcell_stream_save(const srcell_stream* stream, void* state, size_t size);
SRCELL_API srcell_status srcell_stream_restore(srcell_stream* stream, const void* state, size_t size);

/* How a learner learns: by Adam with this learning rate (at most 1000), from gradients whose norm is clipped (0: is
 * not). */
typedef struct srcell_learning {
    double rate, clip_norm;
    int32_t readout_alone; /* nonzero: the layers' weights stay */
    /* Nonzero: a linear readout for so many other classes, with weights of 0, takes the place of the network's. Their
       names, or null, become the text "classes", a list in JSON. */
    int64_t classes;
    const char* const* class_names;
} srcell_learning;
#define SRCELL_LEARNING_DEFAULTS {1e-3, 1.0, 0, 0, NULL}

/* Creates a learner, which starts from the network's weights and keeps nothing of the network. Free it with
   srcell_learner_free(). Fails for what does not learn: integer neurons and maps, unless the readout learns alone. */
SRCELL_API srcell_status srcell_learner_new(const srcell_network* network, const srcell_learning* settings,
                                            srcell_learner** learner);
SRCELL_API void srcell_learner_free(srcell_learner* learner);

/* Learns from B samples, which are given as to srcell_network_run(): one step against the mean cross-entropy of
   `labels` (B), in [0, C), with the logits after each sample's last step. Writes the loss before the step to *loss,
   unless it is null. With `every_step` the labels are (B, T), those of every step; what lies past a sample's length is
   not read. After an error, which a loss that is not finite is too, what was learnt is as before. */
SRCELL_API srcell_status srcell_learner_step(srcell_learner* learner, int64_t steps, int64_t batch,
                                             const int64_t* offsets, const int32_t* indices, const float* values,
                                             const int64_t* lengths, const int64_t* labels, int every_step, int threads,
                                             double* loss);
/* The same against the mean squared error of the logits from `targets` (B, C), or (B, T, C). */
SRCELL_API srcell_status srcell_learner_step_values(srcell_learner* learner, int64_t steps, int64_t batch,
                                                    const int64_t* offsets, const int32_t* indices, const float* values,
                                                    const int64_t* lengths, const float* targets, int every_step,
                                                    int threads, double* loss);

/* Makes a network of what was learnt; free it with srcell_network_free(). */
SRCELL_API srcell_status srcell_learner_network(const srcell_learner* learner, srcell_network** network);
/* Saves what was learnt and Adam's moments as bytes, and restores them; `size` must be srcell_learner_state_size().
   Only a learner of the same file, classes and layers can restore them; its rate and clip_norm are its own. */
SRCELL_API size_t srcell_learner_state_size(const srcell_learner* learner);
SRCELL_API srcell_status srcell_learner_save(const srcell_learner* learner, void* state, size_t size);
SRCELL_API srcell_status srcell_learner_restore(srcell_learner* learner, const void* state, size_t size);

/* The rate encoder, which turns images into events. A network's text "encoder" holds the settings that it was trained
   with. */
typedef struct srcell_rate {
    int64_t steps, prefix; /* T = prefix + steps: no pixel fires in the prefix */
    double gain;           /* at each later step a pixel fires with probability min(gain * pixel, 1) */
    int32_t thinned;       /* nonzero: no pixel fires at two steps in a row */
    uint64_t seed;
} srcell_rate;

/* Encodes images (B, K) with pixels in [0, 1] as events for srcell_network_run(): writes `offsets` (B * T + 1) and
   `indices`, of which there are offsets[B * T]. If there are more than `room`, no index is written and the call fails.
   A sample's events depend on its pixels, the settings and the sample's number: index[b], or b if `index` is null. */
SRCELL_API srcell_status srcell_encode_rate(const srcell_rate* settings, int64_t batch, int64_t inputs,
                                            const float* images, const int64_t* index, int64_t* offsets,
                                            int32_t* indices, int64_t room);

/* The event camera, which turns pictures under a movement into events. A network's text "encoder" holds the settings
   that it was trained with; the documentation says what they mean. Outside their ranges the call fails. */
typedef struct srcell_camera {
    int64_t steps, height, width; /* T; the sensor's pixels, K = 2 * height * width */
    double rise, fall;            /* changes of brightness that make an event */
    double spread;                /* deviation of the pixels' thresholds, relative, in [0, 0.3] */
    int64_t refractory;           /* steps after an event in which a pixel sends none */
    double noise;                 /* events per pixel and step that no change causes */
    double blur, size_jitter, place_jitter;
    const double* movement; /* (points, 3): step, and the place across and down in pixels; ascending by step */
    int64_t points;
    uint64_t seed;
} srcell_camera;

/* As srcell_encode_rate(), of pictures (B, height, width) with pixels in [0, 1]. */
SRCELL_API srcell_status srcell_encode_camera(const srcell_camera* settings, int64_t batch, int64_t height,
                                              int64_t width, const float* pictures, const int64_t* index,
                                              int64_t* offsets, int32_t* indices, int64_t room);

#ifdef __cplusplus
}
#endif

#endif
