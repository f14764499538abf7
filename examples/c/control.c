/* A control loop: it feeds a sensor's active channels into a network step by step, and
   every 20 steps it prints the class with the largest logit.

       control net.srcell < steps

   Each line of the input lists the channels that are active in one step, by number. */
#include <srcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4096, DECIDE_EVERY = 20 };

static int fail(const char* what) {
    fprintf(stderr, "%s: %s\n", what, srcell_error());
    return 1;
}

int main(int count, char** arguments) {
    static char line[16 * MOST];
    static int32_t active[MOST];
    srcell_network* network;
    srcell_stream* stream;
    if (count != 2) return fprintf(stderr, "usage: control net.srcell < steps\n"), 2;
    if (srcell_network_load(arguments[1], &network) != SRCELL_OK)
        return fail(arguments[1]);
    if (srcell_stream_new(network, 1, &stream) != SRCELL_OK) return fail("stream");

    const int64_t classes = srcell_network_classes(network);
    if (classes == 0) {
        fprintf(stderr, "%s: expected a network with a readout\n", arguments[1]);
        return 1;
    }
    float* logits = malloc(sizeof *logits * (size_t)classes);
    for (long step = 1; fgets(line, sizeof line, stdin); ++step) {
        int64_t events = 0;
        for (char* at = strtok(line, " \n"); at && events < MOST;
             at = strtok(NULL, " \n"))
            active[events++] = (int32_t)strtol(at, NULL, 10);
        if (srcell_stream_step(stream, active, NULL, events) != SRCELL_OK)
            return fail("step");
        if (step % DECIDE_EVERY) continue;
        if (srcell_stream_logits(stream, logits) != SRCELL_OK) return fail("logits");
        int64_t best = 0;
        for (int64_t c = 1; c < classes; ++c)
            if (logits[c] > logits[best]) best = c;
        printf("step %ld: class %lld, logit %.9g\n", step, (long long)best, logits[best]);
    }
    free(logits);
    srcell_stream_free(stream);
    srcell_network_free(network);
    return 0;
}
