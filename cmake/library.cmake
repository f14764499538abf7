# libsrcell, shared and static, with srcell.h and a CMake package: find_package(srcell), then link srcell::srcell or
# srcell::static.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(sources csrc/runtime/srcell.cpp ${SRCELL_RUNTIME} ${SRCELL_CPU} ${SRCELL_KERNELS})
foreach(kind shared static)
  string(TOUPPER ${kind} type)
  add_library(libsrcell_${kind} ${type} ${sources})
  set_target_properties(libsrcell_${kind} PROPERTIES OUTPUT_NAME srcell EXPORT_NAME ${kind})
  target_compile_definitions(libsrcell_${kind} PRIVATE SRCELL_VERSION="${SRCELL_VERSION}" SRCELL_BUILDS_LIBRARY)
  target_include_directories(libsrcell_${kind} PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc/runtime>
                                                      $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(libsrcell_${kind} PRIVATE ${SRCELL_SYSTEM_LIBRARIES})
endforeach()
if(CMAKE_IMPORT_LIBRARY_SUFFIX STREQUAL CMAKE_STATIC_LIBRARY_SUFFIX)  # where srcell.lib belongs to the DLL
  set_target_properties(libsrcell_static PROPERTIES OUTPUT_NAME srcell_static)
endif()
# Its interface is C, so a program needs no C++ library of its own.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  set(exports ${CMAKE_CURRENT_SOURCE_DIR}/csrc/runtime/exports.map)
  target_link_options(libsrcell_shared PRIVATE -static-libstdc++ -static-libgcc LINKER:--version-script=${exports}
                      LINKER:-z,nodelete)  # threads of the pool outlive a dlclose()
  set_target_properties(libsrcell_shared PROPERTIES LINK_DEPENDS ${exports})
endif()
set_target_properties(libsrcell_shared PROPERTIES EXPORT_NAME srcell SOVERSION 0 VERSION ${PROJECT_VERSION})

install(TARGETS libsrcell_shared libsrcell_static EXPORT srcell)
install(FILES csrc/runtime/srcell.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/srcell)
install(EXPORT srcell NAMESPACE srcell:: FILE srcell-targets.cmake DESTINATION ${package})
configure_package_config_file(cmake/srcell-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/srcell-config.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/srcell-config-version.cmake VERSION ${PROJECT_VERSION}
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/srcell-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/srcell-config-version.cmake
        DESTINATION ${package})
