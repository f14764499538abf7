// The encoders of encode.h. Samples are independent and shared out over threads; within a sample the inner loop runs
// over pixels, which is where a vectorised version starts.
#include "encode.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <vector>

#include "parallel.h"

namespace srcell {
namespace {

constexpr int64_t kBlock = 4;  // steps served by one call of Philox
constexpr double kThresholdOne = 1 << 24;

uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

// What a thread needs besides its output, reused from sample to sample.
struct Scratch {
    std::vector<int32_t> pixels;               // those that can fire, ascending
    std::vector<uint32_t> thresholds;          // of each of them
    std::vector<int32_t> fired[kBlock];        // the pixels that fire in each step of a block; as long as `pixels`
    std::array<int64_t, kBlock> fired_counts;  // how many of them there are
};

void find_active_pixels(const RateEncoding& p, const float* image, Scratch& scratch) {
    scratch.pixels.clear();
    scratch.thresholds.clear();
    for (int64_t k = 0; k < p.pixels; ++k) {
        const double probability = std::min(p.gain * static_cast<double>(image[k]), 1.0);
        if (probability == 0) continue;
        scratch.pixels.push_back(static_cast<int32_t>(k));
        scratch.thresholds.push_back(static_cast<uint32_t>(std::ceil(probability * kThresholdOne)));
    }
    for (std::vector<int32_t>& row : scratch.fired) row.resize(scratch.pixels.size());
}

void encode_block(uint64_t seed, uint64_t index, int64_t block, Scratch& scratch) {
    std::array<int64_t, kBlock> counts{};
    for (size_t j = 0; j < scratch.pixels.size(); ++j) {
        const int32_t pixel = scratch.pixels[j];
        const std::array<uint32_t, kBlock> words =
            philox4x32_10({static_cast<uint32_t>(block), static_cast<uint32_t>(pixel), low(index), high(index)},
                          {low(seed), high(seed)});
        for (size_t step = 0; step < kBlock; ++step) {
            // Written in any case and kept by the count alone: a branch would be mispredicted at every spike.
            scratch.fired[step][static_cast<size_t>(counts[step])] = pixel;
            counts[step] += words[step] >> 8 < scratch.thresholds[j];
        }
    }
    scratch.fired_counts = counts;
}

// Appends the sample's events, and writes for each of its T rows how many there are up to its end.
void encode_sample(const RateEncoding& p, int64_t sample, Scratch& scratch, std::vector<int32_t>& events,
                   int64_t* ends) {
    find_active_pixels(p, p.images + sample * p.pixels, scratch);
    ends = std::fill_n(ends, p.prefix, 0);
    for (int64_t block = 0; block * kBlock < p.steps; ++block) {
        encode_block(p.seed, static_cast<uint64_t>(p.index[sample]), block, scratch);
        const int64_t steps = std::min(kBlock, p.steps - block * kBlock);
        for (size_t step = 0; step < static_cast<size_t>(steps); ++step) {
            const auto first = scratch.fired[step].begin();
            events.insert(events.end(), first, first + scratch.fired_counts[step]);
            *ends++ = static_cast<int64_t>(events.size());
        }
    }
}

// Encodes into a list per sample, whose sizes then give each sample its place in the rows.
struct RateJob {
    const RateEncoding& p;
    EventRows& rows;
    std::vector<std::vector<int32_t>> events;  // of each sample
    std::vector<int64_t> starts;               // of each sample in rows.indices
    std::atomic<bool> out_of_memory{false};

    int64_t* ends_of(int64_t sample) { return rows.offsets.get() + 1 + sample * (p.prefix + p.steps); }

    static void encode(void* self, int64_t begin, int64_t end) {
        RateJob& job = *static_cast<RateJob*>(self);
        try {
            Scratch scratch;
            for (int64_t b = begin; b < end; ++b)
                encode_sample(job.p, b, scratch, job.events[static_cast<size_t>(b)], job.ends_of(b));
        } catch (const std::bad_alloc&) {
            job.out_of_memory = true;
        }
    }

    static void place(void* self, int64_t begin, int64_t end) {
        RateJob& job = *static_cast<RateJob*>(self);
        for (int64_t b = begin; b < end; ++b) {
            const std::vector<int32_t>& events = job.events[static_cast<size_t>(b)];
            const int64_t start = job.starts[static_cast<size_t>(b)];
            std::copy(events.begin(), events.end(), job.rows.indices.get() + start);
            int64_t* ends = job.ends_of(b);
            for (int64_t t = 0; t < job.p.prefix + job.p.steps; ++t) ends[t] += start;
        }
    }
};

}  // namespace

std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t(0xD2511F53) * counter[0];
        const uint64_t b = uint64_t(0xCD9E8D57) * counter[2];
        counter = {high(b) ^ counter[1] ^ key[0], low(b), high(a) ^ counter[3] ^ key[1], low(a)};
        key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
    }
    return counter;
}

int64_t first_invalid_pixel(const RateEncoding& p) {
    const float* end = p.images + p.samples * p.pixels;
    const float* invalid = std::find_if(p.images, end, [](float pixel) { return !(pixel >= 0 && pixel <= 1); });
    return invalid == end ? -1 : invalid - p.images;
}

EventRows rate_encode(const RateEncoding& p) {
    const auto samples = static_cast<size_t>(p.samples);
    EventRows rows{p.samples * (p.prefix + p.steps), nullptr, nullptr};
    rows.offsets.reset(new int64_t[static_cast<size_t>(rows.rows) + 1]);
    rows.offsets[0] = 0;
    RateJob job{p, rows, std::vector<std::vector<int32_t>>(samples), std::vector<int64_t>(samples)};
    parallel_for(p.samples, p.threads, RateJob::encode, &job);
    if (job.out_of_memory) throw std::bad_alloc();
    int64_t total = 0;
    for (size_t b = 0; b < samples; ++b) {
        job.starts[b] = total;
        total += static_cast<int64_t>(job.events[b].size());
    }
    rows.indices.reset(new int32_t[static_cast<size_t>(total)]);
    parallel_for(p.samples, p.threads, RateJob::place, &job);
    return rows;
}

}  // namespace srcell
