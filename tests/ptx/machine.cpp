// The threads of a launch. A thread is interpreted alone until it ends or waits at a barrier, or for a few instructions
// where the order is interleaved; blocks follow each other. There are no warps: srcell's PTX has no instruction that
// knows them. Every access to memory is checked before it is made; one that is wrong is reported and made elsewhere.
#include "machine.h"

#include <immintrin.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "memory.h"
#include "report.h"
#include "settings.h"

namespace ptx {
namespace {

constexpr int64_t kMostSteps = 50'000'000;   // of a thread between two barriers: far more than any kernel's
constexpr int64_t kMostSlice = 24;           // instructions of a thread in a row, where threads are interleaved
constexpr uint32_t kLeastAddress = 1 << 16;  // below it, a pointer is null or an offset to it

// Numbers of launches and blocks that touch memory, from 1.
uint32_t numbered = 0;

struct Thread {
    int next = 0;
    bool waits = false, done = false;
    Slot* registers = nullptr;
};

struct SharedMemory {
    std::vector<char> bytes;
    std::vector<bool> written;
    std::vector<Byte> seen;
    explicit SharedMemory(size_t size) : bytes(size), written(size), seen(size) {}
};

class Launch {
  public:
    Launch(Kernel& of, int64_t count, int each, int64_t shared_bytes, const char* given)
        : kernel(of),
          blocks(count),
          threads(each),
          parameters(given, given + of.parameter_bytes),
          shared(static_cast<size_t>(shared_bytes)),
          // Threads that never wait for each other use one after the other the same registers.
          together(of.has_barrier || settings().order == Order::interleaved),
          registers(of.registers.size() * static_cast<size_t>(together ? each : 1)),
          all(static_cast<size_t>(each)),
          number(++numbered) {}

    bool run() {
        bool ended = true;
        for (const int64_t block : in_order(blocks)) {
            begin(block);
            ended = ended && run_block();
        }
        count_launch(steps);
        return ended;
    }

  private:
    static Random& random() {
        static Random made(1);
        return made;
    }

    // 0 to count - 1, in the order that the settings ask for.
    static std::vector<int64_t> in_order(int64_t count) {
        std::vector<int64_t> made(static_cast<size_t>(count));
        std::iota(made.begin(), made.end(), 0);
        if (settings().order == Order::descending) std::reverse(made.begin(), made.end());
        if (settings().order >= Order::random) std::shuffle(made.begin(), made.end(), random());
        return made;
    }

    void begin(int64_t block) {
        running() = {&kernel, block, 0};
        phase = 1;
        number_of_block = ++numbered;
        std::fill(shared.bytes.begin(), shared.bytes.end(), '\xFF');
        std::fill(shared.written.begin(), shared.written.end(), false);
        for (size_t n = 0; n < all.size(); ++n)
            all[n] = {0, false, false, registers.data() + (together ? n * kernel.registers.size() : 0)};
        if (together)
            for (int n = 0; n < threads; ++n) begin_thread(n);
    }

    void begin_thread(int n) {
        Slot* const own = all[static_cast<size_t>(n)].registers;
        std::copy(kernel.registers.begin(), kernel.registers.end(), own);
        own[kThread] = static_cast<Slot>(n);
        own[kThreads] = static_cast<Slot>(threads);
        own[kBlock] = static_cast<Slot>(running().block);
        own[kBlocks] = static_cast<Slot>(blocks);
    }

    bool run_block() {
        for (;;) {
            if (!(settings().order == Order::interleaved ? run_interleaved() : run_in_turn())) return false;
            int64_t waiting = 0;
            std::set<int> places;
            for (Thread& thread : all)
                if (thread.waits) {
                    ++waiting;
                    places.insert(thread.next);
                    thread.waits = false;
                }
            if (!waiting) return true;
            const Instruction& barrier = kernel.code[static_cast<size_t>(*places.begin() - 1)];
            // CUDA would wait only for the threads that have not ended; srcell's kernels need no such barrier.
            if (waiting < threads)
                report_defect("a barrier that not all threads reach", &barrier, std::to_string(waiting) + " wait");
            if (places.size() > 1) report_defect("threads wait at different barriers", &barrier);
            ++phase;
        }
    }

    bool run_in_turn() {
        for (const int64_t n : in_order(threads)) {
            if (all[static_cast<size_t>(n)].done) continue;
            if (!together) begin_thread(static_cast<int>(n));
            if (!run_thread(static_cast<int>(n), kMostSteps)) return too_long();
        }
        return true;
    }

    bool run_interleaved() {
        std::vector<int> ready;
        for (int n = 0; n < threads; ++n)
            if (!all[static_cast<size_t>(n)].done) ready.push_back(n);
        const uint64_t most = steps + static_cast<uint64_t>(kMostSteps) * ready.size();
        while (!ready.empty()) {
            const size_t at = random()() % ready.size();
            if (run_thread(ready[at], 1 + static_cast<int64_t>(random()() % kMostSlice))) {
                ready[at] = ready.back();
                ready.pop_back();
            }
            if (steps > most) return too_long();
        }
        return true;
    }

    bool too_long() {
        report_defect("a thread that does not end");
        return false;
    }

    // Runs a thread until it waits or ends; false if it has done neither after so many instructions.
    bool run_thread(int n, int64_t most) {
        running().thread = n;
        Thread& thread = all[static_cast<size_t>(n)];
        Slot* const own = thread.registers;
        Instruction* const code = kernel.code.data();
        int next = thread.next;
        const auto leave = [&](int64_t left, bool ended) {
            thread.next = next;
            steps += static_cast<uint64_t>(most - left);
            return ended;
        };
        for (int64_t left = most; left > 0; --left) {
            Instruction& at = code[next];
            ++next;
            if (at.predicate >= 0 && bool(own[at.predicate]) == at.unless) continue;
            at.ran = true;
            switch (at.kind) {
                case Kind::compute:
                    at.operation(own, at);
                    break;
                case Kind::branch:
                    next = at.target;
                    break;
                case Kind::leave:
                    thread.done = true;
                    return leave(left - 1, true);
                case Kind::barrier:
                    thread.waits = true;
                    return leave(left - 1, true);
                case Kind::load:
                    load(own, at);
                    break;
                case Kind::store:
                    store(own, at);
                    break;
                case Kind::atomic:
                    change(own, at);
                    break;
            }
        }
        return leave(0, false);
    }

    // ---- memory ----

    void load(Slot* own, Instruction& at) {
        const char* const from = checked(own, at, How::read);
        for (int n = 0; n < at.count; ++n) {
            Slot value = 0;
            std::memcpy(&value, from + n * at.bytes, at.bytes);
            const int above = 64 - 8 * at.bytes;
            if (at.is_signed) value = static_cast<Slot>(static_cast<int64_t>(value << above) >> above);
            own[at.elements[n]] = value;
        }
    }

    void store(const Slot* own, Instruction& at) {
        char* const to = checked(own, at, How::write);
        for (int n = 0; n < at.count; ++n) std::memcpy(to + n * at.bytes, &own[at.elements[n]], at.bytes);
    }

    void change(Slot* own, Instruction& at) {
        char* const where = checked(own, at, How::atomic);
        Slot values[] = {0, 0, own[at.b]};  // the new value, the old one, and the operand
        std::memcpy(&values[1], where, at.bytes);
        Instruction change;
        change.a = 1;
        change.b = 2;
        at.operation(values, change);
        std::memcpy(where, &values[0], at.bytes);
        own[at.d] = values[1];
    }

    // Where an access goes once it is checked; what is out of bounds goes to memory that nobody has.
    char* checked(const Slot* own, Instruction& at, How how) {
        const int64_t bytes = int64_t(at.bytes) * at.count;
        uint64_t address = own[at.a] + static_cast<uint64_t>(at.offset);
        if (at.space == Space::shared) address = static_cast<uint32_t>(address);
        if (address % static_cast<uint64_t>(bytes))
            report_defect("misaligned", &at, "address " + std::to_string(address % 64) + " modulo 64");
        char* found = nullptr;
        switch (at.space) {
            case Space::parameter:
                found = within(parameters, address, bytes, at, "parameter");
                break;
            case Space::shared:
                found = within(shared.bytes, address, bytes, at, "shared memory");
                if (found) check_shared(address, bytes, at, how);
                break;
            case Space::global:
                found = global(address, bytes, at, how);
                break;
        }
        static char nowhere[64];
        if (!found) std::memset(nowhere, 0xFF, sizeof nowhere);
        return found ? found : nowhere;
    }

    static char* within(std::vector<char>& memory, uint64_t address, int64_t bytes, const Instruction& at,
                        const char* name) {
        if (address <= memory.size() && static_cast<size_t>(bytes) <= memory.size() - address)
            return memory.data() + address;
        report_defect(std::string(name) + " out of bounds", &at,
                      "byte " + std::to_string(address) + " of " + std::to_string(memory.size()));
        return nullptr;
    }

    Access access(uint32_t launch) const {
        const auto first = static_cast<uint32_t>(running().block * threads + 1);
        return {launch, first + static_cast<uint32_t>(running().thread), first, static_cast<uint32_t>(threads), phase};
    }

    static void note(Byte* first, int64_t bytes, const Access& by, How how, const Instruction& at) {
        const char* wrong = nullptr;
        for (int64_t n = 0; n < bytes; ++n)
            if (const char* race = touch(first[n], by, how)) wrong = race;
        if (wrong) report_defect(wrong, &at);
    }

    void check_shared(uint64_t address, int64_t bytes, const Instruction& at, How how) {
        const auto first = static_cast<size_t>(address), end = first + static_cast<size_t>(bytes);
        for (size_t n = first; n < end; ++n) {
            if (how == How::read && !shared.written[n]) {
                report_defect("shared memory read before it is written", &at, "byte " + std::to_string(n));
                break;
            }
            shared.written[n] = true;
        }
        note(&shared.seen[first], bytes, access(number_of_block), how, at);
    }

    char* global(uint64_t address, int64_t bytes, Instruction& at, How how) {
        if (at.found_in != number || !at.allocation->contains(address, static_cast<size_t>(bytes))) {
            at.found_in = 0;
            Allocation* const near = address < kLeastAddress ? nullptr : allocation_near(address);
            if (!near || !near->contains(address, static_cast<size_t>(bytes))) {
                const char* what = address < kLeastAddress ? "null pointer"
                                   : near                  ? "global memory out of bounds"
                                                           : "memory that nobody allocated";
                const auto offset = static_cast<int64_t>(address - (near ? uint64_t(near->begin) : 0));
                report_defect(
                    what, &at,
                    "byte " + std::to_string(offset) + (near ? " of " + std::to_string(near->size) : std::string()));
                return nullptr;
            }
            if (near->bytes.empty()) near->bytes.resize(near->size);
            at.allocation = near;
            at.found_in = number;
        }
        const size_t first = address - reinterpret_cast<uintptr_t>(at.allocation->begin);
        note(&at.allocation->bytes[first], bytes, access(number), how, at);
        return at.allocation->begin + first;
    }

    Kernel& kernel;
    const int64_t blocks;
    const int threads;
    std::vector<char> parameters;
    SharedMemory shared;
    const bool together;
    std::vector<Slot> registers;
    std::vector<Thread> all;
    const uint32_t number;
    uint32_t number_of_block = 0, phase = 1;
    uint64_t steps = 0;
};

}  // namespace

bool run(Kernel& kernel, int64_t blocks, int threads, int64_t shared_bytes, const char* parameters) {
    ++kernel.launches;
    const unsigned control = _mm_getcsr();
    _mm_setcsr(0x1F80);  // denormal numbers count, whatever this thread has set
    const bool ended = Launch(kernel, blocks, threads, shared_bytes, parameters).run();
    _mm_setcsr(control);
    running() = {};
    return ended;
}

}  // namespace ptx
