# For C++ applications: headers, library, `find_package(bptt CONFIG)` and a file for pkg-config. A wheel takes
# it too, next to the Python extension.
include(CMakePackageConfigHelpers)

set(BPTT_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/bptt)
set(BPTT_PC_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(TARGETS bptt EXPORT bpttTargets COMPONENT cpp)
install(DIRECTORY cpp/include/bptt ${CMAKE_CURRENT_BINARY_DIR}/include/bptt
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT cpp FILES_MATCHING PATTERN "*.hpp")
install(EXPORT bpttTargets NAMESPACE bptt:: DESTINATION ${BPTT_CMAKE_DIR} COMPONENT cpp)

configure_package_config_file(cpp/cmake/bpttConfig.cmake.in bpttConfig.cmake
  INSTALL_DESTINATION ${BPTT_CMAKE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(bpttConfigVersion.cmake
  VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/bpttConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/bpttConfigVersion.cmake
        DESTINATION ${BPTT_CMAKE_DIR} COMPONENT cpp)

# Relative to its own place, so that the installed tree may be moved.
file(RELATIVE_PATH BPTT_PC_TO_PREFIX /${BPTT_PC_DIR} /)
string(REGEX REPLACE "/$" "" BPTT_PC_TO_PREFIX "${BPTT_PC_TO_PREFIX}")
set(BPTT_PC_CFLAGS)
set(BPTT_PC_LIBS_PRIVATE)
if(BPTT_IS_STATIC)
  set(BPTT_PC_CFLAGS " -DBPTT_STATIC")
  string(STRIP "${OpenMP_CXX_FLAGS} ${CMAKE_THREAD_LIBS_INIT}" BPTT_PC_LIBS_PRIVATE)
endif()
configure_file(cpp/cmake/bptt.pc.in bptt.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/bptt.pc DESTINATION ${BPTT_PC_DIR} COMPONENT cpp)
