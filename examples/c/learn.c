/* Learns from labelled samples, and writes what it learnt as a network of its own.

       learn net.srcell mine.srcell < samples

   A line "class 3" begins a sample of class 3. Each further line lists the inputs that
   are active in one step of it, by number. */
#include <srcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASSES = 15, MOST_SAMPLES = 1000, MOST_STEPS = 1 << 18, MOST_EVENTS = 1 << 22 };

static char line[1 << 16];
static int64_t labels[MOST_SAMPLES], first_step[MOST_SAMPLES + 1];
static int64_t first_event[MOST_SAMPLES + 1];
/* The offsets of each sample begin with 0, so that it has one more than steps. */
static int64_t offsets[MOST_STEPS];
static int32_t indices[MOST_EVENTS];

static int fail(const char* what) {
    fprintf(stderr, "%s: %s\n", what, srcell_error());
    return 1;
}

static int64_t read_samples(void) {
    int64_t samples = 0, steps = 0, events = 0;
    while (fgets(line, sizeof line, stdin)) {
        if (!strchr(line, '\n') && !feof(stdin)) return -1; /* too long */
        if (strncmp(line, "class ", 6) == 0) {
            if (samples == MOST_SAMPLES || steps == MOST_STEPS) return -1;
            labels[samples] = strtol(line + 6, NULL, 10);
            first_step[samples] = steps, first_event[samples++] = events;
            offsets[steps++] = 0;
            continue;
        }
        if (samples == 0 || steps == MOST_STEPS) return -1;
        for (char* at = strtok(line, " \r\n"); at; at = strtok(NULL, " \r\n")) {
            if (events == MOST_EVENTS) return -1;
            indices[events++] = (int32_t)strtol(at, NULL, 10);
        }
        offsets[steps++] = events - first_event[samples - 1];
    }
    first_step[samples] = steps;
    return samples;
}

int main(int count, char** arguments) {
    const srcell_learning settings = SRCELL_LEARNING_DEFAULTS;
    srcell_network *network, *better;
    srcell_learner* learner;
    if (count != 3)
        return fprintf(stderr, "usage: learn net.srcell mine.srcell < samples\n"), 2;
    const int64_t samples = read_samples();
    if (samples < 1) return fprintf(stderr, "expected lines \"class N\" and steps\n"), 2;
    if (srcell_network_load(arguments[1], &network) != SRCELL_OK)
        return fail(arguments[1]);
    if (srcell_learner_new(network, &settings, &learner) != SRCELL_OK)
        return fail("learner");
    for (int pass = 1; pass <= PASSES; ++pass) {
        double sum = 0, loss;
        for (int64_t k = 0; k < samples; ++k) {
            const int64_t steps = first_step[k + 1] - first_step[k] - 1;
            if (srcell_learner_step(learner, steps, 1, offsets + first_step[k],
                                    indices + first_event[k], NULL, NULL, labels + k, 0,
                                    1, &loss) != SRCELL_OK)
                return fail("step");
            sum += loss;
        }
        printf("pass %d: loss %.4f\n", pass, sum / (double)samples);
    }
    if (srcell_learner_network(learner, &better) != SRCELL_OK) return fail("network");
    if (srcell_network_write(better, arguments[2]) != SRCELL_OK)
        return fail(arguments[2]);
    srcell_network_free(better);
    srcell_learner_free(learner);
    srcell_network_free(network);
    return 0;
}
