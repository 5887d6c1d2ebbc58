# For C++ applications: headers, library and `find_package(bptt CONFIG)`. A wheel takes none of it
# (it takes the component "python" only).
include(CMakePackageConfigHelpers)

set(BPTT_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/bptt)

install(TARGETS bptt EXPORT bpttTargets COMPONENT cpp)
install(DIRECTORY cpp/include/bptt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT cpp
        FILES_MATCHING PATTERN "*.hpp")
install(EXPORT bpttTargets NAMESPACE bptt:: DESTINATION ${BPTT_CMAKE_DIR} COMPONENT cpp)

configure_package_config_file(cpp/cmake/bpttConfig.cmake.in bpttConfig.cmake
  INSTALL_DESTINATION ${BPTT_CMAKE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(bpttConfigVersion.cmake
  VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/bpttConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/bpttConfigVersion.cmake
        DESTINATION ${BPTT_CMAKE_DIR} COMPONENT cpp)
