/* What srcell.h promises of layers that resonate or have delays, of names, and of sequences, in C99: interface
   RESONANT.srcell PLAIN.srcell DELAYED.srcell, all of 64 inputs. RESONANT names its classes. DELAYED has delays of its
   inputs to 30 steps at most.
   tools/check_library.sh compiles and runs it. */
#define _POSIX_C_SOURCE 200809L /* symlink() */
#include <math.h>
#include <srcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <unistd.h>
#endif

#define CHECK(holds) \
    if (!(holds)) return fprintf(stderr, "line %d: expected %s (%s)\n", __LINE__, #holds, srcell_error()), 1

int main(int count, char** arguments) {
    srcell_network *resonant, *plain, *delayed;
    srcell_stream *stream, *other;
    const int32_t active[] = {1, 2, 3, 5, 8, 13, 21, 34, 55};
    CHECK(count == 4 && !srcell_network_load(arguments[1], &resonant) && !srcell_network_load(arguments[2], &plain));
    CHECK(!srcell_network_load(arguments[3], &delayed));
    CHECK(srcell_network_resonates(resonant, 0) == 1 && srcell_network_resonates(resonant, 1) == 0);
    CHECK(srcell_network_resonates(resonant, 2) == -1 && srcell_network_resonates(plain, 0) == 0);
    CHECK(!strcmp(srcell_network_class_name(resonant, 0), "a") && !srcell_network_class_name(plain, 0));
    CHECK(!strcmp(srcell_network_class_name(resonant, 8), "a \"name\""));
    CHECK(!strcmp(srcell_network_class_name(resonant, 9), "\xC3\xA9"));
    CHECK(!srcell_network_class_name(resonant, 10) && !srcell_network_class_name(resonant, -1));
    CHECK(!srcell_network_class_name(NULL, 0));
    CHECK(!srcell_stream_new(resonant, 1, &stream) && !srcell_stream_new(plain, 1, &other));

    const size_t neurons = (size_t)srcell_network_neurons(resonant, 0);
    float* q = malloc(sizeof *q * neurons);
    float largest = 0;
    for (int t = 0; t < 5; ++t) CHECK(!srcell_stream_step(stream, active, NULL, 9));
    CHECK(!srcell_stream_quadrature(stream, 0, q));
    for (size_t n = 0; n < neurons; ++n) largest = fabsf(q[n]) > largest ? fabsf(q[n]) : largest;
    CHECK(largest > 0.1f && largest < 100);
    CHECK(srcell_stream_quadrature(stream, 1, q) == SRCELL_BAD_ARGUMENT && strstr(srcell_error(), "layer: expected"));
    CHECK(srcell_stream_quadrature(other, 0, q) == SRCELL_BAD_ARGUMENT);
    CHECK(srcell_stream_quadrature(stream, 2, q) == SRCELL_BAD_ARGUMENT);
    free(q);

    float values[64];
    int64_t steps = 0;
    for (int k = 0; k < 64; ++k) values[k] = (float)(k % 5) / 4;
    CHECK(srcell_stream_feed(other, values, NULL) == SRCELL_OK); /* without an encoder an element is a step */
    CHECK(!srcell_stream_feed(other, values, &steps) && steps == 1);
    CHECK(srcell_stream_feed(other, NULL, NULL) == SRCELL_BAD_ARGUMENT && strstr(srcell_error(), "values: expected"));
    values[63] = NAN;
    CHECK(srcell_stream_feed(other, values, &steps) == SRCELL_BAD_ARGUMENT && strstr(srcell_error(), "no NaN"));

    CHECK(srcell_network_delay(delayed, 0) > 1 && srcell_network_delay(delayed, 0) <= 31);
    CHECK(srcell_network_delay(delayed, 1) == 0 && srcell_network_delay(delayed, 2) == -1);
    CHECK(srcell_network_delay(plain, 0) == 0 && srcell_network_inputs(delayed) == 64);
    srcell_stream_free(stream);
    CHECK(!srcell_stream_new(delayed, 1, &stream));
    const size_t size = srcell_stream_state_size(stream);
    const int64_t outputs = srcell_network_outputs(delayed);
    char* state = malloc(size);
    const size_t row = sizeof(float) * (size_t)outputs;
    char* spikes = malloc(60 * row);
    float sum = 0;
    for (int t = 0; t < 30; ++t) CHECK(!srcell_stream_step(stream, active, NULL, 9));
    CHECK(!srcell_stream_save(stream, state, size));
    for (int t = 0; t < 60; ++t) { /* what is on its way arrives, and the second layer spikes */
        CHECK(!srcell_stream_step(stream, NULL, NULL, 0));
        memcpy(spikes + t * row, srcell_stream_spikes(stream), row);
        for (int64_t n = 0; n < outputs; ++n) sum += srcell_stream_spikes(stream)[n];
    }
    CHECK(sum > 0 && !srcell_stream_restore(stream, state, size));
    for (int t = 0; t < 60; ++t) {
        CHECK(!srcell_stream_step(stream, NULL, NULL, 0));
        CHECK(!memcmp(spikes + t * row, srcell_stream_spikes(stream), row));
    }
    CHECK(srcell_stream_restore(other, state, size) == SRCELL_BAD_ARGUMENT);
    free(state), free(spikes);

    /* Learning: the network stays as it is; what is refused or cannot be written is said, and nothing is lost. */
    const srcell_learning settings = SRCELL_LEARNING_DEFAULTS;
    srcell_learning wrong = settings;
    srcell_learner* learner;
    srcell_network *better, *again;
    const int64_t offsets[] = {0, 9, 9, 9}, label = 1, none = -1;
    double loss = 0, next = 0;
    wrong.rate = -1;
    CHECK(srcell_learner_new(plain, &wrong, &learner) == SRCELL_BAD_ARGUMENT && !learner);
    CHECK(strstr(srcell_error(), "learning_rate: expected"));
    CHECK(srcell_learner_new(plain, NULL, &learner) == SRCELL_BAD_ARGUMENT);
    CHECK(!srcell_learner_new(plain, &settings, &learner));
    CHECK(!srcell_learner_step(learner, 3, 1, offsets, active, NULL, NULL, &label, 0, 1, &loss) && loss > 0);
    const size_t saved_size = srcell_learner_state_size(learner);
    char *saved = malloc(saved_size), *after = malloc(saved_size);
    CHECK(!srcell_learner_save(learner, saved, saved_size));
    CHECK(srcell_learner_save(learner, saved, saved_size - 1) == SRCELL_BAD_ARGUMENT);
    CHECK(srcell_learner_step(learner, 3, 1, offsets, active, NULL, NULL, &none, 0, 1, NULL) == SRCELL_BAD_ARGUMENT);
    CHECK(srcell_learner_step(learner, 3, 1, offsets, active, NULL, NULL, NULL, 0, 1, NULL) == SRCELL_BAD_ARGUMENT &&
          strstr(srcell_error(), "labels: expected"));
    CHECK(!srcell_learner_save(learner, after, saved_size) && !memcmp(saved, after, saved_size));
    CHECK(!srcell_learner_step(learner, 3, 1, offsets, active, NULL, NULL, &label, 0, 1, &loss));
    CHECK(!srcell_learner_network(learner, &better) && !srcell_learner_restore(learner, saved, saved_size));
    CHECK(!srcell_learner_step(learner, 3, 1, offsets, active, NULL, NULL, &label, 0, 1, &next) && next == loss);
    const size_t file_size = srcell_network_size(better);
    char *file = malloc(file_size), *other_file = malloc(file_size);
    CHECK(file_size == srcell_network_size(plain) && !srcell_network_bytes(better, file, file_size));
    CHECK(!srcell_network_bytes(plain, other_file, file_size) && memcmp(file, other_file, file_size));
    CHECK(srcell_network_bytes(better, file, file_size + 1) == SRCELL_BAD_ARGUMENT);
    CHECK(!srcell_network_write(better, "learnt") && !srcell_network_write(better, "learnt"));
    CHECK(!srcell_network_load("learnt", &again) && srcell_network_size(again) == file_size);
    CHECK(!srcell_network_bytes(again, other_file, file_size) && !memcmp(file, other_file, file_size));
    CHECK(!remove("learnt"));
    CHECK(srcell_network_write(better, ".") == SRCELL_NOT_WRITTEN && strstr(srcell_error(), "a folder"));
    CHECK(srcell_network_write(better, "no/folder/learnt") == SRCELL_NOT_WRITTEN);
#ifdef __linux__
    CHECK(srcell_network_write(better, "/dev/full") == SRCELL_NOT_WRITTEN &&
          !srcell_network_write(better, "/dev/null"));
    CHECK(!symlink("learnt", "link") && !srcell_network_write(better, "link"));
    CHECK(!remove("learnt") && !remove("link") && !symlink("loop", "loop"));
    CHECK(srcell_network_write(better, "loop") == SRCELL_NOT_WRITTEN && !remove("loop"));
#endif
    free(saved), free(after), free(file), free(other_file);
    srcell_learner_free(learner), srcell_network_free(better), srcell_network_free(again);
    srcell_stream_free(stream), srcell_stream_free(other);
    srcell_network_free(resonant), srcell_network_free(plain), srcell_network_free(delayed);
    return 0;
}
