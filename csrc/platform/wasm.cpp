// platform.h in WebAssembly: memory from the C library, one thread, and C++ exceptions rethrown in JavaScript.
#include <cstdlib>
#include <exception>
#include <typeinfo>

#include "aligned.h"
#include "platform.h"

namespace srcell {

void* map_pages(size_t bytes) { return std::aligned_alloc(kPage, bytes); }

void unmap_pages(void* pages, size_t) { std::free(pages); }

void lend_pages(void*, size_t) {}

void* allocate_aligned(size_t alignment, size_t bytes) { return std::aligned_alloc(alignment, bytes); }

void free_aligned(void* memory) { std::free(memory); }

const char* read_file(const char*, std::vector<unsigned char>&) { return "there are no files here"; }

void run_on_threads(int, void (*work)(void*), void* data) { work(data); }

void find_threads() {}

const char* thread_runtime() { return "none"; }

int forks() { return 0; }

}  // namespace srcell

// The compiler leaves out all exception handlers, because the C++ runtime cannot unwind the stack in WebAssembly. A C++
// exception therefore calls an imported function that throws an Error in JavaScript. Destructors do not run, so memory
// is leaked; docs/_static/play/srcell.js restores the stack pointer.
extern "C" {

[[noreturn]] __attribute__((import_module("srcell"), import_name("refuse"))) void srcell_refuse(const char* text);

void* __cxa_allocate_exception(size_t bytes) {
    if (void* memory = std::malloc(bytes)) return memory;
    srcell_refuse("no memory left");
}

// All exceptions in csrc derive from std::exception alone, so the thrown object can be used as one.
[[noreturn]] void __cxa_throw(void* thrown, std::type_info*, void (*)(void*)) {
    srcell_refuse(static_cast<const std::exception*>(thrown)->what());
}
}
