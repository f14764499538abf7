"""The C code of the headers that ``c99`` writes."""

from string import Template

HEAD = Template("""\
#ifndef ${NET}_H
#define ${NET}_H

#include <stdint.h>

/*
 * A network of integer neurons, Spiking Recurrent Cells, written by srcell.
 *
 * C99 without floats and library calls; its only memory is the caller's state. C++ may include it too.
 *
 *   inputs   $inputs
 *   neurons  $neurons
 *   classes  $classes
 *   weights  $weights, a row of the array for each input
 *   flash    $flash bytes of constants, and the code
 *   RAM      $ram bytes: sizeof(${net}_state), where an int32_t is aligned to 4 bytes
 *
 * Include it in one source file: each that includes it has its own copy of the weights.
 *
 *     static ${net}_state state;
 *     const uint16_t active[] = {0, 2};
 *
 *     ${net}_reset(&state);               before each sample
 *     ${net}_step(&state, active, 2);     once for each step: inputs 0 and 2 are 1 in it, all others 0
 *     ${net}_step(&state, active, 0);     no input is 1
 *     ${net}_spikes(&state)[n]            whether neuron n of the last layer spiked in the last step: 1 or 0
 *     ${net}_class(&state)                the class with the most votes so far
 *     state.clamped                       how often an i left its bounds and was clamped, modulo 2^32
 *
 * In each step a layer receives the spikes of the previous layer in the same step. Numbers in `active` that are not
 * inputs are skipped. No sum overflows: a current is a sum of at most 65535 weights of 16 bits, and votes stop at
 * +-${NET}_MOST_VOTES.
 */

""")

NEURONS = Template("""
/* Right shifts must round towards minus infinity; C leaves this to the compiler, and all common ones do so. */
typedef char ${net}_needs_arithmetic_shifts[((int32_t)-1 >> 1) == -1 ? 1 : -1];

typedef struct {
    int32_t current[${NET}_WIDEST]; /* of one layer, from its inputs in this step; 0 between steps */
    int32_t votes[${NET}_CLASSES];
    uint32_t clamped;
    int16_t i[${NET}_NEURONS], h[${NET}_NEURONS], hs[${NET}_NEURONS]; /* of all layers, first to last */
    uint8_t spikes[${NET}_OUTPUTS];
} ${net}_state;

static inline int32_t ${net}_clamp(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}

static inline void ${net}_reset(${net}_state *state)
{
    for (uint16_t n = 0; n < ${NET}_WIDEST; n++) state->current[n] = 0;
    for (uint16_t c = 0; c < ${NET}_CLASSES; c++) state->votes[c] = 0;
    for (uint16_t n = 0; n < ${NET}_NEURONS; n++) {
        state->i[n] = 0;
        state->h[n] = 0;
        state->hs[n] = 0;
    }
    for (uint16_t n = 0; n < ${NET}_OUTPUTS; n++) state->spikes[n] = 0;
    state->clamped = 0;
}

/* Advances the neurons of a layer, the first of which is `first`, by one step, and zeroes their currents. */
static inline void ${net}_advance(${net}_state *state, uint16_t first, uint16_t neurons)
{
    for (uint16_t k = 0; k < neurons; k++) {
        const uint16_t n = (uint16_t)(first + k);
        const int32_t i = state->i[n], h = state->h[n], hs = state->hs[n];
        const int32_t leak = (i >> ${NET}_LEAK_SHIFT_A) + (i >> ${NET}_LEAK_SHIFT_B);
        const int32_t sum = i - leak + state->current[k];
        const int32_t now = ${net}_clamp(sum, -${NET}_I_MAX, ${NET}_I_MAX);
        const int32_t drive = now > 0 ? ${NET}_DRIVE_HIGH : ${NET}_DRIVE_LOW;
        const int32_t gate = h < ${NET}_GATE_THRESHOLD ? ${NET}_ZS_HYP : ${NET}_ZS_DEP;
        const int32_t u = drive + ${NET}_R * h + ${NET}_RS * hs + ${NET}_BIAS;
        const int32_t fast = (${NET}_SLOPE * u) >> ${NET}_SLOPE_SHIFT;
        const int32_t slow = h + (((hs - h) * gate) >> ${NET}_FRACTION_BITS);
        state->clamped += now != sum ? 1u : 0u;
        state->i[n] = (int16_t)now;
        state->h[n] = (int16_t)${net}_clamp(fast, ${NET}_H_MIN, ${NET}_H_MAX);
        state->hs[n] = (int16_t)${net}_clamp(slow, ${NET}_HS_MIN, ${NET}_HS_MAX);
        state->current[k] = 0;
    }
}

/* Counts the votes of the last layer, whose first neuron is `first`. Neuron n votes for class n % ${NET}_CLASSES. */
static inline void ${net}_vote(${net}_state *state, uint16_t first)
{
    int32_t spikes = 0;
    uint16_t own = 0;
    for (uint16_t n = 0; n < ${NET}_OUTPUTS; n++) {
        state->spikes[n] = state->h[first + n] >= ${NET}_SPIKE_THRESHOLD ? 1 : 0;
        if (state->spikes[n]) {
            state->votes[own] += (int32_t)${NET}_VOTE_OWN - ${NET}_VOTE_OTHERS;
            spikes++;
        }
        if (++own == ${NET}_CLASSES) own = 0;
    }
    for (uint16_t c = 0; c < ${NET}_CLASSES; c++)
        state->votes[c] =
            ${net}_clamp(state->votes[c] + spikes * ${NET}_VOTE_OTHERS, -${NET}_MOST_VOTES, ${NET}_MOST_VOTES);
}
""")

ADD = Template("""
static inline void ${net}_add_$k(${net}_state *state, uint16_t input)
{
    const $type *row = ${net}_weights_$k[input];
    for (uint16_t n = 0; n < ${NET}_NEURONS_$k; n++) state->current[n] += row[n];
}
""")

STEP = Template("""
static inline void ${net}_step(${net}_state *state, const uint16_t *active, uint16_t count)
{
    for (uint16_t j = 0; j < count; j++)
        if (active[j] < ${NET}_INPUTS) ${net}_add_0(state, active[j]);
    ${net}_advance(state, ${NET}_FIRST_0, ${NET}_NEURONS_0);
""")

LATER_LAYER = Template("""\
    for (uint16_t n = 0; n < ${NET}_NEURONS_$below; n++)
        if (state->h[${NET}_FIRST_$below + n] >= ${NET}_SPIKE_THRESHOLD) ${net}_add_$k(state, n);
    ${net}_advance(state, ${NET}_FIRST_$k, ${NET}_NEURONS_$k);
""")

END = Template("""\
    ${net}_vote(state, ${NET}_FIRST_$last);
}

static inline const uint8_t *${net}_spikes(const ${net}_state *state)
{
    return state->spikes;
}

/* The class with the most votes; the lowest of those with equally many. */
static inline uint16_t ${net}_class(const ${net}_state *state)
{
    uint16_t best = 0;
    for (uint16_t c = 1; c < ${NET}_CLASSES; c++)
        if (state->votes[c] > state->votes[best]) best = c;
    return best;
}

#endif
""")
