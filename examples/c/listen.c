/* Hears a sound on standard input, and prints the answer whenever it changes, with its
   time.

       arecord -q -t raw -f S16_LE -r 8000 -c 1 | listen net.srcell

   The samples are signed numbers of 16 bits, the lower byte first, as many per second as
   the network was trained with: at the end it prints how many it heard, the last answer,
   and the time that it took for each second of a sound of RATE. */
#include <srcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RATE = 8000, CHUNK = 80 }; /* an answer every 10 ms */

static int fail(const char* what) {
    fprintf(stderr, "%s: %s\n", what, srcell_error());
    return 1;
}

int main(int count, char** arguments) {
    unsigned char bytes[2 * CHUNK];
    float samples[CHUNK];
    srcell_network* network;
    srcell_stream* stream;
    if (count != 2) return fprintf(stderr, "usage: listen net.srcell < samples\n"), 2;
    if (srcell_network_load(arguments[1], &network) != SRCELL_OK)
        return fail(arguments[1]);
    if (srcell_stream_new(network, 1, &stream) != SRCELL_OK) return fail("stream");

    const int64_t classes = srcell_network_classes(network);
    if (classes == 0) {
        fprintf(stderr, "%s: expected a network with a readout\n", arguments[1]);
        return 1;
    }
    float* logits = malloc(sizeof *logits * (size_t)classes);
    int64_t heard = 0, answer = -1;
    clock_t busy = 0;
    for (size_t size; (size = fread(bytes, 2, CHUNK, stdin)) > 0;) {
        for (size_t k = 0; k < size; ++k) {
            const int value = bytes[2 * k] | bytes[2 * k + 1] << 8;
            samples[k] = (float)(value < 32768 ? value : value - 65536) / 32768;
        }
        const clock_t start = clock();
        int64_t steps;
        if (srcell_stream_hear(stream, samples, (int64_t)size, &steps) != SRCELL_OK)
            return fail("samples");
        if (srcell_stream_logits(stream, logits) != SRCELL_OK) return fail("logits");
        busy += clock() - start;
        heard += (int64_t)size;
        int64_t best = 0;
        for (int64_t c = 1; c < classes; ++c)
            if (logits[c] > logits[best]) best = c;
        if (best != answer && steps > 0) {
            const char* name = srcell_network_class_name(network, answer = best);
            printf("%.2f s: class %d%s%s\n", (double)heard / RATE, (int)best,
                   name ? ", " : "", name ? name : "");
        }
        fflush(stdout);
    }
    if (answer < 0) {
        fprintf(stderr, "standard input: expected samples of at least one frame\n");
        return 1;
    }
    printf("%ld samples: class %d, logit %.9g\n", (long)heard, (int)answer,
           logits[answer]);
    fprintf(stderr, "%.2f %% of the time of the sound\n",
            100.0 * (double)busy / CLOCKS_PER_SEC / ((double)heard / RATE));
    free(logits);
    srcell_stream_free(stream);
    srcell_network_free(network);
    return 0;
}
