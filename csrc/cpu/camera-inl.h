// The event camera: the kernels that take the structs of camera.h. Included by kernels.cpp inside its namespace, after
// encode_kernels-inl.h for Philox and its groups of pixels.
//
// A sample is an item of work. Time is the outer loop, so that neighbouring pixels read their brightness from
// neighbouring addresses. Products and sums are never fused: the same bits on every ISA, without fused operations too.
//
// Another thread may change frames or pictures during a call. The events are then unspecified, but no access is out of
// bounds: no address depends on brightness.

using Brightness = single_of<F32>;

enum Purpose : uint32_t { kOfPixel, kOfView, kOfNoise };  // noise uses all numbers from kOfNoise on

struct Random {
    uint64_t seed, sample;

    void draw(uint32_t n, uint32_t purpose, uint32_t* words) const {
        const uint32_t counter[] = {n, purpose, low_half(sample), high_half(sample)};
        const uint32_t key[] = {low_half(seed), high_half(seed)};
        philox_words(counter, key, words);
    }
};

SRCELL_INLINE double deviate(uint32_t a, uint32_t b, uint32_t c) { return (double(a + b + c) * 0x1p-16 - 1.5) * 2; }

// The state of a sample's pixels: rows of whole groups.
struct CameraPixels {
    static constexpr int arrays = 4;
    int64_t pitch, size;
    float *level, *rise, *fall, *blind_until;

    static int64_t pitch_of(const Sensor& p) { return ceil_div(p.width, kPixelGroup) * kPixelGroup; }
    CameraPixels(const Sensor& p, float* scratch)
        : pitch(pitch_of(p)),
          size(p.height * pitch),
          level(scratch),
          rise(level + size),
          fall(rise + size),
          blind_until(fall + size) {}
};

// Draws thresholds, and levels between them around the first brightness.
template <class View>
void begin_pixels(const Sensor& p, const Random& random, const View& view, const CameraPixels& pixels) {
    constexpr float never = 0x1p100f;  // the threshold of lanes beyond the width
    for (int64_t y = 0; y < p.height; ++y) {
        for (int64_t x = 0; x < pixels.pitch; x += VecTraits<Brightness>::width)
            store(pixels.level + y * pixels.pitch + x, view.at(y, x));
        for (int64_t x = 0; x < pixels.pitch; ++x) {
            const int64_t k = y * pixels.pitch + x;
            pixels.blind_until[k] = 0;
            pixels.rise[k] = pixels.fall[k] = never;
            if (x >= p.width) continue;
            uint32_t words[4];
            random.draw(static_cast<uint32_t>(y * p.width + x), kOfPixel, words);
            const double rising = deviate(words[1] >> 16, words[2] >> 16, words[3] >> 16);
            const double falling = deviate(words[1] & 0xFFFF, words[2] & 0xFFFF, words[3] & 0xFFFF);
            pixels.rise[k] = static_cast<float>(double(p.rise) * (1 + double(p.spread) * rising));
            pixels.fall[k] = static_cast<float>(double(p.fall) * (1 + double(p.spread) * falling));
            const float place = static_cast<float>(words[0] >> 8) * 0x1p-24f;
            pixels.level[k] += pixels.fall[k] - place * (pixels.rise[k] + pixels.fall[k]);
        }
    }
}

// How often a threshold fits into a change, a whole number of at most 2^22.
SRCELL_INLINE Brightness fits(Brightness change, Brightness threshold) {
    const Brightness round = splat<Brightness>(MathConstants<float>::round);
    const Brightness exact = at_least(at_most(change / threshold, splat<Brightness>(0x1p22f)), splat<Brightness>(0));
    const Brightness nearest = (exact + round) - round;
    return select(less(exact, nearest), nearest - splat<Brightness>(1), nearest);
}

struct Changes {
    uint64_t rises = 0, falls = 0;  // a bit per lane
};

// Step t of the pixels from `k` on, whose brightness is `seen`. Most registers have no event.
SRCELL_INLINE Changes step_pixels(const Sensor& p, const CameraPixels& pixels, int64_t t, int64_t k, Brightness seen) {
    const Brightness level = load<Brightness>(pixels.level + k);
    const Brightness rise = load<Brightness>(pixels.rise + k), fall = load<Brightness>(pixels.fall + k);
    const Brightness up = seen - level, down = level - seen;
    if (!(lanes_of(less_equal(rise, up)) | lanes_of(less_equal(fall, down)))) return {};
    const Brightness blind_until = load<Brightness>(pixels.blind_until + k), zero = splat<Brightness>(0);
    const auto sees = less_equal(blind_until, splat<Brightness>(static_cast<float>(t)));
    const Brightness rises = select(sees, fits(up, rise), zero), falls = select(sees, fits(down, fall), zero);
    store(pixels.level + k, level + (rises * rise - falls * fall));
    const Brightness later = splat<Brightness>(static_cast<float>(t + 1 + p.refractory));
    store(pixels.blind_until + k, select(less(zero, rises + falls), later, blind_until));
    return {lanes_of(less(zero, rises)), lanes_of(less(zero, falls))};
}

// Adds the events of step t that no change causes: each of some candidates is one with the same probability.
inline void add_noise(const Sensor& p, const Random& random, int64_t t, int64_t groups, uint16_t* fired) {
    const double expected = p.noise * static_cast<double>(p.height * p.width);
    const auto candidates = static_cast<int64_t>(__builtin_ceil(2 * expected));
    const double probability = candidates ? expected / static_cast<double>(candidates) : 0;
    const auto threshold = static_cast<uint32_t>(__builtin_ceil(probability * 0x1p24));
    const auto places = static_cast<uint64_t>(2 * p.height * p.width);
    uint32_t words[4];
    for (int64_t n = 0; n < candidates; ++n) {
        if (n % 2 == 0) random.draw(static_cast<uint32_t>(t), kOfNoise + static_cast<uint32_t>(n / 2), words);
        const uint32_t* drawn = words + n % 2 * 2;
        if (drawn[0] >> 8 >= threshold) continue;
        const auto place = static_cast<int64_t>(drawn[1] * places >> 32);
        const int64_t row = place / p.width, x = place % p.width;
        fired[row * groups + x / kPixelGroup] |= static_cast<uint16_t>(1u << x % kPixelGroup);
    }
}

// Draws a sample's events, and writes the number of each of its rows to offsets[row + 1].
template <class View>
void run_camera(const Sensor& p, const Random& random, int64_t b, View& view) {
    const CameraPixels pixels(p, p.scratch + b * view.scratch);
    const int64_t groups = pixels.pitch / kPixelGroup, words = 2 * p.height * groups;
    const int64_t falling = p.height * groups;  // from a pixel's word of rises to that of its falls
    uint16_t* fired = p.fired + b * p.steps * words;
    view.begin();
    begin_pixels(p, random, view, pixels);
    for (int64_t t = 0; t < p.steps; ++t, fired += words) {
        view.step(t);
        std::memset(fired, 0, static_cast<size_t>(words) * sizeof *fired);
        for (int64_t y = 0; y < p.height; ++y)
            for (int64_t x = 0; x < pixels.pitch; x += VecTraits<Brightness>::width) {
                const Changes changes = step_pixels(p, pixels, t, y * pixels.pitch + x, view.at(y, x));
                uint16_t* word = fired + y * groups + x / kPixelGroup;
                word[0] |= static_cast<uint16_t>(changes.rises << x % kPixelGroup);
                word[falling] |= static_cast<uint16_t>(changes.falls << x % kPixelGroup);
            }
        if (p.noise > 0) add_noise(p, random, t, groups, fired);
        int64_t events = 0;
        for (int64_t k = 0; k < words; ++k) events += __builtin_popcount(fired[k]);
        p.offsets[1 + b * p.steps + t] = events;
    }
}

// The natural logarithm of a positive, normal number, to 2 ulp: 2^e m with m in [sqrt(1/2), sqrt(2)), and a polynomial
// of m - 1.
SRCELL_INLINE float logarithm(float x) {
    constexpr float of_log[] = {3.3333331174e-1f,  -2.4999993993e-1f, 2.0000714765e-1f,
                                -1.6668057665e-1f, 1.4249322787e-1f,  -1.2420140846e-1f,
                                1.1676998740e-1f,  -1.1514610310e-1f, 7.0376836292e-2f};
    const uint32_t bits = bits_of(x) - 0x3F3504F3;  // of sqrt(1/2)
    const auto exponent = static_cast<float>(static_cast<int32_t>(bits) >> 23);
    const float m = from_bits((bits & 0x7FFFFF) + 0x3F3504F3) - 1;
    float sum = of_log[8];
    for (int k = 7; k >= 0; --k) sum = sum * m + of_log[k];
    const float square = m * m;
    const float tail = sum * m * square + exponent * MathConstants<float>::ln2_low - square * 0.5f;
    return exponent * MathConstants<float>::ln2_high + (m + tail);
}

int64_t camera_frame_scratch(const Sensor& p) { return CameraPixels::arrays * p.height * CameraPixels::pitch_of(p); }
int64_t camera_picture_scratch(const Sensor& p, const Pictures& q);

struct FrameView {
    const Frames& frames;
    const Sensor& p;
    int64_t sample, scratch;
    const float* frame = nullptr;

    void begin() { step(0); }
    void step(int64_t t) { frame = frames.values + (t * p.samples + sample) * p.height * p.width; }
    SRCELL_INLINE Brightness at(int64_t y, int64_t x) const {
        const Brightness seen = load_lanes<Brightness>(frame + y * p.width + x, p.width - x);
        if (frames.dark <= 0) return seen;
        float lanes[VecTraits<Brightness>::width];
        store(lanes, seen + splat<Brightness>(frames.dark));
        for (float& lane : lanes) lane = logarithm(lane);
        return load<Brightness>(lanes);
    }
};

// A blurred picture with the surroundings that any view of it needs, and the place of the current view in it.
struct PictureView {
    const Pictures& pictures;
    const Sensor& p;
    const Random& random;
    int64_t sample, scratch;
    int64_t radius, rows, pitch;  // of the blur, and of the buffer
    float *buffer, *across;       // (rows, pitch); (rows + 2 radius, pitch), blurred along the rows
    double size, left, top;
    int64_t point = 0;
    const float* view = nullptr;
    Brightness along, down;

    static int64_t radius_of(const Pictures& q) { return static_cast<int64_t>(__builtin_ceil(3 * q.blur)); }
    static int64_t rows_of(const Sensor& p, const Pictures& q) { return p.height + 2 * q.reach + 2; }
    static int64_t pitch_of(const Sensor& p, const Pictures& q) { return CameraPixels::pitch_of(p) + 2 * q.reach + 2; }

    PictureView(const Pictures& q, const Sensor& s, const Random& drawn, int64_t b)
        : pictures(q),
          p(s),
          random(drawn),
          sample(b),
          scratch(camera_picture_scratch(s, q)),
          radius(radius_of(q)),
          rows(rows_of(s, q)),
          pitch(pitch_of(s, q)) {
        buffer = s.scratch + b * scratch + CameraPixels::arrays * s.height * CameraPixels::pitch_of(s);
        across = buffer + rows * pitch;
    }

    // The picture's row and column at the buffer's first.
    int64_t first_row() const { return floor_half(pictures.height - p.height) - pictures.reach; }
    int64_t first_column() const { return floor_half(pictures.width - p.width) - pictures.reach; }
    static int64_t floor_half(int64_t x) { return x >= 0 ? x / 2 : -((1 - x) / 2); }

    // row += weight * the picture's row, moved by `shift`.
    static void add_row(float* row, int64_t count, float weight, const float* from, int64_t shift, int64_t width) {
        const int64_t begin = shift > 0 ? shift : 0, end = shift + width < count ? shift + width : count;
        for (int64_t k = begin; k < end; ++k) row[k] = row[k] + weight * from[k - shift];
    }

    void blur() {
        double sum = 0, gauss[2 * kMostBlur * 3 + 1];
        for (int64_t k = -radius; k <= radius; ++k) {
            const double far = k ? static_cast<double>(k) / pictures.blur : 0;
            const ReducedExp<double> reduced = reduce_exp(at_least(-0.5 * far * far, -200.0));
            sum += gauss[k + radius] = power_of_two(reduced.power) * (1 + reduced.expm1);
        }
        const float* picture = pictures.values + sample * pictures.height * pictures.width;
        std::memset(buffer, 0, static_cast<size_t>((2 * rows + 2 * radius) * pitch) * sizeof *buffer);
        for (int64_t r = 0; r < rows + 2 * radius; ++r) {
            const int64_t v = first_row() + r - radius;
            if (v < 0 || v >= pictures.height) continue;
            for (int64_t k = -radius; k <= radius; ++k)
                add_row(across + r * pitch, pitch, static_cast<float>(gauss[k + radius] / sum),
                        picture + v * pictures.width, k - first_column(), pictures.width);
        }
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t k = 0; k <= 2 * radius; ++k)
                add_row(buffer + r * pitch, pitch, static_cast<float>(gauss[k] / sum), across + (r + k) * pitch, 0,
                        pitch);
    }

    double drawn(uint32_t n) const {
        uint32_t words[4];
        random.draw(n, kOfView, words);
        return deviate(words[0] >> 16, words[1] >> 16, words[2] >> 16);
    }

    void begin() {
        blur();
        size = 1 + pictures.size * drawn(0);
        left = pictures.place * drawn(1);
        top = pictures.place * drawn(2);
        look(0);
    }
    void step(int64_t t) { look(static_cast<double>(t + 1)); }

    // Where between two pixels of the buffer the view begins, along an axis on which the picture is larger by `larger`.
    struct Start {
        int64_t whole;
        Brightness part;
    };
    Start start(double shift, int64_t larger) const {
        const auto most = static_cast<double>(pictures.reach);
        const double bounded = shift < -most ? -most : shift < most ? shift : most;
        const double place = bounded + most + (larger % 2 ? 0.5 : 0);
        const double whole = __builtin_floor(place);
        return {static_cast<int64_t>(whole), splat<Brightness>(static_cast<float>(place - whole))};
    }

    void look(double time) {
        const double* at = pictures.movement + 3 * point;
        while (point + 1 < pictures.points && at[3] <= time) at += 3, ++point;
        double x = at[1], y = at[2];
        if (point + 1 < pictures.points && at[0] < time) {
            const double part = (time - at[0]) / (at[3] - at[0]);
            x += (at[4] - x) * part, y += (at[5] - y) * part;
        }
        const Start column = start(left + size * x, pictures.width - p.width);
        const Start row = start(top + size * y, pictures.height - p.height);
        view = buffer + row.whole * pitch + column.whole;
        along = column.part, down = row.part;
    }

    SRCELL_INLINE Brightness between(const float* from) const {
        const Brightness here = load<Brightness>(from);
        return here + along * (load<Brightness>(from + 1) - here);
    }
    SRCELL_INLINE Brightness at(int64_t y, int64_t x) const {
        const float* from = view + y * pitch + x;
        const Brightness above = between(from);
        return above + down * (between(from + pitch) - above);
    }
};

int64_t camera_picture_scratch(const Sensor& p, const Pictures& q) {
    return camera_frame_scratch(p) +
           2 * (PictureView::rows_of(p, q) + PictureView::radius_of(q)) * PictureView::pitch_of(p, q);
}

struct CameraFrames {
    const Sensor& sensor;
    const Frames& frames;
};

inline void draw_frames(const CameraFrames& p, int64_t b) {
    const Random random = {p.sensor.seed, static_cast<uint64_t>(p.sensor.index[b])};
    FrameView view = {p.frames, p.sensor, b, camera_frame_scratch(p.sensor)};
    if (p.sensor.steps) run_camera(p.sensor, random, b, view);
}

struct CameraPictures {
    const Sensor& sensor;
    const Pictures& pictures;
};

inline void draw_pictures(const CameraPictures& p, int64_t b) {
    const Random random = {p.sensor.seed, static_cast<uint64_t>(p.sensor.index[b])};
    PictureView view(p.pictures, p.sensor, random, b);
    run_camera(p.sensor, random, b, view);
}

inline void sum_offsets(const Sensor& p) {
    p.offsets[0] = 0;
    for (int64_t row = 0; row < p.samples * p.steps; ++row) p.offsets[row + 1] += p.offsets[row];
}

inline void camera_draw_frames(const Sensor& p, const Frames& frames) {
    for_each_item<draw_frames>(p.samples, p.threads, CameraFrames{p, frames});
    sum_offsets(p);
}

inline void camera_draw_pictures(const Sensor& p, const Pictures& pictures) {
    for_each_item<draw_pictures>(p.samples, p.threads, CameraPictures{p, pictures});
    sum_offsets(p);
}

struct CameraWrite {
    const Sensor& sensor;
    int32_t* indices;
};

inline void write_camera(const CameraWrite& to, int64_t b) {
    const Sensor& p = to.sensor;
    const int64_t groups = ceil_div(p.width, kPixelGroup), rows = 2 * p.height;
    int32_t* out = to.indices + p.offsets[b * p.steps];
    // append() may not write past `end`: another thread may be writing right after the sample's events.
    const int32_t* end = to.indices + p.offsets[(b + 1) * p.steps];
    const uint16_t* fired = p.fired + b * p.steps * rows * groups;
    for (int64_t t = 0; t < p.steps; ++t)
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t group = 0; group < groups; ++group, ++fired)
                if (*fired) out += append(pixels_from(row * p.width + group * kPixelGroup), *fired, out, end - out);
}

inline void camera_write(const Sensor& p, int32_t* indices) {
    for_each_item<write_camera>(p.samples, p.threads, CameraWrite{p, indices});
}
