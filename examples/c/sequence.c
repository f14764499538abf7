/* Classifies sequences of real numbers, and prints the class with the largest logit after
   each element.

       sequence net.srcell < values

   Each line of the input holds the numbers of one element, as they were measured: the
   network standardises them, and holds them for as many steps as it was exported with.
   After an empty line a new sequence begins. */
#include <srcell.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 4096 };

static int fail(const char* what) {
    fprintf(stderr, "%s: %s\n", what, srcell_error());
    return 1;
}

int main(int count, char** arguments) {
    static char line[32 * MOST];
    static float values[MOST];
    srcell_network* network;
    srcell_stream* stream;
    if (count != 2) return fprintf(stderr, "usage: sequence net.srcell < values\n"), 2;
    if (srcell_network_load(arguments[1], &network) != SRCELL_OK)
        return fail(arguments[1]);
    if (srcell_stream_new(network, 1, &stream) != SRCELL_OK) return fail("stream");

    const int64_t inputs = srcell_network_inputs(network);
    const int64_t classes = srcell_network_classes(network);
    if (inputs > MOST || classes == 0) {
        fprintf(stderr, "%s: expected at most %d inputs and a readout\n", arguments[1],
                MOST);
        return 1;
    }
    float* logits = malloc(sizeof *logits * (size_t)classes);
    for (long element = 1; fgets(line, sizeof line, stdin); ++element) {
        int64_t numbers = 0;
        for (char *at = line, *end; numbers < inputs; at = end) {
            values[numbers] = strtof(at, &end);
            if (end == at) break;
            ++numbers;
        }
        if (numbers == 0) {
            srcell_stream_reset(stream);
            element = 0;
            continue;
        }
        if (numbers != inputs) {
            fprintf(stderr, "element %ld: expected %d numbers\n", element, (int)inputs);
            return 1;
        }
        if (srcell_stream_feed(stream, values, NULL) != SRCELL_OK) return fail("element");
        if (srcell_stream_logits(stream, logits) != SRCELL_OK) return fail("logits");
        int64_t best = 0;
        for (int64_t c = 1; c < classes; ++c)
            if (logits[c] > logits[best]) best = c;
        printf("element %ld: class %lld, logit %.9g\n", element, (long long)best,
               logits[best]);
    }
    free(logits);
    srcell_stream_free(stream);
    srcell_network_free(network);
    return 0;
}
