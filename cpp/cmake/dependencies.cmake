# What bptt is built with: Eigen's packets (headers only, seen by the kernels alone), OpenMP, threads.

# The suffix is where the cmeel-eigen wheel keeps its CMake files.
find_package(Eigen3 3.4 CONFIG REQUIRED PATH_SUFFIXES cmeel.prefix/share/eigen3/cmake)

find_package(Threads REQUIRED)

set(BPTT_OPENMP_TARGET)
if(BPTT_OPENMP)
  find_package(OpenMP COMPONENTS CXX)
  if(NOT OpenMP_CXX_FOUND)
    message(FATAL_ERROR
      "bptt: the C++ compiler ${CMAKE_CXX_COMPILER} has no OpenMP. GCC brings it along; Clang needs "
      "libomp (Debian: libomp-dev, macOS: brew install libomp). To build for one thread only, "
      "configure with -DBPTT_OPENMP=OFF (pip: --config-settings=cmake.define.BPTT_OPENMP=OFF).")
  endif()
  set(BPTT_OPENMP_TARGET OpenMP::OpenMP_CXX)
endif()
