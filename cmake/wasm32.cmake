# WebAssembly by zig's clang. `pip install ziglang` in the environment that is on PATH.
set(CMAKE_SYSTEM_NAME WASI)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
find_program(zig python-zig REQUIRED)
set(CMAKE_C_COMPILER ${zig} cc -target wasm32-wasi)
set(CMAKE_CXX_COMPILER ${zig} c++ -target wasm32-wasi)
# CMake calls these without arguments of their own.
foreach(tool ar ranlib)
  file(WRITE ${CMAKE_BINARY_DIR}/zig-${tool} "#!/bin/sh\nexec '${zig}' ${tool} \"$@\"\n")
  file(CHMOD ${CMAKE_BINARY_DIR}/zig-${tool} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
  string(TOUPPER ${tool} variable)
  set(CMAKE_${variable} ${CMAKE_BINARY_DIR}/zig-${tool})
endforeach()
