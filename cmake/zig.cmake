# A toolchain for other systems: zig's clang, for the target ZIG_TARGET. `pip install ziglang` in the environment that is
# on PATH.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ZIG_TARGET)
string(REPLACE "-" ";" parts "${ZIG_TARGET}")
list(GET parts 0 CMAKE_SYSTEM_PROCESSOR)
list(GET parts 1 system)
set(systems wasi WASI macos Darwin windows Windows linux Linux)
list(FIND systems ${system} at)
if(at EQUAL -1)
  message(FATAL_ERROR "ZIG_TARGET: expected a target such as wasm32-wasi, got ${ZIG_TARGET}")
endif()
math(EXPR at "${at} + 1")
list(GET systems ${at} CMAKE_SYSTEM_NAME)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)  # zig builds a system's libraries for what is linked, which takes long
find_program(zig python-zig REQUIRED)
# zig makes the system's libraries once for each kind of optimisation: that of the module serves CMake's first programs.
if(CMAKE_SYSTEM_NAME STREQUAL "WASI")
  set(optimised -Os)
endif()
set(CMAKE_C_COMPILER ${zig} cc -target ${ZIG_TARGET} ${optimised})
set(CMAKE_CXX_COMPILER ${zig} c++ -target ${ZIG_TARGET} ${optimised})
# CMake calls these without arguments of their own.
foreach(tool ar ranlib rc)
  file(WRITE ${CMAKE_BINARY_DIR}/zig-${tool} "#!/bin/sh\nexec '${zig}' ${tool} \"$@\"\n")
  file(CHMOD ${CMAKE_BINARY_DIR}/zig-${tool} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
  string(TOUPPER ${tool} variable)
  set(CMAKE_${variable} ${CMAKE_BINARY_DIR}/zig-${tool})
endforeach()
set(CMAKE_RC_COMPILER ${CMAKE_RC})
