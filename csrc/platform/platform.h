// The services of the operating system: pages of memory, files, threads, mutual exclusion. The .cpp files beside this
// header implement them (CMakeLists.txt chooses those of the system). No other code in csrc calls the system or looks
// for its libraries, except bindings/gil.c. Knows nothing about kernels, or about what memory and threads are used for.
#pragma once

#include <cstddef>
#include <vector>

#if !defined(__wasm__)
#include <mutex>
#endif

namespace srcell {

// Memory is allocated in pages of this size and aligned to it. On Linux these are huge pages: the first touch of fresh
// pages costs more than a forward pass over them.
#if defined(__wasm__) || defined(_WIN32)
constexpr size_t kPage = size_t(64) << 10;
#else
constexpr size_t kPage = size_t(2) << 20;
#endif

// Returns `bytes`, a multiple of kPage, of uninitialised memory, or null on failure.
void* map_pages(size_t bytes);
void unmap_pages(void* pages, size_t bytes);
// Until the pages are written again, lets the system take them back, and their contents with them.
void lend_pages(void* pages, size_t bytes);

#if defined(__wasm__)
// There is only one thread.
struct Mutex {
    void lock() {}
    bool try_lock() { return true; }
    void unlock() {}
};
#else
using Mutex = std::mutex;
#endif

// Replaces `bytes` by the contents of a file. Returns null on success, otherwise the reason why the file cannot be
// read.
const char* read_file(const char* path, std::vector<unsigned char>& bytes);

// Replaces a file by these bytes, whole or not at all; a link stays, and a pipe or a device is written to. Returns null
// on success, otherwise the reason why the file cannot be written. Not in WebAssembly.
const char* write_file(const char* path, const void* bytes, size_t size);

// Calls work(data) on `threads` threads, including the caller's, and returns when all are done. If the system allows no
// more threads, fewer take part, so `work` must claim its items dynamically.
//
// On Linux the threads come from the OpenMP runtime that torch has already loaded, found in the running process: a
// second pool would compete for the cores with torch's idle workers, which spin. The threads come from pool.h if no
// runtime is loaded, in a forked child (where an OpenMP runtime may hang), and if the environment variable
// SRCELL_THREADS is "std".
void run_on_threads(int threads, void (*work)(void* data), void* data);

// Looks for an OpenMP runtime again: torch may have been loaded after the first call.
void find_threads();

// Where these threads come from: "openmp", "std", or "none" if there is only the caller's.
const char* thread_runtime();

// fork() calls since the first caller: 0 in its process, 1 in its children; 0 on systems without fork().
int forks();

}  // namespace srcell
