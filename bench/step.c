/* Times a step of a network in C: the median and the least over many runs of 1,000 steps of 24 active inputs, in
   nanoseconds a step. Or of the steps of a file, a line of active inputs for each, whose logits are read at each step.

       cc -O2 bench/step.c -I csrc/runtime -L FOLDER -lsrcell -o step
       LD_LIBRARY_PATH=FOLDER ./step net.srcell [steps.txt] */
#include <srcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 300, STEPS = 1000, EVENTS = 24, ROWS = 64, MOST = 1 << 20, LOGITS = 1024 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void* x, const void* y) {
    return (*(const double*)x > *(const double*)y) - (*(const double*)x < *(const double*)y);
}

/* A line of numbers for each step: the active inputs of all of them, and where those of a step begin. */
static int64_t read_steps(const char* path, int32_t* active, int64_t* begins) {
    static char line[16 * EVENTS * ROWS];
    FILE* file = fopen(path, "r");
    int64_t steps = 0;
    if (!file) return 0;
    for (; steps < MOST && fgets(line, sizeof line, file); ++steps) {
        begins[steps + 1] = begins[steps];
        for (char* at = strtok(line, " \n"); at && begins[steps + 1] < MOST; at = strtok(NULL, " \n"))
            active[begins[steps + 1]++] = (int32_t)strtol(at, NULL, 10);
    }
    fclose(file);
    return steps;
}

int main(int count, char** arguments) {
    static int32_t active[MOST];
    static int64_t begins[MOST + 1];
    static double times[RUNS];
    static float logits[LOGITS];
    srcell_network* network;
    srcell_stream* stream;
    if (count < 2 || srcell_network_load(arguments[1], &network) || srcell_stream_new(network, 1, &stream)) {
        fprintf(stderr, "usage: step net.srcell [steps.txt]\n%s\n", srcell_error());
        return 1;
    }
    const int64_t inputs = srcell_network_inputs(network);
    int64_t rows = ROWS, steps = STEPS;
    if (count > 2) {
        rows = steps = read_steps(arguments[2], active, begins);
        if (!rows || srcell_network_classes(network) > LOGITS) {
            fprintf(stderr, "%s: no steps, or too many classes\n", arguments[2]);
            return 1;
        }
    } else {
        for (int k = 0; k < ROWS * EVENTS; ++k) active[k] = (int32_t)((k % EVENTS * inputs + rand() % inputs) / EVENTS);
        for (int row = 0; row < ROWS; ++row) begins[row + 1] = begins[row] + EVENTS;
    }
    double spikes = 0;
    for (int run = 0; run < RUNS; ++run) {
        const double begin = now();
        for (int64_t step = 0; step < steps; ++step) {
            const int64_t row = step % rows;
            if (srcell_stream_step(stream, active + begins[row], NULL, begins[row + 1] - begins[row])) return 1;
            if (count > 2 && srcell_stream_logits(stream, logits)) return 1;
            spikes += srcell_stream_spikes(stream)[0] > 0;
        }
        times[run] = (now() - begin) / (double)steps;
    }
    qsort(times, RUNS, sizeof *times, ascending);
    printf("median %.0f ns, least %.0f ns a step; neuron 0 active in %.1f %%\n", times[RUNS / 2], times[0],
           100 * spikes / RUNS / (double)steps);
    srcell_stream_free(stream);
    srcell_network_free(network);
    return 0;
}
