// Keeps the allocations, and replaces posix_memalign() and free() in a process that preloads this library.
#include "memory.h"

#include <dlfcn.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>

namespace ptx {
namespace {

constexpr size_t kPage = 4096;

// Never freed: other libraries free memory after this one has ended.
struct Live {
    std::mutex mutex;
    std::map<uintptr_t, std::unique_ptr<Allocation>> by_begin;
};
Live& live() {
    static Live& made = *new Live;
    return made;
}

// The system's functions. Not a static variable with a guard: looking a name up may itself allocate and free.
template <class Function>
Function* system_function(Function*& known, const char* name) {
    if (!known) known = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
    return known;
}

int system_memalign(void** made, size_t alignment, size_t size) {
    static int (*known)(void**, size_t, size_t) = nullptr;
    return system_function(known, "posix_memalign")(made, alignment, size);
}

void system_free(void* at) {
    static void (*known)(void*) = nullptr;
    system_function(known, "free")(at);
}

}  // namespace

bool Accesses::collide_with(const Access& by) const {
    if (!thread) return false;
    if (several_blocks || !by.in_block(thread)) return true;
    return phase == by.phase && (several_threads || thread != by.thread);
}

void Accesses::add(const Access& by) {
    if (thread) {
        several_blocks |= !by.in_block(thread);
        several_threads = phase == by.phase && (several_threads || thread != by.thread);
    }
    thread = by.thread;
    phase = by.phase;
}

const char* touch(Byte& byte, const Access& by, How how) {
    if (byte.launch != by.launch) byte = {by.launch, {}, {}, {}};
    const bool written = byte.writes.collide_with(by) || (how != How::atomic && byte.atomics.collide_with(by));
    if (how == How::read) {
        byte.reads.add(by);
        return written ? "race: read after write" : nullptr;
    }
    const bool read = byte.reads.collide_with(by);
    (how == How::write ? byte.writes : byte.atomics).add(by);
    return written ? "race: write after write" : read ? "race: write after read" : nullptr;
}

Allocation* allocation_near(uintptr_t at) {
    const std::lock_guard lock(live().mutex);
    const auto& all = live().by_begin;
    const auto after = all.upper_bound(at);
    if (after != all.end() && at >= after->first - after->second->margin) return after->second.get();
    if (after == all.begin()) return nullptr;
    Allocation& before = *std::prev(after)->second;
    return before.contains(at - std::min(at - uintptr_t(before.begin), before.margin), 0) ? &before : nullptr;
}

void* allocate(size_t size) {
    if (size > SIZE_MAX / 4) return nullptr;
    const size_t margin = (size / kPage + 1) * kPage;
    void* base = nullptr;
    if (system_memalign(&base, kPage, size + 2 * margin)) return nullptr;
    char* const begin = static_cast<char*>(base) + margin;
    std::memset(begin, 0xFF, size);
    auto made = std::make_unique<Allocation>(Allocation{begin, size, margin, {}});
    const std::lock_guard lock(live().mutex);
    live().by_begin[reinterpret_cast<uintptr_t>(begin)] = std::move(made);
    return begin;
}

bool release(void* at) {
    const auto begin = reinterpret_cast<uintptr_t>(at);
    if (begin % kPage) return false;
    // What leaves the map is freed without the lock: free() takes it.
    const auto gone = [&] {
        const std::lock_guard lock(live().mutex);
        return live().by_begin.extract(begin);
    }();
    if (gone) system_free(static_cast<char*>(at) - gone.mapped()->margin);
    return bool(gone);
}

}  // namespace ptx

extern "C" int posix_memalign(void** made, size_t alignment, size_t size) {
    if (alignment > ptx::kPage) return ptx::system_memalign(made, alignment, size);
    void* const begin = ptx::allocate(size);
    if (!begin) return ENOMEM;
    *made = begin;
    return 0;
}

extern "C" void free(void* at) {
    if (at && !ptx::release(at)) ptx::system_free(at);
}
