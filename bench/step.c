/* Times a step of a network in C: the median and the least over many runs of 1,000 steps of 24 active inputs, in
   nanoseconds a step.

       cc -O2 bench/step.c -I csrc/runtime -L FOLDER -lsrcell -o step && LD_LIBRARY_PATH=FOLDER ./step net.srcell */
#include <srcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RUNS = 300, STEPS = 1000, EVENTS = 24, ROWS = 64 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void* x, const void* y) {
    return (*(const double*)x > *(const double*)y) - (*(const double*)x < *(const double*)y);
}

int main(int count, char** arguments) {
    static int32_t active[ROWS][EVENTS];
    static double times[RUNS];
    srcell_network* network;
    srcell_stream* stream;
    if (count != 2 || srcell_network_load(arguments[1], &network) || srcell_stream_new(network, 1, &stream)) {
        fprintf(stderr, "usage: step net.srcell\n%s\n", srcell_error());
        return 1;
    }
    const int64_t inputs = srcell_network_inputs(network);
    for (int row = 0; row < ROWS; ++row)
        for (int k = 0; k < EVENTS; ++k) active[row][k] = (int32_t)((k * inputs + rand() % inputs) / EVENTS);
    double spikes = 0;
    for (int run = 0; run < RUNS; ++run) {
        const double begin = now();
        for (int step = 0; step < STEPS; ++step) {
            if (srcell_stream_step(stream, active[step % ROWS], NULL, EVENTS)) return 1;
            spikes += srcell_stream_spikes(stream)[0] > 0;
        }
        times[run] = (now() - begin) / STEPS;
    }
    qsort(times, RUNS, sizeof *times, ascending);
    printf("median %.0f ns, least %.0f ns a step; neuron 0 active in %.1f %%\n", times[RUNS / 2], times[0],
           100 * spikes / RUNS / STEPS);
    srcell_stream_free(stream);
    srcell_network_free(network);
    return 0;
}
