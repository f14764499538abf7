// What learning computes besides the layers: a loss, the size of a gradient, and a step of Adam. Every sum has a fixed
// order, and exp and log are the library's own, so that the bits depend neither on the ISA nor on the system. Included
// by kernels.cpp inside its namespace, after camera-inl.h (for logarithm()).

inline void adam(const AdamStep& p) {
    using V = single_of<F32>;
    for (int64_t k = 0; k < p.count; k += VecTraits<V>::width) {
        const int64_t lanes = p.count - k;
        const V gradient = splat<V>(p.scale) * load_lanes<V>(p.gradient + k, lanes);
        const V mean = splat<V>(p.keep_mean) * load_lanes<V>(p.mean + k, lanes) + splat<V>(p.take_mean) * gradient;
        const V variance = splat<V>(p.keep_variance) * load_lanes<V>(p.variance + k, lanes) +
                           splat<V>(p.take_variance) * gradient * gradient;
        const V root = square_root(variance) * splat<V>(p.inverse_root) + splat<V>(p.epsilon);
        const V numbers = load_lanes<V>(p.numbers + k, lanes) - splat<V>(p.rate) * (mean / root);
        store_lanes(p.mean + k, mean, lanes);
        store_lanes(p.variance + k, variance, lanes);
        store_lanes(p.numbers + k, numbers, lanes);
    }
}

inline double sum_of_squares(const float* x, int64_t count) {
    constexpr int64_t lanes = 8;
    double sums[lanes] = {};
    int64_t k = 0;
    for (; k + lanes <= count; k += lanes)
        for (int64_t j = 0; j < lanes; ++j) {
            const auto value = static_cast<double>(x[k + j]);
            sums[j] += value * value;
        }
    for (int64_t j = 0; k < count; ++k, ++j) sums[j] += static_cast<double>(x[k]) * static_cast<double>(x[k]);
    sum_rows(sums, lanes, 1, 1);
    return sums[0];
}

// exp(x) of x <= 0; NaN passes through.
inline double exponential(double x) {
    constexpr double vanishes = -700;  // the result is still a normal number
    const ReducedExp<double> reduced = reduce_exp(at_least(x, vanishes));
    const double power = power_of_two(reduced.power);
    return fma(power, reduced.expm1, power);
}

inline double cross_entropy(const float* logits, int64_t classes, int64_t label, double* gradient) {
    auto most = static_cast<double>(logits[0]), sum = 0.0;
    for (int64_t c = 1; c < classes; ++c) most = at_least(static_cast<double>(logits[c]), most);
    for (int64_t c = 0; c < classes; ++c) sum += gradient[c] = exponential(static_cast<double>(logits[c]) - most);
    for (int64_t c = 0; c < classes; ++c) gradient[c] /= sum;
    gradient[label] -= 1;
    const auto near = static_cast<double>(logarithm(static_cast<float>(sum)));
    return near + (sum * exponential(-near) - 1) + (most - static_cast<double>(logits[label]));  // one step of Newton's
}
